"""From a batch's pointers to what each tenant gets of their histories, each event read and decoded once.

Which reads are made follows from the projections alone (:class:`ReadPlan`):

- Tenants that only cut (by columns and ``max_len``) share: each column is read once, at the greatest length that any of
  them wants, together with the other columns of that length. A tenant that wants less of a column gets the newest
  part of what was read. No event and no column is read that nobody asked for.
- Tenants that select (by value, age or draw) are read each by themselves; equal projections once.

Two forms of the outcome. *Plain*: each tenant has its histories back to back, as a read gives them. *Deduplicated*: the
windows of the same user that overlap are one run, read once; an example of a tenant is a span of a column. Where a
tenant selects, examples of the same pointer and moment share. Both forms hold the same events, and refuse the same
pointers: each ``last_ts`` is proved.

Nothing here knows torch: worker processes do this too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from loader.slabs import SlabPool, end_in
from loader.spans import Runs, copy_spans, merge_windows, number_rows
from uihkv import Histories, Pointers, Projection, ReadCost, Schema

if TYPE_CHECKING:
    from uihkv import Snapshot
    from uihkv.inline import InlineTail

Int64s = NDArray[np.int64]
Array = NDArray[Any]

OnTrimmed = Literal["raise", "truncate"]

TS = "ts"

_NOTHING = np.zeros(1, np.int64)
"""Offsets of no histories, which lend a read their memory."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be read for one batch.

    Attributes:
        pointers: of its B examples.
        as_of: int64[B], moments of the requests; None where the examples have none.
        epoch: of training.
        indices: int64[B], the examples' numbers, for messages.
        inline: B tails of events behind the pointers that the store may not have yet; None: none.

    """

    pointers: Pointers
    as_of: Int64s | None
    epoch: int
    indices: Int64s
    inline: InlineTail | None = None


@dataclass(frozen=True, slots=True)
class SpanColumn:
    """A column of one tenant, deduplicated.

    Attributes:
        values: ``[N, *shape]``, of all runs; of a ragged column the elements of all lists.
        dtype: of the schema's column, which numpy may lack.
        element_offsets: of a ragged column, int64[events + 1].
        start, end: int64[B]; example ``b`` holds the events ``[start[b], end[b])``.

    """

    values: Array
    dtype: str
    element_offsets: Int64s | None
    start: Int64s
    end: Int64s


@dataclass(frozen=True, slots=True)
class Reading:
    """The histories of a batch.

    Attributes:
        plain: of each tenant, in the plain form.
        spans: of each tenant by column, in the deduplicated form.
        costs: of the reads that were made.
        took_s: seconds that they took.
        slab: uint8, page-locked memory of this reading alone in which most of its arrays lie; None: there is none.

    """

    plain: Mapping[str, Histories] = field(default_factory=dict)
    spans: Mapping[str, Mapping[str, SpanColumn]] = field(default_factory=dict)
    costs: Sequence[ReadCost] = ()
    took_s: float = 0.0
    slab: NDArray[np.uint8] | None = None


class Reader(Protocol):
    """Reads for one pass, in this process or in others; safe to use from several threads."""

    def read(self, request: Request) -> Reading:
        """What the tenants get for one batch.

        Raises:
            UihkvError: of the store, with a note that names the example where one is at fault.

        """

    def close(self) -> None:
        """End it, once no read is under way."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Which reads a batch takes.

    Attributes:
        shared: projections that together have each column of all cutting tenants once, the longest first.
        cutting: the names and projections of tenants that share these.
        selecting: tenants by the projection that is read for them.
        columns: names of each tenant's columns, in its order.

    """

    shared: tuple[Projection, ...]
    cutting: Mapping[str, Projection]
    selecting: Mapping[Projection, tuple[str, ...]]
    columns: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, tenants: Mapping[str, Projection], schema: Schema) -> ReadPlan:
        """The plan for some tenants."""
        cutting: dict[str, Projection] = {}
        selecting: dict[Projection, tuple[str, ...]] = {}
        longest: dict[str, int | None] = {}
        for name, projection in tenants.items():
            if projection.selects or projection.sample is not None:
                selecting[projection] = (*selecting.get(projection, ()), name)
                continue
            cutting[name] = projection
            for column in projection.resolve(schema):
                known = longest.get(column, 0)
                longest[column] = (
                    None if known is None or projection.max_len is None else max(known, projection.max_len)
                )
        lengths = sorted(set(longest.values()), key=lambda length: -(length or 1 << 63))
        shared = tuple(
            Projection([column for column, its in longest.items() if its == length], length) for length in lengths
        )
        return cls(shared, cutting, selecting, {name: its.resolve(schema) for name, its in tenants.items()})


class LocalReader:
    """Reads from a snapshot in this process.

    Args:
        snapshot: of the store; closed with the reader.
        tenants: a projection each.
        dedup: give the deduplicated form.
        slabs: memory for the outputs; None: new memory for each batch.
        on_trimmed: what becomes of an example whose events are trimmed.

    """

    def __init__(
        self,
        snapshot: Snapshot,
        tenants: Mapping[str, Projection],
        dedup: bool,
        slabs: SlabPool | None = None,
        on_trimmed: OnTrimmed = "raise",
    ) -> None:
        self._snapshot = snapshot
        self._tenants = tenants
        self._dedup = dedup
        self._slabs = slabs
        self._on_trimmed: OnTrimmed = on_trimmed
        self._plan = ReadPlan.of(tenants, snapshot.schema)

    def close(self) -> None:
        """Close the snapshot."""
        self._snapshot.close()

    def read(self, request: Request, lease: NDArray[np.uint8] | None = None) -> Reading:
        """As :meth:`Reader.read`.

        Args:
            request: what is to be read.
            lease: where the columns shall lie, if they have room there; None: the reader takes care itself.

        """
        from loader.faults import name_example

        started_s = time.perf_counter()
        if lease is None and self._slabs is not None:
            lease = self._slabs.lend()
        reads = _Reads(self._snapshot, request, lease, self._on_trimmed)
        try:
            reading = self._read_spans(reads, request) if self._dedup else self._read_plain(reads, request)
        except Exception as error:
            name_example(error, self._snapshot, request, self._tenants, self._on_trimmed)
            raise
        if self._slabs is not None:
            self._slabs.note(reads.size)
        return Reading(reading.plain, reading.spans, reads.costs, time.perf_counter() - started_s)

    # -- plain --------------------------------------------------------------------------------------

    def _read_plain(self, reads: _Reads, request: Request) -> Reading:
        if request.inline is not None:  # tails differ by example, so that nothing of two tenants' reads is the same
            return Reading(plain={name: reads.read_joined(request, its) for name, its in self._tenants.items()})
        found: dict[str, Histories] = {}
        shared = [reads.read(request.pointers, projection) for projection in self._plan.shared]
        for tenant, projection in self._plan.cutting.items():
            found[tenant] = self._cut(shared, projection.max_len, self._plan.columns[tenant])
        for projection, tenants in self._plan.selecting.items():
            found |= dict.fromkeys(tenants, reads.read(request.pointers, projection, request.as_of))
        return Reading(plain={tenant: found[tenant] for tenant in self._tenants})

    def _cut(self, shared: Sequence[Histories], max_len: int | None, names: tuple[str, ...]) -> Histories:
        """A tenant's columns, out of reads that are as long or longer."""
        if len(shared) == 1 and self._plan.shared[0].max_len == max_len and shared[0].columns == names:
            return shared[0]
        offsets: Int64s | None = None
        columns: dict[str, Array] = {}
        dtypes: dict[str, str] = {}
        element_offsets: dict[str, Int64s] = {}
        for histories, read in zip(shared, self._plan.shared, strict=True):
            mine = [name for name in names if name in histories]
            if not mine:
                continue
            dtypes |= {name: histories.dtype(name) for name in mine}
            if read.max_len == max_len:
                offsets = histories.offsets
                columns |= {name: histories.values(name) for name in mine}
                inner = {name: histories.element_offsets(name) for name in mine}
                element_offsets |= {name: its for name, its in inner.items() if its is not None}
                continue
            end = histories.offsets[1:]
            length = histories.lengths
            if max_len is not None:
                length = np.minimum(length, max_len)
            offsets = _running(length)
            for name in mine:
                columns[name], its = _take(histories, name, end - length, end, offsets)
                if its is not None:
                    element_offsets[name] = its
        assert offsets is not None  # a projection has columns, and each is in a shared read
        ordered = {name: columns[name] for name in names}
        return Histories(offsets, ordered, element_offsets, dtypes=dtypes)

    # -- deduplicated -------------------------------------------------------------------------------

    def _read_spans(self, reads: _Reads, request: Request) -> Reading:
        found: dict[str, dict[str, SpanColumn]] = {tenant: {} for tenant in self._tenants}
        version = request.pointers.version
        user = np.unique(request.pointers.user_id, return_inverse=True)[1].astype(np.int64, copy=False)
        proved = False
        for read in self._plan.shared:
            low = np.zeros_like(version) if read.max_len is None else np.maximum(version - read.max_len, 0)
            runs = merge_windows(user, low, version)
            histories = reads.read(request.pointers[runs.top], Projection(read.columns), since=runs.low)
            first, until = histories.offsets[:-1][runs.of], histories.offsets[1:][runs.of]
            end = np.maximum(until - (version[runs.top][runs.of] - version), first)
            if not proved:
                _prove_spans(reads, request.pointers, runs, histories, end)
                proved = True
            for tenant, projection in self._plan.cutting.items():
                length = version if projection.max_len is None else np.minimum(version, projection.max_len)
                start = np.maximum(end - length, first)
                for name in self._plan.columns[tenant]:
                    if name in histories:
                        found[tenant][name] = _span_column(histories, name, start, end)
        for projection, tenants in self._plan.selecting.items():
            keys = [user, version]
            keys += [column for column in (request.pointers.last_ts, request.as_of) if column is not None]
            first, number = number_rows(*keys)
            as_of = None if request.as_of is None else request.as_of[first]
            histories = reads.read(request.pointers[first], projection, as_of)
            start, end = histories.offsets[:-1][number], histories.offsets[1:][number]
            for tenant in tenants:
                found[tenant] = {name: _span_column(histories, name, start, end) for name in histories}
        for tenant in self._plan.cutting:
            found[tenant] = {name: found[tenant][name] for name in self._plan.columns[tenant]}
        return Reading(spans=found)


class _Reads:
    """The reads of one batch: their costs, and the lease that they fill one behind the other."""

    def __init__(
        self, snapshot: Snapshot, request: Request, lease: NDArray[np.uint8] | None, on_trimmed: OnTrimmed
    ) -> None:
        self._on_trimmed: OnTrimmed = on_trimmed
        self._snapshot = snapshot
        self._epoch = request.epoch
        self._lease = lease
        self._newest: Histories | None = None
        self.costs: list[ReadCost] = []
        self.size = 0

    def read(
        self, pointers: Pointers, projection: Projection, as_of: Int64s | None = None, since: Int64s | None = None
    ) -> Histories:
        lease = self._lease = self._rest()
        out = None if lease is None else Histories(_NOTHING, {}, slab=lease)
        histories = self._snapshot.read(
            pointers, projection, as_of=as_of, epoch=self._epoch, on_trimmed=self._on_trimmed, since=since, out=out
        )
        self.size += histories.nbytes
        self._newest = histories
        self.costs.append(histories.cost)
        return histories

    def _rest(self) -> NDArray[np.uint8] | None:
        """What the newest read has left of the lease."""
        lease, histories = self._lease, self._newest
        if lease is None or histories is None:
            return lease
        fixed = [histories.values(name) for name in histories if histories.element_offsets(name) is None]
        used = end_in(lease, fixed)
        return lease if used is None else lease[-(-used // 64) * 64 :]

    def read_joined(self, request: Request, projection: Projection) -> Histories:
        """A read with inline tails, whose cost is not told."""
        return self._snapshot.read(
            request.pointers, projection, as_of=request.as_of, epoch=self._epoch, on_trimmed=self._on_trimmed,
            inline=request.inline,
        )  # fmt: skip


def _prove_spans(reads: _Reads, pointers: Pointers, runs: Runs, histories: Histories, end: Int64s) -> None:
    """Prove the pointers that no read has proved: those inside a run. A read proved the last one of each."""
    if pointers.last_ts is None:
        return
    inside = np.ones(len(pointers), bool)
    inside[runs.top] = False
    inside &= pointers.version > 0
    if TS in histories and histories.values(TS).size:
        inside &= histories.values(TS)[end - 1] != pointers.last_ts  # only what differs is looked at again
    if inside.any():
        reads.read(pointers[inside], Projection([TS], 1))


def _span_column(histories: Histories, name: str, start: Int64s, end: Int64s) -> SpanColumn:
    return SpanColumn(histories.values(name), histories.dtype(name), histories.element_offsets(name), start, end)


def _take(histories: Histories, name: str, start: Int64s, end: Int64s, offsets: Int64s) -> tuple[Array, Int64s | None]:
    """Spans of a column, back to back, and where its lists begin if it is ragged."""
    values, inner = histories.values(name), histories.element_offsets(name)
    if inner is None:
        return copy_spans(values, start, end, offsets), None
    first, last = inner[start], inner[end]
    lengths = copy_spans(np.diff(inner), start, end, offsets)
    return copy_spans(values, first, last, _running(last - first)), _running(lengths)


def _running(lengths: Iterable[int] | Int64s) -> Int64s:
    lengths = np.asarray(lengths)
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
