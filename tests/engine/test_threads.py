"""Threads share a read's work: what it returns, costs and raises is what one thread returns, costs and raises."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from uihkv import Column, CorruptChunkError, Pointers, Projection, Schema, Store
from uihkv.kernels.parts import cut_parts

SCHEMA = Schema(
    [Column("item_id", "int64"), Column("dwell", "float32"), Column("tags", "int32", ragged=True),
     Column("vec", "float16", shape=(3,))]
)  # fmt: skip
USERS = 400


@pytest.fixture(scope="module", params=["lz4", "none"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("threads") / "store"
    rng = np.random.default_rng(0)
    n = 200_000
    lengths = rng.integers(0, 3, n)
    with Store.create(path, SCHEMA, shards=3, chunk_events=200, compression=request.param) as store:
        store.append(
            {"user_id": rng.integers(0, USERS, n), "ts": np.arange(n), "item_id": rng.integers(0, 1000, n),
             "dwell": rng.random(n, np.float32), "vec": rng.random((n, 3)).astype(np.float16),
             "tags": (np.arange(lengths.sum(), dtype=np.int32), np.append(0, np.cumsum(lengths)))},
            backfill=True,
        )  # fmt: skip
    return path


@pytest.fixture
def one(path: Path) -> Iterator[Store]:
    with Store.open(path) as store:
        yield store


@pytest.mark.parametrize("threads", [2, 3, 9])
def test_threads_read_what_one_reads(path: Path, one: Store, threads: int) -> None:
    rng = np.random.default_rng(1)
    with Store.open(path, threads=threads) as store, store.snapshot() as snapshot, one.snapshot() as alone:
        heads = alone.head(alone.users())
        for many in (1, 60, 399, 2_000):
            some = heads[rng.integers(0, len(heads), many)]
            for projection in (Projection(), Projection(["ts", "vec"], max_len=90), Projection(["item_id"], max_len=1)):
                expected, found = alone.read(some, projection), snapshot.read(some, projection)
                assert found.cost == expected.cost
                for name in expected.columns:
                    for mine, theirs in zip(found[name], expected[name], strict=True):
                        assert np.array_equal(mine, theirs)


def test_reads_of_many_threads_share_the_same_ones(path: Path, one: Store) -> None:
    with Store.open(path, threads=3) as store, store.snapshot() as snapshot, one.snapshot() as alone:
        heads = alone.head(alone.users())
        expected = alone.read(heads)
        wrong = []

        def read() -> None:
            for _ in range(10):
                found = snapshot.read(heads)
                wrong.extend(n for n in found.columns if not np.array_equal(found.values(n), expected.values(n)))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_damage_is_told_whoever_meets_it(path: Path, tmp_path: Path) -> None:
    with Store.open(path) as store:
        store.backup(tmp_path / "copy")
    with Store.open(tmp_path / "copy") as store:
        shard = store._open.shard(0)
        transaction = shard.begin_write()
        database = shard.databases(transaction)[b"chunks"]
        with transaction.cursor(db=database) as cursor:
            cursor.last()
            key, value = bytes(cursor.key()), bytearray(cursor.value())
        value[-5] ^= 255
        transaction.put(key, bytes(value), db=database)
        transaction.commit()
    with Store.open(tmp_path / "copy", threads=4) as store, store.snapshot() as snapshot:
        heads = snapshot.head(snapshot.users())
        user = int.from_bytes(key[:8], "big") - (1 << 63)
        for _ in range(5):
            with pytest.raises(CorruptChunkError) as found:
                snapshot.read(heads)
            assert (found.value.shard, found.value.user_id) == (0, user)
        others = heads[heads.user_id != user]
        assert len(snapshot.read(others)) == USERS - 1
        assert len(snapshot.read(Pointers([user], [1]))) == 1


def test_parts_are_whole_chunks_and_hold_all_slices() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(0, 200))
        entry = np.sort(rng.integers(0, 1 + int(rng.integers(1, 60)), n))
        first = rng.integers(0, 50, n)
        last = first + rng.integers(1, 50, n)
        bounds = cut_parts(entry, first, last, 100)
        assert bounds[0] == 0
        assert bounds[-1] == n
        assert (np.diff(bounds) > 0).all() or n == 0
        inner = bounds[1:-1]
        assert (entry[inner] != entry[inner - 1]).all()
