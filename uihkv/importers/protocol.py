"""What an importer is: a format's name, the schema of its events, and how its files become batches of them.

An importer knows one format and nothing of stores. It yields Arrow record batches with ``user_id``, ``ts``, a column
for each of its schema's, and ``visible_at`` where the log has a second clock; none of them with nulls. What cannot be
read it hands to :class:`BadLines`, with the place in the file, and goes on. Sorting, resuming and storing are
:mod:`uihkv.importers.storing`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from uihkv.errors import SchemaError
from uihkv.schema import Schema

Order = Literal["time", "rows"]
"""What arrival order is: of a user's events by their ``ts`` (ties as in the files), or as rows stand in the files."""

ORDERS: tuple[Order, ...] = ("time", "rows")

OnBad = Literal["raise", "skip"]
ON_BAD: tuple[OnBad, ...] = ("raise", "skip")

_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Part:
    """Some events of a log, in its order.

    Attributes:
        events: an Arrow record batch: ``user_id``, ``ts``, the schema's columns and perhaps ``visible_at``.
        file: which of the files they stand in, from 0; never falls from part to part.
        share: how much of that file has been read, 0 to 1.

    """

    events: pa.RecordBatch
    file: int
    share: float


class BadLines:
    """What is done with lines that are not events: the first one raises, or they are counted and passed over.

    Attributes:
        policy: ``"raise"`` or ``"skip"``.
        skipped: lines passed over.
        first: where the first of them stands and what is wrong with it.

    """

    def __init__(self, policy: OnBad = "raise") -> None:
        if policy not in ON_BAD:
            raise SchemaError(f"on_bad is {policy!r}; one of {', '.join(ON_BAD)} is expected")
        self.policy = policy
        self.skipped = 0
        self.first: str | None = None

    def refuse(self, path: Path, place: str, what: str, line: bytes | str | None = None) -> None:
        """Raise, or count.

        Args:
            path: the file.
            place: where in it, such as ``line 12``.
            what: what was found and what was expected.
            line: the line itself, for the message.

        Raises:
            SchemaError: unless bad lines are skipped.

        """
        message = f"{path}, {place}: {what}"
        if line is not None:
            text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
            text = text.rstrip("\r\n")
            cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
            message += f"; the line is {cut!r}"
        if self.policy == "raise":
            raise SchemaError(message + "; correct or remove it, or skip bad lines")
        self.skipped += 1
        if self.first is None:
            self.first = message


class Importer(Protocol):
    """A format. Implementations are small frozen dataclasses whose fields are the format's options."""

    @property
    def name(self) -> str:
        """The format's name, as the command line takes it."""

    @property
    def order(self) -> Order:
        """Arrival order, unless the user asks for another."""

    def schema(self, files: Sequence[Path]) -> Schema:
        """The columns of its events, which may depend on the kind of file.

        Raises:
            FormatError: for files that are not of this format.

        """

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """All events of the files, in their order, in bounded memory.

        Raises:
            FormatError: for a file that cannot be read, or is not of this format at all.
            SchemaError: for bad lines, unless they are skipped.

        """


def clock_columns(schema: Schema) -> dict[str, Any]:
    """Arrow types of what every batch has beside the schema's columns."""
    return {"user_id": pa.int64() if schema.user_id == "int64" else pa.string(), "ts": pa.int64()}
