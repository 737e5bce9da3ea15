"""Other ways to get the same histories: from arrays in memory, and from files that hold each example's history.

Each rival is a function that returns the columns of a batch, flat, every time it is called; what it needs is built
before that. Rivals whose package is not installed say so (``pip install 'uihkv[bench]'``).

The file formats hold *fat rows*: one row an example, its history in list columns, in small pages and row groups.
Vortex is asked also for event rows of a table sorted by user.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Array = NDArray[Any]
Read = Callable[[], object]

_MIN_GROUP_EVENTS = 1024


class MissingPackageError(RuntimeError):
    """A rival's package is not installed."""


class Windows:
    """Windows of a log whose events stand user by user: what each example sees.

    Args:
        columns: each column of the log.
        low, high: int64[examples], rows ``[low, high)``.

    """

    def __init__(self, columns: dict[str, Array], low: Array, high: Array) -> None:
        self.columns = columns
        self.low, self.high = low, high
        self.bounds = list(zip(low.tolist(), high.tolist(), strict=True))
        self.events = int((high - low).sum())

    def gather(self, name: str) -> Array:
        """A column's values of all windows."""
        column = self.columns[name]
        return np.concatenate([column[a:b] for a, b in self.bounds])

    def table(self, names: Sequence[str]) -> pa.Table:
        """Fat rows: a list column each."""
        offsets = pa.array(np.append(0, np.cumsum(self.high - self.low)).astype(np.int32))
        return pa.table({name: pa.ListArray.from_arrays(offsets, pa.array(self.gather(name))) for name in names})


def slices_of_arrays(windows: Windows, names: Sequence[str], reuse: bool) -> Read:
    """``np.concatenate`` of slices, into new arrays or into the same ones again."""
    if not reuse:
        return lambda: [windows.gather(name) for name in names]
    out = [np.empty(windows.events, windows.columns[name].dtype) for name in names]

    def read() -> list[Array]:
        return [
            np.concatenate([windows.columns[name][a:b] for a, b in windows.bounds], out=room)
            for name, room in zip(names, out, strict=True)
        ]

    return read


def slices_of_memmaps(windows: Windows, names: Sequence[str], folder: Path) -> Read:
    """The same from files that are mapped into memory, uncompressed."""
    folder.mkdir(exist_ok=True)
    mapped: dict[str, Array] = {}
    for name in names:
        windows.columns[name].tofile(folder / name)
        mapped[name] = np.memmap(folder / name, windows.columns[name].dtype, "r")
    return slices_of_arrays(Windows(mapped, windows.low, windows.high), names, reuse=False)


def parquet_fat_rows(windows: Windows, names: Sequence[str], path: Path, clustered: bool) -> Read:
    """Row groups of about a thousand events, or of the whole batch where rows are read as they lie; LZ4."""
    rows = len(windows.bounds)
    group = rows if clustered else max(1, _MIN_GROUP_EVENTS * rows // max(windows.events, 1))
    pq.write_table(
        windows.table(names), path, compression="lz4", row_group_size=group, data_page_size=1 << 16,
        use_dictionary=False, write_statistics=False,
    )  # fmt: skip
    file = pq.ParquetFile(path, memory_map=True)
    wanted = np.random.default_rng(0).permutation(file.num_row_groups).tolist()

    def read() -> list[Array]:
        table = file.read_row_groups(wanted, columns=list(names), use_threads=False)
        return [table.column(name).combine_chunks().flatten().to_numpy() for name in names]

    return read


def lance_fat_rows(windows: Windows, names: Sequence[str], path: Path) -> Read:
    """``take`` of rows at random."""
    lance = _load("lance", "pylance")
    dataset = lance.write_dataset(windows.table(names), str(path))
    wanted = np.random.default_rng(0).permutation(len(windows.bounds)).tolist()

    def read() -> list[Array]:
        table = dataset.take(wanted, columns=list(names))
        return [table.column(name).combine_chunks().flatten().to_numpy() for name in names]

    return read


def vortex_fat_rows(windows: Windows, names: Sequence[str], path: Path) -> Read:
    """``scan`` of every second row, twice as many being there."""
    vortex = _load("vortex", "vortex-data")
    vortex.io.write(windows.table(names).take(np.repeat(np.arange(len(windows.bounds)), 2)), str(path))
    file = vortex.open(str(path))
    wanted = vortex.array(pa.array(np.arange(0, 2 * len(windows.bounds), 2).astype(np.uint64)))

    def read() -> list[Array]:
        table = file.scan(list(names), indices=wanted).read_all().to_arrow_table()
        return [table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False) for name in names]

    return read


def vortex_event_rows(windows: Windows, names: Sequence[str], path: Path) -> Read:
    """``scan`` of the windows' rows, each once, of a table with one row an event, user by user."""
    vortex = _load("vortex", "vortex-data")
    vortex.io.write(pa.table({name: windows.columns[name] for name in names}), str(path))
    file = vortex.open(str(path))
    rows = np.unique(np.concatenate([np.arange(a, b) for a, b in windows.bounds]))
    wanted = vortex.array(pa.array(rows.astype(np.uint64)))

    def read() -> list[Array]:
        table = file.scan(list(names), indices=wanted).read_all().to_arrow_table()
        return [table.column(name).combine_chunks().to_numpy(zero_copy_only=False) for name in names]

    return read


def datasets_fat_rows(windows: Windows, names: Sequence[str], path: Path) -> Read:
    """Hugging Face datasets over Arrow in mapped files: ``with_format("arrow")`` and rows at random."""
    datasets = _load("datasets", "datasets")
    datasets.disable_progress_bars()
    datasets.Dataset(windows.table(names)).save_to_disk(str(path))
    dataset = datasets.load_from_disk(str(path)).with_format("arrow")
    wanted = np.random.default_rng(0).permutation(len(windows.bounds)).tolist()

    def read() -> list[Array]:
        table = dataset[wanted]
        return [table.column(name).combine_chunks().flatten().to_numpy() for name in names]

    return read


def _load(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(f"{package} is not installed ({error})") from error
