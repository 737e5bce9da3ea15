"""Event files into a store, in the order of their rows.

Arrival order is the order of rows, file after file. Two promises beyond ``append``'s own:

- *Checked before written.* The columns and types of all files, then every value, are checked against the schema
  before the first batch is written: bad rows leave the store as it was. Checking the values reads the files once
  more; it is left out where all rows fit one batch, which ``append`` refuses whole by itself.
- *Resumable.* With a ``source``, a batch's offset is the number of rows up to its end. An interrupted ingest run
  again with the same source and files goes on behind the last batch that every shard has, and stores nothing twice.

Files are Parquet. Memory holds one batch of ``batch_rows`` rows as it is read, parsed and written, and nothing that
grows with the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from uihkv.dtypes import BFLOAT16
from uihkv.errors import SchemaError
from uihkv.events import parse_events
from uihkv.parquet import ParquetSource, as_ticks, inspect_file, list_files, read_batches
from uihkv.schema import TS, USER_ID, Column, Schema
from uihkv.store import Store
from uihkv.texts import is_text

BATCH_ROWS = 1 << 18


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far an ingest is.

    Attributes:
        stage: ``"check"``: values are compared with the schema; ``"write"``: events are stored.
        rows: rows done in this stage, of ``total``.
        total: rows of all files.
        file: the file at hand.

    """

    stage: Literal["check", "write"]
    rows: int
    total: int
    file: Path


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of the files' rows.

    Attributes:
        files: number of files.
        rows: rows of all files; ``appended + replayed``.
        appended: events stored.
        replayed: rows that the store already had from this source.
        lifted: events whose visible time was raised to the user's latest.
        ignored: columns of the files that the schema does not name, sorted.

    """

    files: int
    rows: int
    appended: int
    replayed: int
    lifted: int
    ignored: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """The fields by name."""
        return {**asdict(self), "ignored": list(self.ignored)}


@dataclass(frozen=True, slots=True)
class _EventFile:
    """A file, which of its columns the store takes, and under which names."""

    source: ParquetSource
    columns: Mapping[str, str]
    visible_at: str | None

    def read(self, schema: Schema, batch_rows: int, first_row: int = 0) -> Iterator[tuple[int, dict[str, Any], Any]]:
        """Rows up to each batch's end, its columns by the store's names, and its visible times."""
        wanted = list(self.columns)
        if self.visible_at is not None and self.visible_at not in self.columns:
            wanted.append(self.visible_at)
        end = first_row
        for table in read_batches(self.source, batch_rows, columns=wanted, first_row=first_row):
            begin, end = end, end + table.num_rows
            with _locating(self.source.path, begin, end):
                data = {
                    name: as_ticks(table.column(given), schema.time_unit, given) if name == TS else table.column(given)
                    for given, name in self.columns.items()
                }
                visible = None
                if self.visible_at is not None:
                    visible = as_ticks(table.column(self.visible_at), schema.time_unit, self.visible_at)
            yield end, data, visible


class _locating:  # noqa: N801  used as a word in a with statement
    """Name the file and its rows in errors about values."""

    def __init__(self, path: Path, begin: int, end: int) -> None:
        self._where = f"{path}, rows {begin} to {end - 1}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SchemaError):
            raise SchemaError(f"{self._where}: {error}") from error


def ingest(
    store: Store,
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    visible_at: str | None = None,
    rename: Mapping[str, str] | None = None,
    source: str | None = None,
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[IngestProgress], None] | None = None,
) -> IngestResult:
    """Append the events of Parquet files.

    A file has ``user_id``, ``ts`` and the schema's columns; those with a default may be missing, and further columns
    are left alone and reported. Clocks may be integers in the store's time unit, or Arrow timestamps that are whole
    in it. Columns of a fixed shape are (nested) lists of that many elements, ragged ones are lists.

    Args:
        store: where to.
        paths: a file, several, or folders, which stand for their ``*.parquet`` files sorted by name.
        visible_at: the files' column of visible times; None: the files are a backfill, visible at their ``ts``.
        rename: names in the files → names in the store.
        source: name under which the files' rows are counted, so that an ingest can be run again. The files, their
            order and ``batch_rows`` must then be the same; more files may follow.
        batch_rows: rows an append; 1 or more.
        progress: called after each batch.

    Raises:
        FormatError: for a path that is not there or cannot be read as Parquet.
        SchemaError: for rows that do not fit the schema, or when the source stopped at a row where no batch of these
            files ends.
        ReadOnlyError, StoreFullError, CorruptChunkError: as ``Store.append``.

    """
    if isinstance(batch_rows, bool) or not isinstance(batch_rows, int) or batch_rows < 1:
        raise SchemaError(f"batch_rows is {batch_rows!r}; 1 or more rows are expected")
    files, ignored = _plan_files(store.schema, list_files(paths), visible_at, dict(rename or {}))
    total = sum(file.source.rows for file in files)
    done = 0 if source is None else store.sources().get(source, 0)
    if source is not None and done:
        _check_boundary(files, source, done, batch_rows)
    report = progress or (lambda _: None)
    if total - done > batch_rows or len(files) > 1:
        _check_values(store.schema, files, done, batch_rows, report)
    appended = replayed = lifted = 0
    for file, start, first_row in _remaining(files, done):
        begin = first_row
        for end, data, visible in file.read(store.schema, batch_rows, first_row):
            with _locating(file.source.path, begin, end):
                result = store.append(
                    data,
                    visible,
                    backfill=visible is None,
                    source=source,
                    offset=None if source is None else start + end,
                )
            begin = end
            appended += result.appended
            replayed += result.replayed
            lifted += result.lifted
            report(IngestProgress("write", start + end, total, file.source.path))
    return IngestResult(len(files), total, appended, replayed + done, lifted, ignored)


def _remaining(files: Sequence[_EventFile], done: int) -> Iterator[tuple[_EventFile, int, int]]:
    """Files with rows past the first ``done`` of all: the file, rows of those before it, its first row wanted."""
    start = 0
    for file in files:
        if start + file.source.rows > done:
            yield file, start, max(done - start, 0)
        start += file.source.rows


def _check_values(
    schema: Schema,
    files: Sequence[_EventFile],
    done: int,
    batch_rows: int,
    report: Callable[[IngestProgress], None],
) -> None:
    total = sum(file.source.rows for file in files)
    for file, start, first_row in _remaining(files, done):
        begin = first_row
        for end, data, visible in file.read(schema, batch_rows, first_row):
            with _locating(file.source.path, begin, end):
                parse_events(schema, data, visible)
            begin = end
            report(IngestProgress("check", start + end, total, file.source.path))


def _check_boundary(files: Sequence[_EventFile], source: str, done: int, batch_rows: int) -> None:
    """Refuse files in which the source cannot have stopped here: rows would be skipped or stored twice."""
    start = 0
    for file in files:
        within = done - start
        if 0 <= within <= file.source.rows and (within == file.source.rows or within % batch_rows == 0):
            return
        start += file.source.rows
    raise SchemaError(
        f"source {source!r} stands at row {done}, where no batch of these {len(files)} files ({start} rows, "
        f"batch_rows={batch_rows}) ends: they are not the files that it began with; give the same files in the same "
        "order and the same batch_rows, or another source"
    )


def _plan_files(
    schema: Schema, paths: Sequence[Path], visible_at: str | None, rename: Mapping[str, str]
) -> tuple[list[_EventFile], tuple[str, ...]]:
    """Match every file's columns with the schema's, by name and type."""
    unknown = sorted(set(rename.values()) - {USER_ID, TS, *schema.names})
    if unknown:
        raise SchemaError(
            f"rename gives columns the names {unknown}; the store has user_id, ts, {', '.join(schema.names)}"
        )
    files: list[_EventFile] = []
    ignored: set[str] = set()
    for path in paths:
        source = inspect_file(path)
        columns = _match_columns(schema, source, rename)
        if visible_at is not None:
            if visible_at not in source.names:
                raise SchemaError(
                    f"{path}: no column {visible_at!r} for visible times; the file has {', '.join(source.names)}"
                )
            _check_type(source, Column("visible", "int64"), visible_at, clock=True)
        ignored.update(set(source.names) - set(columns) - {visible_at})
        files.append(_EventFile(source, columns, visible_at))
    return files, tuple(sorted(ignored))


def _match_columns(schema: Schema, source: ParquetSource, rename: Mapping[str, str]) -> dict[str, str]:
    """Names in the file → names in the store, of the columns that the store takes."""
    absent = sorted(set(rename) - set(source.names))
    if absent:
        raise SchemaError(f"{source.path}: no columns {absent} to rename; the file has {', '.join(source.names)}")
    wanted = {USER_ID, TS, *schema.names}
    columns: dict[str, str] = {}
    for given in source.names:
        name = rename.get(given, given)
        if name not in wanted:
            continue
        if name in columns.values():
            raise SchemaError(f"{source.path}: two columns for {name!r}, one of them renamed; rename or drop the other")
        columns[given] = name
    for name in (USER_ID, TS, *schema.names):
        if name not in columns.values() and (name in (USER_ID, TS) or schema[name].default is None):
            raise SchemaError(
                f"{source.path}: no column {name!r}, which every event needs; the file has "
                f"{', '.join(source.names)}: rename one, or add it"
            )
    for given, name in columns.items():
        column = Column("_", "int64") if name in (USER_ID, TS) else schema[name]
        _check_type(source, column, given, clock=name == TS)
    return columns


def _check_type(source: ParquetSource, column: Column, given: str, *, clock: bool = False) -> None:
    """Refuse an Arrow type that no value of the column can have."""
    found = leaf = source.schema.field(given).type
    extents: list[int] = []
    lists = 0
    while _is_list(leaf):
        extents.append(leaf.list_size if pa.types.is_fixed_size_list(leaf) else -1)
        leaf, lists = leaf.value_type, lists + 1
    kind = column.numpy_dtype.kind
    fits = (
        (column.coded and is_text(leaf))
        or (kind == "b" and pa.types.is_boolean(leaf))
        or (kind in "iuf" and not column.coded and pa.types.is_integer(leaf))
        or ((kind == "f" or column.dtype == BFLOAT16) and pa.types.is_floating(leaf))
        or (clock and pa.types.is_timestamp(leaf))
    )
    if column.ragged:
        fits = fits and lists == 1 and extents == [-1]
    elif column.shape:
        one_list = lists == 1 and extents[0] in (-1, column.elements)
        fits = fits and (one_list or tuple(extents) == column.shape)
    else:
        fits = fits and lists == 0
    if not fits:
        wanted = f"a list of {column.dtype}" if column.ragged else column.dtype
        if column.shape:
            wanted = f"{column.dtype} of shape {column.shape}"
        raise SchemaError(
            f"{source.path}: column {given!r} is {found}, {wanted} is expected; nothing is cast with loss, so "
            "write the file with that type"
        )


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
