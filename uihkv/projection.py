"""What one model (tenant) wants of a history.

A projection is plain data that can be compared, hashed and pickled. :meth:`Projection.resolve` checks it
against a schema, before anything is read.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass

from uihkv.errors import SchemaError
from uihkv.schema import TS, Schema

_LONGEST = (1 << 63) - 1
"""No history is longer: versions are int64."""


@dataclass(frozen=True, slots=True)
class Projection:
    """The newest ``max_len`` events of a prefix, oldest first, in these columns.

    Args:
        columns: names of the schema's columns, ``"ts"`` or ``"visible_at"``; None: ``ts`` and every column
            of the schema.
        max_len: most events a read gives for one pointer; None: all events of the prefix.

    Raises:
        SchemaError: for a ``max_len`` below 1, no columns, or a column named twice.

    """

    columns: tuple[str, ...] | None = None
    max_len: int | None = None

    def __init__(self, columns: Iterable[str] | None = None, max_len: int | None = None) -> None:
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
        object.__setattr__(self, "columns", names)
        object.__setattr__(self, "max_len", max_len)

    def resolve(self, schema: Schema) -> tuple[str, ...]:
        """Names of the columns to read from a store of this schema.

        Raises:
            SchemaError: for a column that the store does not have.

        """
        if self.columns is None:
            return (TS, *schema.names)
        for name in self.columns:
            if name not in schema.readable:
                raise SchemaError(f"projection asks for column {name!r}; the store has {', '.join(schema.readable)}")
        return self.columns
