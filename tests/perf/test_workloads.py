"""Logs have the traits that their parameters state, whatever their size."""

from __future__ import annotations

import numpy as np
import pytest

from perf import workloads
from perf.logs import REAL, find_real_log, load_log
from perf.workloads import Log, Workload, make_log, make_parts, size_workload


def tail_exponent(lengths: np.ndarray, longest: int) -> float:
    """Of a Pareto law that was cut: how often the upper half of lengths doubles before the cut."""
    least = float(np.median(lengths))
    upper = lengths[lengths > least]
    return float(np.count_nonzero(upper < longest) / np.log(np.minimum(upper, longest) / least).sum())


@pytest.mark.parametrize("tail", [1.1, 1.5, 2.0])
def test_histories_have_the_tail_and_mean_that_are_asked_for(tail: float) -> None:
    log = make_log(Workload(users=8_000, mean_length=200, tail=tail), seed=1)
    assert tail_exponent(log.lengths, workloads.LONGEST) == pytest.approx(tail, rel=0.08)
    assert log.lengths.mean() == pytest.approx(200, rel=0.01)
    assert log.lengths.min() >= 1 and log.lengths.max() <= workloads.LONGEST


def test_a_large_log_reaches_the_longest_history() -> None:
    assert make_log(size_workload(1_000_000), seed=0).lengths.max() == workloads.LONGEST


@pytest.mark.parametrize("zipf", [0.8, 1.1, 1.4])
def test_popularity_falls_by_the_exponent(zipf: float) -> None:
    log = make_log(size_workload(400_000, zipf=zipf, items=20_000), seed=2)
    often = np.sort(np.bincount(log.columns["item_id"], minlength=20_000))[::-1]
    rank = np.arange(10, 300)
    slope = np.polyfit(np.log(rank + 1), np.log(often[rank]), 1)[0]
    assert slope == pytest.approx(-zipf, abs=0.1)
    weights = np.arange(1, 20_001) ** -zipf
    head = weights[:200].sum() / weights.sum()
    assert often[:200].sum() / len(log) == pytest.approx(head, rel=0.15)


@pytest.mark.parametrize("late", [0.0, 0.1, 0.5])
def test_so_many_events_arrive_late(late: float) -> None:
    log = make_log(size_workload(200_000, late=late, late_s=600), seed=3)
    by_ms = log.visible_at - log.ts
    assert np.count_nonzero(by_ms) / len(log) == pytest.approx(late, abs=0.01)
    assert by_ms.min() >= 0
    if late:
        assert by_ms[by_ms > 0].mean() == pytest.approx(600_000, rel=0.05)


def test_sessions_are_as_long_and_as_far_apart_as_asked_for() -> None:
    log = make_log(size_workload(200_000, session_events=20.0), seed=4)
    gaps = np.delete(np.diff(log.visible_at), log.offsets[1:-1] - 1)
    assert gaps.min() > 0, "each user's events arrive one after the other"
    between = gaps > 400_000
    assert 1 / between.mean() == pytest.approx(20, rel=0.05)
    assert gaps[~between].mean() == pytest.approx(20_000, rel=0.05)
    assert gaps[between].mean() == pytest.approx(40_000_000, rel=0.1)


@pytest.mark.parametrize("columns", [5, 20])
def test_a_log_is_as_large_as_asked_for_and_made_of_parts(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "PART_EVENTS", 1 << 16)
    workload = size_workload(300_000, columns, late=0.1)
    log, parts = make_log(workload, seed=5), list(make_parts(workload, seed=5))
    assert len(log) == pytest.approx(300_000, rel=0.01)
    assert len(log.readable) == columns and log.event_bytes == {5: 22, 20: 68}[columns]
    assert len(parts) > 2 and max(map(len, parts)) <= max(1 << 16, log.lengths.max()), "bounded, but for a whole user"
    for name in ("user_id", "ts", "visible_at", "users"):
        assert np.array_equal(getattr(log, name), np.concatenate([getattr(part, name) for part in parts]))
    for name, values in log.columns.items():
        assert np.array_equal(values, np.concatenate([part.columns[name] for part in parts]))
    if columns == 20:
        edges = np.cumsum([len(part) for part in parts])[:-1]
        assert np.all(log.columns["request_id"][edges] > log.columns["request_id"][edges - 1])


def test_the_same_seed_gives_the_same_log_and_another_gives_another() -> None:
    one, again, other = (make_log(Workload(users=50, mean_length=20), seed) for seed in (1, 1, 2))
    assert np.array_equal(one.columns["item_id"], again.columns["item_id"])
    assert not np.array_equal(one.users, other.users)


def test_order_of_arrival_keeps_each_history() -> None:
    log = make_log(Workload(users=50, mean_length=40, late=0.3), seed=6)
    arriving = log.in_arrival_order()
    assert np.all(np.diff(arriving.visible_at) >= 0)
    back = np.argsort(arriving.user_id, kind="stable")
    assert np.array_equal(arriving.ts[back], log.ts)


@pytest.mark.parametrize("name", REAL)
def test_real_logs_have_names(name: str) -> None:
    try:
        find_real_log(name)
    except FileNotFoundError as absent:
        pytest.skip(str(absent))
    log = load_log(name)
    assert isinstance(log, Log) and len(log) > 100_000
    assert np.array_equal(np.repeat(log.users, log.lengths), log.user_id)
    assert np.any(log.visible_at != log.ts)


def test_a_name_or_a_number_of_columns_that_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match="there are synthetic"):
        load_log("nothing")
    with pytest.raises(ValueError, match="5 and 20"):
        load_log("synthetic", columns=7)
