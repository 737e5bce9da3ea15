"""Which events a projection accepts: conditions on values, checked against a schema once and then applied to arrays.

A condition is a set of accepted values or an inclusive range. It answers two questions: *may* a chunk with these zones
hold an accepted event (so that others are skipped unread), and *which* of these values are accepted. What walks the
history with the answers is :mod:`uihkv.selection`'s. Columns of ``bytes`` and ``string`` take sets of values and no
ranges; they have no zones, nor has ``bfloat16``.

Invariant: a chunk that holds an accepted event is never skipped. NaN is accepted by no condition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.dtypes import (
    BFLOAT16,
    CODED,
    NUMBERS,
    STRING,
    bfloat16_to_float32,
    default_bytes,
    element_type,
    float32_to_bfloat16,
)
from uihkv.errors import SchemaError
from uihkv.schema import TS, VISIBLE_AT, Schema

Array = NDArray[Any]
Bools = NDArray[np.bool_]

_MOST_BITS = 64
"""Values that a zone's bit set can tell apart."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One column's accepted values, as plain data that compares, hashes and pickles.

    Attributes:
        column: its name.
        accepted: accepted values, ascending; None: the range counts.
        low, high: ends of the range, both inclusive, None: open.

    """

    column: str
    accepted: tuple[Any, ...] | None = None
    low: Any = None
    high: Any = None


def parse_where(where: Mapping[str, Any] | None) -> tuple[Condition, ...]:
    """Conditions from ``{"action": {1, 2}, "dwell": (3.0, None)}``, ordered by column.

    Raises:
        SchemaError: for something else.

    """
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise SchemaError(f"where is {where!r}; a mapping is expected, as in where={{'action': {{1, 2}}}}")
    conditions: list[Condition] = []
    for column in sorted(where, key=str):
        wanted = where[column]
        if not isinstance(column, str):
            raise SchemaError(f"where names column {column!r}; column names are strings")
        if isinstance(wanted, tuple):
            if len(wanted) != 2:
                raise SchemaError(
                    f"where[{column!r}] is {wanted!r}; a range is a pair (low, high), both ends inclusive"
                )
            low, high = (None if end is None else _number(column, end) for end in wanted)
            if low is not None and high is not None and low > high:
                raise SchemaError(f"where[{column!r}] is {wanted!r}; low is above high, which no event can meet")
            conditions.append(Condition(column, low=low, high=high))
        elif isinstance(wanted, Set):
            if not wanted:
                raise SchemaError(f"where[{column!r}] is empty; no event can meet it, leave the column out")
            conditions.append(Condition(column, _accepted(column, wanted)))
        else:
            raise SchemaError(
                f"where[{column!r}] is {wanted!r}; a set of accepted values or a pair (low, high) is expected"
            )
    return tuple(conditions)


def _accepted(column: str, wanted: Set[Any]) -> tuple[Any, ...]:
    """Accepted values, ascending: numbers, or str, or bytes."""
    for kind in (str, bytes):
        if all(isinstance(value, kind) for value in wanted):
            return tuple(sorted(kind(value) for value in wanted))
    return tuple(sorted(_number(column, value) for value in wanted))


def _number(column: str, value: Any) -> bool | int | float:
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool | int) or (isinstance(plain, float) and not math.isnan(plain)):
        return plain
    raise SchemaError(f"where[{column!r}] holds {value!r}; whole numbers, floats and bools are expected")


class Test:
    """A condition made for one schema's column.

    Args:
        condition: what is accepted.
        schema: of the store.

    Raises:
        SchemaError: for a column that is not there, or that holds lists or arrays, or values of another kind.

    Attributes:
        column: its name.
        dtype: in which type its values are compared.
        texts: accepted values of a ``bytes`` or ``string`` column; None: of other columns.
        zoned: whether the zones of chunks say something about it.

    """

    __slots__ = ("_halved", "_high", "_low", "_values", "column", "dtype", "texts", "zoned")

    def __init__(self, condition: Condition, schema: Schema) -> None:
        self.column = condition.column
        found = _filterable_type(condition.column, schema)
        self._halved = found == BFLOAT16
        self.texts = _texts(condition, found) if found in CODED else None
        self.zoned = found in NUMBERS
        self.dtype = np.dtype(np.float32) if self._halved else element_type(found)
        if self.texts is not None:
            return
        self._values: Array | None = None
        self._low = self._high = None
        if condition.accepted is not None:
            self._values = np.array([self._convert(value) for value in condition.accepted], self._wide)
        else:
            self._low = None if condition.low is None else self._convert(condition.low)
            self._high = None if condition.high is None else self._convert(condition.high)

    @property
    def _wide(self) -> np.dtype[Any]:
        """In what values are compared."""
        return np.dtype({"f": np.float64, "u": np.uint64}.get(self.dtype.kind, np.int64))

    def _convert(self, value: Any) -> Any:
        kind = self.dtype.kind
        if kind == "b" and isinstance(value, bool):
            return int(value)
        if kind == "f" and isinstance(value, int | float) and not isinstance(value, bool):
            return self._nearest(value)
        if kind in "iu" and isinstance(value, int) and not isinstance(value, bool):
            info: np.iinfo[Any] = np.iinfo(self.dtype)
            if info.min <= value <= info.max:
                return value
            raise SchemaError(
                f"where[{self.column!r}] holds {value}; the column is {self.dtype}, which holds {info.min} to "
                f"{info.max}"
            )
        raise SchemaError(f"where[{self.column!r}] holds {value!r}; the column is {self.dtype}")

    def _nearest(self, value: int | float) -> Any:
        """The number as the column holds it; one that lies past the type's range stays what it is.

        An event that was stored as 0.3 is one of 0.3, though float32 holds another number than float64 then.
        """
        try:
            number = float(value)
        except OverflowError:
            raise SchemaError(f"where[{self.column!r}] holds {value}, more than any float") from None
        with np.errstate(over="ignore"):
            held = self.dtype.type(number)
            if self._halved:
                held = bfloat16_to_float32(float32_to_bfloat16(np.array([held], np.float32)))[0]
        # Of numpy's own type it is compared in float64: a plain one would become an infinity beside the values.
        return float(held) if np.isinf(held) == math.isinf(number) else np.float64(number)

    def accepts(self, values: Array, offsets: NDArray[np.int64] | None = None) -> Bools:
        """Which of these values of the column, in its type in memory, are accepted: bool[n].

        Args:
            values: of a ``bytes`` or ``string`` column the bytes of all.
            offsets: of such a column, int64[n+1], where each value begins.

        """
        if self.texts is not None and offsets is not None:
            return _among(self.texts, values, offsets)
        if self._halved:
            values = bfloat16_to_float32(values)
        if self.dtype.kind == "b":
            values = values.view(np.uint8)
        if self._values is not None:
            wide = values.astype(self._wide)
            at = np.minimum(np.searchsorted(self._values, wide), len(self._values) - 1)
            return np.asarray(self._values[at] == wide)
        met = np.ones(len(values), np.bool_)
        if self._low is not None:
            met &= values >= self._low
        if self._high is not None:
            met &= values <= self._high
        if self.dtype.kind == "f":
            met &= ~np.isnan(values)
        return met

    def admits(self, least: NDArray[np.int64], greatest: NDArray[np.int64], present: NDArray[np.int64]) -> Bools:
        """Whether blocks with these zones may hold an accepted value: bool[n].

        Args:
            least, greatest: int64[n], bounds as the format stores them (of floats and uint64 the bits).
            present: int64[n], bit ``i``: ``least + i`` occurs; all ones where that is not known.

        """
        wide = np.dtype(np.int64) if self.dtype.kind == "b" else self._wide
        low, high = least.view(wide), greatest.view(wide)
        if self._values is None:
            may = np.ones(len(low), np.bool_)
            if self._low is not None:
                may &= high >= self._low
            if self._high is not None:
                may &= low <= self._high
            return may
        values = self._values.view(np.int64) if self.dtype.kind == "b" else self._values
        first = np.searchsorted(values, low)
        last = np.searchsorted(values, high, side="right")
        may = last > first
        if self.dtype.kind == "f" or len(values) > _MOST_BITS:
            return may
        told = may & (present != -1)
        found = np.zeros(len(low), np.bool_)
        for value in values:
            inside = told & (low <= value) & (value <= high)
            bit = np.where(inside, value - low, 0).astype(np.uint64)
            found |= inside & ((present.view(np.uint64) >> bit) & np.uint64(1)).astype(np.bool_)
        return np.where(told, found, may)


def _among(texts: tuple[bytes, ...], values: Array, offsets: NDArray[np.int64]) -> Bools:
    import pyarrow as pa
    import pyarrow.compute as pc

    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(np.ascontiguousarray(values))]
    found = pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
    met: Bools = pc.is_in(found, value_set=pa.array(texts, pa.large_binary())).to_numpy(zero_copy_only=False)
    return met


def _texts(condition: Condition, dtype: str) -> tuple[bytes, ...]:
    """Accepted values of a coded column, as its bytes."""
    kind = str if dtype == STRING else bytes
    if condition.accepted is None or not all(isinstance(value, kind) for value in condition.accepted):
        found = (condition.low, condition.high) if condition.accepted is None else set(condition.accepted)
        raise SchemaError(
            f"where[{condition.column!r}] is {found!r}; the column is {dtype}, and a set of {kind.__name__} is expected"
        )
    try:
        return tuple(default_bytes(value) for value in condition.accepted)
    except UnicodeEncodeError as error:
        raise SchemaError(f"where[{condition.column!r}] holds a str that has no UTF-8 form ({error.reason})") from None


def _filterable_type(column: str, schema: Schema) -> str:
    if column in (TS, VISIBLE_AT):
        return "int64"
    if column not in schema:
        raise SchemaError(f"where asks for column {column!r}; the store has {', '.join(schema.readable)}")
    found = schema[column]
    if found.ragged or found.shape:
        raise SchemaError(f"where asks for column {column!r}, which has no single number an event; filter by others")
    return found.dtype
