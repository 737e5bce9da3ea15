"""Memory that a worker fills and the loader's process maps: slabs, and which of them are free.

The worker makes slabs (files in memory without a name), the loader maps each when it first hears of it. A slab is lent
to one answer; when the last tensor over it is gone, the loader sets the slab's flag in a small page that both map. So
a slab is free for the very next read, without a message, and the worker takes the free one that was used last: the
caches still hold it.

Slabs are made ahead: after the worker's first read as many as a pass may need, touched by both sides before the first
batch is handed over. New pages cost as much as decoding into them, and here both processes pay.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loader.errors import WorkerError
from loader.slabs import ROOM, Slab, touch

NAME = "uihkv-loader"

MOST_SLABS = 1 << 15
"""Of one worker: the flags' room. A process may map about twice as many files."""

MOST_AHEAD = 16
"""Slabs that are made ahead."""

_SMALLEST = 64 << 10
_TOUCHED = 1.25
_PAGE = 4096


def make_file(size: int) -> int:
    """A file in memory without a name: its descriptor."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def map_file(descriptor: int, size: int) -> Slab:
    """The file's memory, mapped as long as the array or a view of it lives."""
    return np.frombuffer(mmap.mmap(descriptor, size), np.uint8)


class OwnSlabs:
    """The worker's side: slabs by number, from 0.

    Args:
        flags: uint8[MOST_SLABS], shared; 1: that slab is free.
        ahead: slabs that are made at once after the first read.

    """

    def __init__(self, flags: Slab, ahead: int) -> None:
        self._flags = flags
        self._ahead = min(ahead, MOST_AHEAD)
        self._slabs: list[Slab] = []
        self._used = np.zeros(MOST_SLABS, np.int64)
        self._clock = 0
        self._size = 0
        self._made: dict[int, int] = {}

    def lend(self) -> tuple[int, Slab] | None:
        """A slab as large as any batch so far; None before the first.

        Raises:
            WorkerError: when the loader's consumer keeps as many batches as there can be slabs.

        """
        if not self._size:
            return None
        free = np.flatnonzero(self._flags[: len(self._slabs)].copy())  # as they are now: the loader sets more meanwhile
        number = int(free[self._used[free].argmax()]) if len(free) else self._add(self._size)
        if len(self._slabs[number]) < self._size:
            self._replace(number, self._size)
        return self._lent(number)

    def grow(self, lent: int | None, size: int) -> tuple[int, Slab]:
        """A slab with room for so many bytes, instead of the lent one, whose memory lives while it is used."""
        first = not self._size
        self._size = max(self._size, max(size, _SMALLEST) * ROOM // _PAGE * _PAGE)
        if lent is None:
            lent = self._add(self._size)
        else:
            self._replace(lent, self._size)
        for _ in range(self._ahead - 1 if first else 0):
            spare = self._add(self._size)
            touch(self._slabs[spare], int(size * _TOUCHED))
            self._flags[spare] = 1
        return self._lent(lent)

    def take_back(self, number: int) -> None:
        """A lent slab in which no answer goes out is free again."""
        self._flags[number] = 1

    def take_made(self) -> dict[int, int]:
        """Descriptors, by number, of the slabs that the loader does not know yet; the caller closes them."""
        made, self._made = self._made, {}
        return made

    def size_of(self, number: int) -> int:
        """Bytes of a slab."""
        return len(self._slabs[number])

    def touched(self) -> int:
        """Bytes at a new slab's start that were touched; a guess for the loader's side."""
        return int(self._size / ROOM * _TOUCHED)

    def _lent(self, number: int) -> tuple[int, Slab]:
        self._flags[number] = 0
        self._clock += 1
        self._used[number] = self._clock
        return number, self._slabs[number]

    def _add(self, size: int) -> int:
        if len(self._slabs) == MOST_SLABS:
            raise WorkerError(f"{MOST_SLABS} batches of a worker are kept; drop some, or clone what is to be kept")
        self._slabs.append(np.empty(0, np.uint8))
        self._replace(len(self._slabs) - 1, size)
        return len(self._slabs) - 1

    def _replace(self, number: int, size: int) -> None:
        descriptor = make_file(size)
        self._slabs[number] = map_file(descriptor, size)
        untold = self._made.pop(number, None)
        if untold is not None:
            os.close(untold)
        self._made[number] = descriptor


class MappedSlabs:
    """The loader's side: the worker's slabs as far as it was told.

    Args:
        flags: as the worker's.
        lock: page-locks a slab and says whether that was granted; None: no device is fed.

    """

    def __init__(self, flags: Slab, lock: Callable[[Slab], bool] | None) -> None:
        self._flags = flags
        self._lock = lock
        self._slabs: dict[int, Slab] = {}
        self._locked: set[int] = set()

    def add(self, told: Sequence[tuple[int, int]], touched: int, descriptors: Sequence[int]) -> None:
        """Map slabs: their numbers and sizes; a number that is known is another slab from now on."""
        for (number, size), descriptor in zip(told, descriptors, strict=True):
            slab = self._slabs[number] = map_file(descriptor, size)
            self._locked.discard(number)
            if self._lock is not None and self._lock(slab):
                self._locked.add(number)
            # Reading maps pages, several at a time, and here: not in the consumer's thread at the batch's first use.
            slab[: min(touched, size) : _PAGE].max(initial=0)

    def is_locked(self, number: int) -> bool:
        """Whether a slab is page-locked."""
        return number in self._locked

    def lease(self, number: int) -> NDArray[Any]:
        """An array over a slab that was lent to an answer; when it dies, the slab is free."""
        lease: Slab = np.frombuffer(self._slabs[number].data, np.uint8)
        weakref.finalize(lease, _set_free, self._flags, number, os.getpid()).atexit = False
        return lease


def _set_free(flags: Slab, number: int, pid: int) -> None:
    if os.getpid() == pid:  # else what dies is a forked child's copy, and the parent still holds its own
        flags[number] = 1
