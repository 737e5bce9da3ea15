"""Parquet files as batches of rows, in bounded memory and with errors that name the file.

A file is read row group by row group through a small buffer, and cut into batches at boundaries that depend on the
file and the batch size only, never on how its row groups lie: row ``k * batch_rows`` of the file, and its end. What
the rows mean is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uihkv.errors import FormatError, SchemaError

_READ_ROWS = 1 << 16
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """A Parquet file, as its footer describes it.

    Attributes:
        path: where it is.
        rows: how many rows it has.
        schema: its Arrow schema, names unique.

    """

    path: Path
    rows: int
    schema: Any

    @property
    def names(self) -> list[str]:
        """Names of its columns."""
        return list(self.schema.names)


def list_files(paths: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[Path]:
    """The files that paths name, in the order given; a folder stands for its ``*.parquet`` files by name.

    Files and folders below a folder whose names begin with ``.`` or ``_`` are not events and are passed over.

    Raises:
        FormatError: for a path that does not exist, or a folder without Parquet files.

    """
    given = [paths] if isinstance(paths, str | PathLike) else list(paths)
    files: list[Path] = []
    for path in (Path(fspath(one)) for one in given):
        if path.is_dir():
            found = sorted(
                file
                for file in path.rglob("*.parquet")
                if file.is_file() and not any(part[0] in "._" for part in file.relative_to(path).parts)
            )
            if not found:
                raise FormatError(f"folder {path} holds no .parquet files; name the files or another folder")
            files.extend(found)
        elif path.exists():
            files.append(path)
        else:
            raise FormatError(f"{path} does not exist; give a Parquet file or a folder of them")
    if not files:
        raise FormatError("no files given; give one Parquet file or more, or a folder of them")
    return files


def inspect_file(path: Path) -> ParquetSource:
    """Read a file's footer.

    Raises:
        FormatError: when it cannot be read as Parquet.
        SchemaError: when two of its columns have one name.

    """
    with _open_file(path) as file:
        schema = file.schema_arrow
        rows = int(file.metadata.num_rows)
    names = list(schema.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SchemaError(f"{path}: columns {twice} stand more than once; write the file with unique names")
    return ParquetSource(path, rows, schema)


def read_batches(
    source: ParquetSource, batch_rows: int, *, columns: Sequence[str] | None = None, first_row: int = 0
) -> Iterator[Any]:
    """Arrow tables of ``batch_rows`` rows each, from ``first_row`` on; the last may be shorter.

    Holds one batch and one read-ahead of at most 65,536 rows in memory, beside a buffer a column.

    Raises:
        FormatError: when the file's bytes cannot be decoded.

    """
    wanted = source.names if columns is None else list(columns)
    with _open_file(source.path) as file:
        group, drop = 0, first_row
        while group < file.num_row_groups and drop >= file.metadata.row_group(group).num_rows:
            drop -= file.metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, file.num_row_groups))
        held: list[Any] = []
        rows = 0
        for batch in file.iter_batches(batch_size=min(batch_rows, _READ_ROWS), row_groups=groups, columns=wanted):
            kept = batch.slice(drop)
            drop = max(drop - batch.num_rows, 0)
            if kept.num_rows:
                held.append(kept)
                rows += kept.num_rows
            while rows >= batch_rows:
                table = pa.Table.from_batches(held)
                yield table.slice(0, batch_rows)
                held = table.slice(batch_rows).to_batches()
                rows -= batch_rows
        if rows:
            yield pa.Table.from_batches(held)


def as_ticks(values: Any, time_unit: str, name: str) -> Any:
    """An Arrow column of timestamps as int64 ticks of a time unit; anything else as it is.

    Raises:
        SchemaError: when a timestamp is not a whole number of ticks.

    """
    if not pa.types.is_timestamp(values.type):
        return values
    try:
        return values.cast(pa.timestamp(time_unit, tz=values.type.tz)).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise SchemaError(
            f"column {name!r}: {values.type} given, whole {time_unit} are expected ({error}); round it yourself first"
        ) from error


@contextmanager
def _open_file(path: Path) -> Iterator[Any]:
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path} cannot be read as Parquet ({what}); write it again, or leave it out") from error
