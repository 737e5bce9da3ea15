"""What is to be fed: examples, the log that their windows are cut from, and how a batch is put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from perf.loading import COLUMNS

WORKERS = 2

Ints = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]
Tensors = dict[str, torch.Tensor]
Epoch = Callable[[int], Iterator[Tensors]]
"""Batches of the epoch of this number."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be fed.

    Attributes:
        folder: of this length; what a way reads lies there, and it may add to it.
        log: folder with a ``.npy`` file a column of all events, and ``lines.csv``.
        store: the same events.
        length: events an example at most.
        size: examples a batch.

    """

    folder: Path
    log: Path
    store: Path
    length: int
    size: int

    def columns(self) -> Columns:
        """Columns of all events, memory-mapped."""
        return {name: np.load(self.log / f"{name}.npy", mmap_mode="r") for name in COLUMNS}

    def examples(self) -> Columns:
        """Of each example: row, label, start and end of its window in the columns, user and version."""
        with np.load(self.folder / "examples.npz") as file:
            return {name: file[name] for name in file.files}


Way = Callable[[Task], AbstractContextManager[Epoch]]


def cut_windows(columns: Columns, start: Ints, end: Ints) -> Tensors:
    """Windows of the columns back to back, and their offsets."""
    offsets = np.zeros(len(start) + 1, np.int64)
    np.cumsum(end - start, out=offsets[1:])
    spans = list(zip(start.tolist(), end.tolist(), strict=True))
    cut = {name: np.concatenate([column[a:b] for a, b in spans]) for name, column in columns.items()}
    return {"offsets": torch.from_numpy(offsets)} | {name: torch.from_numpy(values) for name, values in cut.items()}


def collate(rows: Sequence[dict[str, Any]]) -> Tensors:
    """A batch out of rows: one array a column each, scalars for row and label."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row["ts"]) for row in rows], out=offsets[1:])
    batch = {
        "row": torch.tensor([int(row["row"]) for row in rows]),
        "label": torch.tensor([float(row["label"]) for row in rows]),
        "offsets": torch.from_numpy(offsets),
    }
    return batch | {name: torch.from_numpy(np.concatenate([row[name] for row in rows])) for name in COLUMNS}


class MemmapItems(Dataset[dict[str, Any]]):
    """An example's window, cut out of memory-mapped columns."""

    def __init__(self, task: Task) -> None:
        self._columns, self._examples = task.columns(), task.examples()

    def __len__(self) -> int:
        return len(self._examples["row"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        its = {name: column[index] for name, column in self._examples.items()}
        start, end = int(its["start"]), int(its["end"])
        return its | {name: np.array(column[start:end]) for name, column in self._columns.items()}


def epochs_of(loader: DataLoader[Any]) -> Epoch:
    """Each a pass over it."""
    return lambda _: iter(loader)
