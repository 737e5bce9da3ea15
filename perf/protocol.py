"""Does what is trained on equal what was served, and what do joins on event time make of the same requests?

A log is written, served from, compacted and trained on at once (:mod:`perf.protocol_run`): commits with a random lag,
late events, batches that come twice, writers killed in the middle of an append, snapshots of several ages. Every
request's sequence is then rebuilt in several ways and compared with what was served:

- its logged pointer, streamed: by a trainer in another process, while the writer goes on;
- its logged pointer, in batches: at the end, in another order, from the compacted store;
- its user and moment, resolved by visible time: without delay, and with the least delay under which nothing leaks, as
  ``uihkv audit`` finds it;
- an ASOF join on ``ts``, strictly before the moment, by DuckDB and Polars where they are installed;
- a point-in-time join on ``ts``, up to and at the moment, as feature stores make it; and the same of those rows only
  that were created by then;
- Feast itself, where it is installed, on a sample of the requests, with its opt-in ``filter_by_created_timestamp`` and
  without: the joined row is an event with the history up to it, as a fat row has it.

Pointers are compared by digests of the newest 64 events, the joins by the sets of events that they name. An event
*leaks* that the request had not seen, and is *missing* when it had.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loader.demo.eventlog import SCHEMA as DEMO_SCHEMA
from loader.demo.eventlog import copy_log
from perf.harness import Chart, Curve, Report, Section, Settings, run_bench
from perf.peers import (
    ASOF_PEERS,
    FEAST_INTERPRETER,
    AsofPeers,
    audit_with_timefence,
    join_with_feast,
    why_missing,
)
from perf.protocol_run import ArrivingLog, RunResult, count_leaks, digest_window, run_protocol
from perf.report import Cell
from perf.workloads import Workload, make_log
from uihkv import Store
from uihkv.audit import Audit

Int64s = NDArray[np.int64]

REAL_LOGS = Path(__file__).parents[2] / "shared" / "data"
_READ_ROWS = 1 << 14
_FEAST_SAMPLE = 2_000
"""Its join pairs every request with all earlier events before it picks one."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One way of rebuilding, against what was served.

    Attributes:
        examples: how many were rebuilt.
        differ: examples that differ.
        leak: examples with events that the request had not seen.
        leaked, missing: such events, and events that the request had seen and that are not there, over all examples.

    """

    examples: int
    differ: int
    leak: int
    leaked: int
    missing: int

    @classmethod
    def of_events(cls, leaked: Int64s, missing: Int64s) -> _Outcome:
        """Of events too many and too few: int64[examples] each."""
        differ = int(np.count_nonzero((leaked > 0) | (missing > 0)))
        return cls(len(leaked), differ, int(np.count_nonzero(leaked)), int(leaked.sum()), int(missing.sum()))

    @classmethod
    def of_versions(cls, found: Int64s, served: Int64s) -> _Outcome:
        """Of prefixes: int64[examples] each."""
        return cls.of_events(np.maximum(found - served, 0), np.maximum(served - found, 0))


def measure(settings: Settings) -> Report:
    """Run the protocol on a drawn log and on the real ones."""
    sections, charts, facts, notes = [], [], {}, []
    for name, log, requests in _logs(settings):
        with tempfile.TemporaryDirectory(dir=settings.scratch) as folder:
            path = Path(folder) / "store"
            batches = settings.pick(150, 400)
            run = run_protocol(path, log, batches=batches, requests=requests, seed=settings.seed)
            ways, delay = _rebuild(path, Path(folder), log, run)
            if why_missing(("feast", "ibis"), FEAST_INTERPRETER) is None:
                ways |= _ask_feast(Path(folder), log, run, settings.seed)
            audited = None
            if why_missing(("timefence",), FEAST_INTERPRETER) is None:
                audited = _ask_timefence(Path(folder), log, run)
                leak = next(outcome.leak for way, outcome in ways.items() if way.startswith("ASOF join on ts"))
                notes.append(
                    f"{name}: of the {leak:,} examples that the join on ts makes leak, Timefence's audit finds "
                    f"{audited['ts']:,} by ts, and {audited['visible time']:,} where it is given visible times"
                )
        rows = [_row(way, outcome) for way, outcome in ways.items()]
        title = (
            f"{name}: {len(log):,} events, {len(run.pointers):,} requests; {run.crashes} writers killed, {run.torn} of "
            f"them between shards, {run.replayed:,} events came again"
        )
        sections.append(Section(title, rows))
        facts[name] = {
            "trainer": run.trainer,
            "least_delay_ms": delay,
            "peers": why_missing() or "in this run",
            "feast": why_missing(("feast", "ibis"), FEAST_INTERPRETER) or "in this run",
            "timefence": audited or why_missing(("timefence",), FEAST_INTERPRETER),
        }
        names = list(ways)
        shares = [outcome.leak / outcome.examples for outcome in ways.values()]
        other = [outcome.differ / outcome.examples for outcome in ways.values()]
        curves = [Curve("leak", names, shares), Curve("differ", names, other)]
        charts.append(Chart(f"{name}: share of examples", "", "share", curves, kind="bars"))
    return Report(sections=sections, charts=charts, facts=facts, notes=notes)


def _row(way: str, outcome: _Outcome) -> dict[str, Cell]:
    return {
        "rebuilt by": way, "of": outcome.examples, "differ": outcome.differ, "leak": outcome.leak,
        "events leaked": outcome.leaked, "missing": outcome.missing,
    }  # fmt: skip


def _ask_feast(folder: Path, log: ArrivingLog, run: RunResult, seed: int) -> dict[str, _Outcome]:
    """Feast's joins of a sample of the requests."""
    rows = np.sort(np.random.default_rng(seed).choice(len(run.pointers), _FEAST_SAMPLE, replace=False))
    users, as_of, served = run.pointers.user_id[rows], run.as_of[rows], run.pointers.version[rows]
    assert users.dtype == np.int64  # the logs' ids
    user = log.columns["user_id"]
    order = np.argsort(user, kind="stable")
    _, first, counts = np.unique(user[order], return_index=True, return_counts=True)
    upto = np.empty(len(user), np.int64)
    upto[order] = np.arange(1, len(user) + 1) - np.repeat(first, counts)
    events = (user, log.columns["ts"], run.visible_at, upto)
    plain, created = join_with_feast(folder / "feast", events, (users, as_of))
    return {
        "Feast": _Outcome.of_versions(plain, served),
        "Feast, filter by created": _Outcome.of_versions(created, served),
    }


def _ask_timefence(folder: Path, log: ArrivingLog, run: RunResult) -> dict[str, int]:
    """Timefence's audit of a join on ``ts``, by either clock; how late a serving snapshot was it cannot see."""
    by_ts = _TimeOrder(log)
    users = run.pointers.user_id
    count = by_ts.count(users, run.as_of, "left")
    newest_ts = by_ts.greatest(users, count, by_ts.ts)
    newest_visible = by_ts.greatest(users, count, run.visible_at[by_ts.row])
    return audit_with_timefence(folder / "timefence", users, run.as_of, newest_ts, newest_visible)


def _rebuild(path: Path, folder: Path, log: ArrivingLog, run: RunResult) -> tuple[dict[str, _Outcome], int]:
    """Every way of rebuilding the requests' sequences, and the least delay without leakage."""
    users, served = run.pointers.user_id, run.pointers.version
    n, trainer = len(users), run.trainer
    if trainer["examples"] != n:
        raise RuntimeError(f"the trainer got {trainer['examples']} of {n} examples")
    leaked = trainer["leaked"]
    ways = {"logged pointer, streamed": _Outcome(n, trainer["different"], min(leaked, n), leaked, 0)}
    with Store.open(path, readonly=True) as store, store.snapshot() as snapshot:
        order = np.random.default_rng(0).permutation(n)
        differ = leaked = 0
        audit = Audit(snapshot)
        for first in range(0, n, _READ_ROWS):
            rows = order[first : first + _READ_ROWS]
            digest, offsets, visible = digest_window(snapshot, run.pointers[rows])
            differ += int(np.count_nonzero(digest != run.served[rows]))
            leaked += count_leaks(offsets, visible, run.as_of[rows])
            audit.add(run.pointers[rows], run.as_of[rows])
        ways["logged pointer, batches"] = _Outcome(n, differ, min(leaked, n), leaked, 0)
        delay = audit.report().delays[0].delay
        for way, moved in (("resolved", 0), ("resolved, least delay", delay)):
            found = snapshot.resolve(users, run.as_of, moved).version
            ways[way] = _Outcome.of_versions(found, served)
        created = snapshot.resolve(users, run.as_of + 1).version
    by_ts = _TimeOrder(log)
    strict = by_ts.count(users, run.as_of, "left")
    way = "ASOF join on ts"
    if why_missing() is None:
        way = "ASOF join on ts (DuckDB, Polars)"
        for peer, joined in _join(folder, by_ts, users, run.as_of).items():
            if not np.array_equal(joined, strict):
                raise RuntimeError(f"{peer}'s join on ts gives other events than ours")
    ways[way] = by_ts.compare(users, strict, served)
    upto = by_ts.count(users, run.as_of, "right")
    ways["point in time on ts"] = by_ts.compare(users, upto, served)
    ways["the same, created by then"] = by_ts.compare(users, upto, served, created)
    return ways, delay


class _TimeOrder:
    """Every user's events by ``ts``: what a join on event time sees."""

    def __init__(self, log: ArrivingLog) -> None:
        user, ts = log.columns["user_id"], log.columns["ts"]
        by_user = np.argsort(user, kind="stable")
        self.users, first, counts = np.unique(user[by_user], return_index=True, return_counts=True)
        version = np.empty(len(user), np.int64)
        version[by_user] = np.arange(len(user)) - np.repeat(first, counts)
        order = np.lexsort((version, ts, user))
        self.bounds = np.append(first, len(user))
        self.row, self.user, self.ts, self.version = order, user[order], ts[order], version[order]

    def count(self, users: Int64s, moments: Int64s, side: str) -> Int64s:
        """How many events of each user have a ``ts`` before (left), or not after (right), the moment."""
        found = np.zeros(len(users), np.int64)
        self._by_user(users, lambda mine, low, high: _put(
            found, mine, np.searchsorted(self.ts[low:high], moments[mine], side=side)  # type: ignore[call-overload]
        ))  # fmt: skip
        return found

    def greatest(self, users: Int64s, count: Int64s, values: Int64s) -> Int64s:
        """Greatest value among each user's first ``count`` events by ``ts``; -1 where there is none."""
        found = np.full(len(users), -1, np.int64)

        def look(mine: Int64s, low: int, high: int) -> None:
            running = np.append(np.int64(-1), np.maximum.accumulate(values[low:high]))
            found[mine] = running[count[mine]]

        self._by_user(users, look)
        return found

    def compare(self, users: Int64s, count: Int64s, served: Int64s, created: Int64s | None = None) -> _Outcome:
        """Each user's first ``count`` events by ``ts``, of these those below ``created``, against what was seen."""
        leaked, kept = np.zeros(len(users), np.int64), np.zeros(len(users), np.int64)

        def compare(mine: Int64s, low: int, high: int) -> None:
            versions = self.version[low:high]
            for row in mine.tolist():
                named = versions[: count[row]]
                if created is not None:
                    named = named[named < created[row]]
                kept[row] = np.count_nonzero(named < served[row])
                leaked[row] = len(named) - kept[row]

        self._by_user(users, compare)
        return _Outcome.of_events(leaked, served - kept)

    def _by_user(self, users: Int64s, do: Callable[[Int64s, int, int], None]) -> None:
        order = np.argsort(users, kind="stable")
        some, first = np.unique(users[order], return_index=True)
        for user, mine in zip(some.tolist(), np.split(order, first[1:]), strict=True):
            at = int(np.searchsorted(self.users, user))
            do(mine, int(self.bounds[at]), int(self.bounds[at + 1]))


def _put(target: Int64s, rows: Int64s, values: Int64s) -> None:
    target[rows] = values


def _join(folder: Path, by_ts: _TimeOrder, users: Int64s, as_of: Int64s) -> dict[str, Int64s]:
    """How many events each peer's strict ASOF join on ``ts`` lets a request see."""
    place = np.arange(len(by_ts.user)) - np.repeat(by_ts.bounds[:-1], np.diff(by_ts.bounds)) + 1
    with AsofPeers(folder / "peers", (by_ts.user, by_ts.ts, place), (users, as_of)) as peers:
        return {peer: peers.values(peer) for peer in ASOF_PEERS}


def _logs(settings: Settings) -> list[tuple[str, ArrivingLog, int]]:
    requests = settings.pick(100_000, 1_000_000)
    drawn = make_log(
        Workload(users=settings.pick(2_000, 10_000), mean_length=settings.pick(150, 400), late=0.2), settings.seed
    ).in_arrival_order()
    columns = {"user_id": drawn.user_id, "ts": drawn.ts, **drawn.columns}
    logs = [("drawn", ArrivingLog(drawn.schema, columns, drawn.visible_at), requests)]
    shipped = copy_log(settings.scratch / "ansible.parquet")
    for name, path in (("ansible", shipped), ("git", REAL_LOGS / "git-events.parquet")):
        if path.exists():
            table = pq.read_table(path)
            columns = {one: table.column(one).to_numpy() for one in ("user_id", "ts", *DEMO_SCHEMA.names)}
            logs.append((name, ArrivingLog(DEMO_SCHEMA, columns, table.column("arrived_at").to_numpy()), requests // 2))
    return logs


if __name__ == "__main__":
    run_bench("protocol", __doc__, measure)
