"""Lines of text as Arrow arrays, in one call a block, and the checks that every batch of events passes.

JSON is parsed by Arrow's own reader, single-threaded and with the types given, so that nothing is guessed; delimited
text in the same way by :mod:`uihkv.importers.delimited`. What a format's words mean (``"carts"``, ``"U13740"``) is
looked up here for whole arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pjson

from uihkv.errors import SchemaError
from uihkv.importers.protocol import BadLines
from uihkv.schema import Schema


def parse_json(data: bytes, fields: Any) -> pa.Table:
    """Columns of lines that are JSON objects each; fields that are not named are passed over, absent ones are null.

    Raises:
        pa.ArrowInvalid: for a line that is not a JSON object, or a value not of its type.

    """
    table = pjson.read_json(
        pa.BufferReader(data),
        read_options=pjson.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pjson.ParseOptions(explicit_schema=fields, unexpected_field_behavior="ignore"),
    )
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if table.num_rows != lines:
        lines = sum(1 for line in data.split(b"\n") if line.strip())
        if table.num_rows != lines:
            raise pa.ArrowInvalid("not an object a line")
    return table.select(fields.names)


def find_codes(name: str, values: Any, words: Sequence[str]) -> Any:
    """The place of each value among words: uint8.

    Raises:
        SchemaError: for a value that is none of them.

    """
    codes = pc.index_in(_combine(values), value_set=pa.array(list(words), pa.string()))
    if codes.null_count:
        odd = _combine(values)[codes.is_null().index(True).as_py()].as_py()
        raise SchemaError(f"{name} is {odd!r}; one of {', '.join(words)} is expected")
    return codes.cast(pa.uint8())


def strip_letter(name: str, values: Any, letter: str) -> Any:
    """Numbers of ids that are one letter and a number: int64.

    Raises:
        SchemaError: for other ids.

    """
    array = _combine(values)
    fits = pc.match_substring_regex(array, f"^{letter}[0-9]+$")
    if len(array) and not pc.all(fits, min_count=0).as_py():
        odd = array[fits.index(False).as_py()].as_py()
        raise SchemaError(f"{name} is {odd!r}; {letter} and a number is expected")
    return pc.utf8_slice_codeunits(array, 1).cast(pa.int64())


def make_events(columns: Mapping[str, Any]) -> pa.RecordBatch:
    """A batch of events, checked: no nulls, no time before 1970.

    Raises:
        SchemaError: naming the column.

    """
    arrays = {name: _combine(values) for name, values in columns.items()}
    for name, array in arrays.items():
        if array.null_count or (pa.types.is_list(array.type) and array.flatten().null_count):
            raise SchemaError(f"{name} is missing")
    for name in ("ts", "visible_at"):
        if name in arrays and len(arrays[name]):
            low = pc.min(arrays[name]).as_py()
            if low < 0:
                raise SchemaError(f"{name} is {low}; times are 0 or more")
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def arrow_type(schema: Schema, name: str) -> Any:
    """The Arrow type of a schema's column without a shape."""
    column = schema[name]
    kinds = {"bfloat16": pa.float32(), "bytes": pa.large_binary(), "string": pa.large_string()}
    kinds |= {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64(), "bool": pa.bool_()}
    kind = kinds.get(column.dtype) or getattr(pa, column.dtype)()
    return pa.list_(kind) if column.ragged else kind


def _combine(values: Any) -> Any:
    """One array of a chunked one."""
    if isinstance(values, pa.ChunkedArray):
        return (
            values.chunk(0)
            if values.num_chunks == 1
            else pa.concat_arrays(values.chunks or [pa.array([], values.type)])
        )
    return values


def parse_rows(
    path: Path, table: pa.Table, first_row: int, parse: Callable[[pa.Table], pa.RecordBatch], bad: BadLines
) -> Iterator[pa.RecordBatch]:
    """What rows of a Parquet file mean, in one piece, or around the rows that are bad; rows count from 0."""
    try:
        events = parse(table)
    except (pa.ArrowException, SchemaError) as error:
        if table.num_rows == 1:
            bad.refuse(path, f"row {first_row}", str(error))
            return
        middle = table.num_rows // 2
        yield from parse_rows(path, table.slice(0, middle), first_row, parse, bad)
        yield from parse_rows(path, table.slice(middle), first_row + middle, parse, bad)
        return
    yield events
