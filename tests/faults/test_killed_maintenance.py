"""SIGKILL at any moment of sealing, compacting, trimming: the store opens, verifies, and holds what was journaled."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from uihkv import Column, Projection, Schema, Store

SCHEMA = Schema([Column("item_id", "int64")])
USERS = 12
EVENTS = 3

_WORKER = """
import sys
import numpy as np
from tests.faults.test_killed_maintenance import EVENTS, USERS, batch
from uihkv import CompactionPolicy, Store
with Store.open(sys.argv[1]) as store:
    first = int(sys.argv[2])
    while True:
        store.append(batch(first), backfill=True, source="w", offset=first)
        first += EVENTS
        print("head", first, flush=True)
        store.seal()
        base = max(0, first - 50)
        print("trimming", base, flush=True)
        store.trim(np.arange(0, USERS, 2), np.full(USERS // 2, base))
        print("trimmed", base, flush=True)
        store.compact(CompactionPolicy(transaction_events=20))
"""


def batch(first: int) -> dict[str, np.ndarray]:
    """Three events of every user; the item is the event's version."""
    version = np.repeat(np.arange(first, first + EVENTS), USERS)
    return {"user_id": np.tile(np.arange(USERS), EVENTS), "ts": 1000 + version, "item_id": version}


def test_a_killed_process_leaves_what_it_journaled(tmp_path: Path) -> None:
    path = tmp_path / "store"
    Store.create(path, SCHEMA, shards=2, chunk_events=8).close()
    chance = random.Random(0)
    head = trimming = trimmed = 0
    for _ in range(5):
        command = [sys.executable, "-c", _WORKER, str(path), str(head)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            lines = [worker.stdout.readline() for _ in range(chance.randrange(3, 60))]
            time.sleep(chance.random() * 0.01)
            worker.send_signal(signal.SIGKILL)
            lines += worker.stdout.read().splitlines()
        for word, number in (line.split() for line in lines if line.strip()):
            if word == "head":
                head = int(number)
            elif word == "trimming":
                trimming = int(number)
            else:
                trimmed = int(number)
        with Store.open(path) as store, store.snapshot() as snapshot:
            report = store.verify(isolated=False)
            assert report.ok, report.problems
            heads = snapshot.head(np.arange(USERS))
            assert set(heads.version.tolist()) <= {head, head + EVENTS}
            left = snapshot.read(heads, Projection(["item_id"]), on_trimmed="truncate")
            for user, version in enumerate(heads.version.tolist()):
                items = left.values("item_id")[slice(*left.offsets[user : user + 2].tolist())].tolist()
                base = version - len(items)
                assert items == list(range(base, version))
                assert base in (trimmed, trimming) if user % 2 == 0 else base == 0
