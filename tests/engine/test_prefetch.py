"""Reads of a store whose pages are not in memory, and asking for them ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perf.cold import drop_pages
from uihkv import Column, Pointers, Projection, Schema, SchemaError, Store

SCHEMA = Schema([Column("item_id", "int64"), Column("tags", "int16", ragged=True)])
USERS, EVENTS = 40, 300


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    n = USERS * EVENTS
    with Store.create(tmp_path / "store", SCHEMA, shards=2, chunk_events=128) as store:
        offsets = np.append(0, np.cumsum(rng.integers(0, 3, n)))
        store.append(
            {"user_id": np.arange(n) % USERS, "ts": np.arange(n), "item_id": rng.integers(0, 2**60, n),
             "tags": (rng.integers(0, 9, offsets[-1]).astype(np.int16), offsets)}, backfill=True,
        )  # fmt: skip
        store.trim([3], 200)
    return tmp_path / "store"


def test_a_prefetch_changes_nothing_and_says_how_much_it_asked_for(path: Path) -> None:
    pointers = Pointers([*range(USERS), 999], np.full(USERS + 1, EVENTS))
    asked = {}
    drop_pages(path)
    for projection in (
        Projection(),
        Projection(["item_id"], max_len=50),
        Projection(["tags"], where={"item_id": (0, 9)}),
    ):
        with Store.open(path) as store, store.snapshot() as snapshot, store.snapshot() as other:
            given = {"on_missing": "empty", "on_trimmed": "truncate"}
            asked[projection] = snapshot.prefetch(pointers, projection)
            found, expected = (view.read(pointers, projection, **given) for view in (snapshot, other))
            assert found.offsets.tolist() == expected.offsets.tolist()
            for name in found.columns:
                assert found.values(name).tobytes() == expected.values(name).tobytes()
            assert found.cost == expected.cost
            assert asked[projection] >= found.cost.bytes_read
            assert asked[projection] % 4096 == 0
    whole, newest, _ = asked.values()
    assert whole > newest > 0


def test_a_prefetch_of_nothing_asks_for_nothing(path: Path) -> None:
    with Store.open(path) as store, store.snapshot() as snapshot:
        assert snapshot.prefetch(Pointers([], [])) == 0
        assert snapshot.prefetch(Pointers([12345], [0])) == 0
        with pytest.raises(SchemaError, match="no_such"):
            snapshot.prefetch(Pointers([1], [1]), Projection(["no_such"]))
