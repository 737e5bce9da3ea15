"""Verification finds what is wrong with a store, says where, and leaves a sound one alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import xxhash

from uihkv import Column, ReadOnlyError, Schema, Store, StoreNotFoundError
from uihkv.chunk import BLOCKS_AT, DESCRIPTOR_BYTES, HEADER_BYTES, TS_AT, ZONE_BYTES
from uihkv.keys import chunk_keys, tail_keys
from uihkv.verify import verify_store

SCHEMA = Schema(
    [
        Column("item_id", "int64"),
        Column("kind", "uint8", default=1),
        Column("score", "float32", default=0.5),
        Column("tags", "int16", ragged=True),
        Column("name", "string", default=""),
    ]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three users in one shard, with long and short chunks, a tail, and a user of whom nothing is left."""
    rng = np.random.default_rng(0)
    with Store.create(tmp_path / "store", SCHEMA, shards=1, chunk_events=300) as store:
        n = 2100
        data = {
            "user_id": np.arange(n) % 3, "ts": 1000 + np.arange(n), "item_id": rng.integers(0, 10**6, n),
            "kind": rng.integers(0, 9, n).astype(np.uint8), "score": rng.normal(size=n).astype(np.float32),
            "tags": [[1] * (at % 3) for at in range(n)], "name": [f"n{at % 7}" for at in range(n)],
        }  # fmt: skip
        store.append(data, backfill=True, source="log", offset=7)
        store.drop_column("kind")
        store.append({name: part[:4] for name, part in data.items() if name != "kind"}, backfill=True)
        store.trim(2)
    return tmp_path / "store"


def change(path: Path, work: Callable[[Any, Callable[[bytes], Any]], None]) -> None:
    """Go at the records of the one shard."""
    environment = lmdb.open(str(path / "shards/0000"), max_dbs=8)
    databases = {name: environment.open_db(name) for name in (b"chunks", b"tails", b"sources")}
    with environment.begin(write=True) as transaction:
        work(transaction, databases.__getitem__)
    environment.close()


def chunk_key(user: int, start: int, end: int) -> bytes:
    return chunk_keys(*(np.array([word], np.int64) for word in (user, start, end)))


def tail_key(user: int) -> bytes:
    return tail_keys(np.array([user], np.int64))


def told(path: Path) -> list[str]:
    return [str(problem) for problem in verify_store(path, isolated=False).problems]


@pytest.mark.parametrize("isolated", [True, False])
def test_a_sound_store_is_read_whole_and_found_so(path: Path, isolated: bool) -> None:
    with Store.open(path) as store:
        steps: list[tuple[int, int]] = []
        report = store.verify(isolated=isolated, progress=lambda done, total: steps.append((done, total)))
        stats = store.stats()
    assert report.ok and report.problems == report.repaired == ()
    assert (report.events, report.users, report.chunks) == (stats.events, stats.users, stats.chunks)
    assert (report.shards, report.sources, steps) == (1, 1, [(1, 1)])


@pytest.mark.parametrize("at", [5, 40, -1])
def test_a_changed_byte_is_found_in_its_chunk_and_tail(path: Path, at: int) -> None:
    def damage(transaction: Any, database: Any) -> None:
        for key, name in ((chunk_key(1, 300, 600), b"chunks"), (tail_key(0), b"tails")):
            value = bytearray(transaction.get(key, db=database(name)))
            value[at] ^= 4
            transaction.put(key, bytes(value), db=database(name))

    change(path, damage)
    found = told(path)
    assert len(found) == 2, found
    assert any(one.startswith("shard 0000, user 1, versions [300, 600): ") for one in found)
    assert any(one.startswith("shard 0000, user 0") for one in found)


def test_missing_overlapping_and_stray_records_are_named(path: Path) -> None:
    def damage(transaction: Any, database: Any) -> None:
        chunks, tails = database(b"chunks"), database(b"tails")
        transaction.delete(chunk_key(0, 300, 600), db=chunks)
        whole = transaction.get(chunk_key(1, 0, 300), db=chunks)
        transaction.put(chunk_key(1, 100, 400), whole, db=chunks)
        transaction.put(chunk_key(77, 0, 300), whole, db=chunks)
        transaction.put(tail_key(1), transaction.get(tail_key(0), db=tails), db=tails)
        transaction.put(b"odd", b"", db=chunks)
        transaction.put(b"bad source", b"123", db=database(b"sources"))

    change(path, damage)
    found = told(path)
    for words in (
        "user 0, versions [600,", "user 1, versions [100, 400): the chunk's range",
        "user 77, versions [0, 300): its user has no tail",
        "not of 24 bytes", "source b'bad source' cannot be read", "user 1: a checksum does not match",
    ):  # fmt: skip
        assert any(words in one for one in found), (words, found)


@pytest.mark.parametrize("where", ["bounds", "zone of item_id", "zone of score"])
def test_bounds_and_zones_that_are_not_true_are_found_and_repaired(path: Path, where: str) -> None:
    """Such a chunk has all its checksums: only a fault in a writer makes one."""
    key = chunk_key(1, 300, 600)
    block = {"bounds": None, "zone of item_id": 2, "zone of score": 4}[where]

    def damage(transaction: Any, database: Any) -> None:
        value = bytearray(transaction.get(key, db=database(b"chunks")))
        blocks = int.from_bytes(value[BLOCKS_AT : BLOCKS_AT + 2], "little")
        zones = HEADER_BYTES + DESCRIPTOR_BYTES * blocks
        place = TS_AT + 8 if block is None else zones + ZONE_BYTES * block + 8  # the greatest
        value[place : place + 8] = (3).to_bytes(8, "little")
        covered = zones + ZONE_BYTES * blocks
        check = xxhash.xxh3_64_intdigest(bytes(value[4:covered]), seed=1) & 0xFFFFFFFF
        value[:4] = check.to_bytes(4, "little")
        transaction.put(key, bytes(value), db=database(b"chunks"))

    change(path, damage)
    with Store.open(path) as store:
        found = store.verify(isolated=False).problems
        assert [(one.place, one.repairable) for one in found] == [((0, 1, 300, 600), True)], found
        report = store.verify(repair=True, isolated=False)
        assert report.ok and report.repaired == found
        assert store.verify(repair=True, isolated=False).repaired == ()
    with Store.open(path, readonly=True) as reader:
        assert reader.verify(isolated=False).ok
        with pytest.raises(ReadOnlyError):
            reader.verify(repair=True)


def test_a_lost_tail_is_told(path: Path) -> None:
    change(path, lambda transaction, database: transaction.delete(tail_key(0), db=database(b"tails")))
    assert told(path) and all("user 0" in one and "no tail" in one for one in told(path))


def test_a_torn_manifest_and_a_cut_file_are_problems(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        verify_store(tmp_path / "nowhere")
    data = path / "shards/0000/data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    assert told(path)
    manifest = path / "manifest.msgpack"
    manifest.write_bytes(manifest.read_bytes()[:-3])
    report = verify_store(path)
    assert [problem.shard for problem in report.problems] == [None]


def test_pages_that_kill_their_reader_are_a_problem_of_their_shard(tmp_path: Path) -> None:
    """Noise where LMDB has its pages: the checking process may die, the caller never does."""
    with Store.create(tmp_path / "store", SCHEMA, shards=2, chunk_events=16) as store:
        n = 3000
        names = {"item_id": np.arange(n), "tags": [[]] * n, "score": np.zeros(n, np.float32)}
        store.append({"user_id": np.arange(n) % 50, "ts": np.arange(n), **names}, backfill=True)
    data = tmp_path / "store/shards/0001/data.mdb"
    sound = data.read_bytes()
    rng = np.random.default_rng(2)
    for trial in range(2):
        pages = np.frombuffer(sound, np.uint8).reshape(-1, 4096).copy()
        some = rng.choice(np.arange(2, len(pages)), (len(pages) - 2) // 2, replace=False)
        pages[some] = rng.integers(0, 256, (len(some), 4096), np.uint8)
        if trial == 1:
            pages[some, :16] = np.frombuffer(sound, np.uint8).reshape(-1, 4096)[some, :16]  # page headers stay
        data.write_bytes(pages.tobytes())
        report = verify_store(tmp_path / "store")
        assert not report.ok
        assert {problem.shard for problem in report.problems} == {1}
    data.write_bytes(sound)
    assert verify_store(tmp_path / "store", isolated=False).ok
