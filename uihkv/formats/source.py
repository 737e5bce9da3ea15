"""What every format of event files gives: how many rows, of which types, and the rows themselves in bounded memory.

A format is a module with a class that opens a file and fits :class:`Source`. Rows come in pieces as the file has them;
:func:`read_batches` cuts them at boundaries that depend on the file's rows and the batch size only, never on how the
file is laid out: row ``k * batch_rows`` of the file, and its end. What the rows mean is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from uihkv.errors import FormatError, SchemaError

READ_ROWS = 1 << 16
"""Rows that a format reads ahead at most, where it may choose."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader is after, for formats that keep no types of their own.

    Attributes:
        types: Arrow type of each column that may be asked for, by its name in the file.
        clocks: columns that hold integers or timestamps, whichever the file has.

    """

    types: Mapping[str, Any] = field(default_factory=dict)
    clocks: frozenset[str] = frozenset()


class Source(Protocol):
    """A file of rows."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def rows(self) -> int:
        """How many rows it has."""

    @property
    def schema(self) -> Any:
        """Its Arrow schema, names unique."""

    @property
    def names(self) -> list[str]:
        """Names of its columns."""

    @property
    def holds_lists(self) -> bool:
        """Whether a column of the format can hold lists."""

    def scan(self, columns: Sequence[str], first_row: int) -> Iterator[Any]:
        """Arrow record batches of some columns, from a row on, in pieces of any length.

        Raises:
            FormatError: when the file's bytes cannot be decoded.
            SchemaError: when a value does not fit the type that was wanted, in formats without types.

        """


def read_batches(
    source: Source, batch_rows: int, *, columns: Sequence[str] | None = None, first_row: int = 0
) -> Iterator[Any]:
    """Arrow tables of ``batch_rows`` rows each, from ``first_row`` on; the last may be shorter.

    Holds one batch and one piece of the file in memory.
    """
    held: list[Any] = []
    rows = 0
    for piece in source.scan(source.names if columns is None else columns, first_row):
        if piece.num_rows:
            held.append(piece)
            rows += piece.num_rows
        while rows >= batch_rows:
            table = pa.Table.from_batches(held)
            yield table.slice(0, batch_rows)
            held = table.slice(batch_rows).to_batches()
            rows -= batch_rows
    if rows:
        yield pa.Table.from_batches(held)


def skip_rows(pieces: Iterator[Any], first_row: int) -> Iterator[Any]:
    """Pieces without their first rows."""
    for piece in pieces:
        kept = piece.slice(first_row)
        first_row = max(first_row - piece.num_rows, 0)
        if kept.num_rows:
            yield kept


def check_names(path: Path, names: Sequence[str]) -> None:
    """Refuse columns of one name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SchemaError(f"{path}: columns {twice} stand more than once; write the file with unique names")


@contextmanager
def decoding(path: Path, name: str) -> Iterator[None]:
    """Say of which file, and as what, bytes could not be read."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: names that are no text
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path} cannot be read as {name} ({what}); write it again, or leave it out") from error


def as_ticks(values: Any, time_unit: str, name: str) -> Any:
    """An Arrow column of timestamps as int64 ticks of a time unit; anything else as it is.

    Raises:
        SchemaError: when a timestamp is not a whole number of ticks.

    """
    if not pa.types.is_timestamp(values.type):
        return values
    try:
        return values.cast(pa.timestamp(time_unit, tz=values.type.tz)).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise SchemaError(
            f"column {name!r}: {values.type} given, whole {time_unit} are expected ({error}); round it yourself first"
        ) from error
