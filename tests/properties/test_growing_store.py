"""A process that lives long sees, in each new snapshot, what a process that opens the store anew sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uihkv import Column, Pointers, Projection, Schema, Snapshot, Store
from uihkv.codec import Entries
from uihkv.shard import Shard

SCHEMA = Schema([Column("item_id", "int64")])
ANY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def rows(users: list[int], first: int) -> dict[str, np.ndarray]:
    clock = np.arange(first, first + len(users))
    return {"user_id": np.array(users, np.int64), "ts": clock, "item_id": clock}


def everything(snapshot: Snapshot) -> tuple[Pointers, list[int], list[int]]:
    heads = snapshot.head(snapshot.users())
    found = snapshot.read(heads, Projection(["item_id"]))
    return heads, found.offsets.tolist(), found.values("item_id").tolist()


steps = st.lists(
    st.tuples(
        st.lists(st.integers(-40, 40), max_size=30),  # users of one append; none: a step without one
        st.sampled_from(["look", "hold", "skip", "other handle"]),
    ),
    min_size=2,
    max_size=9,
)


@ANY
@given(steps=steps, shards=st.integers(1, 3), chunk_events=st.sampled_from([2, 5, 50]), many=st.booleans())
def test_new_snapshots_of_an_old_handle_see_what_a_new_handle_sees(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[int], str]], shards: int, chunk_events: int,
    many: bool,
) -> None:  # fmt: skip
    """Whether some shards have grown since it last looked, all or none, and however deep their trees are."""
    path = tmp_path_factory.mktemp("growing") / "store"
    made = 0
    with Store.create(path, SCHEMA, shards, chunk_events=chunk_events) as store:
        if many:
            store.append(rows([user for user in range(-600, 600) for _ in range(3)], 0), backfill=True)
            made = 3600
        held: list[tuple[Snapshot, object]] = []
        for users, then in steps:
            if then == "other handle":
                with Store.open(path) as writer:
                    writer.append(rows(users, made), backfill=True)
            else:
                store.append(rows(users, made), backfill=True)
            made += len(users)
            if then == "skip":
                continue
            with Store.open(path) as fresh, fresh.snapshot() as snapshot:
                expected = everything(snapshot)
            snapshot = store.snapshot()
            if then == "hold":
                held.append((snapshot, expected))
                continue
            assert everything(snapshot) == expected
            snapshot.close()
        for snapshot, expected in held:  # their listings were never made, while newer ones were
            assert everything(snapshot) == expected


def test_keys_walked_are_the_keys_that_cursors_find(tmp_path: Path) -> None:
    """With values in pages of the tree and in pages of their own, on every level of the tree."""
    rng = np.random.default_rng(0)
    for chunk_events, users, events in ((4, 3_000, 60_000), (5_000, 7, 80_000), (50, 1, 1)):
        path = tmp_path / f"{chunk_events}"
        with Store.create(path, SCHEMA, shards=1, chunk_events=chunk_events) as store:
            store.append(
                {"user_id": rng.integers(0, users, events) - 5, "ts": np.arange(events),
                 "item_id": rng.integers(0, 2**60, events)}, backfill=True,
            )  # fmt: skip
        shard = Shard(path / "shards" / "0000", 0)
        transaction = shard.begin_read()
        walked, listed = shard.list_values(transaction), shard.list_keys(transaction)
        for name in ("user", "start", "end", "tails"):
            assert np.array_equal(getattr(walked, name), getattr(listed, name))
        entries = Entries(0, (listed.user, listed.start, listed.end), listed.tails)
        shard.find_values(transaction, entries, np.arange(len(entries.user)))
        assert np.array_equal(walked.address, entries.address)
        assert np.array_equal(walked.size, entries.size)
        transaction.abort()
        shard.close()


def test_an_empty_store_has_no_keys(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", SCHEMA, shards=2) as store, store.snapshot() as snapshot:
        assert snapshot.users().tolist() == []
        assert snapshot.head([3]).version.tolist() == [0]
