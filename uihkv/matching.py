"""Which columns of event files a store takes, under which names, checked by name and type before a row is read.

A planned file knows how to read itself as batches of the store's columns (:class:`RowBatch`), with visible times and
places in the arrival order beside them where the caller named columns for those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uihkv.dtypes import BFLOAT16, BYTES, STRING
from uihkv.errors import SchemaError
from uihkv.events import Events, cast_exactly, parse_events
from uihkv.formats import Format, open_source
from uihkv.formats.source import Source, Wanted, as_ticks, read_batches
from uihkv.schema import TS, USER_ID, Column, Schema
from uihkv.texts import is_text

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows of a file.

    Attributes:
        path: the file.
        begin, end: which of its rows.
        data: the store's columns by name, as ``append`` takes them.
        visible: an Arrow column of visible times; None: ``ts``.
        order: an Arrow column of places in the arrival order; None: the order of rows.

    """

    path: Path
    begin: int
    end: int
    data: Mapping[str, Any]
    visible: Any
    order: Any

    @contextmanager
    def located(self) -> Iterator[None]:
        """Name the file and its rows in errors about values."""
        try:
            yield
        except SchemaError as error:
            raise SchemaError(f"{self.path}, rows {self.begin} to {self.end - 1}: {error}") from error

    def parse(self, schema: Schema) -> Events:
        """The rows as events.

        Raises:
            SchemaError: for values that do not fit, with the file and the rows.

        """
        with self.located():
            events = parse_events(schema, self.data, self.visible)
        return replace(events, visible_at=events.ts.copy()) if self.visible is None else events

    def parse_order(self, name: str | None) -> Int64s:
        """Places in the arrival order: int64[n], or empty where rows are in it.

        Raises:
            SchemaError: for nulls, integers past int64 and times past what nanoseconds in int64 reach.

        """
        if self.order is None:
            return np.empty(0, np.int64)
        with self.located():
            if self.order.null_count:
                raise SchemaError(f"column {name!r}: a null has no place in the arrival order; fill or drop it")
            ticks = as_ticks(self.order, "ns", str(name))
            return cast_exactly(ticks.to_numpy(), np.dtype(np.int64), str(name))


@dataclass(frozen=True, slots=True)
class EventFile:
    """A file, which of its columns the store takes, and under which names.

    Attributes:
        source: the file.
        columns: names in the file → names in the store.
        visible_at: the file's column of visible times.
        order_by: the file's column of places in the arrival order.

    """

    source: Source
    columns: Mapping[str, str]
    visible_at: str | None
    order_by: str | None

    def read(self, time_unit: str, batch_rows: int, first_row: int = 0) -> Iterator[RowBatch]:
        """Batches of ``batch_rows`` rows, from a row on."""
        extra = [name for name in (self.visible_at, self.order_by) if name is not None]
        wanted = list(dict.fromkeys([*self.columns, *extra]))
        end = first_row
        for table in read_batches(self.source, batch_rows, columns=wanted, first_row=first_row):
            begin, end = end, end + table.num_rows
            batch = RowBatch(self.source.path, begin, end, {}, None, None)
            with batch.located():
                data = {
                    name: as_ticks(table.column(given), time_unit, given) if name == TS else table.column(given)
                    for given, name in self.columns.items()
                }
                visible = None
                if self.visible_at is not None:
                    visible = as_ticks(table.column(self.visible_at), time_unit, self.visible_at)
            order = None if self.order_by is None else table.column(self.order_by)
            yield replace(batch, data=data, visible=visible, order=order)

    def read_users(self, batch_rows: int, first_row: int) -> Iterator[Any]:
        """The column of user ids alone, in batches."""
        given = next(given for given, name in self.columns.items() if name == USER_ID)
        for table in read_batches(self.source, batch_rows, columns=[given], first_row=first_row):
            yield table.column(0)


def remaining(files: Sequence[EventFile], done: int) -> Iterator[tuple[EventFile, int, int]]:
    """Files with rows past the first ``done`` of all: the file, rows of those before it, its first row wanted."""
    start = 0
    for file in files:
        if start + file.source.rows > done:
            yield file, start, max(done - start, 0)
        start += file.source.rows


def match_files(
    schema: Schema,
    paths: Sequence[Path],
    *,
    format: Format | None,
    visible_at: str | None,
    order_by: str | None,
    rename: Mapping[str, str],
) -> tuple[list[EventFile], tuple[str, ...]]:
    """Match every file's columns with the schema's; also the columns that no file needs, sorted.

    Raises:
        FormatError: for a file that cannot be read.
        SchemaError: for columns that are missing or of a type that no value of the store's column can have.

    """
    unknown = sorted(set(rename.values()) - {USER_ID, TS, *schema.names})
    if unknown:
        raise SchemaError(
            f"rename gives columns the names {unknown}; the store has user_id, ts, {', '.join(schema.names)}"
        )
    wanted = _wanted(schema, visible_at, order_by, rename)
    files: list[EventFile] = []
    ignored: set[str] = set()
    for path in paths:
        source = open_source(path, wanted, format)
        columns = _match_columns(schema, source, rename)
        for name, what in ((visible_at, "visible times"), (order_by, "the arrival order")):
            if name is not None:
                if name not in source.names:
                    raise SchemaError(f"{path}: no column {name!r} for {what}; the file has {', '.join(source.names)}")
                _check_type(source, Column("visible", "int64"), name, clock=True)
        ignored.update(set(source.names) - set(columns) - {visible_at, order_by})
        files.append(EventFile(source, columns, visible_at, order_by))
    if order_by is not None:
        kinds = {pa.types.is_timestamp(file.source.schema.field(order_by).type) for file in files}
        if len(kinds) > 1:
            raise SchemaError(f"column {order_by!r} is an integer in some files and a time in others; write them alike")
    return files, tuple(sorted(ignored))


def _wanted(schema: Schema, visible_at: str | None, order_by: str | None, rename: Mapping[str, str]) -> Wanted:
    """The types for formats that have none, by the names in the files."""
    given = {name: name for name in (USER_ID, TS, *schema.names)}
    types = {}
    for file_name, name in {**given, **rename}.items():
        types[file_name] = _arrow_type(_column_of(schema, name))
    clocks = {file_name for file_name in types if rename.get(file_name, file_name) == TS}
    return Wanted(types, frozenset(clocks | {name for name in (visible_at, order_by) if name is not None}))


def _column_of(schema: Schema, name: str) -> Column:
    """What a column of the store holds, those that every event has included."""
    if name == USER_ID:
        return Column("_", schema.user_id)
    return Column("_", "int64") if name == TS else schema[name]


def _arrow_type(column: Column) -> Any:
    """The Arrow type that one element of a column is read as from text."""
    others = {BFLOAT16: pa.float32(), STRING: pa.string(), BYTES: pa.binary()}
    return others[column.dtype] if column.dtype in others else pa.from_numpy_dtype(column.numpy_dtype)


def _match_columns(schema: Schema, source: Source, rename: Mapping[str, str]) -> dict[str, str]:
    """Names in the file → names in the store, of the columns that the store takes."""
    names = source.names
    absent = sorted(set(rename) - set(names))
    if absent:
        raise SchemaError(f"{source.path}: no columns {absent} to rename; the file has {', '.join(names)}")
    wanted = {USER_ID, TS, *schema.names}
    columns: dict[str, str] = {}
    for given in names:
        name = rename.get(given, given)
        if name not in wanted:
            continue
        if name in columns.values():
            raise SchemaError(f"{source.path}: two columns for {name!r}, one of them renamed; rename or drop the other")
        columns[given] = name
    for name in (USER_ID, TS, *schema.names):
        if name not in columns.values() and (name in (USER_ID, TS) or schema[name].default is None):
            raise SchemaError(
                f"{source.path}: no column {name!r}, which every event needs; the file has "
                f"{', '.join(names)}: rename one, or add it"
            )
    for given, name in columns.items():
        column = _column_of(schema, name)
        if not source.holds_lists and (column.ragged or column.shape):
            raise SchemaError(
                f"{source.path}: column {given!r} holds a list an event, which this format cannot; "
                "write the file as Parquet or Arrow"
            )
        _check_type(source, column, given, clock=name == TS)
    return columns


def _check_type(source: Source, column: Column, given: str, *, clock: bool = False) -> None:
    """Refuse an Arrow type that no value of the column can have."""
    found = leaf = source.schema.field(given).type
    extents: list[int] = []
    lists = 0
    while _is_list(leaf):
        extents.append(leaf.list_size if pa.types.is_fixed_size_list(leaf) else -1)
        leaf, lists = leaf.value_type, lists + 1
    kind = column.numpy_dtype.kind
    fits = (
        (column.coded and is_text(leaf))
        or (kind == "b" and pa.types.is_boolean(leaf))
        or (kind in "iuf" and not column.coded and pa.types.is_integer(leaf))
        or ((kind == "f" or column.dtype == BFLOAT16) and pa.types.is_floating(leaf))
        or (clock and pa.types.is_timestamp(leaf))
    )
    if column.ragged:
        fits = fits and lists == 1 and extents == [-1]
    elif column.shape:
        one_list = lists == 1 and extents[0] in (-1, column.elements)
        fits = fits and (one_list or tuple(extents) == column.shape)
    else:
        fits = fits and lists == 0
    if not fits:
        wanted = f"a list of {column.dtype}" if column.ragged else column.dtype
        if column.shape:
            wanted = f"{column.dtype} of shape {column.shape}"
        raise SchemaError(
            f"{source.path}: column {given!r} is {found}, {wanted} is expected; nothing is cast with loss, so "
            "write the file with that type"
        )


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
