"""What does a new snapshot cost when the store has grown, and what does it cost the appends?

A snapshot needs to know every chunk. A handle that knew them a moment ago looks again only at users whose keys changed:
against listing all keys, as a process does that has just opened the store. The list of changed users that makes this
possible is written with every append: appends with it against appends without, of one event and of many users, in
seconds and in pages that a commit writes (on Linux, ``write_bytes``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from perf.harness import Counters, Report, Samples, Section, Settings, interleave, run_bench
from perf.report import Cell
from perf.workloads import Workload, build_store, make_log
from uihkv import Store
from uihkv.refresh import NewestListing
from uihkv.shard import Shard

GROWN = (0, 10, 100, 1000)


def measure(settings: Settings) -> Report:
    """Time snapshots after appends to few and many users, and the appends."""
    users = settings.pick(40_000, 400_000)
    log = make_log(Workload(users=users, mean_length=settings.pick(60, 200), longest=8192), settings.seed)
    with build_store(settings.scratch / "store", log, shards=8, chunk_events=16) as store:
        stats = store.stats()
        follow = [_follow(store, log.users, grown, settings) for grown in GROWN]
        writes = [_writes(store, log.users, many, settings) for many in (1, 100)]
    keys = f"{stats.users:,} users, {stats.chunks:,} chunks, 8 shards"
    return Report(
        sections=[Section(f"The listing of a snapshot, after so many users grew ({keys})", follow),
                  Section("An append, with the list of changed users against without", writes)],
        facts={"users": stats.users, "chunks": stats.chunks},
    )  # fmt: skip


def _append(store: Store, users: np.ndarray, rng: np.random.Generator, many: int) -> None:
    some = rng.choice(users, many, replace=False)
    clock = np.full(many, 1_900_000_000_000)
    zeros = {name: np.zeros(many, store.schema[name].numpy_dtype) for name in store.schema.names}
    store.append({"user_id": some, "ts": clock, **zeros}, backfill=True)


def _follow(store: Store, users: np.ndarray, grown: int, settings: Settings) -> dict[str, Cell]:
    rng = np.random.default_rng([settings.seed, grown])
    shards = [store._shard(number) for number in range(store.shards)]
    known = NewestListing()

    def look(newest: NewestListing) -> None:
        transactions = [shard.begin_read() for shard in shards]
        newest.follow(shards, transactions)
        for transaction in transactions:
            transaction.abort()

    look(known)
    seconds: dict[str, list[float]] = {"follow": [], "list all": []}
    for _ in range(settings.pick(7, 25)):
        if grown:
            _append(store, users, rng, grown)
        compared = interleave(
            {"follow": lambda: look(known), "list all": lambda: look(NewestListing())}, repeats=1, warmup=0
        )
        for name, samples in compared.seconds.items():
            seconds[name].append(samples.median)
    follow, everything = (Samples(np.array(values)) for values in seconds.values())
    return {
        "users grown": grown, "follow, ms": follow.scaled(1e3), "list all, ms": everything.scaled(1e3),
        "speed-up": Samples(everything.values / follow.values),
    }  # fmt: skip


def _writes(store: Store, users: np.ndarray, many: int, settings: Settings) -> dict[str, Cell]:
    rng = np.random.default_rng([settings.seed, many])
    written: dict[str, list[float]] = {"with": [], "without": []}

    def run(name: str) -> Callable[[], None]:
        def append() -> None:
            with _noting(name == "with"):
                before = Counters.now()
                _append(store, users, rng, many)
                written[name].append((Counters.now() - before).write_bytes / os.sysconf("SC_PAGE_SIZE"))

        return append

    compared = interleave(
        {"without": run("without"), "with": run("with")}, repeats=settings.pick(300, 1500), baseline="without"
    )
    return {
        "users an append": many, "with, ms": compared.seconds["with"].scaled(1e3),
        "time of without": Samples(1 / compared.speedup("with").values),
        "pages with": float(np.mean(written["with"])), "pages without": float(np.mean(written["without"])),
    }  # fmt: skip


@contextmanager
def _noting(on: bool) -> Iterator[None]:
    kept = Shard.note_change
    if not on:
        Shard.note_change = lambda *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Shard.note_change = kept  # type: ignore[method-assign]


if __name__ == "__main__":
    run_bench("refresh", __doc__, measure)
