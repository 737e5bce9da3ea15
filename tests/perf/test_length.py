"""What longer histories buy: metrics, intervals and joins against plain definitions."""

import math

import numpy as np
import pytest
import torch

from loader.demo.evaluate import measure_ranks
from loader.demo.eventlog import EventLog
from perf.intervals import Resampling
from perf.lengthdata import (
    EDGES,
    JOINS,
    Requests,
    count_events,
    join_on_time,
    joined_store,
    make_task,
    versioned_store,
)
from perf.lengthmodel import Scored, build_model, score_targets
from uihkv import Projection

DAY = 86_400_000


@pytest.fixture(scope="module")
def log():
    """Three users; ties within commits, and a third of the events late."""
    rng = np.random.default_rng(5)
    n = 600
    arrived = np.sort(rng.integers(100 * DAY, 130 * DAY, n))
    late = np.where(rng.random(n) < 0.33, rng.integers(0, 9 * DAY, n), 0)
    ts = (arrived - late) // (DAY // 8) * (DAY // 8)
    columns = {
        "user_id": rng.integers(7, 10, n), "ts": ts, "item_id": rng.integers(0, 40, n),
        "kind": rng.integers(0, 3, n).astype(np.uint16), "added": np.ones(n, np.int32),
        "deleted": np.ones(n, np.int32), "binary": np.zeros(n, np.uint8),
    }  # fmt: skip
    return EventLog(columns, arrived, 40, 3)


def joined_by_definition(log, request, join, newest):
    """Rows that a plain reading of the join gives one request, oldest first."""
    row, user, moment = request
    rows = [
        other
        for other in range(len(log))
        if log.user_id[other] == user
        and other != row
        and (log.ts[other] < moment or (join == "ts <=" and log.ts[other] == moment))
    ]
    return sorted(rows, key=lambda other: (log.ts[other], other))[-newest:]


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("newest", [4, 1_000])
def test_join_on_event_time_names_exactly_the_events_of_its_definition(log, join, newest):
    requests = make_task(log, train=100, per_stratum=50, seed=1).evaluate

    rows, offsets = join_on_time(log, requests, join, newest)

    assert len(requests) > 20
    for place in range(len(requests)):
        request = requests.row[place], requests.user_id[place], requests.moment[place]
        assert rows[offsets[place] : offsets[place + 1]].tolist() == joined_by_definition(log, request, join, newest)


def test_late_events_and_the_rest_of_the_commit_are_what_a_join_adds():
    user = np.array([1, 1, 1, 1, 2])
    ts = np.array([10, 30, 20, 30, 25]) * DAY
    visible = (
        np.array([11, 31, 40, 41, 26]) * DAY
    )  # row 2 arrives after the request at day 30, whose commit rows 1 and 3 are
    log = EventLog({"user_id": user, "ts": ts, "item_id": np.arange(5)}, visible, 5, 1)
    one = np.array([1])
    request = Requests(one, user[one], ts[one], one, np.array([1]))

    assert count_events((user, visible), (request.user_id, request.moment), "<").tolist() == [1]
    assert join_on_time(log, request, "ts <", 10)[0].tolist() == [0, 2]
    assert join_on_time(log, request, "ts <=", 10)[0].tolist() == [0, 2, 3]


def test_stores_of_versions_and_joins_hold_what_was_counted_and_joined(log, tmp_path):
    task = make_task(log, train=100, per_stratum=50, seed=1)
    requests = task.evaluate

    with versioned_store(tmp_path / "versions", log) as store, store.snapshot() as snapshot:
        assert np.array_equal(snapshot.resolve(requests.user_id, requests.moment).version, requests.served)
    rows, offsets = join_on_time(log, requests, "ts <=", 8)
    with joined_store(tmp_path / "join", log, requests, "ts <=", 8) as store, store.snapshot() as snapshot:
        found = snapshot.read(snapshot.head(np.arange(len(requests))), Projection(["item_id", "ts"]))
        assert np.array_equal(found.offsets, offsets)
        assert np.array_equal(found["item_id"][0], log.item_id[rows])
        assert np.array_equal(found["ts"][0], log.ts[rows])


def test_requests_are_split_by_time_and_ask_for_known_items(log):
    task = make_task(log, train=100, per_stratum=50, seed=1)

    assert (log.visible_at[task.train.row] < task.split).all()
    assert (task.train.moment < task.split).all()
    assert (task.evaluate.moment >= task.split).all()
    assert np.isin(task.evaluate.target, task.candidates).all()
    assert set(task.candidates.tolist()) == set(log.item_id[log.visible_at < task.split].tolist())
    for served, stratum in zip(task.evaluate.served, task.evaluate.stratum, strict=True):
        assert EDGES[stratum] <= served < [*EDGES, math.inf][stratum + 1]
    commits = set(zip(task.evaluate.user_id.tolist(), task.evaluate.moment.tolist(), strict=True))
    assert len(commits) == len(task.evaluate)


def test_metrics_are_those_of_their_plain_definitions(log):
    task = make_task(log, train=100, per_stratum=50, seed=1)
    n, items = len(task.evaluate), task.candidates
    scores = torch.randn(n, len(items), generator=torch.Generator().manual_seed(0))

    rank, loss = score_targets(scores, torch.from_numpy(items), torch.from_numpy(task.evaluate.target))
    scored = Scored(rank.numpy(), loss.double().numpy())

    total = sum(task.counts[item] + 1 for item in items)
    losses, base = [], []
    for place, target in enumerate(task.evaluate.target):
        row = scores[place].double().tolist()
        own = row[items.tolist().index(target)]
        assert scored.rank[place] == sum(score > own for score in row)
        losses.append(math.log(sum(map(math.exp, row))) - own)
        base.append(-math.log((task.counts[target] + 1) / total))
    ne = Resampling(task.evaluate.user_id, 1).ratio(scored.loss[None], task.base_losses())
    assert ne.value == pytest.approx(sum(losses) / sum(base), rel=1e-5)
    assert measure_ranks(scored.rank).hit_rate == pytest.approx(scored.hit.mean())
    assert measure_ranks(scored.rank).ndcg == pytest.approx(scored.gain.mean())


def test_base_rate_has_a_normalised_entropy_of_one(log):
    task = make_task(log, train=100, per_stratum=50, seed=1)
    scores = torch.from_numpy(np.log(task.counts[task.candidates] + 1.0)).expand(len(task.evaluate), -1)

    _, loss = score_targets(scores, torch.from_numpy(task.candidates), torch.from_numpy(task.evaluate.target))

    base = task.base_losses()
    assert Resampling(np.arange(len(base)), 1).ratio(loss.numpy()[None], base).value == pytest.approx(1)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        of_user, of_seed = rng.normal(0, 1, 60), rng.normal(0, 0.2, (8, 1))
        user = rng.integers(0, 60, 400)
        found = Resampling(user, 8, draws=300, seed=trial).ratio(of_user[user] + of_seed + rng.normal(0, 1, (8, 400)))
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_ratio_of_two_metrics_is_that_of_their_sums_in_every_draw():
    rng = np.random.default_rng(0)
    top = rng.random((3, 50))

    found = Resampling(np.arange(50), 3).ratio(top, 4 * top)

    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert not np.isfinite(Resampling(np.arange(50), 3).ratio(top, 0 * top).high)


def test_examples_of_one_user_make_no_narrow_interval():
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(20), 50)
    top = rng.normal(0, 1, 20)[user][None]

    grouped, single = Resampling(user, 1).ratio(top), Resampling(np.arange(1_000), 1).ratio(top)

    assert grouped.value == single.value == pytest.approx(top.mean())
    assert grouped.high - grouped.low > 3 * (single.high - single.low)


def test_grouping_by_length_changes_no_answer():
    length = 1_024
    model = build_model(np.ones(50, np.int64), 3, length, seed=0)
    rng = np.random.default_rng(0)
    real = np.arange(length)[None, :] >= length - np.array([0, 3, 256, 257, 700, 1_024])[:, None]
    columns = {
        "item": torch.from_numpy(np.where(real, rng.integers(1, 51, real.shape), 0)),
        "age": torch.from_numpy(np.where(real, np.arange(length)[::-1] * 997, 0).astype(np.int32)),
        "kind": torch.from_numpy(np.where(real, rng.integers(1, 4, real.shape), 0)),
        "size": torch.from_numpy(np.where(real[..., None], rng.random((*real.shape, 2)), 0).astype(np.float32)),
    }  # fmt: skip

    grouped, whole = model(columns), super(type(model), model).forward(columns)

    assert torch.allclose(grouped[:, -1], whole[:, -1], atol=1e-4)
