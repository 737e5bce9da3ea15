"""Which requests does a history's length, or a join on event time, get judged on?

*A request* is made for every commit, all events of one user at one ``ts``: at that moment, and its target is the item
of one of these events, drawn. What was served then is the version as of the moment: events that had become visible
strictly before. On these logs that is much less than what carries an earlier ``ts``, since changes become visible in
series, days later.

*Candidates* are the items of events that became visible before the split; requests for another item are left out, and
counted. Training requests have a target that became visible before the split; requests at the split or later are
evaluated on. *Strata* are by the length of the history that was served; each gets as many evaluated requests as there
are, up to a number.

*Joins on event time*, what a feature table without arrival times gives, for the same requests:

- ``ts <``: the events with a ``ts`` strictly before the moment, visible by then or not;
- ``ts <=``: those up to and at it, but for the target's own row: the rest of its commit is in.

A join is materialised: a store in which every request is a user of its own, with the newest joined events.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loader.demo.evaluate import count_items
from loader.demo.eventlog import SCHEMA, EventLog
from perf.workloads import Workload, make_log
from uihkv import Pointers, Store

Int64s = NDArray[np.int64]
Join = Literal["ts <", "ts <="]
JOINS: tuple[Join, ...] = ("ts <", "ts <=")

SPLIT_SHARE = 0.7
"""Share of the events that become visible before the split: leaves users with long histories on both sides."""
EDGES = (0, 16, 64, 256, 1_024, 4_096)
"""Where strata begin, in events served."""

_REQUESTS_AT_ONCE = 4_096

SESSION_GAP_MS = 600_000
SESSION_ITEMS = 6
DRAWN = Workload(users=600, mean_length=150, longest=4_096, items=5_000, late=0.2, late_s=3_600.0)
"""The drawn log: a fifth of the events arrive late, by an hour in the mean."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests with their targets.

    Attributes:
        row: int64[n]: row of the target's event in the log.
        user_id, moment, target: int64[n]; the moment in ms.
        served: int64[n]: events that the version as of the moment has.

    """

    row: Int64s
    user_id: Int64s
    moment: Int64s
    target: Int64s
    served: Int64s

    def __len__(self) -> int:
        return len(self.row)

    def take(self, places: Int64s) -> Requests:
        """Some of them."""
        return Requests(*(getattr(self, name)[places] for name in self.__slots__))

    def and_then(self, others: Requests) -> Requests:
        """These, and others behind them."""
        parts = (np.concatenate([getattr(self, name), getattr(others, name)]) for name in self.__slots__)
        return Requests(*parts)

    @property
    def stratum(self) -> Int64s:
        """Place in ``EDGES`` of each: int64[n]."""
        return np.searchsorted(EDGES, self.served, side="right") - 1


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained and evaluated on, of one log.

    Attributes:
        log: all events.
        split: moment, ms.
        candidates: int64[c]: items to rank, ascending.
        counts: int64[items], of events that became visible before the split.
        train, evaluate: requests.
        left_out: share of the later requests whose target is no candidate.
        available: requests after the split by stratum, before any were drawn.

    """

    log: EventLog
    split: int
    candidates: Int64s
    counts: Int64s
    train: Requests
    evaluate: Requests
    left_out: float
    available: Int64s

    def base_losses(self) -> NDArray[np.float64]:
        """Cross entropy of each evaluated target under the base rate, nats: float64[n].

        The base rate of a candidate is its count, plus one, over the sum of these.
        """
        rate = self.counts[self.candidates] + 1.0
        log_rate: NDArray[np.float64] = np.log(rate / rate.sum())
        return -log_rate[np.searchsorted(self.candidates, self.evaluate.target)]


def make_task(log: EventLog, *, train: int, per_stratum: int, seed: int) -> Task:
    """Draw requests.

    Args:
        log: all events.
        train: how many to train on, at most.
        per_stratum: how many to evaluate on, at most, of each stratum.
        seed: of what is drawn.

    """
    rng = np.random.default_rng(seed)
    split = int(np.quantile(log.visible_at, SPLIT_SHARE, method="lower"))
    counts = count_items(log, before=split)
    rows = _draw_of_each_commit(log, rng)
    served = count_events((log.user_id, log.visible_at), (log.user_id[rows], log.ts[rows]), "<")
    every = Requests(rows, log.user_id[rows], log.ts[rows], log.item_id[rows], served)
    known = counts[every.target] > 0
    earlier = np.flatnonzero((log.visible_at[rows] < split) & (every.moment < split))
    later = np.flatnonzero(every.moment >= split)
    left_out = 1.0 - float(known[later].mean())
    later = later[known[later]]
    chosen = rng.permutation(earlier)[:train]
    strata = every.stratum
    drawn = [rng.permutation(later[strata[later] == one])[:per_stratum] for one in range(len(EDGES))]
    return Task(
        log, split, np.flatnonzero(counts), counts, every.take(np.sort(chosen)),
        every.take(np.sort(np.concatenate(drawn))), left_out, np.bincount(strata[later], minlength=len(EDGES)),
    )  # fmt: skip


def _draw_of_each_commit(log: EventLog, rng: np.random.Generator) -> Int64s:
    """A row of each commit, in order of arrival."""
    shuffled = rng.permutation(len(log))
    order = shuffled[np.lexsort((log.ts[shuffled], log.user_id[shuffled]))]
    user, ts = log.user_id[order], log.ts[order]
    first = np.append(True, (user[1:] != user[:-1]) | (ts[1:] != ts[:-1]))
    return np.sort(order[first])


def count_events(events: tuple[Int64s, Int64s], asked: tuple[Int64s, Int64s], side: Literal["<", "<="]) -> Int64s:
    """How many of a user's events have a time before (or not after) a moment: int64[requests].

    Args:
        events: users and times, int64[events] each.
        asked: users and moments, int64[requests] each.
        side: ``<`` or ``<=``.

    """
    user, time = (np.concatenate(pair) for pair in zip(events, asked, strict=True))
    asking = np.arange(len(user)) >= len(events[0])
    order = np.lexsort((asking if side == "<=" else ~asking, time, user))
    before = np.cumsum(~asking[order])
    names, first = np.unique(user[order], return_index=True)
    ahead: Int64s = before[first] - ~asking[order][first]  # events of the users that stand before
    count: Int64s = before - ahead[np.searchsorted(names, user[order])]
    found = np.empty(len(user), np.int64)
    found[order] = count
    return found[len(events[0]) :]


def count_before(log: EventLog) -> Int64s:
    """How many events of its user arrived before each: int64[events]."""
    order = np.argsort(log.user_id, kind="stable")
    _, first, counts = np.unique(log.user_id[order], return_index=True, return_counts=True)
    version = np.empty(len(log), np.int64)
    version[order] = np.arange(len(log)) - np.repeat(first, counts)
    return version


def join_on_time(log: EventLog, requests: Requests, join: Join, newest: int) -> tuple[Int64s, Int64s]:
    """Rows of the log that a join on ``ts`` gives each request.

    Args:
        log: all events.
        requests: for which.
        join: which events.
        newest: most rows of a request, its newest by ``ts``; of equal ``ts``, those that arrived last.

    Returns:
        int64[rows], oldest first, request by request; and offsets, int64[requests + 1].

    """
    order = np.lexsort((log.ts, log.user_id))
    first = np.searchsorted(log.user_id[order], requests.user_id)
    count = count_events((log.user_id, log.ts), (requests.user_id, requests.moment), "<" if join == "ts <" else "<=")
    room = np.minimum(count, newest + (join == "ts <="))  # one more: the target's own row goes
    offsets = np.append(0, np.cumsum(room))
    place = np.arange(offsets[-1]) + np.repeat(first + count - room - offsets[:-1], room)
    rows, request = order[place], np.repeat(np.arange(len(requests)), room)
    kept = rows != requests.row[request]
    rows, request = rows[kept], request[kept]
    lengths = np.bincount(request, minlength=len(requests))
    ends = np.cumsum(lengths)
    inside = ends[request] - np.arange(len(rows)) <= newest
    return rows[inside], np.append(0, np.cumsum(np.bincount(request[inside], minlength=len(requests))))


@contextmanager
def versioned_store(path: Path, log: EventLog) -> Iterator[Store]:
    """A store of the log."""
    with Store.create(path, SCHEMA, shards=4) as store:
        store.append(log.columns, log.visible_at)
        yield store


@contextmanager
def joined_store(path: Path, log: EventLog, requests: Requests, join: Join, newest: int) -> Iterator[Store]:
    """A store whose user ``i`` has the events that the join gives request ``i``."""
    with Store.create(path, SCHEMA, shards=4) as store:
        for first in range(0, len(requests), _REQUESTS_AT_ONCE):
            places = np.arange(first, min(first + _REQUESTS_AT_ONCE, len(requests)))
            rows, offsets = join_on_time(log, requests.take(places), join, newest)
            columns = {name: column[rows] for name, column in log.columns.items()}
            columns["user_id"] = np.repeat(places, np.diff(offsets))
            store.append(columns, backfill=True)
        yield store


def write_requests(path: Path, pointers: Pointers, requests: Requests) -> Path:
    """Slim examples in a file, with ``row``, each one's place among the requests."""
    table = pointers.to_arrow()
    for name, values in (
        ("as_of", requests.moment), ("target", requests.target), ("row", np.arange(len(requests)))
    ):  # fmt: skip
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    return path


def draw_log(seed: int) -> EventLog:
    """A drawn log in order of arrival.

    Clocks, lengths and lateness are :mod:`perf.workloads`'; its items know nothing of each other, so they are drawn
    anew: a session browses ``SESSION_ITEMS`` items, by the same Zipf law, and each of its events is of one of these.
    """
    drawn = make_log(DRAWN, seed)
    rng = np.random.default_rng(seed)
    new = np.append(True, (drawn.user_id[1:] != drawn.user_id[:-1]) | (np.diff(drawn.visible_at) > SESSION_GAP_MS))
    begin = np.flatnonzero(new)[np.cumsum(new) - 1]  # of each event's session
    of_session = np.minimum(begin + rng.integers(0, SESSION_ITEMS, len(begin)), len(begin) - 1)
    columns = drawn.columns | {"item_id": drawn.columns["item_id"][of_session]}
    order = np.argsort(drawn.visible_at, kind="stable")
    n = len(order)
    return EventLog(
        {
            "user_id": drawn.user_id[order], "ts": drawn.ts[order], "item_id": columns["item_id"][order],
            "kind": columns["action"][order].astype(np.uint16), "added": np.zeros(n, np.int32),
            "deleted": np.zeros(n, np.int32), "binary": np.zeros(n, np.uint8),
        },
        drawn.visible_at[order], DRAWN.items, 8,
    )  # fmt: skip
