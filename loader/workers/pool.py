"""The loader's side of worker processes: start them, give each a batch at a time, notice when one dies, end them all.

A pool serves one pass after another and is ended with its loader, or when that is collected, or at exit. Executor
threads of the pipeline take idle workers, ask, wait for the answer outside the GIL, and put the worker back.

A slab of an answer is lent: when the last tensor over it is gone, its number goes back to its worker with the next
request (see :mod:`loader.slabs`).

A worker that dies takes the pass with it: the thread that waits for its answer sees the connection close, and raises
what happened to the process. Nothing is read a second time: what killed one worker would kill the next.
"""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from multiprocessing.connection import Pipe
from multiprocessing.reduction import recv_handle
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any

import numpy as np

from loader.errors import WorkerError
from loader.reading import OnTrimmed, Reading, Request
from loader.workers.wire import hear_error, hear_reading, pack, tell_projection, tell_request, unpack
from uihkv import Projection

_END_WAIT_S = 5.0
"""How long a worker may take to finish its batch when it is told to end; then it is killed."""

_PROGRAM = "from loader.workers.worker import main; main()"


class WorkerPool:
    """Worker processes of one loader; they start at once and get ready in the background.

    Args:
        workers: how many.
        store: path of the store.
        tenants: a projection each.
        dedup: give the deduplicated form.
        on_trimmed: what becomes of an example whose events are trimmed.

    """

    def __init__(
        self, workers: int, store: Path, tenants: Mapping[str, Projection], dedup: bool, on_trimmed: OnTrimmed
    ) -> None:
        hello = {
            "store": str(store), "tenants": [(name, tell_projection(its)) for name, its in tenants.items()],
            "dedup": dedup, "on_trimmed": on_trimmed,
        }  # fmt: skip
        self._changed = threading.Condition()
        self._workers: list[_Worker] = []
        self._idle: deque[_Worker] = deque()
        self._error: WorkerError | None = None
        self._passes = 0
        self._finalizer = weakref.finalize(self, _end, self._workers)
        try:
            for number in range(workers):
                worker = _Worker(number)
                self._workers.append(worker)
                worker.tell(hello, answered=True)
        except BaseException:
            self.close()
            raise
        self._idle.extend(self._workers)

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
            worker.tell({"begin": self._passes}, answered=True)
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
        worker = self._take_idle()
        try:
            answer = worker.ask(message)
        except WorkerError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
            raise
        with self._changed:
            self._idle.append(worker)
            self._changed.notify()
        if "error" in answer:
            raise hear_error(answer["error"])
        return hear_reading(answer, answer["lease"])

    def _take_idle(self) -> _Worker:
        with self._changed:
            while not self._idle and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise WorkerError(*self._error.args)
            return self._idle.popleft()

    def close(self) -> None:
        """End all workers; none is left. Closing twice is no error."""
        self._finalizer()


class Pools:
    """The pools of one loader: a pass has one to itself, and the next pass takes it over.

    Args:
        make: starts a pool.

    """

    def __init__(self, make: Callable[[], WorkerPool]) -> None:
        self._make = make
        self._idle: WorkerPool | None = None
        self._closed = False
        self._lock = threading.Lock()

    def begin_pass(self) -> PoolReader:
        """A reader for one pass.

        Raises:
            WorkerError: when a process cannot be started.

        """
        with self._lock:
            pool, self._idle = self._idle, None
        pool = pool or self._make()
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

    def read(self, request: Request) -> Reading:
        """What the tenants get for one batch."""
        return self._pool.ask(self._number, request)

    def close(self) -> None:
        """Close the workers' snapshots of this pass."""
        self._pool.end_pass(self._number)
        self._give_back(self._pool)


class _Worker:
    """One process, its connection, and the slabs that it has shared. Used by one thread at a time."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._connection, theirs = Pipe()
        self._free: deque[int] = deque()
        self._slabs: dict[int, mmap.mmap] = {}
        self._unheard = 0
        with theirs:
            path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
            self._process = subprocess.Popen(
                [os.fsdecode(get_executable()), "-P", "-c", _PROGRAM, str(theirs.fileno()), str(os.getpid())],
                env={**os.environ, "PYTHONPATH": path}, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, message: Mapping[str, Any], *, answered: bool = False) -> None:
        """Send a message; an answer to it is heard before the next one."""
        free: list[int] = []
        while self._free:
            free.append(self._free.popleft())
        try:
            self._connection.send_bytes(pack({**message, "free": free}))
        except (BrokenPipeError, ConnectionResetError, OSError) as error:
            raise self._dead() from error
        self._unheard += answered

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a message, with a lease of its slab."""
        while self._unheard:
            self._unheard -= 1
            earlier = self._hear()
            if "error" in earlier:
                return earlier
        self.tell(message)
        answer = self._hear()
        if "error" in answer:
            return answer
        number = answer["slab"]
        if answer["dropped"] is not None:
            del self._slabs[answer["dropped"]]
        if answer["new_bytes"]:
            descriptor = self._receive_descriptor()
            try:
                self._slabs[number] = mmap.mmap(descriptor, answer["new_bytes"])
            finally:
                os.close(descriptor)
        lease = np.frombuffer(self._slabs[number], np.uint8)
        weakref.finalize(lease, self._free.append, number).atexit = False
        return {**answer, "lease": lease}

    def _hear(self) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = unpack(self._connection.recv_bytes())
        except (EOFError, ConnectionResetError, OSError) as error:
            raise self._dead() from error
        return answer

    def _receive_descriptor(self) -> int:
        try:
            return recv_handle(self._connection)
        except (EOFError, ConnectionResetError, OSError, RuntimeError) as error:
            raise self._dead() from error

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
