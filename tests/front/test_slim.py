"""``uihkv slim``: examples with inline tails become slim ones once the store has caught up, and read as before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.front.test_cli import run
from uihkv import Column, NotVisibleYetError, PointerError, Pointers, Schema, Store
from uihkv.inline import InlineTail
from uihkv.slim import slim_file

SCHEMA = Schema([Column("item_id", "int64"), Column("tags", "int16", ragged=True)])


def events(first: int, count: int) -> dict[str, object]:
    items = np.arange(first, first + count)
    return {"ts": 10 * items, "item_id": items, "tags": [[item, item] for item in items.tolist()]}


def append(store: Store, first: int, count: int) -> None:
    store.append({"user_id": np.full(count, 7), **events(first, count)}, backfill=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with events 0 to 4, and examples that saw up to event 8 of them."""
    with Store.create(tmp_path / "store", SCHEMA, shards=1) as store:
        append(store, 0, 5)
    tails = {"ts": [], "item_id": [], "tags": []}
    for first, count in ((5, 2), (3, 5), (4, 1)):
        for name, values in events(first, count).items():
            tails[name].extend(values)  # type: ignore[call-overload]
    inline = InlineTail.of(SCHEMA, [5, 0, 3, 4], [0, 2, 2, 7, 8], tails)
    table = Pointers([7, 7, 7, 7], [5, 2, 4, 5], [40, 10, 30, 40]).to_arrow()
    table = table.append_column("label", pa.array([1, 0, 1, 0]))
    for name, column in zip(("inline_start", "inline"), inline.to_arrow(SCHEMA).columns, strict=True):
        table = table.append_column(name, column)
    pq.write_table(table, tmp_path / "examples.parquet")
    return tmp_path


def test_pending_tails_are_refused_or_kept_and_go_later(folder: Path) -> None:
    with Store.open(folder / "store") as store:
        with pytest.raises(NotVisibleYetError, match=r"row 0: .*version 7"):
            slim_file(store, folder / "examples.parquet", folder / "slim.parquet")
        assert not (folder / "slim.parquet").exists()
        some = slim_file(store, folder / "examples.parquet", folder / "some.parquet", pending="keep", batch_rows=3)
        assert (some.rows, some.tails, some.slimmed, some.pending, some.events) == (4, 3, 1, 2, 1)
        append(store, 5, 3)
        rest = slim_file(store, folder / "some.parquet", folder / "slim.parquet")
        assert (rest.tails, rest.slimmed, rest.pending, rest.events) == (2, 2, 0, 7)
        slim = pq.read_table(folder / "slim.parquet")
        assert slim.column_names == ["user_id", "version", "last_ts", "label"]
        assert slim.column("version").to_pylist() == [7, 2, 8, 5]
        assert slim.column("last_ts").to_pylist() == [60, 10, 70, 40]
        assert slim.column("label").to_pylist() == [1, 0, 1, 0]
        with store.snapshot() as snapshot:
            fat = pq.read_table(folder / "examples.parquet")
            before = snapshot.read(Pointers.from_arrow(fat), inline=InlineTail.from_arrow(SCHEMA, fat))
            after = snapshot.read(Pointers.from_arrow(slim))
        assert before.values("item_id").tolist() == after.values("item_id").tolist()
        assert before.values("tags").tolist() == after.values("tags").tolist()


def test_a_tail_that_differs_leaves_nothing_behind(folder: Path) -> None:
    with Store.open(folder / "store") as store:
        store.append({"user_id": [7] * 4, **events(6, 4)}, backfill=True)  # event 5 never arrived
        with pytest.raises(PointerError, match="event 5 of user 7 differs in 'ts'"):
            slim_file(store, folder / "examples.parquet", folder / "slim.parquet")
    assert not (folder / "slim.parquet").exists()


def test_the_command(folder: Path) -> None:
    early = run("slim", folder / "store", folder / "examples.parquet", "-o", folder / "slim.parquet")
    assert early.returncode == 1
    assert "run this again later" in early.stderr
    kept = run("slim", folder / "store", folder / "examples.parquet", "-o", folder / "s", "--keep-pending", "--json")
    assert kept.returncode == 0, kept.stderr
    assert json.loads(kept.stdout)["pending"] == 2
