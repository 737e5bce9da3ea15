"""Can a damaged chunk crash the decoder, hang it, or pass for another sequence?

A million chunks (the short form: 60,000) with damage of every kind, most with checksums made right again, go through
the decoder in processes that are watched: a process that dies or stands still is a finding, with the seed and number of
the case that did it (``python -m perf.mutants --seed S --first N --count 1`` does it again). See :mod:`perf.mutants`.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from perf.harness import Report, Section, Settings, run_bench
from perf.report import Cell

STUCK_S = 60.0
"""A process that has been at one case for so long hangs."""


class FuzzError(RuntimeError):
    """The decoder crashed, hung, or passed off damage as a sequence."""


def fuzz(count: int, seed: int, scratch: Path, processes: int = 1) -> Counter[str]:
    """Run so many cases; counts by outcome.

    Raises:
        FuzzError: at the first finding.

    """
    bounds = [count * part // processes for part in range(processes + 1)]
    running = []
    for number in range(processes):
        progress = scratch / f"case-{number}"
        progress.write_bytes(struct.pack("<q", -1))
        command = [
            sys.executable, "-m", "perf.mutants", "--seed", str(seed), "--first", str(bounds[number]),
            "--count", str(bounds[number + 1] - bounds[number]), "--progress", str(progress),
        ]  # fmt: skip
        running.append((subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), progress))
    try:
        _watch([(process, progress) for process, progress in running])
        counts: Counter[str] = Counter()
        for process, progress in running:
            out, complaint = process.communicate()
            if process.returncode:
                raise FuzzError(_describe(process.returncode, progress, seed, complaint))
            counts.update(json.loads(out))
        return counts
    finally:
        for process, _ in running:
            process.kill()
            process.wait()


def _watch(running: list[tuple[subprocess.Popen[str], Path]]) -> None:
    """Until all have ended; fails when one makes no progress. A first case may compile: it has ten times as long."""
    seen = [(-1, time.monotonic()) for _ in running]
    while any(process.poll() is None for process, _ in running):
        time.sleep(0.2)
        for index, (process, progress) in enumerate(running):
            case, now = _case(progress), time.monotonic()
            if case != seen[index][0]:
                seen[index] = (case, now)
            elif process.poll() is None and now - seen[index][1] > STUCK_S * (10 if case < 1 else 1):
                raise FuzzError(f"case {case} does not end")


def _case(progress: Path) -> int:
    number: int = struct.unpack("<q", progress.read_bytes())[0]
    return number


def _describe(code: int, progress: Path, seed: int, complaint: str) -> str:
    what = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return f"{what} at case {_case(progress)} of seed {seed}: {complaint.strip()[-2000:]}"


def measure(settings: Settings) -> Report:
    """Run the cases and count what came of them."""
    count = settings.pick(60_000, 1_000_000)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    counts = fuzz(count, settings.seed, settings.scratch, min(2, cores))
    rows: list[dict[str, Cell]] = [{"outcome": outcome, "chunks": found} for outcome, found in counts.most_common()]
    return Report(
        sections=[Section(f"{count:,} damaged chunks: no crash, no hang, no byte out of bounds", rows)],
        facts={"outcomes": dict(counts), "chunks": count},
    )


if __name__ == "__main__":
    run_bench("fuzz", __doc__, measure)
