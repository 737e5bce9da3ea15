"""Does a quantity that is looked at again and again grow, or has it levelled off?

The first quarter of the looks is left out: caches fill, allocators settle, slabs are made as they are first needed. Of
the rest two things are worked out. *Slope*: the median of the slopes between all pairs of looks (Theil and Sen), which
single high looks do not move, times the time watched: by how much it would have grown. *Step*: the median of the last
third less that of the first, which a jump at any time moves. The quantity grows if either is more than what it is
allowed, or, where there is a limit, if a single look is above that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 8
"""Looks below which nothing is told."""

_WARM = 0.25
_MOST_PAIRS = 400


@dataclass(frozen=True, slots=True)
class Trend:
    """What has become of a quantity.

    Attributes:
        early, late: medians of the first and the last third of the looks that count.
        most: of all looks.
        slope: growth over the time watched, by the median slope.
        allowed: how much it may grow.
        limit: what no look may exceed; None: no limit.

    """

    early: float
    late: float
    most: float
    slope: float
    allowed: float
    limit: float | None = None

    @property
    def grows(self) -> bool:
        """The verdict."""
        above = self.limit is not None and self.most > self.limit
        return above or self.slope > self.allowed or self.late - self.early > self.allowed


def judge(
    at_s: Sequence[float],
    values: Sequence[float],
    *,
    allowed: float,
    share: float = 0.0,
    limit: float | None = None,
) -> Trend:
    """The trend of a quantity.

    Args:
        at_s: moments of the looks, ascending.
        values: what was seen.
        allowed: growth that is no trend; at least ``share`` of the early median.
        share: see there.
        limit: what no look may exceed.

    Raises:
        ValueError: for fewer than :data:`LEAST` looks.

    """
    if len(values) < LEAST:
        raise ValueError(f"{len(values)} looks tell no trend; {LEAST} at least are needed: watch for longer")
    warm = int(len(values) * _WARM)
    at, seen = np.asarray(at_s, float)[warm:], np.asarray(values, float)[warm:]
    thin = np.unique(np.linspace(0, len(seen) - 1, min(len(seen), _MOST_PAIRS)).astype(int))
    low, high = np.triu_indices(len(thin), 1)
    times, heights = at[thin], seen[thin]
    slopes = (heights[high] - heights[low]) / np.maximum(times[high] - times[low], 1e-9)
    third = max(1, len(seen) // 3)
    early = float(np.median(seen[:third]))
    return Trend(
        early,
        float(np.median(seen[-third:])),
        float(np.max(values)),
        float(np.median(slopes)) * float(at[-1] - at[0]),
        max(allowed, share * early),
        limit,
    )
