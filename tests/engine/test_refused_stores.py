"""What is not a store, or no longer a whole one, is refused by name; what was there stays as it was."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import msgpack
import numpy as np
import pytest

from uihkv import (
    Column,
    FormatError,
    Histories,
    Schema,
    SchemaError,
    Store,
    StoreExistsError,
    StoreNotFoundError,
)
from uihkv.manifest import MANIFEST_NAME

SCHEMA = Schema([Column("item_id", "int64")])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store of 60 users with 200 events each, in one shard."""
    made = tmp_path / "store"
    with Store.create(made, SCHEMA, shards=1, chunk_events=64) as store:
        user = np.repeat(np.arange(60), 200)
        noise = np.random.default_rng(0).integers(0, 2**60, len(user))
        store.append({"user_id": user, "ts": np.arange(len(user)), "item_id": noise}, backfill=True)
    return made


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    with pytest.raises(StoreNotFoundError, match="does not exist"):
        Store.open(tmp_path / "nowhere")
    for name in ("file", "empty", "folder"):
        with pytest.raises(FormatError, match="not a uihkv store"):
            Store.open(tmp_path / name)
    for name in ("file", "folder"):
        with pytest.raises(StoreExistsError, match="something is there"):
            Store.create(tmp_path / name, SCHEMA)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "notes").read_text() == "mine"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "file", "folder"]


def test_a_second_create_is_refused_and_changes_nothing(path: Path) -> None:
    before = (path / MANIFEST_NAME).read_bytes()
    with pytest.raises(StoreExistsError, match="a store is there"):
        Store.create(path, SCHEMA)
    assert (path / MANIFEST_NAME).read_bytes() == before
    with Store.open(path) as store:
        assert store.stats().events == 60 * 200


@pytest.mark.parametrize("shards", [0, -1, 10_001, 1.5, True, "4"])
def test_impossible_shards_leave_nothing(tmp_path: Path, shards: object) -> None:
    with pytest.raises(SchemaError, match="shards is"):
        Store.create(tmp_path / "store", SCHEMA, shards=shards)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_newer_format_says_to_install_a_newer_package(path: Path) -> None:
    file = path / MANIFEST_NAME
    fields = msgpack.unpackb(file.read_bytes(), strict_map_key=False)
    file.write_bytes(msgpack.packb({**fields, "format": fields["format"] + 1}))
    with pytest.raises(FormatError, match="install a newer uihkv"):
        Store.open(path)


def test_every_flipped_bit_and_cut_of_the_manifest_is_found(path: Path) -> None:
    file = path / MANIFEST_NAME
    whole = file.read_bytes()
    damaged = [whole[:end] for end in range(len(whole))]
    damaged += [
        whole[:place] + bytes([byte ^ (1 << place % 8)]) + whole[place + 1 :] for place, byte in enumerate(whole)
    ]
    for data in damaged:
        file.write_bytes(data)
        with pytest.raises(FormatError):
            Store.open(path)
    file.write_bytes(whole)
    Store.open(path).close()


_READ_ALL = """
import sys
from uihkv import Store, UihkvError
try:
    with Store.open(sys.argv[1]) as store, store.snapshot() as snapshot:
        found = snapshot.read(snapshot.head(snapshot.users()))
        print("read", int(found.offsets[-1]))
except UihkvError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("left", [0, 100, 4096, 8192, 0.25, 0.5, 0.9, -70_000, -4096, -1])
def test_a_shard_that_was_cut_short_is_an_error_and_never_a_crash(path: Path, left: float) -> None:
    file = path / "shards" / "0000" / "data.mdb"
    data = file.read_bytes()
    size = int(left * len(data)) if isinstance(left, float) else left if left >= 0 else len(data) + left
    file.write_bytes(data[:size])
    done = subprocess.run([sys.executable, "-c", _READ_ALL, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in ("FormatError", "CorruptChunkError", "read"), done.stdout
    if done.stdout.startswith("read"):  # what was missing was not in use
        assert done.stdout.split() == ["read", str(60 * 200)]


def test_a_rectangle_holds_the_newest_events_on_either_side() -> None:
    lengths = [0, 1, 3, 7]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    histories = Histories(offsets, {"item_id": np.arange(1, offsets[-1] + 1)})
    rows = [histories.values("item_id")[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    for length in (1, 3, 5, 9):
        kept = [row[max(0, len(row) - length) :] for row in rows]
        left = [[-1] * (length - len(row)) + row for row in kept]
        right = [row + [-1] * (length - len(row)) for row in kept]
        assert histories.padded("item_id", length, -1).tolist() == left
        assert histories.padded("item_id", length, -1, side="right").tolist() == right


@pytest.mark.parametrize("path", [None, 3, "a\0b"])
def test_a_path_that_is_none_is_refused(path: object) -> None:
    with pytest.raises(SchemaError, match="path is"):
        Store.open(path)  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="path is"):
        Store.create(path, SCHEMA)  # type: ignore[arg-type]
