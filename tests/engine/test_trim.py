"""Retention and erasure: what goes, what stays, and what reads of trimmed ranges say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.engine.test_store_life import SCHEMA, batch
from uihkv import Column, PointerError, Pointers, Projection, ReadOnlyError, Schema, SchemaError, Store, TrimmedError

ITEMS = Projection(["item_id"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with Store.create(tmp_path / "store", SCHEMA, shards=3, chunk_events=8) as made:
        made.append(batch(5, 20), backfill=True)
        yield made


def test_a_read_of_a_trimmed_range_says_whose_where_and_what_to_do(store: Store) -> None:
    result = store.trim(2, 11)
    assert (result.users, result.events, result.chunks) == (1, 11, 2)
    with store.snapshot() as snapshot:
        heads = snapshot.head([1, 2])
        with pytest.raises(TrimmedError, match=r"row 1: the events of user 2 below version 11 .* 'truncate'|truncate"):
            snapshot.read(heads)
        assert snapshot.read(heads, Projection(["item_id"], 9)).lengths.tolist() == [9, 9]
        left = snapshot.read(heads, ITEMS, on_trimmed="truncate")
        assert left.lengths.tolist() == [20, 9]
        assert left.values("item_id")[20:].tolist() == list(range(11, 20))
        with pytest.raises(SchemaError, match="on_trimmed is 'skip'"):
            snapshot.read(heads, on_trimmed="skip")  # type: ignore[arg-type]
        with pytest.raises(PointerError, match="last_ts"):  # what is kept is still proved
            snapshot.read(Pointers([2], [15], [7]), on_trimmed="truncate")


def test_a_snapshot_taken_before_still_sees_what_goes(store: Store) -> None:
    with store.snapshot() as before:
        heads = before.head([0])
        store.trim(0)
        assert before.read(heads, ITEMS).values("item_id").tolist() == list(range(20))
        with store.snapshot() as after, pytest.raises(TrimmedError):
            after.read(heads)


def test_a_user_who_lost_everything_goes_on_behind_his_head(store: Store) -> None:
    assert store.trim([0, 4, 99]).events == 40
    store.append({"user_id": [4], "ts": [0], "item_id": [77]}, backfill=True)
    with store.snapshot() as snapshot:
        heads = snapshot.head([0, 4, 99])
        assert heads.version.tolist() == [20, 21, 0]
        assert heads.last_ts is not None and heads.last_ts.tolist() == [0, 0, 0]
        read = snapshot.read(heads, Projection(["item_id", "visible_at"]), on_trimmed="truncate")
        assert (read.values("item_id").tolist(), read.lengths.tolist()) == ([77], [0, 1, 0])
        assert read.values("visible_at").tolist() == [1019]  # lifted to what had been the latest
    assert store.stats().events == 3 * 20 + 1


def test_a_version_past_the_head_is_refused_for_all(store: Store) -> None:
    with pytest.raises(PointerError, match="user 1 has 20 events, before_version is 21; nothing was trimmed"):
        store.trim([0, 1], [5, 21])
    with pytest.raises(PointerError, match="-1"):
        store.trim(0, -1)
    with pytest.raises(PointerError, match="2 user_id and 3 before_version"):
        store.trim([0, 1], [1, 2, 3])
    with Store.open(store.path, readonly=True) as reader, pytest.raises(ReadOnlyError):
        reader.trim(0)
    assert store.stats().events == 100


def test_retention_by_visible_time_keeps_ties_and_is_done_once(store: Store) -> None:
    assert store.trim_by_age(1007).describe() == {"users": 5, "events": 35, "chunks": 5}
    assert store.trim_by_age(1007).describe() == {"users": 0, "events": 0, "chunks": 0}
    assert store.trim_by_age(1017).events == 50
    with store.snapshot() as snapshot:
        left = snapshot.read(snapshot.head(np.arange(5)), ITEMS, on_trimmed="truncate")
        assert left.values("item_id").tolist() == [17, 18, 19] * 5
    with pytest.raises(SchemaError, match="visible_before"):
        store.trim_by_age(1.5)  # type: ignore[arg-type]


def test_an_age_limit_within_retention_needs_nothing_that_is_gone(store: Store) -> None:
    store.trim_by_age(1005)
    with store.snapshot() as snapshot:
        heads = snapshot.head([3])
        assert snapshot.read(heads, Projection(["ts"], max_age=13)).values("ts").tolist() == list(range(1006, 1020))
        with pytest.raises(TrimmedError):
            snapshot.read(heads, Projection(["ts"], max_age=14))
        rare = {"item_id": {6, 18}}
        assert snapshot.read(heads, Projection(["ts"], 2, where=rare)).lengths.tolist() == [2]
        with pytest.raises(TrimmedError):
            snapshot.read(heads, Projection(["ts"], 3, where=rare))


def test_a_moment_before_what_is_left_is_no_longer_known(store: Store) -> None:
    store.trim(0, 10)
    with store.snapshot() as snapshot:
        assert snapshot.resolve([0, 1], 1015).version.tolist() == [15, 15]
        with pytest.raises(TrimmedError, match="row 0: of user 0 the events below version 10"):
            snapshot.resolve([0, 1], 1004)
        found = snapshot.resolve([0, 1], 1004, on_trimmed="truncate")
        assert found == Pointers([0, 1], [10, 4], [0, 1003])
        assert snapshot.read(found, on_trimmed="truncate").lengths.tolist() == [0, 4]
        with pytest.raises(TrimmedError):
            snapshot.read(found)


def test_a_version_whose_events_are_gone_says_so_where_no_event_is_wanted(store: Store) -> None:
    store.trim(0, 10)
    with store.snapshot() as snapshot:
        for version in (9, 10):
            pointers = Pointers([0, 1], [version, 20], [999 + version, 1019])
            with pytest.raises(TrimmedError, match="row 0"):
                snapshot.read(pointers, ITEMS, since=[version, 18])
            left = snapshot.read(pointers, ITEMS, since=[version, 18], on_trimmed="truncate")
            assert left.lengths.tolist() == [0, 2]
        kept = Pointers([0], [11], [1010])
        assert snapshot.read(kept, ITEMS, since=[11]).lengths.tolist() == [0]
        with pytest.raises(PointerError, match="last_ts"):
            snapshot.read(Pointers([0], [11], [1]), ITEMS, since=[11])


def test_an_erased_name_is_gone_from_a_copy_and_its_versions_are_never_reused(tmp_path: Path) -> None:
    schema = Schema([Column("item_id", "int64")], user_id="string")

    def append(store: Store, name: str, items: list[int]) -> None:
        store.append({"user_id": [name] * len(items), "ts": [1] * len(items), "item_id": items}, backfill=True)

    def holds(path: Path, name: str) -> bool:
        return any(name.encode() in file.read_bytes() for file in path.rglob("*.mdb"))

    with Store.create(tmp_path / "store", schema, shards=2) as store:
        append(store, "alice@example.org", [1, 2, 3])
        append(store, "bob", [4])
        with store.snapshot() as snapshot:
            logged = snapshot.head(["alice@example.org", "bob"])
        assert store.erase("alice@example.org").events == 3
        assert store.erase(["alice@example.org", "nobody"]).events == 0
        assert store.verify(isolated=False).ok
        store.compact(copy_to=tmp_path / "copy")
        assert holds(store.path, "alice@example.org")
    assert holds(tmp_path / "copy", "bob") and not holds(tmp_path / "copy", "alice@example.org")
    with Store.open(tmp_path / "copy") as copy:
        with copy.snapshot() as snapshot:
            assert snapshot.users().tolist() == ["bob"]
            with pytest.raises(PointerError):
                snapshot.read(logged)
            assert snapshot.read(logged, ITEMS, on_missing="empty").values("item_id").tolist() == [4]
        append(copy, "alice@example.org", [5])
        with copy.snapshot() as snapshot:
            assert snapshot.head(["alice@example.org"]).version.tolist() == [4]
            with pytest.raises(TrimmedError, match="alice"):
                snapshot.read(logged)
            assert snapshot.read(logged, ITEMS, on_trimmed="truncate").values("item_id").tolist() == [4]
        assert copy.verify(isolated=False).ok
