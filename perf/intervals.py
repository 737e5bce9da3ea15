"""How sure is a mean over examples and seeds? Percentile bootstraps over both at once.

A quantity is a ratio of sums: ``Σ top / Σ bottom`` over examples, its top averaged over seeds. A mean has ones at the
bottom; normalised entropy has the losses of the base rate there. Each draw takes groups of examples (all examples of a
user, or single ones) and seeds, both with replacement. What one draw takes is the same for every quantity of a
:class:`Resampling`, and a difference of two ways is formed within it, example by example and seed by seed: paired.

Two limits: with S seeds their part of the spread comes out too small by about the factor ``(S-1)/S``; and an interval
over few groups is too narrow, which is why callers say how many there were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

DRAWS = 1_000
COVERED = 95.0
"""Per cent of the draws between the ends of an interval."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and where it may lie.

    Attributes:
        value: over all examples and seeds.
        low, high: ends of the 95 % interval.
        seeds: the figure of each seed alone, over all examples.

    """

    value: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()

    @property
    def told(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def text(self) -> str:
        """The figure and its interval, three decimals each."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Resampling:
    """Draws of groups and seeds, the same for all quantities of the same examples.

    Args:
        groups: int64[n]: the group of each example.
        seeds: how many seeds there are.
        draws: how many are made.
        seed: of the draws.

    """

    def __init__(self, groups: Int64s, seeds: int, *, draws: int = DRAWS, seed: int = 0) -> None:
        if not len(groups) or seeds < 1:
            raise ValueError(f"{len(groups)} examples and {seeds} seeds: there is nothing to draw from")
        rng = np.random.default_rng(seed)
        names, self._group = np.unique(groups, return_inverse=True)
        self.groups = len(names)
        self._taken = rng.multinomial(self.groups, np.full(self.groups, 1 / self.groups), draws).astype(np.float64)
        self._seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds

    def ratio(self, top: Floats, bottom: Floats | None = None) -> Interval:
        """``Σ top / Σ bottom`` and its interval; not finite where draws have nothing at the bottom.

        Args:
            top: float64[seeds, n].
            bottom: float64[n], or float64[seeds, n] where it has seeds as well; None: ones, which makes it a mean.

        """
        below = np.broadcast_to(np.ones(1) if bottom is None else bottom, top.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = self._draw(top) / self._draw(below)
            low, high = np.percentile(drawn, [50 - COVERED / 2, 50 + COVERED / 2])
            by_seed = top.sum(1) / below.sum(1)
            return Interval(float(top.sum() / below.sum()), float(low), float(high), tuple(by_seed.tolist()))

    def _draw(self, values: Floats) -> Floats:
        """Sums over drawn examples, averaged over drawn seeds: float64[draws]."""
        sums = np.stack([np.bincount(self._group, row, self.groups) for row in values])  # [seeds, groups]
        drawn: Floats = ((self._taken @ sums.T) * self._seeds).sum(1)
        return drawn
