"""A log into a store: read and checked, brought into arrival order, appended so that it can be run again.

A log is read to its end before the first event is stored, so that a bad line leaves the store as it was, and a store
that was not there is not made. For arrival order by time this pass deals the events into parts (:mod:`.arrange`); for
arrival order by rows it checks them, and a second pass stores them.

A store that is made without a ``source`` is filled aside and appears whole at the end, or not at all. With one, a
batch's offset is the number of events up to its end. An import that was interrupted and is run
again with the same source, files and settings reads the log again, and goes on behind the last batch that every shard
has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from uihkv.errors import FormatError, SchemaError
from uihkv.events import parse_events
from uihkv.importers.arrange import arranging, count_parts
from uihkv.importers.protocol import ORDERS, BadLines, Importer, OnBad, Order, Part
from uihkv.schema import VISIBLE_AT, Schema
from uihkv.store import Store

BATCH_ROWS = 1 << 18


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is.

    Attributes:
        stage: ``"read"``: the log is read and checked; ``"write"``: its events are stored.
        share: of this stage, 0 to 1.
        events: read, or stored, so far.
        file: the file at hand; None while events of all files are stored in order of time.

    """

    stage: Literal["read", "write"]
    share: float
    events: int
    file: Path | None


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of a log.

    Attributes:
        format: its format's name.
        files: number of files.
        order: arrival order: ``"time"`` or ``"rows"``.
        created: whether the store was made.
        events: events of the log; ``appended + replayed``.
        appended: events stored.
        replayed: events that the store already had from this source.
        lifted: events whose visible time was raised to the user's latest.
        skipped: bad lines passed over.
        first_skipped: where the first of them is, and what is wrong with it.

    """

    format: str
    files: int
    order: str
    created: bool
    events: int
    appended: int
    replayed: int
    lifted: int
    skipped: int
    first_skipped: str | None

    def describe(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def store_log(
    importer: Importer,
    store_path: str | os.PathLike[str],
    files: Sequence[Path],
    *,
    source: str | None,
    shards: int,
    order: Order | None,
    on_bad: OnBad,
    batch_rows: int,
    progress: Callable[[ImportProgress], None] | None,
) -> ImportResult:
    """Do what :func:`uihkv.importers.import_log` says, with an importer that is made."""
    if isinstance(batch_rows, bool) or not isinstance(batch_rows, int) or batch_rows < 1:
        raise SchemaError(f"batch_rows is {batch_rows!r}; 1 or more rows are expected")
    if order is not None and order not in ORDERS:
        raise SchemaError(f"order is {order!r}; one of {', '.join(ORDERS)} is expected")
    arrival = order or importer.order
    report = progress or (lambda _: None)
    target = Path(store_path)
    schema = importer.schema(files)
    bad = BadLines(on_bad)
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(target)) if holds_something(target) else None
        if store is not None:
            check_fits(importer.name, schema, store.schema)
            shards = store.shards
        created = store is None
        counts = [0] * len(files)
        batches: Iterator[tuple[Path | None, pa.Table]]
        if arrival == "time":
            size = sum(_text_bytes(file) for file in files)
            parts = stack.enter_context(arranging(target, count_parts(size, shards)))
            for part in _checked(importer, schema, files, bad, counts, report):
                parts.add(part.events)
            parts.finish()
            batches = ((None, table) for table in cut_tables(parts.sorted_parts(), batch_rows))
            bounds = [0, sum(counts)]
        else:
            for _ in _checked(importer, schema, files, bad, counts, report):
                pass
            batches = _cut_files(importer.read(files, BadLines(on_bad)), files, batch_rows)
            bounds = [sum(counts[:n]) for n in range(len(counts) + 1)]
        if store is None:
            make = Store.build if source is None else Store.create  # without a source, half a store is of no use
            store = stack.enter_context(make(target, schema, shards))
        done = 0 if source is None else store.sources().get(source, 0)
        if source is not None and done:
            _check_boundary(source, done, bounds, batch_rows)
        appended, replayed, lifted = _append(store, batches, source, done, sum(counts), report)
    return ImportResult(
        importer.name,
        len(files),
        arrival,
        created,
        sum(counts),
        appended,
        replayed + done,
        lifted,
        bad.skipped,
        bad.first,
    )


def _checked(
    importer: Importer,
    schema: Schema,
    files: Sequence[Path],
    bad: BadLines,
    counts: list[int],
    report: Callable[[ImportProgress], None],
) -> Iterator[Part]:
    """The log's parts, every value compared with the schema; events of each file are counted."""
    sizes = [max(_size(file), 1) for file in files]
    for part in importer.read(files, bad):
        columns, visible = split_clock(part.events)
        try:
            parse_events(schema, columns, visible)
        except SchemaError as error:
            raise SchemaError(f"{files[part.file]}: {error}") from error
        counts[part.file] += part.events.num_rows
        share = (sum(sizes[: part.file]) + part.share * sizes[part.file]) / sum(sizes)
        report(ImportProgress("read", share, sum(counts), files[part.file]))
        yield part


def _append(
    store: Store,
    batches: Iterable[tuple[Path | None, pa.Table]],
    source: str | None,
    done: int,
    total: int,
    report: Callable[[ImportProgress], None],
) -> tuple[int, int, int]:
    """Append batches that end past the first ``done`` events: counts of appended, replayed and lifted."""
    appended = replayed = lifted = end = 0
    for file, table in batches:
        end += table.num_rows
        if end <= done:
            continue
        columns, visible = split_clock(table)
        offset = None if source is None else end
        result = store.append(columns, visible, backfill=visible is None, source=source, offset=offset)
        appended += result.appended
        replayed += result.replayed
        lifted += result.lifted
        report(ImportProgress("write", end / total, end, file))
    return appended, replayed, lifted


def split_clock(events: Any) -> tuple[dict[str, Any], Any]:
    """A batch's columns by name without its visible times, and those, or None."""
    columns = {name: events.column(name) for name in events.schema.names}
    visible = columns.pop(VISIBLE_AT, None)
    return columns, visible


def cut_tables(tables: Iterable[Any], batch_rows: int) -> Iterator[pa.Table]:
    """The same rows, ``batch_rows`` a table; the last may have fewer."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        while rows >= batch_rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, batch_rows)
            held = [whole.slice(batch_rows)]
            rows -= batch_rows
    if rows:
        yield pa.concat_tables(held)


def _cut_files(parts: Iterator[Part], files: Sequence[Path], batch_rows: int) -> Iterator[tuple[Path | None, pa.Table]]:
    """Batches that end where files do, so that more files may follow in a later run."""
    ahead = next(parts, None)
    while ahead is not None:
        number = ahead.file

        def of_this_file(number: int = number) -> Iterator[pa.Table]:
            nonlocal ahead
            while ahead is not None and ahead.file == number:
                yield pa.Table.from_batches([ahead.events])
                ahead = next(parts, None)

        for table in cut_tables(of_this_file(), batch_rows):
            yield files[number], table


def _check_boundary(source: str, done: int, bounds: Sequence[int], batch_rows: int) -> None:
    """Refuse files in which the source cannot have stopped here: events would be skipped or stored twice."""
    for low, high in pairwise(bounds):
        if low <= done <= high and ((done - low) % batch_rows == 0 or done == high):
            return
    raise SchemaError(
        f"source {source!r} stands at event {done}, where no batch of these files ({bounds[-1]} events, "
        f"batch_rows={batch_rows}) ends: they are not the files that it began with; give the same files in the same "
        "order and the same settings, or another source"
    )


def check_fits(name: str, schema: Schema, found: Schema) -> None:
    """Refuse a store that cannot take a log's events.

    Raises:
        SchemaError: naming what differs.

    """
    what = None
    if found.time_unit != schema.time_unit:
        what = f"its time unit is {found.time_unit}, the log's is {schema.time_unit}"
    elif found.user_id != schema.user_id:
        what = f"its user ids are {found.user_id}, the log's are {schema.user_id}"
    for column in schema.columns:
        if column.name not in found:
            what = what or f"it has no column {column.name!r}"
            continue
        there = found[column.name]
        if (there.dtype, there.ragged, there.shape) != (column.dtype, column.ragged, column.shape):
            what = what or f"its column {column.name!r} is {there.dtype}, the log's is {column.dtype}"
    for column in found.columns:
        if column.name not in schema and column.default is None:
            what = what or f"its column {column.name!r} has no default, and the log does not have it"
    if what is not None:
        raise SchemaError(f"the store does not take {name} events: {what}; import into a new store")


def holds_something(path: Path) -> bool:
    """Whether a store is to be opened there, not made."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def list_logs(files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files, in the order given.

    Raises:
        FormatError: for one that is not there or is a folder, or none at all.

    """
    given = [files] if isinstance(files, str | os.PathLike) else list(files)
    paths = [Path(os.fspath(one)) for one in given]
    for path in paths:
        if not path.exists():
            raise FormatError(f"{path} does not exist; name the log's files")
        if path.is_dir():
            raise FormatError(f"{path} is a folder; name the log's files in it")
    if not paths:
        raise FormatError("no files given; name the log's files")
    return paths


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _text_bytes(file: Path) -> int:
    """Size of a file's text, about: packed files are taken to be a fifth of it, and columns a third."""
    return _size(file) * {".gz": 5, ".parquet": 3}.get(file.suffix, 1)
