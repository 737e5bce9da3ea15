"""How a store's schema may change while its chunks stay as they are.

Three steps, each from the schema in force to the next: a column more, a column fewer, a column of a wider type. Each
keeps what old chunks say readable, without a look at them: a column that an old chunk lacks reads as its default,
a dropped one is not looked at, and a wider type holds every number of the narrower exactly. Columns are told
apart by their ids and not their names, so that a name given again is another column.

What it leaves to others: to store the history of schemas is :mod:`uihkv.manifest`'s, to do it safely beside other
writers the store's, and to decode across versions :mod:`uihkv.codec`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uihkv.dtypes import BFLOAT16, CODED
from uihkv.errors import SchemaError
from uihkv.schema import Column, Schema

MAX_SCHEMAS = 1 << 16
"""Schema versions that a chunk's header can name."""


def with_column(history: Sequence[Schema], column: Column) -> Schema:
    """The newest schema with one column more, last in order.

    Args:
        history: every schema the store has had, oldest first.
        column: new to the schema in force. Its default is what older events read as; a ragged column needs none,
            they hold an empty list.

    Raises:
        SchemaError: for a name that is taken, or a column without a default.

    """
    schema = history[-1]
    if not isinstance(column, Column):
        raise SchemaError(f"{column!r} is not a Column; write add_column(Column('surface', 'uint8', default=0))")
    if column.name in schema:
        raise SchemaError(
            f"column {column.name!r} exists; choose another name, drop it first, or widen it with widen_column"
        )
    if column.default is None and not column.ragged:
        raise SchemaError(
            f"column {column.name!r} has no default, which the events already stored would read as; write "
            f"Column({column.name!r}, {column.dtype!r}, default=...)"
        )
    fresh = 1 + max(number for earlier in history for number in earlier.ids)
    return _evolved(schema, (*schema.columns, column), (*schema.ids, fresh))


def without_column(history: Sequence[Schema], name: str) -> Schema:
    """The newest schema without one of its columns.

    Raises:
        SchemaError: for a column that it does not have, or its only one.

    """
    schema = history[-1]
    dropped = schema[name]
    if len(schema.columns) == 1:
        raise SchemaError(f"column {name!r} is the only one; add another before you drop it")
    kept = [(column, number) for column, number in zip(schema.columns, schema.ids, strict=True) if column != dropped]
    return _evolved(schema, [column for column, _ in kept], [number for _, number in kept])


def with_wider_column(history: Sequence[Schema], name: str, dtype: str) -> Schema:
    """The newest schema with one of its columns in a wider type.

    Raises:
        SchemaError: for a column that it does not have, or a type that does not hold each of its values exactly.

    """
    schema = history[-1]
    column = schema[name]
    wider = Column(name, dtype, ragged=column.ragged, shape=column.shape)  # refuses what is no type at all
    if not _holds_all(wider, column):
        raise SchemaError(
            f"column {name!r} is {column.dtype}, and {dtype} is not a wider type that holds each of its values "
            "exactly; integers widen to wider integers of the same sign, unsigned ones also to wider signed ones, and "
            "floats to wider floats"
        )
    wider = Column(name, dtype, default=column.default, ragged=column.ragged, shape=column.shape)
    return _evolved(schema, [wider if each.name == name else each for each in schema.columns], schema.ids)


def _holds_all(wider: Column, column: Column) -> bool:
    """Whether the decoder can give every value of one type, exactly, in another."""
    old, new = column.numpy_dtype, wider.numpy_dtype
    return (
        {"bool", BFLOAT16, *CODED}.isdisjoint((column.dtype, wider.dtype))
        and new.itemsize > old.itemsize
        and bool(np.can_cast(old, new))
        and (old.kind == "f") == (new.kind == "f")
    )


def _evolved(schema: Schema, columns: Sequence[Column], ids: Sequence[int]) -> Schema:
    return Schema(columns, time_unit=schema.time_unit, user_id=schema.user_id, ids=ids)
