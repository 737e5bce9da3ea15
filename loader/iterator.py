"""One pass over a loader, as a plain iterator and as an async one.

It owns its pipeline, and through it a thread and a snapshot. It closes them at the end of the epoch, at an error, when
the consumer is interrupted while it waits, when :meth:`LoaderIterator.close` is called, and, since nothing else
holds it, as soon as a ``for`` loop over it is left.
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator

from loader.batch import Batch
from loader.epochs import Bounds
from loader.errors import LoaderClosedError
from loader.handoff import Ended
from loader.pipeline import Pipeline
from loader.prefetch import Sent
from loader.stages import Place
from loader.state import Position
from loader.stats import Meter, label


class Pass:
    """How far one pass has come, and its numbers: what a loader still sees of it when it is over.

    Attributes:
        meter: times and counts.
        begun: whether the consumer has been handed a batch, or the end.

    """

    __slots__ = ("_handed", "_plan", "_position", "begun", "meter")

    def __init__(self, position: Position, meter: Meter) -> None:
        self._position = position
        self._plan: Bounds | None = None
        self._handed = 0
        self.meter = meter
        self.begun = False

    @property
    def position(self) -> Position:
        """The place after the newest batch that was handed to the consumer; worked out when somebody asks."""
        plan = self._plan
        return self._position if plan is None else plan.position(self._handed)

    def advance(self, plan: Bounds, batches: int) -> None:
        """So many batches of the epoch were handed over."""
        self._plan, self._handed, self.begun = plan, batches, True

    def settle(self) -> None:
        """The pass is over: keep its place, and not its plan."""
        self._position, self._plan = self.position, None


class _Forks:
    """How many forks lie behind this process: an iterator works in the process that made it, where its threads are.

    Asking for the process's id at each batch was a fifth of what handing it over takes.
    """

    behind = 0

    @classmethod
    def note(cls) -> None:
        cls.behind += 1


os.register_at_fork(after_in_child=_Forks.note)


def _of_a_parent() -> LoaderClosedError:
    return LoaderClosedError("this iterator is of a parent process; make one here with iter(loader)")


class LoaderIterator(Iterator[Batch], AsyncIterator[Batch]):
    """Batches of one epoch, from one place on. Made by ``iter(loader)``; for one consumer.

    Args:
        pipeline: makes the batches; the iterator closes it.
        plan: of the pass.
        passed: kept up to date.
        receive: makes a batch safe to use in the consumer's thread.

    """

    def __init__(
        self,
        pipeline: Pipeline[Place, Sent],
        plan: Bounds,
        passed: Pass,
        receive: Callable[[Sent], Batch],
    ) -> None:
        self._pipeline = pipeline
        self._ready, self._take = pipeline.ready, pipeline.take
        self._plan = plan
        self._next = plan.first
        self._passed = passed
        self._receive = receive
        self._over = False
        self._forks = _Forks.behind
        self._finalizer = weakref.finalize(self, pipeline.finalize)

    def __iter__(self) -> LoaderIterator:
        return self

    def __aiter__(self) -> LoaderIterator:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            StopIteration: after the last.
            LoaderClosedError: when the loader or this iterator was closed before the last, or in a forked child.
            BaseException: what a stage raised, as itself, with notes that say where.

        """
        if self._over:
            raise StopIteration
        if self._forks != _Forks.behind:
            raise _of_a_parent()
        # What lies ready is handed over in few steps: each runs in caches that the consumer's own work has filled.
        ready, start = len(self._ready), time.perf_counter()
        try:
            return self._hand_over(self._take() if ready else self._wait(), ready, start)
        except Ended:
            self._finish()
            raise StopIteration from None
        except BaseException:
            self.close()
            raise

    async def __anext__(self) -> Batch:
        """As :meth:`__next__`, without blocking the running loop; raises StopAsyncIteration after the last."""
        if self._over:
            raise StopAsyncIteration
        if self._forks != _Forks.behind:
            raise _of_a_parent()
        ready, start = len(self._ready), time.perf_counter()
        try:
            return self._hand_over(await self._pipeline.take_async(), ready, start)
        except Ended:
            self._finish()
            raise StopAsyncIteration from None
        except asyncio.CancelledError:  # nothing was taken: the consumer may ask again
            raise
        except BaseException:
            self.close()
            raise

    def _wait(self) -> Sent:
        """The next batch, when none lies ready."""
        with label("wait"):
            return self._take()

    def close(self) -> None:
        """End this pass: no thread and no snapshot is left. Closing twice, or after the end, is no error."""
        self._over = True
        first = self._finalizer.detach() is not None
        self._pipeline.close()
        self._passed.settle()
        if first and self._passed.meter.trace is not None:
            self._passed.meter.trace.write()

    def _hand_over(self, sent: Sent, ready: int, start: float) -> Batch:
        batch = self._receive(sent)
        meter = self._passed.meter
        if meter.trace is not None:
            meter.trace.add("wait", self._next, start, time.perf_counter() - start)
        self._next += 1
        self._passed.advance(self._plan, self._next)
        meter.handed_over(sent.sizes, ready, time.perf_counter() - start)
        return batch

    def _finish(self) -> None:
        """The pipeline has ended; that is the end of the epoch only if every batch was handed over."""
        self._passed.begun = True
        whole = self._next >= self._plan.batches
        self.close()
        if not whole:
            raise LoaderClosedError(
                f"the loader was closed after batch {self._next} of {self._plan.batches}; nothing more comes"
            ) from None
