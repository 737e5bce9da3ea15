"""Fat rows into a store and slim examples, without loss: how a team moves over.

Fat rows are examples with their histories copied in (:mod:`.fatcolumns`). Four passes, all in bounded memory:

1. *Deal*: the rows' histories are dealt by user into parts (:mod:`.arrange`). 2. *Merge*: in each part every user's
windows are laid over each other (:mod:`.windows`). What no older window shows is appended to the user's history; each
row gets its version. 3. *Write*: the rows without their histories, with ``version`` and ``last_ts``, in their order:
slim examples. 4. *Verify*: every example is rebuilt from the store through ``snapshot.read`` and compared, in every
bit, with its fat row.

The store is filled aside, and it and the slim examples appear only after all of this went well, or not at all.

Order of a user's rows is that of the requests' moments where the file has them. Otherwise it is that of the rows; and
of users whose windows do not fit so, as in a shuffled file, it is worked out: from the latest ``ts`` that each row
shows and the events since, and a window may then lie inside what others showed. Many events of one ``ts`` may look
like conflicts there; moments tell them apart. Without ``ts`` it is that of the rows, and the user answers for it.

An event becomes visible at its ``ts``. With requests' moments it is moved, where it must, to after the last request
that did not show it and before the first that did, so that ``resolve`` at a request's moment gives the row's own
version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from uihkv.errors import SchemaError, StoreExistsError
from uihkv.formats import list_files, open_source
from uihkv.formats.source import Source, Wanted
from uihkv.importers.arrange import arranging
from uihkv.importers.fatcolumns import FatColumns, plan_columns
from uihkv.importers.migration import FatRowsProgress, Migration
from uihkv.importers.storing import holds_something
from uihkv.resolve import check_output, check_same_columns, write_aside
from uihkv.schema import USER_ID
from uihkv.store import Store


@dataclass(frozen=True, slots=True)
class FatRowsResult:
    """What became of the fat rows.

    Attributes:
        files: number of files.
        rows: fat rows.
        examples: slim examples; ``rows`` without conflicts.
        verified: examples that were read from the store and equal their fat rows: all of them.
        users: users with a history.
        copied: events in all fat rows.
        events: events stored.
        longest: most events of a row; what a projection's ``max_len`` must be to read the rows back.
        gaps: rows before which events were never shown; they are whole themselves.
        conflicts: rows left out, since they cannot be windows of their user's history.
        first_conflict: the first of them in the files, and what is wrong with it.
        fat_bytes: size of the files.
        slim_bytes: size of the slim examples.
        store_bytes: size of the store.

    """

    files: int
    rows: int
    examples: int
    verified: int
    users: int
    copied: int
    events: int
    longest: int
    gaps: int
    conflicts: int
    first_conflict: str | None
    fat_bytes: int
    slim_bytes: int
    store_bytes: int

    def describe(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def import_fat_rows(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    store: str | PathLike[str],
    out: str | PathLike[str],
    *,
    user_id: str = USER_ID,
    asked: str | None = None,
    history: Mapping[str, str] | None = None,
    prefix: str = "history_",
    max_len: int | None = None,
    time_unit: str | None = None,
    on_conflict: Literal["raise", "skip"] = "raise",
    shards: int = 16,
    force: bool = False,
    progress: Callable[[FatRowsProgress], None] | None = None,
) -> FatRowsResult:
    """Make a store and slim examples of fat rows, and verify that they hold the same.

    Args:
        paths: a Parquet file, several with the same columns, or folders of them; in the order of their rows.
        store: where nothing is yet.
        out: where the slim examples go: the columns that are not histories, the users as ``user_id``, and ``version``
            and ``last_ts``, in the rows' order.
        user_id: column of users: integers or strings.
        asked: column of the requests' moments; None: there is none.
        history: list columns of the files → names in the store, of which ``ts`` and ``visible_at`` are its clocks;
            None: those whose names begin with ``prefix``, without it.
        prefix: of history columns.
        max_len: to how many events histories were cut when they were written; None: the longest row's. A row of fewer
            shows its user's whole history.
        time_unit: of ``ts`` and ``asked`` where they are integers, and of the store; None: that of the timestamps, or
            ms.
        on_conflict: ``"raise"`` when a row cannot be a window of its user's history, after all were counted;
            ``"skip"`` leaves them out of store and examples.
        shards: of the store.
        force: replace ``out`` if it is there.
        progress: called with each batch of each stage.

    Raises:
        ConflictError: for conflicts, unless they are skipped: how many, and the first.
        VerificationError: when an example read back is not its fat row; nothing is then published.
        OutputError, StoreExistsError: when something is where the output or the store is to be.
        FormatError: for files that are not there or cannot be read as Parquet.
        SchemaError: for columns that cannot be, nulls, and other arguments.

    """
    if on_conflict not in ("raise", "skip"):
        raise SchemaError(f"on_conflict is {on_conflict!r}; raise or skip is expected")
    sources = [open_source(path, Wanted(), "parquet") for path in list_files(paths, "parquet")]
    check_same_columns(sources)
    columns = plan_columns(
        sources[0], user_id=user_id, asked=asked, history=history, prefix=prefix, time_unit=time_unit
    )
    target, slim = Path(store), Path(out)
    if holds_something(target):
        raise StoreExistsError(f"{target}: something is there; a migration makes a new store, so choose another path")
    check_output(slim, sources, force)
    migration = Migration(sources, columns, max_len, on_conflict == "skip", progress or (lambda _: None))
    schema = _slim_schema(sources[0], columns)
    with arranging(target, migration.parts(shards), migration.sorted_by) as parts:
        migration.deal(parts)
        with write_aside(slim, schema, force) as writer, Store.build(target, columns.schema, shards) as made:
            migration.merge(parts, made)
            migration.refuse_conflicts()
            examples = migration.write(writer, schema)
            with made.snapshot() as snapshot:
                verified = migration.verify(snapshot)
            store_bytes = made.stats().bytes
    tally = migration.tally
    return FatRowsResult(
        len(sources), migration.total, examples, verified, tally.users, tally.copied, tally.events, migration.longest,
        tally.gaps, tally.conflicts, tally.first, sum(source.path.stat().st_size for source in sources),
        slim.stat().st_size, store_bytes,
    )  # fmt: skip


def _slim_schema(source: Source, columns: FatColumns) -> Any:
    kept = [source.schema.field(name) for name in columns.kept(source)]
    fields = [field.with_name(USER_ID) if field.name == columns.user else field for field in kept]
    fields += [pa.field(name, pa.int64(), nullable=False) for name in ("version", "last_ts")]
    return pa.schema(fields)
