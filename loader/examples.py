"""Where training rows come from: each a versioned pointer, labels and candidate features.

A source of examples is anything with the four members of :class:`Examples`. The two sources here hold their
columns in memory as flat arrays (16 or 24 bytes an example for the pointer, plus the features), so a batch is one
fancy-index per column. Rows are checked once, when the source is made; a batch trusts them.

What it leaves to others: which rows make a batch (:mod:`loader.order`), and whether the versions exist in the store
(the read says).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import xxhash
from numpy.typing import ArrayLike, NDArray

from loader.columns import Array, parse_array, parse_arrow
from uihkv import PointerError, Pointers, SchemaError
from uihkv.userids import parse_strings
from uihkv.userids import to_arrow as strings_to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

POINTER_COLUMNS = ("user_id", "version", "last_ts")


@runtime_checkable
class Examples(Protocol):
    """What a loader asks of its examples. ``take`` is called from several threads at once."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the labels and features, without the pointer's."""

    @property
    def fingerprint(self) -> str:
        """The same for the same rows, another for others; goes into a loader's state."""

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64]) -> tuple[Pointers, dict[str, Array]]:
        """Rows ``indices: int64[B]``: their pointers, and each column as a new array ``[B, *shape]``."""


class _FlatExamples:
    """Examples as flat arrays in memory; what both sources here come down to."""

    def __init__(self, columns: Mapping[str, Array], what: str) -> None:
        for name in POINTER_COLUMNS[:2]:
            if name not in columns:
                raise SchemaError(
                    f"{what}: no column {name!r} among {', '.join(columns) or 'none'}; examples carry user_id and "
                    "version: log snapshot.head at serving time, or resolve them by (user_id, as_of)"
                )
        lengths = {name: len(array) for name, array in columns.items()}
        if len(set(lengths.values())) > 1:
            raise SchemaError(f"{what}: columns have unequal lengths: {lengths}")
        try:
            self._pointers = Pointers(columns["user_id"], columns["version"], columns.get("last_ts"))
        except PointerError as error:
            error.add_note(f"in {what}")
            raise
        if not len(self._pointers):
            raise SchemaError(f"{what}: there are no examples")
        self._features = {name: array for name, array in columns.items() if name not in POINTER_COLUMNS}
        self._fingerprint = _fingerprint(self._pointers, self._features)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the labels and features, without the pointer's."""
        return tuple(self._features)

    @property
    def pointers(self) -> Pointers:
        """Pointers of all examples, in order."""
        return self._pointers

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, pointers included."""
        pointers = (self._pointers.user_id, self._pointers.version, self._pointers.last_ts)
        arrays = [array for array in pointers if array is not None]
        return sum(array.nbytes for array in [*arrays, *self._features.values()])

    @property
    def fingerprint(self) -> str:
        """Hash of the pointers, and of the names, types and shapes of the other columns: 32 hex digits.

        The values of labels and features are not in it: correcting a label keeps a loader's state valid.
        """
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._pointers)

    def take(self, indices: NDArray[np.int64]) -> tuple[Pointers, dict[str, Array]]:
        """Rows ``indices: int64[B]``: their pointers, and each column as a new array ``[B, *shape]``."""
        return self._pointers[indices], {name: array[indices] for name, array in self._features.items()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} examples, {', '.join(self.columns) or 'no features'})"


def _parse_column(name: str, values: Any) -> Array:
    """A column as a flat array; ``user_id`` may be of strings, which no other column may."""
    strings = parse_strings(values, name) if name == "user_id" else None
    if strings is not None:
        return strings
    arrow = hasattr(values, "null_count") and hasattr(values, "type")
    return parse_arrow(name, values) if arrow else parse_array(name, values)


class ArrayExamples(_FlatExamples):
    """Examples from arrays in memory.

    Args:
        columns: a mapping of arrays ``[n, *shape]``, or an Arrow table: ``user_id``, ``version``, maybe
            ``last_ts``, and labels and features of any name. Arrays are not copied where they need not be:
            leave them alone.
        pointers: n pointers, when they are not among the columns.

    Raises:
        SchemaError: for missing pointer columns, unequal lengths, no rows, nulls, and types that are not numbers.
        PointerError: for ids and versions that are not integers, or negative versions.

    """

    def __init__(self, columns: Mapping[str, ArrayLike] | pa.Table, pointers: Pointers | None = None) -> None:
        if isinstance(columns, Mapping):
            arrays = {name: _parse_column(name, values) for name, values in columns.items()}
        elif hasattr(columns, "column_names") and hasattr(columns, "column"):
            _check_unique(columns.column_names, "ArrayExamples")
            arrays = {name: _parse_column(name, columns.column(name)) for name in columns.column_names}
        else:
            raise SchemaError(
                f"{type(columns).__name__} given; a mapping of arrays or an Arrow table is expected, such as "
                "ArrayExamples({'user_id': ..., 'version': ..., 'label': ...})"
            )
        if pointers is not None:
            if not isinstance(pointers, Pointers):
                raise SchemaError(f"{type(pointers).__name__} given as pointers; uihkv.Pointers are expected")
            twice = [name for name in POINTER_COLUMNS if name in arrays]
            if twice:
                raise SchemaError(f"pointers are given twice: as an argument and as columns {twice}; give one")
            arrays |= {"user_id": pointers.user_id, "version": pointers.version}
            if pointers.last_ts is not None:
                arrays["last_ts"] = pointers.last_ts
        super().__init__(arrays, "ArrayExamples")


class ParquetExamples(_FlatExamples):
    """Examples from Parquet files, read once, row group by row group, into flat arrays.

    Args:
        path: a file, several files, or a folder: all its ``*.parquet``, in the order of their names. Files have
            the same columns.
        columns: labels and features to take; None: all that the file has beside the pointer's.

    Raises:
        SchemaError: for paths that are missing or not Parquet, and as :class:`ArrayExamples`.
        PointerError: as :class:`ArrayExamples`.

    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        columns: Iterable[str] | None = None,
    ) -> None:
        if isinstance(columns, str):
            raise SchemaError(f"columns is the string {columns!r}; write columns=[{columns!r}]")
        files = _parquet_files(path)
        wanted = None if columns is None else tuple(columns)
        super().__init__(_read_files(files, wanted), f"{files[0]}" + (" …" if len(files) > 1 else ""))
        self.files = files


_BATCH_ROWS = 1 << 20
"""Rows that are read at a time."""


def _parquet_files(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[Path, ...]:
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    files: list[Path] = []
    for entry in map(Path, given):
        if entry.is_dir():
            inside = sorted(entry.glob("*.parquet"))
            if not inside:
                raise SchemaError(f"{entry} is a folder without *.parquet files")
            files += inside
        elif entry.is_file():
            files.append(entry)
        else:
            raise SchemaError(f"{entry} does not exist; a Parquet file or a folder of them is expected")
    if not files:
        raise SchemaError("no Parquet file given; a path, several paths or a folder is expected")
    return tuple(files)


def _read_files(files: Sequence[Path], wanted: tuple[str, ...] | None) -> dict[str, Array]:
    """All rows of the wanted columns; each array is allocated once and filled row group by row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays: dict[str, Array] = {}
    names: list[str] | None = None
    total = done = 0
    try:
        total = sum(pq.read_metadata(file).num_rows for file in files)
        for path in files:
            with pq.ParquetFile(path) as file:
                has = list(file.schema_arrow.names)
                if names is None:
                    names = _choose(has, wanted, path)
                missing = [name for name in names if name not in has]
                extra = [name for name in has if name not in names] if wanted is None else []
                if missing or extra:
                    raise SchemaError(f"{path}: has columns {has}, the first file gave {names}; give files alike")
                # Batches: of a whole row group, Arrow takes memory for as many rows as it claims, before it reads them.
                for group in range(file.num_row_groups):
                    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
                        table = pa.Table.from_batches([batch])
                        if done + len(table) > total:
                            raise _miscounted(path)
                        for name in names:
                            part = _parse_column(name, table.column(name))
                            whole = arrays.get(name)
                            if whole is None:
                                whole = arrays[name] = np.empty((total, *part.shape[1:]), part.dtype)
                            if part.shape[1:] != whole.shape[1:] or part.dtype != whole.dtype:
                                raise SchemaError(
                                    f"column {name!r} is {part.dtype}{list(part.shape[1:])} in row group {group}, "
                                    f"{whole.dtype}{list(whole.shape[1:])} before; give files alike"
                                )
                            whole[done : done + len(part)] = part
                        done += len(table)
        if done != total:
            raise _miscounted(files[-1])
    except MemoryError as error:
        raise SchemaError(f"{files[0]}: there is no memory for the {total:,} rows that it claims to have") from error
    except SchemaError as error:
        error.add_note(f"while reading {', '.join(map(str, files[:3]))}")
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: names that are no text
        raise SchemaError(f"{files[0]}: cannot be read as Parquet ({error})") from error
    if not total:
        raise SchemaError(f"{', '.join(map(str, files[:3]))}: there are no examples")
    return arrays


def _miscounted(path: Path) -> SchemaError:
    return SchemaError(f"{path}: its footer counts other rows than the file has; write it again")


def _choose(has: list[str], wanted: tuple[str, ...] | None, path: Path) -> list[str]:
    _check_unique(has, str(path))
    if wanted is None:
        return has
    unknown = [name for name in wanted if name not in has]
    if unknown:
        raise SchemaError(f"{path}: no columns {unknown}; the file has {', '.join(has)}")
    return [name for name in has if name in wanted or name in POINTER_COLUMNS]


def _check_unique(names: Sequence[str], what: str) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise SchemaError(f"{what}: columns {twice} stand more than once; names are unique")


def _fingerprint(pointers: Pointers, features: Mapping[str, Array]) -> str:
    digest = xxhash.xxh3_128()
    shapes: list[Any] = sorted((name, str(array.dtype), array.shape[1:]) for name, array in features.items())
    digest.update(repr(("examples-1", len(pointers), pointers.last_ts is not None, shapes)).encode())
    for column in (pointers.user_id, pointers.version, pointers.last_ts):
        if column is None:
            continue
        if column.dtype.kind == "T":  # string ids: their bytes, and where each ends
            for buffer in strings_to_arrow(column).buffers()[1:]:
                if buffer is not None:
                    digest.update(buffer)
        else:
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
