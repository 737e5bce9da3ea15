"""Ways to get at the same windows of the same log: this store, and what else would be picked.

Each :class:`Way` builds its own form of a :class:`Case` on disk, and opens it as a function from a batch's example
numbers to the batch's columns, flat, an event after the other: new arrays,
values equal to the log's. What a form holds:

- *fat rows*: a row an example, its window copied into list columns;
- *whole histories*: a row or a value a user, cut after it was read;
- *event rows*: a table of events sorted by user.

A way runs in a process of its own (:mod:`perf.access_process`), so that processor time and memory are its own.
Packages are imported where a way needs them. The loaders around such reads are :mod:`perf.feeders`'.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perf.workloads import Log, build_store
from uihkv import Column, Histories, Pointers, Projection, Schema, Store, keys
from uihkv.codec import VERIFY_CODES, Entries, Layouts, Slices, decode_fixed

Array = NDArray[Any]
Ints = NDArray[np.int64]
Read = Callable[[Ints], list[Array]]

RANDOM, BY_USER = "random", "by user"
_GROUP_EVENTS = 1024
"""Events of a row group that is read alone."""
_ROCKS_CACHE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be read, as it lies on disk for the ways' processes.

    Attributes:
        folder: of this case; forms that depend on the examples are built in it.
        log_folder: of its log; other forms are built there, once for all cases of the log.
        length: events of every window.
        batch: examples a batch.
        columns: the log's, user by user, mapped.
        users, offsets: int64[users], ascending, and int64[users + 1] as in :class:`perf.workloads.Log`.
        row, version: int64[examples], place of the example's user among ``users``, and the version it sees.
        last_ts: int64[examples], of the newest event it sees.

    """

    folder: Path
    log_folder: Path
    length: int
    batch: int
    columns: Mapping[str, Array]
    users: Ints
    offsets: Ints
    row: Ints
    version: Ints
    last_ts: Ints

    @classmethod
    def save(cls, folder: Path, log_folder: Path, log: Log, row: Ints, version: Ints, length: int, batch: int) -> Case:
        """Put a case on disk; the log's columns only where they are not there yet."""
        folder.mkdir(parents=True)
        if not log_folder.exists():
            log_folder.mkdir(parents=True)
            for name, column in {**log.readable, ".users": log.users, ".offsets": log.offsets}.items():
                np.save(log_folder / f"{name}.npy", column)
        np.save(folder / "row.npy", row)
        np.save(folder / "version.npy", version)
        np.save(folder / "last_ts.npy", log.ts[log.offsets[row] + version - 1])
        told = {"log": str(log_folder), "length": length, "batch": batch, "names": list(log.readable)}
        (folder / "case.json").write_text(json.dumps(told))
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Case:
        """Find it again."""
        told = json.loads((folder / "case.json").read_text())
        log = Path(told["log"])
        columns = {name: np.load(log / f"{name}.npy", mmap_mode="r") for name in told["names"]}
        users, offsets = np.load(log / ".users.npy"), np.load(log / ".offsets.npy")
        row, version, last_ts = (np.load(folder / f"{name}.npy") for name in ("row", "version", "last_ts"))
        return cls(folder, log, told["length"], told["batch"], columns, users, offsets, row, version, last_ts)

    @property
    def high(self) -> Ints:
        """Where each example's window ends among the log's events: int64[examples]."""
        return self.offsets[self.row] + self.version

    def batches(self, shuffled: bool) -> list[Ints]:
        """Example numbers of each batch, ascending: drawn at random, or as the examples lie."""
        count = len(self.row)
        chosen = np.random.default_rng(0).permutation(count) if shuffled else np.arange(count)
        return [np.sort(chosen[first : first + self.batch]) for first in range(0, count, self.batch)]

    def expected(self, name: str, ids: Ints) -> Array:
        """A column of these examples' windows, out of the log."""
        return cut(self.columns[name], self.high[ids] - self.length, self.length)

    def fat_rows(self) -> pa.Table:
        """All windows, a list column each."""
        ids = np.arange(len(self.row))
        offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * np.int32(self.length))
        lists = {name: pa.ListArray.from_arrays(offsets, pa.array(self.expected(name, ids))) for name in self.columns}
        return pa.table(lists)

    def whole_histories(self) -> pa.Table:
        """A row a user, a list column each."""
        offsets = pa.array(self.offsets.astype(np.int32))
        columns = {name: pa.array(np.array(column)) for name, column in self.columns.items()}
        return pa.table({name: pa.ListArray.from_arrays(offsets, column) for name, column in columns.items()})

    def schema(self) -> Schema:
        """Of a store for the log."""
        return Schema([Column(name, column.dtype.name) for name, column in self.columns.items() if name != "ts"])

    def log(self) -> Log:
        """The log, in memory; every event visible when it happened."""
        ts = np.array(self.columns["ts"])
        columns = {name: np.array(column) for name, column in self.columns.items() if name != "ts"}
        user_id = np.repeat(self.users, np.diff(self.offsets))
        return Log(self.schema(), user_id, ts, ts, columns, self.users, self.offsets)


@dataclass(frozen=True, slots=True)
class Way:
    """How one contender is built and opened.

    Attributes:
        what: what its form on disk holds, in a few words.
        build: makes the form in a folder.
        open: gives the function that reads batches.
        modules: what must be importable.
        per_example: whether the form depends on the examples, as fat rows do.
        as_they_lie: whether it can only read examples in the order of the form.
        by_user: whether it is also asked for examples sorted by user.

    """

    what: str
    build: Callable[[Case, Path], None]
    open: Callable[[Case, Path], Read]
    modules: tuple[str, ...] = ()
    per_example: bool = True
    as_they_lie: bool = False
    by_user: bool = False

    def why_missing(self) -> str | None:
        """Why it cannot run here; None: it can."""
        for module in self.modules:
            try:
                importlib.import_module(module)
            except Exception as error:  # a package that is half installed fails in ways of its own
                return f"{module} cannot be imported ({error})"
        return None

    def folder(self, case: Case, name: str) -> Path:
        """Where its form of a case lies."""
        return (case.folder if self.per_example else case.log_folder) / name.replace(" ", "-")


def cut(values: Array, start: Ints, length: int, out: Array | None = None) -> Array:
    """Windows of equal length, one after the other."""
    return np.concatenate([values[first : first + length] for first in start.tolist()], out=out)


def _flat(table: pa.Table, names: Mapping[str, Array]) -> list[Array]:
    """List columns as flat arrays."""
    found = [table.column(name).combine_chunks() for name in names]
    return [(part.chunk(0) if isinstance(part, pa.ChunkedArray) else part).flatten().to_numpy(False) for part in found]


def _nothing(_case: Case, folder: Path) -> None:
    """Reads the log's own files."""
    folder.mkdir()


# -- this store -----------------------------------------------------------------------------------------


def _build_store(compression: str) -> Callable[[Case, Path], None]:
    def build(case: Case, folder: Path) -> None:
        build_store(folder, case.log(), shards=4, compression=compression).close()

    return build


def _open_store(reuse: bool) -> Callable[[Case, Path], Read]:
    def opened(case: Case, folder: Path) -> Read:
        snapshot = Store.open(folder, readonly=True).snapshot()
        projection = Projection(tuple(case.columns), max_len=case.length)
        pointers = Pointers(case.users[case.row], case.version, case.last_ts)
        last: Histories | None = None

        def read(ids: Ints) -> list[Array]:
            nonlocal last
            found = snapshot.read(pointers[ids], projection, out=last)
            if reuse:
                last = found
            return [found.values(name) for name in case.columns]

        return read

    return opened


# -- arrays ---------------------------------------------------------------------------------------------


def _open_arrays(mapped: bool, reuse: bool = False) -> Callable[[Case, Path], Read]:
    def opened(case: Case, _folder: Path) -> Read:
        columns = {
            name: np.asarray(column) if mapped else np.load(case.log_folder / f"{name}.npy")
            for name, column in case.columns.items()
        }
        start = case.high - case.length
        events = case.length * min(case.batch, len(case.row)) if reuse else 0
        rooms = [np.empty(events, column.dtype) for column in columns.values()]

        def read(ids: Ints) -> list[Array]:
            if not reuse:
                return [cut(column, start[ids], case.length) for column in columns.values()]
            found = [room[: case.length * len(ids)] for room in rooms]
            for column, room in zip(columns.values(), found, strict=True):
                cut(column, start[ids], case.length, room)
            return found

        return read

    return opened


# -- Parquet --------------------------------------------------------------------------------------------


def _write_parquet(table: pa.Table, path: Path, rows_a_group: int) -> None:
    path.parent.mkdir()
    pq.write_table(
        table, path, compression="lz4", row_group_size=rows_a_group, data_page_size=1 << 16, use_dictionary=False,
        write_statistics=False,
    )  # fmt: skip


def _build_parquet_batches(case: Case, folder: Path) -> None:
    _write_parquet(case.fat_rows(), folder / "fat.parquet", case.batch)


def _open_parquet_batches(case: Case, folder: Path) -> Read:
    file = pq.ParquetFile(folder / "fat.parquet", memory_map=True)

    def read(ids: Ints) -> list[Array]:
        group = int(ids[0]) // case.batch
        return _flat(file.read_row_group(group, columns=list(case.columns), use_threads=False), case.columns)

    return read


def _rows_a_group(case: Case) -> int:
    return max(1, _GROUP_EVENTS // case.length)


def _build_parquet_random(case: Case, folder: Path) -> None:
    _write_parquet(case.fat_rows(), folder / "fat.parquet", _rows_a_group(case))


def _open_parquet_random(case: Case, folder: Path) -> Read:
    file = pq.ParquetFile(folder / "fat.parquet", memory_map=True)
    rows = _rows_a_group(case)

    def read(ids: Ints) -> list[Array]:
        groups, place = np.unique(ids // rows, return_inverse=True)
        found = _flat(
            file.read_row_groups(groups.tolist(), columns=list(case.columns), use_threads=False), case.columns
        )
        if rows == 1:
            return found
        start = (place * rows + ids % rows) * case.length
        return [cut(column, start, case.length) for column in found]

    return read


def _open_data_loader(case: Case, folder: Path) -> Read:
    """Rows of a fat file as an iterable data set, put together by a ``collate_fn``."""
    import torch
    from torch.utils.data import DataLoader, IterableDataset

    class Rows(IterableDataset[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            for table in pq.ParquetFile(folder / "fat.parquet", memory_map=True).iter_batches(case.batch):
                lists = [(name, table.column(name)) for name in case.columns]
                for row in range(table.num_rows):
                    yield {name: torch.from_numpy(c[row].values.to_numpy().copy()) for name, c in lists}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    loader = DataLoader(Rows(), batch_size=case.batch, num_workers=0, collate_fn=collate)
    under_way: Iterator[dict[str, Any]] = iter(())

    def read(ids: Ints) -> list[Array]:
        nonlocal under_way
        if not ids[0]:
            under_way = iter(loader)
        return [column.numpy() for column in next(under_way).values()]

    return read


# -- Lance, Vortex, Hugging Face datasets ---------------------------------------------------------------


def _rows_of_users(case: Case, ids: Ints) -> tuple[Ints, Ints]:
    """Users of a batch, each once, and where each window begins among their events."""
    rows, place = np.unique(case.row[ids], return_inverse=True)
    first = np.append(0, np.cumsum(np.diff(case.offsets)[rows]))
    return rows, first[place] + case.version[ids] - case.length


def _build_lance(whole: bool) -> Callable[[Case, Path], None]:
    def build(case: Case, folder: Path) -> None:
        lance = importlib.import_module("lance")

        lance.write_dataset(case.whole_histories() if whole else case.fat_rows(), str(folder))

    return build


def _open_lance(whole: bool) -> Callable[[Case, Path], Read]:
    def opened(case: Case, folder: Path) -> Read:
        lance = importlib.import_module("lance")

        dataset = lance.dataset(str(folder))

        def take(rows: Ints) -> list[Array]:
            return _flat(dataset.take(rows.tolist(), columns=list(case.columns)), case.columns)

        return _cutting(case, take) if whole else take

    return opened


def _cutting(case: Case, take: Read) -> Read:
    """Windows, by a function that reads whole histories of users."""

    def read(ids: Ints) -> list[Array]:
        rows, start = _rows_of_users(case, ids)
        return [cut(column, start, case.length) for column in take(rows)]

    return read


def _build_vortex(form: str) -> Callable[[Case, Path], None]:
    def build(case: Case, folder: Path) -> None:
        vortex = importlib.import_module("vortex")

        if form == "events":
            table = pa.table({name: pa.array(np.array(column)) for name, column in case.columns.items()})
        else:
            table = case.whole_histories() if form == "whole" else case.fat_rows()
        folder.mkdir()
        vortex.io.write(table, str(folder / "rows.vortex"))

    return build


def _open_vortex(form: str) -> Callable[[Case, Path], Read]:
    def opened(case: Case, folder: Path) -> Read:
        vortex = importlib.import_module("vortex")

        file = vortex.open(str(folder / "rows.vortex"))

        def scan(rows: Ints) -> pa.Table:
            wanted = vortex.array(pa.array(rows.astype(np.uint64)))
            return file.scan(list(case.columns), indices=wanted).read_all().to_arrow_table()

        def take(rows: Ints) -> list[Array]:
            return _flat(scan(rows), case.columns)

        def take_events(ids: Ints) -> list[Array]:
            first = np.repeat(case.high[ids] - case.length, case.length)
            events, place = np.unique(first + np.tile(np.arange(case.length), len(ids)), return_inverse=True)
            table = scan(events)
            return [table.column(name).combine_chunks().to_numpy(zero_copy_only=False)[place] for name in case.columns]

        return {"events": take_events, "whole": _cutting(case, take), "fat": take}[form]

    return opened


def _build_datasets(case: Case, folder: Path) -> None:
    datasets = importlib.import_module("datasets")

    datasets.disable_progress_bars()
    datasets.Dataset(case.fat_rows()).save_to_disk(str(folder))


def _open_datasets(case: Case, folder: Path) -> Read:
    datasets = importlib.import_module("datasets")

    dataset = datasets.load_from_disk(str(folder)).with_format("arrow")
    return lambda ids: _flat(dataset[ids.tolist()], case.columns)


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


STORE = "store, lz4"
"""What the others are compared with."""

_OURS = ("numba", "uihkv.snapshot")

WAYS: dict[str, Way] = {
    STORE: Way("chunks, LZ4", _build_store("lz4"), _open_store(False), _OURS, per_example=False, by_user=True),
    "store, lz4, reused": Way(
        "the same, into the outputs of the batch before", _build_store("lz4"), _open_store(True), _OURS,
        per_example=False,
    ),
    "store, none": Way(
        "chunks, not compressed", _build_store("none"), _open_store(False), _OURS, per_example=False, by_user=True
    ),
    "arrays in memory": Way("columns", _nothing, _open_arrays(False), per_example=False, by_user=True),
    "arrays, reused": Way(
        "the same, into the outputs of the batch before", _nothing, _open_arrays(False, reuse=True), per_example=False
    ),
    "mapped arrays": Way("columns", _nothing, _open_arrays(True), per_example=False, by_user=True),
    "Parquet in file order": Way(
        "fat rows, LZ4, a row group a batch", _build_parquet_batches, _open_parquet_batches, as_they_lie=True,
        by_user=True,
    ),
    "Parquet at random": Way(
        "fat rows, LZ4, row groups of 1,024 events or a row", _build_parquet_random, _open_parquet_random
    ),
    "Parquet, DataLoader": Way(
        "fat rows, LZ4, a row group a batch; num_workers=0", _build_parquet_batches, _open_data_loader, ("torch",),
        as_they_lie=True,
    ),
    "Lance, fat rows": Way("fat rows; take", _build_lance(False), _open_lance(False), ("lance",), by_user=True),
    "Lance, histories": Way(
        "whole histories; take", _build_lance(True), _open_lance(True), ("lance",), per_example=False
    ),
    "Vortex, fat rows": Way("fat rows; scan of indices", _build_vortex("fat"), _open_vortex("fat"), ("vortex",)),
    "Vortex, histories": Way(
        "whole histories; scan of indices", _build_vortex("whole"), _open_vortex("whole"), ("vortex",),
        per_example=False,
    ),
    "Vortex, events": Way(
        "event rows; scan of indices", _build_vortex("events"), _open_vortex("events"), ("vortex",), per_example=False
    ),
    "HF datasets": Way("fat rows, Arrow, mapped", _build_datasets, _open_datasets, ("datasets",), by_user=True),
    "RocksDB, chunks": Way(
        "this store's chunks as values, LZ4; multi-get, this store's decoder", _build_rocks_chunks,
        _open_rocks_chunks, ("rocksdict", *_OURS), per_example=False, by_user=True,
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
"""Every contender by its name."""
