"""Have the stores caught up with examples' inline tails? Then the tails may go.

An example with an inline tail (:mod:`uihkv.inline`) becomes one with a pointer alone: version and ``last_ts`` of its
whole sequence, after every event of the tail was compared with the store. From then on it reads as before, and the
events are stored once. Rows and all other columns stay as they are.

The output appears whole or not at all, as in :mod:`uihkv.resolve`; memory holds one batch of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from uihkv.errors import NotVisibleYetError, PointerError, SchemaError
from uihkv.formats import list_files, open_source
from uihkv.formats.source import Wanted, read_batches
from uihkv.inline import INLINE, INLINE_START, InlineTail, split_inline
from uihkv.pointers import Pointers
from uihkv.resolve import check_output, check_same_columns, write_aside
from uihkv.snapshot import Snapshot
from uihkv.store import Store

BATCH_ROWS = 1 << 16
_POINTER = ("user_id", "version", "last_ts")


@dataclass(frozen=True, slots=True)
class SlimResult:
    """What became of the examples.

    Attributes:
        files: number of files read.
        rows: examples, all of them written.
        tails: of these, examples that carried inline events.
        slimmed: tails that went.
        pending: tails that were kept, since the store does not have all of their events yet.
        events: inline events that went.

    """

    files: int
    rows: int
    tails: int
    slimmed: int
    pending: int
    events: int

    def describe(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def slim_examples(
    snapshot: Snapshot, pointers: Pointers, inline: InlineTail
) -> tuple[Pointers, InlineTail, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Pointers to whole sequences where the store has them, after comparing every event it shares with a tail.

    Returns:
        the B pointers, the tails that are left (of pending rows as they were, of others empty), and bool[B]: pending,
        the store does not have all of the tail's events yet.

    Raises:
        PointerError: for a gap, a tail that differs from the store, and pointers that do not fit it.

    """
    if len(inline) != len(pointers):
        raise PointerError(f"{len(pointers)} pointers and {len(inline)} inline tails; give one a pointer")
    held, rest = split_inline(snapshot, pointers, inline)
    pending = rest.lengths > 0
    done = np.flatnonzero(~pending)
    version = pointers.version.copy()
    version[done] = held.version[done]
    last_ts = None
    if pointers.last_ts is not None and held.last_ts is not None:
        last_ts = pointers.last_ts.copy()
        last_ts[done] = held.last_ts[done]
    return (
        Pointers(pointers.user_id, version, last_ts),
        inline.after(np.where(pending, inline.start, inline.end)),
        pending,
    )


def slim_file(
    store: Store,
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    pending: Literal["raise", "keep"] = "raise",
    force: bool = False,
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> SlimResult:
    """Write examples without the inline tails that the store has caught up with.

    Args:
        store: whose histories the pointers name.
        path: a file, several with the same columns, or folders of them; they become one file.
        out: where the slim examples go.
        pending: what becomes of tails with events that the store does not have yet: an error, and nothing is written;
            or they stay as they are, and the output keeps the columns ``inline`` and ``inline_start``.
        force: replace ``out`` if it is there.
        batch_rows: rows at a time; 1 or more.
        progress: called after each batch with the rows done and the rows of all files.

    Raises:
        OutputError: as ``resolve_file``.
        NotVisibleYetError: for a pending tail, with ``pending="raise"``.
        PointerError: for a tail that differs from the store, a gap, or pointers that do not fit.
        FormatError, SchemaError: for inputs that are not such examples.
        OSError: when the output cannot be written.

    """
    if isinstance(batch_rows, bool) or not isinstance(batch_rows, int) or batch_rows < 1:
        raise SchemaError(f"batch_rows is {batch_rows!r}; 1 or more rows are expected")
    if pending not in ("raise", "keep"):
        raise SchemaError(f"pending is {pending!r}; 'raise' or 'keep' is expected")
    target = Path(out)
    sources = [open_source(file, Wanted(), "parquet") for file in list_files(path, "parquet")]
    check_same_columns(sources)
    for name in (*_POINTER[:2], INLINE_START, INLINE):
        if name not in sources[0].names:
            raise SchemaError(
                f"{sources[0].path}: no column {name!r}; examples with inline tails have user_id, version, "
                f"{INLINE_START} and {INLINE}, this file has {', '.join(sources[0].names)}"
            )
    check_output(target, sources, force)
    dropped = () if pending == "keep" else (INLINE_START, INLINE)
    schema = pa.schema([field for field in sources[0].schema if field.name not in dropped], sources[0].schema.metadata)
    total, done = sum(source.rows for source in sources), 0
    tails = waiting = events = kept_events = 0
    with store.snapshot() as snapshot, write_aside(target, schema, force) as writer:
        for source in sources:
            begin = 0
            for table in read_batches(source, batch_rows):
                where = f"{source.path}, rows {begin} to {begin + table.num_rows - 1}"
                try:
                    inline = InlineTail.from_arrow(snapshot.schema, table)
                    slim, rest, late = slim_examples(snapshot, Pointers.from_arrow(table), inline)
                except (SchemaError, PointerError) as error:
                    raise type(error)(f"{where}: {error}") from error
                if late.any() and pending == "raise":
                    row = int(np.argmax(late))
                    raise NotVisibleYetError(
                        f"{source.path}, row {begin + row}: the store does not have all events of its inline tail yet "
                        f"(it ends at version {int(inline.end[row])}); run this again later, or keep such tails"
                    )
                tails += int(np.count_nonzero(inline.lengths))
                waiting += int(np.count_nonzero(late))
                events += len(inline.events)
                kept_events += len(rest.events)
                writer.write_table(_output(table, schema, snapshot, slim, rest))
                begin += table.num_rows
                done += table.num_rows
                if progress is not None:
                    progress(done, total)
    return SlimResult(len(sources), total, tails, tails - waiting, waiting, events - kept_events)


def _output(table: Any, schema: Any, snapshot: Snapshot, pointers: Pointers, rest: InlineTail) -> Any:
    """The batch with its new pointers and, where they stay, its tails; types as they were."""
    new = {"version": pa.array(pointers.version)}
    if pointers.last_ts is not None:
        new["last_ts"] = pa.array(pointers.last_ts)
    if INLINE in schema.names:
        left = rest.to_arrow(snapshot.schema)
        new |= {INLINE_START: left.column(INLINE_START), INLINE: left.column(INLINE)}
    columns = [new[field.name].cast(field.type) if field.name in new else table.column(field.name) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)
