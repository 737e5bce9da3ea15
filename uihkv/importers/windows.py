"""Do a user's windows agree, and which history do they show?

Fat rows hold, each, the newest events of one history as it stood at their request. Laid over each other in order of the
requests, they show that history: a window that is not full shows it from the beginning, a full one slides along. A
window's version is the number of events up to its end, and reading the newest of that prefix gives the window back.

*Conflicts* are windows that cannot be laid so: they differ from what others showed where they overlap, or show less
than an older one did. *Gaps* are full windows that share nothing with what was shown before: more events happened
between two requests than a window holds. What happened there is lost already; the windows around are whole.

Whether events are equal is told by 64-bit hashes of all of their columns. That a hash may lie is of no consequence:
what comes of it is compared with the fat rows, value by value, before it is published
(:mod:`uihkv.importers.fatrows`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uihkv.userids import UserIds

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]


@dataclass(slots=True)
class Windows:
    """Where the windows of rows lie in their users' histories.

    Attributes:
        version: int64[rows], events up to the window's end; -1 for conflicts.
        fresh: int64[rows], how many events at the window's end no older row shows.
        place: int64[rows], of conflicts the first element that does not fit.
        gap: bool[rows], events before the window were never shown.

    """

    version: Int64s
    fresh: Int64s
    place: Int64s
    gap: NDArray[np.bool_]


@dataclass(slots=True)
class LaidRows:
    """Rows of a part in the order in which their windows are laid, user after user.

    Attributes:
        user: int64[rows], or strings.
        number: int64[rows], their numbers among all rows.
        key, after: int64[rows], what may order them: the moment of the request; or the latest ``ts``, and events since.
        begin, end: int64[rows], where their events lie in the part's.
        windows: where they lie in their users' histories.

    """

    user: UserIds
    number: Int64s
    key: Int64s
    after: Int64s
    begin: Int64s
    end: Int64s
    windows: Windows = field(init=False)

    def first_row(self) -> Int64s:
        """int64[users + 1], where each user's rows begin."""
        return np.flatnonzero(np.concatenate([[True], self.user[1:] != self.user[:-1], [True]]))

    def by_user(self, values: NDArray[Any]) -> Int64s:
        """Sum over the rows of each user: int64[users]."""
        sums: Int64s = np.add.reduceat(values.astype(np.int64), self.first_row()[:-1])
        return sums

    def of_rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """Users' values at each of their rows."""
        return np.repeat(values, np.diff(self.first_row()))

    def falls(self) -> NDArray[np.bool_]:
        """Rows behind a gap that show older events than the row before them: their order cannot be true."""
        falls = np.zeros(len(self.user), np.bool_)
        falls[1:] = (self.user[1:] == self.user[:-1]) & (self.key[1:] < self.key[:-1])
        return falls & self.windows.gap

    def take(self, rows: Int64s) -> LaidRows:
        """These rows, without windows."""
        return LaidRows(*(getattr(self, name)[rows] for name in _OF_ROWS))

    def put(self, rows: Int64s, other: LaidRows, chosen: Int64s) -> None:
        """Replace rows by chosen ones of others."""
        for name in _OF_ROWS:
            getattr(self, name)[rows] = getattr(other, name)[chosen]
        for name in ("version", "fresh", "place", "gap"):
            getattr(self.windows, name)[rows] = getattr(other.windows, name)[chosen]


_OF_ROWS = ("user", "number", "key", "after", "begin", "end")


def lay_windows(
    events: UInt64s, begin: Int64s, end: Int64s, first_row: Int64s, longest: int, *, ordered: bool, unique: bool
) -> Windows:
    """Lay the windows of each user over each other.

    Args:
        events: hashes of all windows' events; uint64[n] without zeros. begin, end: int64[rows], where each window
        lies among them. first_row: int64[users + 1], each user's rows, oldest first. longest: most events that a
        window may have. ordered: the rows' order is sure: a later one never shows less. Otherwise it may lie inside
        what older ones show. unique: two events are never equal in all columns, so that one shared by two windows
        tells that they overlap.

    """
    from uihkv.kernels import windows as _windows

    rows = len(begin)
    shown = np.concatenate([[0], np.cumsum(end - begin)])
    most = int(np.diff(shown[first_row]).max(initial=0))
    table = np.zeros(1 << max(2 * longest - 1, 1).bit_length(), np.uint64)
    version, fresh, place = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows, np.int64)
    gap = np.empty(rows, np.uint8)
    _windows.merge_windows(
        events, begin, end, first_row, longest, ordered, unique, np.empty(most, np.uint64),
        np.empty(max(longest, 1), np.int64), table, version, fresh, place, gap,
    )  # fmt: skip
    return Windows(version, fresh, place, gap.astype(np.bool_))


def hash_events(columns: Iterable[Any], n: int) -> UInt64s:
    """A number for each of n events, equal where all columns are equal in all bits, never 0: uint64[n].

    Args:
        columns: numpy arrays of numbers or bools, or Arrow arrays of strings.
        n: events.

    """
    hashes = np.full(n, 0x9E3779B97F4A7C15, np.uint64)
    for column in columns:
        hashes = _mix(hashes ^ _bits(column))
    return np.maximum(hashes, np.uint64(1))


def _bits(column: Any) -> UInt64s:
    if isinstance(column, pa.Array):
        from uihkv.distinct import hash_values
        from uihkv.texts import flatten_arrow

        return hash_values(*flatten_arrow("history", column, "string")).view(np.uint64)
    width = column.dtype.itemsize
    return _mix(np.ascontiguousarray(column).view(f"u{width}").astype(np.uint64))


def _mix(words: UInt64s) -> UInt64s:
    """Finaliser of splitmix64."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
