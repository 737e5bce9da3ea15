"""Memory for batches that is used again when the last tensor over it is gone.

Memory that is freed goes back to the system, and the next of that size has to be zeroed and mapped page by page again:
about half the time of a read. So a read writes into a slab that an earlier batch has given back.

- The slab that came back last is lent first: it is the one that the caches still hold. Five slabs of 14 MB in turn
  made a read take 1.8 times as long as two.
- When the first batch has told how large batches are, as many slabs as a pass may need are made and touched, before
  that batch is handed over, by all lanes that have a batch by then. Each of the next ones would else wait for the
  system's pages, before the consumer's eyes.

A slab is lent as a *lease*: a numpy array over it. Every view of the lease, and every tensor over such a view, keeps
the lease alive; when it dies, the slab is free. Nobody has to say that he is done, and nobody can be too early.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.slabs import address_of, map_memory

Slab = NDArray[np.uint8]

SMALLEST = 64 << 10
"""Bytes of a batch below which the allocator is as quick: what is that small it keeps."""

ROOM = 2
"""How many times larger than the largest batch so far a slab is: batches differ, and what is never touched costs
nothing."""

_TOUCHED = 1.25
"""How much more than the first batch's bytes is touched ahead."""

_PAGE = 4096
_HUGE = 4 << 20
"""From here on the system is asked for large pages, as numpy asks."""


class SlabPool:
    """Slabs of one size, which grows with what is asked for; safe to use from several threads.

    Args:
        keep: most free slabs that are kept, and how many are made ahead.

    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._free: deque[Slab] = deque(maxlen=keep)  # one that is given back to a full deque drops the oldest
        self._untouched: deque[tuple[Slab, int]] = deque()
        self._size = 0
        self._left = 0
        self._changed = threading.Condition()

    def lend(self) -> Slab | None:
        """A lease of a slab as large as any batch so far; None before the first."""
        if not self._size:
            return None
        slab = None
        try:
            while slab is None or len(slab) < self._size:
                slab = self._free.pop()
        except IndexError:
            slab = make_slab(self._size)
        lease: Slab = np.frombuffer(slab.data, np.uint8)  # over a memoryview: numpy's views refer to it and no further
        weakref.finalize(lease, self._free.append, slab).atexit = False
        return lease

    def note(self, size: int) -> None:
        """Say how many bytes a batch took; small ones are the allocator's."""
        if size > max(self._size, SMALLEST):
            with self._changed:
                if size > self._size:
                    for _ in range(0 if self._size else self._keep):
                        self._untouched.append((make_slab(size * ROOM), int(size * _TOUCHED)))
                        self._left += 1
                    self._size = size * ROOM
        if self._left:
            self._touch_all()

    def _touch_all(self) -> None:
        """Touch the slabs that are left, and wait for those that other lanes are at."""
        while True:
            try:
                slab, size = self._untouched.popleft()
            except IndexError:
                break
            try:
                touch(slab, size)
                self._free.append(slab)
            finally:
                with self._changed:
                    self._left -= 1
                    self._changed.notify_all()
        with self._changed:
            while self._left:
                self._changed.wait()


def make_slab(size: int) -> Slab:
    """Memory that is mapped by itself: every pass has threads of its own, and the allocator keeps some for each."""
    return map_memory(size, large_pages=size >= _HUGE)


def touch(slab: Slab, size: int) -> None:
    """Let the system give its first bytes memory now, outside the GIL."""
    slab[: min(size, len(slab)) : _PAGE] = 0


def end_in(lease: Slab, arrays: Any) -> int | None:
    """Bytes of the lease that arrays use, from its start on; None: not all of them lie in it."""
    low = address_of(lease)
    end = 0
    for array in arrays:
        at = address_of(array) - low
        if array.nbytes and not 0 <= at <= at + array.nbytes <= lease.nbytes:
            return None
        end = max(end, at + array.nbytes if array.nbytes else 0)
    return end
