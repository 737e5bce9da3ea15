"""Both channels for users with string ids, and columns of strings, bytes and bfloat16."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loader import Loader, StreamExamples
from uihkv import Column, PointerError, Pointers, Projection, Schema, StochasticLength, Store
from uihkv.audit import audit_file
from uihkv.examples import write_examples
from uihkv.inline import InlineTail
from uihkv.resolve import resolve_file
from uihkv.serving import HistoryReader
from uihkv.slim import slim_file

SCHEMA = Schema(
    [
        Column("page", "string"),
        Column("token", "bytes"),
        Column("score", "bfloat16"),
        Column("vec", "bfloat16", shape=(2,)),
        Column("item_id", "int64"),
    ],
    user_id="string",
)
NAMES = ("ts", *SCHEMA.names)


def events(first: int, count: int) -> dict[str, Any]:
    """Events ``first`` to ``first + count`` of one user; their values follow from their number."""
    number = np.arange(first, first + count)
    return {
        "ts": 10 * number,
        "item_id": number,
        "page": [f"/p/{n % 3}" for n in number],
        "token": [b"x" * (n % 4) for n in number],
        "score": (number % 8).astype(np.float32) / 4,
        "vec": np.stack([number % 5, -(number % 5)], 1).astype(np.float32),
    }


def append(store: Store, users: list[str], first: int, count: int) -> None:
    for user in users:
        store.append({"user_id": [user] * count, **events(first, count)}, backfill=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", SCHEMA, shards=2, chunk_events=4) as made:
        append(made, ["ann", "bob", "žofie"], 0, 6)
        yield made


def tail(starts: list[int], ends: list[int]) -> InlineTail:
    parts = [events(low, high - low) for low, high in zip(starts, ends, strict=True)]
    data = {name: np.concatenate([part[name] for part in parts]) if name not in ("page", "token")
            else [value for part in parts for value in part[name]] for name in parts[0]}  # fmt: skip
    return InlineTail.of(SCHEMA, starts, np.cumsum([0, *np.subtract(ends, starts)]), data)


def same(found: Any, expected: Any) -> bool:
    return all(
        found.values(name).tobytes() == expected.values(name).tobytes()
        and np.array_equal(found.element_offsets(name), expected.element_offsets(name))  # None equals None
        for name in NAMES
    )


@pytest.mark.parametrize("sample", [None, StochasticLength(1.2, 3)])
def test_inline_tails_read_as_the_store_does_later(store: Store, tmp_path: Path, sample: Any) -> None:
    asked = Projection(NAMES, max_len=64 if sample is None else 40, sample=sample)
    inline = tail([4, 6, 3], [30, 6, 25])
    users = ["ann", "bob", "žofie"]
    with HistoryReader(store) as reader:
        served, pointers = reader.read(users, asked, inline=inline)
    table = pointers.to_arrow()
    for name, column in zip(("inline_start", "inline"), inline.to_arrow(SCHEMA).columns, strict=True):
        table = table.append_column(name, column)
    pq.write_table(table, tmp_path / "e.parquet")
    again = InlineTail.from_arrow(SCHEMA, pq.read_table(tmp_path / "e.parquet"))
    append(store, ["ann"], 6, 30)
    append(store, ["žofie"], 6, 30)
    with store.snapshot() as snapshot:
        assert same(snapshot.read(pointers, asked, inline=again), served)
        assert same(snapshot.read(inline.extend(pointers), asked), served)
    slim_file(store, tmp_path / "e.parquet", tmp_path / "slim.parquet")
    slim = Pointers.from_arrow(pq.read_table(tmp_path / "slim.parquet"))
    assert slim == inline.extend(pointers)
    with pytest.raises(PointerError, match="int64"):
        pointers.pack()


def test_files_of_examples_and_the_stream(store: Store, tmp_path: Path) -> None:
    write_examples(store, tmp_path / "e.parquet", every=2, labels=["score"], where={"page": {"/p/1", "/p/0"}})
    made = pq.read_table(tmp_path / "e.parquet")
    assert set(made.column("user_id").to_pylist()) == {"ann", "bob", "žofie"}
    assert made.column("page").to_pylist()[:2] == ["/p/1", "/p/1"]
    report = audit_file(store, tmp_path / "e.parquet", as_of="as_of")
    assert report.equal == made.num_rows == report.examples
    moments = pa.table({"user_id": ["žofie", "nobody"], "at": [31, 31]})
    pq.write_table(moments, tmp_path / "asked.parquet")
    told = resolve_file(store, tmp_path / "asked.parquet", tmp_path / "slim.parquet", as_of="at")
    assert (told.users, told.events, told.late_events) == (2, 6, 0)
    assert pq.read_table(tmp_path / "slim.parquet").column("version").to_pylist() == [4, 0]

    async def feed() -> AsyncIterator[Any]:
        yield made.select(["user_id", "version", "last_ts", "as_of"])

    with Loader(store, StreamExamples(feed()), Projection(["item_id"]), batch_size=64) as loader:
        (batch,) = loader
    assert batch.history["item_id"].lengths.tolist() == made.column("version").to_pylist()
