"""Fits give back the law that made the points."""

from __future__ import annotations

import numpy as np
import pytest

from perf.fits import Linear, Power


def test_power_gives_back_its_exponent() -> None:
    x = np.array([256, 1024, 4096, 16_384])
    law = Power.fit(x, 7 * x**0.62)
    assert law.exponent == pytest.approx(0.62)
    assert law.scale == pytest.approx(7)
    assert law.residual < 1e-9


def test_linear_gives_back_its_coefficients_and_those_that_are_not_there() -> None:
    rng = np.random.default_rng(0)
    users, events = rng.integers(10, 1000, 9), rng.integers(1_000_000, 50_000_000, 9)
    law = Linear.fit({"users": users, "events": events, "files": np.ones(9)}, 900 * users + 11.5 * events)
    assert law.describe() == pytest.approx({"users": 900, "events": 11.5, "files": 0, "residual": 0}, abs=1e-6)
    assert law.at({"users": 10, "events": 100, "files": 1}) == pytest.approx(9000 + 1150)


def test_linear_says_how_far_off_a_point_is() -> None:
    law = Linear.fit({"a": 1.0, "b": [1.0, 2.0, 3.0, 4.0]}, [1.0, 2.0, 3.0, 8.0])
    assert law.residual > 0.2
