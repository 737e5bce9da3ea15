"""Logged against resolved pointers: who leaks, who is stale, and the delay under which nobody leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.front.test_cli import run
from tests.model import Model
from uihkv import Column, PointerError, Pointers, Schema, SchemaError, Store
from uihkv.audit import audit_file

SCHEMA = Schema([Column("item_id", "int64")])
USERS = (1, 2, 5)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Model]]:
    rng = np.random.default_rng(8)
    visible = np.sort(rng.integers(100, 900, 120))
    data = {"user_id": rng.choice(USERS, 120), "ts": visible - rng.integers(0, 90, 120), "item_id": np.arange(120)}
    model = Model(SCHEMA)
    model.append(data, visible.tolist())
    with Store.create(tmp_path_factory.mktemp("audit") / "store", SCHEMA, shards=2, chunk_events=16) as store:
        store.append(data, visible)
        yield store, model


def write(path: Path, model: Model, rows: list[tuple[int, int, int]]) -> Path:
    users, versions, moments = (list(column) for column in zip(*rows, strict=True))
    table = model.pointers(users, versions).to_arrow().append_column("as_of", pa.array(moments))
    pq.write_table(table, path)
    return path


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), delay=st.sampled_from([0, 0, 10, 400]), batch_rows=st.integers(1, 50))
def test_every_number_is_what_a_loop_counts(
    world: tuple[Store, Model], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, delay: int,
    batch_rows: int,
) -> None:  # fmt: skip
    store, model = world
    row = st.sampled_from(USERS).flatmap(
        lambda user: st.tuples(st.just(user), st.integers(0, model.head(user)), st.integers(0, 1000))
    )
    rows = data.draw(st.lists(row, min_size=1, max_size=40))
    path = write(tmp_path_factory.mktemp("a") / "examples.parquet", model, rows)
    report = audit_file(store, path, as_of="as_of", delay=delay, batch_rows=batch_rows)
    resolved = [model.resolve(user, moment, delay) - version for user, version, moment in rows]
    assert report.examples == len(rows)
    assert report.equal == resolved.count(0)
    assert report.ahead == sum(d > 0 for d in resolved)
    assert report.behind == sum(d < 0 for d in resolved)
    assert report.ahead_events.max == max((d for d in resolved if d > 0), default=None)
    assert report.behind_events.max == max((-d for d in resolved if d < 0), default=None)
    assert sum(user.events for user in report.worst_users) == sum(d for d in resolved if d > 0)
    for one in report.delays:

        def leaking(moved: int) -> int:
            return sum(model.resolve(user, moment, moved) > version for user, version, moment in rows)

        allowed = int(len(rows) * one.leaking_share)
        assert leaking(one.delay) <= allowed
        assert one.delay == 0 or leaking(one.delay - 1) > allowed  # it is the least
        stale = sum(model.resolve(user, moment, one.delay) < version for user, version, moment in rows)
        assert (one.ahead, one.behind) == (
            pytest.approx(leaking(one.delay) / len(rows)),
            pytest.approx(stale / len(rows)),
        )


def test_resolved_examples_are_equal_and_served_ones_say_their_lag(world: tuple[Store, Model], tmp_path: Path) -> None:
    store, model = world
    rng = np.random.default_rng(1)
    moments = rng.integers(0, 1000, 200)
    users = rng.choice(USERS, 200).tolist()
    lag = 25
    rows = [(user, model.resolve(user, int(at), lag), int(at)) for user, at in zip(users, moments, strict=True)]
    served = write(tmp_path / "served.parquet", model, rows)
    late = audit_file(store, served, as_of="as_of")
    assert late.ahead > 0 and late.behind == 0
    assert 0 < late.delays[0].delay <= lag
    fitting = audit_file(store, served, as_of="as_of", delay=late.delays[0].delay)
    assert fitting.ahead == 0
    assert audit_file(store, served, as_of="as_of", delay=lag).equal == 200


def test_inline_events_were_seen_too(world: tuple[Store, Model], tmp_path: Path) -> None:
    from uihkv.inline import InlineTail

    store, model = world
    version, history = 4, model.history(1)
    tail = InlineTail.of(
        SCHEMA, [4], [0, 2], {"ts": [e.ts for e in history[4:6]], "item_id": [e.get("item_id") for e in history[4:6]]}
    )
    table = model.pointers([1], [version]).to_arrow().append_column("as_of", pa.array([history[5].visible_at + 1]))
    for name, column in zip(("inline_start", "inline"), tail.to_arrow(SCHEMA).columns, strict=True):
        table = table.append_column(name, column)
    pq.write_table(table, tmp_path / "e.parquet")
    report = audit_file(store, tmp_path / "e.parquet", as_of="as_of")
    assert report.equal + report.ahead == 1
    assert report.behind == 0
    assert report.ahead_events.max in (None, model.resolve(1, history[5].visible_at + 1) - 6)


def test_pointers_of_another_store_are_refused(world: tuple[Store, Model], tmp_path: Path) -> None:
    store, model = world
    table = Pointers([1], [3], [model.last_ts(1, 3) + 1]).to_arrow().append_column("as_of", pa.array([500]))
    pq.write_table(table, tmp_path / "e.parquet")
    with pytest.raises(PointerError, match="another store"):
        audit_file(store, tmp_path / "e.parquet", as_of="as_of")
    with pytest.raises(SchemaError, match="no column 'when'"):
        audit_file(store, tmp_path / "e.parquet", as_of="when")


def test_the_command_fails_above_its_threshold(world: tuple[Store, Model], tmp_path: Path) -> None:
    store, model = world
    moment = model.history(1)[9].visible_at + 1
    rows = [(1, model.resolve(1, moment), moment)] * 3 + [(1, 2, moment)]
    served = write(tmp_path / "served.parquet", model, rows)
    failed = run("audit", store.path, served, "--as-of", "as_of")
    assert failed.returncode == 1
    assert "1 of 4 examples (25.000%)" in failed.stderr
    assert "users with the most leaked events" in failed.stdout
    assert all(len(line) <= 80 for line in failed.stdout.splitlines()[1:])
    passed = run("audit", store.path, served, "--as-of", "as_of", "--threshold", "0.25", "--json")
    assert passed.returncode == 0, passed.stderr
    told = json.loads(passed.stdout)
    assert (told["equal"], told["ahead"], told["ahead_share"]) == (3, 1, 0.25)
    delay = str(told["delays"][0]["delay"])
    assert run("audit", store.path, served, "--delay", delay).returncode == 0  # as_of is where examples say it


def test_resolve_says_how_many_events_arrive_late(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", SCHEMA, shards=2) as store:
        store.append({"user_id": [1, 1, 1, 1, 2, 3], "ts": [10, 30, 20, 30, 5, 1], "item_id": [0] * 6}, backfill=True)
        store.append({"user_id": [1, 2], "ts": [25, 4], "item_id": [0, 0]}, backfill=True)
    pq.write_table(pa.table({"user_id": [1, 2, 9], "at": [99, 99, 99]}), tmp_path / "asked.parquet")
    done = run(
        "resolve", tmp_path / "store", tmp_path / "asked.parquet", "-o", tmp_path / "s", "--as-of", "at", "--json"
    )
    told = json.loads(done.stdout)
    assert (told["events"], told["late_events"]) == (7, 3)


def test_examples_of_trimmed_events_are_left_out_and_counted(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", SCHEMA, shards=1, chunk_events=4) as store:
        times = np.arange(10, 30)
        store.append({"user_id": np.full(20, 1), "ts": times, "item_id": times}, backfill=True)
        store.trim([1], before_version=[9])
        table = Pointers([1, 1, 1, 1], [3, 9, 12, 15]).to_arrow().append_column("as_of", pa.array([13, 19, 24, 25]))
        pq.write_table(table, tmp_path / "e.parquet")
        report = audit_file(store, tmp_path / "e.parquet", as_of="as_of")
    assert (report.examples, report.trimmed, report.equal, report.ahead) == (2, 2, 1, 1)
