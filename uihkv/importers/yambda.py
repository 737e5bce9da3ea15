"""Yambda: what users of a music service listened to and liked (Yandex, arXiv 2505.22238).

Parquet files of sizes 50m, 500m and 5b, in two forms. *Flat*: a row an event, ``uid, timestamp, item_id, is_organic``
and, of listens, ``played_ratio_pct, track_length_seconds``; sorted by user and time. *Sequential*: a row a user, the
same columns as lists. ``multi_event.parquet`` holds all kinds of events and a column ``event_type``; the others hold
one kind, which their names tell: ``listens``, ``likes``, ``dislikes``, ``unlikes``, ``undislikes``.

``uid`` → ``user_id``; ``item_id`` (track) int64; kind → ``event_type`` uint8: ``listen`` 0, ``like`` 1, ``dislike``
2, ``unlike`` 3, ``undislike`` 4; ``is_organic`` uint8, 1 unless a recommendation led to it; ``played_ratio_pct``
uint16, per cent of the track, may exceed 100; ``track_length_seconds`` uint32; both are 0 where the file has none.
``timestamp``, seconds since the first day of the log in steps of 5 → ``ts`` in s: not since 1970.

Arrival order is by time, since several files interleave. A single file is in order: ``order="rows"`` spares the sort.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uihkv.errors import FormatError, SchemaError
from uihkv.formats.parquet import ParquetSource
from uihkv.formats.source import Wanted, read_batches
from uihkv.importers.protocol import BadLines, Order, Part
from uihkv.importers.tables import find_codes, make_events, parse_rows
from uihkv.schema import Column, Schema

EVENT_TYPES = ("listen", "like", "dislike", "unlike", "undislike")

FLAT_ROWS = 1 << 17
SEQUENTIAL_ROWS = 1 << 7
"""Users a batch: the longest histories have tens of thousands of events."""

_NEEDED = ("uid", "timestamp", "item_id", "is_organic")
_OF_LISTENS = {"played_ratio_pct": pa.uint16(), "track_length_seconds": pa.uint32()}


@dataclass(frozen=True, slots=True)
class Yambda:
    """The importer; it has no options."""

    name: ClassVar[str] = "yambda"
    order: ClassVar[Order] = "time"

    def schema(self, files: Sequence[Path]) -> Schema:
        """Track, kind of event, and how it was listened to."""
        for file in files:
            _kind_of(file, ParquetSource.open(file, Wanted()).names)
        return Schema(
            [
                Column("item_id", "int64"), Column("event_type", "uint8"), Column("is_organic", "uint8"),
                Column("played_ratio_pct", "uint16", default=0), Column("track_length_seconds", "uint32", default=0),
            ],
            time_unit="s",
        )  # fmt: skip

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """A row, or an element of its lists, an event."""
        for number, path in enumerate(files):
            source = ParquetSource.open(path, Wanted())
            kind = _kind_of(path, source.names)
            wanted = [name for name in (*_NEEDED, *_OF_LISTENS, "event_type") if name in source.names]
            nested = pa.types.is_nested(source.schema.field("item_id").type)
            done = 0

            def parse(table: pa.Table, kind: int | None = kind, nested: bool = nested) -> pa.RecordBatch:
                return _build(_flatten(table) if nested else table, kind)

            for table in read_batches(source, SEQUENTIAL_ROWS if nested else FLAT_ROWS, columns=wanted):
                first, done = done, done + table.num_rows
                for events in parse_rows(path, table, first, parse, bad):
                    yield Part(events, number, done / source.rows)


def _kind_of(path: Path, names: Sequence[str]) -> int | None:
    """The event type of a file's events; None where a column tells it."""
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise FormatError(f"{path}: no column {', '.join(missing)}; found {', '.join(names)}: it is no Yambda log")
    if "event_type" in names:
        return None
    kind = path.stem.removesuffix("s")
    if kind not in EVENT_TYPES:
        known = ", ".join(f"{name}s.parquet" for name in EVENT_TYPES)
        raise FormatError(
            f"{path}: it has no column 'event_type', and its name tells no kind of event; call it one of {known}"
        )
    return EVENT_TYPES.index(kind)


def _flatten(table: pa.Table) -> pa.Table:
    """Rows of lists as a row an element."""
    columns: dict[str, Any] = {}
    table = table.combine_chunks()
    lengths: Any = None
    for name in table.column_names:
        if name == "uid":
            continue
        lists = pa.concat_arrays(table.column(name).chunks)
        if lists.null_count:
            raise SchemaError(f"{name} is missing")
        own = np.diff(lists.offsets.to_numpy())
        if lengths is not None and not np.array_equal(own, lengths):
            raise SchemaError(f"{name} has lists of another length than those before it")
        lengths, columns[name] = own, lists.flatten()
    columns["uid"] = pa.array(np.repeat(table.column("uid").to_numpy(), lengths))
    return pa.table(columns)


def _build(table: pa.Table, kind: int | None) -> pa.RecordBatch:
    n = table.num_rows
    if kind is None:
        codes = find_codes("event_type", table.column("event_type").cast(pa.string()), EVENT_TYPES)
    else:
        codes = pa.array(np.full(n, kind, np.uint8))
    columns = {
        "user_id": table.column("uid").cast(pa.int64()),
        "ts": table.column("timestamp").cast(pa.int64()),
        "item_id": table.column("item_id").cast(pa.int64()),
        "event_type": codes,
        "is_organic": table.column("is_organic").cast(pa.uint8()),
    }
    for name, own in _OF_LISTENS.items():
        if name in table.column_names:
            columns[name] = pc.fill_null(table.column(name).cast(own), 0)
        else:
            columns[name] = pa.array(np.zeros(n, own.to_pandas_dtype()))
    return make_events(columns)
