"""Examples from the histories themselves: each target with what came before it, split by time without leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.front.test_cli import run
from tests.model import Model
from uihkv import Column, Pointers, Schema, SchemaError, Store
from uihkv.examples import write_examples
from uihkv.resolve import OutputError

SCHEMA = Schema(
    [
        Column("item_id", "int64"),
        Column("action", "uint8"),
        Column("tags", "int16", ragged=True),
        Column("vec", "float32", shape=(2,)),
    ]
)
EVENTS = 400


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Model]]:
    rng = np.random.default_rng(4)
    visible = np.sort(rng.integers(0, 150, EVENTS))  # many ties
    data: dict[str, Any] = {
        "user_id": rng.choice([-4, 1, 7, 9], EVENTS, p=[0.5, 0.3, 0.19, 0.01]),
        "ts": np.maximum(visible - rng.integers(0, 30, EVENTS), 0), "item_id": np.arange(EVENTS),
        "action": rng.integers(0, 4, EVENTS).astype(np.uint8), "vec": rng.random((EVENTS, 2)).astype(np.float32),
        "tags": [rng.integers(0, 9, rng.integers(0, 3)).astype(np.int16) for _ in range(EVENTS)],
    }  # fmt: skip
    model = Model(SCHEMA)
    model.append(data, visible)
    with Store.create(tmp_path_factory.mktemp("self") / "store", SCHEMA, shards=2, chunk_events=16) as store:
        store.append(data, visible)
        yield store, model


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    every=st.none() | st.integers(1, 20),
    actions=st.none() | st.sets(st.integers(0, 3), min_size=1, max_size=2),
    ties=st.sampled_from(["in", "out"]),
    moments=st.lists(st.integers(0, 150), max_size=2, unique=True).map(sorted),
    batch_events=st.integers(1, 500),
)
def test_examples_are_what_a_loop_over_the_histories_makes(
    world: tuple[Store, Model], tmp_path_factory: pytest.TempPathFactory, every: int | None, actions: set[int] | None,
    ties: Any, moments: list[int], batch_events: int,
) -> None:  # fmt: skip
    store, model = world
    if every is None and actions is None:
        every = 1
    where = None if actions is None else {"action": actions}
    out = tmp_path_factory.mktemp("out") / "examples.parquet"
    result = write_examples(
        store, out, every=every, where=where, labels=["action"], candidates=["item_id", "tags", "vec"], split=moments,
        ties=ties, batch_events=batch_events,
    )  # fmt: skip
    expected: dict[int, list[dict[str, Any]]] = {place: [] for place in range(len(moments) + 1)}
    for user, history in sorted(model.histories.items()):
        passing = 0
        for place, event in enumerate(history):
            if actions is not None and event.get("action") not in actions:
                continue
            passing += 1
            if passing % (every or 1):
                continue
            version = place if ties == "in" else model.resolve(user, event.visible_at)
            expected[sum(event.visible_at >= moment for moment in moments)].append(
                {
                    "user_id": user, "version": version, "last_ts": model.last_ts(user, version),
                    "as_of": event.visible_at, "item_id": event.get("item_id"), "tags": event.get("tags").tolist(),
                    "vec": event.get("vec").tolist(), "action": event.get("action"),
                }
            )  # fmt: skip
    names = {0: [""], 1: ["-train", "-test"], 2: ["-train", "-validation", "-test"]}[len(moments)]
    assert result.rows == sum(map(len, expected.values()))
    assert list(result.files) == [str(out.with_name(f"examples{name}.parquet")) for name in names]
    for place, name in enumerate(names):
        assert pq.read_table(out.with_name(f"examples{name}.parquet")).to_pylist() == expected[place]


def test_a_training_example_holds_nothing_from_after_the_split(world: tuple[Store, Model], tmp_path: Path) -> None:
    store, model = world
    write_examples(store, tmp_path / "e.parquet", every=1, split=[40, 90])
    for name, low, high in (("train", 0, 40), ("validation", 40, 90), ("test", 90, 10**9)):
        table = pq.read_table(tmp_path / f"e-{name}.parquet")
        pointers = Pointers.from_arrow(table)
        assert table.num_rows > 20
        assert all(low <= moment < high for moment in table.column("as_of").to_pylist())
        for user, version in zip(pointers.user_id.tolist(), pointers.version.tolist(), strict=True):
            assert all(event.visible_at < high for event in model.read(user, version + 1))


def test_files_appear_together_or_not_at_all(world: tuple[Store, Model], tmp_path: Path) -> None:
    (tmp_path / "e-test.parquet").write_text("mine")
    with pytest.raises(OutputError, match="e-test"):
        write_examples(world[0], tmp_path / "e.parquet", every=2, split=[50])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e-test.parquet"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "every=k"),
        ({"every": 0}, "every is 0"),
        ({"every": 2, "labels": ["nope"]}, "nope"),
        ({"every": 2, "labels": "action"}, "string"),
        ({"every": 2, "labels": ["action"], "candidates": ["action"]}, "twice"),
        ({"every": 2, "split": [5, 5]}, "rising"),
        ({"every": 2, "split": [1, 2, 3]}, "one or two moments"),
        ({"where": {"tags": {1}}}, "tags"),
        ({"every": 2, "ties": "maybe"}, "ties"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    world: tuple[Store, Model], tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SchemaError, match=words):
        write_examples(world[0], tmp_path / "e.parquet", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command(world: tuple[Store, Model], tmp_path: Path) -> None:
    store, model = world
    done = run("examples", store.path, "-o", tmp_path / "e.parquet", "--where", "action=1, 2", "--label", "action",
               "--split", "60,1970-01-01T00:00:00.100", "--strict", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    chosen = [e for history in model.histories.values() for e in history if e.get("action") in (1, 2)]
    counts = [sum(e.visible_at < 60 for e in chosen), sum(60 <= e.visible_at < 100 for e in chosen)]
    assert list(told["files"].values()) == [*counts, len(chosen) - sum(counts)]
    assert pq.read_schema(tmp_path / "e-train.parquet").names[-2:] == ["vec", "action"]
    for wrong in (["--where", "action=x"], [], ["--every", "2", "--split", "soon"]):
        assert run("examples", store.path, "-o", tmp_path / "f.parquet", *wrong).returncode == 2
