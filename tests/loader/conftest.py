"""A small real store, a plain-Python model of its histories, and examples that point into it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loader import ArrayExamples
from uihkv import Column, Pointers, Schema, Snapshot, Store

USERS = 12
EXAMPLES = 53


@dataclass(frozen=True)
class World:
    """A store and what it must say."""

    store: Store
    log: dict[int, list[dict[str, Any]]]
    columns: dict[str, Any]

    @property
    def examples(self) -> ArrayExamples:
        return ArrayExamples(self.columns)

    def window(self, example: int, column: str, max_len: int | None) -> list[Any]:
        """The model's answer: the newest ``max_len`` events of the example's prefix."""
        prefix = self.log.get(int(self.columns["user_id"][example]), [])[: int(self.columns["version"][example])]
        return [event[column] for event in (prefix if max_len is None else prefix[-max_len:])]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Users with 0, 1 and many events, three appends, examples at random versions."""
    rng = np.random.default_rng(5)
    schema = Schema(
        [
            Column("item_id", "int64"),
            Column("surface", "uint16"),
            Column("tags", "int32", ragged=True),
            Column("vec", "float32", shape=(2,)),
        ]
    )
    store = Store.create(tmp_path_factory.mktemp("world") / "store", schema, shards=3, chunk_events=8)
    log: dict[int, list[dict[str, Any]]] = {}
    for step in range(3):
        n = 60
        user = np.concatenate([rng.integers(2, USERS, n - 1), [1]]) if step == 0 else rng.integers(2, USERS, n)
        data = {
            "user_id": user,
            "ts": 1000 * step + np.arange(n) - rng.integers(0, 500, n) * (rng.random(n) < 0.2) + 500,
            "item_id": rng.integers(0, 10**12, n),
            "surface": rng.integers(0, 2**16, n).astype(np.uint16),
            "tags": [rng.integers(0, 99, rng.integers(0, 4)).astype(np.int32) for _ in range(n)],
            "vec": rng.random((n, 2)).astype(np.float32),
        }
        store.append(data)
        for row in range(n):
            event = {name: data[name][row] for name in ("ts", "item_id", "surface", "tags", "vec")}
            log.setdefault(int(user[row]), []).append(event)
    user_id = rng.integers(0, USERS, EXAMPLES)
    version = np.array([rng.integers(0, len(log.get(int(user), [])) + 1) for user in user_id])
    last_ts = [log[int(u)][int(v) - 1]["ts"] if v else 0 for u, v in zip(user_id, version, strict=True)]
    columns = {
        "user_id": user_id,
        "version": version,
        "last_ts": np.array(last_ts, np.int64),
        "label": rng.integers(0, 2, EXAMPLES).astype(np.float32),
        "row": np.arange(EXAMPLES),
        "candidate": rng.random((EXAMPLES, 3)),
    }
    with store:
        yield World(store, log, columns)


@pytest.fixture
def snapshots(monkeypatch: pytest.MonkeyPatch) -> list[Snapshot]:
    """Every snapshot that a test's loaders take."""
    taken: list[Snapshot] = []
    take = Store.snapshot

    def snapshot(self: Store, **options: Any) -> Snapshot:
        taken.append(take(self, **options))
        return taken[-1]

    monkeypatch.setattr(Store, "snapshot", snapshot)
    return taken


def loader_threads() -> list[str]:
    """Names of the loader's threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("uihkv-loader")]


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Every test here ends without a thread of the loader."""
    yield
    deadline = time.monotonic() + 5
    while loader_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loader_threads() == []


def is_closed(snapshot: Snapshot) -> bool:
    """Whether a snapshot refuses to read."""
    from uihkv import StoreClosedError

    try:
        snapshot.read(Pointers([2], [0]))
    except StoreClosedError:
        return True
    return False


@pytest.fixture
def parquet(world: World, tmp_path: Path) -> Path:
    """The examples as a Parquet file of several row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: list(array) if array.ndim > 1 else array for name, array in world.columns.items()}
    path = tmp_path / "examples.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=20)
    return path
