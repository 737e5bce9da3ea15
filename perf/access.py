"""Ways to get at the same windows of the same log: this store, and what else would be picked.

Each :class:`~perf.cases.Way` builds its own form of a :class:`~perf.cases.Case` on disk, and opens it as a function
from a batch's example numbers to its columns, flat, an event after the other: new arrays (but where outputs are
*reused*), values equal to the log's. What a form holds:

- *fat rows*: a row an example, its window copied into list columns;
- *whole histories*: a row or a value a user, cut after it was read;
- *event rows*: a table of events sorted by user.

A way runs in a process of its own (:mod:`perf.access_process`), so that processor time and memory are its own.
Packages are imported where a way needs them. The loaders around such reads are :mod:`perf.feeders`'.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from perf.access_engines import ENGINES
from perf.access_files import FILES
from perf.cases import Array, Case, Ints, Read, Way, cut
from perf.workloads import build_store
from uihkv import Histories, Pointers, Projection, Store


def _nothing(_case: Case, folder: Path) -> None:
    """Reads the log's own files."""
    folder.mkdir()


# -- this store -----------------------------------------------------------------------------------------


def _build_store(compression: str) -> Callable[[Case, Path], None]:
    def build(case: Case, folder: Path) -> None:
        build_store(folder, case.log(), shards=4, compression=compression).close()

    return build


def _open_store(reuse: bool) -> Callable[[Case, Path], Read]:
    def opened(case: Case, folder: Path) -> Read:
        snapshot = Store.open(folder, readonly=True).snapshot()
        projection = Projection(tuple(case.columns), max_len=case.length)
        pointers = Pointers(case.users[case.row], case.version, case.last_ts)
        last: Histories | None = None

        def read(ids: Ints) -> list[Array]:
            nonlocal last
            found = snapshot.read(pointers[ids], projection, out=last)
            if reuse:
                last = found
            return [found.values(name) for name in case.columns]

        return read

    return opened


# -- arrays ---------------------------------------------------------------------------------------------


def _open_arrays(mapped: bool, reuse: bool = False) -> Callable[[Case, Path], Read]:
    def opened(case: Case, _folder: Path) -> Read:
        columns = {
            name: np.asarray(column) if mapped else np.load(case.log_folder / f"{name}.npy")
            for name, column in case.columns.items()
        }
        start = case.high - case.length
        events = case.length * min(case.batch, len(case.row)) if reuse else 0
        rooms = [np.empty(events, column.dtype) for column in columns.values()]

        def read(ids: Ints) -> list[Array]:
            if not reuse:
                return [cut(column, start[ids], case.length) for column in columns.values()]
            found = [room[: case.length * len(ids)] for room in rooms]
            for column, room in zip(columns.values(), found, strict=True):
                cut(column, start[ids], case.length, room)
            return found

        return read

    return opened


STORE = "store, lz4"
"""What the others are compared with."""

_OURS = ("numba", "uihkv.snapshot")

WAYS: dict[str, Way] = {
    STORE: Way("chunks, LZ4", _build_store("lz4"), _open_store(False), _OURS, per_example=False, by_user=True),
    "store, lz4, reused": Way(
        "the same, into the outputs of the batch before", _build_store("lz4"), _open_store(True), _OURS,
        per_example=False,
    ),
    "store, none": Way(
        "chunks, not compressed", _build_store("none"), _open_store(False), _OURS, per_example=False, by_user=True
    ),
    "arrays in memory": Way("columns", _nothing, _open_arrays(False), per_example=False, by_user=True),
    "arrays, reused": Way(
        "the same, into the outputs of the batch before", _nothing, _open_arrays(False, reuse=True), per_example=False
    ),
    "mapped arrays": Way("columns", _nothing, _open_arrays(True), per_example=False, by_user=True),
    **FILES,
    **ENGINES,
}  # fmt: skip
"""Every contender by its name."""
