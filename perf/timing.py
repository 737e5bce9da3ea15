"""How to tell which of several ways is faster on a machine that is never quiet.

Repetitions of the variants are interleaved: each repetition runs every variant once, in an order drawn anew, so that
what disturbs the machine disturbs all of them alike. A ratio is formed within each repetition, and its median and
spread are what a bench reports. Every repetition is kept.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NOISE = 0.15
"""Spread (interquartile range over median) from which on a figure is called too noisy to tell."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One quantity, measured several times.

    Attributes:
        values: float64[repeats], in the order measured.

    """

    values: Floats

    @property
    def median(self) -> float:
        """The middle value."""
        return float(np.median(self.values))

    @property
    def low(self) -> float:
        """First quartile."""
        return float(np.percentile(self.values, 25))

    @property
    def high(self) -> float:
        """Third quartile."""
        return float(np.percentile(self.values, 75))

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        return (self.high - self.low) / self.median if self.median else math.inf

    @property
    def noisy(self) -> bool:
        """Whether the spread is too large to tell."""
        return self.spread > NOISE

    def scaled(self, factor: float) -> Samples:
        """Every value times a factor: another unit."""
        return Samples(self.values * factor)

    def describe(self) -> dict[str, object]:
        """Every repetition, and what is made of them."""
        return {
            "median": self.median, "low": self.low, "high": self.high, "spread": self.spread, "noisy": self.noisy,
            "values": self.values.tolist(),
        }  # fmt: skip

    def text(self, digits: int = 3) -> str:
        """The median, marked with ``~`` where it is too noisy to tell."""
        return f"{'~' if self.noisy else ''}{self.median:.{digits}g}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Variants measured side by side.

    Attributes:
        baseline: the variant that ratios refer to.
        seconds: seconds of one call, by variant; value ``i`` of all variants is of the same repetition.

    """

    baseline: str
    seconds: dict[str, Samples]

    def speedup(self, name: str, over: str | None = None) -> Samples:
        """How many times as fast as the baseline (or another variant), within each repetition."""
        return Samples(self.seconds[over or self.baseline].values / self.seconds[name].values)

    def describe(self) -> dict[str, object]:
        """Seconds and speed-ups of every variant."""
        return {
            "baseline": self.baseline,
            "seconds": {name: samples.describe() for name, samples in self.seconds.items()},
            "speedup": {name: self.speedup(name).describe() for name in self.seconds},
        }


def interleave(
    variants: Mapping[str, Callable[[], object]],
    repeats: int = 9,
    *,
    baseline: str | None = None,
    warmup: int = 1,
    min_s: float = 0.0,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Measure variants side by side.

    Args:
        variants: functions by name; what they return is dropped.
        repeats: how often each is measured.
        baseline: the variant that ratios refer to; None: the first.
        warmup: calls of each before anything is measured (compiles, fills caches).
        min_s: a measurement calls its variant again until this much time is estimated to pass; the mean counts.
        seed: of the order in which the variants of a repetition run.
        clock: seconds of what; ``time.thread_time``, for work of the calling thread that waits for nothing, leaves out
            what other processes take from it on a busy machine.

    """
    names = list(variants)
    calls = {}
    for name in names:
        took = math.inf
        for _ in range(max(warmup, 1 if min_s else 0)):
            took = min(took, timed(variants[name], clock=clock))
        calls[name] = max(1, math.ceil(min_s / max(took, 1e-7))) if min_s else 1
    rng = np.random.default_rng(seed)
    seconds = {name: np.empty(repeats) for name in names}
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()  # what is there stays: with kernels just compiled, a look through it takes half a second
    try:
        for repetition in range(repeats):
            for index in rng.permutation(len(names)).tolist():
                name = names[index]
                seconds[name][repetition] = timed(variants[name], calls[name], clock)
            gc.collect()
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return Comparison(baseline or names[0], {name: Samples(values) for name, values in seconds.items()})


def timed(function: Callable[[], object], calls: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that a call takes, the mean of several in a row."""
    begin = clock()
    for _ in range(calls):
        function()
    return (clock() - begin) / calls


@dataclass(frozen=True, slots=True)
class Line:
    """``a + b·x``, fitted by least squares of relative errors, so that small x count as much as large ones."""

    a: float
    b: float

    @classmethod
    def fit(cls, x: Floats, y: Floats) -> Line:
        """The line nearest to the points: float64[points] each, at least two of different x, y positive."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        (a, b), *_ = np.linalg.lstsq(np.stack([1 / y, x / y], axis=1), np.ones(len(x)), rcond=None)
        return cls(float(a), float(b))

    def describe(self) -> dict[str, float]:
        """The fields by name."""
        return {"a": self.a, "b": self.b}
