"""Memory of large outputs, used again when the last array over it is gone.

An array of tens of megabytes that is freed goes back to the system; the next one is mapped and zeroed page by page
again, which takes nearly as long as filling it. So a pool keeps the slabs that were given back last, and the next read
of about such a size writes into one. It keeps two, because a batch is often read by two projections in turn.

A slab is lent as a *lease*: an array over it. Every view of the lease keeps it alive, and so does whatever shares the
memory of such a view; when it dies, the slab goes back. Nobody has to say that he is done, and nobody can be too
early. A slab that comes back when its pool is gone goes to the system.

What a pool holds: at most two free slabs, each of ``LARGE_BYTES`` to an eighth of the machine's memory. Safe for
threads, for collections of garbage at any moment, and after a fork, where each process has pages of its own.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

Slab = NDArray[np.uint8]

LARGE_BYTES = 4 << 20
"""Smaller ones the allocator keeps by itself, and gives out sooner."""

_KEPT = 2

_ROOM_SHIFT = 3
"""A new slab is an eighth larger than what is asked for: batches differ. What is never touched costs nothing."""


class SlabPool:
    """Lends memory for outputs; keeps some for the next that ask."""

    __slots__ = ("_free", "_most_bytes")

    def __init__(self) -> None:
        self._free: deque[Slab] = deque(maxlen=_KEPT)  # those that are given back last stay
        self._most_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8

    def lend(self, size: int) -> Slab:
        """Uninitialised memory of at least so many bytes."""
        if not LARGE_BYTES <= size <= self._most_bytes:
            return np.empty(size, np.uint8)
        slab = self._take_free(size)
        if slab is None:
            slab = np.empty(size + (size >> _ROOM_SHIFT), np.uint8)
        lease: Slab = np.frombuffer(slab.data, np.uint8)  # over a memoryview: views of views refer to the lease
        weakref.finalize(lease, self._free.append, slab).atexit = False
        return lease

    def _take_free(self, size: int) -> Slab | None:
        """A free slab that is large enough, but not so large that a few events hold on to much."""
        for _ in range(_KEPT):
            try:
                slab = self._free.popleft()
            except IndexError:
                return None
            if size <= len(slab) <= 2 * size:
                return slab
            self._free.append(slab)
        return None


def map_memory(size: int, large_pages: bool = False) -> Slab:
    """Zeros that the system gives when they are touched, and takes back when they are freed.

    The allocator's may have been used before, so that numpy fills them; and it keeps what a thread took, for each of
    some sixteen threads. ``large_pages``: ask the system for such, for what will be touched whole.
    """
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if large_pages and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def address_of(array: NDArray[Any]) -> int:
    """Where an array begins; quicker than by ``ctypes``."""
    address: int = array.__array_interface__["data"][0]
    return address
