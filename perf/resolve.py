"""How many pointers a second does resolving give, against ASOF joins of DuckDB and Polars?

The same requests (a user and a moment, taken at random events) are resolved in a store and joined with the same log by
DuckDB's ``ASOF JOIN`` and Polars' ``join_asof``, strictly before the moment, on visible time. What they have to do is
made easy: tables in memory and sorted, ties already cut down to the newest, the version precomputed as a column, all
cores. Ours reads compressed chunks with one thread, and gives ``last_ts`` too; "cold" is the first resolve of a new
snapshot. All three give the same versions, or the bench fails. Peers that are not installed are left out, with the
reason.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from perf.harness import Chart, Comparison, Curve, Report, Samples, Section, Settings, interleave, run_bench
from perf.peers import ASOF_PEERS, AsofPeers, why_missing
from perf.report import Cell
from perf.workloads import Log, Workload, build_store, make_log
from uihkv import Snapshot, Store


def measure(settings: Settings) -> Report:
    """Resolve and join the same requests."""
    log = make_log(Workload(users=settings.pick(3_000, 10_000), mean_length=1_000, late=0.2), settings.seed)
    missing = why_missing()
    rows: list[dict[str, Cell]] = []
    facts: dict[str, object] = {"events": len(log), "peers": missing or "in this run"}
    rates: dict[str, list[Samples]] = {}
    counts = settings.pick((10_000, 100_000, 1_000_000), (10_000, 100_000, 1_000_000, 5_000_000))
    with build_store(settings.scratch / "store", log) as store:
        for count in counts:
            compared = _compare(settings, store, log, count, missing is None)
            facts[str(count)] = compared.describe()
            row: dict[str, Cell] = {"requests": count}
            for name, seconds in compared.seconds.items():
                rate = Samples(count / seconds.values / 1e6)
                rates.setdefault(name, []).append(rate)
                row[f"{name}, M/s"] = rate
            for peer in ASOF_PEERS if missing is None else ():
                row[f"over {peer}"] = compared.speedup("resolve", over=peer)
            rows.append(row)
    title = f"Requests resolved, {len(log):,} events" + (f"; no peers: {missing}" if missing else "")
    curves = [Curve(name, list(counts), samples) for name, samples in rates.items()]
    chart = Chart("pointers resolved", "requests", "million a second", curves, log_x=True)
    return Report(sections=[Section(title, rows)], charts=[chart], facts=facts)


def _compare(settings: Settings, store: Store, log: Log, count: int, peers: bool) -> Comparison:
    rng = np.random.default_rng([settings.seed, count])
    event = rng.integers(0, len(log), count)
    users, moments = log.user_id[event], log.visible_at[event]
    version = np.arange(len(log)) - np.repeat(log.offsets[:-1], log.lengths) + 1
    with ExitStack() as stack:
        snapshot: Snapshot = stack.enter_context(store.snapshot())
        expected = snapshot.resolve(users, moments).version

        def cold() -> None:
            with store.snapshot() as fresh:
                fresh.resolve(users, moments)

        ways: dict[str, Callable[[], object]] = {"resolve": lambda: snapshot.resolve(users, moments), "cold": cold}
        if peers:
            joined = stack.enter_context(
                AsofPeers(settings.scratch / "peers", (log.user_id, log.visible_at, version), (users, moments))
            )
            for peer in ASOF_PEERS:
                if not np.array_equal(joined.values(peer), expected):
                    raise RuntimeError(f"{peer} and resolve give other versions")
            ways |= {peer: _joining(joined, peer) for peer in ASOF_PEERS}
        return interleave(ways, repeats=settings.pick(5, 15), baseline="resolve")


def _joining(peers: AsofPeers, peer: str) -> Callable[[], float]:
    return lambda: peers.join(peer)


if __name__ == "__main__":
    run_bench("resolve", __doc__, measure)
