"""Inner loops over bases: where histories begin that ``trim`` has cut.

What a base is stands in :mod:`uihkv.bases`.
"""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(nogil=True, cache=True)
def find_bases(row: Any, chunks_of: Any, start: Any, first_tail: Any, base: Any) -> None:
    """First version that each row still has; 0 for row -1.

    Args:
        row: int64[n], the user's row among the users.
        chunks_of: int64[rows, 2], where each user's chunks begin and end among the entries.
        start: int64[entries]; the entries from ``first_tail`` are the users' tails, those of the rows opened.
        base: int64[n], the output.

    """
    for i in range(len(row)):
        base[i] = 0
        if row[i] >= 0:
            chunk = chunks_of[row[i], 0]
            base[i] = start[chunk] if chunk < chunks_of[row[i], 1] else start[first_tail + row[i]]


@njit(nogil=True, cache=True)
def cut_to_bases(
    row: Any, low: Any, high: Any, chunks_of: Any, start: Any, first_tail: Any, offsets: Any
) -> Any:  # fmt: skip
    """Leave of each window what is kept; windows that end at the base or below become empty at 0.

    Args:
        row, chunks_of, start, first_tail: as in :func:`find_bases`.
        low, high: int64[n], the windows ``[low, high)``, changed in place.
        offsets: int64[n + 1], running number of events, made anew.

    Returns:
        the first window of which events are gone, the first of which all are; -1: none.

    """
    cut = -1
    gone = -1
    total = 0
    for i in range(len(row)):
        if high[i] > 0:
            chunk = chunks_of[row[i], 0]
            base = start[chunk] if chunk < chunks_of[row[i], 1] else start[first_tail + row[i]]
            if low[i] < base or high[i] <= base:
                if cut < 0:
                    cut = i
                low[i] = base
                if high[i] <= base:
                    if gone < 0:
                        gone = i
                    low[i] = 0
                    high[i] = 0
        offsets[i] = total
        total += high[i] - low[i]
    offsets[len(row)] = total
    return cut, gone
