"""Whatever moment the power goes, or the process is killed: nothing acknowledged is lost, nothing is there twice.

One real run is recorded (:mod:`perf.powercut`), and the store opened as each of many moments may have left it.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perf.powercut import Step, can_trace, cut, record, said
from uihkv import Column, Schema, Store

pytestmark = pytest.mark.skipif(not can_trace(), reason="needs strace, and a system that lets it trace")

SCHEMA = Schema([Column("item_id", "int64"), Column("tags", "int32", ragged=True)])
BATCHES = 24
USERS = 6
CUTS = 40


def batch(number: int) -> dict[str, Any]:
    """The events of a batch: the same whenever it is asked for."""
    rng = np.random.default_rng(number)
    n = int(rng.integers(1, 40))
    return {
        "user_id": rng.integers(0, USERS, n),
        "ts": 1000 * number + np.arange(n),
        "item_id": rng.integers(0, 2**40, n),
        "tags": [rng.integers(0, 9, rng.integers(0, 4)).astype(np.int32) for _ in range(n)],
    }


APPENDING = """
import os, sys
from tests.faults.test_power_cuts import BATCHES, batch
from uihkv import Store
with Store.open(sys.argv[1]) as store:
    for number in range(1, BATCHES + 1):
        store.append(batch(number), backfill=True, source="log", offset=number)
        os.write(1, b"%d\\n" % number)
"""

Content = dict[int, list[tuple[int, int, list[int]]]]


def content(store: Store) -> Content:
    """Every event of every user, as plain values."""
    with store.snapshot(verify="always") as snapshot:
        users = snapshot.users()
        found = snapshot.read(snapshot.head(users))
    inner = found.element_offsets("tags")
    assert inner is not None
    events = [
        (ts, item, found.values("tags")[low:high].tolist())
        for ts, item, low, high in zip(
            found.values("ts").tolist(), found.values("item_id").tolist(), inner[:-1].tolist(), inner[1:].tolist(),
            strict=True,
        )
    ]  # fmt: skip
    bounds = found.offsets.tolist()
    rows = {int(user): events[bounds[i] : bounds[i + 1]] for i, user in enumerate(users)}
    return {user: row for user, row in rows.items() if row}


def expected(until: int) -> Content:
    """What a store holds after so many batches."""
    histories: Content = {}
    for number in range(1, until + 1):
        rows = batch(number)
        for user, ts, item, tags in zip(
            rows["user_id"].tolist(), rows["ts"].tolist(), rows["item_id"].tolist(), rows["tags"], strict=True
        ):
            histories.setdefault(user, []).append((ts, item, tags.tolist()))
    return histories


def make_store(path: Path, shards: int = 2) -> None:
    Store.create(path, SCHEMA, shards=shards, chunk_events=16).close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Step]]:
    """A store before a run of appends, where the run found it, and what the run did to the disk."""
    folder = tmp_path_factory.mktemp("recorded")
    make_store(folder / "store")
    shutil.copytree(folder / "store", folder / "before")
    steps = record(APPENDING, [str(folder / "store")], folder / "traces")
    assert said(steps, float("inf")) == [str(number) for number in range(1, BATCHES + 1)]
    with Store.open(folder / "store") as store:
        assert content(store) == expected(BATCHES)
    return folder / "before", folder / "store", steps


def moments(steps: list[Step], where: Path, count: int, rng: random.Random) -> list[float]:
    """Moments of the run: between two steps, and in the midst of one."""
    mine = [step for step in steps if step.path.startswith(str(where)) and step.call != "create"]
    assert len(mine) > 4 * BATCHES
    return [rng.choice([step.begin, step.end, (step.begin + step.end) / 2]) for step in rng.choices(mine, k=count)]


@pytest.mark.parametrize("power", ["cut", "stays"])
def test_whenever_an_append_is_cut_off(recorded: tuple[Path, Path, list[Step]], tmp_path: Path, power: str) -> None:
    before, where, steps = recorded
    rng = random.Random(7)
    seen = set()
    for number, moment in enumerate(moments(steps, where, CUTS, rng)):
        path = tmp_path / f"{number}"
        cut(before, where, steps, moment, path, rng if power == "cut" else None)
        acknowledged = len(said(steps, moment))
        with Store.open(path) as store:
            found = content(store)
            done = store.sources().get("log", 0)
            assert acknowledged <= done <= acknowledged + 1
            least, most = expected(acknowledged), expected(acknowledged + 1)
            for user, events in most.items():  # each user has a batch whole, or not at all
                assert found.get(user, []) in (least.get(user, []), events)
            assert done == acknowledged or found == most
            for again in range(1, BATCHES + 1):
                store.append(batch(again), backfill=True, source="log", offset=again)
            assert content(store) == expected(BATCHES)
        seen.add((acknowledged, found == least))
        shutil.rmtree(path)
    assert len(seen) > BATCHES // 2  # the cuts fell into many batches, before and after they were there
