"""A read that is planned at one go gives what the same read gives step by step, and refuses the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uihkv import Column, Histories, PointerError, Pointers, Projection, Schema, Snapshot, Store, TrimmedError

EVENTS = (0, 1, 3, 40, 700, 5000)
COLUMNS = ("ts", "item", "tags", "name")


@pytest.fixture(scope="module", params=["int64", "string"])
def store(request: Any, tmp_path_factory: Any) -> Iterator[Store]:
    columns = [Column("item", "int32"), Column("tags", "int16", ragged=True), Column("name", "string")]
    path: Path = tmp_path_factory.mktemp("at-once") / "store"
    with Store.create(path, Schema(columns, user_id=request.param), shards=3, chunk_events=16) as made:
        for user, n in enumerate(EVENTS):
            clock = np.arange(n)
            made.append(
                {
                    "user_id": name_users(made, np.full(n, user)), "ts": 10 * clock, "item": clock + user,
                    "tags": [clock[: at % 4].tolist() for at in range(n)], "name": [f"n{at % 5}" for at in range(n)],
                },
                backfill=True,
            )  # fmt: skip
        yield made


def name_users(store: Store, users: Any) -> Any:
    if store.schema.user_id == "int64":
        return users
    return np.array([f"user {user}" for user in users.tolist()], np.dtypes.StringDType())


def draw_pointers(store: Store, count: int) -> Pointers:
    rng = np.random.default_rng(count)
    user = rng.integers(0, len(EVENTS) + 1, count)
    version = (rng.random(count) * (np.array([*EVENTS, 0])[user] + 1)).astype(np.int64)
    return Pointers(name_users(store, user), version, np.maximum(10 * (version - 1), 0))


def by_steps(snapshot: Snapshot, pointers: Pointers, projection: Projection) -> Histories:
    """The same read: every event is since version 0."""
    return snapshot.read(pointers, projection, since=np.zeros(len(pointers), np.int64))


@pytest.mark.parametrize("count", [0, 1, 300, 3000])
@pytest.mark.parametrize("max_len", [None, 1, 20])
def test_at_once_and_step_by_step(store: Store, count: int, max_len: int | None) -> None:
    pointers, projection = draw_pointers(store, count), Projection(COLUMNS, max_len)
    with store.snapshot() as snapshot, store.snapshot() as other:
        expected = by_steps(other, pointers, projection)
        for _ in range(2):  # when nothing is open, and when everything is
            found = snapshot.read(pointers, projection)
            assert np.array_equal(found.offsets, expected.offsets)
            for name in COLUMNS:
                for mine, its in zip(found[name], expected[name], strict=True):
                    assert np.array_equal(mine, its)
            assert found.cost == expected.cost


@pytest.mark.parametrize("projection", [Projection(["ts"], 5), Projection(["item"])])
def test_a_wrong_pointer_is_named(store: Store, projection: Projection) -> None:
    user = name_users(store, np.array([3, 4, 5]))
    past = Pointers(user, [40, 701, 5000])
    proof = Pointers(user, [40, 700, 4000], [390, 6990, 39_991])
    with store.snapshot() as snapshot:
        for _ in range(2):
            with pytest.raises(PointerError, match=r"row 1: .*has 700 events"):
                snapshot.read(past, projection)
            with pytest.raises(PointerError, match=r"row 2: event 3999 .*ts 39990, the pointer's last_ts is 39991"):
                snapshot.read(proof, projection)
            assert snapshot.read(past, projection, on_missing="empty").lengths[1] == 0


def test_trimmed_events_are_missed(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", Schema([Column("item", "int64")]), shards=1, chunk_events=16) as store:
        clock = np.arange(100)
        store.append({"user_id": np.zeros(100, np.int64), "ts": clock, "item": clock}, backfill=True)
        store.trim(0, 50)
        pointers = Pointers([0, 0], [100, 60])
        with store.snapshot() as snapshot:
            assert snapshot.read(pointers, Projection(["item"], 8)).values("item").tolist() == [
                *range(92, 100),
                *range(52, 60),
            ]
            with pytest.raises(TrimmedError, match="row 1"):
                snapshot.read(pointers, Projection(["item"], 40))
            assert snapshot.read(pointers, Projection(["item"], 40), on_trimmed="truncate").lengths[0] == 40
