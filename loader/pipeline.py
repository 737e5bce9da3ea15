"""Work that runs ahead of its consumer, in order, and ends without a trace.

Items come from a source and are carried, each by one thread, through all their stages; the results are handed over in
the source's order. An asyncio loop (uvloop where it can be imported) in a thread of its own owns all of it: it starts
the *lanes*, awaits them, feeds them from a source that is asynchronous, cancels, and takes everything down.

A lane is a thread with a loop: wait for a place, take the next item, do its work, hand the result over. There are
``ahead`` places; a place is free again when the consumer took its result: that bounds all that is under way or ready.
It goes to the first lane when that one is idle; the others help when it does not keep up. Lanes that need not work take
nothing from the consumer: neither the interpreter's lock, nor a core, nor the caches.

Why one thread carries an item through all stages: handing it on between stages would cost a wake-up each and move its
arrays from core to core; several items under way at once give the same parallelism. Why lanes take items and hand
results over themselves, and not the loop for them: each batch then wakes at most one thread, the lane that waits
for its place or the consumer that waits for the batch. By way of the loop it woke four, and the interpreter's lock
passed between all of them: of a batch that takes a millisecond to make that was a fifth. Work is worth a thread because
it does a whole batch outside the GIL (DESIGN.md §6).

Life: the pipeline owns its loop, its thread, its lanes and whatever ``release`` releases, from construction
to :meth:`Pipeline.close` or the end of the source. An error, from the source or from the work, is delivered at its
place as itself, and ends the pipeline. Nothing here refers to the consumer, so its finalizer can close the pipeline.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Generic, TypeVar

from loader.handoff import Failed, Handoff

T = TypeVar("T")
R = TypeVar("R")

THREAD_NAME = "uihkv-loader"

_FINALIZER_WAIT_S = 10.0
"""Longest wait of a finalizer for the thread. It may run inside the garbage collector, whose thread may hold a lock
that the work needs; then waiting for ever would be a deadlock, and the thread ends a moment later by itself."""


class _Next:
    """A free place: take the source's next item."""


_NEXT = _Next()


class Pipeline(Generic[T, R]):
    """Results of ``work(item)`` for each item of a source, made ahead of the consumer.

    Args:
        source: the items; iterated in the lanes, by one at a time. An async iterator is iterated in the
            pipeline's thread, and closed at the end, if it has ``aclose``. Either is asked for an item only when there
            is a place for it.
        work: called in the lanes, several at once.
        release: called once, when nothing runs any more; not when the construction fails.
        ahead: most items that are under way or ready, 1 or more.
        workers: how many lanes.
        first: results that must be ready before the first is given, up to ``ahead``; see :class:`Handoff`.

    Attributes:
        ready: results that can be taken without waiting, to be counted.
        take: waits for the next result. Raises :class:`Ended` after the last, or after :meth:`close`; what the source
            or the work raised, at its place, once.

    """

    def __init__(
        self,
        source: Iterable[T] | AsyncIterator[T],
        work: Callable[[T], R],
        release: Callable[[], None],
        *,
        ahead: int,
        workers: int,
        first: int = 1,
    ) -> None:
        self._feed = source if isinstance(source, AsyncIterator) else None
        self._items: Iterator[T] = iter(()) if isinstance(source, AsyncIterator) else iter(source)
        self._work = work
        self._release = release
        # Daemons, as the thread is: a program that ends in the midst of a pass closes it by its finalizer, which runs
        # after Python has waited for threads of every other kind.
        self._ahead = ahead
        self._queues: list[SimpleQueue[_Next | tuple[int, T] | None]] = [SimpleQueue() for _ in range(workers)]
        self._given = [0] * workers  # to each lane; written by who gives, as the next is by the lane
        self._done = [0] * workers
        self._lanes = [
            threading.Thread(
                target=self._live_in_lane, args=(number,), name=f"{THREAD_NAME}-work_{number}", daemon=True
            )
            for number in range(workers)
        ]
        self._lanes_left = workers
        self._taking = threading.Lock()
        self._taken = 0
        self._over = False
        self._stopping = False
        self._ended = False
        self._guard = threading.RLock()
        self._handoff: Handoff[R] = Handoff(self._free_place, min(first, ahead))
        # As they are: whoever takes comes from a step that has filled the caches, where each call in between costs.
        self.ready, self.take = self._handoff.ready, self._handoff.take
        self._loop = _new_loop()
        self._places = asyncio.Semaphore(ahead)  # of an async source
        for _ in range(ahead if self._feed is None else 0):
            self._give(_NEXT, self._find_lane())
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._live, name=THREAD_NAME, daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._end_loop()
            raise

    # -- the consumer's side ------------------------------------------------------------------------

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
        if self._feed is None:
            # In the consumer's thread, whose caches the step has filled: as few steps as can be.
            self._give(_NEXT, 0 if self._given[0] == self._done[0] else self._find_lane())
            return
        with self._guard:
            if not self._ended:
                self._loop.call_soon_threadsafe(self._places.release)

    def _give(self, task: _Next | tuple[int, T], lane: int) -> None:
        self._given[lane] += 1
        self._queues[lane].put(task)

    def _find_lane(self) -> int:
        """The lane that has the fewest items to do, of those that have as few the first."""
        left = [given - done for given, done in zip(self._given, self._done, strict=True)]
        return left.index(min(left))

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
                stack.callback(self._join_lanes)
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
        feeding: asyncio.Task[None] | None = None
        self._lanes_ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            for lane in self._lanes:
                lane.start()
            if self._feed is not None:
                feeding = asyncio.create_task(self._feed_lanes(self._feed))
            await self._lanes_ended
        finally:
            self._end_lanes()
            if feeding is not None:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)

    async def _feed_lanes(self, source: AsyncIterator[T]) -> None:
        """Give an async source's items to the lanes, as places come free."""
        number = 0
        try:
            try:
                while True:
                    await self._places.acquire()
                    self._give((number, await anext(source)), self._find_lane())
                    number += 1
            finally:
                close = getattr(source, "aclose", None)
                if close is not None:
                    await close()
        except StopAsyncIteration:
            pass
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._handoff.put(number, Failed(error))
        self._end_lanes()

    def _end_lanes(self) -> None:
        """Let each lane end when it has done what it is at."""
        self._over = True
        for queue in self._queues:
            queue.put(None)

    def _join_lanes(self) -> None:
        for lane in self._lanes:
            if lane.ident is not None:  # it was started
                lane.join()

    # -- the lanes ----------------------------------------------------------------------------------

    def _live_in_lane(self, lane: int) -> None:
        error: BaseException | None = None
        try:
            self._run_lane(lane)
        except BaseException as fault:  # must reach the consumer, who would else wait for ever
            error = fault
        self._loop.call_soon_threadsafe(self._note_lane, error)

    def _note_lane(self, error: BaseException | None) -> None:
        """A lane has ended; the loop is open, since it waits for all of them."""
        self._lanes_left -= 1
        if self._lanes_ended.done():
            return
        if error is not None:
            self._lanes_ended.set_exception(error)
        elif not self._lanes_left:
            self._lanes_ended.set_result(None)

    def _run_lane(self, lane: int) -> None:
        """Carry one item after the other."""
        while (task := self._queues[lane].get()) is not None and not self._stopping:
            numbered = self._take_item() if isinstance(task, _Next) else task
            if numbered is None:
                return
            self._carry(*numbered)
            self._done[lane] += 1
            del task, numbered

    def _take_item(self) -> tuple[int, T] | None:
        """The source's next item; None: nothing more is to be made."""
        with self._taking:
            if self._over:
                return None
            try:
                item = next(self._items)
            except StopIteration:
                self._end_lanes()
                return None
            except BaseException as error:
                self._end_lanes()
                self._handoff.put(self._taken, Failed(error))
                return None
            self._taken += 1
            return self._taken - 1, item

    def _carry(self, number: int, item: T) -> None:
        """Do an item's work and hand it over. By itself, since a lane that waits would keep alive what it names."""
        try:
            outcome: R | Failed = self._work(item)
        except BaseException as error:  # also SystemExit of a user's source: it belongs to the consumer
            outcome = Failed(error)
            self._end_lanes()
        self._handoff.put(number, outcome)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
