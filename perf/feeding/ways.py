"""Every way by its name, and those that copy no history into an example.

- *loader*: this project's, with 0, 1 or 2 workers;
- *memmap*: ``DataLoader`` over an indexable dataset that cuts windows out of memory-mapped columns: item by item, as
  one writes it first, and a batch at once (``__getitems__``), as one writes it when that was too slow;
- *SPDL*: its pipeline, two threads, in order, over reads of the store and over cuts of the memory-mapped columns;
- *JSON*: meta-recsys/generative-recommenders' way: a CSV line a user with a JSON list a column, sought and parsed each
  time.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from io import StringIO
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from loader import Loader, ParquetExamples
from perf.feeding.fatrows import feed_litdata, feed_mosaic, feed_parquet
from perf.feeding.task import (
    WORKERS,
    Epoch,
    Ints,
    MemmapItems,
    Task,
    Tensors,
    Way,
    collate,
    cut_windows,
    epochs_of,
)
from perf.loading import COLUMNS
from uihkv import Pointers, Projection, Store

PREFETCH = 4


# -- this project's -------------------------------------------------------------------------------


@contextmanager
def feed_loader(
    task: Task, workers: int, columns: Sequence[str] = COLUMNS, length: int | None = None
) -> Iterator[Epoch]:
    """The loader."""
    wanted = Projection(columns, length or task.length)
    with (
        Store.open(task.store, readonly=True) as store,
        Loader(
            store, ParquetExamples(task.folder / "slim.parquet"), wanted, batch_size=task.size, num_workers=workers,
            prefetch=PREFETCH,
        ) as loader,
    ):  # fmt: skip

        def epoch(number: int) -> Iterator[Tensors]:
            loader.set_epoch(number)
            for batch in loader:
                history = batch.history.expand()
                yield {
                    "row": batch.examples["row"], "label": batch.examples["label"], "offsets": history.offsets,
                    **{name: history[name].values for name in columns},
                }  # fmt: skip

        yield epoch


# -- memory-mapped columns ------------------------------------------------------------------------


class MemmapBatches(MemmapItems):
    """A whole batch at once; ``DataLoader`` asks for it where there is a ``__getitems__``."""

    def __getitems__(self, indices: list[int]) -> Tensors:
        index = np.array(indices)
        batch = {name: torch.from_numpy(self._examples[name][index]) for name in ("row", "label")}
        return batch | cut_windows(self._columns, self._examples["start"][index], self._examples["end"][index])


@contextmanager
def feed_memmap(task: Task, kind: type[MemmapItems], workers: int) -> Iterator[Epoch]:
    """``DataLoader`` over memory-mapped columns."""
    whole = collate if kind is MemmapItems else _as_it_is
    yield epochs_of(
        DataLoader(
            kind(task), task.size, shuffle=True, num_workers=workers, collate_fn=whole,
            persistent_workers=bool(workers),
        )
    )  # fmt: skip


def _as_it_is(batch: Any) -> Any:
    return batch


# -- SPDL -----------------------------------------------------------------------------------------


@contextmanager
def feed_spdl_store(task: Task) -> Iterator[Epoch]:
    """SPDL's pipeline over the same reads of the store that the loader makes."""
    examples, wanted = task.examples(), Projection(COLUMNS, task.length)
    pointers = Pointers(examples["user_id"], examples["version"], examples["last_ts"])
    with Store.open(task.store, readonly=True) as store, store.snapshot() as snapshot:

        def read(index: Ints) -> Tensors:
            found = snapshot.read(pointers[index], wanted)
            batch = {name: torch.from_numpy(examples[name][index]) for name in ("row", "label")}
            batch["offsets"] = torch.from_numpy(found.offsets)
            return batch | {name: torch.from_numpy(found.values(name)) for name in COLUMNS}

        with _spdl_epochs(task, len(pointers), read) as epoch:
            yield epoch


@contextmanager
def feed_spdl_memmap(task: Task) -> Iterator[Epoch]:
    """SPDL's pipeline over cuts of memory-mapped columns."""
    rows = MemmapBatches(task)
    with _spdl_epochs(task, len(rows), lambda index: rows.__getitems__(index)) as epoch:
        yield epoch


@contextmanager
def _spdl_epochs(task: Task, examples: int, read: Callable[[Any], Tensors]) -> Iterator[Epoch]:
    """One pipeline for all epochs, as building one costs as much as some thousand examples."""
    number = -(-examples // task.size)
    pipeline = (
        import_module("spdl.pipeline")
        .PipelineBuilder()
        .add_source(_drawn_batches(examples, task.size))
        .pipe(read, concurrency=WORKERS, output_order="input")
        .add_sink(PREFETCH)
        .build(num_threads=WORKERS)
    )
    with pipeline.auto_stop():
        batches = pipeline.get_iterator()
        yield lambda _: islice(batches, number)


def _drawn_batches(examples: int, size: int) -> Iterator[Ints]:
    """Indices of batches, epoch after epoch without end."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(examples)
        for first in range(0, examples, size):
            yield order[first : first + size]


# -- a CSV line of JSON lists ---------------------------------------------------------------------


class JsonLines(Dataset[dict[str, Any]]):
    """An example's window out of its user's line: sought, parsed and cut each time."""

    def __init__(self, task: Task, examples: int) -> None:
        self._path = task.log / "lines.csv"
        self._examples = {name: column[:examples] for name, column in task.examples().items()}
        self._dtypes = {name: column.dtype for name, column in task.columns().items()}
        self._length = task.length

    def __len__(self) -> int:
        return len(self._examples["row"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        its = {name: column[index] for name, column in self._examples.items()}
        with self._path.open() as file:
            file.seek(int(its["line"]))
            cells = next(csv.reader(StringIO(file.readline())))
        end = int(its["version"])
        cut = slice(max(end - self._length, 0), end)
        return its | {
            name: np.array(json.loads(cell)[cut], dtype)
            for (name, dtype), cell in zip(self._dtypes.items(), cells[1:], strict=True)
        }


@contextmanager
def feed_json(task: Task) -> Iterator[Epoch]:
    """``DataLoader`` over a CSV line a user; of the first examples only, as it is slow."""
    csv.field_size_limit(1 << 30)
    size = min(task.size, 32)
    lines = JsonLines(task, 2 * size)
    yield epochs_of(
        DataLoader(lines, size, shuffle=True, num_workers=WORKERS, collate_fn=collate, persistent_workers=True)
    )


WAYS: dict[str, Way] = {
    "loader": partial(feed_loader, workers=0),
    "loader, 1 worker": partial(feed_loader, workers=1),
    "loader, 2 workers": partial(feed_loader, workers=2),
    "DataLoader(2), memmap items": partial(feed_memmap, kind=MemmapItems, workers=WORKERS),
    "DataLoader(2), memmap batches": partial(feed_memmap, kind=MemmapBatches, workers=WORKERS),
    "DataLoader(0), memmap batches": partial(feed_memmap, kind=MemmapBatches, workers=0),
    "Parquet, in file order": partial(feed_parquet, shuffled=False),
    "Parquet, shuffled": partial(feed_parquet, shuffled=True),
    "SPDL, store": feed_spdl_store,
    "SPDL, memmap": feed_spdl_memmap,
    "MosaicML MDS": feed_mosaic,
    "LitData": feed_litdata,
    "CSV of JSON lists": feed_json,
}
"""Every way by its name in the tables; the first is what others are compared to."""

OTHERS: dict[str, Way] = {
    "another trainer": partial(feed_loader, workers=0, columns=("ts", "item_id", "action"), length=1024),
    "another trainer, 1 worker": partial(feed_loader, workers=1, columns=("ts", "item_id", "action"), length=1024),
}
"""Trainers beside the first one, with a projection of their own."""
