"""How fast is a batch of versioned reads, against slices of plain arrays in memory?

The same random pointers are read from a store (five columns, 22 raw bytes an event, page cache warm) and cut out of
uncompressed arrays with ``np.concatenate``, fresh outputs against fresh, repetitions interleaved. Above 1 the store is
faster. Both compressions; one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from perf.harness import Chart, Curve, Report, Samples, Section, Settings, interleave, run_bench
from perf.report import Cell
from uihkv import Column, Pointers, Projection, Schema, Snapshot, Store

LENGTHS = (128, 1024, 8192)
BATCH = 1024
COLUMNS = ("ts", "item_id", "action", "surface", "dwell")
SCHEMA = Schema(
    [Column("item_id", "int64"), Column("action", "uint8"), Column("surface", "uint8"), Column("dwell", "float32")]
)


def make_log(users: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Offsets of the users' histories, and their columns, user by user."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum((rng.pareto(1.2, users) * 700 + 50).astype(np.int64), 16_384)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    n = int(offsets[-1])
    return offsets, {
        "ts": np.sort(rng.integers(1_600_000_000_000, 1_700_000_000_000, n)),
        "item_id": np.minimum(rng.zipf(1.2, n), 999_999).astype(np.int64),
        "action": rng.integers(0, 8, n).astype(np.uint8),
        "surface": rng.integers(0, 30, n).astype(np.uint8),
        "dwell": rng.random(n).astype(np.float32),
    }


def measure(settings: Settings) -> Report:
    """Build the stores and time both ways."""
    offsets, columns = make_log(12_000 if settings.full else 3_000, settings.seed)
    users = len(offsets) - 1
    rows: list[dict[str, Cell]] = []
    facts: dict[str, object] = {}
    found: dict[str, list[Samples]] = {}
    for compression in ("none", "lz4"):
        path = Path(settings.scratch) / compression
        with Store.create(path, SCHEMA, shards=4, compression=compression) as store:
            owner = np.repeat(np.arange(users), np.diff(offsets))
            store.append({"user_id": owner, **columns}, backfill=True)
            with store.snapshot() as snapshot:
                for length in LENGTHS:
                    store_way, array_way, events = _ways(snapshot, offsets, columns, length, settings.seed)
                    compared = interleave(
                        {"store": store_way, "arrays": array_way},
                        repeats=31 if settings.full else 15, baseline="arrays",
                    )  # fmt: skip
                    facts[f"{compression}-{length}"] = compared.describe()
                    found.setdefault(compression, []).append(compared.speedup("store"))
                    rows.append(
                        {
                            "compression": compression, "length": length, "events": round(events),
                            "speed-up over arrays": compared.speedup("store"),
                        }
                    )  # fmt: skip
    return Report(
        sections=[Section(f"Batches of {BATCH} random pointers, five columns", rows)],
        charts=[Chart(
            "Speed-up over slices of arrays", "events at most", "times as fast",
            [Curve(name, list(LENGTHS), samples) for name, samples in found.items()], log_x=True, line_at=1.0,
        )],
        facts=facts,
    )  # fmt: skip


def _ways(
    snapshot: Snapshot, offsets: np.ndarray, columns: dict[str, np.ndarray], length: int, seed: int
) -> tuple[Callable[[], object], Callable[[], object], float]:
    rng = np.random.default_rng([seed, length])
    user = rng.integers(0, len(offsets) - 1, BATCH)
    version = (rng.random(BATCH) * np.diff(offsets)[user]).astype(np.int64) + 1
    pointers, projection = Pointers(user, version), Projection(COLUMNS, max_len=length)
    low = (offsets[user] + np.maximum(version - length, 0)).tolist()
    high = (offsets[user] + version).tolist()

    def arrays() -> list[np.ndarray]:
        return [np.concatenate([columns[name][a:b] for a, b in zip(low, high, strict=True)]) for name in COLUMNS]

    found = snapshot.read(pointers, projection)
    for name, expected in zip(COLUMNS, arrays(), strict=True):
        if not np.array_equal(found.values(name), expected):
            raise RuntimeError(f"column {name!r} read from the store differs from the log")
    return lambda: snapshot.read(pointers, projection), arrays, float(found.offsets[-1]) / BATCH


if __name__ == "__main__":
    run_bench("lookup", __doc__, measure)
