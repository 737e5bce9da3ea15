"""Synthetic logs: what users did, as numpy columns, with the traits that decide how fast a store is.

- *Heavy tails.* History lengths are Pareto-distributed: most users are short, a few reach the longest.
- *Sessions.* Events come in bursts; gaps are short within a session and long between.
- *Popularity.* Items are drawn by a truncated Zipf law, as actions and surfaces are drawn unevenly.
- *Late arrivals.* Some events arrive long after they happened: their ``ts`` lies before that of events ahead of them.

``values="uniform"`` draws the columns uniformly instead: the worst case for compression, and what DESIGN.md §6's
prototype was measured on. A log is made a user at a time (*user-major*) and can be put in order of arrival. The same
parameters and seed give the same log.

:func:`size_workload` gives the parameters for so many events of five or twenty columns, :func:`make_log` a log in
memory, :func:`make_parts` the same log a couple of million events at a time, for logs that do not fit there. Real logs,
and all of them by name: :mod:`perf.logs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from uihkv import Column, Schema, Store

Int64s = NDArray[np.int64]
Array = NDArray[Any]

ITEMS = 1_000_000
LONGEST = 65_536
PART_EVENTS = 1 << 21
_FIRST_MOMENT = 1_700_000_000_000

FIVE_COLUMNS = Schema(
    [Column("item_id", "int64"), Column("action", "uint8"), Column("surface", "uint8"), Column("dwell", "float32")]
)
"""With ``ts`` five columns, 22 raw bytes an event: DESIGN.md §6's prototype."""

TWENTY_COLUMNS = Schema(
    [
        *FIVE_COLUMNS.columns,
        Column("author_id", "int64"), Column("request_id", "int64"), Column("category", "int32"),
        Column("city", "int32"), Column("position", "int16"), Column("hour", "uint8"), Column("device", "uint8"),
        Column("price", "float32"), Column("score", "float32"), Column("watched", "float32"),
        Column("query_length", "int16"), Column("language", "uint8"), Column("liked", "bool"),
        Column("shared", "bool"), Column("followed", "bool"),
    ]
)  # fmt: skip
"""With ``ts`` twenty columns, 68 raw bytes an event: ids, categories, counts, floats and flags."""

COLUMN_SETS: dict[int, tuple[str, ...]] = {
    2: ("item_id", "action"),
    5: ("ts", *FIVE_COLUMNS.names),
    20: ("ts", *TWENTY_COLUMNS.names),
}
"""What tenants of a log of twenty columns read, by how many they are."""


SCHEMAS = {5: FIVE_COLUMNS, 20: TWENTY_COLUMNS}
"""By the number of columns, ``ts`` among them."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The parameters of a log.

    Attributes:
        users: number of users; their ids are ``0 .. users - 1`` scattered over int64.
        mean_length: events a user, about; the tail is cut at ``longest``.
        shortest, longest: bounds of a history's length; equal bounds give equal lengths.
        tail: exponent of the Pareto law of lengths; 1.1 to 2 is what logs show, smaller is heavier.
        zipf: exponent of items' popularity (not 1).
        items: number of items; ids lie below it.
        session_events: events a session, the mean of a geometric law.
        within_s, between_s: mean gaps within a session and between two, exponential.
        late: share of events that arrive late.
        late_s: how late these arrive, the mean of an exponential law.
        values: ``"zipf"`` as described, ``"uniform"``: everything uniformly random.
        schema: ``FIVE_COLUMNS`` or ``TWENTY_COLUMNS``.

    """

    users: int = 2_000
    mean_length: int = 1_000
    shortest: int = 1
    longest: int = LONGEST
    tail: float = 1.2
    zipf: float = 1.1
    items: int = ITEMS
    session_events: float = 12.0
    within_s: float = 20.0
    between_s: float = 40_000.0
    late: float = 0.0
    late_s: float = 3_600.0
    values: Literal["zipf", "uniform"] = "zipf"
    schema: Schema = FIVE_COLUMNS


@dataclass(frozen=True, slots=True)
class Log:
    """Events of many users.

    Attributes:
        schema: of the columns.
        user_id, ts, visible_at: int64[events]; times in milliseconds.
        columns: the schema's columns by name.
        users: int64[users], ascending.
        offsets: int64[users + 1]: in a user-major log, events ``[offsets[u], offsets[u+1])`` are those of ``users[u]``.
        user_major: whether the events stand user by user; else in order of arrival.

    """

    schema: Schema
    user_id: Int64s
    ts: Int64s
    visible_at: Int64s
    columns: dict[str, Array]
    users: Int64s
    offsets: Int64s
    user_major: bool = True

    def __len__(self) -> int:
        return len(self.user_id)

    @property
    def lengths(self) -> Int64s:
        """Events of each user: int64[users]."""
        return np.diff(self.offsets)

    @property
    def event_bytes(self) -> int:
        """Bytes of an event's ``ts`` and columns."""
        return 8 + sum(column.dtype.itemsize for column in self.columns.values())

    @property
    def readable(self) -> dict[str, Array]:
        """``ts`` and the schema's columns: what a read of all columns gives."""
        return {"ts": self.ts, **self.columns}

    def rows(self, first: int, last: int) -> dict[str, Array]:
        """Events ``[first, last)`` as ``Store.append`` takes them."""
        part = slice(first, last)
        columns = {name: column[part] for name, column in self.columns.items()}
        return {"user_id": self.user_id[part], "ts": self.ts[part], **columns}

    def in_arrival_order(self) -> Log:
        """The same events in the order in which they became visible: all users interleaved."""
        order = np.argsort(self.visible_at, kind="stable")
        return replace(
            self,
            user_id=self.user_id[order], ts=self.ts[order], visible_at=self.visible_at[order],
            columns={name: column[order] for name, column in self.columns.items()}, user_major=False,
        )  # fmt: skip


def size_workload(events: int, columns: int = 5, **traits: Any) -> Workload:
    """A workload of about so many events.

    Args:
        events: how many; the users are as many as their mean length asks for.
        columns: 5 or 20, ``ts`` among them.
        traits: other parameters of :class:`Workload`.

    """
    if columns not in SCHEMAS:
        raise ValueError(f"{columns} columns: there are logs of {' and '.join(map(str, SCHEMAS))}")
    fixed = Workload(users=0, schema=SCHEMAS[columns], **traits)
    return replace(fixed, users=max(1, round(events / fixed.mean_length)))


def make_log(workload: Workload, seed: int = 0) -> Log:
    """Draw a user-major log: beside the log itself, memory for a part of it."""
    users, offsets, begin = _draw_users(workload, seed)
    n = int(offsets[-1])
    made = Log(
        workload.schema, np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64),
        {column.name: np.empty(n, column.numpy_dtype) for column in workload.schema.columns}, users, offsets,
    )  # fmt: skip
    first = 0
    for part in _draw_parts(workload, seed, users, offsets, begin):
        place = slice(first, first + len(part))
        made.user_id[place], made.ts[place], made.visible_at[place] = part.user_id, part.ts, part.visible_at
        for name, values in part.columns.items():
            made.columns[name][place] = values
        first += len(part)
    return made


def make_parts(workload: Workload, seed: int = 0) -> Iterator[Log]:
    """The log of :func:`make_log` in logs of some users each, about ``PART_EVENTS`` events."""
    yield from _draw_parts(workload, seed, *_draw_users(workload, seed))


def _draw_users(workload: Workload, seed: int) -> tuple[Int64s, Int64s, Int64s]:
    """Ids, where their events lie, and when the first of each happened."""
    rng = np.random.default_rng(seed)
    offsets = np.zeros(workload.users + 1, np.int64)
    np.cumsum(_draw_lengths(workload, rng), out=offsets[1:])
    users = np.sort(rng.choice(1 << 48, workload.users, replace=False).astype(np.int64))
    return users, offsets, _FIRST_MOMENT + rng.integers(0, 30 * 86_400_000, workload.users)


def _draw_parts(workload: Workload, seed: int, users: Int64s, offsets: Int64s, begin: Int64s) -> Iterator[Log]:
    low = 0
    while low < len(users):
        high = max(low + 1, int(np.searchsorted(offsets, offsets[low] + PART_EVENTS, "right")) - 1)
        rng = np.random.default_rng([seed, low])
        yield _draw_part(workload, rng, users[low:high], offsets[low : high + 1], begin[low:high])
        low = high


def _draw_part(workload: Workload, rng: np.random.Generator, users: Int64s, offsets: Int64s, begin: Int64s) -> Log:
    first, offsets = int(offsets[0]), offsets - offsets[0]
    n = int(offsets[-1])
    visible_at = _draw_clock(workload, offsets, begin, rng)
    ts = visible_at.copy()
    if workload.late:
        late = np.flatnonzero(rng.random(n) < workload.late)
        ts[late] -= (1000 * rng.exponential(workload.late_s, len(late))).astype(np.int64)
    draw = _draw_uniform if workload.values == "uniform" else _draw_uneven
    columns = {
        column.name: draw(column.name, column.numpy_dtype, n, workload, rng) for column in workload.schema.columns
    }
    if "request_id" in columns and workload.values == "zipf":
        columns["request_id"] += first  # no part's ids are another's
    return Log(workload.schema, np.repeat(users, np.diff(offsets)), ts, visible_at, columns, users, offsets)


def _draw_lengths(workload: Workload, rng: np.random.Generator) -> Int64s:
    if workload.shortest == workload.longest:
        return np.full(workload.users, workload.longest, np.int64)
    heavy = 1 + rng.pareto(workload.tail, workload.users)
    low, high = 1e-3, 1e9
    for _ in range(60):  # the scale at which the cut law has the mean that is wanted
        scale = (low * high) ** 0.5
        if np.clip(heavy * scale, workload.shortest, workload.longest).mean() < workload.mean_length:
            low = scale
        else:
            high = scale
    return np.clip(heavy * low, workload.shortest, workload.longest).astype(np.int64)


def _draw_clock(workload: Workload, offsets: Int64s, begin: Int64s, rng: np.random.Generator) -> Int64s:
    """Times of arrival, ascending within each user from when his first event happened."""
    n = int(offsets[-1])
    gap = 1 + rng.exponential(1000 * workload.within_s, n).astype(np.int64)
    breaks = np.flatnonzero(rng.random(n) < 1 / workload.session_events)
    gap[breaks] += rng.exponential(1000 * workload.between_s, len(breaks)).astype(np.int64)
    clock = np.cumsum(gap)
    clock += np.repeat(begin - clock[np.minimum(offsets[:-1], max(n - 1, 0))], np.diff(offsets))
    return clock


def _draw_uniform(name: str, dtype: np.dtype[Any], n: int, workload: Workload, rng: np.random.Generator) -> Array:
    """Uniform values; ``action`` of 8 kinds and ``surface`` of 4."""
    if dtype.kind == "f":
        return rng.random(n, np.float32).astype(dtype)
    if dtype.kind == "b":
        return rng.random(n, np.float32) < 0.5
    kinds = {"item_id": workload.items, "action": 8, "surface": 4}.get(name, min(workload.items, np.iinfo(dtype).max))
    return rng.integers(0, kinds, n, dtype)


def _draw_uneven(name: str, dtype: np.dtype[Any], n: int, workload: Workload, rng: np.random.Generator) -> Array:
    """Values as logs have them: popular items, skewed kinds, rounded durations, rare flags."""
    if dtype.kind == "f":
        return np.round(rng.lognormal(2.0, 1.2, n), 1).astype(dtype)
    if dtype.kind == "b":
        return rng.random(n, np.float32) < 0.03
    if name == "request_id":  # shared by the events of a session
        return np.cumsum(rng.random(n) < 1 / workload.session_events).astype(dtype)
    if dtype.itemsize == 1:
        kinds = {"action": 8, "surface": 4}.get(name, 24)
        return np.minimum(rng.geometric(0.5, n) - 1, kinds - 1).astype(dtype)
    kinds = {"item_id": workload.items, "author_id": workload.items, "category": 2_000, "city": 5_000}.get(name, 100)
    return _draw_zipf(kinds, workload.zipf, n, rng).astype(dtype)


def _draw_zipf(kinds: int, exponent: float, n: int, rng: np.random.Generator) -> Int64s:
    """Ids below ``kinds`` by a truncated Zipf law, by inversion of its continuous form; popular ids lie scattered."""
    power = 1 - exponent
    drawn = (1 + rng.random(n) * (float(kinds) ** power - 1)) ** (1 / power)
    rank: Int64s = np.minimum(drawn.astype(np.int64), kinds) - 1
    scattered: Int64s = rank * 514_229 % kinds  # a prime that divides no usual number of items: a reordering
    return scattered


def build_store(
    path: Path,
    log: Log,
    *,
    shards: int = 8,
    compression: str = "lz4",
    chunk_events: int = 1024,
    batch_events: int = 1 << 20,
) -> Store:
    """Make a store of a log and open it; a user-major log is written by whole users, another batch by batch."""
    store = Store.create(path, log.schema, shards, chunk_events=chunk_events, compression=compression)
    for first, last in batches(log, batch_events):
        store.append(log.rows(first, last), log.visible_at[first:last])
    return store


def batches(log: Log, batch_events: int) -> Iterator[tuple[int, int]]:
    """Cut a log into batches of about so many events; a user-major log between users."""
    if not log.user_major:
        for first in range(0, len(log), batch_events):
            yield first, min(first + batch_events, len(log))
        return
    first = 0
    while first < len(log):
        index = int(np.searchsorted(log.offsets, first + batch_events, "right")) - 1
        last = max(int(log.offsets[index]), int(log.offsets[np.searchsorted(log.offsets, first, "right")]))
        yield first, last
        first = last
