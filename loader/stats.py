"""Where a loader's time goes: typed numbers for each stage, and which of them limits.

A :class:`Meter` is filled by the lanes (stage times) and by the consumer (waits); :meth:`Meter.read` gives
a frozen :class:`LoaderStats` at any time. Times are seconds of the wall clock, sizes bytes in memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loader.reading import Reading
    from loader.trace import Trace

from torch._C._autograd import _profiler_enabled
from torch.profiler import record_function

from loader.freshness import Freshness

CONSUMER = "consumer"
"""What limits when the trainer hardly ever waits."""

_NEWEST = 1024
"""Batches whose times count for percentiles."""

_LITTLE_WAIT = 0.05
"""Wait share below which the trainer, and no stage, sets the pace."""


@dataclass(frozen=True, slots=True)
class StageStats:
    """Times of one stage, in seconds.

    Attributes:
        name: of the stage.
        count: batches that it did.
        total_s: over all batches and threads.
        mean_s: of a batch.
        p90_s, p99_s: of the newest batches, what 90 and 99 % of them do not exceed.
        max_s: of the slowest batch.
        busy_share: ``total_s`` of the time that the stage's threads had; 1.0: never idle.

    """

    name: str
    count: int
    total_s: float
    mean_s: float
    p90_s: float
    p99_s: float
    max_s: float
    busy_share: float


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """One pass over a loader: the newest, until now or until its end.

    Attributes:
        stages: in their order.
        batches: handed to the consumer.
        examples: in these, on this rank.
        events: in these, of all tenants.
        bytes: of these batches' tensors, which is what goes to a device.
        bytes_saved: by which these would be more if no two examples and tenants shared events (``dedup=True``).
        bytes_read: of stored blocks, by all reads until now, also those of batches made ahead.
        bytes_decoded: out of these.
        chunks_asked: chunks and tails that the reads' pointers needed, once for each pointer.
        chunks_read: those of them that were decoded; of the others, the chunk was one that another pointer of the batch
            needed too, or was ruled out by its zones.
        elapsed_s: from ``iter`` to the last hand-over.
        wait_s: seconds the consumer waited for batches.
        wait_share: ``wait_s / elapsed_s``.
        ready_mean: batches that lay ready when the consumer asked, on average; at most ``prefetch``.
        ready_share: how often at least one did: 1.0: the consumer was never kept waiting.
        limiting: the stage that takes longest, or ``"consumer"`` when it waited for less than 5 % of the time;
            ``""`` before the first batch.
        freshness: of a stream; None for other examples.

    """

    stages: tuple[StageStats, ...]
    batches: int
    examples: int
    events: int
    bytes: int
    bytes_saved: int
    bytes_read: int
    bytes_decoded: int
    chunks_asked: int
    chunks_read: int
    elapsed_s: float
    wait_s: float
    wait_share: float
    ready_mean: float
    ready_share: float
    limiting: str
    freshness: Freshness | None = None

    @property
    def examples_per_s(self) -> float:
        """Examples handed over a second."""
        return self.examples / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def events_per_s(self) -> float:
        """Events handed over a second."""
        return self.events / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def bytes_per_s(self) -> float:
        """Bytes of batches handed over a second."""
        return self.bytes / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def chunk_hits(self) -> float:
        """Share of the chunks asked for that were decoded for another pointer of the batch, or ruled out."""
        return 1 - self.chunks_read / self.chunks_asked if self.chunks_asked else 0.0

    def describe(self) -> dict[str, Any]:
        """The fields and rates by name, as plain values."""
        rates = ("examples_per_s", "events_per_s", "bytes_per_s", "chunk_hits")
        return {**asdict(self), **{name: getattr(self, name) for name in rates}}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a batch is, counted by the thread that made it.

    Attributes:
        examples: in it.
        events: of all tenants.
        bytes: of its tensors.
        saved: bytes by which these would be more in the plain form with nothing shared.

    """

    examples: int
    events: int
    bytes: int
    saved: int


def label(stage: str) -> AbstractContextManager[object]:
    """What is done inside is seen by torch's profiler, where one runs, by the stage's name."""
    return record_function(f"## loader.{stage} ##") if _profiler_enabled() else nullcontext()


class Meter:
    """Counters of one pass.

    Args:
        stages: names, in order.
        workers: threads that do them.
        trace: also notes each stage of each batch; None: no trace.

    """

    def __init__(self, stages: tuple[str, ...], workers: int, trace: Trace | None = None) -> None:
        self.trace = trace
        self._lock = threading.Lock()
        self._workers = workers
        self._times = {name: [0, 0.0, 0.0] for name in stages}
        self._newest: dict[str, deque[float]] = {name: deque(maxlen=_NEWEST) for name in stages}
        self._handed: deque[tuple[Sizes, int, float, float]] = deque()
        self._started_s = time.perf_counter()
        self._last_s = self._started_s
        self._batches = self._examples = self._events = self._bytes = self._saved = self._ready = 0
        self._found_ready = 0
        self._bytes_read = self._bytes_decoded = self._chunks_asked = self._chunks_read = 0
        self._wait_s = 0.0

    @contextmanager
    def timed(self, stage: str, batch: int) -> Iterator[None]:
        """Count what is inside as one batch of the stage, unless it raises; torch's profiler sees it by name."""
        start_s = time.perf_counter()
        with label(stage):
            yield
        took_s = time.perf_counter() - start_s
        with self._lock:
            self._count(stage, took_s)
        if self.trace is not None:
            self.trace.add(stage, batch, start_s, took_s)

    def count_read(self, stage: str, batch: int, reading: Reading) -> None:
        """Count a batch's reads, wherever they were made."""
        if self.trace is not None:
            self.trace.add(stage, batch, time.perf_counter() - reading.took_s, reading.took_s)
        with self._lock:
            self._count(stage, reading.took_s)
            for cost in reading.costs:
                self._bytes_read += cost.bytes_read
                self._bytes_decoded += cost.bytes_decoded
                self._chunks_asked += cost.chunks_considered
                self._chunks_read += cost.chunks_read

    def _count(self, stage: str, took_s: float) -> None:
        self._sum_up()
        times = self._times[stage]
        times[0] += 1
        times[1] += took_s
        times[2] = max(times[2], took_s)
        self._newest[stage].append(took_s)

    def handed_over(self, sizes: Sizes, ready: int, wait_s: float) -> None:
        """Note a batch that the consumer got, for which it waited so long and found so many ready.

        Summing up is left to the threads that make batches: the consumer has a step to do.
        """
        self._handed.append((sizes, ready, wait_s, time.perf_counter()))

    def _sum_up(self) -> None:
        while self._handed:
            sizes, ready, wait_s, self._last_s = self._handed.popleft()
            self._batches += 1
            self._examples += sizes.examples
            self._events += sizes.events
            self._bytes += sizes.bytes
            self._saved += sizes.saved
            self._ready += ready
            self._found_ready += ready > 0
            self._wait_s += wait_s

    def read(self) -> LoaderStats:
        """What was counted so far."""
        with self._lock:
            self._sum_up()
            elapsed_s = self._last_s - self._started_s
            alive_s = (time.perf_counter() - self._started_s) if not self._batches else elapsed_s
            stages = tuple(
                StageStats(
                    name, count, total_s, total_s / count if count else 0.0, *self._high(name), max_s,
                    min(1.0, total_s / (alive_s * self._workers)) if alive_s > 0 else 0.0,
                )
                for name, (count, total_s, max_s) in self._read_times()
            )  # fmt: skip
            wait_share = self._wait_s / elapsed_s if elapsed_s > 0 else 0.0
            limiting = ""
            if self._batches:
                slowest = max(stages, key=lambda stage: stage.total_s).name
                limiting = CONSUMER if wait_share < _LITTLE_WAIT else slowest
            return LoaderStats(
                stages=stages, batches=self._batches, examples=self._examples, events=self._events,
                bytes=self._bytes, bytes_saved=self._saved, bytes_read=self._bytes_read,
                bytes_decoded=self._bytes_decoded, chunks_asked=self._chunks_asked, chunks_read=self._chunks_read,
                elapsed_s=elapsed_s, wait_s=self._wait_s, wait_share=wait_share,
                ready_mean=self._ready / self._batches if self._batches else 0.0,
                ready_share=self._found_ready / self._batches if self._batches else 0.0, limiting=limiting,
            )  # fmt: skip

    def _high(self, stage: str) -> tuple[float, float]:
        newest = sorted(self._newest[stage])
        if not newest:
            return 0.0, 0.0
        return newest[(len(newest) - 1) * 9 // 10], newest[(len(newest) - 1) * 99 // 100]

    def _read_times(self) -> Iterator[tuple[str, tuple[int, float, float]]]:
        for name, (count, total_s, max_s) in self._times.items():
            yield name, (int(count), total_s, max_s)
