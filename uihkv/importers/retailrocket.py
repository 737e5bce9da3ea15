"""Retailrocket: what visitors of a shop did in four and a half months of 2015.

``events.csv`` has a header: ``timestamp,visitorid,event,itemid,transactionid``; the last is empty but for transactions.

visitor → ``user_id``; item → ``item_id`` int64; event → ``action`` uint8: ``view`` 0, ``addtocart`` 1, ``transaction``
2; ``transactionid`` → ``transaction_id`` int64, -1 where it is empty; timestamp, milliseconds since 1970 → ``ts`` in
ms. The file is in no order, so arrival order is by time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from uihkv.importers.delimited import Layout, read_delimited
from uihkv.importers.protocol import BadLines, Order, Part
from uihkv.importers.tables import find_codes
from uihkv.schema import Column, Schema

ACTIONS = ("view", "addtocart", "transaction")
NO_TRANSACTION = -1

_NAMES = ("timestamp", "visitorid", "event", "itemid", "transactionid")
_TYPES = dict.fromkeys(_NAMES, pa.int64()) | {"event": pa.string()}


def _build(table: pa.Table) -> Mapping[str, Any]:
    return {
        "user_id": table.column("visitorid"),
        "item_id": table.column("itemid"),
        "action": find_codes("event", table.column("event"), ACTIONS),
        "transaction_id": pc.fill_null(table.column("transactionid"), NO_TRANSACTION),
        "ts": table.column("timestamp"),
    }


@dataclass(frozen=True, slots=True)
class Retailrocket:
    """The importer; it has no options."""

    name: ClassVar[str] = "retailrocket"
    order: ClassVar[Order] = "time"

    def schema(self, files: Sequence[Path]) -> Schema:
        """Item, action and transaction."""
        transaction = Column("transaction_id", "int64", default=NO_TRANSACTION)
        return Schema([Column("item_id", "int64"), Column("action", "uint8"), transaction], time_unit="ms")

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """An action a line."""
        return read_delimited(files, Layout(",", _TYPES, _build), bad)
