"""How a quantity grows: laws fitted to measured points, with what is left over.

All fits are of relative errors, so that small points count as much as large ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Power:
    """``scale · x ** exponent``.

    Attributes:
        scale, exponent: of the law.
        residual: greatest relative difference between a point and the law.

    """

    scale: float
    exponent: float
    residual: float

    @classmethod
    def fit(cls, x: ArrayLike, y: ArrayLike) -> Power:
        """The law nearest to the points by their logarithms: float64[points] each, positive, two or more of x."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        exponent, log_scale = np.polyfit(np.log(x), np.log(y), 1)
        scale = float(np.exp(log_scale))
        return cls(scale, float(exponent), _worst(scale * x**exponent, y))

    def text(self) -> str:
        """The exponent, and how far a point is off at most."""
        return f"x^{self.exponent:.2f}, off by {100 * self.residual:.0f} % at most"


@dataclass(frozen=True, slots=True)
class Linear:
    """A sum of terms, each a measured quantity times a coefficient.

    Attributes:
        names: of the terms.
        coefficients: float64[terms].
        residual: greatest relative difference between a point and the sum.

    """

    names: tuple[str, ...]
    coefficients: Floats
    residual: float

    @classmethod
    def fit(cls, terms: Mapping[str, ArrayLike], y: ArrayLike) -> Linear:
        """The non-negative coefficients nearest to the points.

        Args:
            terms: float64[points] each, at least as many points as terms.
            y: float64[points], positive.

        """
        y = np.asarray(y, np.float64)
        table = np.stack([np.broadcast_to(np.asarray(term, np.float64), y.shape) for term in terms.values()], axis=1)
        scale = np.maximum(np.abs(table).max(axis=0), np.finfo(float).tiny)  # so that terms of other sizes count alike
        found = _least_squares(table / scale / y[:, None], np.ones(len(y))) / scale
        return cls(tuple(terms), found, _worst(table @ found, y))

    def at(self, terms: Mapping[str, ArrayLike]) -> Floats:
        """The law's values: float64[points]."""
        total: Floats = np.zeros(())
        for name, coefficient in zip(self.names, self.coefficients, strict=True):
            total = total + coefficient * np.asarray(terms[name], np.float64)
        return total

    def describe(self) -> dict[str, float]:
        """Coefficients by name, and the residual."""
        return {**dict(zip(self.names, self.coefficients.tolist(), strict=True)), "residual": self.residual}


def _worst(law: Floats, y: Floats) -> float:
    return float(np.abs(law / y - 1).max())


def _least_squares(table: Floats, y: Floats) -> Floats:
    """Least squares without negative coefficients: of all sets of terms the best whose solution has none."""
    terms = table.shape[1]
    best, least = np.zeros(terms), np.inf
    for chosen in range(1, 1 << terms):
        used = [term for term in range(terms) if chosen >> term & 1]
        solution, *_ = np.linalg.lstsq(table[:, used], y, rcond=None)
        if (solution >= 0).all():
            off = float(np.square(table[:, used] @ solution - y).sum())
            if off < least:
                best, least = np.zeros(terms), off
                best[used] = solution
    return best
