"""A store is data, maybe a stranger's: damage anywhere is a named error or no change, and nothing leads out of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

from uihkv import Column, CorruptChunkError, FormatError, Pointers, Schema, Store

ROOT = Path(__file__).parents[2]
SCHEMA = Schema([Column("item_id", "int64")])

ATTACK = """
import json, sys
from pathlib import Path
from perf.hostile import attack
counts, findings = attack(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
print(json.dumps([counts, [repr(one) for one in findings]]))
"""


@pytest.mark.parametrize("kind", ["int64", "string"])
def test_damage_to_any_region_of_a_store_is_an_error_with_a_name_or_changes_nothing(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-c", ATTACK, "42", "3", str(tmp_path), kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts, findings = json.loads(done.stdout)
    assert findings == []
    assert sum(sum(found.values()) for found in counts.values()) == 42
    assert counts["manifest"]["named error"] >= 5
    assert counts["overflow"]["named error"] >= 3  # values: their checksums


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "store", SCHEMA, shards=2) as store:
        store.append({"user_id": [1, 2, 3], "ts": [1, 2, 3], "item_id": [4, 5, 6]}, backfill=True)
    shutil.copytree(tmp_path / "store", tmp_path / "elsewhere")
    return tmp_path / "store"


@pytest.mark.parametrize(
    "part", ["manifest.msgpack", "shards", "shards/0001", "shards/0001/data.mdb", "shards/0000/lock.mdb"]
)
def test_a_store_follows_no_link_out_of_its_directory(path: Path, part: str) -> None:
    elsewhere = path.parent / "elsewhere" / part
    before = elsewhere.read_bytes() if elsewhere.is_file() else b""
    if (path / part).is_dir():
        shutil.rmtree(path / part)
    else:
        (path / part).unlink()
    (path / part).symlink_to(elsewhere)
    for readonly in (True, False):
        with pytest.raises(FormatError, match="symbolic link"):
            Store.open(path, readonly=readonly)
    assert elsewhere.is_dir() or elsewhere.read_bytes() == before
    (path.parent / "way").symlink_to(path.parent / "elsewhere")  # the store's own path may be one
    with Store.open(path.parent / "way") as store:
        assert store.stats().users == 3


@pytest.mark.parametrize("part", ["manifest.msgpack", "shards/0001/data.mdb", "shards/0000/lock.mdb"])
@pytest.mark.timeout(20)
def test_a_pipe_in_a_files_place_does_not_block(path: Path, part: str) -> None:
    (path / part).unlink()
    os.mkfifo(path / part)
    with pytest.raises(FormatError, match="is no file"):
        Store.open(path)


def test_a_cut_file_is_an_error_before_it_is_touched(path: Path) -> None:
    with Store.open(path) as store:
        rng = np.random.default_rng(0)
        for number in range(20):
            n = 4000
            rows = {"user_id": rng.integers(0, 50, n), "ts": np.full(n, number), "item_id": rng.integers(0, 2**60, n)}
            store.append(rows, backfill=True)
    data = path / "shards/0000/data.mdb"
    size = data.stat().st_size
    assert size > 400_000
    os.truncate(data, 100_000)
    with pytest.raises(FormatError, match="its pages need"):
        Store.open(path)


def test_nothing_in_the_packages_runs_what_it_reads() -> None:
    """No pickle, marshal, eval, exec, YAML; but for errors on their way between own processes."""
    banned = re.compile(
        r"^\s*(?:import|from)\s+(?:pickle|cPickle|dill|cloudpickle|marshal|shelve|joblib|yaml)\b"
        r"|(?<![\w.])(?:eval|exec)\(|\bpickle\.loads?\(|allow_pickle\s*=\s*True|torch\.load\(",
        re.MULTILINE,
    )
    allowed = {"uihkv/shares.py": {"import pickle", "pickle.loads("}}
    found: dict[str, set[str]] = {}
    for package in ("uihkv", "loader"):
        for file in sorted((ROOT / package).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            hits = {match.group().strip() for match in banned.finditer(file.read_text())}
            if hits:
                found[name] = hits
    assert found == allowed


def test_a_chunk_too_many_is_an_error_for_its_user_alone(tmp_path: Path) -> None:
    """As an append through a damaged tree may leave it: a history begun a second time."""
    for name, events in (("store", 16), ("other", 2)):
        with Store.create(tmp_path / name, SCHEMA, shards=1, chunk_events=4) as store:
            for number in range(3 if events > 2 else 1):
                n = 2 * events
                store.append({"user_id": [1, 2] * events, "ts": [number] * n, "item_id": np.arange(n)}, backfill=True)
            store.seal()
    found = {}
    for name in ("other", "store"):
        environment = lmdb.open(str(tmp_path / name / "shards/0000"), max_dbs=8)
        chunks = environment.open_db(b"chunks", create=False)
        with environment.begin(write=name == "store") as transaction:
            if name == "store":
                key, value = found["other"]
                assert transaction.put(key, value, db=chunks, overwrite=False)
            else:
                found[name] = next((bytes(key), bytes(value)) for key, value in transaction.cursor(db=chunks))
        environment.close()
    with Store.open(tmp_path / "store") as store, store.snapshot() as snapshot:
        for _ in range(2):
            with pytest.raises(CorruptChunkError, match=r"user 1, .*does not begin where"):
                snapshot.read(Pointers([1], [40]))
        assert snapshot.read(Pointers([2], [48])).lengths.tolist() == [48]
        assert not store.verify(isolated=False).ok


@pytest.mark.parametrize(
    ("name", "record"), [(b"\x80\xff", b"\0" * 8), (b"log", b"\0" * 7), (b"log", b""), (b"log", b"\0" * 8 * 17)]
)
def test_a_source_that_cannot_be_read_is_an_error_with_a_name(tmp_path: Path, name: bytes, record: bytes) -> None:
    rows = {"user_id": [1], "ts": [1], "item_id": [1]}
    with Store.create(tmp_path / "store", SCHEMA, shards=1) as store:
        store.append(rows, backfill=True, source="log", offset=1)
    environment = lmdb.open(str(tmp_path / "store/shards/0000"), max_dbs=8)
    with environment.begin(write=True) as writing:
        writing.put(name, record, db=environment.open_db(b"sources", txn=writing, create=False))
    environment.close()
    with Store.open(tmp_path / "store") as store:
        with pytest.raises(FormatError, match="source"):
            store.sources()
        if name == b"log":
            with pytest.raises(FormatError, match="source"):
                store.append(rows, backfill=True, source="log", offset=2)
        assert not store.verify(isolated=False).ok
        store.append(rows, backfill=True, source="another", offset=1)
        with store.snapshot() as snapshot:
            assert snapshot.head([1]).version.tolist() == [2]
