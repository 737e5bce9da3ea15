"""File formats as ways to windows: Parquet, Lance, Vortex, Hugging Face datasets and LitData.

Fat rows mostly; of Lance and Vortex also whole histories, of Vortex also event rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perf.cases import Array, Case, Ints, Read, Way, cut, flat

_GROUP_EVENTS = 1024
"""Events of a row group that is read alone."""


# -- Parquet --------------------------------------------------------------------------------------------


def _write_parquet(table: pa.Table, path: Path, rows_a_group: int) -> None:
    path.parent.mkdir()
    pq.write_table(
        table, path, compression="lz4", row_group_size=rows_a_group, data_page_size=1 << 16, use_dictionary=False,
        write_statistics=False,
    )  # fmt: skip


def _build_parquet_batches(case: Case, folder: Path) -> None:
    _write_parquet(case.fat_rows(), folder / "fat.parquet", case.batch)


def _open_parquet_batches(case: Case, folder: Path) -> Read:
    file = pq.ParquetFile(folder / "fat.parquet", memory_map=True)

    def read(ids: Ints) -> list[Array]:
        group = int(ids[0]) // case.batch
        return flat(file.read_row_group(group, columns=list(case.columns), use_threads=False), case.columns)

    return read


def _rows_a_group(case: Case) -> int:
    return max(1, _GROUP_EVENTS // case.length)


def _build_parquet_random(case: Case, folder: Path) -> None:
    _write_parquet(case.fat_rows(), folder / "fat.parquet", _rows_a_group(case))


def _open_parquet_random(case: Case, folder: Path) -> Read:
    file = pq.ParquetFile(folder / "fat.parquet", memory_map=True)
    rows = _rows_a_group(case)

    def read(ids: Ints) -> list[Array]:
        groups, place = np.unique(ids // rows, return_inverse=True)
        found = flat(file.read_row_groups(groups.tolist(), columns=list(case.columns), use_threads=False), case.columns)
        if rows == 1:
            return found
        start = (place * rows + ids % rows) * case.length
        return [cut(column, start, case.length) for column in found]

    return read


def _open_data_loader(case: Case, folder: Path) -> Read:
    """Rows of a fat file as an iterable data set, put together by a ``collate_fn``."""
    import torch
    from torch.utils.data import DataLoader, IterableDataset

    class Rows(IterableDataset[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            for table in pq.ParquetFile(folder / "fat.parquet", memory_map=True).iter_batches(case.batch):
                lists = [(name, table.column(name)) for name in case.columns]
                for row in range(table.num_rows):
                    yield {name: torch.from_numpy(c[row].values.to_numpy().copy()) for name, c in lists}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    loader = DataLoader(Rows(), batch_size=case.batch, num_workers=0, collate_fn=collate)
    under_way: Iterator[dict[str, Any]] = iter(())

    def read(ids: Ints) -> list[Array]:
        nonlocal under_way
        if not ids[0]:
            under_way = iter(loader)
        return [column.numpy() for column in next(under_way).values()]

    return read


# -- Lance, Vortex, Hugging Face datasets ---------------------------------------------------------------


def _rows_of_users(case: Case, ids: Ints) -> tuple[Ints, Ints]:
    """Users of a batch, each once, and where each window begins among their events."""
    rows, place = np.unique(case.row[ids], return_inverse=True)
    first = np.append(0, np.cumsum(np.diff(case.offsets)[rows]))
    return rows, first[place] + case.version[ids] - case.length


def _build_lance(whole: bool) -> Callable[[Case, Path], None]:
    def build(case: Case, folder: Path) -> None:
        lance = importlib.import_module("lance")

        lance.write_dataset(case.whole_histories() if whole else case.fat_rows(), str(folder))

    return build


def _open_lance(whole: bool) -> Callable[[Case, Path], Read]:
    def opened(case: Case, folder: Path) -> Read:
        lance = importlib.import_module("lance")

        dataset = lance.dataset(str(folder))

        def take(rows: Ints) -> list[Array]:
            return flat(dataset.take(rows.tolist(), columns=list(case.columns)), case.columns)

        return _cutting(case, take) if whole else take

    return opened


def _cutting(case: Case, take: Read) -> Read:
    """Windows, by a function that reads whole histories of users."""

    def read(ids: Ints) -> list[Array]:
        rows, start = _rows_of_users(case, ids)
        return [cut(column, start, case.length) for column in take(rows)]

    return read


def _build_vortex(form: str) -> Callable[[Case, Path], None]:
    def build(case: Case, folder: Path) -> None:
        vortex = importlib.import_module("vortex")

        if form == "events":
            table = pa.table({name: pa.array(np.array(column)) for name, column in case.columns.items()})
        else:
            table = case.whole_histories() if form == "whole" else case.fat_rows()
        folder.mkdir()
        vortex.io.write(table, str(folder / "rows.vortex"))

    return build


def _open_vortex(form: str) -> Callable[[Case, Path], Read]:
    def opened(case: Case, folder: Path) -> Read:
        vortex = importlib.import_module("vortex")

        file = vortex.open(str(folder / "rows.vortex"))

        def scan(rows: Ints) -> pa.Table:
            wanted = vortex.array(pa.array(rows.astype(np.uint64)))
            return file.scan(list(case.columns), indices=wanted).read_all().to_arrow_table()

        def take(rows: Ints) -> list[Array]:
            return flat(scan(rows), case.columns)

        def take_events(ids: Ints) -> list[Array]:
            first = np.repeat(case.high[ids] - case.length, case.length)
            events, place = np.unique(first + np.tile(np.arange(case.length), len(ids)), return_inverse=True)
            table = scan(events)
            return [table.column(name).combine_chunks().to_numpy(zero_copy_only=False)[place] for name in case.columns]

        return {"events": take_events, "whole": _cutting(case, take), "fat": take}[form]

    return opened


def _build_datasets(case: Case, folder: Path) -> None:
    datasets = importlib.import_module("datasets")

    datasets.disable_progress_bars()
    datasets.Dataset(case.fat_rows()).save_to_disk(str(folder))


def _open_datasets(case: Case, folder: Path) -> Read:
    datasets = importlib.import_module("datasets")

    dataset = datasets.load_from_disk(str(folder)).with_format("arrow")
    return lambda ids: flat(dataset[ids.tolist()], case.columns)


def _build_litdata(case: Case, folder: Path) -> None:
    writer = importlib.import_module("litdata.streaming.writer").BinaryWriter(str(folder), chunk_bytes=1 << 26)
    for row in range(len(case.row)):
        ids = np.array([row])
        writer[row] = {name: case.expected(name, ids) for name in case.columns}
    writer.done()
    writer.merge()


def _open_litdata(case: Case, folder: Path) -> Read:
    dataset = importlib.import_module("litdata").StreamingDataset(str(folder))

    def read(ids: Ints) -> list[Array]:
        rows = [dataset[row] for row in ids.tolist()]
        return [np.concatenate([row[name] for row in rows]) for name in case.columns]

    return read


FILES: dict[str, Way] = {
    "Parquet in file order": Way(
        "fat rows, LZ4, a row group a batch", _build_parquet_batches, _open_parquet_batches, as_they_lie=True,
        by_user=True,
    ),
    "Parquet at random": Way(
        "fat rows, LZ4, row groups of 1,024 events or a row", _build_parquet_random, _open_parquet_random
    ),
    "Parquet, DataLoader": Way(
        "fat rows, LZ4, a row group a batch; num_workers=0", _build_parquet_batches, _open_data_loader, ("torch",),
        as_they_lie=True,
    ),
    "Lance, fat rows": Way("fat rows; take", _build_lance(False), _open_lance(False), ("lance",), by_user=True),
    "Lance, histories": Way(
        "whole histories; take", _build_lance(True), _open_lance(True), ("lance",), per_example=False
    ),
    "Vortex, fat rows": Way("fat rows; scan of indices", _build_vortex("fat"), _open_vortex("fat"), ("vortex",)),
    "Vortex, histories": Way(
        "whole histories; scan of indices", _build_vortex("whole"), _open_vortex("whole"), ("vortex",),
        per_example=False,
    ),
    "Vortex, events": Way(
        "event rows; scan of indices", _build_vortex("events"), _open_vortex("events"), ("vortex",), per_example=False
    ),
    "HF datasets": Way("fat rows, Arrow, mapped", _build_datasets, _open_datasets, ("datasets",), by_user=True),
    "LitData": Way("fat rows, its own chunks, an item each", _build_litdata, _open_litdata, ("litdata",)),
}  # fmt: skip
"""Their ways."""
