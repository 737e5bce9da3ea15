"""Memory of large outputs is used again, and never while somebody can see it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uihkv import Column, Histories, Projection, Schema, Snapshot, Store
from uihkv.slabs import LARGE_BYTES

EVENTS = LARGE_BYTES // 8
USERS = np.arange(3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: Any) -> Any:
    path: Path = tmp_path_factory.mktemp("slabs") / "store"
    with Store.create(path, Schema([Column("item_id", "int64")]), shards=1) as made:
        for user in USERS.tolist():
            clock = np.arange(EVENTS)
            made.append({"user_id": np.full(EVENTS, user), "ts": clock, "item_id": user + clock}, backfill=True)
        yield made


def read(snapshot: Snapshot, user: int, length: int = EVENTS) -> Histories:
    return snapshot.read(snapshot.head(USERS[user : user + 1]), Projection(max_len=length))


def address(histories: Histories) -> int:
    return int(histories.values("ts").ctypes.data)


def test_memory_is_used_again_when_the_last_array_over_it_is_gone(store: Store) -> None:
    with store.snapshot() as snapshot:
        first = read(snapshot, 0)
        place = address(first)
        part = first.values("item_id")[100:200][::2]  # a view of a view of a view
        del first
        gc.collect()
        second = read(snapshot, 1)
        assert address(second) != place
        assert np.array_equal(part, np.arange(100, 200, 2))
        del part
        gc.collect()
        third = read(snapshot, 2)
        assert address(third) == place
        assert np.array_equal(third.values("item_id"), 2 + np.arange(EVENTS))
        assert np.array_equal(second.values("item_id"), 1 + np.arange(EVENTS))


def test_few_events_do_not_hold_on_to_the_memory_of_many(store: Store) -> None:
    with store.snapshot() as snapshot:
        place = address(read(snapshot, 0))
        small = read(snapshot, 0, 1000)
        assert address(small) != place


def test_arrays_outlive_their_snapshot_and_what_it_lends_later(store: Store) -> None:
    snapshot = store.snapshot()
    kept = read(snapshot, 0)
    snapshot.close()
    with store.snapshot() as other:
        for user in (1, 2, 1):
            read(other, user)
    assert np.array_equal(kept.values("item_id"), np.arange(EVENTS))
