"""Threads that share the work of a read.

A large read is cut into parts, a few for each thread, which the threads and the caller take one by one
(:mod:`uihkv.kernels.parts`). To wake a thread takes as long as the decoding of some thousand events: while it wakes the
others go on.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait


class Threads:
    """Threads that do shares of a work; each call holds no GIL.

    Args:
        count: how many, the calling one included.

    """

    __slots__ = ("_pool", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, "uihkv-read")

    def share(self, works: list[Callable[[], None]], is_done: Callable[[], bool]) -> None:
        """Do a work in several threads, by a call in each: the first in this one. Nobody touches it afterwards.

        Args:
            works: each does parts of it until none is left, so that whichever begins late does nothing.
            is_done: whether all of its parts are done, or are within microseconds.

        """
        others = [self._pool.submit(work) for work in works[1:]]
        try:
            works[0]()
        finally:
            if not is_done():
                wait([other for other in others if not other.cancel()])

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True)
