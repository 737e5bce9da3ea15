"""Logs that are not in arrival order, sorted in bounded memory.

Only the order within a user matters, so events are first dealt by user into parts that fit memory, files in a scratch
folder; then each part is sorted by user, time and place in the log, one after the other. A user's events come out
together, which is also how a store takes them fastest.

Memory holds 32 MB of rows while dealing, and one part while sorting: about 64 MB of the log's text, or one user's
events where they are more. The folder takes about the size of the log, lies beside the store, and goes at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uihkv.aside import owned_folder
from uihkv.grouping import writing_to
from uihkv.keys import shard_of
from uihkv.names import numbers_of
from uihkv.pointers import as_user_ids
from uihkv.userids import is_string

PART_BYTES = 1 << 26
MAX_PARTS = 256
SPILL_ROWS = 1 << 19
SPILL_BYTES = 1 << 25


def count_parts(log_bytes: int, shards: int) -> int:
    """Parts for a log of so many bytes: a multiple of the store's shards, so that a part belongs to one of them."""
    wanted = min(-(-max(log_bytes, 1) // PART_BYTES), MAX_PARTS)
    return max(-(-wanted // shards) * shards, 1) if shards <= MAX_PARTS else MAX_PARTS


class Arrangement:
    """Rows dealt into parts by user. Made and removed by :func:`arranging`.

    Attributes:
        folder: the scratch folder.

    """

    def __init__(self, folder: Path, parts: int, keys: Sequence[str], stack: ExitStack) -> None:
        self.folder = folder
        self._keys = tuple(keys)
        self._parts = parts
        self._stack = stack
        self._held: list[Any] = []
        self._held_rows = self._held_bytes = 0
        self._writers: dict[int, Any] = {}
        self._schema: Any = None

    def add(self, rows: pa.RecordBatch) -> None:
        """Take the log's next rows, with a column ``user_id``."""
        self._schema = self._schema or rows.schema
        self._held.append(rows)
        self._held_rows += rows.num_rows
        self._held_bytes += rows.nbytes
        if self._held_rows >= SPILL_ROWS or self._held_bytes >= SPILL_BYTES:
            self._deal()

    def finish(self) -> None:
        """No more rows follow."""
        self._deal()
        with writing_to(self.folder):
            for writer in self._writers.values():
                writer.close()

    def _deal(self) -> None:
        table = pa.Table.from_batches(self._held, self._schema) if self._held else None
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        if table is None or not table.num_rows:
            return
        with writing_to(self.folder):
            self._write(table)

    def _write(self, table: pa.Table) -> None:
        part = part_of_users(table.column("user_id"), self._parts)
        order = np.argsort(part, kind="stable")
        table = table.take(pa.array(order)).combine_chunks()
        bounds = np.searchsorted(part[order], np.arange(self._parts + 1))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            if number not in self._writers:
                sink = self._stack.enter_context(pa.OSFile(str(self._path(number)), "wb"))
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                self._writers[number] = pa.ipc.new_stream(sink, table.schema, options=options)
            self._writers[number].write_table(table.slice(bounds[number], bounds[number + 1] - bounds[number]))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:04d}.arrow"

    def sorted_parts(self) -> Iterator[pa.Table]:
        """Part after part, each by user, then the keys, then place in the log."""
        for number in range(self._parts):
            path = self._path(number)
            if not path.exists():
                continue
            with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
                table = stream.read_all()
            yield table.take(pa.array(self._order_of(table)))

    def _order_of(self, table: Any) -> NDArray[np.int64]:
        users = as_user_ids(table.column("user_id"), "user_id")
        if is_string(users):
            users = np.unique(users, return_inverse=True)[1]
        keys = [users, *(table.column(name).to_numpy() for name in self._keys)]
        return np.lexsort(keys[::-1]).astype(np.int64, copy=False)


def part_of_users(users: Any, parts: int) -> NDArray[np.int64]:
    """Part of each user: int64[n]. By the hash that gives shards, so that a part's users share a shard."""
    return shard_of(numbers_of(as_user_ids(users, "user_id")), parts)


@contextmanager
def arranging(near: Path, parts: int, keys: Sequence[str] = ("ts",)) -> Iterator[Arrangement]:
    """An arrangement in a scratch folder beside a path, removed at the end; leftovers of killed ones go first.

    Args:
        near: beside it.
        parts: how many.
        keys: columns by which the rows of a user are sorted.

    """
    with owned_folder(_nearest(near), "sorting") as scratch, ExitStack() as stack:
        yield Arrangement(scratch, parts, keys, stack)


def _nearest(path: Path) -> Path:
    """The path itself, or its name in the nearest folder above it that is there."""
    return next(parent for parent in path.absolute().parents if parent.is_dir()) / path.name
