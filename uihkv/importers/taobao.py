"""Taobao UserBehavior: what shoppers did in nine days of 2017 (Alibaba, Tianchi).

``UserBehavior.csv`` has no header; a line is ``user ID,item ID,category ID,behavior type,timestamp``.

user → ``user_id``; item → ``item_id`` int64; category → ``category_id`` int64; behavior → ``action`` uint8: ``pv``
(page view) 0, ``buy`` 1, ``cart`` 2, ``fav`` 3; timestamp, seconds since 1970 → ``ts`` in s. The file is sorted by
user and only nearly by time, so arrival order is by time. Some of its timestamps are known to lie far outside the
nine days; those before 1970 are bad lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from uihkv.importers.delimited import Layout, read_delimited
from uihkv.importers.protocol import BadLines, Order, Part
from uihkv.importers.tables import find_codes
from uihkv.schema import Column, Schema

ACTIONS = ("pv", "buy", "cart", "fav")

_NAMES = ("user", "item", "category", "behavior", "timestamp")
_TYPES = dict.fromkeys(_NAMES, pa.int64()) | {"behavior": pa.string()}


def _build(table: pa.Table) -> Mapping[str, Any]:
    return {
        "user_id": table.column("user"),
        "item_id": table.column("item"),
        "category_id": table.column("category"),
        "action": find_codes("behavior type", table.column("behavior"), ACTIONS),
        "ts": table.column("timestamp"),
    }


@dataclass(frozen=True, slots=True)
class Taobao:
    """The importer; it has no options."""

    name: ClassVar[str] = "taobao"
    order: ClassVar[Order] = "time"

    def schema(self, files: Sequence[Path]) -> Schema:
        """Item, category and action."""
        columns = [Column("item_id", "int64"), Column("category_id", "int64"), Column("action", "uint8")]
        return Schema(columns, time_unit="s")

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """An action a line."""
        return read_delimited(files, Layout(",", _TYPES, _build, _NAMES), bad)
