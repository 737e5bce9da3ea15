"""Logs that are not in arrival order, sorted in bounded memory.

Only the order within a user matters, so events are first dealt by user into parts that fit memory, files in a scratch
folder; then each part is sorted by user, time and place in the log, one after the other. A user's events come out
together, which is also how a store takes them fastest.

Memory holds ``SPILL_ROWS`` rows while dealing, and one part while sorting: about 64 MB of the log's text, or one user's
events where they are more. The folder takes about the size of the log, lies beside the store, and goes at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uihkv.keys import shard_of

PART_BYTES = 1 << 26
MAX_PARTS = 256
SPILL_ROWS = 1 << 19


def count_parts(log_bytes: int, shards: int) -> int:
    """Parts for a log of so many bytes: a multiple of the store's shards, so that a part belongs to one of them."""
    wanted = min(-(-max(log_bytes, 1) // PART_BYTES), MAX_PARTS)
    return max(-(-wanted // shards) * shards, 1) if shards <= MAX_PARTS else MAX_PARTS


class Arrangement:
    """Events dealt into parts by user. Made and removed by :func:`arranging`."""

    def __init__(self, folder: Path, parts: int, stack: ExitStack) -> None:
        self._folder = folder
        self._parts = parts
        self._stack = stack
        self._held: list[Any] = []
        self._held_rows = 0
        self._writers: dict[int, Any] = {}
        self._schema: Any = None
        self.rows = np.zeros(parts, np.int64)

    def add(self, events: pa.RecordBatch) -> None:
        """Take the log's next events."""
        self._schema = self._schema or events.schema
        self._held.append(events)
        self._held_rows += events.num_rows
        if self._held_rows >= SPILL_ROWS:
            self._deal()

    def finish(self) -> None:
        """No more events follow."""
        self._deal()
        for writer in self._writers.values():
            writer.close()

    def _deal(self) -> None:
        table = pa.Table.from_batches(self._held, self._schema) if self._held else None
        self._held, self._held_rows = [], 0
        if table is None or not table.num_rows:
            return
        part = part_of_users(table.column("user_id"), self._parts)
        order = np.argsort(part, kind="stable")
        table = table.take(pa.array(order)).combine_chunks()
        bounds = np.searchsorted(part[order], np.arange(self._parts + 1))
        self.rows += np.diff(bounds)
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            if number not in self._writers:
                sink = self._stack.enter_context(pa.OSFile(str(self._path(number)), "wb"))
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                self._writers[number] = pa.ipc.new_stream(sink, table.schema, options=options)
            self._writers[number].write_table(table.slice(bounds[number], bounds[number + 1] - bounds[number]))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:04d}.arrow"

    def sorted_parts(self) -> Iterator[pa.Table]:
        """Part after part, each by user, then time, then place in the log."""
        for number in range(self._parts):
            path = self._path(number)
            if not path.exists():
                continue
            with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
                table = stream.read_all()
            yield table.take(pa.array(_order_of(table)))


def part_of_users(users: Any, parts: int) -> NDArray[np.int64]:
    """Part of each user: int64[n]. By the hash that gives shards, so that a part's users share a shard."""
    return shard_of(users.to_numpy(), parts)


def _order_of(table: Any) -> NDArray[np.int64]:
    ts = table.column("ts").to_numpy()
    return np.lexsort((ts, table.column("user_id").to_numpy())).astype(np.int64, copy=False)


@contextmanager
def arranging(near: Path, parts: int) -> Iterator[Arrangement]:
    """An arrangement in a scratch folder beside a path, removed at the end; leftovers of killed ones go first."""
    prefix = f".{near.name}.sorting-"
    folder = next(parent for parent in near.absolute().parents if parent.is_dir())
    for left in folder.glob(f"{prefix}*"):
        if not _is_running(left.name.removeprefix(prefix).split("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-", dir=folder) as scratch, ExitStack() as stack:
        yield Arrangement(Path(scratch), parts, stack)


def _is_running(pid: str) -> bool:
    if not pid.isdecimal():
        return True
    with suppress(PermissionError):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
    return True
