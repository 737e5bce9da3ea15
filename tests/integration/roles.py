"""The processes of :mod:`tests.integration.test_three_processes`: ``python -m tests.integration.roles ROLE STORE``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from uihkv import Column, Histories, Projection, Schema, Store

SCHEMA = Schema([Column("item_id", "int64"), Column("kind", "uint8"), Column("dwell", "float32")])
USERS = 40
BATCHES = 120
WANTED = Projection(["ts", "item_id", "kind", "dwell"], max_len=64)


def event_batch(number: int) -> dict[str, Any]:
    """The same events whenever it is asked: what a writer reads again after a crash."""
    rng = np.random.default_rng([11, number])
    n = int(rng.integers(1, 40))
    late = rng.integers(0, 5000, n) * (rng.random(n) < 0.3)
    return {
        "user_id": (rng.pareto(1.0, n) * 3).astype(np.int64) % USERS, "ts": 100_000 + 50 * number - late,
        "item_id": rng.integers(0, 10**9, n), "kind": rng.integers(0, 9, n).astype(np.uint8),
        "dwell": rng.random(n).astype(np.float32),
    }  # fmt: skip


def digests(values: dict[str, np.ndarray], offsets: np.ndarray) -> list[int]:
    """A hash of the bytes of each sequence, that fits int64."""
    found = []
    for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        digest = xxhash.xxh3_64()
        for name in sorted(values):
            digest.update(values[name][low:high].tobytes())
        found.append(digest.intdigest() >> 1)
    return found


def digests_of(histories: Histories) -> list[int]:
    return digests({name: histories.values(name) for name in histories}, histories.offsets)


def write(path: Path) -> None:
    """Append batch after batch from where the store is; started again after every crash."""
    with Store.open(path) as store:
        for number in range(store.sources().get("log", 0), BATCHES):
            store.append(event_batch(number), source="log", offset=number + 1)
            time.sleep(0.005)


def serve(path: Path) -> None:
    """Answer requests until the writer is done, and log an example each as a line."""
    from uihkv.serving import HistoryReader

    rng = np.random.default_rng(5)
    row = 0
    with Store.open(path, readonly=True) as store, HistoryReader(store, refresh_s=0.01) as reader:
        while True:
            done = store.sources().get("log", 0) >= BATCHES
            users = rng.integers(0, USERS + 1, int(rng.integers(1, 6)))
            as_of = int(time.time() * 1000)
            histories, pointers = reader.read(users, WANTED)
            assert pointers.last_ts is not None
            for place, digest in enumerate(digests_of(histories)):
                line = {
                    "user_id": int(users[place]), "version": int(pointers.version[place]),
                    "last_ts": int(pointers.last_ts[place]), "row": row, "served": digest, "as_of": as_of,
                }  # fmt: skip
                print(json.dumps(line), flush=True)
                row += 1
            if done:
                return
            time.sleep(0.002)


def train(path: Path) -> None:
    """Train on the lines as they come; print what each example's sequence was."""
    from loader import JsonLines, Loader, StreamExamples

    with Store.open(path, readonly=True) as store:
        stream = StreamExamples(JsonLines(sys.stdin), deadline_s=60, linger_s=0.05)
        with Loader(store, stream, WANTED, batch_size=16) as loader:
            for batch in loader:
                history = batch.history
                values = {name: history[name].values.numpy() for name in history}
                found = digests(values, history.offsets.numpy())
                for row, digest in zip(batch.examples["row"].tolist(), found, strict=True):
                    print(json.dumps({"row": row, "trained": digest}), flush=True)
            freshness = loader.stats().freshness
    assert freshness is not None
    print(json.dumps({"examples": loader.stats().examples, "p99": freshness.request.p99}))


if __name__ == "__main__":
    {"write": write, "serve": serve, "train": train}[sys.argv[1]](Path(sys.argv[2]))
