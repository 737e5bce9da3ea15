"""Inner loop of the order report: which events step back in time."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(nogil=True, cache=True)
def count_late(ts: Any, offsets: Any) -> Any:
    """How many events have a ``ts`` below that of an earlier event of their row.

    Args:
        ts: int64[events], in arrival order within each row.
        offsets: int64[rows + 1].

    """
    late = 0
    for row in range(len(offsets) - 1):
        for i in range(offsets[row] + 1, offsets[row + 1]):
            if i == offsets[row] + 1:
                newest = ts[i - 1]
            if ts[i] < newest:
                late += 1
            else:
                newest = ts[i]
    return late
