"""Rows of any order, brought together by user on disk: an external grouping and sort in bounded memory.

1. *Plan*: from a sample of the user ids, each shard's users are cut into ranges of about as many rows as fit one load.
   A range is a *bucket*; buckets are numbered shard by shard, users ascending (:func:`plan_buckets`).
2. *Group*: every batch is dealt out to its buckets' files, in the order of its rows (:class:`BucketWriter`). A file
   is an Arrow IPC stream, compressed with LZ4, of events as they were parsed.
3. *Load*: one bucket after the other comes back as events in arrival order (:func:`load_bucket`). One that
   grew too large is cut again in the same way, by user, and a single user's by place in the arrival order.

A user's events are thus stored by few appends, in the order of users in which LMDB fills its pages best, however the
rows were scattered. What a bucket holds, and in which pieces it is loaded, depends on the rows and the plan alone: a
second run finds the same.

Memory: in step 2 one batch, and ``HELD_BYTES`` of rows not yet written; in step 3 twice the rows of a load.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from uihkv import keys
from uihkv.errors import StoreFullError
from uihkv.events import Events
from uihkv.formats.source import read_batches
from uihkv.names import parse_names
from uihkv.schema import TS, USER_ID, VISIBLE_AT

Int64s = NDArray[np.int64]

HELD_BYTES = 64 << 20
MAX_BUCKETS = 512
"""Most buckets that are dealt to at once; each is an open file."""
_ORDER = "order"
_NAME = "name"
_SAMPLE = 1 << 19
_FILL = 0.75  # of a load, so that few buckets outgrow it by the sample's error
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """Which bucket a user belongs to.

    Attributes:
        first: int64[shards + 1], each shard's buckets.
        splits: int64[buckets - shards], the least user of each bucket but a shard's first, ascending within a shard.

    """

    first: Int64s
    splits: Int64s

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.first) - 1

    def buckets_of(self, user_id: Int64s, shard: Int64s) -> Int64s:
        """Bucket of each user: int64[n]."""
        bucket = self.first[shard]
        many = np.diff(self.first) > 1
        for number in np.unique(shard[many[shard]]).tolist():
            rows = np.flatnonzero(shard == number)
            begin = int(self.first[number]) - number
            splits = self.splits[begin : begin + int(self.first[number + 1] - self.first[number]) - 1]
            bucket[rows] += np.searchsorted(splits, user_id[rows], "right")
        return bucket

    def fingerprint(self) -> int:
        """What tells one plan from another."""
        return xxhash.xxh3_64_intdigest(self.first.tobytes() + self.splits.tobytes())


class UserSample:
    """User ids drawn evenly from all rows, without chance, so that a second run draws the same."""

    def __init__(self, rows: int) -> None:
        self.stride = max(1, -(-rows // _SAMPLE))
        self._next = 0
        self._drawn: list[Int64s] = []

    def add(self, user_id: Int64s) -> None:
        """The user ids of the next rows."""
        self._drawn.append(user_id[self._next :: self.stride].copy())
        self._next = (self._next - len(user_id)) % self.stride

    def drawn(self) -> Int64s:
        """What was drawn."""
        return np.concatenate([*self._drawn, np.empty(0, np.int64)])


def plan_buckets(sample: UserSample, shards: int, load_rows: int) -> BucketPlan:
    """Cut each shard's users into ranges of at most about ``load_rows`` rows."""
    users = np.sort(sample.drawn())
    shard = keys.shard_of(users, shards)
    rows = np.bincount(shard, minlength=shards) * sample.stride
    parts = np.ceil(rows / max(_FILL * load_rows, rows.sum() / MAX_BUCKETS, 1)).astype(np.int64)
    splits = [_find_splits(users[shard == number], int(parts[number])) for number in range(shards)]
    first = np.zeros(shards + 1, np.int64)
    np.cumsum([len(some) + 1 for some in splits], out=first[1:])
    return BucketPlan(first, np.concatenate([*splits, np.empty(0, np.int64)]))


def _find_splits(ascending: Int64s, parts: int) -> Int64s:
    """Values that cut sampled ones into about so many equal parts, none of them empty: int64[parts - 1 or fewer]."""
    if parts < 2 or not len(ascending):
        return np.empty(0, np.int64)
    at = np.arange(1, parts) * len(ascending) // parts
    found = np.unique(ascending[at])
    inner: Int64s = found[found > ascending[0]]
    return inner


class BucketWriter:
    """Deals events out to the files of their buckets.

    Args:
        folder: an empty directory; a bucket's file is named by its number.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[int, list[Any]] = {}
        self._held_bytes = 0
        self._writers: dict[int, Any] = {}
        self.rows: dict[int, int] = {}

    def add(self, events: Events, bucket: Int64s, order: Int64s) -> None:
        """Deal out events: bucket int64[n]; places in the arrival order int64[n], or empty for that of rows."""
        rows = np.argsort(bucket, kind="stable")
        table = to_table(events.take(rows), order[rows] if len(order) else order)
        numbers, begin = np.unique(bucket[rows], return_index=True)
        for number, low, high in zip(numbers.tolist(), begin.tolist(), [*begin[1:].tolist(), len(rows)], strict=True):
            self._held.setdefault(number, []).append(table.slice(low, high - low))
            self.rows[number] = self.rows.get(number, 0) + high - low
        self._held_bytes += table.nbytes
        if self._held_bytes >= HELD_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is held and close the files."""
        try:
            self._flush()
        finally:
            with writing_to(self._folder):
                for writer in self._writers.values():
                    writer.close()

    def _flush(self) -> None:
        with writing_to(self._folder):
            for number, slices in self._held.items():
                table = pa.concat_tables(slices).combine_chunks()
                if number not in self._writers:
                    options = pa.ipc.IpcWriteOptions(compression="lz4")
                    path = str(bucket_path(self._folder, number))
                    self._writers[number] = _Stream(path, table.schema, options)
                self._writers[number].write(table)
        self._held = {}
        self._held_bytes = 0


class _Stream:
    """An Arrow IPC stream and its file."""

    def __init__(self, path: str, schema: Any, options: Any) -> None:
        self._file = pa.OSFile(path, "wb")
        self._writer = pa.ipc.new_stream(self._file, schema, options=options)

    def write(self, table: Any) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()
        self._file.close()


def bucket_path(folder: Path, number: int) -> Path:
    """A bucket's file."""
    return folder / f"{number:06d}.arrow"


def load_bucket(path: Path, rows: int, load_rows: int) -> Iterator[Events]:
    """A bucket's events in arrival order, user by user or all together, in pieces of at most ``load_rows`` rows.

    A larger bucket is cut into files beside its own, which are deleted as they are loaded, like the bucket's.
    """
    bucket = _BucketFile(path, rows)
    if rows <= load_rows:
        [table] = list(read_batches(bucket, max(rows, 1))) if rows else [None]
        path.unlink()
        if table is not None:
            yield _in_order(table)
        return
    key, splits = bucket.find_cut(load_rows)
    if key is None:  # one user, in the order of rows, or of one place
        for table in read_batches(bucket, load_rows):
            yield _in_order(table)
        path.unlink()
        return
    folder = path.with_suffix("")
    folder.mkdir()
    writer = BucketWriter(folder)
    for table in read_batches(bucket, load_rows):
        events, order = from_table(table)
        writer.add(events, np.searchsorted(splits, events.user_id if key == USER_ID else order, "right"), order)
    writer.close()
    path.unlink()
    for number in sorted(writer.rows):
        yield from load_bucket(bucket_path(folder, number), writer.rows[number], load_rows)
    folder.rmdir()


def _in_order(table: Any) -> Events:
    events, order = from_table(table)
    return events.take(np.argsort(order, kind="stable")) if len(order) else events


class _BucketFile:
    """A bucket's file as a source of rows (:class:`uihkv.formats.source.Source`)."""

    holds_lists = True

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        self.rows = rows
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            self.schema = reader.schema
        self.names = list(self.schema.names)

    def scan(self, columns: Iterable[str], first_row: int) -> Iterator[Any]:
        fields = [self.names.index(name) for name in columns]
        with pa.OSFile(str(self.path)) as file:
            reader = pa.ipc.open_stream(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
            yield from reader

    def find_cut(self, load_rows: int) -> tuple[str | None, Int64s]:
        """The column to cut by and where, so that no part holds all; None: rows that nothing tells apart."""
        for key in (name for name in (USER_ID, _ORDER) if name in self.names):
            sample = UserSample(self.rows)
            low, high = _INT64.max, _INT64.min
            for piece in self.scan([key], 0):
                values = piece.column(0).to_numpy()
                sample.add(values)
                low, high = min(low, int(values.min())), max(high, int(values.max()))
            if low == high:
                continue
            splits = _find_splits(np.sort(sample.drawn()), -(-self.rows // int(max(_FILL * load_rows, 1))))
            splits = splits[splits > low]
            if not len(splits):  # one value is all that was drawn: it against the others
                only = int(sample.drawn()[0])
                splits = np.array([value for value in (only, only + 1) if low < value <= high], np.int64)
            return key, splits
        return None, np.empty(0, np.int64)


def to_table(events: Events, order: Int64s) -> Any:
    """Events as an Arrow table, with their places in the arrival order where there are any."""
    columns: dict[str, Any] = {USER_ID: events.user_id, TS: events.ts, VISIBLE_AT: events.visible_at}
    if len(order):
        columns[_ORDER] = order
    if events.names is not None:
        columns[_NAME] = events.names.to_arrow()
    arrays = {name: values if name == _NAME else pa.array(values) for name, values in columns.items()}
    for name, values in events.columns.items():
        if name in events.lists:
            array = pa.LargeListArray.from_arrays(events.lists[name], pa.array(values))
        else:
            array = pa.array(values.reshape(-1))
            for extent in reversed(values.shape[1:]):
                array = pa.FixedSizeListArray.from_arrays(array, extent)
        arrays[f"column {name}"] = array
    return pa.table(arrays)


def from_table(table: Any) -> tuple[Events, Int64s]:
    """What :func:`to_table` made a table of."""
    columns: dict[str, NDArray[Any]] = {}
    lists: dict[str, Int64s] = {}
    clocks: dict[str, Int64s] = {}
    names = None
    for name, column in zip(table.schema.names, table.columns, strict=True):
        array = column.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks)
        if name == _NAME:
            names = parse_names(array)
            continue
        given = name.removeprefix("column ")
        if pa.types.is_large_list(array.type):
            offsets = array.offsets.to_numpy()
            lists[given] = offsets - offsets[0]
            columns[given] = _values_of(array.flatten())
            continue
        shape = []
        while pa.types.is_fixed_size_list(array.type):
            shape.append(array.type.list_size)
            array = array.flatten()
        values = _values_of(array).reshape(-1, *shape) if shape else _values_of(array)
        (clocks if given == name else columns)[given] = values
    events = Events(clocks[USER_ID], clocks[TS], clocks[VISIBLE_AT], columns, lists, names)
    return events, clocks.get(_ORDER, np.empty(0, np.int64))


def _values_of(array: Any) -> NDArray[Any]:
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn a full disk into our error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error):
            raise StoreFullError(
                f"no space left for the rows that are grouped in {folder} ({error}); "
                "make room, or name another folder as scratch"
            ) from error
        raise
