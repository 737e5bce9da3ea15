"""Engines as ways to windows: RocksDB, joins in DuckDB and Polars, and lines of text.

RocksDB holds the very chunks that this store writes, decoded by this store's decoder, so that the engines are compared
and not the encodings; or whole histories. Joins know each event's place in its user's history, which spares them a
ranking.
"""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from perf.cases import Array, Case, Ints, Read, Way
from perf.workloads import build_store
from uihkv import keys
from uihkv.codec import VERIFY_CODES, Entries, Layouts, Slices, decode_fixed

_ROCKS_CACHE_BYTES = 256 << 20


# -- RocksDB --------------------------------------------------------------------------------------------


def _rocks(folder: Path, *, create: bool = False) -> Any:
    rocks = importlib.import_module("rocksdict")
    options = rocks.Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_compression_type(rocks.DBCompressionType.none())  # values are compressed already
    tables = rocks.BlockBasedOptions()
    tables.set_block_cache(rocks.Cache(_ROCKS_CACHE_BYTES))
    tables.set_bloom_filter(10, False)
    options.set_block_based_table_factory(tables)
    access = rocks.AccessType.read_write() if create else rocks.AccessType.read_only()
    return rocks.Rdict(str(folder), options, access_type=access)


def _build_rocks_chunks(case: Case, folder: Path) -> None:
    """The values that this store has under the same keys, every event of them in a chunk."""
    import lmdb

    path = folder.with_name("chunks-for-rocks")
    with build_store(path, case.log(), shards=1) as store:
        store.seal()
    database = _rocks(folder, create=True)
    with lmdb.open(str(path / "shards" / "0000"), max_dbs=8, readonly=True, lock=False) as environment:
        chunks = environment.open_db(b"chunks", create=False)
        with environment.begin() as transaction, transaction.cursor(chunks) as cursor:
            for key, value in cursor:
                database[key] = value
    database.flush()
    database.compact_range(None, None)
    database.close()


def _open_rocks_chunks(case: Case, folder: Path) -> Read:
    database = _rocks(folder)
    all_keys = list(database.keys())
    user, start, end = keys.parse_chunk_keys(all_keys)
    begin = case.offsets[np.searchsorted(case.users, user)]
    start, end = begin + start, begin + end  # among the log's events
    layouts = Layouts([case.schema()])
    never = VERIFY_CODES["never"]

    def read(ids: Ints) -> list[Array]:
        low, high = case.high[ids] - case.length, case.high[ids]
        first = np.searchsorted(end, low, "right")
        count = np.searchsorted(end, high) + 1 - first
        place = np.cumsum(count) - count
        wanted = np.arange(int(count.sum())) + np.repeat(first - place, count)
        chunks, entry = np.unique(wanted, return_inverse=True)
        values = database.get([all_keys[chunk] for chunk in chunks.tolist()])
        sizes = np.array([len(value) for value in values])
        room = np.frombuffer(b"".join(values), np.uint8)
        entries = Entries(
            0, (user[chunks], start[chunks] - begin[chunks], end[chunks] - begin[chunks]), np.empty(0, np.int64)
        )
        entries.address[:] = room.ctypes.data + np.cumsum(sizes) - sizes
        entries.size[:] = sizes
        entries.open(np.arange(len(chunks)), layouts, never)
        a = np.maximum(np.repeat(low, count), start[wanted])
        b = np.minimum(np.repeat(high, count), end[wanted])
        out = np.cumsum(b - a) - (b - a)
        slices = Slices(entry, a - start[wanted], b - start[wanted], out).by_entry()
        outputs = {name: np.empty(case.length * len(ids), column.dtype) for name, column in case.columns.items()}
        decode_fixed(entries, layouts, slices, outputs, never)
        return list(outputs.values())

    return read


def _build_rocks_whole(case: Case, folder: Path) -> None:
    import lz4.block

    database = _rocks(folder, create=True)
    for user, (a, b) in enumerate(zip(case.offsets[:-1].tolist(), case.offsets[1:].tolist(), strict=True)):
        raw = b"".join(column[a:b].tobytes() for column in case.columns.values())
        database[user.to_bytes(8, "big")] = lz4.block.compress(raw)
    database.flush()
    database.compact_range(None, None)
    database.close()


def _open_rocks_whole(case: Case, folder: Path) -> Read:
    import lz4.block

    database = _rocks(folder)
    lengths = np.diff(case.offsets)
    types = [column.dtype for column in case.columns.values()]

    def read(ids: Ints) -> list[Array]:
        rows, place = np.unique(case.row[ids], return_inverse=True)
        values = database.get([row.to_bytes(8, "big") for row in rows.tolist()])
        raw = [lz4.block.decompress(value) for value in values]
        parts: list[list[Array]] = [[] for _ in types]
        for one, version in zip(place.tolist(), case.version[ids].tolist(), strict=True):
            events, offset = int(lengths[rows[one]]), 0
            for part, dtype in zip(parts, types, strict=True):
                part.append(
                    np.frombuffer(raw[one], dtype, case.length, offset + (version - case.length) * dtype.itemsize)
                )
                offset += events * dtype.itemsize
        return [np.concatenate(part) for part in parts]

    return read


# -- joins, and text ------------------------------------------------------------------------------------


def _events(case: Case) -> pa.Table:
    """An event a row, by user, with its place in the user's history."""
    seq = np.arange(int(case.offsets[-1])) - np.repeat(case.offsets[:-1], np.diff(case.offsets))
    user = np.repeat(case.users, np.diff(case.offsets))
    return pa.table({"user_id": user, "seq": seq, **{name: np.array(c) for name, c in case.columns.items()}})


def _asked(case: Case, ids: Ints) -> pa.Table:
    version = case.version[ids]
    user = case.users[case.row[ids]]
    return pa.table({"row": np.arange(len(ids)), "user_id": user, "low": version - case.length, "high": version})


def _build_duckdb(case: Case, folder: Path) -> None:
    duckdb = importlib.import_module("duckdb")

    folder.mkdir()
    with duckdb.connect(str(folder / "events.duckdb")) as connection:
        connection.register("given", _events(case))
        connection.execute("CREATE TABLE events AS SELECT * FROM given ORDER BY user_id, seq")


def _open_duckdb(case: Case, folder: Path) -> Read:
    duckdb = importlib.import_module("duckdb")

    connection = duckdb.connect(str(folder / "events.duckdb"), read_only=True)
    names = ", ".join(f"e.{name}" for name in case.columns)
    query = (
        f"SELECT {names} FROM asked a JOIN events e ON e.user_id = a.user_id AND e.seq >= a.low AND e.seq < a.high "
        "ORDER BY a.row, e.seq"
    )

    def read(ids: Ints) -> list[Array]:
        connection.register("asked", _asked(case, ids))
        found = connection.execute(query).fetchnumpy()
        return [np.asarray(found[name]) for name in case.columns]

    return read


def _build_polars(case: Case, folder: Path) -> None:
    polars = importlib.import_module("polars")

    folder.mkdir()
    frame: Any = polars.from_arrow(_events(case))
    frame.write_ipc(folder / "events.arrow")


def _open_polars(case: Case, folder: Path) -> Read:
    polars = importlib.import_module("polars")

    events = polars.read_ipc(folder / "events.arrow").lazy()
    seq = polars.col("seq")

    def read(ids: Ints) -> list[Array]:
        asked: Any = polars.from_arrow(_asked(case, ids))
        joined = asked.lazy().join(events, on="user_id", maintain_order="left_right")
        wanted = joined.filter((seq >= polars.col("low")) & (seq < polars.col("high"))).select(list(case.columns))
        found = wanted.collect()
        return [found[name].to_numpy() for name in case.columns]

    return read


def _build_csv(case: Case, folder: Path) -> None:
    folder.mkdir()
    begins = []
    with (folder / "users.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        for a, b in zip(case.offsets[:-1].tolist(), case.offsets[1:].tolist(), strict=True):
            begins.append(file.tell())
            writer.writerow([json.dumps(column[a:b].tolist()) for column in case.columns.values()])
    np.save(folder / "begins.npy", np.array(begins, np.int64))


def _open_csv(case: Case, folder: Path) -> Read:
    file = (folder / "users.csv").open(newline="")
    begins = np.load(folder / "begins.npy")
    csv.field_size_limit(1 << 30)

    def read(ids: Ints) -> list[Array]:
        parts: list[list[Array]] = [[] for _ in case.columns]
        for row, version in zip(case.row[ids].tolist(), case.version[ids].tolist(), strict=True):
            file.seek(begins[row])
            for part, cell, column in zip(
                parts, next(csv.reader([file.readline()])), case.columns.values(), strict=True
            ):
                part.append(np.array(json.loads(cell)[version - case.length : version], column.dtype))
        return [np.concatenate(part) for part in parts]

    return read


ENGINES: dict[str, Way] = {
    "RocksDB, chunks": Way(
        "this store's chunks as values, LZ4; multi-get, this store's decoder", _build_rocks_chunks,
        _open_rocks_chunks, ("rocksdict", "numba", "uihkv.snapshot"), per_example=False, by_user=True,
    ),
    "RocksDB, histories": Way(
        "whole histories, LZ4; multi-get", _build_rocks_whole, _open_rocks_whole, ("rocksdict",), per_example=False
    ),
    "DuckDB join": Way("event rows by user; range join", _build_duckdb, _open_duckdb, ("duckdb",), per_example=False),
    "Polars join": Way(
        "event rows by user, in memory; join, filter", _build_polars, _open_polars, ("polars",), per_example=False
    ),
    "CSV of JSON lists": Way(
        "a line a user, as generative-recommenders keeps them", _build_csv, _open_csv, per_example=False
    ),
}  # fmt: skip
"""Their ways."""
