"""Columns come, go and widen; what was stored before stays, and reads as it should."""

from __future__ import annotations

import itertools
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uihkv import Column, Pointers, Projection, ReadOnlyError, Schema, SchemaError, Store

SCHEMA = Schema([Column("item_id", "int32"), Column("dwell", "float16", default=0.5)])
EVENTS = 11  # of each of the users, before and after each change: chunks of 4 and a tail
USERS = 3


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.create(tmp_path / "store", SCHEMA, shards=2, chunk_events=4) as made:
        append(made, item_id=numbers(0), dwell=numbers(0) / 4)
        yield made


def numbers(first: int) -> np.ndarray:
    return np.repeat(np.arange(first, first + EVENTS), USERS)


def append(store: Store, **columns: Any) -> None:
    users = np.tile(np.arange(USERS), EVENTS)
    store.append({"user_id": users, "ts": np.arange(len(users)), **columns}, backfill=True)


def read(store: Store, name: str, user: int = 1) -> np.ndarray:
    with store.snapshot() as snapshot:
        return snapshot.read(snapshot.head([user]), Projection([name])).values(name)


def test_an_added_column_reads_as_its_default_in_older_events(store: Store) -> None:
    store.add_column(Column("surface", "uint8", default=7))
    assert store.schema.names == ("item_id", "dwell", "surface")
    assert read(store, "surface").tolist() == [7] * EVENTS
    append(store, item_id=numbers(11), surface=numbers(0).astype(np.uint8))
    assert read(store, "surface").tolist() == [7] * EVENTS + list(range(EVENTS))
    assert read(store, "item_id").tolist() == list(range(2 * EVENTS))
    append(store, item_id=numbers(22))  # the default also serves new events that do not give it
    assert read(store, "surface")[-EVENTS:].tolist() == [7] * EVENTS


def test_added_columns_may_have_a_shape_or_be_ragged(store: Store) -> None:
    store.add_column(Column("vec", "float32", shape=(2, 2), default=1.5))
    store.add_column(Column("tags", "int16", ragged=True))
    assert read(store, "vec").tolist() == [[[1.5, 1.5], [1.5, 1.5]]] * EVENTS
    lists = [[user] * (user % 3) for user in range(USERS * EVENTS)]
    append(store, item_id=numbers(11), vec=np.zeros((USERS * EVENTS, 2, 2), np.float32), tags=lists)
    with store.snapshot() as snapshot:
        histories = snapshot.read(snapshot.head([1]), Projection(["tags", "vec"]))
    values, _, inner = histories["tags"]
    found = [values[a:b].tolist() for a, b in itertools.pairwise(inner)]
    assert found == [[]] * EVENTS + lists[1::USERS]
    assert histories.values("vec")[-1].tolist() == [[0, 0], [0, 0]]


def test_a_dropped_column_is_gone_and_its_name_brings_nothing_back(store: Store) -> None:
    store.drop_column("dwell")
    with pytest.raises(SchemaError, match="asks for column 'dwell'"):
        read(store, "dwell")
    append(store, item_id=numbers(11))
    store.add_column(Column("dwell", "float16", default=-1.0))
    assert read(store, "dwell").tolist() == [-1.0] * 2 * EVENTS
    append(store, item_id=numbers(22), dwell=numbers(5).astype(np.float16))
    assert read(store, "dwell").tolist() == [-1.0] * 2 * EVENTS + list(range(5, 5 + EVENTS))
    with Store.open(store.path) as again:
        assert read(again, "dwell").tolist() == [-1.0] * 2 * EVENTS + list(range(5, 5 + EVENTS))


def test_a_widened_column_holds_old_and_new_values(store: Store) -> None:
    store.widen_column("item_id", "int64")
    store.widen_column("dwell", "float32")
    store.widen_column("dwell", "float64")
    append(store, item_id=numbers(0) + 2**40, dwell=numbers(0) / 3)
    items, dwell = read(store, "item_id"), read(store, "dwell")
    assert (items.dtype, dwell.dtype) == (np.int64, np.float64)
    assert items.tolist() == [*range(EVENTS), *range(2**40, 2**40 + EVENTS)]
    assert dwell.tolist() == [n / 4 for n in range(EVENTS)] + [n / 3 for n in range(EVENTS)]
    assert store.schema["dwell"].default == 0.5


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ("int8", "int16", True), ("uint16", "uint32", True), ("uint8", "int16", True), ("uint32", "int64", True),
        ("float16", "float32", True), ("float32", "float64", True), ("int16", "int8", False),
        ("int16", "int16", False), ("int16", "uint32", False), ("uint16", "int16", False), ("int8", "float32", False),
        ("float32", "float16", False), ("bool", "uint8", False), ("bool", "int64", False), ("int64", "decimal", False),
    ],
)  # fmt: skip
def test_only_types_that_hold_every_value_are_wider(tmp_path: Path, old: str, new: str, allowed: bool) -> None:
    with Store.create(tmp_path / "store", Schema([Column("c", old)]), shards=1) as store:
        if allowed:
            store.widen_column("c", new)
            assert store.schema["c"].dtype == new
        else:
            with pytest.raises(SchemaError, match=f"{new}"):
                store.widen_column("c", new)
            assert store.schema["c"].dtype == old


def test_changes_that_cannot_be_are_refused(store: Store) -> None:
    with pytest.raises(SchemaError, match="has no default"):
        store.add_column(Column("surface", "uint8"))
    with pytest.raises(SchemaError, match="exists"):
        store.add_column(Column("dwell", "uint8", default=0))
    with pytest.raises(SchemaError, match="no column 'surface'"):
        store.drop_column("surface")
    with pytest.raises(SchemaError, match="no column 'surface'"):
        store.widen_column("surface", "int64")
    with pytest.raises(SchemaError, match="not a Column"):
        store.add_column("surface")  # type: ignore[arg-type]
    store.drop_column("dwell")
    with pytest.raises(SchemaError, match="the only one"):
        store.drop_column("item_id")
    with Store.open(store.path, readonly=True) as reader, pytest.raises(ReadOnlyError):
        reader.add_column(Column("surface", "uint8", default=0))


def test_chunks_stay_as_they_are(store: Store) -> None:
    before = {file: file.read_bytes() for file in store.path.glob("shards/*/data.mdb")}
    store.add_column(Column("surface", "uint8", default=7))
    store.widen_column("item_id", "int64")
    store.drop_column("dwell")
    assert {file: file.read_bytes() for file in before} == before


def test_a_snapshot_keeps_the_schema_that_it_began_with(store: Store) -> None:
    with store.snapshot() as snapshot:
        pointers = snapshot.head([1])
        store.drop_column("dwell")
        store.add_column(Column("surface", "uint8", default=7))
        append(store, item_id=numbers(11))
        assert snapshot.schema == SCHEMA
        assert snapshot.read(pointers).values("dwell").tolist() == [n / 4 for n in range(EVENTS)]
        with pytest.raises(SchemaError, match="surface"):
            snapshot.read(pointers, Projection(["surface"]))


def test_another_handle_takes_up_the_change_at_its_next_use(store: Store) -> None:
    with Store.open(store.path) as writer, Store.open(store.path, readonly=True) as reader:
        assert read(reader, "item_id").tolist() == list(range(EVENTS))
        store.add_column(Column("surface", "uint8", default=7))
        append(store, item_id=numbers(11), surface=numbers(0).astype(np.uint8))
        assert read(reader, "surface").tolist() == [7] * EVENTS + list(range(EVENTS))
        assert reader.schema == store.schema
        append(writer, item_id=numbers(22), surface=numbers(1).astype(np.uint8))
        assert read(store, "surface")[-1] == EVENTS


def _evolve_and_append(path: Path) -> None:
    with Store.open(path) as store:
        store.widen_column("item_id", "int64")
        store.add_column(Column("surface", "uint8", default=3))
        append(store, item_id=numbers(0) + 2**33, surface=numbers(0).astype(np.uint8))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_another_process_takes_up_the_change_at_its_next_use(store: Store) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(_evolve_and_append, (store.path,))
    append(store, item_id=numbers(0) + 2**34)
    assert read(store, "item_id").tolist() == [n + at for at in (0, 2**33, 2**34) for n in range(EVENTS)]
    assert read(store, "surface").tolist() == [3] * EVENTS + list(range(EVENTS)) + [3] * EVENTS


_WRITER = """
import sys
from uihkv import Store
with Store.open(sys.argv[1]) as store:
    for n in range(120):
        names = store.schema.names
        data = {"user_id": [1], "ts": [n], "item_id": [n]}
        store.append(data, backfill=True)
"""


def test_changes_while_others_write_lose_nothing(store: Store) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(store.path)]) for _ in range(2)]
    for n in range(20):
        store.add_column(Column(f"c{n}", "int16", default=n))
        store.append({"user_id": [1], "ts": [n], "item_id": [-1]}, backfill=True)
    for n in range(0, 20, 2):
        store.drop_column(f"c{n}")
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    found = read(store, "item_id").tolist()
    assert sorted(found) == sorted([*range(EVENTS), *[-1] * 20, *range(120), *range(120)])
    assert set(read(store, "c19").tolist()) == {19}


def test_two_evolving_handles_both_win(store: Store) -> None:
    with Store.open(store.path) as other:
        other.add_column(Column("a", "uint8", default=1))
        store.add_column(Column("b", "uint8", default=2))
        assert other.schema.names == ("item_id", "dwell", "a", "b")


def test_old_pointers_read_through_every_schema(store: Store) -> None:
    with store.snapshot() as snapshot:
        logged = snapshot.head([0, 1, 2])
    store.widen_column("item_id", "int64")
    append(store, item_id=numbers(0) + 2**40)
    store.drop_column("dwell")
    append(store, item_id=numbers(0) - 2**40)
    with store.snapshot() as snapshot:
        assert snapshot.read(logged).values("item_id").tolist() == [*range(EVENTS)] * 3
        middle = snapshot.read(Pointers([2], [2 * EVENTS + 2]), Projection(["item_id"], max_len=EVENTS + 3))
        assert middle.values("item_id").tolist() == [10, *range(2**40, 2**40 + EVENTS), -(2**40), 1 - 2**40]


def test_a_manifest_older_than_the_shards_is_an_error_and_not_garbage(store: Store) -> None:
    old = (store.path / "manifest.msgpack").read_bytes()
    store.add_column(Column("surface", "uint8", default=7))
    append(store, item_id=numbers(11))
    (store.path / "manifest.msgpack").write_bytes(old)
    with Store.open(store.path) as again, pytest.raises(Exception, match="schema version"):
        read(again, "item_id")
