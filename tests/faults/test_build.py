"""A store built aside is under its path whole or not at all, whatever ends the build."""

from __future__ import annotations

import pickle
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perf.powercut import can_trace, cut, record
from uihkv import Column, FormatError, Pointers, Schema, Store, StoreClosedError, StoreExistsError, StoreNotFoundError
from uihkv.aside import owned_file
from uihkv.resolve import write_aside

SCHEMA = Schema([Column("item_id", "int64")])
USERS = 20


def batch(number: int) -> dict[str, np.ndarray]:
    """Three events of every user."""
    users = np.repeat(np.arange(USERS), 3)
    return {"user_id": users, "ts": np.full(len(users), number), "item_id": np.arange(len(users)) + 1000 * number}


def items(store: Store) -> list[int]:
    with store.snapshot() as snapshot:
        return snapshot.read(snapshot.head(np.arange(USERS))).values("item_id").tolist()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_built_store_is_what_appends_make(tmp_path: Path) -> None:
    with Store.build(tmp_path / "built", SCHEMA, shards=3, chunk_events=4) as store:
        assert store.building
        for number in range(4):
            store.append(batch(number), backfill=True, source="s", offset=number)
        assert store.append(batch(3), backfill=True, source="s", offset=3).replayed == 3 * USERS
        assert len(items(store)) == 12 * USERS
        assert not (tmp_path / "built").exists()
    with pytest.raises(StoreClosedError):
        store.append(batch(4))
    assert names(tmp_path) == ["built"]
    with Store.open(tmp_path / "built") as built, Store.create(tmp_path / "plain", SCHEMA, 3, chunk_events=4) as plain:
        for number in range(4):
            plain.append(batch(number), backfill=True)
        assert items(built) == items(plain)
        assert built.sources() == {"s": 3}
        assert not built.building
        built.append(batch(4), backfill=True)
        with built.snapshot() as snapshot:
            assert snapshot.read(Pointers([0], [15])).lengths.tolist() == [15]


def test_an_error_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Store.build(tmp_path / "deep" / "built", SCHEMA, shards=2) as store:
        store.append(batch(0))
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_what_was_put_there_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(StoreExistsError, match="meanwhile"), Store.build(tmp_path / "s", SCHEMA, shards=2) as store:
        store.append(batch(0))
        with Store.create(tmp_path / "s", SCHEMA, shards=1) as other:
            other.append(batch(1), backfill=True)
    assert names(tmp_path) == ["s"]
    with Store.open(tmp_path / "s") as other:
        assert len(items(other)) == 3 * USERS
    with pytest.raises(StoreExistsError), Store.build(tmp_path / "s", SCHEMA):
        pass


def test_a_pickled_store_is_the_one_that_is_built(tmp_path: Path) -> None:
    with Store.build(tmp_path / "s", SCHEMA, shards=2) as store:
        with pickle.loads(pickle.dumps(store)) as other:
            assert other.building
            other.append(batch(0), backfill=True)
        assert len(items(store)) == 3 * USERS


BUILDER = """
import os, sys, time
from tests.faults.test_build import SCHEMA, batch
from uihkv import Store
with Store.build(sys.argv[1], SCHEMA, shards=2) as store:
    for number in range(int(sys.argv[2])):
        store.append(batch(number), backfill=True)
        print(number, flush=True)
"""


def test_a_killed_build_leaves_a_hidden_directory_that_the_next_build_removes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "s"), "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as builder:
        assert builder.stdout is not None
        builder.stdout.readline()
        [alive] = names(tmp_path)
        with suppress(ZeroDivisionError), Store.build(tmp_path / "s", SCHEMA, shards=1):
            assert alive in names(tmp_path)
            raise ZeroDivisionError
        builder.stdout.readline()  # it goes on
        builder.send_signal(signal.SIGKILL)
    assert alive.startswith(".s.build-")
    assert names(tmp_path) == [alive]
    with pytest.raises(StoreNotFoundError):
        Store.open(tmp_path / "s")
    with Store.build(tmp_path / "s", SCHEMA, shards=1):
        assert alive not in names(tmp_path)
    assert names(tmp_path) == ["s"]


def test_of_two_builds_at_once_one_is_published(tmp_path: Path) -> None:
    ready, failures = threading.Barrier(2), []

    def build(number: int) -> None:
        try:
            with Store.build(tmp_path / "s", SCHEMA, shards=1) as store:
                store.append(batch(number), backfill=True)
                ready.wait(60)
        except StoreExistsError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=build, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 1
    assert names(tmp_path) == ["s"]
    with Store.open(tmp_path / "s") as store:
        assert len(items(store)) == 3 * USERS


def test_a_power_cut_leaves_nothing_or_everything(tmp_path: Path) -> None:
    """Nothing is flushed until the end, and then all of it before the one rename."""
    if not can_trace():
        pytest.skip("needs strace, and a system that lets it trace")
    (tmp_path / "there").mkdir()
    steps = record(BUILDER, [str(tmp_path / "there" / "s"), "5"], tmp_path / "traces")
    publish = next(step for step in steps if step.call == "rename" and step.to == str(tmp_path / "there" / "s"))
    data = [step for step in steps if step.path.endswith("data.mdb") and step.path.startswith(publish.path)]
    writes = [step for step in data if step.call == "write"]
    assert len({step.path for step in writes}) == 2
    assert all(step.end <= publish.begin for step in data)
    for path in {step.path for step in writes}:
        of_file = [step for step in data if step.path == path]
        assert [step.call for step in of_file].count("sync") == 1
        assert of_file[-1].call == "sync"
    (tmp_path / "before").mkdir()
    done = steps[: steps.index(publish)]
    cut(tmp_path / "before", Path(publish.path), done, publish.begin, tmp_path / "disk", random.Random(1))
    with Store.open(tmp_path / "disk") as store:
        assert len(items(store)) == 15 * USERS


def test_a_directory_that_only_looks_like_a_build_stays(tmp_path: Path) -> None:
    (tmp_path / ".s.build-file").write_text("mine")
    (tmp_path / ".s[1].build-x").mkdir()
    with Store.build(tmp_path / "s", SCHEMA, shards=1):
        pass
    assert names(tmp_path) == [".s.build-file", ".s[1].build-x", "s"]
    with pytest.raises(FormatError):
        Store.open(tmp_path / ".s.build-file")


def test_what_a_killed_process_left_beside_a_file_goes_with_the_next_write(tmp_path: Path) -> None:
    target = tmp_path / "slim.parquet"
    (tmp_path / ".slim.parquet.mine").write_text("mine")
    (tmp_path / ".slim.parquet.0123abcd").write_bytes(b"PAR1")
    schema = pa.schema([("version", pa.int64())])
    with owned_file(target) as (alive, _), write_aside(target, schema, force=False) as writer:
        assert alive.exists()
        assert not (tmp_path / ".slim.parquet.0123abcd").exists()
        writer.write_table(pa.table({"version": [1]}))
    assert names(tmp_path) == [".slim.parquet.mine", "slim.parquet"]
    with pytest.raises(ZeroDivisionError), write_aside(target, schema, force=True):
        raise ZeroDivisionError
    assert names(tmp_path) == [".slim.parquet.mine", "slim.parquet"]
    assert pq.read_table(target)["version"].to_pylist() == [1]
