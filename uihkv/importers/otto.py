"""OTTO: sessions of shoppers (OTTO's recommender dataset, and its Kaggle competition).

A line of ``*.jsonl`` is a session: ``{"session": 42, "events": [{"aid": 0, "ts": 1661200010000, "type": "clicks"},
…]}``.

``session`` → ``user_id``; an event each: ``aid`` (article) → ``item_id`` int64; ``type`` → ``action`` uint8: ``clicks``
0, ``carts`` 1, ``orders`` 2; ``ts``, milliseconds since 1970 → ``ts`` in ms. Sessions hold their events in order of
time, so rows are in arrival order. ``labels`` of the test files are not events and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from uihkv.errors import SchemaError
from uihkv.importers.lines import parse_block, read_blocks
from uihkv.importers.protocol import BadLines, Order, Part
from uihkv.importers.tables import find_codes, make_events, parse_json
from uihkv.schema import Column, Schema

ACTIONS = ("clicks", "carts", "orders")

_EVENT = pa.struct([("aid", pa.int64()), ("ts", pa.int64()), ("type", pa.string())])
_FIELDS = pa.schema([("session", pa.int64()), ("events", pa.list_(_EVENT))])


def _parse(data: bytes, _: int) -> pa.RecordBatch:
    table = parse_json(data, _FIELDS).combine_chunks()
    if table.column("events").null_count or table.column("session").null_count:
        raise SchemaError("no session, or no events; both are expected")
    lists = table.column("events").combine_chunks()
    events = lists.flatten()
    if events.null_count:
        raise SchemaError("an event is null; an object with aid, ts and type is expected")
    lengths = np.diff(lists.offsets.to_numpy())
    aid, ts, kind = events.flatten()
    return make_events({
        "user_id": pa.array(np.repeat(table.column("session").to_numpy(), lengths)),
        "item_id": aid,
        "action": find_codes("type", kind, ACTIONS),
        "ts": ts,
    })  # fmt: skip


@dataclass(frozen=True, slots=True)
class Otto:
    """The importer; it has no options."""

    name: ClassVar[str] = "otto"
    order: ClassVar[Order] = "rows"

    def schema(self, files: Sequence[Path]) -> Schema:
        """Article and action."""
        return Schema([Column("item_id", "int64"), Column("action", "uint8")], time_unit="ms")

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """A session a line, its events one after the other."""
        for number, path in enumerate(files):
            for block in read_blocks(path):
                for events in parse_block(path, block, _parse, bad):
                    yield Part(events, number, block.share)
