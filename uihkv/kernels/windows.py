"""From windows of a history to the history: where each one lies in what the ones before it showed.

Events are compared by 64-bit numbers, equal for equal events. A window that is shorter than the longest allowed shows
its user's history from the beginning. A full one shows the newest events, so its beginning is looked for at the end
of what is known: the longest end of the history that the window begins with (Knuth, Morris and Pratt), in time linear
in the window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

CONFLICT = -1


@njit(nogil=True, cache=True)
def _failure_of(event: Any, low: Any, length: Any, failure: Any) -> None:
    """For each beginning of the window, the longest shorter beginning that it ends with."""
    failure[0] = 0
    k = 0
    for i in range(1, length):
        while k > 0 and event[low + i] != event[low + k]:
            k = failure[k - 1]
        if event[low + i] == event[low + k]:
            k += 1
        failure[i] = k


@njit(nogil=True, cache=True)
def _overlap(history: Any, n: Any, event: Any, low: Any, length: Any, back: Any, failure: Any) -> Any:
    """Longest end of the history that the window begins with, and where it lies wholly inside (0: nowhere)."""
    inside = 0
    k = 0
    for i in range(max(0, n - back), n):
        if k == length:
            k = failure[k - 1]
        while k > 0 and history[i] != event[low + k]:
            k = failure[k - 1]
        if history[i] == event[low + k]:
            k += 1
        if k == length:
            inside = i + 1
    return k, inside


@njit(nogil=True, cache=True)
def _first_shared(history: Any, n: Any, event: Any, low: Any, length: Any, table: Any) -> Any:
    """First element of the window that is among the newest events of the history, -1 for none."""
    table[:] = 0
    mask = np.uint64(len(table) - 1)
    for i in range(max(0, n - length), n):
        at = history[i] & mask
        while table[at] != 0 and table[at] != history[i]:
            at = (at + np.uint64(1)) & mask
        table[at] = history[i]
    for i in range(length):
        at = event[low + i] & mask
        while table[at] != 0:
            if table[at] == event[low + i]:
                return i
            at = (at + np.uint64(1)) & mask
    return -1


@njit(nogil=True, cache=True)
def merge_windows(
    event: Any, begin: Any, end: Any, first_row: Any, longest: Any, ordered: Any, unique: Any,
    history: Any, failure: Any, table: Any, version: Any, fresh: Any, place: Any, gap: Any,
) -> None:  # fmt: skip
    """Lay the windows of each user over each other.

    Args:
        event: uint64[events] of all windows, equal for equal events, none 0.
        begin, end: int64[rows], where each window lies.
        first_row: int64[users + 1], each user's rows, oldest first.
        longest: most events that a window may have; one that has them may lack older ones.
        ordered: rows are surely in order: a later one never shows less.
        unique: events do not repeat, so that one that two windows share tells that they overlap.
        history: uint64[most events of all windows of a user], scratch.
        failure: int64[longest], scratch.
        table: uint64[a power of two, at least twice longest], scratch.
        version: int64[rows], the output: the events up to the window's end, ``CONFLICT`` where it does not fit.
        fresh: int64[rows], the output: how many at the window's end were not known.
        place: int64[rows], the output: of conflicts, the first element that does not fit.
        gap: uint8[rows], the output: 1 where events between it and the one before were never shown.

    """
    for user in range(len(first_row) - 1):
        n = 0
        for row in range(first_row[user], first_row[user + 1]):
            low = begin[row]
            length = end[row] - low
            fresh[row] = 0
            place[row] = 0
            gap[row] = 0
            if length < longest:
                same = 0
                while same < min(n, length) and history[same] == event[low + same]:
                    same += 1
                if same < min(n, length) or (length < n and ordered):
                    version[row] = CONFLICT
                    place[row] = same
                    continue
                version[row] = length
            else:
                back = length if ordered else n
                _failure_of(event, low, length, failure)
                k, inside = _overlap(history, n, event, low, length, back, failure)
                if k < length and inside > 0:
                    version[row] = inside
                elif k > 0 or n == 0:
                    version[row] = n - k + length
                else:
                    shared = _first_shared(history, n, event, low, length, table) if unique else -1
                    if shared >= 0:
                        version[row] = CONFLICT
                        place[row] = shared
                        continue
                    gap[row] = 1
                    version[row] = n + length
            if version[row] > n:
                fresh[row] = version[row] - n
                for i in range(length - fresh[row], length):
                    history[n] = event[low + i]
                    n += 1
