"""Commits of several shards wait for the disk together, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from uihkv import Column, Schema, Store

SCHEMA = Schema([Column("item", "int64")])


def batch(users: int, ts: int) -> dict[str, np.ndarray]:
    ids = np.arange(users)
    return {"user_id": ids, "ts": np.full(users, ts), "item": ids * ts}


def lane_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("uihkv-commit")]


def test_appends_of_many_threads_and_handles_are_all_stored(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s", SCHEMA, shards=20) as store, Store.open(tmp_path / "s") as other:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda ts: (store, other)[ts % 2].append(batch(100, ts), backfill=True), range(24)))
        with store.snapshot() as snapshot:
            heads = snapshot.head(np.arange(100))
            assert set(heads.version.tolist()) == {24}
            found = snapshot.read(heads).values("item").reshape(100, 24)
        assert sorted(found[7].tolist()) == [7 * ts for ts in range(24)]


def test_a_closed_store_leaves_no_thread(tmp_path: Path) -> None:
    before = lane_threads()
    with Store.create(tmp_path / "s", SCHEMA, shards=4) as store:
        store.append(batch(50, 1))
        assert len(lane_threads()) == len(before) + 4
    assert lane_threads() == before


def test_a_forked_child_appends_by_lanes_of_its_own(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s", SCHEMA, shards=4) as store:
        store.append(batch(50, 1))
        child = os.fork()
        if child == 0:
            try:
                store.append(batch(50, 2))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.append(batch(50, 3))
        with store.snapshot() as snapshot:
            assert set(snapshot.head(np.arange(50)).version.tolist()) == {3}


def test_an_interrupted_wait_for_a_shard_gives_it_back(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s", SCHEMA, shards=2) as store, Store.open(tmp_path / "s") as other:
        store.append(batch(50, 0))
        held = other._open.shard(0).begin_write()  # another writer, whom the lane waits for
        threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                store.append(batch(50, 1))
        finally:
            signal.signal(signal.SIGINT, previous)
            held.abort()
        store.append(batch(50, 2))  # would wait for ever for a transaction that nobody ends
        with store.snapshot() as snapshot:
            assert set(snapshot.head(np.arange(50)).version.tolist()) == {2}
