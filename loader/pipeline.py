"""Work that runs ahead of its consumer, in order, and ends without a trace.

Items come from a source and are carried, each by one executor thread, through all their stages; the results
are handed over in the source's order. An asyncio loop (uvloop where it can be imported) in a thread of its own does the
rest with two tasks:

1. *feed* waits until one of the ``ahead`` places is free, takes the next item from the source and gives it to
   an executor thread. A place is free again when the consumer took its result: that bounds all that is
   under way or ready.
2. *deliver* awaits the results in order and hands them over.

Why one thread carries an item through all stages: handing it on between stages would cost a wake-up each and move its
arrays from core to core; several items under way at once give the same parallelism. Work is worth a thread because
it does a whole batch outside the GIL (DESIGN.md §6).

Life: the pipeline owns its loop, its thread, its executor and whatever ``release`` releases, from construction
to :meth:`Pipeline.close` or the end of the source. An error, from the source or from the work, is delivered at its
place as itself, and ends the pipeline. Nothing here refers to the consumer, so its finalizer can close the pipeline.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Generic, TypeVar

from loader.handoff import Handoff

T = TypeVar("T")
R = TypeVar("R")

THREAD_NAME = "uihkv-loader"

_FINALIZER_WAIT_S = 10.0
"""Longest wait of a finalizer for the thread. It may run inside the garbage collector, whose thread may hold a lock
that the work needs; then waiting for ever would be a deadlock, and the thread ends a moment later by itself."""


class _Stopped(Exception):  # noqa: N818 - asked for, no fault
    """The pipeline is closing; what is under way may end early."""


class _Failed:
    """The outcome of an item whose work raised. A value, since a future cannot carry every exception."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Pipeline(Generic[T, R]):
    """Results of ``work(item)`` for each item of a source, made ahead of the consumer.

    Args:
        source: the items; iterated in the pipeline's thread. An async iterator is asked for an item only when there is
            a place for it, and closed at the end, if it has ``aclose``.
        work: called in executor threads, several at once.
        release: called once, when nothing runs any more; not when the construction fails.
        ahead: most items that are under way or ready, 1 or more.
        workers: executor threads.

    """

    def __init__(
        self,
        source: Iterable[T] | AsyncIterator[T],
        work: Callable[[T], R],
        release: Callable[[], None],
        *,
        ahead: int,
        workers: int,
    ) -> None:
        self._source = source
        self._work = work
        self._release = release
        self._ahead = ahead
        self._stopping = False
        self._ended = False
        self._guard = threading.RLock()
        self._handoff: Handoff[R] = Handoff(self._free_place)
        self._pool = ThreadPoolExecutor(workers, f"{THREAD_NAME}-work")
        self._loop = _new_loop()
        self._places = asyncio.Semaphore(ahead)
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._live, name=THREAD_NAME, daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._end_loop()
            raise

    # -- the consumer's side ------------------------------------------------------------------------

    @property
    def ready(self) -> int:
        """Results that can be taken without waiting."""
        return self._handoff.ready

    def take(self) -> R:
        """Wait for the next result.

        Raises:
            Ended: after the last, or after :meth:`close`.
            BaseException: what the source or the work raised, at its place, once.

        """
        return self._handoff.take()

    async def take_async(self) -> R:
        """As :meth:`take`, without blocking the running loop."""
        return await self._handoff.take_async()

    def close(self, wait_s: float | None = None) -> None:
        """Stop, and wait until no thread is left; results not taken are dropped. Closing twice is no error.

        Args:
            wait_s: longest wait; None: until the work under way has ended, one batch a thread.

        """
        self._handoff.end(discard=True)  # first, so that no consumer sees the outcome of what is cut short
        with self._guard:
            self._stopping = True
            if not self._ended:
                self._loop.call_soon_threadsafe(self._cancel)
        if not threading.current_thread().name.startswith(THREAD_NAME):  # the collector may run in any thread
            self._thread.join(wait_s)

    def finalize(self) -> None:
        """Close, from a finalizer."""
        self.close(_FINALIZER_WAIT_S)

    def _free_place(self) -> None:
        with self._guard:
            if not self._ended:
                self._loop.call_soon_threadsafe(self._places.release)

    # -- the thread's side --------------------------------------------------------------------------

    def _live(self) -> None:
        """The thread: run the loop, then take everything down, whatever happened."""
        error: BaseException | None = None
        try:
            self._main = self._loop.create_task(self._run())
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        except BaseException as fault:  # must reach the consumer, who would else wait for ever
            error = fault
        try:
            with ExitStack() as stack:
                stack.callback(self._end_loop)
                stack.callback(self._release)
                stack.callback(self._pool.shutdown, wait=True, cancel_futures=True)
        except BaseException as fault:
            error = error or fault
        self._handoff.end(error)

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    def _end_loop(self) -> None:
        with self._guard:
            self._ended = True
            self._loop.close()

    async def _run(self) -> None:
        under_way: asyncio.Queue[asyncio.Future[R | _Failed] | _Failed | None] = asyncio.Queue()
        feed = asyncio.create_task(self._feed(under_way))
        try:
            await self._deliver(under_way)
        finally:
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)

    async def _feed(self, under_way: asyncio.Queue[asyncio.Future[R | _Failed] | _Failed | None]) -> None:
        """Give items to the executor, as places come free; the queue is bounded by the places."""
        loop = asyncio.get_running_loop()
        try:
            if isinstance(self._source, AsyncIterator):
                await self._feed_async(self._source, under_way)
            else:
                for item in self._source:
                    await self._places.acquire()
                    under_way.put_nowait(loop.run_in_executor(self._pool, self._carry, item))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            under_way.put_nowait(_Failed(error))
        else:
            under_way.put_nowait(None)

    async def _feed_async(
        self, source: AsyncIterator[T], under_way: asyncio.Queue[asyncio.Future[R | _Failed] | _Failed | None]
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._places.acquire()
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
                under_way.put_nowait(loop.run_in_executor(self._pool, self._carry, item))
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    async def _deliver(self, under_way: asyncio.Queue[asyncio.Future[R | _Failed] | _Failed | None]) -> None:
        while True:
            next_one = await under_way.get()
            if next_one is None:
                return
            outcome = next_one if isinstance(next_one, _Failed) else await next_one
            if isinstance(outcome, _Failed):
                self._handoff.end(outcome.error)
                return
            self._handoff.put(outcome)

    def _carry(self, item: T) -> R | _Failed:
        """Do an item's work in an executor thread."""
        if self._stopping:
            return _Failed(_Stopped())
        try:
            return self._work(item)
        except BaseException as error:  # also SystemExit of a user's source: it belongs to the consumer
            return _Failed(error)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
