"""Training rows from a log: who was asked, when, and what came next?

Every k-th event, in arrival order, becomes an example: its item is the target, and the moment of the request is its
own visible time. Resolution is strict, so neither the event itself nor any that became visible at that very moment (the
rest of its commit) is in the history. Examples are split by time: what was asked before the split trains, the rest
evaluates.

An example is slim: a versioned pointer, the target and the moment, one row of a Parquet file.

Invariant: whatever trains or counts became visible before the split. A training example's own event did, and
so did, strictly earlier, every event of its history.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loader.demo.eventlog import EventLog
from uihkv import Pointers, Snapshot

TRAIN_SHARE = 0.9
"""Share of the events that become visible before the split."""

COMPRESSION, COMPRESSION_LEVEL = "zstd", 3
"""Of every Parquet file that the demo compares: slim examples and fat rows."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The moments at which a model was asked, not yet resolved.

    Attributes:
        user_id: int64[n].
        as_of: int64[n], ms, visible time of the event that came next.
        target: int64[n], its item.

    """

    user_id: NDArray[np.int64]
    as_of: NDArray[np.int64]
    target: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user_id)


def split_time(log: EventLog) -> int:
    """Moment, ms, before which ``TRAIN_SHARE`` of the events became visible."""
    return int(np.quantile(log.visible_at, TRAIN_SHARE, method="lower"))


def pick_requests(log: EventLog, every: int, start: int | None = None, end: int | None = None) -> Requests:
    """A request for every ``every``-th event, of those with ``start <= visible time < end``."""
    rows = np.arange(every - 1, len(log), every)
    moment = log.visible_at[rows]
    kept = np.ones(len(rows), bool)
    if start is not None:
        kept &= moment >= start
    if end is not None:
        kept &= moment < end
    rows = rows[kept]
    return Requests(log.user_id[rows], log.visible_at[rows], log.item_id[rows])


def write_examples(snapshot: Snapshot, requests: Requests, path: Path) -> Pointers:
    """Resolve requests and write them as slim examples; gives their pointers, in order."""
    pointers = snapshot.resolve(requests.user_id, requests.as_of)
    table = (
        pointers.to_arrow()
        .append_column("as_of", pa.array(requests.as_of))
        .append_column("target", pa.array(requests.target))
    )
    pq.write_table(table, path, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL)
    return pointers
