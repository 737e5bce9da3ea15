"""Which sequence does an example see whose newest events were not durable yet when its request was served?

The serving side may know events that the store does not have yet. They travel in the example: beside the pointer to
``[0, v)`` stands an *inline tail*, the events of the versions ``[start, start + k)``. The example's sequence is
``[0, end)`` with ``end = max(v, start + k)``, under one contract:

- *No gap*: ``start`` is at most ``v``. Where ``k`` is 0, ``start`` means nothing and the sequence is ``[0, v)``.
- *No overlap*: an event that both have, since ``start`` is below ``v`` or the store has caught up, is taken once.
- *No reorder, no guess*: such an event must be equal, bit for bit, in every column that the tail carries. Otherwise the
  store has put another event at that version than the serving side saw, and the read raises :class:`PointerError`.

So an example reads the same before, while and after the store catches up; and once it has, the pointer ``(end, ts of
event end - 1)`` alone reads the same too: :mod:`uihkv.slim` writes that.

A read takes from the store all it has and from the tail the rest; conditions, age, length and sampling see the joined
sequence. It leaves to others how the serving side knows its events' versions: by its place in the same source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from uihkv.errors import PointerError, SchemaError
from uihkv.eventcolumns import EventColumns, arrow_type, restrict_schema
from uihkv.events import parse_events
from uihkv.histories import Histories
from uihkv.kernels.select import draw_events, keep_newest
from uihkv.names import numbers_of
from uihkv.pointers import Pointers, as_int64
from uihkv.projection import Projection
from uihkv.schema import TS, USER_ID, VISIBLE_AT, Schema

if TYPE_CHECKING:
    from uihkv.bases import OnTrimmed
    from uihkv.snapshot import Snapshot

Int64s = NDArray[np.int64]

INLINE = "inline"
"""Column of examples: a list of structs, the tail's events; null or empty: none."""
INLINE_START = "inline_start"
"""Column of examples: int64, the version of the first of them; may be null where there are none."""


@dataclass(frozen=True, slots=True, eq=False)
class InlineTail:
    """Events beside B pointers, K in all; made by :meth:`of` or :meth:`from_arrow`.

    Attributes:
        start: int64[B], version of each tail's first event.
        offsets: int64[B+1], the events of tail ``b`` are ``[offsets[b], offsets[b+1])``.
        events: K events; ``ts`` is always among the columns, ``visible_at`` where the serving side knew it.

    """

    start: Int64s
    offsets: Int64s
    events: EventColumns

    @classmethod
    def of(
        cls, schema: Schema, start: ArrayLike, offsets: ArrayLike, data: Any, visible_at: ArrayLike | None = None
    ) -> InlineTail:
        """Parse tails, as ``Store.append`` parses events.

        Args:
            schema: of the store.
            start: int64[B].
            offsets: int64[B+1], from 0 to K, never falling.
            data: ``ts`` and columns of the schema, K rows: a mapping of arrays, or an Arrow table. Columns may be
                missing; a read that needs one then refuses.
            visible_at: int64[K], if known.

        Raises:
            PointerError: for starts and offsets that cannot be.
            SchemaError: for data that does not fit the schema.

        """
        starts, bounds = as_int64(start, INLINE_START), as_int64(offsets, "inline offsets")
        given = data if isinstance(data, Mapping) else {name: data.column(name) for name in data.schema.names}
        if VISIBLE_AT in given:
            if visible_at is not None:
                raise SchemaError("visible_at is given twice: as an argument and as a column; give one")
            visible_at = given[VISIBLE_AT]
        columns = {name: values for name, values in given.items() if name != VISIBLE_AT}
        if TS not in columns:
            raise SchemaError("an inline tail needs the column 'ts': every event has one")
        unknown = sorted(set(columns) - {TS, *schema.names})
        if unknown:
            raise SchemaError(f"an inline tail has columns {unknown}; the store has ts, {', '.join(schema.names)}")
        if len(bounds) != len(starts) + 1 or bounds[0] != 0 or (np.diff(bounds) < 0).any():
            raise PointerError(
                f"{len(bounds)} inline offsets for {len(starts)} tails; B + 1 are expected, from 0 and never falling"
            )
        if (starts < 0).any():
            row = int(np.argmax(starts < 0))
            raise PointerError(f"row {row}: inline_start is {int(starts[row])}; versions start at 0")
        owner: Any = np.zeros(int(bounds[-1]), np.int64)
        if schema.user_id != "int64":
            owner = ["-"] * int(bounds[-1])
        events = parse_events(restrict_schema(schema, columns), {USER_ID: owner, **columns}, visible_at)
        names = [TS, *([] if visible_at is None else [VISIBLE_AT]), *(one for one in schema.names if one in columns)]
        return cls(starts, bounds, EventColumns.of_events(events, names))

    @classmethod
    def empty(cls, tails: int) -> InlineTail:
        """B tails without events."""
        columns = EventColumns(0, {TS: np.empty(0, np.int64)}, {})
        return cls(np.zeros(tails, np.int64), np.zeros(tails + 1, np.int64), columns)

    def __len__(self) -> int:
        return len(self.start)

    @property
    def lengths(self) -> Int64s:
        """Events of each tail: int64[B]."""
        return np.diff(self.offsets)

    @property
    def end(self) -> Int64s:
        """Version behind each tail's last event: int64[B]."""
        return self.start + self.lengths

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that the events carry."""
        return self.events.names

    def __getitem__(self, rows: Any) -> InlineTail:
        """Tails of these rows: a slice, or an array of indices or booleans."""
        chosen = np.arange(len(self))[rows]
        return self._cut(self.offsets[chosen], self.offsets[chosen + 1], self.start[chosen])

    def after(self, version: ArrayLike) -> InlineTail:
        """What is left when the store has the first ``version: int64[B]`` events: what an example must carry."""
        floor = as_int64(version, "version")
        cut = np.clip(floor - self.start, 0, self.lengths)
        return self._cut(self.offsets[:-1] + cut, self.offsets[1:], self.start + cut)

    def _cut(self, low: Int64s, high: Int64s, start: Int64s) -> InlineTail:
        """Tails of the events ``[low, high)``, which begin at ``start``."""
        offsets = np.zeros(len(low) + 1, np.int64)
        np.cumsum(high - low, out=offsets[1:])
        return InlineTail(start, offsets, self.events.take(_ranges(low, high)))

    def extend(self, pointers: Pointers) -> Pointers:
        """Pointers to the whole sequences, for when the store has caught up: ``(user_id, end, ts of event end-1)``."""
        grows = (self.lengths > 0) & (self.end > pointers.version)
        version = np.where(grows, self.end, pointers.version)
        if pointers.last_ts is None:
            return Pointers(pointers.user_id, version)
        last_ts = pointers.last_ts.copy()
        last_ts[grows] = self.events.values[TS][self.offsets[1:][grows] - 1]
        return Pointers(pointers.user_id, version, last_ts)

    # -- in examples --------------------------------------------------------------------------------

    def to_arrow(self, schema: Schema) -> Any:
        """Arrow table with ``inline_start`` and ``inline``, one row a tail."""
        fields = [pa.field(name, arrow_type(schema, name)) for name in self.columns]
        structs = pa.StructArray.from_arrays(
            [self.events.to_arrow(schema, name) for name in self.columns], fields=fields
        )
        lists = pa.ListArray.from_arrays(pa.array(self.offsets.astype(np.int32)), structs)
        return pa.table({INLINE_START: self.start, INLINE: lists})

    @classmethod
    def from_arrow(cls, schema: Schema, table: Any) -> InlineTail:
        """Tails from the columns ``inline_start`` and ``inline`` of examples.

        Raises:
            SchemaError: when they are not there, or are of other types, or do not fit the schema.
            PointerError: for starts that cannot be.

        """
        for name in (INLINE_START, INLINE):
            if name not in table.schema.names:
                raise SchemaError(f"no column {name!r} among {table.schema.names}; an inline tail is both columns")
        lists, start = _one_array(table.column(INLINE)), _one_array(table.column(INLINE_START))
        if not (
            (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type))
            and pa.types.is_struct(lists.type.value_type)
        ):
            raise SchemaError(f"column {INLINE!r} is {lists.type}; a list of structs, an event each, is expected")
        length = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        if start.null_count:
            row = np.flatnonzero(start.is_null().to_numpy(zero_copy_only=False) & (length > 0))
            if len(row):
                raise PointerError(f"row {int(row[0])}: {INLINE_START} is null, and the tail has events")
            start = start.fill_null(0)
        offsets = np.zeros(len(length) + 1, np.int64)
        np.cumsum(length, out=offsets[1:])
        events = lists.flatten()
        if events.null_count:
            raise SchemaError(f"column {INLINE!r} holds null events; leave them out")
        data = dict(zip([field.name for field in events.type], events.flatten(), strict=True))
        return cls.of(schema, start.to_numpy(zero_copy_only=False), offsets, data)


def read_joined(
    snapshot: Snapshot,
    pointers: Pointers,
    inline: InlineTail,
    projection: Projection | None = None,
    *,
    as_of: ArrayLike | None = None,
    epoch: int = 0,
    on_trimmed: OnTrimmed = "raise",
) -> Histories:
    """Rebuild sequences whose newest events are inline, cut to a projection; see the module's contract.

    Args:
        snapshot: what the store has.
        pointers: B pointers to what the serving side read from the store.
        inline: their B tails.
        projection, as_of, epoch: as ``Snapshot.read``; without ``as_of``, ages count from the sequence's last ``ts``.
        on_trimmed: as ``Snapshot.read``.

    Raises:
        PointerError: for a gap, a tail that differs from the store, and as ``Snapshot.read``.
        SchemaError: when a tail lacks a column that the projection needs, and as ``Snapshot.read``.

    """
    projection = Projection() if projection is None else projection
    schema = snapshot.schema
    names = projection.resolve(schema)
    if len(inline) != len(pointers):
        raise PointerError(f"{len(pointers)} pointers and {len(inline)} inline tails; give one a pointer")
    held, rest = split_inline(snapshot, pointers, inline, on_trimmed)
    if not len(rest.events):
        return snapshot.read(held, projection, as_of=as_of, epoch=epoch, on_trimmed=on_trimmed)
    tests = projection.tests(schema)
    needed = dict.fromkeys([*names, *(test.column for test in tests)])
    missing = [name for name in needed if name not in rest.events]
    if missing:
        raise SchemaError(
            f"the projection needs {', '.join(missing)}, which the inline tails do not carry (they have "
            f"{', '.join(inline.columns)}); log these columns, or read once the store has caught up"
        )
    moment = None
    if projection.max_age is not None:
        moment = rest.extend(held).last_ts if as_of is None else as_int64(as_of, "as_of")
        if moment is None:
            raise PointerError("max_age counts from as_of or last_ts, and these pointers have neither; give as_of")
        if len(moment) != len(pointers):
            raise PointerError(f"{len(pointers)} pointers and {len(moment)} as_of; give one moment a pointer")
    owner = np.repeat(np.arange(len(rest)), rest.lengths)
    accepted = np.ones(len(owner), np.bool_)
    for test in tests:
        accepted &= test.accepts(rest.events.values[test.column], rest.events.lists.get(test.column))
    if moment is not None and projection.max_age is not None:
        oldest = np.maximum(moment, np.iinfo(np.int64).min + projection.max_age) - projection.max_age
        accepted &= rest.events.values[TS] >= oldest[owner]
    if projection.max_len is not None:
        keep_newest(owner, accepted, np.full(len(rest), projection.max_len, np.int64))
    kept = np.flatnonzero(accepted)
    fresh = np.bincount(owner[kept], minlength=len(rest)).astype(np.int64)
    whole = Projection(names, projection.max_len, projection.where, projection.max_age)
    stored = snapshot.read(held, whole, as_of=moment, on_trimmed=on_trimmed)
    old = stored.lengths if projection.max_len is None else np.minimum(stored.lengths, projection.max_len - fresh)
    # Rows of both, stored ones first: of each sequence its newest `old`, then what the tail adds.
    columns = EventColumns.concat(EventColumns.of_histories(stored), rest.events.choose(names).take(kept))
    offsets = np.zeros(len(rest) + 1, np.int64)
    np.cumsum(old + fresh, out=offsets[1:])
    ends = int(stored.offsets[-1]) + np.cumsum(fresh)
    rows = _ranges(
        np.stack([stored.offsets[1:] - old, ends - fresh], 1).reshape(-1),
        np.stack([stored.offsets[1:], ends], 1).reshape(-1),
    )
    if projection.sample is not None and projection.max_len is not None:
        rows, offsets = _draw(rows, offsets, rest.extend(held), projection, epoch)
    return columns.take(rows).histories(offsets, {name: stored.dtype(name) for name in stored})


def split_inline(
    snapshot: Snapshot, pointers: Pointers, inline: InlineTail, on_trimmed: OnTrimmed = "raise"
) -> tuple[Pointers, InlineTail]:
    """Move into the pointers what the store has of the tails by now, after comparing it.

    Returns:
        pointers to what is read from the store, and the tails behind them.

    Raises:
        PointerError: for a gap, a tail that differs from the store, and pointers that do not fit it.

    """
    length = inline.lengths
    some = np.flatnonzero(length > 0)
    gaps = some[inline.start[some] > pointers.version[some]]
    if len(gaps):
        row = int(gaps[0])
        raise PointerError(
            f"row {row}: the pointer names version {int(pointers.version[row])} and the inline tail starts at "
            f"{int(inline.start[row])}; a tail starts at the pointer's version or below, nothing may lie between"
        )
    if not len(some):
        return pointers, inline
    head = snapshot.head(pointers.user_id[some]).version
    upto = np.minimum(head, inline.end[some])
    shared = upto > inline.start[some]
    _compare(snapshot, pointers, inline, some[shared], upto[shared])
    version = pointers.version.copy()
    version[some] = np.maximum(version[some], np.where(shared, upto, 0))
    last_ts = None if pointers.last_ts is None else pointers.last_ts.copy()
    moved = np.flatnonzero(version > pointers.version)
    if last_ts is not None and len(moved):
        snapshot.read(
            pointers, Projection([TS], max_len=1), on_trimmed=on_trimmed
        )  # proves last_ts, which is replaced below
        last_ts[moved] = inline.events.values[TS][inline.offsets[moved] + version[moved] - inline.start[moved] - 1]
    return Pointers(pointers.user_id, version, last_ts), inline.after(version)


def _compare(snapshot: Snapshot, pointers: Pointers, inline: InlineTail, rows: Int64s, upto: Int64s) -> None:
    """Refuse tails that differ from the store in ``[start, upto)``."""
    if not len(rows):
        return
    start = inline.start[rows]
    count = upto - start
    names = inline.columns
    asked = Projection(names, max_len=int(count.max()))
    stored = snapshot.read(Pointers(pointers.user_id[rows], upto), asked, on_trimmed="truncate")
    if (stored.lengths < count).any():
        raise PointerError("the store no longer has all events that the inline tails share with it; slim them earlier")
    theirs = EventColumns.of_histories(stored).take(_ranges(stored.offsets[1:] - count, stored.offsets[1:]))
    low = inline.offsets[rows]
    mine = inline.events.take(_ranges(low, low + count))
    for name in names:
        differs = mine.differs(theirs, name)
        if differs.any():
            place = int(np.argmax(differs))
            bounds = np.cumsum(count)
            at = int(np.searchsorted(bounds, place, side="right"))
            version = int(start[at]) + place - int(bounds[at] - count[at])
            raise PointerError(
                f"row {int(rows[at])}: event {version} of user {pointers.user_id[rows[at]]} differs in {name!r}: "
                f"the store has {_show(theirs, name, place)}, the inline tail {_show(mine, name, place)}; the store "
                "took events in another order than the serving side saw them, so this example cannot be rebuilt"
            )


def _show(columns: EventColumns, name: str, row: int) -> str:
    offsets = columns.lists.get(name)
    values = columns.values[name]
    found = values[row] if offsets is None else values[offsets[row] : offsets[row + 1]]
    return np.array2string(np.asarray(found), threshold=6, edgeitems=2)


def _draw(
    rows: Int64s, offsets: Int64s, pointers: Pointers, projection: Projection, epoch: int
) -> tuple[Int64s, Int64s]:
    """Of each joined sequence, the events that Stochastic Length draws, as the store draws them."""
    sample, max_len = projection.sample, projection.max_len
    assert sample is not None and max_len is not None  # the caller asked
    counts = np.empty(len(pointers), np.int64)
    chosen = np.empty(len(rows), np.bool_)
    draw_events(
        np.diff(offsets), numbers_of(pointers.user_id), pointers.version, sample.seed, epoch, sample.threshold(max_len),
        float(max_len) ** sample.alpha, counts, chosen,
    )  # fmt: skip
    drawn = np.zeros_like(offsets)
    np.cumsum(counts, out=drawn[1:])
    return rows[chosen], drawn


def _ranges(low: Int64s, high: Int64s) -> Int64s:
    """The whole numbers of all ranges ``[low, high)``, one range after another."""
    size = high - low
    begin = np.cumsum(size) - size
    return np.repeat(low - begin, size) + np.arange(int(size.sum()))


def _one_array(column: Any) -> Any:
    if isinstance(column, pa.ChunkedArray):
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column
