"""Columns of events that are no longer, or not yet, in a store: take rows, put together, compare, to Arrow.

Flat arrays by name, as a read gives them: of a column without lists ``values: [n, *shape]``, of a ragged one all its
elements and ``int64[n+1]`` offsets of the events' lists. Whose events they are, and which versions, is the caller's to
know.

Invariant: nothing is cast; what is compared is bits, so NaN equals itself and 0.0 is not -0.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uihkv.dtypes import STRING
from uihkv.errors import SchemaError
from uihkv.events import Events
from uihkv.histories import Histories
from uihkv.kernels.plan import gather_lists
from uihkv.schema import TS, VISIBLE_AT, Column, Schema

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]
Array = NDArray[Any]

_MOST_ELEMENTS = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class EventColumns:
    """n events as flat columns.

    Attributes:
        rows: n.
        values: by name ``[n, *shape]``; of varying columns the elements of all events.
        lists: int64[n+1], by name, where the elements of each event of a varying column begin; from 0.

    """

    rows: int
    values: Mapping[str, Array]
    lists: Mapping[str, Int64s]

    def __len__(self) -> int:
        return self.rows

    def __contains__(self, name: object) -> bool:
        return name in self.values

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.values)

    @classmethod
    def of_histories(cls, histories: Histories) -> EventColumns:
        """All events of a read, row after row; the arrays are not copied."""
        inner = {name: histories.element_offsets(name) for name in histories}
        return cls(
            int(histories.offsets[-1]),
            {name: histories.values(name) for name in histories},
            {name: offsets for name, offsets in inner.items() if offsets is not None},
        )

    @classmethod
    def of_events(cls, events: Events, names: Iterable[str]) -> EventColumns:
        """The named columns of parsed events, the clocks among them."""
        clocks = {TS: events.ts, VISIBLE_AT: events.visible_at}
        wanted = tuple(names)
        return cls(
            len(events),
            {name: clocks[name] if name in clocks else events.columns[name] for name in wanted},
            {name: events.lists[name] for name in wanted if name in events.lists},
        )

    def choose(self, names: Iterable[str]) -> EventColumns:
        """These columns, in this order."""
        wanted = tuple(names)
        return EventColumns(
            self.rows,
            {name: self.values[name] for name in wanted},
            {name: self.lists[name] for name in wanted if name in self.lists},
        )

    def take(self, rows: Int64s) -> EventColumns:
        """These rows, int64[m], in this order."""
        values: dict[str, Array] = {}
        lists: dict[str, Int64s] = {}
        for name, column in self.values.items():
            offsets = self.lists.get(name)
            if offsets is None:
                values[name] = column[rows]
                continue
            moved = np.zeros(len(rows) + 1, np.int64)
            np.cumsum(np.diff(offsets)[rows], out=moved[1:])
            elements = np.empty(int(moved[-1]), column.dtype)
            width = column.dtype.itemsize
            gather_lists(
                np.ascontiguousarray(column).view(np.uint8), offsets, rows, moved, width, elements.view(np.uint8)
            )
            values[name], lists[name] = elements, moved
        return EventColumns(len(rows), values, lists)

    @classmethod
    def concat(cls, first: EventColumns, second: EventColumns) -> EventColumns:
        """The events of both, in order; columns are those of ``first``, and ``second`` has them too."""
        return cls(
            first.rows + second.rows,
            {name: np.concatenate([values, second.values[name]]) for name, values in first.values.items()},
            {
                name: np.concatenate([offsets, second.lists[name][1:] + offsets[-1]])
                for name, offsets in first.lists.items()
            },
        )

    def differs(self, other: EventColumns, name: str) -> Bools:
        """For each event, whether the two have other bits in a column: bool[n]."""
        mine, theirs = self.values[name], other.values[name]
        offsets = self.lists.get(name)
        if offsets is None:
            if mine.dtype != theirs.dtype or mine.shape != theirs.shape:
                return np.ones(self.rows, np.bool_)
            bits = _as_bytes(mine) != _as_bytes(theirs)
            return np.asarray(bits.reshape(self.rows, -1).any(axis=1))
        length = np.diff(offsets)
        differs: Bools = np.asarray(length != np.diff(other.lists[name]))
        same = np.flatnonzero(~differs)
        left, right = self.choose([name]).take(same), other.choose([name]).take(same)
        odd = (_as_bytes(left.values[name]) != _as_bytes(right.values[name])).any(axis=1)
        differs[np.repeat(same, length[same])[odd]] = True
        return differs

    def histories(self, offsets: Int64s, dtypes: Mapping[str, str]) -> Histories:
        """These events as the sequences of B pointers: ``offsets: int64[B+1]``; ``dtypes``: of the columns."""
        return Histories(offsets, self.values, self.lists, dtypes=dtypes)

    def to_arrow(self, schema: Schema, name: str) -> Any:
        """A column as an Arrow array of n values, (nested) fixed-size lists, lists, strings or binaries.

        Raises:
            SchemaError: for lists of more elements than one Arrow array can index.

        """
        values = self.values[name]
        if name in (TS, VISIBLE_AT):
            return pa.array(values)
        column = schema[name]
        offsets = self.lists.get(name)
        if column.coded and offsets is not None:
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(values))]
            return pa.Array.from_buffers(arrow_type(schema, name), self.rows, buffers)
        if offsets is not None:
            if offsets[-1] > _MOST_ELEMENTS:
                raise SchemaError(f"column {name!r}: {int(offsets[-1])} elements in one batch; write smaller batches")
            return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))
        flat = pa.array(values.reshape(-1))
        for extent in reversed(column.shape):
            flat = pa.FixedSizeListArray.from_arrays(flat, extent)
        return flat


def arrow_type(schema: Schema, name: str) -> Any:
    """The Arrow type that :meth:`EventColumns.to_arrow` gives a column."""
    if name in (TS, VISIBLE_AT):
        return pa.int64()
    column = schema[name]
    if column.coded:
        return pa.large_string() if column.dtype == STRING else pa.large_binary()
    kind = pa.from_numpy_dtype(column.numpy_dtype)
    if column.ragged:
        return pa.list_(kind)
    for extent in reversed(column.shape):
        kind = pa.list_(kind, extent)
    return kind


def restrict_schema(schema: Schema, names: Iterable[str]) -> Schema:
    """A schema of those of its columns that are named; at least one, so a nameless one stands in where none is."""
    wanted = set(names)
    columns = [column for column in schema.columns if column.name in wanted]
    return Schema(columns or [Column("_", "bool", default=False)], schema.time_unit, schema.user_id)


def _as_bytes(values: Array) -> NDArray[np.uint8]:
    """Elements as their bytes: uint8[elements, itemsize]."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat.view(np.uint8).reshape(len(flat), values.dtype.itemsize)
