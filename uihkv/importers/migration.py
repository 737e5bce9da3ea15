"""The passes of a migration from fat rows: deal, merge, write, verify.

What they are for, and what they promise together, stands in :mod:`uihkv.importers.fatrows`, which runs them. Here is
what each does with rows as whole arrays, and what they know of each other: every row's version, and what was counted.

Memory holds one batch of about ``BATCH_EVENTS`` copied events, or one part of about ``PART_EVENTS`` of them; what is
known of every row lies in files of the scratch folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uihkv.errors import PointerError, SchemaError, UihkvError
from uihkv.formats.source import Source, read_batches
from uihkv.histories import Histories
from uihkv.importers.arrange import Arrangement
from uihkv.importers.fatcolumns import (
    FatColumns,
    FatRows,
    count_values,
    describe_event,
    first_difference,
    read_rows,
    take_events,
)
from uihkv.importers.windows import LaidRows, Windows, hash_events, lay_windows
from uihkv.pointers import Pointers
from uihkv.projection import Projection
from uihkv.schema import TS, USER_ID, VISIBLE_AT
from uihkv.snapshot import Snapshot
from uihkv.store import Store
from uihkv.userids import to_arrow

Int64s = NDArray[np.int64]

BATCH_EVENTS = 1 << 20
"""Events of fat rows that are read, appended or verified at a time, about."""
PART_EVENTS = 1 << 22
MAX_PARTS = 256
_ROW, _KEY, _AFTER, _LENGTH = "row", "key", "after", "length"


class ConflictError(UihkvError):
    """Fat rows that cannot be windows of one history."""


class VerificationError(UihkvError):
    """An example read from the store is not its fat row."""


@dataclass(frozen=True, slots=True)
class FatRowsProgress:
    """How far a migration is.

    Attributes:
        stage: ``"deal"``, ``"merge"``, ``"write"`` or ``"verify"``.
        rows: rows done in this stage, of ``total``.
        total: all rows.

    """

    stage: Literal["deal", "merge", "write", "verify"]
    rows: int
    total: int


@dataclass(slots=True)
class Tally:
    """What was counted while merging."""

    copied: int = 0
    events: int = 0
    users: int = 0
    gaps: int = 0
    conflicts: int = 0
    first_row: int = -1
    first: str | None = None


class Migration:
    """Rows on their way: what the passes know of each other.

    ``version`` and ``last_ts`` of all rows lie in files of the scratch folder, mapped into memory.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        columns: FatColumns,
        max_len: int | None,
        skips: bool,
        report: Callable[[FatRowsProgress], None],
    ) -> None:
        if max_len is not None and (isinstance(max_len, bool) or not isinstance(max_len, int) or max_len < 1):
            raise SchemaError(f"max_len is {max_len!r}; 1 or more events, or None, are expected")
        self.total = sum(source.rows for source in sources)
        self.longest = max_len or 0
        self.tally = Tally()
        self._sources = sources
        self._columns = columns
        self._cut = max_len
        self._skips = skips
        self._report = report
        self._values = sum(count_values(source, next(iter(columns.histories))) for source in sources)
        self._batch_rows = max(1, BATCH_EVENTS * self.total // max(self._values, 1))
        self.version = self.last_ts = np.empty(0, np.int64)

    def parts(self, shards: int) -> int:
        """Parts that the rows are dealt into."""
        wanted = min(-(-max(self._values, 1) // PART_EVENTS), MAX_PARTS)
        return -(-wanted // shards) * shards if shards <= MAX_PARTS else MAX_PARTS

    @property
    def sorted_by(self) -> tuple[str, ...]:
        """How a part's rows are sorted, within a user."""
        return (_ROW,) if self._columns.asked is None else (_KEY, _LENGTH, _ROW)

    def _batches(self, names: Sequence[str]) -> Iterator[tuple[Source, int, int, pa.Table]]:
        """All rows: the file, the first row's number in it and among all, and the columns."""
        before = 0
        for source in self._sources:
            begin = 0
            for table in read_batches(source, self._batch_rows, columns=names):
                yield source, begin, before + begin, table
                begin += table.num_rows
            before += source.rows

    def _read(self, source: Source, begin: int, table: pa.Table) -> FatRows:
        try:
            return read_rows(self._columns, table)
        except SchemaError as error:
            raise SchemaError(f"{source.path}, rows from {begin}: {error}") from error

    # -- passes -------------------------------------------------------------------------------------

    def deal(self, parts: Arrangement) -> None:
        """Deal the rows' histories by user."""
        columns = self._columns
        shape = (max(self.total, 1),)
        self.version = np.memmap(parts.folder / "version.bin", np.int64, "w+", shape=shape)[: self.total]
        self.last_ts = np.memmap(parts.folder / "last_ts.bin", np.int64, "w+", shape=shape)[: self.total]
        for source, begin, first, table in self._batches(columns.wanted):
            rows = self._read(source, begin, table)
            lengths = np.diff(rows.offsets)
            self._check_length(source, begin, lengths)
            self.tally.copied += rows.events
            number = np.arange(first, first + len(lengths))
            key, after = self._keys_of(rows)
            dealt = {_ROW: number, _KEY: key, _AFTER: after, _LENGTH: lengths}
            arrays = {USER_ID: to_arrow(rows.user), **{name: pa.array(values) for name, values in dealt.items()}}
            offsets = pa.array(rows.offsets)
            for name, values in rows.columns.items():
                flat = values if isinstance(values, pa.Array) else pa.array(values)
                arrays[f"history_{name}"] = pa.LargeListArray.from_arrays(offsets, flat)
            parts.add(pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays)))
            self._report(FatRowsProgress("deal", first + len(lengths), self.total))
        parts.finish()

    def _check_length(self, source: Source, begin: int, lengths: Int64s) -> None:
        longest = int(lengths.max(initial=0))
        if self._cut is not None and longest > self._cut:
            raise SchemaError(
                f"{source.path}: row {begin + int(np.argmax(lengths))} has {longest} events, max_len is {self._cut}; "
                "give the length that the histories were cut to"
            )
        self.longest = max(self.longest, longest, 1)

    def _keys_of(self, rows: FatRows) -> tuple[Int64s, Int64s]:
        """What orders a user's rows: moments of requests; or the latest ``ts``, and events since; or nothing."""
        key, after = np.zeros((2, len(rows.user)), np.int64)
        if rows.asked is not None:
            return rows.asked, after
        shown = np.flatnonzero(np.diff(rows.offsets))
        if self._columns.timed and len(shown):
            ts, begin = rows.columns[TS], rows.offsets[shown]
            key[shown] = np.maximum.reduceat(ts, begin)
            event = np.arange(rows.events)
            later = np.where(ts == np.repeat(key, np.diff(rows.offsets)), event, rows.events)
            after[shown] = rows.offsets[1:][shown] - np.minimum.reduceat(later, begin)
        return key, after

    def merge(self, parts: Arrangement, store: Store) -> None:
        """Lay the windows over each other, store what they show, and note every row's version."""
        done = 0
        for table in parts.sorted_parts():
            rows, laid = self._take(table)
            self._lay(rows, laid)
            self._count(rows, laid)
            ts = self._ts_of(rows, laid)
            self.version[laid.number] = laid.windows.version
            shown = laid.end > laid.begin
            self.last_ts[laid.number[shown]] = ts[laid.end[shown] - 1]
            if self._skips or not self.tally.conflicts:  # after a conflict that is refused, the rest is only counted
                self._append(store, rows, laid, ts)
            done += len(laid.number)
            self._report(FatRowsProgress("merge", done, self.total))

    def _take(self, table: pa.Table) -> tuple[FatRows, LaidRows]:
        """A part as it was dealt."""
        names = {f"history_{name}": name for name in self._columns.histories.values()}
        rows = read_rows(FatColumns(USER_ID, None, names, self._columns.schema), table)
        number, key, after = (table.column(name).to_numpy().copy() for name in (_ROW, _KEY, _AFTER))
        return rows, LaidRows(rows.user.copy(), number, key, after, rows.offsets[:-1].copy(), rows.offsets[1:].copy())

    def _lay(self, rows: FatRows, laid: LaidRows) -> None:
        """Lay the windows in the order of moments, or of rows; of users where this fails, in the one worked out."""
        timed = self._columns.timed
        events = hash_events(rows.columns.values(), rows.events)

        def lay(some: LaidRows, ordered: bool) -> Windows:
            first = some.first_row()
            return lay_windows(events, some.begin, some.end, first, self.longest, ordered=ordered, unique=timed)

        laid.windows = lay(laid, True)
        if self._columns.asked is not None or not timed:
            return
        wrong = laid.by_user((laid.windows.version < 0) | laid.falls())
        again = np.flatnonzero(laid.of_rows(wrong) > 0)
        if not len(again):
            return
        user = laid.of_rows(np.arange(len(wrong)))
        keys = (laid.number, laid.end - laid.begin, laid.after, laid.key, user)
        other = laid.take(again[np.lexsort([key[again] for key in keys])])
        # Users keep their places: the part's are sorted by id, and so are these.
        other.windows = lay(other, False)
        left = other.by_user(other.windows.version < 0)
        better = other.of_rows(left < wrong[wrong > 0])
        laid.put(again[better], other, np.flatnonzero(better))

    def _ts_of(self, rows: FatRows, laid: LaidRows) -> Int64s:
        """Times of all rows' events: their own, or their places in their histories."""
        if self._columns.timed:
            ts: Int64s = rows.columns[TS]
            return ts
        return np.arange(rows.events) + np.repeat(laid.windows.version - laid.end, laid.end - laid.begin)

    def _count(self, rows: FatRows, laid: LaidRows) -> None:
        tally, windows = self.tally, laid.windows
        tally.gaps += int(windows.gap.sum())
        tally.users += int(np.count_nonzero(laid.by_user(windows.fresh)))
        bad = np.flatnonzero(windows.version < 0)
        tally.conflicts += len(bad)
        if len(bad):
            at = int(bad[np.argmin(laid.number[bad])])
            if tally.first is None or laid.number[at] < tally.first_row:
                tally.first_row = int(laid.number[at])
                tally.first = self._describe_conflict(rows, laid, at)

    def _describe_conflict(self, rows: FatRows, laid: LaidRows, at: int) -> str:
        number, begin = int(laid.number[at]), int(laid.begin[at])
        for source in self._sources:
            if number < source.rows:
                break
            number -= source.rows
        length, place = int(laid.end[at]) - begin, int(laid.windows.place[at])
        if place < length:
            event = describe_event(rows.columns, begin + place)
            what = f"event {place} of its {length} ({event}) is not what older rows of the user show there"
        else:
            what = f"it shows {length} events, fewer than an older row of the user"
        return f"{source.path}, row {number}, user {laid.user[at]}: {what}"

    def _append(self, store: Store, rows: FatRows, laid: LaidRows, ts: Int64s) -> None:
        """Store the events that no older row shows, users one after the other."""
        fresh = laid.windows.fresh
        total = int(fresh.sum())
        self.tally.events += total
        row = np.repeat(np.arange(len(fresh)), fresh)
        event = laid.end[row] - fresh[row] + np.arange(total) - np.repeat(np.cumsum(fresh) - fresh, fresh)
        visible = self._visible(rows, laid, ts, row, event)
        for low in range(0, total, BATCH_EVENTS):
            some = event[low : low + BATCH_EVENTS]
            data = {name: take_events(rows.columns[name], some) for name in self._columns.schema.names}
            data |= {USER_ID: laid.user[row[low : low + BATCH_EVENTS]], TS: ts[some]}
            store.append(data, visible[low : low + BATCH_EVENTS])

    def _visible(self, rows: FatRows, laid: LaidRows, ts: Int64s, row: Int64s, event: Int64s) -> Int64s:
        """Visible times of events: int64[n]."""
        if VISIBLE_AT in rows.columns:
            visible: Int64s = rows.columns[VISIBLE_AT][event]
            return visible
        if self._columns.asked is None:
            return ts[event]
        good = np.flatnonzero(laid.windows.version >= 0)
        after = np.zeros(len(laid.key), np.int64)  # the moment of the user's request before, which did not show them
        same = laid.user[good[1:]] == laid.user[good[:-1]]
        after[good[1:]] = np.where(same, laid.key[good[:-1]], 0)
        return np.maximum(np.minimum(ts[event], laid.key[row] - 1), after[row])

    def refuse_conflicts(self) -> None:
        """Raise for conflicts, unless they are skipped."""
        if self.tally.conflicts and not self._skips:
            raise ConflictError(
                f"{self.tally.conflicts} of {self.total} rows cannot be windows of their users' histories; the first: "
                f"{self.tally.first}; correct them, or skip conflicts to leave them out"
            )

    def write(self, writer: Any, schema: Any) -> int:
        """Write the slim examples; gives how many."""
        examples = 0
        for _, _, first, table in self._batches(self._columns.kept(self._sources[0])):
            rows = slice(first, first + table.num_rows)
            keep = np.asarray(self.version[rows] >= 0)
            arrays = [*table.columns, pa.array(self.version[rows]), pa.array(self.last_ts[rows])]
            slim = pa.Table.from_arrays(arrays, schema=schema).filter(pa.array(keep))
            writer.write_table(slim)
            examples += slim.num_rows
            self._report(FatRowsProgress("write", first + table.num_rows, self.total))
        return examples

    def verify(self, snapshot: Snapshot) -> int:
        """Rebuild every example and compare it with its fat row; gives how many."""
        columns = self._columns
        names = list(columns.histories.values())
        projection = Projection(names, max_len=self.longest)
        verified = 0
        for source, begin, first, table in self._batches(columns.wanted):
            keep = np.flatnonzero(self.version[first : first + table.num_rows] >= 0)
            rows = self._read(source, begin, table.take(pa.array(keep)))
            pointers = Pointers(rows.user, self.version[first + keep], self.last_ts[first + keep])
            try:
                histories = snapshot.read(pointers, projection)
            except PointerError as error:
                raise VerificationError(f"{source.path}, rows from {begin}: {error}") from error
            self._compare(source, begin, keep, rows, histories)
            verified += len(keep)
            self._report(FatRowsProgress("verify", first + table.num_rows, self.total))
        return verified

    def _compare(self, source: Source, begin: int, keep: Int64s, rows: FatRows, histories: Histories) -> None:
        if not np.array_equal(histories.offsets, rows.offsets):
            at = int(np.argmax(histories.lengths != np.diff(rows.offsets)))
            raise VerificationError(
                f"{source.path}, row {begin + int(keep[at])}: the store gives {int(histories.lengths[at])} events, the "
                f"row has {int(np.diff(rows.offsets)[at])}; nothing was published: this is a fault, or rows that this "
                "migration does not understand"
            )
        for name, given in rows.columns.items():
            found = histories.strings(name) if isinstance(given, pa.Array) else histories.values(name)
            event = first_difference(given, found)
            if event is not None:
                at = int(np.searchsorted(rows.offsets, event, "right")) - 1
                raise VerificationError(
                    f"{source.path}, row {begin + int(keep[at])}: {name} of event {event - int(rows.offsets[at])} is "
                    f"{found[event]} in the store, {given[event]} in the row; nothing was published"
                )
