"""The demo's data: which events are there, when did each become visible, and how do they get into a store?

The log is a Parquet file in the package (``data/README.md`` says where it comes from), its rows in arrival order. Two
clocks: ``ts``, when an event happened, and ``arrived_at``, when it became visible. Per user, visible time never steps
back: a row that arrives with an earlier clock becomes visible with the one before it, which is also the store's rule.

Invariant: row order is arrival order, here and in the store.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uihkv import Column, Schema, Store
from uihkv.ingest import IngestProgress, ingest

LOG_NAME = "ansible-events.parquet"
VISIBLE_COLUMN = "arrived_at"
SCHEMA = Schema(
    [
        Column("item_id", "int64"),
        Column("kind", "uint16"),
        Column("added", "int32"),
        Column("deleted", "int32"),
        Column("binary", "uint8"),
    ],
    time_unit="ms",
)

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EventLog:
    """All events in arrival order.

    Attributes:
        columns: by name, each ``[n]``: ``user_id``, ``ts`` and the schema's.
        visible_at: int64[n], ms, monotone per user.
        items: number of items; ids are 0 to ``items - 1``.
        kinds: number of values of ``kind``.

    """

    columns: dict[str, NDArray[Any]]
    visible_at: Int64s
    items: int
    kinds: int

    def __len__(self) -> int:
        return len(self.visible_at)

    @property
    def user_id(self) -> Int64s:
        """Who: int64[n]."""
        return self.columns["user_id"]

    @property
    def item_id(self) -> Int64s:
        """What: int64[n]."""
        return self.columns["item_id"]

    @property
    def ts(self) -> Int64s:
        """When it happened, ms: int64[n]."""
        return self.columns["ts"]


def copy_log(target: Path, max_events: int | None = None) -> Path:
    """The shipped log as a file at ``target``, as a user would have one; of its rows the first ``max_events``."""
    with ExitStack() as stack:
        shipped = stack.enter_context(as_file(files("loader.demo") / "data" / LOG_NAME))
        table = pq.read_table(shipped)
    pq.write_table(table if max_events is None else table.slice(0, max_events), target, compression="zstd")
    return target


def read_log(path: Path) -> EventLog:
    """Read a log file into memory."""
    table = pq.read_table(path)
    columns = {name: table.column(name).to_numpy() for name in ("user_id", "ts", *SCHEMA.names)}
    visible_at = lift_visible_times(columns["user_id"], table.column(VISIBLE_COLUMN).to_numpy())
    return EventLog(columns, visible_at, int(columns["item_id"].max()) + 1, int(columns["kind"].max()) + 1)


def lift_visible_times(user_id: Int64s, arrived_at: Int64s) -> Int64s:
    """Visible times, int64[n]: of each user's rows, in order, the running maximum of ``arrived_at``."""
    order = np.argsort(user_id, kind="stable")
    lifted = arrived_at[order]
    bounds = np.flatnonzero(np.diff(user_id[order])) + 1
    for part in np.split(lifted, bounds):
        np.maximum.accumulate(part, out=part)
    visible_at = np.empty_like(arrived_at)
    visible_at[order] = lifted
    return visible_at


def store_log(log_path: Path, store_path: Path, progress: Callable[[IngestProgress], None]) -> Store:
    """Make a store of a log file; the caller closes it."""
    store = Store.create(store_path, SCHEMA, shards=4)
    try:
        ingest(store, log_path, visible_at=VISIBLE_COLUMN, source="ansible", progress=progress)
    except BaseException:
        store.close()
        raise
    return store
