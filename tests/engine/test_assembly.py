"""A store put together of shards that others built: all of it at once, or nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from uihkv import Column, IngestError, Schema, SchemaError, Store, StoreExistsError, StoreNotFoundError

SCHEMA = Schema([Column("item_id", "int64")], user_id="string")
NAMES = np.array([f"user {number % 40}" for number in range(400)])
ROWS = {"user_id": NAMES, "ts": np.arange(400), "item_id": np.arange(400) * 7}


def rows_of(store: Store, number: int) -> dict[str, np.ndarray]:
    mine = store.shard_of(ROWS["user_id"]) == number
    return {name: column[mine] for name, column in ROWS.items()}


def histories(path: Path) -> dict[str, list[int]]:
    with Store.open(path, readonly=True) as store, store.snapshot() as snapshot:
        assert store.verify().ok
        users = np.unique(NAMES)
        found = snapshot.read(snapshot.head(users))
        values, offsets = found["item_id"]
        return {name: values[a:b].tolist() for name, a, b in zip(users, offsets, offsets[1:], strict=False)}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_shards_built_apart_make_the_store_that_appends_make(tmp_path: Path, elsewhere: bool) -> None:
    scratch = tmp_path / "scratch" if elsewhere else None
    if scratch is not None:
        scratch.mkdir()
    with Store.assemble(tmp_path / "store", SCHEMA, shards=3, chunk_events=4) as assembly:
        for number in (2, 0, 1, 0):  # 0 twice: the second attempt changes nothing
            with Store.build_shard(assembly, number, scratch) as store:
                store.append(rows_of(store, number), backfill=True)
        assert not (tmp_path / "store").exists()
    with Store.create(tmp_path / "plain", SCHEMA, 3, chunk_events=4) as store:
        store.append(ROWS, backfill=True)
    assert histories(tmp_path / "store") == histories(tmp_path / "plain")
    assert sorted(its.name for its in tmp_path.iterdir()) == ["plain", *(["scratch"] if elsewhere else []), "store"]
    assert sorted(its.name for its in (tmp_path / "store").iterdir()) == ["manifest.msgpack", "shards"]
    with Store.open(tmp_path / "store") as store:
        assert store.append(ROWS, backfill=True).appended == 400


def test_a_store_without_all_its_shards_does_not_appear(tmp_path: Path) -> None:
    with (  # noqa: SIM117
        pytest.raises(IngestError, match=r"2 of 3 shards were not built \(0000, 0002\)"),
        Store.assemble(tmp_path / "store", SCHEMA, shards=3) as assembly,
    ):
        with Store.build_shard(assembly, 1) as store:
            store.append(rows_of(store, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_attempt_leaves_nothing_and_can_be_made_again(tmp_path: Path) -> None:
    with Store.assemble(tmp_path / "store", SCHEMA, shards=1) as assembly:
        with pytest.raises(KeyError), Store.build_shard(assembly, 0) as store:
            store.append(ROWS)
            raise KeyError
        assert list((assembly / "shards").iterdir()) == []
        killed = subprocess.run(
            [sys.executable, "-c", f"""
import os, signal
from uihkv import Store
with Store.build_shard({str(assembly)!r}, 0) as store:
    store.append({{"user_id": ["a"], "ts": [1], "item_id": [1]}})
    os.kill(os.getpid(), signal.SIGKILL)
"""],
            check=False,
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL
        assert list((assembly / "shards").iterdir()) == []
        with Store.build_shard(assembly, 0) as store:
            store.append(ROWS, backfill=True)
    assert sum(map(len, histories(tmp_path / "store").values())) == 400
    assert sorted(its.name for its in (tmp_path / "store").iterdir()) == ["manifest.msgpack", "shards"]


def test_what_cannot_be_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError), Store.build_shard(tmp_path / "none", 0):
        pass
    (tmp_path / "store").mkdir()
    with Store.assemble(tmp_path / "store", SCHEMA, shards=1) as assembly:
        with pytest.raises(SchemaError, match="number is 1"), Store.build_shard(assembly, 1):
            pass
        with pytest.raises(SchemaError, match="scratch is"), Store.build_shard(assembly, 0, tmp_path / "gone"):
            pass
        with Store.build_shard(assembly, 0):
            pass
    with pytest.raises(StoreExistsError), Store.assemble(tmp_path / "store", SCHEMA):
        pass
