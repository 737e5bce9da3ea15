"""From the readings of a batch's parts to the reading of the batch.

Where shards are owned, each owner reads the rows of its own; the rows of the batch keep their order. In the plain form
every history is copied to its row's place, once. In the deduplicated form the parts' columns lie one behind the other
and an example's span is moved: a user's events are in one part, so nothing is there twice that was there once.

What tenants share in every part they share in the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loader.errors import WorkerError
from loader.reading import Reading, SpanColumn
from loader.spans import place_spans
from uihkv import Histories

Int64s = NDArray[np.int64]
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Part:
    """What one owner has read.

    Attributes:
        rows: int64[n], the rows of the batch that are its own.
        reading: of these rows, in this order.

    """

    rows: Int64s
    reading: Reading


def join_readings(parts: Sequence[Part]) -> Reading:
    """The reading of the whole batch; its arrays are new, or those of the only part.

    Args:
        parts: one or more, each row of the batch in exactly one.

    Raises:
        WorkerError: when the parts hold a column in different types, since the schema was changed between them.

    """
    first = parts[0].reading
    if len(parts) == 1:
        return first
    joint = _Joint(parts)
    plain = {tenant: joint.join_plain([part.reading.plain[tenant] for part in parts]) for tenant in first.plain}
    spans = {
        tenant: {name: joint.join_spans(tenant, name) for name in columns} for tenant, columns in first.spans.items()
    }
    costs = [cost for part in parts for cost in part.reading.costs]
    return Reading(plain, spans, costs, max(part.reading.took_s for part in parts))


class _Joint:
    """Joins arrays of all parts; the same ones, which the parts keep alive, are joined once."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._rows = [part.rows for part in parts]
        self._batch = sum(len(rows) for rows in self._rows)
        self._made: dict[tuple[Any, ...], Array] = {}

    def join_plain(self, parts: Sequence[Histories]) -> Histories:
        offsets = self._once("offsets", [its.offsets for its in parts], lambda: self._join_offsets(parts))
        columns: dict[str, Array] = {}
        inner: dict[str, Int64s] = {}
        for name in parts[0]:
            _check_alike(name, [its.dtype(name) for its in parts])
            edges = self._join_edges(parts, name, offsets)
            if edges is not None:
                inner[name] = edges
            columns[name] = self._join_values(parts, name, offsets, edges)
        return Histories(offsets, columns, inner, dtypes={name: parts[0].dtype(name) for name in parts[0]})

    def _join_edges(self, parts: Sequence[Histories], name: str, offsets: Int64s) -> Int64s | None:
        """Of a ragged column, where its events' lists begin."""
        edges = [its for its in (part.element_offsets(name) for part in parts) if its is not None]
        if not edges:
            return None
        starts, ends = [its.offsets[:-1] for its in parts], [its.offsets[1:] for its in parts]
        lengths = [np.diff(its) for its in edges]
        joined: Int64s = self._once("edges", edges, lambda: _running(self._place(lengths, starts, ends, offsets)))
        return joined

    def _join_values(self, parts: Sequence[Histories], name: str, offsets: Int64s, edges: Int64s | None) -> Array:
        """A column; where it has lists, their elements."""
        values = [its.values(name) for its in parts]
        starts, ends = [its.offsets[:-1] for its in parts], [its.offsets[1:] for its in parts]
        if edges is not None:
            inner = [its for its in (part.element_offsets(name) for part in parts) if its is not None]
            starts = [its[start] for its, start in zip(inner, starts, strict=True)]
            ends = [its[end] for its, end in zip(inner, ends, strict=True)]
            offsets = edges[offsets]
        joined: Array = self._once("values", values, lambda: self._place(values, starts, ends, offsets))
        return joined

    def join_spans(self, tenant: str, name: str) -> SpanColumn:
        parts = [part.reading.spans[tenant][name] for part in self._parts]
        _check_alike(name, [its.dtype for its in parts])
        values, starts, ends = ([getattr(its, what) for its in parts] for what in ("values", "start", "end"))
        lists = [its.element_offsets for its in parts if its.element_offsets is not None]
        events = [len(its) - 1 for its in lists] if lists else [len(its) for its in values]
        edges = None
        if lists:
            edges = self._once("edges", lists, lambda: _running(np.concatenate([np.diff(its) for its in lists])))
        return SpanColumn(
            self._once("values", values, lambda: np.concatenate(values)), parts[0].dtype, edges,
            self._once(f"rows of {events}", starts, lambda: self._shift(starts, events)),
            self._once(f"rows of {events}", ends, lambda: self._shift(ends, events)),
        )  # fmt: skip

    def _once(self, what: str, arrays: Sequence[Array], make: Callable[[], Any]) -> Any:
        key = (what, *map(id, arrays))
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _join_offsets(self, parts: Sequence[Histories]) -> Int64s:
        lengths = np.empty(self._batch, np.int64)
        for rows, its in zip(self._rows, parts, strict=True):
            lengths[rows] = its.lengths
        return _running(lengths)

    def _place(
        self, values: Sequence[Array], starts: Sequence[Int64s], ends: Sequence[Int64s], offsets: Int64s
    ) -> Array:
        """Each row's span of its part's values, at its place in the batch."""
        out = np.empty((int(offsets[-1]), *values[0].shape[1:]), values[0].dtype)
        for rows, its, start, end in zip(self._rows, values, starts, ends, strict=True):
            place_spans(np.ascontiguousarray(its), start, end, out, offsets[rows])
        return out

    def _shift(self, edges: Sequence[Int64s], events: Sequence[int]) -> Int64s:
        """Starts or ends of all rows' spans, past the events of the parts before."""
        out = np.empty(self._batch, np.int64)
        before = 0
        for rows, its, more in zip(self._rows, edges, events, strict=True):
            out[rows] = its + before
            before += more
        return out


def _check_alike(name: str, dtypes: Sequence[str]) -> None:
    if len(set(dtypes)) > 1:
        raise WorkerError(
            f"column {name!r} was read as {' and as '.join(sorted(set(dtypes)))}: the schema was changed during the "
            "pass; start it again"
        )


def _running(lengths: Int64s) -> Int64s:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
