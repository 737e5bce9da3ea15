"""Whatever a projection asks, a read gives what a loop over the user's events gives, however chunks cut them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uihkv import Column, PointerError, Pointers, Projection, Schema, SchemaError, StochasticLength, Store

SCHEMA = Schema(
    [
        Column("item_id", "int64"),
        Column("action", "uint8"),
        Column("big", "uint64"),
        Column("dwell", "float32"),
        Column("score", "float64"),
        Column("liked", "bool"),
        Column("tags", "int16", ragged=True),
        Column("surface", "string"),
    ]
)
USERS = 7
EVENTS = 2500
SURFACES = ["web", "app", "", "Ω"]
COLUMNS = ["visible_at", "item_id", "action", "big", "dwell", "score", "liked"]


class Log:
    """One log in several stores that cut it into chunks differently, and as plain lists."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(3)
        user = rng.choice(USERS, EVENTS, p=np.array([1, 2, 4, 8, 16, 32, 64]) / 127)
        session = np.arange(EVENTS) // 150  # values come in spells, so that zones can rule chunks out
        ts = 10_000 + 10 * np.arange(EVENTS) - rng.integers(0, 4000, EVENTS) * (rng.random(EVENTS) < 0.2)
        dwell = rng.normal(session, 1.0).astype(np.float32)
        dwell[rng.random(EVENTS) < 0.05] = np.nan
        tags = [rng.integers(0, 9, rng.integers(0, 3)).astype(np.int16) for _ in range(EVENTS)]
        self.data: dict[str, Any] = {
            "user_id": user, "ts": ts, "item_id": rng.integers(-50, 50, EVENTS), "tags": tags,
            "action": (rng.integers(0, 3, EVENTS) + session % 4 * 5).astype(np.uint8),
            "big": rng.integers(0, 100, EVENTS).astype(np.uint64) + np.uint64(2**63 - 50),
            "surface": rng.choice(SURFACES, EVENTS),
            "dwell": dwell, "score": rng.random(EVENTS), "liked": rng.random(EVENTS) < 0.01,
        }  # fmt: skip
        self.rows = [np.flatnonzero(user == one) for one in range(USERS)]
        self.stores = []
        for chunk_events in (1, 37, 400):
            store = Store.create(folder / str(chunk_events), SCHEMA, shards=2, chunk_events=chunk_events)
            half = EVENTS // 3
            for part in (slice(0, half), slice(half, None)):
                store.append({name: values[part] for name, values in self.data.items()}, visible_at=ts[part])
            self.stores.append(store)

    def choose(self, user: int, version: int, asked: Projection, where: dict[str, Any], moment: int) -> list[int]:
        """Rows of the log that the projection chooses, oldest first."""
        chosen = []
        for row in self.rows[user][:version].tolist():
            passes = all(self.meets(row, column, wanted) for column, wanted in where.items())
            if asked.max_age is not None:
                passes = passes and int(self.data["ts"][row]) >= moment - asked.max_age
            if passes:
                chosen.append(row)
        return chosen if asked.max_len is None else chosen[-asked.max_len :]

    def meets(self, row: int, column: str, wanted: Any) -> bool:
        value = self.data[column][row].item()
        if isinstance(wanted, tuple):
            low, high = wanted
            return (low is None or value >= low) and (high is None or value <= high) and value == value
        return value in wanted


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    with tempfile.TemporaryDirectory() as folder:
        made = Log(Path(folder))
        yield made
        for store in made.stores:
            store.close()


def ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    ends = st.tuples(st.none() | values, st.none() | values)
    return ends.map(lambda pair: tuple(sorted(pair)) if None not in pair else pair)


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    action, item = st.integers(0, 20), st.integers(-60, 60)
    big = st.integers(2**63 - 60, 2**63 + 60)
    real = st.floats(-3, 20, width=32)
    return st.fixed_dictionaries(
        {},
        optional={
            "action": st.sets(action, min_size=1, max_size=4) | ranges(action),
            "item_id": st.sets(item, min_size=1, max_size=80) | ranges(item),
            "big": st.sets(big, min_size=1, max_size=30) | ranges(big),
            "dwell": ranges(real),
            "score": ranges(st.floats(0, 1)),
            "liked": st.sets(st.booleans(), min_size=1),
            "surface": st.sets(st.sampled_from([*SURFACES, "tv"]), min_size=1),
            "ts": ranges(st.integers(6_000, 40_000)),
        },
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    where=conditions(),
    max_len=st.none() | st.integers(1, 500),
    max_age=st.none() | st.integers(0, 30_000),
    given_moment=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_a_read_is_a_loop_over_the_events(
    log: Log, where: dict[str, Any], max_len: int | None, max_age: int | None, given_moment: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    users = rng.integers(0, USERS + 1, 12)
    version = np.array([rng.integers(0, len(log.rows[u]) + 1) if u < USERS else 0 for u in users])
    last_ts = np.array(
        [int(log.data["ts"][log.rows[u][v - 1]]) if v else 0 for u, v in zip(users, version, strict=True)]
    )
    moments = rng.integers(10_000, 40_000, 12) if given_moment else last_ts
    asked = Projection([*COLUMNS, "tags", "surface"], max_len, where=where, max_age=max_age)
    for store in log.stores:
        with store.snapshot() as snapshot:
            found = snapshot.read(Pointers(users, version, last_ts), asked, as_of=moments if given_moment else None)
        expected = [
            log.choose(int(u), int(v), asked, where, int(m)) if v else []
            for u, v, m in zip(users, version, moments, strict=True)
        ]
        assert found.lengths.tolist() == [len(rows) for rows in expected]
        flat = np.array([row for rows in expected for row in rows], np.int64)
        for name in COLUMNS[1:]:
            assert found.values(name).tobytes() == np.asarray(log.data[name])[flat].tobytes(), name
        assert found.strings("surface").to_pylist() == log.data["surface"][flat].tolist()
        assert found.values("tags").tolist() == [tag for row in flat for tag in log.data["tags"][row].tolist()]
        assert found.cost.chunks_skipped <= found.cost.chunks_considered


def test_zones_and_age_skip_chunks_unread(log: Log) -> None:
    store = log.stores[2]
    with store.snapshot() as snapshot:
        heads = snapshot.head([USERS - 1])
        whole = snapshot.explain(heads, Projection(["item_id"]))
        rare = snapshot.explain(heads, Projection(["item_id"], where={"action": {19}}))
        none = snapshot.explain(heads, Projection(["item_id"], where={"action": {250}}))
        young = snapshot.explain(heads, Projection(["item_id"], max_age=1000))
        short = snapshot.explain(heads, Projection(["item_id"], max_len=1))
        both = snapshot.explain(heads, Projection(["item_id", "score"]))
    assert whole.chunks_read == whole.chunks_considered > 2
    assert (none.chunks_read, none.events, none.bytes_read) == (0, 0, 0)
    assert none.chunks_skipped == none.chunks_considered - 1  # the tail carries no zones
    assert young.chunks_skipped > 0 and young.chunks_read < whole.chunks_read
    assert rare.chunks_read <= whole.chunks_read
    assert short.chunks_considered == short.chunks_read == 1
    assert short.bytes_read < whole.bytes_read < both.bytes_read


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    alpha=st.floats(1.01, 2.0), max_len=st.integers(1, 2000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 9)
)
def test_stochastic_length_draws_part_of_the_window_in_order(
    log: Log, alpha: float, max_len: int, seed: int, epoch: int
) -> None:
    sample = StochasticLength(alpha, seed)
    pointers = Pointers(np.arange(USERS), [len(rows) for rows in log.rows])
    most = sample.threshold(max_len)
    drawn = []
    for store in log.stores:
        with store.snapshot() as snapshot:
            whole = snapshot.read(pointers, Projection(["ts", "tags"], max_len))
            found = snapshot.read(pointers, Projection(["ts", "tags"], max_len, sample=sample), epoch=epoch)
            alone = snapshot.read(pointers[3], Projection(["ts"], max_len, sample=sample), epoch=epoch)
        row = slice(*found.offsets[3:5].tolist())
        assert alone.values("ts").tolist() == found.values("ts")[row].tolist()
        for user, (n, kept) in enumerate(zip(whole.lengths.tolist(), found.lengths.tolist(), strict=True)):
            assert kept in ({n} if n <= most else {n, most})
            window = whole.values("ts")[slice(*whole.offsets[user : user + 2].tolist())].tolist()
            rest = iter(window)
            mine = found.values("ts")[slice(*found.offsets[user : user + 2].tolist())].tolist()
            assert all(moment in rest for moment in mine)
        drawn.append((found.values("ts").tolist(), found.values("tags").tolist()))
    assert drawn[0] == drawn[1] == drawn[2]


def test_stochastic_length_cuts_as_often_as_the_paper_says_and_evenly(log: Log) -> None:
    user = USERS - 1
    n, max_len, alpha = len(log.rows[user]), 4096, 1.7
    sample = StochasticLength(alpha)
    pointers = Pointers(np.full(400, user), n - np.arange(400))
    whole = share = 0.0
    picked = np.zeros(n)
    with log.stores[2].snapshot() as snapshot:
        for epoch in range(5):
            found = snapshot.read(pointers, Projection(["item_id"], max_len, sample=sample), epoch=epoch)
            lengths = found.lengths
            whole += float((lengths == pointers.version).mean()) / 5
            share += float((max_len**alpha / pointers.version.astype(float) ** 2).clip(max=1).mean()) / 5
    assert abs(whole - share) < 0.05
    with log.stores[2].snapshot() as snapshot:
        cut = StochasticLength(1.2)
        for epoch in range(300):
            found = snapshot.read(pointers[0], Projection(["visible_at"], 1024, sample=cut), epoch=epoch)
            all_of = snapshot.read(pointers[0], Projection(["visible_at"], 1024)).values("visible_at")
            picked[: len(all_of)] += np.isin(all_of, found.values("visible_at"))
    counts = picked[: min(n, 1024)]
    halves = counts[: len(counts) // 2].sum() / counts.sum()
    assert 0.45 < halves < 0.55


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda: Projection(where={"nope": {1}}), "nope"),
        (lambda: Projection(where={"tags": {1}}), "no single number"),
        (lambda: Projection(where={"action": {256}}), "holds 0 to 255"),
        (lambda: Projection(where={"action": {1.5}}), "uint8"),
        (lambda: Projection(where={"dwell": {True}}), "float32"),
    ],
)
def test_a_condition_that_does_not_fit_the_store_is_refused(log: Log, asked: Any, words: str) -> None:
    with log.stores[0].snapshot() as snapshot, pytest.raises(SchemaError, match=words):
        snapshot.read(snapshot.head([0]), asked())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": {"action": set()}}, "no event can meet"),
        ({"where": {"action": (3, 1)}}, "low is above high"),
        ({"where": {"action": [1, 2]}}, "a set of accepted values"),
        ({"where": {"action": (1, 2, 3)}}, "a pair"),
        ({"where": {"dwell": {float("nan")}}}, "nan"),
        ({"where": 3}, "a mapping"),
        ({"max_age": -1}, "0 or more"),
        ({"max_age": 1.5}, "whole number"),
        ({"sample": StochasticLength(1.5)}, "needs max_len"),
        ({"sample": 1.5, "max_len": 3}, "StochasticLength"),
    ],
)
def test_a_projection_that_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        Projection(**options)


def test_an_age_needs_a_moment(log: Log) -> None:
    with log.stores[0].snapshot() as snapshot:
        with pytest.raises(PointerError, match="give as_of"):
            snapshot.read(Pointers([0], [1]), Projection(max_age=5))
        with pytest.raises(PointerError, match="one moment a pointer"):
            snapshot.read(Pointers([0], [1]), Projection(max_age=5), as_of=[1, 2])
