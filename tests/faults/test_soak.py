"""A few seconds of the soak lose nothing; and its processes notice a loss, a repetition and a wrong event."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from perf.soakroles import LOST, SCHEMA, TWICE, USERS, WRONG, SoakError, batch, check_heads, check_newest, check_store
from uihkv import Store

ROOT = Path(__file__).parents[2]


def test_killed_at_random_moments_nothing_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perf.soak", "--minutes", "0.1", "--out", str(tmp_path), "--seed", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "soak.json").read_text())
    tables = {row["what"]: row for section in report["sections"] for row in section["rows"] if "what" in row}
    assert sum(report["facts"]["kills"].values()) > 5
    assert tables["batches acknowledged"]["times"] > 10
    assert tables["histories compared"]["times"] > 100
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
    with filled(tmp_path / "right", [1, 2, 3]) as store, pytest.raises(SoakError, match="sources"):
        check_store(store, 3, 3)  # no source was given
