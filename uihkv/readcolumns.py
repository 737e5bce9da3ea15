"""What a read needs to know of the columns that it wants, worked out once a schema and choice of columns.

Small batches are read in less time than it takes to look all of this up (``python -m perf.latency``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from uihkv.schema import TS, VISIBLE_AT, Schema

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FixedColumn:
    """A column without lists.

    Attributes:
        name: of it.
        dtype, shape: of an event's elements.
        event_bytes: of them all.

    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    event_bytes: int


@dataclass(frozen=True, slots=True)
class ReadColumns:
    """Some columns, as the schema in force has them and as the blocks of each version hold them.

    Attributes:
        fixed: those without lists.
        dtypes: of those that the schema names, what it says.
        blocks: int64[versions, blocks], every block of the columns, negative where a version lacks it.
        first: int64[versions, fixed], the blocks of ``fixed``, -1 where a version lacks it.
        width, elements: int64[fixed], bytes of an element, and elements of an event.
        default: int64[fixed], the low bytes with which a column is filled where a chunk lacks it.

    """

    fixed: tuple[FixedColumn, ...]
    dtypes: dict[str, str]
    blocks: Int64s
    first: Int64s
    width: Int64s
    elements: Int64s
    default: Int64s

    @classmethod
    def of(cls, schema: Schema, names: Sequence[str], first: Int64s) -> Self:
        """What there is to know of readable columns; ``first``: int64[versions, names], their first blocks."""
        places = [place for place, name in enumerate(names) if name not in schema or not schema[name].varying]
        fixed = []
        for place in places:
            dtype, shape = column_type(schema, names[place])
            fixed.append(FixedColumn(names[place], dtype, shape, dtype.itemsize * math.prod(shape)))
        blocks = [first]
        for place, name in enumerate(names):
            one = first[:, place : place + 1]
            blocks += [np.where(one < 0, one, one + 1 + more) for more in range(further_blocks(schema, name))]
        return cls(
            tuple(fixed),
            {name: schema[name].dtype for name in names if name in schema},
            np.ascontiguousarray(np.concatenate(blocks, axis=1)),
            np.ascontiguousarray(first[:, places]),
            np.array([column.dtype.itemsize for column in fixed], np.int64),
            np.array([math.prod(column.shape) for column in fixed], np.int64),
            np.array([default_bits(schema, column.name) for column in fixed], np.int64),
        )


def column_type(schema: Schema, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Element type and shape of a readable column."""
    if name in (TS, VISIBLE_AT):
        return np.dtype(np.int64), ()
    column = schema[name]
    return column.numpy_dtype, column.shape


def default_bits(schema: Schema, name: str) -> int:
    """The low bytes with which a column is filled where a chunk lacks it."""
    if name in (TS, VISIBLE_AT):
        return 0
    column = schema[name]
    value = np.zeros(8, np.uint8)
    value[: column.numpy_dtype.itemsize] = np.array([column.default_element], column.numpy_dtype).view(np.uint8)
    return int(value.view(np.int64)[0])


def further_blocks(schema: Schema, name: str) -> int:
    """Blocks that a column has beside its first: of a ragged one 1, of a coded one 2."""
    if name not in schema:
        return 0
    column = schema[name]
    return 2 if column.coded else int(column.ragged)
