"""Which examples of a stream has the trainer been handed, and where does the feed begin to go on behind them?

A feed knows its own place, such as offsets of a log: after each of its batches it is asked for its ``state_dict()``.
Examples are handed out later than they come, and where some are held back in another order. So a *mark* is kept for
each batch of the feed that is not done with: the feed's state before it, and the number of its first example. The state
of the stream is that of the oldest mark behind which anything is left to do, with the examples behind it that are done
all the same. A feed that begins there gives them again, and they are left out.

Done is what was handed to the trainer, and what was skipped. A feed without a state has no marks, and costs nothing.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loader.errors import StateError

Int64s = NDArray[np.int64]

_NONE = np.zeros((0, 2), np.int64)


class Progress:
    """How far a stream has come; used by the loader's thread and by the consumer's.

    Args:
        feed: asked for its ``state_dict()`` if it has one.
        done: int64[n, 2], numbers ``[first, last)`` of examples behind the feed's place that were done with before.

    """

    def __init__(self, feed: Any, done: Int64s = _NONE) -> None:
        self._ask = getattr(feed, "state_dict", None)
        self._before = self._done = done
        self._told: Any = None
        self._marks: deque[tuple[int, Any]] = deque()
        self._lock = threading.Lock()

    @property
    def known(self) -> bool:
        """Whether the feed knows its place."""
        return self._ask is not None

    def begin(self) -> None:
        """Note the feed's place before its first batch."""
        if self._ask is not None:
            self._told = self._ask()
            with self._lock:
                self._marks.append((0, self._told))

    def note(self) -> None:
        """Note the feed's place behind the batch that it has just given; in the loop where it is awaited."""
        if self._ask is not None:
            self._told = self._ask()

    def came(self, examples: int) -> None:
        """So many examples have come until now, with the batch that was noted last."""
        if self._ask is not None:
            with self._lock:
                if self._marks and self._marks[-1][0] == examples:  # a batch without examples
                    self._marks.pop()
                self._marks.append((examples, self._told))

    def is_done(self, number: Int64s) -> NDArray[np.bool_]:
        """Which of these an earlier run was done with: bool[n]."""
        place = np.searchsorted(self._before[:, 0], number, "right") - 1
        inside: NDArray[np.bool_] = (place >= 0) & (number < self._before[place, 1] if len(self._before) else False)
        return inside

    def done(self, number: Int64s) -> None:
        """These examples are done with."""
        if self._ask is None or not len(number):
            return
        number = np.sort(number)
        breaks = np.flatnonzero(np.diff(number) != 1) + 1
        first, last = number[np.r_[0, breaks]], number[np.r_[breaks - 1, len(number) - 1]] + 1
        with self._lock:
            self._done = _join(np.concatenate([self._done, np.stack([first, last], axis=1)]))
            whole = int(self._done[0, 1]) if self._done[0, 0] <= self._marks[0][0] else self._marks[0][0]
            while len(self._marks) > 1 and self._marks[1][0] <= whole:
                self._marks.popleft()
            self._done = self._done[self._done[:, 1] > self._marks[0][0]]

    def state(self) -> dict[str, Any]:
        """The feed's place, and ``done``: of the examples behind it, the ranges that need not come again.

        Raises:
            StateError: when the feed's place is nothing that JSON can hold.

        """
        with self._lock:
            mark = self._marks[0] if self._marks else None
            done = self._done
        first, feed = mark or (0, None if self._ask is None else self._ask())  # nothing was asked of it yet
        try:
            json.dumps(feed)
        except (TypeError, ValueError) as error:
            raise StateError(f"the feed's state is {feed!r:.80}, which JSON cannot hold ({error})") from error
        return {"feed": feed, "done": (np.maximum(done, first) - first).tolist()}


def _join(ranges: Int64s) -> Int64s:
    """Ranges in order, those that touch joined."""
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ranges[:, 1])
    begins = np.r_[True, ranges[1:, 0] > reach[:-1]]
    ends = np.r_[np.flatnonzero(begins)[1:] - 1, len(ranges) - 1]
    return np.stack([ranges[begins, 0], reach[ends]], axis=1)


def read_progress(state: Mapping[str, Any], feed: Any) -> Int64s:
    """Set a feed to the place of a state, and give what is done behind it: int64[n, 2].

    Raises:
        StateError: when the feed cannot be set to a place, or the state has none.

    """
    load = getattr(feed, "load_state_dict", None)
    if load is None:
        raise StateError(
            f"{type(feed).__name__} cannot be wound to a place: it has no load_state_dict. Start the feed behind the "
            "examples that were consumed"
        )
    if "feed" not in state:
        raise StateError("the state was taken of a feed without state_dict; it does not say where the feed stood")
    given = state.get("done", [])
    try:
        done = np.asarray(given, np.int64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        raise StateError(f"the state's done is {given!r:.80}; pairs of whole numbers are expected") from None
    flat = done.reshape(-1)
    if (flat < 0).any() or (np.diff(flat) <= 0).any():
        raise StateError(f"the state's done is {given!r:.80}; ascending ranges of numbers from 0 are expected")
    load(state["feed"])
    return done


class NotedFeed(AsyncIterator[Any]):
    """A feed that notes its place behind each batch.

    Args:
        feed: awaited in the loop that awaits this.
        progress: keeps it.

    """

    def __init__(self, feed: AsyncIterator[Any], progress: Progress) -> None:
        self._feed = feed
        self._progress = progress
        self._begun = False

    async def __anext__(self) -> Any:
        if not self._begun:
            self._begun = True
            self._progress.begin()
        batch = await anext(self._feed)
        self._progress.note()
        return batch

    async def aclose(self) -> None:
        """Close the feed, if it can be."""
        close = getattr(self._feed, "aclose", None)
        if close is not None:
            await close()
