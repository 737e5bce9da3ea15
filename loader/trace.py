"""A pass as a Chrome trace: which thread did which stage of which batch when, and when the consumer waited.

The file opens in Perfetto (ui.perfetto.dev) and in chrome://tracing. It is written when the pass ends; at most
:data:`MOST` spans are kept, the newest. What a worker process read is shown on the thread that asked for it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

MOST = 200_000


class Trace:
    """Spans of one pass.

    Args:
        path: of the file that :meth:`write` makes.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started_s = time.perf_counter()
        self._spans: deque[tuple[str, int, str, float, float]] = deque(maxlen=MOST)

    def add(self, name: str, batch: int, start_s: float, took_s: float) -> None:
        """Note what the calling thread did."""
        self._spans.append((name, batch, threading.current_thread().name, start_s, took_s))

    def write(self) -> None:
        """Write the file, whole or not at all."""
        spans = list(self._spans)
        threads = {name: number for number, name in enumerate(sorted({span[2] for span in spans}), 1)}
        pid = os.getpid()
        events: list[dict[str, Any]] = [
            {"name": "thread_name", "ph": "M", "pid": pid, "tid": number, "args": {"name": name}}
            for name, number in threads.items()
        ]
        events += [
            {
                "name": name, "cat": "loader", "ph": "X", "pid": pid, "tid": threads[thread],
                "ts": round((start_s - self._started_s) * 1e6, 1), "dur": round(took_s * 1e6, 1),
                "args": {"batch": batch},
            }
            for name, batch, thread, start_s, took_s in spans
        ]  # fmt: skip
        aside = self._path.with_name(f".{self._path.name}.{pid}")
        aside.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))
        aside.replace(self._path)
