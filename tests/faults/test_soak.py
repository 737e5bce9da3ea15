"""A few seconds of the soak lose nothing; and its processes notice a loss, a repetition and a wrong event."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from loader import ArrayExamples, Loader
from perf.soak import workers_of_loaders
from perf.soakfeeds import finish_pass
from perf.soakjournal import (
    LOST,
    SCHEMA,
    TWICE,
    USERS,
    WRONG,
    Journal,
    Progress,
    SoakError,
    batch,
    check_filed_heads,
    check_heads,
    check_newest,
    check_store,
)
from uihkv import Projection, Store

ROOT = Path(__file__).parents[2]


def test_killed_at_random_moments_nothing_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perf.soak", "--minutes", "0.1", "--out", str(tmp_path), "--seed", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "soak.json").read_text())
    rows = [row for section in report["sections"] for row in section["rows"] if "what" in row]
    tables = {row["what"]: row for row in rows}
    times = Counter[str]()
    for row in rows:
        times[row["what"]] += row.get("times", 0)
    assert sum(report["facts"]["kills"].values()) > 5
    assert times["appends acknowledged"] > 10
    assert times["histories compared"] > 100
    assert times["files ingested"] > 0
    assert tables["acknowledged events lost"]["found"] == 0
    assert tables["reader slots of killed processes left behind"]["found"] == 0


def filled(path: Path, batches: list[int]) -> Store:
    store = Store.create(path, SCHEMA, shards=2, chunk_events=16)
    for number in batches:
        store.append(batch(number), backfill=True)
    return store


def test_what_is_not_as_it_was_is_found(tmp_path: Path) -> None:
    for name, batches, kind in (("lost", [1, 2, 4, 5], LOST), ("twice", [1, 2, 2, 3, 4, 5], TWICE)):
        with filled(tmp_path / name, batches) as store, store.snapshot() as snapshot:
            with pytest.raises(SoakError) as found:
                check_heads(snapshot.head(USERS).version, 5, 5)
            assert found.value.kind == kind
    with filled(tmp_path / "wrong", [2, 1, 3, 4, 5]) as store, store.snapshot() as snapshot:
        check_heads(snapshot.head(USERS).version, 5, 5)
        check_newest(snapshot, snapshot.head(USERS))  # other users: their order does not matter
        rows = batch(6)
        store.append({**rows, "kind": rows["kind"] + np.uint8(1)}, backfill=True)
        with store.snapshot() as newer, pytest.raises(SoakError) as found:
            check_newest(newer, newer.head(USERS))
        assert found.value.kind == WRONG
    journal = Journal(tmp_path / "journal")
    journal["batches begun"] = 3
    with filled(tmp_path / "right", [1, 2, 3]) as store, pytest.raises(SoakError, match="sources"):
        check_store(store, Progress(3, 0), journal)  # no source was given
    for heads, kind in (([4, 3], LOST), ([4, 7], TWICE)):
        with pytest.raises(SoakError) as found:
            check_filed_heads(np.array(heads), 2, 3)
        assert found.value.kind == kind


def test_an_example_that_a_pass_left_out_is_found(tmp_path: Path) -> None:
    rows = np.arange(960)
    examples = {"user_id": rows % 4, "version": rows * 0, "row": rows}
    log = tmp_path / "log"
    journal = Journal(tmp_path / "journal")
    with filled(tmp_path / "store", [1, 2]) as store:
        finish_pass(store, journal, log, examples, workers=0, rest=lambda: None)
        lines = log.read_text().splitlines()
        log.write_text("\n".join([*lines[:5], *lines[6:]]))
        with pytest.raises(SoakError, match="928"):
            finish_pass(store, journal, log, examples, workers=0, rest=lambda: None)


def test_workers_of_loaders_are_seen(tmp_path: Path) -> None:
    """Else none of them would be killed, and none that is left behind be found."""
    with filled(tmp_path / "store", [1, 2]) as store:
        examples = ArrayExamples({"user_id": [0, 1], "version": [0, 0]})
        with Loader(store, examples, Projection(["item_id"]), num_workers=1) as loader:
            assert len(list(loader)) == 1
            assert [parent for _, parent in workers_of_loaders() if parent == os.getpid()] == [os.getpid()]
    assert os.getpid() not in [parent for _, parent in workers_of_loaders()]
