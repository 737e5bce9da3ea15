"""Fat rows: each example with its window copied in, in three forms.

- *Parquet*, a row group a batch, read by an ``IterableDataset`` whose workers take row groups: in the order of the
  file, and shuffled as far as Parquet is: row groups in a drawn order, and rows within :data:`BUFFER` of them;
- *MosaicML Streaming*: MDS shards on the local disk;
- *LitData*: chunks on the local disk.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from perf.feeding.task import WORKERS, Epoch, MemmapItems, Task, Tensors, collate, cut_windows, epochs_of
from perf.loading import COLUMNS

BUFFER = 8
"""Row groups among which a shuffle of Parquet draws."""


def fat_rows(task: Task) -> Iterator[dict[str, Any]]:
    """Each example with its window copied in."""
    items = MemmapItems(task)
    for index in range(len(items)):
        row = items[index]
        yield {name: row[name] for name in ("row", "label", *COLUMNS)}


class ParquetRowGroups(IterableDataset[Tensors]):
    """Batches of a Parquet file of fat rows; each worker reads row groups of its own."""

    def __init__(self, path: Path, size: int, shuffled: bool) -> None:
        self._path, self._size, self._shuffled = path, size, shuffled

    def __iter__(self) -> Iterator[Tensors]:
        info = get_worker_info()
        rng = np.random.default_rng(0 if info is None else info.seed)
        with pq.ParquetFile(self._path) as file:
            mine = np.arange(file.num_row_groups)[
                0 if info is None else info.id :: 1 if info is None else info.num_workers
            ]
            buffered = BUFFER if self._shuffled else 1
            if self._shuffled:
                mine = rng.permutation(mine)
            for first in range(0, len(mine), buffered):
                table = file.read_row_groups(mine[first : first + buffered].tolist(), use_threads=False)
                if self._shuffled:
                    table = table.take(pa.array(rng.permutation(len(table))))
                for row in range(0, len(table), self._size):
                    yield _tensors_of(table.slice(row, self._size))


def _tensors_of(table: Any) -> Tensors:
    table = table.combine_chunks()
    batch: Tensors = {name: torch.from_numpy(table.column(name).to_numpy()) for name in ("row", "label")}
    for name in COLUMNS:
        lists = table.column(name).combine_chunks()
        batch["offsets"] = torch.from_numpy(np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())]))
        batch[name] = torch.from_numpy(lists.flatten().to_numpy())
    return batch


@contextmanager
def feed_parquet(task: Task, shuffled: bool) -> Iterator[Epoch]:
    """``DataLoader`` over fat rows in Parquet."""
    path = task.folder / "fat.parquet"
    if not path.exists():
        unfinished = path.with_suffix(f".{os.getpid()}")  # the other way that reads it may be opening, too
        _write_parquet(task, unfinished)
        unfinished.rename(path)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    rows = ParquetRowGroups(path, task.size, shuffled)
    yield epochs_of(DataLoader(rows, None, num_workers=WORKERS, persistent_workers=True))


def _write_parquet(task: Task, path: Path) -> None:
    columns, examples = task.columns(), task.examples()
    writer = None
    for first in range(0, len(examples["row"]), task.size):
        part = {name: column[first : first + task.size] for name, column in examples.items()}
        cut = cut_windows(columns, part["start"], part["end"])
        offsets = pa.array(cut["offsets"].numpy().astype(np.int32))
        table = pa.table(
            {name: part[name] for name in ("row", "label")}
            | {name: pa.ListArray.from_arrays(offsets, pa.array(cut[name].numpy())) for name in COLUMNS}
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="lz4")
        writer.write_table(table, row_group_size=task.size)
    if writer is not None:
        writer.close()


@contextmanager
def feed_mosaic(task: Task) -> Iterator[Epoch]:
    """MosaicML Streaming over MDS shards of fat rows."""
    _stand_in_for_torchvision()
    streaming = import_module("streaming")

    folder = task.folder / "mds"
    if not folder.exists():
        kinds = {name: str(column.dtype) for name, column in task.columns().items()}
        columns = {"row": "int64", "label": "float32"} | {name: f"ndarray:{kind}" for name, kind in kinds.items()}
        with streaming.MDSWriter(out=str(folder), columns=columns) as writer:
            for row in fat_rows(task):
                writer.write(row)
    rows = streaming.StreamingDataset(local=str(folder), shuffle=True, batch_size=task.size, num_canonical_nodes=1)
    yield epochs_of(DataLoader(rows, task.size, num_workers=WORKERS, collate_fn=collate, persistent_workers=True))


def _stand_in_for_torchvision() -> None:
    """Streaming imports torchvision for datasets of images; the one on PyPI does not load beside a torch for CPUs."""
    for module in ("feature_extraction_utils", "tokenization_utils_base"):  # first: they look for torchvision
        import_module(f"transformers.{module}")
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError):
        for name in (
            "torchvision",
            "torchvision.datasets",
            "torchvision.transforms",
            "torchvision.transforms.functional",
        ):
            sys.modules[name] = ModuleType(name)
        sys.modules["torchvision.datasets"].VisionDataset = object  # type: ignore[attr-defined]
        sys.modules["torchvision.transforms.functional"].to_tensor = None  # type: ignore[attr-defined]


@contextmanager
def feed_litdata(task: Task) -> Iterator[Epoch]:
    """LitData over chunks of fat rows."""
    litdata = import_module("litdata")
    folder = task.folder / "litdata"
    if not folder.exists():
        rows = MemmapItems(task)
        litdata.optimize(
            fn=partial(_fat_row, rows), inputs=list(range(len(rows))), output_dir=str(folder), chunk_bytes="64MB",
            num_workers=1, start_method="fork", verbose=False,
        )  # fmt: skip
    chunks = litdata.StreamingDataset(str(folder), shuffle=True, drop_last=False)
    loader = litdata.StreamingDataLoader(
        chunks, batch_size=task.size, num_workers=WORKERS, collate_fn=collate, persistent_workers=True
    )
    yield lambda _: iter(loader)


def _fat_row(rows: MemmapItems, index: int) -> dict[str, Any]:
    row = rows[index]
    return {"row": int(row["row"]), "label": float(row["label"])} | {name: row[name] for name in COLUMNS}
