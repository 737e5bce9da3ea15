"""What does a snapshot cost that is held for long while others write?

LMDB writes every changed page anew and uses the old one again once no open snapshot may see it. So a held snapshot
costs what each transaction frees: mostly the leaf pages of the tails that it rewrites, and the pages that lead there.
The same appends go into one store: alone, beside a held snapshot (also with compactions), and after that one is closed.
What files grow by must be what is used, and what ``stats`` says that snapshots keep.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from perf.harness import Report, Section, Settings, run_bench
from perf.report import Cell
from uihkv import Column, CompactionPolicy, Schema, Store

MIB = 1 << 20
USERS = 3_000
SCHEMA = Schema([Column("item_id", "int64"), Column("action", "uint8")])


def batch(number: int, events: int) -> dict[str, Any]:
    """Events of random users."""
    rng = np.random.default_rng(number)
    return {
        "user_id": rng.integers(0, USERS, events), "ts": np.full(events, number),
        "item_id": rng.integers(0, 2**40, events), "action": rng.integers(0, 5, events).astype(np.uint8),
    }  # fmt: skip


def measure(settings: Settings) -> Report:
    """Append, held and not held, and compare."""
    appends, events = settings.pick(60, 400), 300
    rows: list[dict[str, Cell]] = []
    number = 0
    with Store.create(settings.scratch / "store", SCHEMA, shards=1, chunk_events=256, durability="relaxed") as store:
        for _ in range(20):
            store.append(batch(number, 10 * events), backfill=True)
            number += 1
        for what, held, compactions in (
            ("alone", False, 0), ("a snapshot held", True, 0), ("closed again", False, 0),
            ("held, with compactions", True, 4), ("closed again", False, 4),
        ):  # fmt: skip
            with ExitStack() as stack:
                if held:
                    stack.enter_context(store.snapshot())
                before = store.stats()
                for done in range(appends):
                    store.append(batch(number, events), backfill=True)
                    number += 1
                    if compactions and done % (appends // compactions) == 0:
                        store.seal()
                        store.compact(CompactionPolicy())
                after = store.stats()
            grown = after.bytes - before.bytes
            kept = after.kept_bytes or 0
            rows.append({
                "": what, "transactions behind": after.reader_lag, "MiB before": before.bytes / MIB,
                "MiB grown": grown / MIB, "of these used": (after.used_bytes - before.used_bytes) / MIB,
                "MiB kept by snapshots": kept / MIB, "MiB free to use": (after.free_bytes - kept) / MIB,
                "KiB kept a transaction": kept / 1024 / after.reader_lag if after.reader_lag else 0.0,
            })  # fmt: skip
    return Report(sections=[Section(f"{appends} appends of {events} events each to {USERS} users, in turn", rows)])


if __name__ == "__main__":
    run_bench("held", __doc__, measure)
