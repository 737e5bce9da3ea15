"""Statistics: counts are those of the histories, and every byte of the files has its account."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from uihkv import Column, Schema, Store

SCHEMA = Schema([Column("item_id", "int64"), Column("score", "float32"), Column("tags", "int16", ragged=True)])


def fill(store: Store) -> np.ndarray:
    """Histories of 1, 2, … 100 events; how long each is."""
    lengths = np.arange(1, 101)
    users = np.repeat(np.arange(100), lengths)
    rng = np.random.default_rng(0)
    n = len(users)
    store.append(
        {
            "user_id": users, "ts": np.arange(n), "item_id": rng.integers(0, 1000, n),
            "score": rng.normal(size=n).astype(np.float32), "tags": [[1, 2]] * n,
        },
        backfill=True,
    )  # fmt: skip
    return lengths


def test_counts_and_lengths_are_those_of_what_is_left(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", SCHEMA, shards=4, chunk_events=16) as store:
        empty = store.stats(details=True)
        assert (empty.users, empty.events, empty.length_p50, empty.tail_share, empty.shard_skew) == (0, 0, 0, 0.0, 1.0)
        lengths = fill(store)
        found = store.stats()
        assert (found.users, found.events, found.longest) == (100, 5050, 100)
        assert (found.length_p50, found.length_p90, found.length_p99) == (50, 90, 99)
        assert found.tail_share == found.tail_events / 5050 and 0 < found.tail_share < 0.2
        assert found.details is None and "details" not in found.describe()
        store.trim([99, 98], [50, 99])
        left = store.stats()
        assert (left.users, left.events, left.trimmed_users, left.longest) == (100, 5050 - 149, 2, 98)
        by_shard = [int(lengths[store.shard_of(np.arange(100)) == shard].sum()) for shard in range(4)]
        assert found.shard_skew == max(by_shard) * 4 / 5050


def test_every_byte_of_the_files_has_an_account(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", SCHEMA, shards=2, chunk_events=16) as store:
        fill(store)
        store.drop_column("score")
        found = store.stats(details=True)
        details = found.details
        assert details is not None
        assert details.total_bytes == found.bytes
        assert details.free_bytes == found.free_bytes > 0
        assert sum(shard.bytes for shard in details.by_shard) <= found.bytes
        assert sum(shard.events for shard in details.by_shard) == found.events
        assert list(details.columns) == ["ts", "visible_at", "item_id", "tags", "(dropped)"]
        assert details.columns["(dropped)"] >= 4 * 5050 * 0.8
        stored = sum(entry["bytes"] for entry in details.encodings.values())
        assert stored == sum(details.columns.values()) >= details.lz4_bytes
        parts = (details.header_bytes, details.key_bytes, details.node_bytes, details.gap_bytes, details.free_bytes)
        assert min(parts) > 0
        store.compact(copy_to=tmp_path / "copy")
    with Store.open(tmp_path / "copy") as copy:
        found = copy.stats(details=True)
        assert found.details is not None and found.details.total_bytes == found.bytes
        assert list(found.details.columns) == ["ts", "visible_at", "item_id", "tags"]
        assert found.free_bytes == found.details.free_bytes == 0
