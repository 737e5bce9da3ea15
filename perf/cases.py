"""What is to be read, and what a way to read it is: the words that :mod:`perf.access`'s ways share."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perf.workloads import Log
from uihkv import Column, Schema

Array = NDArray[Any]
Ints = NDArray[np.int64]
Read = Callable[[Ints], list[Array]]

RANDOM, BY_USER = "random", "by user"


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be read, as it lies on disk for the ways' processes.

    Attributes:
        folder: of this case; forms that depend on the examples are built in it.
        log_folder: of its log; other forms are built there, once for all cases of the log.
        length: events of every window.
        batch: examples a batch.
        columns: the log's, user by user, mapped.
        users, offsets: int64[users], ascending, and int64[users + 1] as in :class:`perf.workloads.Log`.
        row, version: int64[examples], place of the example's user among ``users``, and the version it sees.
        last_ts: int64[examples], of the newest event it sees.

    """

    folder: Path
    log_folder: Path
    length: int
    batch: int
    columns: Mapping[str, Array]
    users: Ints
    offsets: Ints
    row: Ints
    version: Ints
    last_ts: Ints

    @classmethod
    def save(cls, folder: Path, log_folder: Path, log: Log, row: Ints, version: Ints, length: int, batch: int) -> Case:
        """Put a case on disk; the log's columns only where they are not there yet."""
        folder.mkdir(parents=True)
        if not log_folder.exists():
            log_folder.mkdir(parents=True)
            for name, column in {**log.readable, ".users": log.users, ".offsets": log.offsets}.items():
                np.save(log_folder / f"{name}.npy", column)
        np.save(folder / "row.npy", row)
        np.save(folder / "version.npy", version)
        np.save(folder / "last_ts.npy", log.ts[log.offsets[row] + version - 1])
        told = {"log": str(log_folder), "length": length, "batch": batch, "names": list(log.readable)}
        (folder / "case.json").write_text(json.dumps(told))
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Case:
        """Find it again."""
        told = json.loads((folder / "case.json").read_text())
        log = Path(told["log"])
        columns = {name: np.load(log / f"{name}.npy", mmap_mode="r") for name in told["names"]}
        users, offsets = np.load(log / ".users.npy"), np.load(log / ".offsets.npy")
        row, version, last_ts = (np.load(folder / f"{name}.npy") for name in ("row", "version", "last_ts"))
        return cls(folder, log, told["length"], told["batch"], columns, users, offsets, row, version, last_ts)

    @property
    def high(self) -> Ints:
        """Where each example's window ends among the log's events: int64[examples]."""
        return self.offsets[self.row] + self.version

    def batches(self, shuffled: bool) -> list[Ints]:
        """Example numbers of each batch, ascending: drawn at random, or as the examples lie."""
        count = len(self.row)
        chosen = np.random.default_rng(0).permutation(count) if shuffled else np.arange(count)
        return [np.sort(chosen[first : first + self.batch]) for first in range(0, count, self.batch)]

    def expected(self, name: str, ids: Ints) -> Array:
        """A column of these examples' windows, out of the log."""
        return cut(self.columns[name], self.high[ids] - self.length, self.length)

    def fat_rows(self) -> pa.Table:
        """All windows, a list column each."""
        ids = np.arange(len(self.row))
        offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * np.int32(self.length))
        lists = {name: pa.ListArray.from_arrays(offsets, pa.array(self.expected(name, ids))) for name in self.columns}
        return pa.table(lists)

    def whole_histories(self) -> pa.Table:
        """A row a user, a list column each."""
        offsets = pa.array(self.offsets.astype(np.int32))
        columns = {name: pa.array(np.array(column)) for name, column in self.columns.items()}
        return pa.table({name: pa.ListArray.from_arrays(offsets, column) for name, column in columns.items()})

    def schema(self) -> Schema:
        """Of a store for the log."""
        return Schema([Column(name, column.dtype.name) for name, column in self.columns.items() if name != "ts"])

    def log(self) -> Log:
        """The log, in memory; every event visible when it happened."""
        ts = np.array(self.columns["ts"])
        columns = {name: np.array(column) for name, column in self.columns.items() if name != "ts"}
        user_id = np.repeat(self.users, np.diff(self.offsets))
        return Log(self.schema(), user_id, ts, ts, columns, self.users, self.offsets)


@dataclass(frozen=True, slots=True)
class Way:
    """How one contender is built and opened.

    Attributes:
        what: what its form on disk holds, in a few words.
        build: makes the form in a folder.
        open: gives the function that reads batches.
        modules: what must be importable.
        per_example: whether the form depends on the examples, as fat rows do.
        as_they_lie: whether it can only read examples in the order of the form.
        by_user: whether it is also asked for examples sorted by user.

    """

    what: str
    build: Callable[[Case, Path], None]
    open: Callable[[Case, Path], Read]
    modules: tuple[str, ...] = ()
    per_example: bool = True
    as_they_lie: bool = False
    by_user: bool = False

    def why_missing(self) -> str | None:
        """Why it cannot run here; None: it can."""
        for module in self.modules:
            try:
                importlib.import_module(module)
            except Exception as error:  # a package that is half installed fails in ways of its own
                return f"{module} cannot be imported ({error})"
        return None

    def versions(self) -> dict[str, str]:
        """Of the packages that its modules are from."""
        packages = metadata.packages_distributions()
        found = {module: packages.get(module.split(".")[0], []) for module in self.modules}
        return {names[0]: metadata.version(names[0]) for names in found.values() if names}

    def folder(self, case: Case, name: str) -> Path:
        """Where its form of a case lies."""
        return (case.folder if self.per_example else case.log_folder) / name.replace(" ", "-")


def cut(values: Array, start: Ints, length: int, out: Array | None = None) -> Array:
    """Windows of equal length, one after the other."""
    return np.concatenate([values[first : first + length] for first in start.tolist()], out=out)


def flat(table: pa.Table, names: Mapping[str, Array]) -> list[Array]:
    """List columns as flat arrays."""
    found = [table.column(name).combine_chunks() for name in names]
    return [(part.chunk(0) if isinstance(part, pa.ChunkedArray) else part).flatten().to_numpy(False) for part in found]
