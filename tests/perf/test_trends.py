"""The verdict of a soak can fail, and does not for what only levels off."""

from __future__ import annotations

import numpy as np
import pytest

from perf.trends import judge

AT_S = np.arange(60.0)


def test_a_steady_leak_grows_however_noisy() -> None:
    rng = np.random.default_rng(0)
    for leak in (0.5, 3.0):
        assert judge(AT_S, 300 + leak * AT_S + rng.normal(0, 5, 60), allowed=16).grows
    assert judge(AT_S, 38 + np.arange(60) // 20, allowed=0.5).grows  # one descriptor every twenty rounds


def test_a_step_grows_though_most_pairs_are_level() -> None:
    assert judge(AT_S, np.where(AT_S < 40, 38, 45), allowed=0.5).grows


def test_what_levels_off_or_stands_out_once_does_not_grow() -> None:
    assert not judge(AT_S, 6 - 6 * 0.8**AT_S, allowed=0.5).grows
    assert not judge(AT_S, np.where(AT_S == 50, 90, 38), allowed=0.5).grows
    assert not judge(AT_S, 300 + np.random.default_rng(1).normal(0, 10, 60), allowed=16).grows
    assert not judge(AT_S, 400 + 0.3 * AT_S, allowed=0, share=0.05).grows


def test_a_limit_holds_for_every_look() -> None:
    assert judge(AT_S, np.where(AT_S == 50, 19, 12), allowed=18, limit=18).grows


def test_too_few_looks_tell_nothing() -> None:
    with pytest.raises(ValueError, match="3 looks"):
        judge([0, 1, 2], [1, 1, 1], allowed=1)
