"""What a process and those it started hold and have used, as Linux's ``/proc`` tells it.

A process that ends while it is looked at counts as nothing. Memory is told in three ways: *resident* counts a page for
every process that maps it; *proportional* splits a page among those that map it, so that a sum over processes is what
they take together; *anonymous* leaves out files, such as a store's, whose pages the system takes back when it wants.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")

SLAB = "uihkv-loader"
"""In the name of memory that the loader's workers share with it."""


def list_tree(pid: int) -> list[int]:
    """The process and all that it started, directly or not, and that have not ended."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields and fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, begin = [pid], 0
    while begin < len(found):
        found += children.get(found[begin], [])
        begin += 1
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time of these processes, and of children of theirs that they have waited for."""
    return _TICK_S * sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(pid)))


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory: a page counts for each process that maps it."""
    return sum(_kilobytes(f"/proc/{pid}/status", "VmRSS") for pid in pids)


def proportional_bytes(pids: Iterable[int]) -> int:
    """Resident memory, a page split among all that map it."""
    return sum(_kilobytes(f"/proc/{pid}/smaps_rollup", "Pss") for pid in pids)


def own_bytes(pids: Iterable[int]) -> int:
    """Resident memory that belongs to no file, slabs shared among these processes once.

    Unlike :func:`proportional_bytes` it does not change when a stranger maps the same library, or ceases to.
    """
    return sum(_kilobytes(f"/proc/{pid}/smaps_rollup", name) for pid in pids for name in ("Pss_Anon", "Pss_Shmem"))


def anonymous_bytes(pids: Iterable[int]) -> int:
    """Resident memory that belongs to no file and to no shared slab."""
    return sum(_kilobytes(f"/proc/{pid}/status", "RssAnon") for pid in pids)


def count_threads(pids: Iterable[int]) -> int:
    """Threads of all."""
    return sum(int(fields[17]) for pid in pids if (fields := _stat(pid)))


def count_descriptors(pids: Iterable[int]) -> tuple[int, int]:
    """Open descriptors of all: those of shared slabs, and the others."""
    slabs = others = 0
    for pid in pids:
        with suppress(OSError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    is_slab = SLAB in str(entry.readlink())
                    slabs, others = slabs + is_slab, others + (not is_slab)
    return slabs, others


def count_slabs(pid: int) -> int:
    """Shared slabs that a process maps."""
    try:
        return Path(f"/proc/{pid}/maps").read_text().count(SLAB)
    except OSError:
        return 0


class PeakMemory:
    """While inside, looks at a process and its children again and again, and keeps the most.

    Attributes:
        resident, proportional: bytes, each the most that was seen of the sum over all.

    """

    def __init__(self, pid: int, every_s: float = 0.02) -> None:
        self._pid = pid
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.resident = self.proportional = 0

    def _watch(self) -> None:
        while True:
            pids = list_tree(self._pid)
            self.resident = max(self.resident, resident_bytes(pids))
            self.proportional = max(self.proportional, proportional_bytes(pids))
            if self._over.wait(self._every_s):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the state on; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _kilobytes(path: str, name: str) -> int:
    with suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return 0
