"""Stochastic Length: training on a drawn part of a long history.

After Zhai et al., "Actions Speak Louder than Words" (arXiv 2402.17152), section 2.3: with N the longest length and
alpha in (1, 2], a history of n events stays as it is when n is at most N^(alpha/2); a longer one is cut down to
N^(alpha/2) of its events, drawn without replacement, with probability 1 - N^alpha / n^2, and stays whole otherwise.

A draw depends on seed, epoch, user and version alone: the same on every machine, in every order of reading, online
and offline. Which events a draw picks is worked out from the window's bounds, so only those are read and decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

from uihkv.errors import SchemaError


@dataclass(frozen=True, slots=True)
class StochasticLength:
    """Draw from histories longer than ``max_len ** (alpha / 2)``; for ``Projection(sample=...)``.

    Args:
        alpha: above 1 and at most 2; at 2 nothing is drawn.
        seed: 0 to 2**63 - 1.

    Raises:
        SchemaError: for something else.

    """

    alpha: float
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float) or not 1 < self.alpha <= 2:
            raise SchemaError(f"alpha is {self.alpha!r}; a number above 1 and at most 2 is expected")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 63:
            raise SchemaError(f"seed is {self.seed!r}; a whole number from 0 to 2**63 - 1 is expected")

    def threshold(self, max_len: int) -> int:
        """Longest length that is never cut, and to which longer ones are."""
        return max(1, int(max_len ** (self.alpha / 2)))
