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

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perf.harness import Chart, Counters, Curve, Report, Samples, Section, Settings, run_bench
from perf.report import Cell
from perf.workloads import Log, Workload, make_log
from uihkv import Pointers, Projection, Store

EVERY = 10
LENGTHS = (256, 1024, 4096, 16_384)
BATCH = 1024
APPEND_EVENTS = 16_384
"""Events an append of the live log has: one commit a shard."""
ROW_GROUP_EVENTS = 1 << 20
CODECS = ("zstd", "lz4")
ARRIVING, SORTED = "arriving", "sorted"

PAPER_WRITE = -46.2
PAPER_READ = (-47.0, -70.0)
"""Per cent, primary write bandwidth, and read bandwidth of a job: arXiv 2604.24806, on production data."""


def measure(settings: Settings) -> Report:
    """Write and read both forms, length by length."""
    log = make_log(Workload(users=settings.pick(250, 3_000), mean_length=settings.pick(700, 1_500)), settings.seed)
    arrival = np.argsort(log.visible_at, kind="stable")
    rows = np.sort(arrival[EVERY - 1 :: EVERY])
    rank = np.empty(len(log), np.int64)
    rank[arrival] = np.arange(len(log))
    user = np.searchsorted(log.offsets, rows, "right") - 1
    examples = {ARRIVING: rows[np.argsort(rank[rows], kind="stable")], SORTED: rows}
    path = settings.scratch / "store"
    store_written = _in_child(_append, path, log)
    slim_written, slim_bytes = _in_child(_write_slim, path, settings.scratch / "slim.parquet", log, examples[ARRIVING])
    store_bytes = _size(path)
    slim_read = _in_child(_read_parquet, settings.scratch / "slim.parquet")

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
            order: _in_child(_read_store, path, log, chosen, length) + slim_read for order, chosen in examples.items()
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
    written = _in_child(_write_fat, path, log, rows, length, codec)
    entry = {"bytes": _size(path), "written": written, "read": _in_child(_read_parquet, path)}
    path.unlink()
    return entry


def _numbers(rows: list[dict[str, Cell]], name: str) -> list[Samples | float]:
    return [value for row in rows if isinstance(value := row[name], float)]


def _change(ours: float, theirs: float) -> str:
    return f"{100 * (ours / theirs - 1):+.1f} %"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*.m*"))


def _in_child(work: Callable[..., Any], *given: Any) -> Any:
    """Run it in a forked process, whose counters are its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def run() -> None:
        there.send(work(*given))
        there.close()

    process = context.Process(target=run)
    process.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{work.__name__} ended with exit status {process.exitcode}") from None
    process.join()
    return answer


def _append(path: Path, log: Log) -> int:
    arriving = log.in_arrival_order()
    with Store.create(
        path.with_name("warm"), log.schema, shards=1
    ) as store:  # kernels that get compiled are written, too
        store.append(arriving.rows(0, BATCH), arriving.visible_at[:BATCH])
    with Store.create(path, log.schema, shards=4) as store:
        before = Counters.now()
        for first in range(0, len(log), APPEND_EVENTS):
            store.append(
                arriving.rows(first, first + APPEND_EVENTS), arriving.visible_at[first : first + APPEND_EVENTS]
            )
        return (Counters.now() - before).wchar


def _pointers(log: Log, rows: np.ndarray) -> Pointers:
    """The prefix before each of these rows of a user-major log."""
    user = np.searchsorted(log.offsets, rows, "right") - 1
    version = rows - log.offsets[user]
    last_ts = np.where(version > 0, log.ts[np.maximum(rows - 1, 0)], 0)
    return Pointers(log.user_id[rows], version, last_ts)


def _write_slim(store: Path, path: Path, log: Log, rows: np.ndarray) -> tuple[int, int]:
    before = Counters.now()
    table = _pointers(log, rows).to_arrow().append_column("label", pa.array(log.columns["action"][rows]))
    pq.write_table(table, path, compression="zstd")
    return (Counters.now() - before).wchar, path.stat().st_size


def _fat_batches(log: Log, rows: np.ndarray, length: int) -> Iterator[pa.Table]:
    """Examples with their histories copied in, about ``ROW_GROUP_EVENTS`` events at a time."""
    user = np.searchsorted(log.offsets, rows, "right") - 1
    low = np.maximum(log.offsets[user], rows - length)
    count = rows - low
    part = np.cumsum(count) // ROW_GROUP_EVENTS
    for some in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(part)) + 1):
        offsets = np.concatenate([[0], np.cumsum(count[some])])
        event = np.arange(offsets[-1]) + np.repeat(low[some] - offsets[:-1], count[some])
        columns = {"user_id": pa.array(log.user_id[rows[some]]), "label": pa.array(log.columns["action"][rows[some]])}
        for name, values in log.readable.items():
            columns[name] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values[event]))
        yield pa.table(columns)


def _write_fat(path: Path, log: Log, rows: np.ndarray, length: int, codec: str) -> int:
    before = Counters.now()
    writer = None
    for table in _fat_batches(log, rows, length):
        writer = writer or pq.ParquetWriter(path, table.schema, compression=codec)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return (Counters.now() - before).wchar


def _read_parquet(path: Path) -> int:
    """Bytes that reading every column once takes."""
    before = Counters.now()
    with pq.ParquetFile(path, memory_map=False) as file:
        for group in range(file.num_row_groups):
            file.read_row_group(group)
    return (Counters.now() - before).rchar


def _read_store(path: Path, log: Log, rows: np.ndarray, length: int) -> int:
    """Stored bytes of the blocks that an epoch's reads touch, every read checked against the log's length."""
    projection = Projection(("ts", *log.schema.names), max_len=length)
    total = 0
    with Store.open(path, readonly=True) as store, store.snapshot() as snapshot:
        for first in range(0, len(rows), BATCH):
            pointers = _pointers(log, rows[first : first + BATCH])
            histories = snapshot.read(pointers, projection)
            if not np.array_equal(histories.lengths, np.minimum(pointers.version, length)):
                raise RuntimeError("a history read from the store has another length than the log's")
            total += histories.cost.bytes_read
    return total


if __name__ == "__main__":
    run_bench("fatrows", __doc__, measure)
