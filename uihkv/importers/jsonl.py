"""JSON lines of any fields: an object a line, and a mapping of its fields to a store's columns.

A field is found under the column's own name, or under the one that ``rename`` gives; dots reach into nested objects:
``rename={"payload.product.id": "item_id"}``. Fields that are not named are passed over. Absent and null ones take the
column's default, and make a bad line where it has none. Numbers must fit their columns; decimals become the nearest
float that a column holds. Ragged columns, and those of a shape, are flat lists.

``time`` says what ``ts`` and the visible times are: integers in the store's unit (None), integers in ``"s"``,
``"ms"``, ``"us"`` or ``"ns"``, or ``"iso"``: text such as ``2024-05-01T12:00:00.250Z``, in UTC where it names no
zone. What is not whole in the store's unit makes a bad line. Rows are in arrival order, unless the import is told
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from uihkv.errors import SchemaError
from uihkv.importers.lines import parse_block, read_blocks
from uihkv.importers.protocol import BadLines, Order, Part, clock_columns
from uihkv.importers.tables import arrow_type, make_events, parse_json
from uihkv.schema import TIME_UNITS, TS, USER_ID, VISIBLE_AT, Column, Schema

ISO = "iso"


@dataclass(frozen=True)
class JsonLines:
    """The importer.

    Args:
        columns: the schema of the events; the command line takes the store's, or a file's.
        rename: fields of the file, dots between the names of nested ones → columns of the store.
        time: what times are: None, a unit, or ``"iso"``.
        visible_at: the field of visible times; None: events are visible at their ``ts``.

    Raises:
        SchemaError: for another ``time``, or a mapping that cannot be.

    """

    name: ClassVar[str] = "jsonl"
    order: ClassVar[Order] = "rows"

    columns: Schema
    rename: Mapping[str, str] = field(default_factory=dict)
    time: str | None = None
    visible_at: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.columns, Schema):
            raise SchemaError(f"{type(self.columns).__name__} given as columns; a uihkv.Schema is expected")
        if self.time is not None and self.time not in (*TIME_UNITS, ISO):
            raise SchemaError(f"time is {self.time!r}; None, {', '.join(TIME_UNITS)} or {ISO} is expected")
        known = {USER_ID, TS, *self.columns.names}
        odd = sorted(set(self.rename.values()) - known)
        if odd:
            raise SchemaError(f"rename gives fields the names {odd}; the store has {', '.join(sorted(known))}")
        if len(set(self.rename.values())) != len(self.rename):
            raise SchemaError("two fields are renamed to one column; name one of them")
        _nest(self._types())

    def schema(self, files: Sequence[Path]) -> Schema:
        """The schema that it was given."""
        return self.columns

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """An object a line, an event each."""
        fields = _nest(self._types())

        def parse(data: bytes, _: int) -> pa.RecordBatch:
            return self._build(parse_json(data, fields))

        for number, path in enumerate(files):
            for block in read_blocks(path):
                for events in parse_block(path, block, parse, bad):
                    yield Part(events, number, block.share)

    def _paths(self) -> dict[str, str]:
        """Columns of events → fields of the file."""
        given = {column: path for path, column in self.rename.items()}
        paths = {name: given.get(name, name) for name in (USER_ID, TS, *self.columns.names)}
        return paths if self.visible_at is None else {**paths, VISIBLE_AT: self.visible_at}

    def _types(self) -> dict[str, Any]:
        """Fields of the file → the types that they are read as."""
        clock = pa.string() if self.time == ISO else pa.int64()
        types = {**clock_columns(self.columns), TS: clock, VISIBLE_AT: clock}
        types |= {column.name: _read_type(self.columns, column) for column in self.columns.columns}
        read: dict[str, Any] = {}
        for name, path in self._paths().items():
            if read.setdefault(path, types[name]) != types[name]:
                raise SchemaError(
                    f"field {path!r} is read as {read[path]} and {types[name]}; name another for one of them"
                )
        return read

    def _build(self, table: pa.Table) -> pa.RecordBatch:
        events = {name: _reach(table, path) for name, path in self._paths().items()}
        for column in self.columns.columns:
            values = events[column.name]
            if values.null_count and column.default is not None:
                values = _fill(values, column)
            if column.dtype == "float16" and not (column.ragged or column.shape):
                values = values.cast(pa.float16(), safe=False)
            if (
                column.shape
                and len(values)
                and not pc.all(pc.equal(pc.list_value_length(values), column.elements)).as_py()
            ):
                raise SchemaError(f"{column.name} has not {column.elements} elements")
            events[column.name] = values
        for name in (TS, VISIBLE_AT):
            if name in events:
                events[name] = _as_unit(events[name], self.time, self.columns.time_unit)
        return make_events(events)


def _read_type(schema: Schema, column: Column) -> Any:
    kind = arrow_type(schema, column.name)
    if column.dtype == "float16":  # Arrow's reader has no half floats
        kind = pa.list_(pa.float32()) if column.ragged else pa.float32()
    return pa.list_(kind) if column.shape else kind


def _fill(values: Any, column: Column) -> Any:
    if column.ragged:
        return pa.array([[] if value is None else value for value in values.to_pylist()], values.type)
    if column.shape:
        filled = [column.default] * column.elements
        return pa.array([filled if value is None else value for value in values.to_pylist()], values.type)
    return pc.fill_null(values, pa.scalar(column.default, values.type))


def _nest(types: Mapping[str, Any]) -> Any:
    """The Arrow schema of objects with these fields, whose names have dots where they are nested."""
    tree: dict[str, Any] = {}
    for path, kind in types.items():
        *outer, last = path.split(".")
        place = tree
        for name in outer:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise SchemaError(f"field {path!r} is in another that is a value itself; name one of them")
        if last in place:
            raise SchemaError(f"field {path!r} is an object and a value; name one of them")
        place[last] = kind

    def fields(place: Mapping[str, Any]) -> list[Any]:
        return [
            pa.field(name, pa.struct(fields(kind)) if isinstance(kind, dict) else kind) for name, kind in place.items()
        ]

    return pa.schema(fields(tree))


def _reach(table: pa.Table, path: str) -> Any:
    outer, *inner = path.split(".")
    values = table.column(outer)
    return pc.struct_field(values, inner) if inner else values


def _as_unit(values: Any, time: str | None, unit: str) -> Any:
    """Times as whole ticks of a unit.

    Raises:
        SchemaError: for text that is no time, or times that are not whole in the unit.
        pa.ArrowInvalid: for times that int64 cannot hold.

    """
    if time == ISO:
        zoned = pc.match_substring_regex(values, "(Z|[+-][0-9]{2}:?[0-9]{2})$")
        text = pc.if_else(zoned, values, pc.binary_join_element_wise(values, "Z", ""))
        return text.cast(pa.timestamp(unit, "UTC")).cast(pa.int64())
    if time is None or time == unit:
        return values
    given, wanted = TIME_UNITS[time], TIME_UNITS[unit]
    if wanted >= given:
        return pc.multiply_checked(values, wanted // given)
    ticks = pc.divide(values, given // wanted)
    if not pc.all(pc.equal(pc.multiply(ticks, given // wanted), values)).as_py():
        raise SchemaError(f"a time is not whole in {unit}, the store's unit")
    return ticks
