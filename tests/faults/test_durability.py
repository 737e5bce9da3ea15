"""What an append that returned may lose: at the death of its process nothing, at a power cut what its level says."""

from __future__ import annotations

import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from perf.powercut import Step, can_trace, cut, record, said
from uihkv import Column, Schema, SchemaError, Store

SCHEMA = Schema([Column("item_id", "int64")])
LEVELS = ("sync", "relaxed")
USERS = 12
BATCHES = 14


def some_users(number: int) -> np.ndarray:
    """Users of a batch: some shards have rows in it and some have none."""
    return np.random.default_rng(number).choice(USERS, 1 + number % 4, replace=False)


def batch(number: int) -> dict[str, np.ndarray]:
    """Two events of each of the batch's users; the item is the batch's number."""
    users = np.repeat(some_users(number), 2)
    return {"user_id": users, "ts": np.full(len(users), 1000 + number), "item_id": np.full(len(users), number)}


def expected(user: int, batches: int) -> list[int]:
    return [number for number in range(batches) if user in some_users(number) for _ in range(2)]


def histories(store: Store) -> list[list[int]]:
    with store.snapshot() as snapshot:
        found = snapshot.read(snapshot.head(np.arange(USERS)))
        bounds = found.offsets.tolist()
        items = found.values("item_id").tolist()
    return [items[low:high] for low, high in pairwise(bounds)]


WRITER = """
import os, sys
from tests.faults.test_durability import batch
from uihkv import Store
path, level, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with Store.open(path, durability=level) as store:
    for number in range(first, last):
        store.append(batch(number), backfill=True, source="w", offset=number)
        os.write(1, b"%d\\n" % number)
    os._exit(0)  # not by close, which makes durable what is left
"""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A store with one batch, closed."""
    with Store.create(tmp_path / "store", SCHEMA, shards=4, chunk_events=4) as store:
        store.append(batch(0), backfill=True, source="w", offset=0)
    return tmp_path / "store"


@pytest.mark.parametrize("level", LEVELS)
def test_a_killed_process_loses_nothing_that_was_acknowledged(made: Path, level: str) -> None:
    done = 1
    for round_number in range(3):
        command = [sys.executable, "-c", WRITER, str(made), level, str(done), "1000000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(3 + 7 * round_number):
                done = int(writer.stdout.readline()) + 1
            time.sleep(0.001 * round_number)
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split()
            done = int(rest[-1]) + 1 if rest else done
        with Store.open(made) as store:
            assert store.sources()["w"] in (done - 1, done)
            store.append(batch(done), backfill=True, source="w", offset=done)
            done += 1
            assert histories(store) == [expected(user, done) for user in range(USERS)]


Recording = tuple[Path, Path, list[Step]]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    """For each level: a store as it was before a writer, where the writer found it, and all that it did."""
    if not can_trace():
        pytest.skip("needs strace, and a system that lets it trace")
    found = {}
    for level in LEVELS:
        folder = tmp_path_factory.mktemp(level)
        with Store.create(folder / "store", SCHEMA, shards=4, chunk_events=4) as store:
            store.append(batch(0), backfill=True, source="w", offset=0)
        shutil.copytree(folder / "store", folder / "before")
        steps = record(WRITER, [str(folder / "store"), level, "1", str(BATCHES)], folder / "traces")
        mine = [step for step in steps if step.path.endswith("data.mdb") or step.call == "say"]
        found[level] = (folder / "before", folder / "store", mine)
    return found


def unflushed(steps: list[Step]) -> list[Step]:
    """The writes of these steps that no later flush of their file covers."""
    left: list[Step] = []
    for step in steps:
        if step.call == "sync":
            left = [write for write in left if write.path != step.path]
        elif step.call == "write" and not step.durable:
            left.append(step)
    return left


def test_a_sync_append_leaves_nothing_unflushed_and_a_relaxed_one_a_meta_page_a_shard(
    recordings: dict[str, Recording],
) -> None:
    flushes = {}
    for level, (_, _, steps) in recordings.items():
        flushes[level] = sum(step.call == "sync" or step.durable for step in steps)
        for index, step in enumerate(steps):
            if step.call == "say":
                left = unflushed(steps[:index])
                if level == "sync":
                    assert left == []
                else:
                    assert all(write.offset < 2 * 4096 and len(write.data) < 4096 for write in left)
                    assert len({write.path for write in left}) == len(left)
    assert flushes["relaxed"] * 2 == flushes["sync"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_power_cut_loses_what_the_level_says_and_a_replay_makes_up_for_it(
    recordings: dict[str, Recording], tmp_path: Path, level: str
) -> None:
    """At any moment: every history is a prefix, and going on behind ``sources()`` stores each event once."""
    before, where, steps = recordings[level]
    rng = random.Random(3)
    lost_some = False
    for number, step in enumerate(rng.choices(steps, k=32)):
        moment, disk = rng.choice([step.begin, step.end]), tmp_path / f"{number}"
        cut(before, where, steps, moment, disk, rng)
        acknowledged = len(said(steps, moment)) + 1
        with Store.open(disk, durability="relaxed") as store:
            found = histories(store)
            for user, items in enumerate(found):
                whole, known = expected(user, BATCHES), expected(user, acknowledged)
                assert items == whole[: len(items)]
                assert level == "relaxed" or len(items) >= len(known)
                lost_some |= len(items) < len(known)
            done = store.sources().get("w", -1)
            assert all(len(items) >= len(expected(user, done + 1)) for user, items in enumerate(found))
            assert done >= acknowledged - 1 or (level == "relaxed" and done >= 0)
            for again in range(done + 1, BATCHES):
                store.append(batch(again), backfill=True, source="w", offset=again)
            assert histories(store) == [expected(user, BATCHES) for user in range(USERS)]
            assert store.sources() == {"w": BATCHES - 1}
        shutil.rmtree(disk)
    assert lost_some is (level == "relaxed")


def test_a_pickled_store_keeps_its_level(made: Path) -> None:
    for level in LEVELS:
        with Store.open(made, durability=level) as store, pickle.loads(pickle.dumps(store)) as other:
            assert (store.durability, other.durability) == (level, level)


def test_another_level_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="sync, relaxed"):
        Store.open(made, durability="fast")
    with pytest.raises(SchemaError, match="sync, relaxed"):
        Store.create(tmp_path / "other", SCHEMA, durability="none")
    assert not (tmp_path / "other").exists()


def test_a_relaxed_append_that_was_synced_is_visible_and_counted_like_any_other(made: Path) -> None:
    with Store.open(made, durability="relaxed") as store:
        store.append(batch(1), backfill=True, source="w", offset=1)
        store.sync()
        assert store.sources() == {"w": 1}
    with Store.open(made) as store:
        assert store.append(batch(1), backfill=True, source="w", offset=1).replayed == len(batch(1)["ts"])
        assert histories(store) == [expected(user, 2) for user in range(USERS)]
