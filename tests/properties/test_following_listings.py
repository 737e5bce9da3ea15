"""A listing that follows another one is what a listing of all keys is, whatever was written in between, and by whom."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uihkv import Column, Projection, Schema, Snapshot, Store
from uihkv.listing import Listing, NewestListing, ShardRows

SCHEMA = Schema([Column("item_id", "int64")])
ANY = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
USERS = 700


def write(store: Store, step: tuple[str, int, int]) -> None:
    """One step of a store's life; what of it is random is drawn by the step's number."""
    kind, many, number = step
    rng = np.random.default_rng([many, number])
    users = rng.integers(-USERS, USERS, many)
    if kind == "append":
        rows = {"user_id": users, "ts": np.arange(many), "item_id": rng.integers(0, 2**60, many)}
        rows |= {name: np.zeros(many, np.int64) for name in store.schema.names if name != "item_id"}
        store.append(rows, backfill=True)
    elif kind == "one user":
        rows = {name: np.arange(9 * many) for name in ("ts", *store.schema.names)}
        store.append({"user_id": np.full(9 * many, users[0] if many else 3), **rows}, backfill=True)
    elif kind == "new users":
        fresh = USERS + 1 + 5000 * (number + 1) + np.arange(many)
        rows = {name: np.arange(many) for name in ("ts", *store.schema.names)}
        store.append({"user_id": fresh, **rows}, backfill=True)
    elif kind == "trim":
        with store.snapshot() as snapshot:
            known = snapshot.users()
            heads = snapshot.head(known).version
        for at in rng.integers(0, len(known), min(many, 5)) if len(known) else ():
            store.trim(int(known[at]), None if rng.random() < 0.3 else int(rng.integers(0, heads[at] + 1)))
    elif kind == "compact":
        store.compact()
    else:
        store.add_column(Column(f"more{number}", "int64", default=number))


def serve(pipe: Connection) -> None:
    """Write to stores in a process of its own."""
    while (order := pipe.recv()) is not None:
        path, step = order
        with Store.open(path) as store:
            write(store, step)
        pipe.send(None)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,))
    process.start()

    def order(path: Path, step: tuple[str, int, int]) -> None:
        mine.send((path, step))
        mine.recv()

    yield order
    mine.send(None)
    process.join()


def listed(listing: Listing) -> list[np.ndarray]:
    """Users, ranges and places, user by user."""
    found: list[np.ndarray] = []
    arena = listing.arena
    entries = arena.entries
    for number, some in enumerate(listing.shards):
        begin, end = arena.chunks_of[some.rows].T
        size = end - begin
        chunks = np.arange(size.sum()) + np.repeat(begin - np.cumsum(size) + size, size)
        tails = entries.first_tail + some.rows
        assert (entries.shard[chunks] == number).all()
        assert (entries.shard[tails] == number).all()
        assert np.array_equal(arena.row_user[some.rows], some.users)
        assert np.array_equal(entries.user[tails], some.users)
        assert np.array_equal(entries.user[chunks], np.repeat(some.users, size))
        found += [some.users, size, entries.address[tails], entries.size[tails]]
        found += [getattr(entries, name)[chunks] for name in ("start", "end", "address", "size")]
    return found


def listing_of(snapshot: Snapshot) -> Listing:
    return snapshot._directory()._listing


def leaves_of(some: ShardRows) -> list[np.ndarray]:
    assert some.leaves is not None
    return [some.leaves.chunks.table, some.leaves.tails.table]


def check(snapshot: Snapshot) -> None:
    listing = listing_of(snapshot)
    scratch = NewestListing().follow(snapshot._shards, snapshot._transactions)
    for one, other in zip(listed(listing), listed(scratch), strict=True):
        assert np.array_equal(one, other)
    for mine, anew in zip(listing.shards, scratch.shards, strict=True):
        for one, other in zip(leaves_of(mine), leaves_of(anew), strict=True):
            assert np.array_equal(one, other)


def everything(snapshot: Snapshot) -> list[np.ndarray]:
    heads = snapshot.head(snapshot.users())
    found = snapshot.read(heads, Projection(["ts", "item_id"]), on_trimmed="truncate")
    return [heads.user_id, heads.version, found.offsets, found.values("ts"), found.values("item_id")]


steps = st.lists(
    st.tuples(
        st.sampled_from(["append"] * 4 + ["one user", "one user", "new users", "trim", "compact", "column"]),
        st.sampled_from([1, 1, 2, 5, 40, 900]),
        st.integers(0, 1000),
        st.sampled_from(["here", "here", "elsewhere", "unseen"]),
    ),
    min_size=2,
    max_size=9,
)


@ANY
@given(steps=steps, shards=st.integers(1, 3), chunk_events=st.sampled_from([2, 7, 40]), first=st.integers(0, 3))
def test_whatever_is_written_a_listing_that_follows_is_one_made_anew(
    tmp_path_factory: pytest.TempPathFactory, elsewhere: Any, steps: list[tuple[str, int, int, str]], shards: int,
    chunk_events: int, first: int,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("following") / "store"
    with Store.create(path, SCHEMA, shards, chunk_events=chunk_events) as store:
        if first:
            write(store, ("append", 4_000 * first, 0))
        held = store.snapshot()
        check(held)
        seen = everything(held)
        for number, (kind, many, draw, who) in enumerate(steps):
            step = (kind, many, 10_000 * number + draw)
            if who == "elsewhere":
                elsewhere(path, step)
            else:
                write(store, step)
            if who == "unseen":
                continue
            snapshot = store.snapshot()
            check(snapshot)
            with Store.open(path) as other, other.snapshot() as fresh:
                expected = everything(fresh)
            for one, other_one in zip(everything(snapshot), expected, strict=True):
                assert np.array_equal(one, other_one)
            for one, other_one in zip(everything(held), seen, strict=True):
                assert np.array_equal(one, other_one)  # its rows have stayed what they were
            held.close()
            held, seen = snapshot, expected


def test_only_users_in_pages_that_changed_get_other_rows(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", SCHEMA, shards=2, chunk_events=20) as store:
        write(store, ("append", 60_000, 0))
        before = store.snapshot()
        known = listing_of(before)
        store.append({"user_id": [5], "ts": [1], "item_id": [1]}, backfill=True)
        with store.snapshot() as snapshot:
            before.close()  # it was open when the next one began: that is enough
            listing = listing_of(snapshot)
            assert listing.arena is known.arena
            grown = [number for number in (0, 1) if listing.shards[number] is not known.shards[number]]
            assert grown == store.shard_of([5]).tolist()
            old, new = known.shards[grown[0]], listing.shards[grown[0]]
            assert new.users is old.users
            assert 0 < np.count_nonzero(old.rows != new.rows) < 100
            check(snapshot)


def test_without_a_snapshot_held_all_keys_of_a_shard_are_listed(tmp_path: Path) -> None:
    """Pages that nobody holds may have been used again: the same number then tells nothing."""
    with Store.create(tmp_path / "store", SCHEMA, shards=1, chunk_events=20) as store:
        write(store, ("append", 20_000, 0))
        for number in range(12):
            with store.snapshot() as snapshot:
                check(snapshot)
            write(store, ("append", 30, number))
            write(store, ("append", 30, 100 + number))


def test_a_listing_may_be_made_after_those_of_later_snapshots(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", SCHEMA, shards=2, chunk_events=8) as store:
        write(store, ("append", 9_000, 0))
        snapshots = [store.snapshot()]
        listing_of(snapshots[0])
        expected = [everything(snapshots[0])]
        for number in range(6):
            write(store, ("append", 50, number))
            snapshots.append(store.snapshot())
            with Store.open(store.path) as other, other.snapshot() as fresh:
                expected.append(everything(fresh))
        for at in (3, 6, 1, 5, 2, 4, 0):
            check(snapshots[at])
            for one, other_one in zip(everything(snapshots[at]), expected[at], strict=True):
                assert np.array_equal(one, other_one)
            snapshots[at].close()
