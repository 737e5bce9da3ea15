"""Trainers in processes of their own and a process that ingests share a store, and none sees anything of the others."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loader import Loader, ParquetExamples
from perf.killed import digest_batch
from perf.workloads import Workload, build_store, make_log
from uihkv import Projection, Store

PROJECTIONS: dict[str, dict[str, Any]] = {
    "long": {"columns": None, "max_len": 512},
    "few": {"columns": ["ts", "item_id"], "max_len": 64, "where": {"action": {0, 1}}},
}
EPOCHS = 3

TRAIN = """
import ast, sys
from loader import Loader, ParquetExamples
from perf.killed import digest_batch
from uihkv import Projection, Store
store, examples, told = sys.argv[1:]
told = ast.literal_eval(told)
with (
    Store.open(store, readonly=True) as opened,
    Loader(opened, ParquetExamples(examples), Projection(**told["projection"]), **told["options"]) as loader,
):
    print("ready", flush=True)
    sys.stdin.readline()
    for epoch in range(told["epochs"]):
        loader.set_epoch(epoch)
        for batch in loader:
            print(digest_batch(batch))
"""

INGEST = """
import select, sys
import numpy as np
from uihkv import Store
users = np.load(sys.argv[2])
with Store.open(sys.argv[1]) as store:
    count = 0
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        some = users[count * 7 % len(users) :][:8]
        n = len(some)
        ts = np.full(n, 1_900_000_000_000 + count)
        store.append({
            "user_id": some, "ts": ts, "item_id": np.full(n, count), "action": np.zeros(n, np.uint8),
            "surface": np.zeros(n, np.uint8), "dwell": np.zeros(n, np.float32),
        })
        count += 1
        if count % 40 == 0:
            store.compact()
    print(count)
"""


def options(workers: int, dedup: bool = False) -> dict[str, Any]:
    return {"batch_size": 32, "seed": 2, "num_workers": workers, "dedup": dedup}


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1])
def test_trainers_at_once_get_what_each_gets_alone(tmp_path: Path, workers: int) -> None:
    log = make_log(Workload(users=80, mean_length=400), 4)
    rng = np.random.default_rng(4)
    user = rng.integers(0, len(log.users), 1_000)
    version = (rng.random(len(user)) * (log.lengths[user] + 1)).astype(np.int64)
    table = {"user_id": log.users[user], "version": version, "label": rng.random(len(user))}
    pq.write_table(pa.table(table), tmp_path / "examples.parquet")
    np.save(tmp_path / "users.npy", log.users)
    expected: dict[str, list[str]] = {}
    with build_store(tmp_path / "store", log, shards=2, chunk_events=64) as store:
        for name, wanted in PROJECTIONS.items():
            rows = ParquetExamples(tmp_path / "examples.parquet")
            with Loader(store, rows, Projection(**wanted), **options(0)) as loader:
                expected[name] = []
                for epoch in range(EPOCHS):
                    loader.set_epoch(epoch)
                    expected[name] += map(digest_batch, loader)
    trainers = {}
    for name, wanted in PROJECTIONS.items():
        told = {"projection": wanted, "options": options(workers, name == "few"), "epochs": EPOCHS}
        trainers[name] = start(TRAIN, tmp_path / "store", tmp_path / "examples.parquet", repr(told))
    ingest = start(INGEST, tmp_path / "store", tmp_path / "users.npy")
    for process in (*trainers.values(), ingest):
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in trainers.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for name, process in trainers.items():
        digests = process.communicate(timeout=120)[0].split()
        assert process.returncode == 0
        assert digests == expected[name]
    assert ingest.poll() is None
    appended = int(ingest.communicate("end\n", timeout=60)[0])
    assert ingest.returncode == 0 and appended > 10
    with Store.open(tmp_path / "store") as store:
        assert store.verify(isolated=False).ok
        until = time.monotonic() + 5
        while store.stats().readers and time.monotonic() < until:
            time.sleep(0.05)
        assert store.stats().readers == 0
