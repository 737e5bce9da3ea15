"""One way of :mod:`perf.access` in a process of its own: builds and checks forms, or reads them when asked.

``python -m perf.access_process build WAY ORDER CASE ...`` makes the form of each case (a folder), reads all of its
examples once and compares them with the log; a JSON line for each says how many bytes the form has. A way that cannot
run here says ``{"missing": why}``.

``python -m perf.access_process serve WAY ORDER CASE`` opens the form, says ``{"ready": …}``, and then answers every
JSON line ``{"calls": n, "examples": m}`` by reading the first ``m`` examples of ``n`` batches, one after the other.
Answers give seconds by the clock, seconds of processor time of the process and its children, and how much memory was
resident at most since its packages were imported, and how much was just before.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perf.access import WAYS
from perf.cases import RANDOM, Case, Read, Way


def main() -> None:
    """Build or serve."""
    do, name, order, *folders = sys.argv[1:]
    way = WAYS[name]
    missing = way.why_missing()
    if missing is not None:
        _say({"missing": missing})
    elif do == "build":
        for folder in folders:
            _say({"bytes": build(way, name, Case.load(Path(folder)), order), "versions": way.versions()})
    else:
        serve(way, name, Case.load(Path(folders[0])), order)


def build(way: Way, name: str, case: Case, order: str) -> int:
    """Make a form, where it is not there yet, and compare all that it gives with the log; its bytes.

    Raises:
        RuntimeError: where a column that was read differs from the log's.

    """
    folder = way.folder(case, name)
    if not folder.exists():
        way.build(case, folder)
    check(case, way.open(case, folder), _batches(way, case, order), few=name.startswith("CSV"))
    files = [*folder.rglob("*")] if way.per_example or any(folder.iterdir()) else case.log_folder.glob("[!.]*.npy")
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file() and file.name != "lock.mdb")


def _batches(way: Way, case: Case, order: str) -> list[NDArray[np.int64]]:
    return case.batches(shuffled=order == RANDOM and not way.as_they_lie)


def check(case: Case, read: Read, batches: list[NDArray[np.int64]], few: bool = False) -> None:
    """Read these batches (or the first examples of the first) and compare them with the log."""
    for ids in batches[: 1 if few else None]:
        some = ids[:8] if few else ids
        for name, found in zip(case.columns, read(some), strict=True):
            expected = case.expected(name, some)
            if found.dtype != expected.dtype or not np.array_equal(found, expected):
                raise RuntimeError(f"column {name!r} of {len(some)} examples differs from the log")


def serve(way: Way, name: str, case: Case, order: str) -> None:
    """Answer until the input ends."""
    batches = _batches(way, case, order)
    before, mapped = _memory("VmRSS"), _memory("RssFile")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    read = way.open(case, way.folder(case, name))
    _say({"ready": True, "baseline_bytes": before})
    for line in sys.stdin:
        asked = json.loads(line)
        begin, used = time.perf_counter(), _processor_s()
        for call in range(asked["calls"]):
            read(batches[call % len(batches)][: asked["examples"]])
        _say(
            {
                "seconds": time.perf_counter() - begin, "processor_s": _processor_s() - used,
                "peak_bytes": _memory("VmHWM"), "mapped_bytes": _memory("RssFile") - mapped, "baseline_bytes": before,
            }
        )  # fmt: skip


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _processor_s() -> float:
    mine, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + others.ru_utime + others.ru_stime


def _memory(field: str) -> int:
    """A field of ``/proc/self/status``, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
