"""Memory for batches that is used again when the last tensor over it is gone.

A large array that is freed goes back to the system, and the next one of that size has to be zeroed and mapped page by
page again: about half the time of a read. So a read writes into a slab that an earlier batch has given back.

A slab is lent as a *lease*: a numpy array over it. Every view of the lease, and every tensor over such a view, keeps
the lease alive; when it dies, the slab is free. Nobody has to say that he is done, and nobody can be too early.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

Slab = NDArray[np.uint8]

_SMALLEST = 8 << 20
"""Bytes of a batch below which lending costs more than it saves: ``perf/loader.py``."""

_ROOM = 1.25
"""How much larger than the largest batch so far a new slab is made: batches differ."""


class SlabPool:
    """Slabs of one size, which grows with what is asked for; safe to use from several threads.

    Args:
        keep: most free slabs that are kept.

    """

    def __init__(self, keep: int) -> None:
        self._free: deque[Slab] = deque(maxlen=keep)  # one that is given back to a full deque drops the oldest
        self._size = 0

    def lend(self) -> Slab | None:
        """A lease of a slab as large as any batch so far; None before the first."""
        if not self._size:
            return None
        slab = None
        try:
            while slab is None or len(slab) < self._size:
                slab = self._free.popleft()
        except IndexError:
            slab = np.empty(self._size, np.uint8)
        lease: Slab = np.frombuffer(slab.data, np.uint8)  # over a memoryview: numpy's views refer to it and no further
        weakref.finalize(lease, self._free.append, slab).atexit = False
        return lease

    def note(self, size: int) -> None:
        """Say how many bytes a batch took. Small ones are the allocator's: it keeps their pages anyway."""
        if size > max(self._size, _SMALLEST):
            self._size = int(size * _ROOM)


def end_in(lease: Slab, arrays: Any) -> int | None:
    """Bytes of the lease that arrays use, from its start on; None: not all of them lie in it."""
    low = _address(lease)
    end = 0
    for array in arrays:
        at = _address(array) - low
        if array.nbytes and not 0 <= at <= at + array.nbytes <= lease.nbytes:
            return None
        end = max(end, at + array.nbytes if array.nbytes else 0)
    return end


def _address(array: NDArray[Any]) -> int:
    """Where an array begins; quicker than by ``ctypes``."""
    address: int = array.__array_interface__["data"][0]
    return address
