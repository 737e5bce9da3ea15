"""How finished batches get from the threads that make them to whoever consumes them, in order.

Several threads put items, each at its number; whoever consumes takes them by number, from a thread (blocking) or from
any asyncio loop (awaiting). An item that comes early is kept until those before it are there. The buffer itself is
unbounded: the pipeline lends out only so many places. An error is an item like any other, and the last: it comes
after the items of lower numbers. Where makers are slow to get going, the first items may be kept until there are
several, so that the consumer, once it has begun, need not wait again.

Invariants: after an end nothing is put any more; every waiter wakes when an item can be taken and at the end; taking
past the end raises :class:`Ended` for ever, so that nobody can wait for what never comes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sized
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE_S = 0.05
"""Longest time between the first item and one that comes later, before what is kept is given all the same."""


class Ended(Exception):  # noqa: N818 - the end of a stream is no fault
    """Everything was taken."""


class Failed:
    """An item that could not be made, at its place. A value, since a future cannot carry every exception."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Handoff(Generic[T]):
    """A thread-safe buffer that puts items in order, with an end.

    Args:
        on_take: called after each take, by the taking thread.
        first: items that must be there before the first can be taken, at most as many as can be put before one is
            taken. Items that take long are not kept: the next one that comes after :data:`PATIENCE_S` ends it.

    """

    def __init__(self, on_take: Callable[[], None], first: int = 1) -> None:
        self._on_take = on_take
        self._items: deque[T] = deque()
        self._first = first
        self._kept: list[T] | None = []  # None: the first items were given
        self._since = 0.0
        self._early: dict[int, T | Failed] = {}
        self._number = 0
        self._ended = False
        self._error: BaseException | None = None
        # Re-entrant: the garbage collector may run the iterator's finalizer, and so `end`, anywhere.
        self._changed = threading.Condition(threading.RLock())
        self._wakers: list[Callable[[], None]] = []

    @property
    def ready(self) -> Sized:
        """Items that can be taken without waiting; for whoever asks often, the same object all the time."""
        return self._items

    # -- the producers' side ------------------------------------------------------------------------

    def put(self, number: int, item: T | Failed) -> None:
        """Give the item of this number, each of which comes once, from 0; an error ends what can be taken at its place.

        After the end it is dropped.
        """
        with self._changed:
            if self._ended:
                return
            if number != self._number:
                self._early[number] = item
                return
            while not isinstance(item, Failed):
                self._add(item)
                self._number += 1
                if self._number not in self._early:
                    break
                item = self._early.pop(self._number)
            else:
                self._ended, self._error = True, item.error
                self._early.clear()
                self._give_kept()
            self._wake()

    def _add(self, item: T) -> None:
        if self._kept is None:
            self._items.append(item)
            return
        now = time.monotonic()
        self._since = self._since or now
        self._kept.append(item)
        if len(self._kept) >= self._first or now - self._since > PATIENCE_S:
            self._give_kept()

    def _give_kept(self) -> None:
        if self._kept is not None:
            self._items.extend(self._kept)
            self._kept = None

    def end(self, error: BaseException | None = None, *, discard: bool = False) -> None:
        """Say that nothing comes any more; the first call counts.

        Args:
            error: what the consumer gets, once, after the items before it.
            discard: drop these items.

        """
        with self._changed:
            self._give_kept()
            if discard:
                self._items.clear()
                self._early.clear()
            if not self._ended:
                self._ended, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    # -- the consumer's side ------------------------------------------------------------------------

    def take(self) -> T:
        """Wait for the next item.

        Raises:
            Ended: after the last.
            BaseException: the error that the producer ended with, once.

        """
        try:
            item = self._items.popleft()  # the interpreter makes it one step: what lies ready takes no lock
        except IndexError:
            with self._changed:
                while not self._items and not self._ended:
                    self._changed.wait()
                item = self._pop()
        self._on_take()
        return item

    async def take_async(self) -> T:
        """As :meth:`take`, without blocking the running loop."""
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if self._items or self._ended:
                    item = self._pop()
                    break
                woken = loop.create_future()
                self._wakers.append(lambda woken=woken: _wake_loop(loop, woken))  # type: ignore[misc]
            await woken
        self._on_take()
        return item

    def _pop(self) -> T:
        if self._items:
            return self._items.popleft()
        error, self._error = self._error, None
        if isinstance(error, StopIteration | StopAsyncIteration):
            raise RuntimeError(f"{error!r} in the loader, which would end the consumer's loop unseen") from error
        raise Ended if error is None else error


def _wake_loop(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the consumer's loop was closed: nobody waits there
        loop.call_soon_threadsafe(lambda: None if woken.done() else woken.set_result(None))
