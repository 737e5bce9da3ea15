"""A process that lives long sees, in each new snapshot, what a process that opens the store anew sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uihkv import Column, Pointers, Projection, Schema, Snapshot, Store, shard

SCHEMA = Schema([Column("item_id", "int64")])
ANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
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
    max_size=14,
)


@pytest.mark.parametrize("kept", [1, 8, 10_000])
@ANY
@given(steps=steps, shards=st.integers(1, 3), chunk_events=st.sampled_from([2, 5, 50]), many=st.booleans())
def test_new_snapshots_of_an_old_handle_see_what_a_new_handle_sees(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, kept: int,
    steps: list[tuple[list[int], str]], shards: int, chunk_events: int, many: bool,
) -> None:  # fmt: skip
    """Whether it has to list all keys anew, those of some users or none; ``many`` users make the second more likely."""
    monkeypatch.setattr(shard, "_MIN_CHANGES", kept)
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


def test_many_small_appends_leave_a_short_list_of_changes(tmp_path: Path) -> None:
    """The record of who changed stays a small part of the store."""
    with Store.create(tmp_path / "store", SCHEMA, shards=1) as store:
        for step in range(1500):
            store.append(rows([step % 50], step), backfill=True)
        with store.snapshot() as before:
            everything(before)
        pages = store.stats().used_bytes
        assert pages < 40_000
