"""What one model (tenant) wants of a history.

A projection is plain data that can be compared, hashed and pickled. :meth:`Projection.resolve` checks it
against a schema, before anything is read.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from uihkv.conditions import Condition, Test, parse_where
from uihkv.errors import SchemaError
from uihkv.sampling import StochasticLength
from uihkv.schema import TS, VISIBLE_AT, Schema

_LONGEST = (1 << 63) - 1
"""No history is longer: versions are int64."""


@dataclass(frozen=True, slots=True)
class Projection:
    """The newest ``max_len`` events of a prefix that pass ``where`` and ``max_age``, oldest first, in these columns.

    Args:
        columns: names of the schema's columns, ``"ts"`` or ``"visible_at"``; None: ``ts`` and every column
            of the schema.
        max_len: most events a read gives for one pointer; None: all events of the prefix.
        where: accepted values by column: a set of them, or a pair ``(low, high)``, both ends inclusive, None: open;
            as in ``{"action": {1, 2}, "dwell": (3.0, None)}``. An event passes when it meets all of them. For a column
            of floats, a value stands for the nearest that its type holds.
        max_age: oldest ``ts`` that passes, in the time unit, measured back from the example's ``as_of`` where the read
            is given one, else from the pointer's ``last_ts``; both ends inclusive.
        sample: draw from long histories, after all else; needs ``max_len``.

    Raises:
        SchemaError: for a ``max_len`` below 1, no columns, a column named twice, a negative ``max_age``, or a ``where``
            or ``sample`` that cannot be.

    """

    columns: tuple[str, ...] | None = None
    max_len: int | None = None
    where: tuple[Condition, ...] = ()
    max_age: int | None = None
    sample: StochasticLength | None = None

    def __init__(
        self,
        columns: Iterable[str] | None = None,
        max_len: int | None = None,
        where: Mapping[str, Any] | tuple[Condition, ...] | None = None,
        max_age: int | None = None,
        sample: StochasticLength | None = None,
    ) -> None:
        if isinstance(columns, str):
            raise SchemaError(f"columns is the string {columns!r}; write columns=[{columns!r}]")
        try:
            names = None if columns is None else tuple(columns)
        except TypeError:
            raise SchemaError(f"columns is {columns!r}; a list of names or None is expected") from None
        if names is not None:
            if not names:
                raise SchemaError("a projection needs at least one column; columns=None means all")
            if any(not isinstance(name, str) for name in names):
                raise SchemaError(f"column names are strings, {names!r} given")
            if len(set(names)) != len(names):
                raise SchemaError(f"columns {names!r} names one of them twice")
        if max_len is not None:
            try:
                length = operator.index(max_len)
            except TypeError:
                raise SchemaError(f"max_len is {max_len!r}; a whole number or None is expected") from None
            if isinstance(max_len, bool) or length < 1:
                raise SchemaError(f"max_len is {max_len!r}; 1 or more events, or None for all, is expected")
            max_len = min(length, _LONGEST)
        if max_age is not None:
            try:
                age = operator.index(max_age)
            except TypeError:
                raise SchemaError(f"max_age is {max_age!r}; a whole number of the time unit is expected") from None
            if isinstance(max_age, bool) or age < 0:
                raise SchemaError(f"max_age is {max_age!r}; 0 or more, or None for any, is expected")
            max_age = min(age, _LONGEST)
        if sample is not None:
            if not isinstance(sample, StochasticLength):
                raise SchemaError(f"sample is {sample!r}; a uihkv.StochasticLength is expected")
            if max_len is None:
                raise SchemaError("sample needs max_len: Stochastic Length draws relative to the longest length")
        parsed = isinstance(where, tuple) and all(isinstance(one, Condition) for one in where)
        conditions = where if parsed else parse_where(where)  # type: ignore[arg-type]
        object.__setattr__(self, "columns", names)
        object.__setattr__(self, "max_len", max_len)
        object.__setattr__(self, "where", conditions)
        object.__setattr__(self, "max_age", max_age)
        object.__setattr__(self, "sample", sample)

    @property
    def selects(self) -> bool:
        """Whether the data must be looked at to know which events are read."""
        return bool(self.where) or self.max_age is not None

    def resolve(self, schema: Schema) -> tuple[str, ...]:
        """Names of the columns to read from a store of this schema.

        Raises:
            SchemaError: for a column that the store does not have, or a condition that does not fit its column.

        """
        self.tests(schema)
        if self.columns is None:
            return (TS, *schema.names)
        for name in self.columns:
            if name not in schema and name not in (TS, VISIBLE_AT):
                raise SchemaError(f"projection asks for column {name!r}; the store has {', '.join(schema.readable)}")
        return self.columns

    def tests(self, schema: Schema) -> tuple[Test, ...]:
        """The conditions, made for the columns of a schema."""
        return tuple(Test(condition, schema) for condition in self.where)
