"""Sealing, compacting and copying: fewer chunks and fewer bytes, the same histories."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from tests.engine.test_store_life import SCHEMA, batch, items
from uihkv import Column, CompactionPolicy, Projection, ReadOnlyError, Schema, SchemaError, Store, StoreExistsError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with Store.create(tmp_path / "store", SCHEMA, shards=3, chunk_events=16) as made:
        yield made


def fill(store: Store, rounds: int, users: int = 5, events: int = 3) -> None:
    """Short chunks: a seal behind every few events."""
    for at in range(rounds):
        store.append(batch(users, events, first=at * events), backfill=True, source="fill", offset=at)
        store.seal()


def test_sealing_turns_tails_into_chunks_and_appends_go_on(store: Store) -> None:
    store.append(batch(5, 20), backfill=True)
    assert store.seal().describe() == {"users": 5, "events": 20, "chunks": 5}
    assert store.stats().tail_events == 0
    store.append({"user_id": [3], "ts": [5], "item_id": [20]}, backfill=True)
    assert items(store, 3) == list(range(21))
    with store.snapshot() as snapshot:
        seen = snapshot.read(snapshot.head([3]), Projection(["visible_at"], 2)).values("visible_at")
    assert seen.tolist() == [1019, 1019]


def test_compacting_merges_what_is_small_beside_a_reader(store: Store) -> None:
    fill(store, 12)
    with store.snapshot() as before:
        heads = before.head(np.arange(5))
        read = before.read(heads)
        result = store.compact()
        assert (result.chunks_before, result.chunks_after) == (60, 15)  # 36 events a user: 16, 16 and 4
        again = before.read(heads)
        assert again.values("item_id").tolist() == read.values("item_id").tolist()
    with store.snapshot() as after:
        assert after.read(heads).values("item_id").tolist() == read.values("item_id").tolist()
    assert store.stats().chunks == 15
    assert store.compact().runs == 0


def test_small_chunks_between_full_ones_meet(store: Store) -> None:
    for at in range(0, 180, 18):  # 16 and 2 events, over and over
        store.append(batch(1, 18, first=at), backfill=True)
        store.seal()
    assert store.stats().chunks == 20
    store.compact()
    assert store.stats().chunks == 12
    assert items(store) == list(range(180))
    assert store.compact().runs == 0


def test_a_policy_says_what_is_small_and_what_is_old(store: Store) -> None:
    store.append(batch(5, 40), backfill=True)
    store.add_column(Column("extra", "uint8", default=3))
    store.drop_column("item_id")
    assert store.compact(CompactionPolicy(old_schemas=False)).runs == 0
    result = store.compact()
    assert (result.runs, result.events) == (10, 200)  # of each user the chunks and the tail
    assert store.compact().runs == 0
    with pytest.raises(SchemaError, match="min_fill"):
        CompactionPolicy(min_fill=2.0)
    with pytest.raises(SchemaError, match="transaction_events"):
        CompactionPolicy(transaction_events=0)
    with pytest.raises(SchemaError, match="CompactionPolicy"):
        store.compact(0.5)  # type: ignore[arg-type]
    with Store.open(store.path, readonly=True) as reader:
        with pytest.raises(ReadOnlyError):
            reader.compact()
        with pytest.raises(ReadOnlyError):
            reader.seal()


def test_compacting_beside_writers_and_trims_loses_nothing(store: Store) -> None:
    fill(store, 20)
    done = threading.Event()

    def write() -> None:
        first = 60
        while not done.is_set():
            store.append(batch(5, 1, first=first), backfill=True)
            store.trim(np.arange(4), np.full(4, first - 50))
            first += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            store.seal()
            store.compact(CompactionPolicy(transaction_events=10))
    finally:
        done.set()
        writer.join()
    head = len(items(store, 4))
    assert items(store, 4) == list(range(head))
    with store.snapshot() as snapshot:
        heads = snapshot.head(np.arange(4))
        assert set(heads.version.tolist()) == {head}
        left = snapshot.read(heads, Projection(["item_id"]), on_trimmed="truncate")
    assert left.values("item_id").tolist() == list(range(head - 51, head)) * 4


def test_a_backup_is_the_store_as_of_one_moment(store: Store, tmp_path: Path) -> None:
    fill(store, 4)
    store.append(batch(5, 2, first=12), backfill=True)
    steps: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        if not steps:  # a writer goes on while the copy is made
            store.append(batch(5, 1, first=14), backfill=True, source="fill", offset=99)
        steps.append((done, total))

    result = store.backup(tmp_path / "deep" / "backup", progress=report)
    assert steps[-1] == (result.records, result.records)
    with Store.open(tmp_path / "deep" / "backup") as copy:
        assert all(items(copy, user) == list(range(14)) for user in range(5))
        assert (copy.sources(), copy.fingerprint, copy.schema) == ({"fill": 3}, store.fingerprint, store.schema)
        assert copy.stats().bytes == result.bytes < store.stats().bytes
        copy.append(batch(5, 1, first=14), backfill=True, source="fill", offset=4)
        assert items(copy, 2) == list(range(15)) == items(store, 2)
    with pytest.raises(StoreExistsError, match="a store is there"):
        store.backup(tmp_path / "deep" / "backup")
    with Store.open(store.path, readonly=True) as reader:
        reader.backup(tmp_path / "another")


def test_a_copy_that_fails_leaves_nothing(store: Store, tmp_path: Path) -> None:
    fill(store, 2)

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.backup(tmp_path / "backup", progress=fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]
    store.append(batch(5, 1, first=6), backfill=True)


REAL = Schema([Column("score", "float64"), Column("note", "string", default="")])
"""Floats of many digits, and strings with a byte of 0, are stored as they are."""


@pytest.mark.parametrize("where", ["tail", "chunk", "cut"])
def test_after_erasure_and_a_copy_the_bytes_are_gone(tmp_path: Path, where: str) -> None:
    n = {"tail": 5, "chunk": 64, "cut": 60}[where]
    score = np.random.default_rng(0).normal(size=(3, n))
    notes = [f"\0{user}'s note {at}" for user in "abc" for at in range(n)]
    marks = (score[1, 3].tobytes(), b"b's note 3\0")
    with Store.create(tmp_path / "store", REAL, shards=2, chunk_events=32, compression="none") as store:
        for at in range(n):
            row = {"score": score[:, at], "note": notes[at::n]}
            store.append({"user_id": [0, 1, 2], "ts": [at] * 3, **row}, backfill=True)
        assert all(planted_in(store.path, mark) for mark in marks)
        store.trim(1, 4 if where == "cut" else None)
        store.compact(copy_to=tmp_path / "copy")
        # LMDB does not wipe what it frees, as the docs say.
        assert any(planted_in(store.path, mark) for mark in marks)
    assert not any(planted_in(tmp_path / "copy", mark) for mark in marks)
    with Store.open(tmp_path / "copy") as copy, copy.snapshot() as snapshot:
        heads = snapshot.head([0, 1])
        assert heads.version.tolist() == [n, n]
        left = snapshot.read(heads, Projection(["score"]), on_trimmed="truncate").values("score")
        assert left.tolist() == [*score[0], *(score[1, 4:] if where == "cut" else [])]


def test_a_dropped_columns_bytes_go_with_a_compacting_copy(tmp_path: Path) -> None:
    score = np.random.default_rng(1).normal(size=40)
    with Store.create(tmp_path / "store", REAL, shards=1, chunk_events=32, compression="none") as store:
        store.append({"user_id": [1] * 40, "ts": np.arange(40), "score": score}, backfill=True)
        store.drop_column("score")
        store.backup(tmp_path / "backup")
        store.compact(copy_to=tmp_path / "copy")
    for planted in (score[0], score[39]):  # of the chunk, of the tail
        assert planted_in(tmp_path / "backup", planted.tobytes())
        assert not planted_in(tmp_path / "copy", planted.tobytes())


def planted_in(store: Path, mark: bytes) -> bool:
    return any(mark in file.read_bytes() for file in store.rglob("*") if file.is_file())
