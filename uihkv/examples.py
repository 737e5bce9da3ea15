"""Examples from the histories themselves: what had each event's user done before it?

The common offline case: every k-th event, or each event of some kind, is an example. Its history is all that came
before it in arrival order, its moment is its own visible time, and its columns are the candidate and the labels. So the
pointer of event ``p`` is ``(user, p, ts of event p - 1)``; nothing has to be resolved.

Examples may be split by time: an example belongs to the split in which its target became visible. That cannot leak:
visible times never fall within a history, so whatever a training example holds, target included, was visible before
the first moment of the split, and no later example is among what an earlier one was made of.

Rows are written user by user, in the snapshot's order of users, each user's in order of version: the same store gives
the same file. Of a trimmed history the events that are left are counted and chosen from, the first of them only if
nothing came before it. Memory holds some users' events at a time (:mod:`uihkv.walk`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uihkv.errors import SchemaError
from uihkv.eventcolumns import EventColumns, arrow_type
from uihkv.histories import Histories
from uihkv.pointers import Pointers
from uihkv.projection import Projection
from uihkv.resolve import check_output, write_aside
from uihkv.schema import TS, USER_ID, VISIBLE_AT, Schema
from uihkv.snapshot import Snapshot
from uihkv.store import Store
from uihkv.walk import BATCH_EVENTS, walk_histories

Int64s = NDArray[np.int64]

AS_OF = "as_of"
_POINTER = (USER_ID, "version", "last_ts", AS_OF)
SPLITS = {0: ("",), 1: ("train", "test"), 2: ("train", "validation", "test")}
"""Names of the splits by the number of moments between them."""


@dataclass(frozen=True, slots=True)
class ExamplesResult:
    """What was written.

    Attributes:
        events: events of all histories: the targets that might have been.
        users: users with an example.
        rows: examples.
        empty: of these, examples without a history: the target was the user's first event.
        files: where the examples are, and how many, by split; of no split one file.

    """

    events: int
    users: int
    rows: int
    empty: int
    files: Mapping[str, int]

    def describe(self) -> dict[str, Any]:
        """The fields by name."""
        return {**asdict(self), "files": dict(self.files)}


@dataclass(frozen=True, slots=True)
class _Targets:
    """Which events of a walk's batch become examples.

    Attributes:
        rows: int64[n], their places among the batch's events.
        user_row: int64[n], whose they are.
        first: int64[n], place of the first event that is not in their history.
        version: int64[n].

    """

    rows: Int64s
    user_row: Int64s
    first: Int64s
    version: Int64s


def write_examples(
    store: Store,
    out: str | PathLike[str],
    *,
    every: int | None = None,
    where: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    candidates: Sequence[str] | None = None,
    split: Sequence[int] = (),
    ties: Literal["in", "out"] = "in",
    force: bool = False,
    batch_events: int = BATCH_EVENTS,
    progress: Callable[[int, int], None] | None = None,
) -> ExamplesResult:
    """Write an example for each chosen event: ``user_id``, ``version``, ``last_ts``, ``as_of``, candidate and labels.

    Args:
        store: whose events.
        out: a Parquet file; with ``split`` one beside it for each split: ``examples-train.parquet`` and so on.
        every: of each user's events that pass ``where``, the k-th, 2k-th, …; None: all that pass.
        where: which events may be targets, as ``Projection.where``; give ``every``, ``where`` or both.
        labels: columns of the target, known once it has happened.
        candidates: columns of the target that the request offered; None: all of the schema's that are no labels.
        split: one moment (train, test) or two (train, validation, test), rising, in the time unit. An example is of the
            first split whose end lies after its ``as_of``: the target's visible time.
        ties: whether the history holds events that became visible at the very moment of the target, before it in
            arrival order. ``"in"``: all that came before. ``"out"``: what ``resolve`` at ``as_of`` gives.
        force: replace files that are there.
        batch_events: events in memory at a time, about.
        progress: called after each batch with the users done and all users.

    Raises:
        SchemaError: for arguments that cannot be, or columns that the store does not have or that clash.
        OutputError: when a file is there, unless ``force``, or has no place.
        OSError: when the output cannot be written.

    """
    if every is None and not where:
        raise SchemaError("every event would be an example; give every=k, or where=..., or every=1 to have that")
    if every is not None and (isinstance(every, bool) or not isinstance(every, int | np.integer) or every < 1):
        raise SchemaError(f"every is {every!r}; a whole number of 1 or more is expected")
    if ties not in ("in", "out"):
        raise SchemaError(f"ties is {ties!r}; 'in' or 'out' is expected")
    moments = _parse_split(split)
    columns = _choose_columns(store.schema, labels, candidates)
    wanted = Projection(None, where=where)
    needed = tuple(dict.fromkeys([TS, VISIBLE_AT, *columns, *(test.column for test in wanted.tests(store.schema))]))
    schema = _output_schema(store.schema, columns)
    names = SPLITS[len(moments)]
    targets = [_split_path(Path(out), name) for name in names]
    for target in targets:
        check_output(target, (), force)
    counts = np.zeros(len(names), np.int64)
    events = users = empty = done = 0
    with store.snapshot() as snapshot, ExitStack() as stack:
        writers = [stack.enter_context(write_aside(target, schema, force)) for target in targets]
        everybody = snapshot.users()
        for heads, histories in walk_histories(snapshot, everybody, Projection(needed), batch_events):
            chosen = _choose_targets(snapshot.schema, heads, histories, wanted, every, ties)
            table = _make_rows(snapshot, heads, histories, chosen, columns, schema)
            part = np.searchsorted(moments, histories.values(VISIBLE_AT)[chosen.rows], side="right")
            for number, writer in enumerate(writers):
                mine = np.flatnonzero(part == number)
                counts[number] += len(mine)
                if len(mine):
                    writer.write_table(table if len(writers) == 1 else table.take(mine))
            events += int(histories.offsets[-1])
            users += len(np.unique(chosen.user_row))
            empty += int(np.count_nonzero(chosen.version == 0))
            done += len(heads)
            if progress is not None:
                progress(done, len(everybody))
    files = {str(target): int(count) for target, count in zip(targets, counts, strict=True)}
    return ExamplesResult(events, users, int(counts.sum()), empty, files)


def _choose_targets(
    schema: Schema, heads: Pointers, histories: Histories, wanted: Projection, every: int | None, ties: str
) -> _Targets:
    """Targets of a batch, user by user in order of version."""
    offsets = histories.offsets
    n = int(offsets[-1])
    user_row = np.repeat(np.arange(len(heads)), histories.lengths)
    begin = offsets[:-1][user_row]
    passes = np.ones(n, np.bool_)
    for test in wanted.tests(schema):
        passes &= test.accepts(histories.values(test.column), histories.element_offsets(test.column))
    if every is not None and every > 1:
        count = np.cumsum(passes)
        before = np.append(0, count)[begin]
        passes &= (count - before) % every == 0
    rows = np.flatnonzero(passes)
    first = rows
    if ties == "out":
        visible = histories.values(VISIBLE_AT)
        starts = np.ones(n, np.bool_)
        starts[1:] = (visible[1:] != visible[:-1]) | (user_row[1:] != user_row[:-1])
        first = np.maximum.accumulate(np.where(starts, np.arange(n), 0))[rows] if n else rows
    user_row = user_row[rows]
    # Counted from the head: a history that was trimmed begins later than at version 0.
    version = heads.version[user_row] - (offsets[user_row + 1] - first)
    known = (first > offsets[user_row]) | (version == 0)  # of others the event before, and so last_ts, is gone
    return _Targets(rows[known], user_row[known], first[known], version[known])


def _make_rows(
    snapshot: Snapshot, heads: Pointers, histories: Histories, chosen: _Targets, columns: Sequence[str], schema: Any
) -> Any:
    """The examples of a batch as an Arrow table."""
    ts = histories.values(TS)
    last_ts = np.zeros(len(chosen.rows), np.int64)
    some = chosen.version > 0
    last_ts[some] = ts[chosen.first[some] - 1]
    pointers = Pointers(heads.user_id[chosen.user_row], chosen.version, last_ts).to_arrow()
    events = EventColumns.of_histories(histories).choose([VISIBLE_AT, *columns]).take(chosen.rows)
    arrays = [
        *(pointers.column(name).combine_chunks() for name in pointers.column_names),
        *(events.to_arrow(snapshot.schema, name) for name in (VISIBLE_AT, *columns)),
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _choose_columns(schema: Schema, labels: Sequence[str], candidates: Sequence[str] | None) -> tuple[str, ...]:
    """Candidate columns, then labels."""
    for what, names in (("labels", labels), ("candidates", candidates or ())):
        if isinstance(names, str):
            raise SchemaError(f"{what} is the string {names!r}; write {what}=[{names!r}]")
        unknown = [name for name in names if name not in schema.readable]
        if unknown:
            raise SchemaError(f"{what} names {unknown}; the store has {', '.join(schema.readable)}")
    chosen = [name for name in schema.names if name not in labels] if candidates is None else list(candidates)
    columns = (*chosen, *labels)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise SchemaError(f"columns {twice} are named twice among candidates and labels; a column is one or the other")
    if AS_OF in columns:
        raise SchemaError(
            f"column {AS_OF!r} would stand twice: examples have their moment under that name; leave it out"
        )
    return columns


def _output_schema(schema: Schema, columns: Sequence[str]) -> Any:
    fields = [pa.field(name, pa.int64(), nullable=False) for name in _POINTER]
    if schema.user_id != "int64":
        fields[0] = pa.field(USER_ID, pa.string(), nullable=False)
    return pa.schema([*fields, *(pa.field(name, arrow_type(schema, name)) for name in columns)])


def _parse_split(split: Sequence[int]) -> Int64s:
    moments = list(split)
    whole = all(isinstance(moment, int | np.integer) and not isinstance(moment, bool) for moment in moments)
    if len(moments) not in SPLITS or not whole or sorted(set(moments)) != moments:
        raise SchemaError(f"split is {split!r}; one or two moments in the store's time unit, rising, are expected")
    return np.array(moments, np.int64)


def _split_path(out: Path, name: str) -> Path:
    return out.with_name(f"{out.stem}-{name}{out.suffix}") if name else out
