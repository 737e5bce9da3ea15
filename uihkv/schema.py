"""What an event consists of: the columns of a store, their types and their defaults.

Every event has two built-in clocks beside the schema's columns: ``ts`` (event time) and ``visible_at``
(visible time), both int64 in the schema's time unit. A :class:`Schema` is plain data: it knows how to
describe itself for the manifest, and nothing of chunks or files. Parsing a user's arrays into the schema's
types is :mod:`uihkv.events`' work.
"""

from __future__ import annotations

import operator
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uihkv.dtypes import BFLOAT16, CODED, DTYPES, default_bytes, element_type, float32_to_bfloat16, parse_default
from uihkv.errors import FormatError, SchemaError
from uihkv.userids import KINDS

TS = "ts"
VISIBLE_AT = "visible_at"
USER_ID = "user_id"
RESERVED = frozenset({TS, VISIBLE_AT, USER_ID, "version", "last_ts"})

TIME_UNITS: dict[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Ticks of each time unit in a second."""

CLOCK_IDS = {TS: -1, VISIBLE_AT: -2}
"""What stands for the built-in clocks among column ids."""

MAX_COLUMNS = 1000
MAX_ELEMENTS = 1 << 16
"""Most elements that one event may hold in a column of fixed shape."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of an event.

    Args:
        name: an identifier that is not one of ``user_id``, ``ts``, ``visible_at``, ``version``, ``last_ts``.
        dtype: a numpy type name: ``bool``, ``int8`` … ``uint64``, ``float16``, ``float32``, ``float64``; or
            ``bfloat16``, which is read as the uint16 of its bits; or ``bytes`` or ``string``, which are read as a
            ragged column of uint8 is.
        default: the value of events for which the column was not given; None: it must be given. Ragged
            columns take an empty list, columns of a fixed shape one value for every element, ``bfloat16`` a float,
            ``string`` a str and ``bytes`` bytes.
        ragged: each event holds a list of any length; not for ``bytes`` and ``string``.
        shape: each event holds an array of this shape; not for ``bytes`` and ``string``.

    Raises:
        SchemaError: for a name, type, shape or default that cannot be.

    """

    name: str
    dtype: str
    default: Any = None
    ragged: bool = False
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise SchemaError(f"column name {self.name!r} is not an identifier; use letters, digits and '_'")
        if self.name in RESERVED:
            raise SchemaError(f"column name {self.name!r} is built in; choose another")
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise SchemaError(
                f"column {self.name!r}: dtype {self.dtype!r} is not supported; one of {', '.join(DTYPES)}"
            )
        if not isinstance(self.ragged, bool):
            raise SchemaError(f"column {self.name!r}: ragged is {self.ragged!r}; True or False is expected")
        try:
            shape = tuple(operator.index(extent) for extent in self.shape)
        except TypeError:
            raise SchemaError(
                f"column {self.name!r}: shape {self.shape!r} is not a tuple of integers; write shape=(8,)"
            ) from None
        object.__setattr__(self, "shape", shape)
        if any(extent < 1 for extent in shape) or np.prod(shape, dtype=object) > MAX_ELEMENTS:
            raise SchemaError(
                f"column {self.name!r}: shape {shape} must have extents of 1 or more and "
                f"{MAX_ELEMENTS} elements at most"
            )
        if self.ragged and shape:
            raise SchemaError(f"column {self.name!r} is both ragged and of fixed shape; choose one")
        if self.coded and (self.ragged or shape):
            raise SchemaError(
                f"column {self.name!r}: an event holds one value of {self.dtype}; lists and arrays of them are not "
                "supported"
            )
        object.__setattr__(self, "default", self._parse_default())

    def _parse_default(self) -> Any:
        if self.default is None:
            return None
        if self.ragged:
            if isinstance(self.default, Sequence) and len(self.default) == 0:
                return ()
            raise SchemaError(f"column {self.name!r}: a ragged column's default can only be an empty list")
        try:
            return parse_default(self.dtype, self.default)
        except ValueError as error:
            raise SchemaError(f"column {self.name!r}: default {error}") from None

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The numpy type of one element in memory: uint16 of ``bfloat16``, uint8 of ``bytes`` and ``string``."""
        return element_type(self.dtype)

    @property
    def coded(self) -> bool:
        """Whether it holds byte strings, which chunks hold as codes and distinct values."""
        return self.dtype in CODED

    @property
    def varying(self) -> bool:
        """Whether events hold different numbers of elements, so that offsets go with the values."""
        return self.ragged or self.coded

    @property
    def elements(self) -> int:
        """Elements an event holds; 0 where it varies."""
        return 0 if self.varying else int(np.prod(self.shape, dtype=np.int64))

    @property
    def default_element(self) -> Any:
        """The default as an element in memory, of columns that are not varying; 0 where there is no default."""
        if self.default is None or self.varying:
            return self.numpy_dtype.type(0)
        if self.dtype == BFLOAT16:
            return float32_to_bfloat16(np.array([self.default], np.float32))[0]
        return self.numpy_dtype.type(self.default)

    @property
    def default_bytes(self) -> bytes:
        """The default of a coded column; no bytes where there is none."""
        return default_bytes(self.default) if self.coded else b""

    def describe(self) -> dict[str, Any]:
        """Plain values for the manifest; :meth:`Schema.from_description` reads them back."""
        return {
            "name": self.name, "dtype": self.dtype, "default": self.default,
            "ragged": self.ragged, "shape": list(self.shape),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a store, the unit of its clocks and the type of its user ids.

    Args:
        columns: the columns beside ``ts`` and ``visible_at``; at least one, at most 1,000, unique names.
        time_unit: ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``: the unit of both clocks.
        user_id: ``"int64"``, or ``"string"``: ids of 1 to 480 bytes of UTF-8.
        ids: which column each of them is in the store's history of schemas: unique and 0 or more. A name that was
            dropped and added again has another id, so that old events do not come back under it. None: a first
            schema's, 0, 1 and so on. Schemas that differ in ids alone are equal.

    Raises:
        SchemaError: for anything else.

    """

    columns: tuple[Column, ...]
    time_unit: str = "ms"
    user_id: str = "int64"
    ids: tuple[int, ...] = field(default=(), repr=False, compare=False)
    _by_name: Mapping[str, Column] = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        columns: Iterable[Column],
        time_unit: str = "ms",
        user_id: str = "int64",
        *,
        ids: Iterable[int] | None = None,
    ) -> None:
        try:
            columns = tuple(columns)
        except TypeError:
            raise SchemaError(f"{columns!r} given as columns; a list of Column is expected") from None
        if not columns or len(columns) > MAX_COLUMNS:
            raise SchemaError(f"a schema has 1 to {MAX_COLUMNS} columns, {len(columns)} given")
        for column in columns:
            if not isinstance(column, Column):
                raise SchemaError(f"{column!r} is not a Column; write Column('item_id', 'int64')")
        by_name = {column.name: column for column in columns}
        if len(by_name) != len(columns):
            names = [column.name for column in columns]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise SchemaError(f"column names {twice} stand more than once; names are unique")
        if not isinstance(time_unit, str) or time_unit not in TIME_UNITS:
            raise SchemaError(f"time_unit {time_unit!r} is not one of {', '.join(TIME_UNITS)}")
        if user_id not in KINDS:
            raise SchemaError(f"user_id {user_id!r} is not supported; one of {', '.join(KINDS)} is expected")
        numbers = tuple(range(len(columns))) if ids is None else tuple(ids)
        if len(numbers) != len(columns) or len(set(numbers)) != len(columns) or min(numbers) < 0:
            raise SchemaError(f"ids {numbers} are not {len(columns)} different numbers of 0 or more")
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "ids", numbers)
        object.__setattr__(self, "time_unit", time_unit)
        object.__setattr__(self, "user_id", user_id)
        object.__setattr__(self, "_by_name", by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Column:
        try:
            return self._by_name[name]
        except KeyError:
            raise SchemaError(f"no column {name!r}; the store has {', '.join(self.names)}") from None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the schema's columns, without the built-in clocks."""
        return tuple(column.name for column in self.columns)

    @property
    def readable(self) -> tuple[str, ...]:
        """All names that a projection may ask for: the two clocks, then the schema's columns."""
        return (TS, VISIBLE_AT, *self.names)

    @property
    def identities(self) -> dict[str, int]:
        """Which column stands behind each readable name, through all schemas of a store."""
        return {**CLOCK_IDS, **dict(zip(self.names, self.ids, strict=True))}

    def describe(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {
            "columns": [column.describe() for column in self.columns],
            "ids": list(self.ids),
            "time_unit": self.time_unit,
            "user_id": self.user_id,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Schema:
        """Read back what :meth:`describe` wrote.

        Raises:
            FormatError: when the description is not one.

        """
        try:
            columns = [
                Column(
                    name=entry["name"], dtype=entry["dtype"], default=entry["default"],
                    ragged=bool(entry["ragged"]), shape=tuple(entry["shape"]),
                )
                for entry in description["columns"]
            ]  # fmt: skip
            return cls(
                columns, time_unit=description["time_unit"], user_id=description["user_id"], ids=description["ids"]
            )
        except (KeyError, TypeError, SchemaError) as error:
            raise FormatError(f"the manifest's schema cannot be read ({error}); restore the manifest") from error

    @classmethod
    def from_toml(cls, path: str | Path) -> Schema:
        """Read a schema file.

        The file names the clocks' unit, the type of user ids and the columns in order::

            time_unit = "ms"
            user_id = "int64"
            [columns]
            item_id = "int64"
            dwell   = { dtype = "float32", default = 0.0 }
            tags    = { dtype = "int32", ragged = true }
            vec     = { dtype = "float16", shape = [8] }
            surface = { dtype = "string", default = "web" }

        Raises:
            SchemaError: when the file is missing, is not TOML or does not describe a schema.

        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SchemaError(f"cannot read the schema file {path}: {reason}") from error
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SchemaError(f"{path} is not TOML: {error}") from error
        unknown = set(table) - {"columns", "time_unit", "user_id"}
        if unknown:
            raise SchemaError(f"{path}: unknown keys {sorted(unknown)}; known: columns, time_unit, user_id")
        entries = table.get("columns")
        if not isinstance(entries, dict):
            raise SchemaError(f"{path}: a [columns] table is missing")
        columns = []
        try:
            for name, entry in entries.items():
                options = {"dtype": entry} if isinstance(entry, str) else entry
                if not isinstance(options, dict) or "dtype" not in options:
                    raise SchemaError(f'column {name!r} needs a dtype, such as {name} = "int64"')
                odd = set(options) - {"dtype", "default", "ragged", "shape"}
                if odd:
                    raise SchemaError(f"column {name!r} has unknown keys {sorted(odd)}")
                columns.append(Column(name, **options))
            return cls(columns, time_unit=table.get("time_unit", "ms"), user_id=table.get("user_id", "int64"))
        except SchemaError as error:
            raise SchemaError(f"{path}: {error}") from None
