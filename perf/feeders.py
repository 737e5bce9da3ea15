"""What would others cost that feed a trainer with the same histories?

``DataLoader`` over memory-mapped arrays, fat rows in Parquet, and a CSV line of JSON lists a user, beside the loader.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from loader import ArrayExamples
from loader.order import permute_examples
from perf.harness import Report, Section, Settings, interleave, run_bench
from perf.loading import COLUMNS, Bench, Ints, batch_size, take
from perf.report import Cell


def measure(settings: Settings) -> Report:
    """All of them on one store."""
    bench = Bench(settings)
    report = Report()
    with bench.store:
        _others(bench, report)
    report.notes.append("SPDL, MosaicML and LitData are not run here.")
    return report


class MemmapDataset(Dataset[dict[str, torch.Tensor]]):
    """An example's window cut out of memory-mapped columns, for torch's ``DataLoader``."""

    def __init__(self, folder: Path, offsets: Ints, user: Ints, version: Ints, length: int) -> None:
        self._columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
        self._end = offsets[user] + version
        self._start = self._end - np.minimum(version, length)

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start, end = int(self._start[index]), int(self._end[index])
        return {name: torch.from_numpy(np.array(column[start:end])) for name, column in self._columns.items()}


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Jagged columns out of rows."""
    lengths = torch.tensor([len(row["ts"]) for row in rows])
    return {"lengths": lengths} | {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _others(bench: Bench, report: Report) -> None:
    length, number = 1024, bench.settings.pick(12, 24)
    size = batch_size(length)
    folder = bench.settings.scratch
    readable = bench.log.readable
    for name in COLUMNS:
        np.save(folder / f"{name}.npy", readable[name])
    chosen = permute_examples(len(bench.examples), 0, 0)[: number * size]
    end = bench.log.offsets[bench.user[chosen]] + bench.version[chosen]
    start = end - np.minimum(bench.version[chosen], length)
    _write_fat_rows(folder / "fat.parquet", readable, start, end, size)
    text = _json_lines(readable, start, end)
    dataset = MemmapDataset(folder, bench.log.offsets, bench.user[chosen], bench.version[chosen], length)
    memmap = DataLoader(dataset, size, shuffle=True, num_workers=2, collate_fn=collate, persistent_workers=True)

    def parquet() -> None:
        for table in pq.ParquetFile(folder / "fat.parquet").iter_batches(size):
            for name in COLUMNS:
                table.column(name).flatten().to_numpy(zero_copy_only=False)

    def lines() -> None:
        for row in islice(csv.reader(io.StringIO(text)), size):
            for cell in row:
                np.array(json.loads(cell))

    few = ArrayExamples({name: column[chosen] for name, column in bench.columns.items()})
    with bench.loader(length, examples=few) as here, bench.loader(length, examples=few, num_workers=2) as there:
        ways: dict[str, Callable[[], object]] = {
            "loader": lambda: take(iter(here), number),
            "loader, 2 workers": lambda: take(iter(there), number),
            "DataLoader(2) over memmap": lambda: take(iter(memmap), number),
            "fat rows in Parquet, in file order": parquet,
            "CSV of JSON lists (one batch)": lines,
        }
        compared = interleave(ways, bench.settings.pick(3, 9), baseline="loader")
    report.facts["others"] = compared.describe()
    rows: list[dict[str, Cell]] = []
    for name in ways:
        times = compared.speedup(name)
        rows.append({"way": name, "speed over the loader": times.scaled(1 / number) if "one batch" in name else times})
    report.sections.append(Section(f"Others, the same {number} batches of {size}, up to {length} events", rows))


def _write_fat_rows(path: Path, columns: dict[str, Any], start: Ints, end: Ints, size: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(end - start)]).astype(np.int32)
    index = np.concatenate([np.arange(a, b) for a, b in zip(start.tolist(), end.tolist(), strict=True)])
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(columns[name][index])) for name in COLUMNS}
    pq.write_table(pa.table(lists), path, compression="lz4", row_group_size=size)


def _json_lines(columns: dict[str, Any], start: Ints, end: Ints) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    for a, b in zip(start[:512].tolist(), end[:512].tolist(), strict=True):
        writer.writerow([json.dumps(columns[name][a:b].tolist()) for name in COLUMNS])
    return out.getvalue()


if __name__ == "__main__":
    run_bench("feeders", __doc__, measure)
