"""What does compaction bring, and what do maintenance passes cost against the appends that made the store?

A log of five columns arrives in many batches with a seal behind each, as a store that was tailed for months would look:
many short chunks. It is then compared with its compacted copy: bytes on disk (both copied, so that neither has free
pages), chunks, and the speed of the same random reads, interleaved. And each pass over the store is set beside the
appends without seals of the same events, on one core: above 1 it is faster than they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from perf.harness import Chart, Curve, Report, Samples, Section, Settings, interleave, run_bench
from perf.lookup import BATCH, COLUMNS, SCHEMA, make_log
from perf.report import Cell
from uihkv import Pointers, Projection, Snapshot, Store

LENGTHS = (128, 1024, 8192)
SHARDS = 4


def measure(settings: Settings) -> Report:
    """Build the store, compact it, read both, and time the passes."""
    offsets, columns = make_log(settings.pick(1_500, 8_000), settings.seed)
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    arrival = np.empty(len(owner), np.int64)  # users in any order, the events of each in theirs
    arrival[np.argsort(np.random.default_rng(settings.seed).permutation(owner), kind="stable")] = np.arange(len(owner))
    rounds = settings.pick(16, 32)
    appended_s = 0.0
    paths = {name: settings.scratch / name for name in ("store", "as sealed", "compacted", "plain")}
    with (
        Store.create(paths["store"], SCHEMA, SHARDS, durability="relaxed") as store,
        Store.create(paths["plain"], SCHEMA, SHARDS, durability="relaxed") as plain,
    ):
        for rows in np.array_split(arrival, rounds):
            data = {"user_id": owner[rows], **{name: values[rows] for name, values in columns.items()}}
            appended_s += _timed(partial(plain.append, data, backfill=True))
            store.append(data, backfill=True)
            store.seal()
        chunks = {"as sealed": store.stats().chunks}
        passes: dict[str, Callable[[], object]] = {
            "backup": partial(store.backup, paths["as sealed"]),
            "verify": partial(store.verify, isolated=False),
            "compact": store.compact,
            "copy": partial(store.compact, copy_to=paths["compacted"]),
            "trim the older half": partial(store.trim_by_age, int(np.median(columns["ts"]))),
        }
        store.verify(isolated=False)  # compiles
        costs: list[dict[str, Cell]] = []
        speeds: list[float] = []
        for name, action in passes.items():
            speeds.append(appended_s / _timed(action))
            costs.append({"pass": name, "speed over appends": speeds[-1]})
            if name == "compact":
                chunks["compacted"] = store.stats().chunks
    sizes: list[dict[str, Cell]] = []
    reads: list[dict[str, Cell]] = []
    facts: dict[str, object] = {}
    faster: list[Samples] = []
    with (
        Store.open(paths["as sealed"], readonly=True) as sealed,
        Store.open(paths["compacted"], readonly=True) as compacted,
        sealed.snapshot() as before,
        compacted.snapshot() as after,
    ):
        for name, of in (("as sealed", sealed), ("compacted", compacted)):
            each = of.stats().bytes / len(owner)
            sizes.append({"store": name, "chunks": chunks[name], "bytes an event": f"{each:.2f}"})
        for length in LENGTHS:
            ways = _reads({"as sealed": before, "compacted": after}, offsets, length, settings.seed)
            compared = interleave(ways, repeats=settings.pick(11, 31), baseline="as sealed")
            facts[f"read {length}"] = compared.describe()
            faster.append(compared.speedup("compacted"))
            reads.append({"length": length, "speed-up": faster[-1]})
    return Report(
        sections=[
            Section("On disk", sizes),
            Section(f"Batches of {BATCH} random pointers, compacted over as sealed", reads),
            Section(f"Passes over {len(owner):,} events", costs),
        ],
        charts=[
            Chart("Reads, compacted over as sealed", "events at most", "times as fast",
                  [Curve("", list(LENGTHS), faster)], log_x=True, line_at=1.0),
            Chart("Passes over the store", "", "times as fast as appends",
                  [Curve("", [str(row["pass"]) for row in costs], speeds)], kind="bars", line_at=1.0),
        ],
        facts=facts,
    )  # fmt: skip


def _timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _reads(
    snapshots: dict[str, Snapshot], offsets: np.ndarray, length: int, seed: int
) -> dict[str, Callable[[], object]]:
    """The same read of each snapshot, once seen to give the same."""
    rng = np.random.default_rng([seed, length])
    user = rng.integers(0, len(offsets) - 1, BATCH)
    version = (rng.random(BATCH) * np.diff(offsets)[user]).astype(np.int64) + 1
    pointers, projection = Pointers(user, version), Projection(COLUMNS, max_len=length)
    first, *others = [snapshot.read(pointers, projection) for snapshot in snapshots.values()]
    for other in others:
        if any(not np.array_equal(first.values(name), other.values(name)) for name in COLUMNS):
            raise RuntimeError("the compacted store reads otherwise")
    return {name: partial(snapshot.read, pointers, projection) for name, snapshot in snapshots.items()}


if __name__ == "__main__":
    run_bench("maintenance", __doc__, measure)
