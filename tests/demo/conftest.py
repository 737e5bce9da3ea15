"""The full-size demo's log, store and examples, made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from loader.demo.eventlog import EventLog, copy_log, read_log, store_log
from loader.demo.examples import Requests, pick_requests, split_time, write_examples
from loader.demo.run import Settings
from uihkv import Store


@dataclass(frozen=True)
class FullDemo:
    log: EventLog
    log_path: Path
    store: Store
    split: int
    earlier: Requests
    later: Requests
    train: Path
    evaluate: Path


@pytest.fixture(scope="session")
def full_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullDemo]:
    folder = tmp_path_factory.mktemp("full-demo")
    log_path = copy_log(folder / "events.parquet")
    log = read_log(log_path)
    split = split_time(log)
    every = Settings(folder).every
    earlier, later = pick_requests(log, every, end=split), pick_requests(log, every, start=split)
    train, evaluate = folder / "train.parquet", folder / "evaluate.parquet"
    with store_log(log_path, folder / "store", lambda at: None) as store:
        with store.snapshot() as snapshot:
            write_examples(snapshot, earlier, train)
            write_examples(snapshot, later, evaluate)
        yield FullDemo(log, log_path, store, split, earlier, later, train, evaluate)
