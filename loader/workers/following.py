"""Workers that read a store while it grows: their snapshots are as fresh as each batch needs.

A pass over a stream has no one snapshot: examples are let in when a snapshot of the loader's process has their
versions, and whoever reads them must have a snapshot taken then or later. Each worker is a pool of its own, used by one
thread at a time. It keeps its snapshot from batch to batch, and takes a new one before a batch that needs a later one;
so a worker takes no more snapshots than admission does, and none for batches that were let in together.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from contextlib import ExitStack

from loader.reading import Reading, Request
from loader.workers.pool import WorkerPool


class FollowingWorkers:
    """Reads for one pass over a stream; safe to use from several threads.

    Args:
        workers: how many.
        start: starts a pool of one worker.

    """

    def __init__(self, workers: int, start: Callable[[], WorkerPool]) -> None:
        self._idle: queue.SimpleQueue[_Follower] = queue.SimpleQueue()
        with ExitStack() as stack:
            for _ in range(workers):
                pool = start()
                stack.callback(pool.close)
                self._idle.put(_Follower(pool))
            self._stack = stack.pop_all()

    def read(self, request: Request, needs_s: float) -> Reading:
        """What the tenants get for one batch.

        Args:
            request: of the batch.
            needs_s: the snapshot must have been taken at this moment of ``time.monotonic()`` or later.

        Raises:
            WorkerError: when a worker has died.
            UihkvError: what its read raised.

        """
        worker = self._idle.get()
        try:
            return worker.read(request, needs_s)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all workers; no read is under way."""
        self._stack.close()


class _Follower:
    """A worker and the moment of its snapshot."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._number = 0
        self._taken_s = -1.0

    def read(self, request: Request, needs_s: float) -> Reading:
        if not self._number or self._taken_s < needs_s:
            now = time.monotonic()  # the worker takes it after this
            older, self._number = self._number, self._pool.begin_pass()
            self._taken_s = now
            if older:
                self._pool.end_pass(older)
        return self._pool.ask(self._number, request)
