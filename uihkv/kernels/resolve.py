"""Inner loops of resolving: moments grouped by user, and the search for each in the user's visible times.

Grouping first is worth a pass: all moments of a user are then looked up while its visible times are in the cache
(``python -m perf.resolve``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def group_rows(row: Any, bounds: Any, order: Any) -> None:
    """Places of all rows, grouped by row: a stable counting sort. Rows of -1 are left out.

    Args:
        row: int64[n], from -1 to ``len(bounds) - 2``.
        bounds: int64[rows + 1], output: places of row ``r`` are ``order[bounds[r]:bounds[r + 1]]``.
        order: int64[n], output; what stands past ``bounds[-1]`` means nothing.

    """
    bounds[:] = 0
    for i in range(len(row)):
        bounds[row[i] + 1] += 1
    bounds[0] = 0  # where the -1 were counted
    for r in range(1, len(bounds)):
        bounds[r] += bounds[r - 1]
    at = bounds.copy()
    for i in range(len(row)):
        r = row[i]
        if r >= 0:
            order[at[r]] = i
            at[r] += 1


@njit(nogil=True, cache=True)
def find_versions(
    rows: Any, bounds: Any, order: Any, moment: Any, offsets: Any, visible: Any, first: Any, version: Any
) -> None:
    """Versions of the prefixes visible strictly before each moment, for the users of some rows.

    Args:
        rows: int64[k], the users' rows in ``bounds``.
        bounds, order: of :func:`group_rows`.
        moment: int64[n].
        offsets: int64[k + 1] into ``visible``, which ascends within each row.
        visible: int64[events].
        first: int64[k], version before each row's first event.
        version: int64[n], output; changed only where ``order`` names these rows.

    """
    for k in range(len(rows)):
        begin = offsets[k]
        size = offsets[k + 1] - begin
        for j in range(bounds[rows[k]], bounds[rows[k] + 1]):
            i = order[j]
            wanted = moment[i]
            low = begin
            left = size
            while left > 1:  # no branch on what is found: a mispredicted one costs more than the step
                half = left >> 1
                low += half * (visible[low + half - 1] < wanted)
                left -= half
            version[i] = first[k] + low - begin + (left == 1 and visible[low] < wanted)


@njit(nogil=True, cache=True)
def take_last(
    rows: Any, bounds: Any, order: Any, offsets: Any, ts: Any, first: Any, version: Any, last_ts: Any
) -> None:
    """``ts`` of event ``version - 1`` of each moment of some rows; 0 where the version is that before the first event.

    Args: as :func:`find_versions`; ``ts``: int64[events], ``last_ts``: int64[n], output.
    """
    for k in range(len(rows)):
        for j in range(bounds[rows[k]], bounds[rows[k] + 1]):
            i = order[j]
            at = version[i] - first[k]
            last_ts[i] = ts[offsets[k] + at - 1] if at > 0 else np.int64(0)
