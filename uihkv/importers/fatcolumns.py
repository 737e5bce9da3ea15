"""Which columns of a Parquet file are the histories of fat rows, and how they are read.

Histories are list columns of numbers, bools or strings, a list a row, of one length in all of them. They are named
one by one, or by a prefix that the store's names lack. One may be ``ts``; without it, an event's place in its history
takes that part. One may be ``visible_at``. All other columns belong to the example and stay with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uihkv.errors import PointerError, SchemaError
from uihkv.formats.source import Source, as_ticks
from uihkv.pointers import as_user_ids
from uihkv.schema import TS, USER_ID, VISIBLE_AT, Column, Schema
from uihkv.texts import is_text
from uihkv.userids import INT64, STRING, UserIds

Int64s = NDArray[np.int64]

_TAKEN = ("version", "last_ts")


@dataclass(frozen=True, slots=True)
class FatColumns:
    """The parts that a file's columns play.

    Attributes:
        user: the file's column of users.
        asked: its column of the requests' moments; None where it has none.
        histories: its history columns → names in the store, which may be ``ts`` and ``visible_at``.
        schema: of the store.

    """

    user: str
    asked: str | None
    histories: Mapping[str, str]
    schema: Schema

    @property
    def timed(self) -> bool:
        """Whether events have times of their own."""
        return TS in self.histories.values()

    @property
    def wanted(self) -> list[str]:
        """Columns that histories are made of."""
        return list(dict.fromkeys([self.user, *self.histories, *([self.asked] if self.asked else [])]))

    def kept(self, source: Source) -> list[str]:
        """Columns that stay with the examples."""
        return [name for name in source.names if name not in self.histories]


@dataclass(frozen=True, slots=True)
class FatRows:
    """Some rows, read.

    Attributes:
        user: int64[rows], or strings.
        asked: int64[rows], moments of the requests; None where the file has none.
        offsets: int64[rows + 1], where each row's events begin.
        columns: by the store's names, the events of all rows: numpy arrays, of strings Arrow arrays.

    """

    user: UserIds
    asked: Int64s | None
    offsets: Int64s
    columns: Mapping[str, Any]

    @property
    def events(self) -> int:
        """Events of all rows."""
        return int(self.offsets[-1])


def plan_columns(
    source: Source,
    *,
    user_id: str,
    asked: str | None,
    history: Mapping[str, str] | None,
    prefix: str,
    time_unit: str | None,
) -> FatColumns:
    """Match a file's columns with the parts they play.

    Raises:
        SchemaError: for columns that are not there or of types that cannot be, or names that cannot be.

    """
    for name, wanted in ((user_id, "users"), (asked, "moments"), *((name, "histories") for name in history or {})):
        if name is not None and name not in source.names:
            raise SchemaError(f"{source.path}: no column {name!r} for {wanted}; the file has {', '.join(source.names)}")
    if history is None:
        history = {
            field.name: field.name.removeprefix(prefix)
            for field in source.schema
            if field.name.startswith(prefix) and _is_list(field.type)
        }
    if not history:
        lists = [field.name for field in source.schema if _is_list(field.type)]
        raise SchemaError(
            f"{source.path}: no list columns whose names begin with {prefix!r}; its list columns are "
            f"{', '.join(lists) or 'none'}: name those that are histories (--history past_items=item_id)"
        )
    if len(set(history.values())) != len(history):
        raise SchemaError(f"{source.path}: two history columns for one name of the store; name one of them")
    found = source.schema.field(user_id).type
    if not (pa.types.is_integer(found) or is_text(found)):
        raise SchemaError(f"{source.path}: column {user_id!r} is {found}, integers or strings are expected")
    taken = [name for name in (*_TAKEN, USER_ID) if name in source.names and name != user_id and name not in history]
    if taken:
        raise SchemaError(
            f"{source.path}: it has a column {taken[0]!r} already, which slim examples get; drop or rename it"
        )
    unit = _find_unit(source, history, time_unit)
    columns = [_column_of(source, given, name) for given, name in history.items() if name not in (TS, VISIBLE_AT)]
    for given, name in history.items():
        if name in (TS, VISIBLE_AT):
            leaf = _leaf(source, given)
            if not (pa.types.is_integer(leaf) or pa.types.is_timestamp(leaf)):
                raise SchemaError(f"{source.path}: column {given!r} holds {leaf}, integers or timestamps are expected")
    if not columns:
        raise SchemaError(f"{source.path}: its histories are clocks alone; at least one other column is expected")
    kind = INT64 if pa.types.is_integer(found) else STRING
    return FatColumns(user_id, asked, dict(history), Schema(columns, time_unit=unit, user_id=kind))


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _leaf(source: Source, name: str) -> Any:
    kind = source.schema.field(name).type
    if not _is_list(kind):
        raise SchemaError(f"{source.path}: column {name!r} is {kind}, a list is expected of a history")
    leaf = kind.value_type
    return leaf.value_type if pa.types.is_dictionary(leaf) else leaf


def _column_of(source: Source, given: str, name: str) -> Column:
    leaf = _leaf(source, given)
    if pa.types.is_string(leaf) or pa.types.is_large_string(leaf):
        return Column(name, "string")
    if not (pa.types.is_boolean(leaf) or pa.types.is_integer(leaf) or pa.types.is_floating(leaf)):
        raise SchemaError(
            f"{source.path}: column {given!r} holds {leaf}; histories of numbers, bools and strings can be taken: "
            "leave it out, or convert it first"
        )
    return Column(name, np.dtype(leaf.to_pandas_dtype()).name)


def _find_unit(source: Source, history: Mapping[str, str], time_unit: str | None) -> str:
    """The store's time unit: the one asked for, or that of the events' timestamps, or ms."""
    if time_unit is not None:
        return time_unit
    for given, name in history.items():
        if name == TS and pa.types.is_timestamp(_leaf(source, given)):
            return str(_leaf(source, given).unit)
    return "ms"


def count_values(source: Source, name: str) -> int:
    """Elements of all lists of a column, as the footer counts them: an empty list is one."""
    with pq.ParquetFile(source.path) as file:
        metadata, total = file.metadata, 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group)
            for column in range(rows.num_columns):
                chunk = rows.column(column)
                total += chunk.num_values if chunk.path_in_schema.split(".")[0] == name else 0
        return total


def read_rows(columns: FatColumns, table: pa.Table) -> FatRows:
    """Rows of a file, or of what was kept of it, as arrays.

    Raises:
        SchemaError: for nulls, lists of unequal length in one row, or moments that are not whole in the time unit.

    """
    unit = columns.schema.time_unit
    user = _users(table.column(columns.user), columns.user)
    asked = None
    if columns.asked is not None:
        asked = _integers(as_ticks(table.column(columns.asked), unit, columns.asked), columns.asked)
    offsets: Int64s | None = None
    read: dict[str, Any] = {}
    for given, name in columns.histories.items():
        lists = _one(table.column(given))
        if lists.null_count:
            row = lists.is_null().index(True).as_py()
            raise SchemaError(f"column {given!r}: row {row} is null; write an empty list where there is no history")
        own, flat = _flatten(lists)
        if flat.null_count:
            row = int(np.searchsorted(own, flat.is_null().index(True).as_py(), "right")) - 1
            raise SchemaError(f"column {given!r}: a list in row {row} has nulls; fill or drop them")
        if offsets is not None and not np.array_equal(own, offsets):
            row = int(np.argmax(np.diff(own) != np.diff(offsets)))
            raise SchemaError(
                f"column {given!r}: row {row} has {int(np.diff(own)[row])} elements, the histories before it have "
                f"{int(np.diff(offsets)[row])}; all histories of a row are of one length"
            )
        offsets = own
        read[name] = _values(as_ticks(flat, unit, given) if name in (TS, VISIBLE_AT) else flat, name)
    assert offsets is not None  # there is a history column
    return FatRows(user, asked, offsets, read)


def _one(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _flatten(lists: Any) -> tuple[Int64s, Any]:
    """Where each list begins, from 0, and the elements of all."""
    if pa.types.is_fixed_size_list(lists.type):
        return np.arange(len(lists) + 1, dtype=np.int64) * lists.type.list_size, lists.flatten()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], lists.flatten()


def _values(flat: Any, name: str) -> Any:
    if pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_decode()
    if pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type):
        return flat.cast(pa.large_string())
    values = flat.to_numpy(zero_copy_only=False)
    return values.astype(np.int64) if name in (TS, VISIBLE_AT) else values


def _users(column: Any, name: str) -> UserIds:
    if pa.types.is_integer(column.type):
        return _integers(column, name)
    try:
        return as_user_ids(column.cast(pa.large_string()), name)
    except PointerError as error:
        raise SchemaError(str(error)) from error


def _integers(column: Any, name: str) -> Int64s:
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise SchemaError(f"column {name!r}: row {row} is null; every example needs a user, and a moment where asked")
    if not pa.types.is_integer(column.type):
        raise SchemaError(f"column {name!r} is {column.type}, integers or timestamps are expected")
    try:
        values: Int64s = column.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise SchemaError(f"column {name!r}: {error}; int64 is expected") from error
    return values


def take_events(column: Any, events: Int64s) -> Any:
    """These events of a column."""
    return column.take(pa.array(events)) if isinstance(column, pa.Array) else column[events]


def first_difference(left: Any, right: Any) -> int | None:
    """The first event in which two columns of one length differ in any bit; None: nowhere."""
    if isinstance(left, pa.Array):
        if left.equals(right):
            return None
        return next(n for n, (one, other) in enumerate(zip(left, right, strict=True)) if one != other)
    width = left.dtype.itemsize
    unequal = np.ascontiguousarray(left).view(f"u{width}") != np.ascontiguousarray(right).view(f"u{width}")
    return int(np.argmax(unequal)) if unequal.any() else None


def describe_event(columns: Mapping[str, Any], event: int) -> str:
    """One event, for messages."""
    values: Sequence[str] = [f"{name} {_plain(column[event])}" for name, column in columns.items()]
    return ", ".join(values)


def _plain(value: Any) -> Any:
    return value.as_py() if isinstance(value, pa.Scalar) else value.item()
