"""Which prefix had each example seen? Pointers for whole files of examples: the batch channel.

Examples are rows of Parquet files with a user and a moment. Each gets the two columns that make it a slim example,
``version`` and ``last_ts``, and keeps all of its own; rows keep their order. Every row is resolved in one snapshot, so
that a file's pointers belong together.

- *Whole or not at all.* The output is written beside its place and renamed into it when it is complete and on disk.
  What can be refused from the files' footers is refused before anything is written.
- *Bounded memory.* It holds one batch of rows, the snapshot's directory, one count for each version up to the longest
  and the ids of the users, and nothing else that grows with the files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uihkv.aside import owned_file
from uihkv.bases import OnTrimmed
from uihkv.errors import PointerError, SchemaError, TrimmedError, UihkvError
from uihkv.formats import list_files, open_source
from uihkv.formats.source import Source, Wanted, as_ticks, read_batches
from uihkv.manifest import sync_directory
from uihkv.pointers import Pointers, as_int64, as_user_ids
from uihkv.schema import USER_ID
from uihkv.snapshot import Snapshot
from uihkv.store import Store
from uihkv.texts import is_text
from uihkv.userids import INT64, UserIds
from uihkv.walk import count_late_events

BATCH_ROWS = 1 << 18
ADDED = ("version", "last_ts")
COMPRESSION = "zstd"

Int64s = NDArray[np.int64]


class OutputError(UihkvError):
    """The output has no place: something is there that may not be replaced, or its folder is missing."""


@dataclass(frozen=True, slots=True)
class ResolveResult:
    """What became of the examples. Of no rows, mean and percentiles are None.

    Attributes:
        files: number of files read.
        rows: examples, all of them written.
        users: different users among them.
        empty: rows with version 0: nothing was visible yet.
        version_mean: mean version.
        version_p50, version_p90, version_p99: the smallest version that this share of the rows does not exceed.
        version_max: largest version.
        events: events of these users.
        late_events: of these, events that arrived with a ``ts`` below one that had arrived before: as many as a join on
            ``ts`` would put elsewhere. Where events were stored without visible times, ``ts`` stands for these, lifted
            to the user's latest: a late event is then taken to have been visible with the event before it.

    """

    files: int
    rows: int
    users: int
    empty: int
    version_mean: float | None
    version_p50: int | None
    version_p90: int | None
    version_p99: int | None
    version_max: int | None
    events: int
    late_events: int

    def describe(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


class _Tally:
    """Counts over all rows: of each version, and of users."""

    def __init__(self) -> None:
        self._versions = np.zeros(1, np.int64)
        self._users: UserIds = np.empty(0, np.int64)

    def add(self, pointers: Pointers) -> None:
        counts = np.bincount(pointers.version, minlength=len(self._versions))
        counts[: len(self._versions)] += self._versions
        self._versions = counts
        users = np.unique(pointers.user_id)
        self._users = np.union1d(self._users, users) if len(self._users) else users

    def result(self, files: int, snapshot: Snapshot) -> ResolveResult:
        rows = int(self._versions.sum())
        if not rows:
            return ResolveResult(files, 0, 0, 0, None, None, None, None, None, 0, 0)
        upto = np.cumsum(self._versions)
        p50, p90, p99 = (int(np.searchsorted(upto, -(-rows * share // 100))) for share in (50, 90, 99))
        total = int(np.dot(self._versions, np.arange(len(self._versions))))
        return ResolveResult(
            files, rows, len(self._users), int(self._versions[0]), total / rows,
            p50, p90, p99, int(np.flatnonzero(self._versions)[-1]), *count_late_events(snapshot, self._users),
        )  # fmt: skip


def resolve_file(
    store: Store,
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    as_of: str,
    delay: int = 0,
    user_id: str = USER_ID,
    force: bool = False,
    batch_rows: int = BATCH_ROWS,
    on_trimmed: OnTrimmed = "raise",
    progress: Callable[[int, int], None] | None = None,
) -> ResolveResult:
    """Write slim examples: the rows of Parquet files with ``version`` and ``last_ts`` (int64) added.

    ``version`` is the number of the user's events that became visible strictly before ``as_of - delay``; ``last_ts`` is
    the ``ts`` of the newest of them, 0 where there is none.

    Args:
        store: whose histories the pointers name.
        path: a file, several with the same columns, or folders of them; they become one file.
        out: where the slim examples go.
        as_of: column of the requests' moments: integers in the store's time unit, or Arrow timestamps that are whole in
            it. It is kept as it is.
        delay: how much later than its visible time an event reached the serving side, in the time unit; 0 or more.
        user_id: column of the users, written as ``user_id``.
        force: replace ``out`` if it is there.
        batch_rows: rows resolved at a time; 1 or more.
        on_trimmed: what becomes of rows whose version only trimmed events would tell, as in ``Snapshot.resolve``.
        progress: called after each batch with the rows done and the rows of all files.

    Raises:
        OutputError: when ``out`` is there, unless ``force``; always when it is a folder or one of the inputs, or when
            the folder that it should be in is missing.
        FormatError: for inputs that are not there or cannot be read as Parquet.
        SchemaError: for missing columns, columns that would be added and are there already, other types, nulls, moments
            that are not whole in the time unit, or files of different columns.
        PointerError: for a negative delay, or ids or moments that int64 cannot hold.
        TrimmedError: for versions that are no longer known, with ``on_trimmed="raise"``.
        OSError: when the output cannot be written.

    """
    if isinstance(batch_rows, bool) or not isinstance(batch_rows, int) or batch_rows < 1:
        raise SchemaError(f"batch_rows is {batch_rows!r}; 1 or more rows are expected")
    target = Path(out)
    sources = [open_source(file, Wanted(), "parquet") for file in list_files(path, "parquet")]
    schema = _plan_output(sources, user_id, as_of, store.schema.user_id)
    check_output(target, sources, force)
    total = sum(source.rows for source in sources)
    tally = _Tally()
    with store.snapshot() as snapshot:
        snapshot.resolve([], [], delay, on_trimmed=on_trimmed)  # refuses both before anything is written
        with write_aside(target, schema, force) as writer:
            done = 0
            for source in sources:
                for table, pointers in _resolve_rows(snapshot, source, batch_rows, user_id, as_of, delay, on_trimmed):
                    tally.add(pointers)
                    columns = [*table.columns, pa.array(pointers.version), pa.array(pointers.last_ts)]
                    writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                    done += table.num_rows
                    if progress is not None:
                        progress(done, total)
        return tally.result(len(sources), snapshot)


def _plan_output(sources: Sequence[Source], user_id: str, as_of: str, user_kind: str) -> Any:
    """The Arrow schema of the output; refuses files that do not have the columns for it."""
    first = sources[0]
    check_same_columns(sources)
    wanted_id = "an integer" if user_kind == INT64 else "a string"
    for name, wanted, clock in ((user_id, wanted_id, False), (as_of, "an integer or a timestamp", True)):
        if name not in first.names:
            raise SchemaError(f"{first.path}: no column {name!r}; the file has {', '.join(first.names)}")
        kind = first.schema.field(name).type
        fits = pa.types.is_integer(kind) if clock or user_kind == INT64 else is_text(kind)
        if not (fits or (clock and pa.types.is_timestamp(kind))):
            raise SchemaError(f"{first.path}: column {name!r} is {kind}, {wanted} is expected; convert it first")
    taken = [name for name in ADDED if name in first.names]
    if taken:
        raise SchemaError(
            f"{first.path}: it has {' and '.join(taken)} already, which resolving adds; its pointers may be logged "
            "ones, so drop or rename the columns yourself if they may go"
        )
    if user_id != USER_ID and USER_ID in first.names:
        raise SchemaError(
            f"{first.path}: both {user_id!r} and 'user_id' are there, and the output has one user_id; drop or rename "
            "one of them"
        )
    fields = [field.with_name(USER_ID) if field.name == user_id else field for field in first.schema]
    fields += [pa.field(name, pa.int64(), nullable=False) for name in ADDED]
    return pa.schema(fields, metadata=first.schema.metadata)


def check_same_columns(sources: Sequence[Source]) -> None:
    """Refuse files that cannot become one."""
    first = sources[0]
    for source in sources[1:]:
        if not source.schema.equals(first.schema):
            raise SchemaError(
                f"{source.path}: its columns are {_describe(source)}, those of {first.path} are {_describe(first)}; "
                "one output needs files of the same columns, so take them one by one"
            )


def _describe(source: Source) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in source.schema)


def check_output(target: Path, sources: Sequence[Source], force: bool) -> None:
    """Refuse an output that has no place."""
    if target.is_dir():
        raise OutputError(f"{target} is a folder; name a file for the output")
    if not target.parent.is_dir():
        raise OutputError(f"{target.parent} is no folder; make it before {target.name} is written there")
    if target.exists() and any(target.samefile(source.path) for source in sources):
        raise OutputError(f"{target} is one of the inputs, which are never replaced; choose another output")
    if os.path.lexists(target) and not force:
        raise OutputError(f"{target} is already there; choose another output, or replace it by force")


def _resolve_rows(
    snapshot: Snapshot,
    source: Source,
    batch_rows: int,
    user_id: str,
    as_of: str,
    delay: int,
    on_trimmed: OnTrimmed,
) -> Iterator[tuple[Any, Pointers]]:
    """A file's rows in batches, each as an Arrow table and its pointers."""
    begin = 0
    for table in read_batches(source, batch_rows):
        try:
            users = _parse_users(table.column(user_id), user_id, begin)
            ticks = as_ticks(table.column(as_of), snapshot.schema.time_unit, as_of)
            moments = _parse_integers(ticks, as_of, begin)
        except (SchemaError, PointerError) as error:
            raise type(error)(f"{source.path}, rows {begin} to {begin + table.num_rows - 1}: {error}") from error
        try:
            pointers = snapshot.resolve(users, moments, delay, on_trimmed=on_trimmed)
        except TrimmedError as error:
            raise TrimmedError(f"{source.path}, rows from {begin} on: {error}") from error
        yield table, pointers
        begin += table.num_rows


def _parse_users(column: Any, name: str, begin: int) -> UserIds:
    """A column of user ids without nulls."""
    if not is_text(column.type):
        return _parse_integers(column, name, begin)
    _refuse_nulls(column, name, begin)
    return as_user_ids(column, f"column {name!r}")


def _refuse_nulls(column: Any, name: str, begin: int) -> None:
    if column.null_count:
        row = begin + column.is_null().index(True).as_py()
        raise SchemaError(f"column {name!r}: row {row} is null; every example needs a user and a moment")


def _parse_integers(column: Any, name: str, begin: int) -> Int64s:
    """A column of integers without nulls: int64[n]."""
    _refuse_nulls(column, name, begin)
    return as_int64(column.to_numpy(), f"column {name!r}")


@contextmanager
def write_aside(target: Path, schema: Any, force: bool) -> Iterator[Any]:
    """A Parquet writer beside the target; the file takes its place at the end, and goes when anything fails.

    What a killed process left beside the target, the next one that writes it removes.
    """
    with owned_file(target) as (aside, file):
        with pq.ParquetWriter(file, schema, compression=COMPRESSION) as writer:
            yield writer
        file.flush()
        os.fsync(file.fileno())
        if os.path.lexists(target) and not force:
            raise OutputError(f"{target} was put there meanwhile; choose another output, or replace it by force")
        aside.replace(target)
    sync_directory(target.parent)
