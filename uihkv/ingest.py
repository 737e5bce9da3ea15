"""Event files into a store: any format that is known, rows in any order, files larger than memory.

Arrival order is the order of rows, file after file, or with ``order_by`` that of a column. Two promises beyond
``append``'s own:

- *Checked before written.* The columns and types of all files, then every value, are checked against the schema
  before the first event is written: bad rows leave the store as it was. In the order of rows this reads the files once
  more; it is left out where all rows fit one batch, which ``append`` refuses whole by itself.
- *Resumable.* With a ``source``, an interrupted ingest run again with the same files and settings goes on where each
  shard stopped, and stores nothing twice.

Two ways lead into the store. *By rows*: batch after batch as the rows come. *By user*: rows are first grouped on disk
(:mod:`uihkv.grouping`), then stored some users at a time; so it goes with ``order_by``, and into a store that is being
built, whose tails would otherwise be written again with every batch. Both can be shared among processes that each own
some shards (:mod:`uihkv.shares`).

Memory holds, a process, one batch of ``batch_rows`` rows as it is read, parsed and written, up to eight times at once
(as Arrow, as parsed columns, by shard, by user, and encoded), and a piece of the file, of which :mod:`uihkv.formats`
says how large. By user also ``grouping.HELD_BYTES``, and the pages of one append a shard, which LMDB keeps for the
next; nothing that grows with the files (``python -m perf.bulkmemory``). By rows also the tails of the batch's users,
which are written anew, up to ``chunk_events`` events each: where a first load is large and its users are scattered,
build the store or give ``order_by``. Wide events want smaller batches.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import xxhash

from uihkv.appending import check_source
from uihkv.claims import claim_offset, find_jobs, finish_job, job_name, own_offsets
from uihkv.errors import ReadOnlyError, SchemaError
from uihkv.events import cast_exactly
from uihkv.formats import Format, check_format, list_files
from uihkv.grouping import UserSample, plan_buckets
from uihkv.matching import EventFile, match_files, remaining
from uihkv.names import parse_names
from uihkv.schema import USER_ID
from uihkv.shares import Grouping, Stage, Work, work_together
from uihkv.store import Store
from uihkv.userids import STRING

BATCH_ROWS = 1 << 18


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far an ingest is.

    Attributes:
        stage: ``"check"``: values are compared with the schema; ``"group"``: rows are grouped by user on disk, values
            are checked; ``"write"``: events are stored.
        rows: rows done in this stage, of ``total``.
        total: rows of all files.
        file: the file at hand, or the store.

    """

    stage: Literal["check", "group", "write"]
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


def ingest(
    store: Store,
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    format: str | None = None,
    visible_at: str | None = None,
    order_by: str | None = None,
    rename: Mapping[str, str] | None = None,
    source: str | None = None,
    batch_rows: int = BATCH_ROWS,
    processes: int = 1,
    scratch: str | PathLike[str] | None = None,
    progress: Callable[[IngestProgress], None] | None = None,
) -> IngestResult:
    """Append the events of files.

    A file has ``user_id``, ``ts`` and the schema's columns; those with a default may be missing, and further columns
    are left alone and reported. Clocks may be integers in the store's time unit, or timestamps that are whole
    in it. Columns of a fixed shape are (nested) lists of that many elements, ragged ones are lists; CSV has neither.

    Args:
        store: where to.
        paths: a file, several, or folders, which stand for their event files sorted by name.
        format: ``"parquet"``, ``"arrow"`` (IPC files and streams) or ``"csv"`` of all files; None: told by each file's
            suffix or first bytes.
        visible_at: the files' column of visible times; None: the files are a backfill, visible at their ``ts``.
        order_by: the files' column of integers or timestamps that gives the arrival order, over all files; of equal
            places the earlier row arrived first. None: the order of rows.
        rename: names in the files → names in the store.
        source: name under which the files' rows are counted, so that an ingest can be run again. The files, their
            order and the settings must then be the same (``processes`` and ``scratch`` may differ); once it has
            ended, more files may follow.
        batch_rows: rows an append; 1 or more.
        processes: that share the work, up to one a shard. They are spawned: a script that asks for more than one keeps
            its own work under ``if __name__ == "__main__"``.
        scratch: folder for rows grouped by user, about as large as the files; None: beside the store.
        progress: called after each batch.

    Raises:
        FormatError: for a path that is not there or cannot be read in its format.
        SchemaError: for rows that do not fit the schema, or when the source stopped at a row where no batch of these
            files ends, or in an ingest of other files or settings.
        IngestError: when one of several processes died; run again with the same ``source``, it completes.
        ReadOnlyError, StoreFullError, CorruptChunkError: as ``Store.append``.

    """
    for name, value, most in (("batch_rows", batch_rows, 1 << 40), ("processes", processes, store.shards)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise SchemaError(f"{name} is {value!r}; a whole number from 1 to {most} is expected")
    if source is not None:
        check_source(source, 0)
    if store.readonly:
        raise ReadOnlyError(f"{store.path} was opened with readonly=True; open it without to ingest")
    if scratch is not None and not Path(scratch).is_dir():
        raise SchemaError(f"scratch is {str(scratch)!r}; a folder that is there is expected")
    check_format(format)
    known = cast("Format | None", format)
    files, ignored = match_files(
        store.schema, list_files(paths, known), format=known, visible_at=visible_at, order_by=order_by,
        rename=dict(rename or {}),
    )  # fmt: skip
    total = sum(file.source.rows for file in files)
    done = 0 if source is None else store.sources().get(source, 0)
    left = max(total - done, 0)
    by_user = order_by is not None or (store.building and left > batch_rows)
    report = _Reporter(progress, total, done, processes)
    if source is not None:
        _check_stopped(store, files, source, done, batch_rows, by_user)
    if not left:
        return IngestResult(len(files), total, 0, total, 0, ignored)
    work = Work(store, tuple(files), batch_rows, done, source)
    if by_user:
        counts = _ingest_by_user(work, order_by, rename, processes, scratch, report)
    else:
        counts = _ingest_by_rows(work, left, processes, report)
    return IngestResult(len(files), total, counts["appended"], total - counts["appended"], counts["lifted"], ignored)


def _ingest_by_rows(work: Work, left: int, processes: int, report: _Reporter) -> dict[str, int]:
    store, source = work.store, work.source
    if left > work.batch_rows or len(work.files) > 1:
        for file, start, batch in work.batches():
            batch.parse(store.schema)
            report("check", start + batch.end, file.source.path)
    if processes > 1:

        def claim(offset: int) -> None:
            if source is not None:
                claim_offset(store.shard_access(), source, offset)

        counts = work_together(work, processes, None, report.of_many, claim)
        claim(sum(file.source.rows for file in work.files))
        return counts
    counts = {"appended": 0, "lifted": 0}
    for file, start, batch in work.batches():
        with batch.located():
            result = store.append(
                batch.data, batch.visible, backfill=batch.visible is None, source=source,
                offset=None if source is None else start + batch.end,
            )  # fmt: skip
        counts["appended"] += result.appended
        counts["lifted"] += result.lifted
        report("write", start + batch.end, file.source.path)
    return counts


def _ingest_by_user(
    work: Work,
    order_by: str | None,
    rename: Mapping[str, str] | None,
    processes: int,
    scratch: str | PathLike[str] | None,
    report: _Reporter,
) -> dict[str, int]:
    store, source = work.store, work.source
    total = sum(file.source.rows for file in work.files)
    sample = UserSample(total - work.done)
    for file, _, first_row in remaining(work.files, work.done):
        for column in file.read_users(work.batch_rows, first_row):
            if column.null_count:
                raise SchemaError(f"{file.source.path}: column {USER_ID!r} holds nulls; fill or drop them")
            if store.schema.user_id == STRING:
                names = parse_names(column)
                sample.add(names.number[names.code])
            else:
                sample.add(cast_exactly(column.to_numpy(), np.dtype(np.int64), USER_ID))
    plan = plan_buckets(sample, store.shards, work.batch_rows)
    places = [0] * store.shards
    job = None
    if source is not None:
        settings = (order_by, sorted((rename or {}).items()), [file.visible_at for file in work.files])
        parts = (settings, [file.source.rows for file in work.files], work.done, work.batch_rows, plan.fingerprint())
        job = job_name(source, f"{xxhash.xxh3_64_intdigest(repr(parts).encode()):016x}")
        places = _find_places(store, source, job, work.done, total)
    with _scratch_folder(store, scratch) as folder:
        grouping = Grouping(plan, tuple(places), job, folder)
        counts = work_together(work, processes, grouping, report.of_many, lambda _: None)
    if source is not None and job is not None:
        finish_job(store.shard_access(), source, job, total)
    return counts


def _find_places(store: Store, source: str, job: str, done: int, total: int) -> list[int]:
    """How far each shard is in a job: what its own offset of the job says, or past all when it was finished there."""
    access = store.shard_access()
    others = find_jobs(access, source) - {job}
    if others:
        raise SchemaError(
            f"source {source!r} stands in an ingest of other files or settings that did not end; run that again first, "
            "or choose another source"
        )
    rows, places = own_offsets(access, source), own_offsets(access, job)
    if max(places) < 0 and max(rows) > done:
        raise SchemaError(
            f"source {source!r} stands in an ingest by rows that did not end (at row {max(rows)} of {total}); run that "
            "again first, without order_by and into a store that is open, or choose another source"
        )
    return [Grouping.ALL_DONE if row >= total else max(place, 0) for row, place in zip(rows, places, strict=True)]


@contextmanager
def _scratch_folder(store: Store, scratch: str | PathLike[str] | None) -> Iterator[Path]:
    """A new folder for grouped rows; inside a store that is being built, beside one that is there."""
    from uihkv.aside import owned_folder

    if scratch is None and store.building:
        folder = Path(tempfile.mkdtemp(prefix="ingest-", dir=store.path))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    where = store.path.parent if scratch is None else Path(scratch)
    with owned_folder(where / store.path.name, "ingest") as folder:
        yield folder


def _check_stopped(
    store: Store, files: Sequence[EventFile], source: str, done: int, batch_rows: int, by_user: bool
) -> None:
    """Refuse files in which the source cannot have stopped where it is: rows would be skipped or stored twice."""
    if not by_user and find_jobs(store.shard_access(), source):
        raise SchemaError(
            f"source {source!r} stands in an ingest by user that did not end (with order_by, or into a store that was "
            "being built); run that again first, or choose another source"
        )
    ends = np.cumsum([0, *(file.source.rows for file in files)])
    reached = {done}
    if not by_user:  # a shard may be further than all together are
        reached.update(own for own in own_offsets(store.shard_access(), source) if own > done)
    for row in sorted(reached):
        file = int(np.searchsorted(ends, row, side="right")) - 1
        within = row - int(ends[file])
        if row > ends[-1] or (within and (by_user or within % batch_rows)):
            raise SchemaError(
                f"source {source!r} stands at row {row}, where no batch of these {len(files)} files ({ends[-1]} rows, "
                f"batch_rows={batch_rows}) ends: they are not the files that it began with; give the same files in "
                "the same order and the same batch_rows, or another source"
            )


class _Reporter:
    """Tells the caller how far things are, for one process or the sum of several."""

    def __init__(
        self, progress: Callable[[IngestProgress], None] | None, total: int, done: int, processes: int
    ) -> None:
        self._progress = progress
        self._total = total
        self._rows: dict[str, int] = {"group": done, "write": done}

    def __call__(self, stage: Stage, rows: int, file: Path) -> None:
        """Rows up to here are done."""
        if self._progress is not None:
            self._progress(IngestProgress(stage, rows, self._total, file))

    def of_many(self, stage: Stage, rows: int, file: Path) -> None:
        """So many rows more are done."""
        self._rows[stage] += rows
        self(stage, self._rows[stage], file)
