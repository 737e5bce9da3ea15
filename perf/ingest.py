"""How fast are events appended, in bulk and one at a time, and how many bytes are written for a byte of payload?

*Bulk*: one process appends unsorted batches of five columns, each batch some users' whole histories with their events
interleaved, so that batches of 1 M events fall into longer or shorter histories; the store begins empty. *Single*:
groups of 1,000 events of 1,000 different users drawn at random, a durable append each, onto histories that are there.

Times are of whole appends, fsync included, by the clock of the wall; beside them stands the same work by the clock of
the processor, which a busy machine disturbs less. Payload is 22 bytes an event: ``ts`` and the columns, as in the
bench of the footprint; with ``user_id``, which an event brings along, it would be 30. *Written* is ``wchar`` of
``/proc/self/io``: LMDB writes pages with pwrite and writev, never through its map, so that this counter sees every byte
at the moment of writing.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np

from perf.harness import Chart, Counters, Curve, Report, Samples, Section, Settings, run_bench
from perf.report import Cell
from perf.workloads import FIVE_COLUMNS, Workload, make_log
from uihkv import Store

PAYLOAD = 22
HISTORIES = (1000, 500, 100, 20, 5)
BATCH_EVENTS = 1 << 20
GROUP = 1000
TARGETS = {"bulk": 3_000_000, "single": 50_000}


def make_batches(mean_length: int, batches: int, events: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Batches of about so many events; no user is in two of them."""
    users = batches * events // mean_length
    workload = Workload(users=users, mean_length=mean_length, shortest=1, longest=65_536, tail=1.5)
    log = make_log(workload, seed)
    bounds = np.linspace(0, users, batches + 1).astype(np.int64)
    made = []
    for first, last in zip(log.offsets[bounds[:-1]].tolist(), log.offsets[bounds[1:]].tolist(), strict=True):
        order = first + np.argsort(log.visible_at[first:last], kind="stable")
        made.append({"user_id": log.user_id[order], **{name: column[order] for name, column in log.readable.items()}})
    return made


def time_appends(store: Store, batches: list[dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, float]:
    """Events a second of each batch by both clocks, and bytes written for a byte of payload."""
    wall, processor = [], []
    before = Counters.now()
    for batch in batches:
        n = len(batch["ts"])
        begin, begin_processor = time.perf_counter(), time.process_time()
        store.append(batch, backfill=True)
        processor.append(n / (time.process_time() - begin_processor))
        wall.append(n / (time.perf_counter() - begin))
    events = sum(len(batch["ts"]) for batch in batches)
    written = (Counters.now() - before).wchar / (PAYLOAD * events)
    return np.array(wall), np.array(processor), written


def measure_bulk(settings: Settings, scratch: Path) -> list[dict[str, Cell]]:
    """A row for each length of histories; the batches of all lengths are interleaved."""
    batches = settings.pick(4, 12)
    stores, made = {}, {}
    for length in HISTORIES:
        made[length] = make_batches(length, batches + 1, BATCH_EVENTS, settings.seed)
        stores[length] = Store.create(scratch / f"bulk-{length}", FIVE_COLUMNS)
        stores[length].append(made[length].pop(), backfill=True)  # compiles, and opens every shard
    rates: dict[int, list[tuple[np.ndarray, np.ndarray, float]]] = {length: [] for length in HISTORIES}
    for index in range(batches):
        for length in HISTORIES:
            rates[length].append(time_appends(stores[length], [made[length][index]]))
    rows: list[dict[str, Cell]] = []
    for length in HISTORIES:
        wall, processor, written = (np.array(part).ravel() for part in zip(*rates[length], strict=True))
        stats = stores[length].stats()
        rows.append(
            {
                "events a history": stats.events // stats.users, "M events/s": Samples(wall / 1e6),
                "target": "3" if length >= 500 else "-", "by processor": Samples(processor / 1e6),
                "written / payload": float(written.mean()), "file / payload": stats.bytes / (PAYLOAD * stats.events),
            }
        )  # fmt: skip
        stores[length].close()
        shutil.rmtree(scratch / f"bulk-{length}")
    return rows


def measure_single(settings: Settings, scratch: Path) -> list[dict[str, Cell]]:
    """A row for each number of shards."""
    users = settings.pick(20_000, 100_000)
    groups = settings.pick(30, 100)
    log = make_batches(50, 1, users * 50, settings.seed)[0]
    present = np.unique(log["user_id"])
    rows: list[dict[str, Cell]] = []
    for shards in (1, 4, 16):
        rng = np.random.default_rng([settings.seed, shards])
        with Store.create(scratch / f"single-{shards}", FIVE_COLUMNS, shards=shards) as store:
            store.append(log, backfill=True)
            made = []
            for group in range(groups + 3):
                pick = rng.integers(0, len(log["ts"]), GROUP)
                events = {name: column[pick] for name, column in log.items()}
                events["user_id"] = rng.choice(present, GROUP, replace=False)
                events["ts"] = np.full(GROUP, int(log["ts"].max()) + group)
                made.append(events)
            time_appends(store, made[:3])
            wall, processor, written = time_appends(store, made[3:])
        rows.append(
            {
                "shards": shards, "events/s": Samples(wall), "target": "50,000", "by processor": Samples(processor),
                "written / payload": written, "probe: fsyncs/s": _fsyncs(scratch),
            }
        )  # fmt: skip
        shutil.rmtree(scratch / f"single-{shards}")
    return rows


def _fsyncs(scratch: Path) -> float:
    """How often a second this machine makes one page durable, right now: what any commit must wait for."""
    import os

    path = scratch / "probe"
    with path.open("wb", buffering=0) as file:
        begin = time.perf_counter()
        for _ in range(50):
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
        took = time.perf_counter() - begin
    path.unlink()
    return 50 / took


def measure(settings: Settings) -> Report:
    """Bulk, then single."""
    bulk = measure_bulk(settings, settings.scratch)
    single = measure_single(settings, settings.scratch)
    lengths = [float(str(row["events a history"])) for row in bulk]
    rates = [row["M events/s"] for row in bulk]
    chart = Chart(
        "Bulk appends, one process", "events a history", "M events a second",
        [Curve("wall", lengths, [rate for rate in rates if isinstance(rate, Samples)])], log_x=True, line_at=3.0,
    )  # fmt: skip
    return Report(
        sections=[
            Section(f"Bulk: batches of {BATCH_EVENTS:,} unsorted events, five columns, 16 shards", bulk),
            Section(f"Single: groups of {GROUP:,} events of as many users, each group durable", single),
        ],
        charts=[chart],
    )


if __name__ == "__main__":
    run_bench("ingest", __doc__, measure)
