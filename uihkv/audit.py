"""Do logged pointers and resolved ones agree, and which delay would make them?

An example with a logged pointer says what its request saw. Resolving its user and moment says what had become visible
by then. Where both exist they are compared, example by example:

- *equal*: the same prefix;
- *ahead*: the resolved prefix has events that the request had not seen. Training on it would leak the future;
- *behind*: it lacks events that the request had seen. Training on it would be stale.

The *delay* by which visible times must be moved so that nothing leaks is found exactly. Event ``v``, the first that the
request had not seen, is in the prefix resolved with delay ``d`` when it was visible before ``as_of - d``. So the
example leaks for every ``d`` below ``as_of - visible(v)`` and for none from there on; the largest of these is the least
delay without leakage, and their quantiles are the delays that leave a share of examples leaking.

Memory: one batch of rows, and 32 bytes an example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.errors import PointerError, SchemaError
from uihkv.formats import list_files, open_source
from uihkv.formats.source import Wanted, as_ticks, read_batches
from uihkv.inline import INLINE, InlineTail
from uihkv.pointers import Pointers, as_int64
from uihkv.projection import Projection
from uihkv.schema import VISIBLE_AT
from uihkv.snapshot import Snapshot
from uihkv.store import Store

BATCH_ROWS = 1 << 17
WORST_USERS = 10
LEAKING_SHARES = (0.0, 0.001, 0.01)
"""Shares of examples for which the delay is worked out that leaves no more of them leaking."""

Int64s = NDArray[np.int64]
_NEVER = np.iinfo(np.int64).min
"""No delay makes this example leak, or stale: there is no such event."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How far examples of one kind differ: smallest value that this share of them does not exceed.

    Attributes:
        p50, p90, p99, max: None where there are no such examples.

    """

    p50: int | None
    p90: int | None
    p99: int | None
    max: int | None

    @classmethod
    def of(cls, values: Int64s) -> Spread:
        """Percentiles of int64[n]."""
        if not len(values):
            return cls(None, None, None, None)
        ordered = np.sort(values)
        p50, p90, p99 = (int(ordered[-(-len(ordered) * share // 100) - 1]) for share in (50, 90, 99))
        return cls(p50, p90, p99, int(ordered[-1]))


@dataclass(frozen=True, slots=True)
class WorstUser:
    """A user whose examples leak.

    Attributes:
        user_id: who.
        examples: of this user.
        ahead: of these, examples that leak.
        events: leaked events over all of them.

    """

    user_id: Any
    examples: int
    ahead: int
    events: int


@dataclass(frozen=True, slots=True)
class DelayEstimate:
    """A delay, and what it leaves.

    Attributes:
        leaking_share: share of examples that may leak.
        delay: least delay, in the time unit, with which no more do; 0 or more.
        ahead: share of examples that leak with it.
        behind: share of examples that are stale with it.

    """

    leaking_share: float
    delay: int
    ahead: float
    behind: float


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Logged against resolved pointers.

    Attributes:
        examples: how many were compared.
        trimmed: examples that were left out, since events were trimmed that tell what they or their requests saw.
        delay: with which was resolved.
        equal, ahead, behind: how many of each; they sum to ``examples``.
        ahead_events, behind_events: how many events too many, or too few.
        ahead_time: how long before ``as_of - delay`` the first unseen event was visible, in the time unit, 1 or more.
        behind_time: how long after ``as_of - delay`` the newest seen event became visible, 0 or more.
        worst_users: those with the most leaked events.
        delays: least delays for given shares of leakage.

    """

    examples: int
    trimmed: int
    delay: int
    equal: int
    ahead: int
    behind: int
    ahead_events: Spread
    behind_events: Spread
    ahead_time: Spread
    behind_time: Spread
    worst_users: tuple[WorstUser, ...]
    delays: tuple[DelayEstimate, ...]

    @property
    def ahead_share(self) -> float:
        """Share of examples that leak; 0 of none."""
        return self.ahead / self.examples if self.examples else 0.0

    def describe(self) -> dict[str, Any]:
        """The fields by name, and the three shares."""
        share = 1 / self.examples if self.examples else 0.0
        return {
            **asdict(self),
            "equal_share": self.equal * share, "ahead_share": self.ahead * share, "behind_share": self.behind * share,
        }  # fmt: skip


class Audit:
    """Counts over batches of examples of one snapshot."""

    def __init__(self, snapshot: Snapshot, delay: int = 0) -> None:
        self._snapshot = snapshot
        self._delay = delay
        self._users: list[NDArray[Any]] = []
        self._differences: list[Int64s] = []
        self._unseen: list[Int64s] = []
        self._seen: list[Int64s] = []
        self._trimmed = 0

    def add(self, pointers: Pointers, as_of: Int64s) -> None:
        """Compare B logged pointers, ``as_of: int64[B]``.

        Raises:
            PointerError: for pointers that do not fit the store.

        """
        snapshot = self._snapshot
        resolved = snapshot.resolve(pointers.user_id, as_of, self._delay, on_trimmed="truncate")
        head = snapshot.head(pointers.user_id).version
        # The first read proves last_ts and refuses versions past the head.
        seen, no_seen = self._out_from(pointers, as_of)
        no_resolved = self._out_from(resolved, as_of)[1]
        next_one = Pointers(pointers.user_id, np.where(pointers.version < head, pointers.version + 1, 0))
        unseen, no_unseen = self._out_from(next_one, as_of)
        kept = ~(no_seen | no_resolved | no_unseen)
        self._trimmed += int(np.count_nonzero(~kept))
        self._users.append(pointers.user_id[kept])
        self._differences.append((resolved.version - pointers.version)[kept])
        self._unseen.append(unseen[kept])
        self._seen.append(seen[kept])

    def _out_from(self, pointers: Pointers, as_of: Int64s) -> tuple[Int64s, NDArray[np.bool_]]:
        """From which delay on the newest event of each prefix is out of what resolves; and whether it is trimmed."""
        found = self._snapshot.read(pointers, Projection([VISIBLE_AT], max_len=1), on_trimmed="truncate")
        here = found.lengths > 0
        delay = np.full(len(pointers), _NEVER)
        delay[here] = as_of[here] - found.values(VISIBLE_AT)
        return delay, (pointers.version > 0) & ~here

    def report(self) -> AuditReport:
        """What was found so far."""
        nothing = np.empty(0, np.int64)
        difference, unseen, seen = (
            np.concatenate(parts) if parts else nothing for parts in (self._differences, self._unseen, self._seen)
        )
        ahead, behind = difference > 0, difference < 0
        return AuditReport(
            examples=len(difference), trimmed=self._trimmed, delay=self._delay,
            equal=int(np.count_nonzero(difference == 0)), ahead=int(ahead.sum()), behind=int(behind.sum()),
            ahead_events=Spread.of(difference[ahead]), behind_events=Spread.of(-difference[behind]),
            ahead_time=Spread.of(unseen[ahead] - self._delay), behind_time=Spread.of(self._delay - seen[behind]),
            worst_users=self._worst(difference), delays=tuple(_estimate_delays(unseen, seen)),
        )  # fmt: skip

    def _worst(self, difference: Int64s) -> tuple[WorstUser, ...]:
        if not len(difference):
            return ()
        users, place = np.unique(np.concatenate(self._users), return_inverse=True)
        leaked = np.bincount(place, np.maximum(difference, 0)).astype(np.int64)
        ahead = np.bincount(place, difference > 0).astype(np.int64)
        count = np.bincount(place)
        order = np.argsort(-leaked, kind="stable")[:WORST_USERS]
        return tuple(
            WorstUser(users[at].item() if hasattr(users[at], "item") else users[at], int(count[at]), int(ahead[at]),
                      int(leaked[at]))
            for at in order if leaked[at]
        )  # fmt: skip


def _estimate_delays(unseen: Int64s, seen: Int64s) -> Iterator[DelayEstimate]:
    """Least delays with which no more than these shares of examples leak."""
    n = len(unseen)
    ordered = np.sort(unseen)
    for share in LEAKING_SHARES:
        may_leak = int(n * share)  # so many of the largest are left to leak
        delay = max(0, int(ordered[n - 1 - may_leak])) if n > may_leak else 0
        leaks = int(np.count_nonzero(unseen > delay))
        stale = int(np.count_nonzero((seen != _NEVER) & (seen <= delay)))
        yield DelayEstimate(share, delay, leaks / n if n else 0.0, stale / n if n else 0.0)


def audit_file(
    store: Store,
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    as_of: str,
    delay: int = 0,
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Compare the logged pointers of Parquet files with resolved ones, in one snapshot.

    Examples with inline tails (:mod:`uihkv.inline`) saw their tails' events too.

    Args:
        store: whose histories the pointers name.
        path: a file, several, or folders of them, with ``user_id``, ``version`` and maybe ``last_ts``.
        as_of: column of the requests' moments: integers in the store's time unit, or Arrow timestamps that are whole
            in it.
        delay: how much later than its visible time an event reached the serving side, in the time unit; 0 or more.
        batch_rows: rows at a time; 1 or more.
        progress: called after each batch with the rows done and the rows of all files.

    Raises:
        FormatError, SchemaError: for inputs that are not such examples.
        PointerError: for pointers that do not fit the store, or a negative delay.

    """
    if isinstance(batch_rows, bool) or not isinstance(batch_rows, int) or batch_rows < 1:
        raise SchemaError(f"batch_rows is {batch_rows!r}; 1 or more rows are expected")
    sources = [open_source(file, Wanted(), "parquet") for file in list_files(path, "parquet")]
    for source in sources:
        if as_of not in source.names:
            raise SchemaError(f"{source.path}: no column {as_of!r}; the file has {', '.join(source.names)}")
    total, done = sum(source.rows for source in sources), 0
    with store.snapshot() as snapshot:
        snapshot.resolve(snapshot.users()[:0], [], delay)  # refuses the delay before any work
        audit = Audit(snapshot, delay)
        for source in sources:
            begin = 0
            for table in read_batches(source, batch_rows):
                try:
                    audit.add(_seen_pointers(snapshot, table), _moments(snapshot, table.column(as_of), as_of))
                except (SchemaError, PointerError) as error:
                    last = begin + table.num_rows - 1
                    raise type(error)(f"{source.path}, rows {begin} to {last}: {error}") from error
                begin += table.num_rows
                done += table.num_rows
                if progress is not None:
                    progress(done, total)
        return audit.report()


def _seen_pointers(snapshot: Snapshot, table: Any) -> Pointers:
    pointers = Pointers.from_arrow(table)
    if INLINE not in table.schema.names:
        return pointers
    return InlineTail.from_arrow(snapshot.schema, table).extend(pointers)


def _moments(snapshot: Snapshot, column: Any, name: str) -> Int64s:
    ticks = as_ticks(column, snapshot.schema.time_unit, name)
    if ticks.null_count:
        raise SchemaError(f"column {name!r} has {ticks.null_count} nulls; every example needs a moment")
    return as_int64(ticks.to_numpy(), f"column {name!r}")
