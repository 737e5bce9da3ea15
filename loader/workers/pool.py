"""The loader's side of worker processes: start them, keep each busy, notice when one dies, end them all.

A pool serves one pass after another and is ended with its loader, or when that is collected, or at exit. Lanes of
the pipeline ask the worker with the fewest requests and wait for the answer outside the GIL. A worker has up to
:data:`REQUESTS` requests: it goes on with the next one at once, and need not be woken for each.

A slab of an answer is lent: when the last tensor over it is gone, its worker uses it again
(:mod:`loader.workers.shared`).

A worker that dies takes the pass with it: the thread that waits for its answer sees the connection close, and raises
what happened to the process. Nothing is read a second time: what killed one worker would kill the next.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from multiprocessing.connection import Pipe
from multiprocessing.reduction import recvfds
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any

from loader.errors import WorkerError
from loader.reading import OnTrimmed, Reading, Request
from loader.slabs import Slab
from loader.workers.shared import MOST_SLABS, MappedSlabs, make_file, map_file
from loader.workers.wire import hear_error, hear_reading, pack, tell_projection, tell_request, unpack
from uihkv import Projection

_END_WAIT_S = 5.0
"""How long a worker may take to finish its batch when it is told to end; then it is killed."""

REQUESTS = 2
"""Requests that a worker is given at once: one that it reads for, and the next."""

Lock = Callable[[Slab], bool]
"""Page-locks a slab and says whether that was granted."""

_PROGRAM = "from loader.workers.worker import main; main()"


class WorkerPool:
    """Worker processes of one loader; they start at once and get ready in the background.

    Args:
        workers: how many.
        store: path of the store.
        tenants: a projection each.
        dedup: give the deduplicated form.
        on_trimmed: what becomes of an example whose events are trimmed.
        ahead: most batches that are under way or ready.
        lock: page-locks a slab and says whether that was granted; None: no device is fed.

    """

    def __init__(
        self, workers: int, store: Path, tenants: Mapping[str, Projection], dedup: bool, on_trimmed: OnTrimmed,
        ahead: int, lock: Lock | None = None,
    ) -> None:  # fmt: skip
        hello = {
            "store": str(store), "tenants": [(name, tell_projection(its)) for name, its in tenants.items()],
            "dedup": dedup, "on_trimmed": on_trimmed, "slabs": -(-ahead // workers) + 2,
        }  # fmt: skip
        self._changed = threading.Condition()
        self._workers: list[_Worker] = []
        self._asked: dict[_Worker, int] = {}
        self._error: WorkerError | None = None
        self._passes = 0
        self._finalizer = weakref.finalize(self, _end, self._workers)
        try:
            for number in range(workers):
                worker = _Worker(number, lock)
                self._workers.append(worker)
                self._asked[worker] = 0
                worker.tell(hello)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return tuple(worker.pid for worker in self._workers)

    @property
    def healthy(self) -> bool:
        """Whether the pool can serve another pass."""
        return self._error is None and self._finalizer.alive

    def begin_pass(self) -> int:
        """Let every worker take a snapshot, and give the pass's number. What that raises, the first read raises."""
        self._passes += 1
        for worker in self._workers:
            worker.tell({"begin": self._passes})
        return self._passes

    def end_pass(self, number: int) -> None:
        """Let every worker close its snapshot; no read is under way."""
        try:
            for worker in self._workers if self.healthy else []:
                worker.tell({"end": number})
        except WorkerError as error:  # it died after its last batch: the pass is whole, the pool is not
            self._error = error

    def ask(self, number: int, request: Request) -> Reading:
        """Let a worker read for one batch.

        Raises:
            WorkerError: when the worker has died.
            UihkvError: what the worker's read raised.

        """
        message = {"pass": number, "request": tell_request(request)}
        worker = self._choose()
        try:
            answer = worker.ask(message)
        except WorkerError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
            raise
        with self._changed:
            self._asked[worker] -= 1
            self._changed.notify()
        if "error" in answer:
            raise hear_error(answer["error"])
        return hear_reading(answer, answer["lease"], answer["locked"])

    def _choose(self) -> _Worker:
        """The worker with the fewest requests, once one has fewer than it may."""
        with self._changed:
            while self._error is None:
                worker = min(self._workers, key=self._asked.__getitem__)
                if self._asked[worker] < REQUESTS:
                    self._asked[worker] += 1
                    return worker
                self._changed.wait()
            raise WorkerError(*self._error.args)

    def close(self) -> None:
        """End all workers; none is left. Closing twice is no error."""
        self._finalizer()


class Pools:
    """The pools of one loader: a pass has one to itself, and the next pass takes it over.

    Args:
        make: starts a pool, given what page-locks its slabs.

    """

    def __init__(self, make: Callable[[Lock | None], WorkerPool]) -> None:
        self._make = make
        self._idle: WorkerPool | None = None
        self._closed = False
        self._lock = threading.Lock()

    def begin_pass(self, lock: Lock | None = None) -> PoolReader:
        """A reader for one pass.

        Args:
            lock: the loader's, once there is a device.

        Raises:
            WorkerError: when a process cannot be started.

        """
        with self._lock:
            pool, self._idle = self._idle, None
        pool = pool or self._make(lock)
        try:
            return PoolReader(pool, pool.begin_pass(), self._take_back)
        except BaseException:
            pool.close()
            raise

    def _take_back(self, pool: WorkerPool) -> None:
        with self._lock:
            if pool.healthy and not self._closed and self._idle is None:
                self._idle = pool
                return
        pool.close()

    def close(self) -> None:
        """End the idle pool now, and one that is in use with its pass."""
        with self._lock:
            self._closed = True
            pool, self._idle = self._idle, None
        if pool is not None:
            pool.close()


class PoolReader:
    """Reads for one pass in a pool's workers; see :class:`loader.reading.Reader`.

    Args:
        pool: of the pass alone.
        number: of the pass.
        give_back: takes the pool when the pass is over.

    """

    def __init__(self, pool: WorkerPool, number: int, give_back: Callable[[WorkerPool], None]) -> None:
        self._pool = pool
        self._number = number
        self._give_back = give_back

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return self._pool.pids

    @property
    def is_first(self) -> bool:
        """Whether the workers read for the first time."""
        return self._number == 1

    def read(self, request: Request) -> Reading:
        """What the tenants get for one batch."""
        return self._pool.ask(self._number, request)

    def close(self) -> None:
        """Close the workers' snapshots of this pass."""
        self._pool.end_pass(self._number)
        self._give_back(self._pool)


class _Worker:
    """One process, its connection, and the slabs that it has shared. Answers come in the order of the requests."""

    def __init__(self, number: int, lock: Lock | None) -> None:
        self._number = number
        self._connection, theirs = Pipe()
        self._sending = threading.Lock()
        self._turn = threading.Condition()
        self._asked = self._heard = 0
        descriptor = make_file(MOST_SLABS)
        try:
            self._slabs = MappedSlabs(map_file(descriptor, MOST_SLABS), lock)
            with theirs:
                path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
                given = (theirs.fileno(), descriptor)
                self._process = subprocess.Popen(
                    [os.fsdecode(get_executable()), "-P", "-c", _PROGRAM, *map(str, given), str(os.getpid())],
                    env={**os.environ, "PYTHONPATH": path}, pass_fds=given, stdin=subprocess.DEVNULL,
                )  # fmt: skip
        finally:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message that has no answer."""
        with self._sending:
            self._send(message)

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request, with a lease of its slab."""
        with self._sending:
            self._send(message)
            number = self._asked
            self._asked += 1
        with self._turn:
            while self._heard != number:
                self._turn.wait()
        try:
            return self._hear()
        except (EOFError, ConnectionResetError, OSError, RuntimeError) as error:
            raise self._dead() from error
        finally:
            with self._turn:
                self._heard += 1
                self._turn.notify_all()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._connection.send_bytes(pack(message))
        except (BrokenPipeError, ConnectionResetError, OSError) as error:
            raise self._dead() from error

    def _hear(self) -> dict[str, Any]:
        answer: dict[str, Any] = unpack(self._connection.recv_bytes())
        new = answer["new"]
        if new:
            with socket.fromfd(self._connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                descriptors = recvfds(channel, len(new))
            try:
                self._slabs.add(new, answer["touched"], descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        if "error" not in answer:
            number = answer["slab"]
            answer |= {"lease": self._slabs.lease(number), "locked": self._slabs.is_locked(number)}
        return answer

    def _dead(self) -> WorkerError:
        """What has become of the process."""
        try:
            status = self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            return WorkerError(f"worker process {self._number} (pid {self.pid}) closed its connection and still runs")
        if status < 0:
            name = signal.Signals(-status).name
            hint = "; the system kills with SIGKILL when memory runs out" if -status == signal.SIGKILL else ""
            what = f"was killed by {name}{hint}"
        else:
            what = f"ended with status {status}; what it printed on standard error says why"
        return WorkerError(
            f"worker process {self._number} (pid {self.pid}) {what}. The pass cannot go on: start it again"
        )

    def end(self) -> None:
        """Close the connection, by which the process ends."""
        self._connection.close()

    def reap(self) -> None:
        """Wait for the end of the process; kill it when it takes too long."""
        try:
            self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.reap()
