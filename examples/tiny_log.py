"""A store and slim examples to train on, made in a second: what the other scripts here share.

Users like one of eight groups of items. Some events arrive late. Each request offers a candidate, from the user's group
(label 1) or from anywhere else (label 0), and is resolved: its history is what was visible before the request.

    python examples/tiny_log.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uihkv import Column, Schema, Store

ITEMS, GROUPS, USERS, EVENTS, REQUESTS = 64, 8, 40, 3_000, 1_500


def make_log(folder: Path) -> tuple[Path, Path]:
    """Make ``folder/store`` and ``folder/slim.parquet``, and give both paths."""
    rng = np.random.default_rng(7)
    user = rng.integers(0, USERS, EVENTS)
    happened = np.arange(EVENTS) * 1_000
    arrived = happened + rng.integers(0, 500, EVENTS) + 90_000 * (rng.random(EVENTS) < 0.05)  # some come late
    order = np.argsort(arrived, kind="stable")
    events = {
        "user_id": user,
        "ts": happened,
        "item_id": user % GROUPS + GROUPS * rng.integers(0, ITEMS // GROUPS, EVENTS),
        "action": rng.integers(1, 4, EVENTS).astype(np.uint8),
    }
    schema = Schema([Column("item_id", "int64"), Column("action", "uint8")], time_unit="ms")
    with Store.create(folder / "store", schema, shards=2) as store:
        store.append({name: column[order] for name, column in events.items()}, visible_at=arrived[order])

        asking = rng.integers(0, USERS, REQUESTS)
        as_of = rng.integers(0, happened[-1], REQUESTS)
        label = rng.random(REQUESTS) < 0.5
        group = np.where(label, asking % GROUPS, (asking + rng.integers(1, GROUPS, REQUESTS)) % GROUPS)
        candidate = group + GROUPS * rng.integers(0, ITEMS // GROUPS, REQUESTS)
        with store.snapshot() as snapshot:
            pointers = snapshot.resolve(asking, as_of)
    examples = pointers.to_arrow().append_column("as_of", pa.array(as_of))
    examples = examples.append_column("candidate", pa.array(candidate))
    examples = examples.append_column("label", pa.array(label.astype(np.float32)))
    pq.write_table(examples, folder / "slim.parquet")
    return folder / "store", folder / "slim.parquet"


if __name__ == "__main__":
    print(*make_log(Path(sys.argv[1])))
