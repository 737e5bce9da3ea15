"""What a stream's examples are asked for: a feed, deadlines, and the loop in which the feed is awaited."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

from loader.admission import Late
from loader.errors import LoaderClosedError, SettingError
from loader.feeds import queue_batches
from loader.progress import NotedFeed, Progress

_HOLD_MAX = 1 << 16


class StreamExamples:
    """Examples from a feed, for ``Loader(store, StreamExamples(feed), ...)``; for one pass.

    Args:
        feed: an async iterator of batches of examples: mappings of arrays ``[n, *shape]``, Arrow tables or record
            batches, with ``user_id``, ``version``, maybe ``last_ts``, labels and features, and maybe ``inline`` and
            ``inline_start`` (:mod:`uihkv.inline`). Or an ``asyncio.Queue`` of such; None in it ends the stream.
            If it has ``state_dict()``, it is asked after each batch for its place behind it, plain values that JSON can
            hold; ``load_state_dict(place)``, before its first batch, makes it go on there with the same examples.
        deadline_s: how long an example waits, from its arrival, for the store to have its version.
        late: what becomes of it then: "raise" :class:`NotVisibleYetError`, "skip" it (counted), or "hold" it back,
            while others go on, until the store has it.
        hold_max: most examples held back. Where more would be, the stream waits, ``deadline_s`` at most.
        poll_s: how often the store is looked at while examples wait, and how old a snapshot gets.
        linger_s: how long a batch waits to be full; None: until it is, or the stream ends.
        columns: labels and features to take; None: all.
        requested_at: column of the requests' moments, in the store's time unit since 1970, for the freshness that
            ``loader.stats()`` tells; None, or a column that is not there: it tells none since the request.
        loop: where the feed is awaited; None: in the loop that runs now, if one does, else in the loader's own.

    Raises:
        SettingError: for arguments that cannot be.

    """

    def __init__(
        self,
        feed: AsyncIterator[Any] | asyncio.Queue[Any],
        *,
        deadline_s: float = 10.0,
        late: Late = "raise",
        hold_max: int = _HOLD_MAX,
        poll_s: float = 0.02,
        linger_s: float | None = None,
        columns: Iterable[str] | None = None,
        requested_at: str | None = "as_of",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not (isinstance(feed, asyncio.Queue) or hasattr(feed, "__aiter__")):
            raise SettingError(
                f"{type(feed).__name__} given as feed; an async iterator or an asyncio.Queue is expected"
            )
        if isinstance(columns, str):
            raise SettingError(f"columns is the string {columns!r}; write columns=[{columns!r}]")
        if late not in ("raise", "skip", "hold"):
            raise SettingError(f"late is {late!r}; 'raise', 'skip' or 'hold' is expected")
        self.deadline_s = _seconds("deadline_s", deadline_s)
        self.poll_s = _seconds("poll_s", poll_s)
        self.linger_s = None if linger_s is None else _seconds("linger_s", linger_s)
        self.late: Late = late
        self.hold_max = whole_number("hold_max", hold_max)
        self.columns = None if columns is None else tuple(columns)
        self.requested_at = requested_at
        if loop is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                loop = None
        self.feed = feed
        self._taken = False
        self._loop = loop

    def take_feed(self, progress: Progress) -> AsyncIterator[Any]:
        """The feed, once, to be awaited in any loop; its places are noted.

        Raises:
            LoaderClosedError: the second time.

        """
        if self._taken:
            raise LoaderClosedError("this stream has been read; a stream is read once, make a new StreamExamples")
        self._taken = True
        feed = queue_batches(self.feed) if isinstance(self.feed, asyncio.Queue) else aiter(self.feed)
        noted = NotedFeed(feed, progress)
        return noted if self._loop is None else _OtherLoop(noted, self._loop)

    @property
    def taken(self) -> bool:
        """Whether it is being read, or has been."""
        return self._taken

    def __repr__(self) -> str:
        return f"StreamExamples(deadline_s={self.deadline_s:g}, late={self.late!r})"


class _OtherLoop(AsyncIterator[Any]):
    """A feed that is awaited in the loop where it belongs."""

    def __init__(self, feed: AsyncIterator[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._feed = feed
        self._loop = loop

    async def __anext__(self) -> Any:
        if self._loop is asyncio.get_running_loop():
            return await anext(self._feed)
        # An end is handed over as a value: a future cannot carry StopAsyncIteration.
        found = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_next_or_end(self._feed), self._loop))
        if found is _END:
            raise StopAsyncIteration
        return found

    async def aclose(self) -> None:
        close = getattr(self._feed, "aclose", None)
        if close is None or self._loop.is_closed() or not self._loop.is_running():
            return
        # Not waited for: that loop may be the one that waits for this pass to end.
        asyncio.run_coroutine_threadsafe(_close(close), self._loop)


_END = object()


async def _next_or_end(feed: AsyncIterator[Any]) -> Any:
    return await anext(feed, _END)


async def _close(close: Any) -> None:
    with suppress(RuntimeError):  # its last step is being cancelled at this moment, which ends it as well
        await close()


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise SettingError(f"{name} is {value!r}; seconds of 0 or more are expected")
    return float(value)


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """A setting that is a whole number, ``least`` or more."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or number < least:
        raise SettingError(f"{name} is {value!r}; a whole number of {least} or more is expected")
    return number
