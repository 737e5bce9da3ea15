"""A writer that is killed now and then, a serving process and a streaming trainer on one store; batches later."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loader import Loader, ParquetExamples
from tests.integration.roles import BATCHES, SCHEMA, WANTED, digests, event_batch
from uihkv import Store


def start(role: str, path: Path, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.integration.roles", role, path], **streams)


def test_served_streamed_and_batch_sequences_are_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "store"
    Store.create(path, SCHEMA, shards=3, chunk_events=16).close()
    log, trained_log = tmp_path / "served.jsonl", tmp_path / "trained.jsonl"
    with trained_log.open("wb") as trained_file, Store.open(path) as store:
        serving = start("serve", path, stdout=subprocess.PIPE)
        tee = subprocess.Popen(["tee", log], stdin=serving.stdout, stdout=subprocess.PIPE)
        training = start("train", path, stdin=tee.stdout, stdout=trained_file)
        assert serving.stdout is not None and tee.stdout is not None
        serving.stdout.close()
        tee.stdout.close()
        crashes = 0
        while True:
            writer = start("write", path)
            if crashes < 3:
                time.sleep(2.0 + 0.3 * crashes)
                writer.kill()
                crashes += writer.wait() != 0
                store.seal()
                store.compact()
            elif writer.wait() == 0:
                break
            if writer.returncode == 0:
                break
        assert serving.wait(60) == 0
        assert training.wait(120) == 0
        assert tee.wait(10) == 0
    served = [json.loads(line) for line in log.read_text().splitlines()]
    *trained, told = [json.loads(line) for line in trained_log.read_text().splitlines()]
    assert told["examples"] == len(served) == len(trained) > 50
    assert {one["row"]: one["trained"] for one in trained} == {one["row"]: one["served"] for one in served}
    assert len({one["version"] for one in served}) > 10

    expected = np.concatenate([event_batch(number)["user_id"] for number in range(BATCHES)])
    with Store.open(path) as store:
        store.compact()
        users, counts = np.unique(expected, return_counts=True)
        with store.snapshot() as snapshot:
            assert snapshot.head(users).version.tolist() == counts.tolist()  # nothing lost, nothing twice
        store.append({**event_batch(10**6), "ts": event_batch(10**6)["ts"] * 0})  # and the store goes on
        pq.write_table(pa.Table.from_pylist(served), tmp_path / "served.parquet")
        later = {}
        with Loader(store, ParquetExamples(tmp_path / "served.parquet"), WANTED, batch_size=32, seed=3) as loader:
            for batch in loader:
                history = batch.history
                values = {name: history[name].values.numpy() for name in history}
                found = digests(values, history.offsets.numpy())
                later |= dict(zip(batch.examples["row"].tolist(), found, strict=True))
    assert later == {one["row"]: one["served"] for one in served}
