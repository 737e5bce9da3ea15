"""Spans of events: which of them overlap, and how they are cut out of a column.

A window ``[low, high)`` of a user's history is what one projection wants of one pointer. Windows of the same user and
the same length limit overlap or lie apart; those that overlap make one *run*, which is read once, and each window is
then a span of the run.

The copy is compiled: an index of the events, as numpy would want, is as large as the column itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Runs:
    """Windows put together.

    Attributes:
        of: int64[B], the run of each window.
        top: int64[runs], the window of each run that ends last.
        low: int64[runs], where each run begins.

    """

    of: Int64s
    top: Int64s
    low: Int64s


def merge_windows(user: Int64s, low: Int64s, high: Int64s) -> Runs:
    """Runs of windows that overlap or touch.

    Args:
        user: int64[B], a number for each user.
        low, high: int64[B]; of two windows of a user, the one that begins later does not end earlier.

    """
    if not len(user):
        return Runs(user, user, low)
    order = np.lexsort((high, low, user))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(user[order]) != 0) | (low[order[1:]] > high[order[:-1]])
    starts = np.flatnonzero(first)
    of = np.empty(len(order), np.int64)
    of[order] = np.cumsum(first) - 1
    ends = np.append(starts[1:], len(order)) - 1
    return Runs(of, order[ends], low[order[starts]])


def number_rows(*columns: Array) -> tuple[Int64s, Int64s]:
    """Number the different rows of some columns of B values: a row of each number, and each row's number."""
    order = np.lexsort(columns[::-1])
    new = np.zeros(len(order), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[order[1:]] != column[order[:-1]]
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    return order[new], number


def copy_spans(values: Array, start: Int64s, end: Int64s, offsets: Int64s) -> Array:
    """Rows ``[start[b], end[b])`` of ``values: [N, *shape]``, back to back at ``offsets``: a new array."""
    out = np.empty((int(offsets[-1]), *values.shape[1:]), values.dtype)
    place_spans(values, start, end, out, offsets[:-1])
    return out


def place_spans(values: Array, start: Int64s, end: Int64s, out: Array, at: Int64s) -> None:
    """Copy rows ``[start[b], end[b])`` of ``values: [N, *shape]`` to where ``at[b]`` says in ``out: [M, *shape]``."""
    size = values.dtype.itemsize * int(np.prod(values.shape[1:], dtype=np.int64))
    if values.nbytes and out.nbytes:
        _copy(_as_bytes(values), _as_bytes(out), start * size, end * size, at * size)


def _as_bytes(array: Array) -> NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)


@njit(nogil=True, cache=True)
def _copy(source: Any, target: Any, start: Any, end: Any, at: Any) -> None:
    for b in range(len(start)):
        length = end[b] - start[b]
        target[at[b] : at[b] + length] = source[start[b] : end[b]]
