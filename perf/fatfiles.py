"""The same examples as fat rows and as pointers, written and read for real, each step in a process of its own.

A step's bytes are those that passed through write calls (``wchar``) or read calls (``rchar``) of its process, so that
LMDB's rewriting of pages and Parquet's footers count. What a store reads goes through a map, not through calls: of it
the stored bytes of the blocks are counted that each read touched.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perf.harness import Counters
from perf.workloads import Log
from uihkv import Pointers, Projection, Store

APPEND_EVENTS = 16_384
"""Events an append of the live log has: one commit a shard."""
ROW_GROUP_EVENTS = 1 << 20
"""Events of a row group of fat rows, about."""


def size_of(path: Path) -> int:
    """Bytes of a file, or of a store's data files and manifest."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*.m*"))


def in_child(work: Callable[..., Any], *given: Any) -> Any:
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


def load_kernels(folder: Path, log: Log) -> None:
    """Load what steps on a store of this log need, or compile it: children that are forked then have it already.

    Args:
        folder: in which a small store is made.
        log: of the same columns.

    """
    some = log.in_arrival_order()
    with Store.create(folder / "kernels", log.schema, shards=1) as store:
        for first, last in ((0, 1024), (1024, 1056)):
            store.append(some.rows(first, last), some.visible_at[first:last])
        store.compact()
        with store.snapshot() as snapshot:
            snapshot.read(snapshot.head(snapshot.users()), Projection(("ts", *log.schema.names), max_len=8))


def append_live(path: Path, log: Log, append_events: int = APPEND_EVENTS) -> int:
    """Append the log as it arrives, so many events at a time; bytes written, kernels' too unless they are loaded."""
    arriving = log.in_arrival_order()
    with Store.create(path, log.schema, shards=4) as store:
        before = Counters.now()
        for first in range(0, len(log), append_events):
            last = first + append_events
            store.append(arriving.rows(first, last), arriving.visible_at[first:last])
        return (Counters.now() - before).wchar


def pointers_of(log: Log, rows: np.ndarray) -> Pointers:
    """The prefix before each of these rows of a user-major log."""
    user = np.searchsorted(log.offsets, rows, "right") - 1
    version = rows - log.offsets[user]
    last_ts = np.where(version > 0, log.ts[np.maximum(rows - 1, 0)], 0)
    return Pointers(log.user_id[rows], version, last_ts)


def write_slim(path: Path, log: Log, rows: np.ndarray) -> tuple[int, int]:
    """Write a pointer and a label for each example; bytes written, and those that stay."""
    before = Counters.now()
    table = pointers_of(log, rows).to_arrow().append_column("label", pa.array(log.columns["action"][rows]))
    pq.write_table(table, path, compression="zstd")
    return (Counters.now() - before).wchar, path.stat().st_size


def _fat_batches(log: Log, rows: np.ndarray, length: int, group_events: int) -> Iterator[pa.Table]:
    """Examples with their histories copied in, about so many events at a time."""
    user = np.searchsorted(log.offsets, rows, "right") - 1
    low = np.maximum(log.offsets[user], rows - length)
    count = rows - low
    part = np.cumsum(count) // group_events
    for some in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(part)) + 1):
        offsets = np.concatenate([[0], np.cumsum(count[some])])
        event = np.arange(offsets[-1]) + np.repeat(low[some] - offsets[:-1], count[some])
        columns = {"user_id": pa.array(log.user_id[rows[some]]), "label": pa.array(log.columns["action"][rows[some]])}
        for name, values in log.readable.items():
            columns[name] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values[event]))
        yield pa.table(columns)


def write_fat(
    path: Path, log: Log, rows: np.ndarray, length: int, codec: str, group_events: int = ROW_GROUP_EVENTS
) -> int:
    """Write the examples with their newest ``length`` events as list columns; bytes written."""
    before = Counters.now()
    writer = None
    for table in _fat_batches(log, rows, length, group_events):
        writer = writer or pq.ParquetWriter(path, table.schema, compression=codec)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return (Counters.now() - before).wchar


def column_bytes(path: Path) -> dict[str, int]:
    """Compressed bytes of each column of a Parquet file, all row groups; ``""``: what is left, footer and the like."""
    found: dict[str, int] = {}
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for place in range(file.metadata.num_columns):
                column = file.metadata.row_group(group).column(place)
                name = column.path_in_schema.split(".")[0]
                found[name] = found.get(name, 0) + column.total_compressed_size
    return {**found, "": path.stat().st_size - sum(found.values())}


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> int:
    """Bytes that reading these columns (None: all) once takes."""
    before = Counters.now()
    with pq.ParquetFile(path, memory_map=False) as file:
        for group in range(file.num_row_groups):
            file.read_row_group(group, columns=None if columns is None else list(columns))
    return (Counters.now() - before).rchar


def read_store(
    path: Path, log: Log, rows: np.ndarray, length: int, batch: int, columns: Sequence[str] | None = None
) -> int:
    """Stored bytes of the blocks that an epoch's reads touch, every read checked against the log's length.

    Args:
        path: of the store.
        log, rows: the examples: each sees the events of its user before its row.
        length: events an example at most.
        batch: examples a read; of these, a block that several need counts once.
        columns: that are read; None: all, ``ts`` among them.

    """
    projection = Projection(tuple(columns or ("ts", *log.schema.names)), max_len=length)
    total = 0
    with Store.open(path, readonly=True) as store, store.snapshot() as snapshot:
        for first in range(0, len(rows), batch):
            pointers = pointers_of(log, rows[first : first + batch])
            histories = snapshot.read(pointers, projection)
            if not np.array_equal(histories.lengths, np.minimum(pointers.version, length)):
                raise RuntimeError("a history read from the store has another length than the log's")
            total += histories.cost.bytes_read
    return total
