"""No room: on the disk, under a limit on files, or in the address space. The store says so and stays sound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uihkv import Column, Schema, Store, StoreFullError, environment
from uihkv.ingest import ingest

SCHEMA = Schema([Column("item_id", "int64")])
USERS = 50


def batch(number: int, events: int = 40) -> dict[str, np.ndarray]:
    """Some events of every user that do not compress."""
    rng = np.random.default_rng(number)
    n = USERS * events
    return {
        "user_id": np.tile(np.arange(USERS), events),
        "ts": np.full(n, number),
        "item_id": rng.integers(-(2**62), 2**62, n),
    }


def items(store: Store) -> np.ndarray:
    with store.snapshot() as snapshot:
        return snapshot.read(snapshot.head(np.arange(USERS))).values("item_id")


def expected(batches: int) -> np.ndarray:
    parts = [batch(number)["item_id"].reshape(-1, USERS).T for number in range(batches)]
    return np.concatenate(parts, axis=1).ravel() if parts else np.empty(0, np.int64)


LIMITED = """
import resource, sys
from tests.faults.test_full import batch
from uihkv import Store, StoreFullError
with Store.open(sys.argv[1]) as store:
    store.append(batch(0), backfill=True, source="s", offset=0)
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for number in range(1, 1000):
        try:
            store.append(batch(number), backfill=True, source="s", offset=number)
        except StoreFullError as error:
            print(number, error)
            break
    with store.snapshot() as snapshot:  # it still reads
        assert snapshot.head([0]).version[0] >= 40 * number
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.append(batch(number), backfill=True, source="s", offset=number)  # and there is room again
"""


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("limit_kb", [600, 1003])
def test_a_full_disk_is_an_error_and_the_same_append_completes_once_there_is_room(
    tmp_path: Path, shards: int, limit_kb: int
) -> None:
    Store.create(tmp_path / "store", SCHEMA, shards=shards, chunk_events=64).close()
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "store"), str(1024 * limit_kb)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert ran.returncode == 0, ran.stderr
    number, words = ran.stdout.strip().split(" ", 1)
    assert "no space left" in words
    assert "nothing of this batch was stored" in words or "shards have stored their part" in words
    with Store.open(tmp_path / "store") as store:
        assert not store.verify(isolated=False).problems
        assert store.sources() == {"s": int(number)}
        assert np.array_equal(items(store), expected(int(number) + 1))


def test_a_map_that_is_too_small_grows_while_the_store_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MAP_BYTES", 1 << 19)
    with Store.create(tmp_path / "store", SCHEMA, shards=2, chunk_events=64) as store:
        for number in range(12):
            store.append(batch(number), backfill=True)
        store.append(batch(12, 2000), backfill=True)  # more than the whole map at once
        size = (tmp_path / "store/shards/0000/data.mdb").stat().st_size
        assert size > 2 * environment.MAP_BYTES
        found = items(store)
    with Store.open(tmp_path / "store") as store:
        assert np.array_equal(items(store), found)
        assert store.stats().events == USERS * (12 * 40 + 2000)


def test_an_open_snapshot_holds_the_map_until_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MAP_BYTES", 1 << 19)
    with Store.create(tmp_path / "store", SCHEMA, shards=1, chunk_events=64) as store:
        store.append(batch(0), backfill=True)
        with store.snapshot() as snapshot:
            done = 1
            with pytest.raises(StoreFullError, match="close them and try again"):
                for done in range(1, 1000):
                    store.append(batch(done), backfill=True)
            before = snapshot.read(snapshot.head(np.arange(USERS))).values("item_id")
            assert np.array_equal(before, expected(1))
        assert np.array_equal(items(store), expected(done))
        store.append(batch(done), backfill=True)
        assert np.array_equal(items(store), expected(done + 1))


APPEND = """
import sys
from tests.faults.test_full import batch
from uihkv import Store, environment
environment.MAP_BYTES = 1 << 19
with Store.open(sys.argv[1]) as store:
    for number in range(1, 30):
        store.append(batch(number), backfill=True)
"""


def test_a_map_that_another_process_made_larger_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MAP_BYTES", 1 << 19)
    with Store.create(tmp_path / "store", SCHEMA, shards=1, chunk_events=64) as store:
        store.append(batch(0), backfill=True)
        with store.snapshot() as held:
            command = [sys.executable, "-c", APPEND, str(store.path)]
            subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
            with pytest.raises(StoreFullError, match="close the snapshots"):
                store.snapshot()
            assert held.head([0]).version.tolist() == [40]
        assert np.array_equal(items(store), expected(30))


def test_no_room_for_grouped_rows_names_the_folder(tmp_path: Path) -> None:
    rows = 200_000
    rng = np.random.default_rng(0)
    pq.write_table(
        pa.table(
            {"user_id": rng.integers(0, 99, rows), "ts": np.arange(rows), "item_id": rng.integers(0, 2**62, rows)}
        ),
        tmp_path / "e.parquet",
    )
    code = """
import resource, sys
from uihkv import Store, StoreFullError
from uihkv.ingest import ingest
with Store.open(sys.argv[1]) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        ingest(store, sys.argv[2], order_by="ts")
    except StoreFullError as error:
        print(error)
    assert store.stats().events == 0
"""
    Store.create(tmp_path / "store", SCHEMA, shards=2).close()
    command = [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "e.parquet")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert ran.returncode == 0, ran.stderr
    assert "name another folder as scratch" in ran.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", "store"]
    with Store.open(tmp_path / "store") as store:
        assert ingest(store, tmp_path / "e.parquet", order_by="ts").appended == rows
