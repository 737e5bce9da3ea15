"""What do the same examples cost as fat rows, and as pointers into a store: stored, written, read?

One log in order of arrival; every tenth event is an example whose history is the newest L events before it. Both ways
are done for real, each step in a process of its own so that its counters are its own:

- *fat rows*: the examples as they arrive, their histories as list columns, Parquet (zstd, and lz4); and sorted by user
  and version, their best case, at the price of a sort of all of them;
- *ours*: the events appended once, batch after batch as they arrive, and a slim example (pointer and label) a row.

Bytes written are what passed through write calls (``wchar``), so that LMDB's rewriting of pages counts. Bytes read by
an epoch are, of fat rows, what passed through read calls (``rchar``) while every column was read once; of the store,
the stored bytes of the blocks that batches of 1,024 examples touched, in that order, and the slim file. That a store
smaller than memory reads its device once, however many epochs follow, is not counted in its favour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perf.fatfiles import (
    APPEND_EVENTS,
    append_live,
    in_child,
    load_kernels,
    read_parquet,
    read_store,
    size_of,
    write_fat,
    write_slim,
)
from perf.harness import Chart, Curve, Report, Samples, Section, Settings, run_bench
from perf.report import Cell
from perf.workloads import Log, Workload, make_log

EVERY = 10
LENGTHS = (256, 1024, 4096, 16_384)
BATCH = 1024
CODECS = ("zstd", "lz4")
ARRIVING, SORTED = "arriving", "sorted"

PAPER_WRITE = -46.2
PAPER_READ = (-47.0, -70.0)
"""Per cent, primary write bandwidth, and read bandwidth of a job: arXiv 2604.24806, on production data."""


def measure(settings: Settings) -> Report:
    """Write and read both forms, length by length."""
    log = make_log(Workload(users=settings.pick(125, 3_000), mean_length=settings.pick(700, 1_500)), settings.seed)
    arrival = np.argsort(log.visible_at, kind="stable")
    rows = np.sort(arrival[EVERY - 1 :: EVERY])
    rank = np.empty(len(log), np.int64)
    rank[arrival] = np.arange(len(log))
    user = np.searchsorted(log.offsets, rows, "right") - 1
    examples = {ARRIVING: rows[np.argsort(rank[rows], kind="stable")], SORTED: rows}
    path = settings.scratch / "store"
    load_kernels(settings.scratch, log)
    store_written = in_child(append_live, path, log)
    slim_written, slim_bytes = in_child(write_slim, settings.scratch / "slim.parquet", log, examples[ARRIVING])
    store_bytes = size_of(path)
    slim_read = in_child(read_parquet, settings.scratch / "slim.parquet")

    stored: list[dict[str, Cell]] = []
    written: list[dict[str, Cell]] = []
    read: list[dict[str, Cell]] = []
    facts: dict[str, Any] = {
        "events": len(log), "users": len(log.users), "examples": len(rows), "raw_bytes": len(log) * log.event_bytes,
        "store_bytes": store_bytes, "store_written": store_written, "slim_bytes": slim_bytes,
        "slim_written": slim_written, "slim_read": slim_read, "lengths": {},
    }  # fmt: skip
    ours_bytes, ours_written = store_bytes + slim_bytes, store_written + slim_written
    for length in LENGTHS:
        window = np.minimum(rows - log.offsets[user], length)
        fat = {
            (codec, order): _weigh_fat(settings.scratch / "fat.parquet", log, chosen, length, codec)
            for codec in CODECS
            for order, chosen in examples.items()
        }
        reads = {
            order: in_child(read_store, path, log, chosen, length, BATCH) + slim_read
            for order, chosen in examples.items()
        }
        facts["lengths"][length] = {
            "events_copied": int(window.sum()),
            "fat": {f"{codec}, {order}": entry for (codec, order), entry in fat.items()},
            "store_and_slim_read": reads,
        }
        live, best = fat["zstd", ARRIVING], fat["zstd", SORTED]
        stored.append({
            "length": length, "events": float(window.mean()),
            "zstd": live["bytes"] / 1e6, "lz4": fat["lz4", ARRIVING]["bytes"] / 1e6,
            "zstd sorted": best["bytes"] / 1e6, "lz4 sorted": fat["lz4", SORTED]["bytes"] / 1e6,
            "ours": ours_bytes / 1e6, "x": live["bytes"] / ours_bytes,
            "sorted x": best["bytes"] / ours_bytes,
        })  # fmt: skip
        written.append({
            "length": length, "zstd": live["written"] / 1e6, "ours": ours_written / 1e6,
            "change": _change(ours_written, live["written"]),
        })  # fmt: skip
        for order, entry in ((ARRIVING, live), (SORTED, best)):
            read.append({
                "length": length, "order": order, "zstd": entry["read"] / 1e6, "ours": reads[order] / 1e6,
                "change": _change(reads[order], entry["read"]),
            })  # fmt: skip
    what = (
        f"{len(log):,} events, {len(log.users):,} users, {len(rows):,} examples, {log.event_bytes} raw bytes an event"
    )
    lengths = list(LENGTHS)
    return Report(
        sections=[
            Section(f"MB stored ({what})", stored), Section("MB written", written),
            Section("MB read by an epoch", read),
        ],
        charts=[
            Chart("Stored", "events an example at most", "MB", [
                Curve(name, lengths, _numbers(stored, key))
                for name, key in (("fat rows", "zstd"), ("fat rows, sorted", "zstd sorted"), ("store + slim", "ours"))
            ], log_x=True, log_y=True),
            Chart("Read by an epoch", "events an example at most", "MB", [
                Curve(f"{name}, {order}", lengths, _numbers([row for row in read if row["order"] == order], key))
                for name, key in (("fat rows", "zstd"), ("store + slim", "ours")) for order in (ARRIVING, SORTED)
            ], log_x=True, log_y=True),
        ],
        facts=facts,
        notes=[
            f"the paper, on production data: {PAPER_WRITE} % primary write bandwidth, {PAPER_READ[0]:.0f} to "
            f"{PAPER_READ[1]:.0f} % read bandwidth a job; its fat rows hold features beside histories and these hold "
            "none, so that more can be saved here",
            f"the store was appended live, {APPEND_EVENTS:,} events an append: the bytes written are "
            f"{store_written / store_bytes:.1f} times those that stay",
        ],
    )  # fmt: skip


def _weigh_fat(path: Path, log: Log, rows: np.ndarray, length: int, codec: str) -> dict[str, int]:
    written = in_child(write_fat, path, log, rows, length, codec)
    entry = {"bytes": size_of(path), "written": written, "read": in_child(read_parquet, path)}
    path.unlink()
    return entry


def _numbers(rows: list[dict[str, Cell]], name: str) -> list[Samples | float]:
    return [value for row in rows if isinstance(value := row[name], float)]


def _change(ours: float, theirs: float) -> str:
    return f"{100 * (ours / theirs - 1):+.1f} %"


if __name__ == "__main__":
    run_bench("fatrows", __doc__, measure)
