"""How do several shards' commits wait for the disk together?

A commit waits for the disk, and LMDB wants a write transaction to be ended by the thread that began it. So each shard
has a lane: a thread that begins its write transactions and ends them, while whoever appends uses them in between.
Commits of different lanes wait at the same time, without the GIL; a file system makes several files durable in little
more time than one.

Invariants: transactions are begun one after the other, in the caller's order, so that writers who keep to one order
never wait in a circle; one append a store at a time holds the lanes; what a lane has begun is ended, also when the
caller is interrupted meanwhile. Threads are made at the first use and end with :meth:`Lanes.close`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

MOST_LANES = 16
"""Shards beyond share lanes: the disk has enough to do."""


class Lanes:
    """Threads that begin and end write transactions.

    Args:
        shards: of the store.

    Attributes:
        busy: held by the append that uses the lanes: a lane that waits for a shard of the same store would wait for
            itself.

    """

    __slots__ = ("_lanes", "busy")

    def __init__(self, shards: int) -> None:
        self._lanes = [ThreadPoolExecutor(1, f"uihkv-commit-{lane}") for lane in range(min(shards, MOST_LANES))]
        self.busy = threading.Lock()

    def _lane(self, number: int) -> ThreadPoolExecutor:
        return self._lanes[number % len(self._lanes)]

    def begin(self, number: int, begin: Callable[[], Any]) -> Any:
        """A shard's write transaction, begun in its lane."""
        begun: Future[Any] = self._lane(number).submit(begin)
        try:
            return begun.result()
        except BaseException:  # the wait was interrupted, or nothing was begun
            self._lane(number).submit(_abort_begun, begun)
            raise

    def abort(self, number: int, transaction: Any) -> None:
        """End a transaction and what it wrote."""
        self._lane(number).submit(transaction.abort).result()

    def commit(self, numbers: Iterable[int], commit: Callable[[int], None]) -> None:
        """Do ``commit`` for each number in its lane, all at the same time; raises what the first that failed raises.

        All have ended when this returns or raises an error of theirs.
        """
        ends = [self._lane(number).submit(commit, number) for number in numbers]
        wait(ends)
        for end in ends:
            end.result()

    def close(self) -> None:
        """End the threads."""
        for lane in self._lanes:
            lane.shutdown(wait=True)


def _abort_begun(begun: Future[Any]) -> None:
    with suppress(BaseException):  # whoever asked for it has been told
        begun.result().abort()
