"""Metrics and the baseline, against cases worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from loader.demo.evaluate import Metrics, count_items, measure_ranks, rank_by_popularity, rank_targets
from loader.demo.eventlog import EventLog


def make_log(item_id: list[int], visible_at: list[int]) -> EventLog:
    columns = {
        "user_id": np.zeros(len(item_id), np.int64),
        "ts": np.zeros(len(item_id), np.int64),
        "item_id": np.array(item_id),
    }
    return EventLog(columns, np.array(visible_at), items=5, kinds=1)


def test_metrics_of_a_hand_computed_case() -> None:
    found = measure_ranks(np.array([0, 1, 9, 10, 500]))
    assert found.hit_rate == pytest.approx(3 / 5)
    assert found.ndcg == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(11)) / 5)


def test_perfect_and_hopeless_rankings() -> None:
    assert measure_ranks(np.zeros(4, np.int64)) == Metrics(1.0, 1.0)
    assert measure_ranks(np.full(4, 10)) == Metrics(0.0, 0.0)


def test_no_examples_is_an_error_and_not_a_number() -> None:
    with pytest.raises(ValueError, match="no examples"):
        measure_ranks(np.empty(0, np.int64))


def test_rank_counts_better_items_and_equal_ones_of_smaller_id() -> None:
    scores = torch.tensor([[5.0, 9.0, 5.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    assert rank_targets(scores, torch.tensor([2, 3, 3])).tolist() == [2, 3, 0]


def test_popularity_counts_only_what_was_visible_before_the_split() -> None:
    log = make_log([1, 1, 2, 3, 3, 3, 3], [10, 20, 29, 30, 30, 31, 99])
    counts = count_items(log, before=30)
    assert counts.tolist() == [0, 2, 1, 0, 0]
    assert rank_by_popularity(counts, np.array([1, 2, 0, 3, 4])).tolist() == [0, 1, 2, 3, 4]


def test_popularity_of_the_future_changes_nothing() -> None:
    log = make_log([1, 1, 2, 3], [10, 20, 30, 40])
    other = replace(log, columns={**log.columns, "item_id": np.array([1, 1, 4, 4])})
    assert count_items(log, before=30).tolist() == count_items(other, before=30).tolist()
