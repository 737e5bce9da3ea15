"""What does a new snapshot cost when the store has grown?

A snapshot needs every chunk's range and place. A handle that listed them a moment ago lists only the shards that were
written to since, by walking the pages of LMDB's trees: against walking all of them, as a process does that has just
opened the store, and against py-lmdb's cursors, which is what other versions of LMDB get.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from perf.harness import Chart, Curve, Report, Samples, Section, Settings, interleave, run_bench
from perf.report import Cell
from perf.workloads import Workload, build_store, make_log
from uihkv import Store
from uihkv.directory import NewestListing
from uihkv.shard import Shard

SHARDS = 16
GROWN = (0, 1, 4, 1000)


class _ByCursor(Shard):
    """A shard whose keys are listed by LMDB's cursors."""

    list_values = Shard.list_keys


def measure(settings: Settings) -> Report:
    """Time listings after appends to few and many users."""
    users = settings.pick(60_000, 600_000)
    log = make_log(Workload(users=users, mean_length=settings.pick(100, 200), longest=8192), settings.seed)
    with build_store(settings.scratch / "store", log, shards=SHARDS, chunk_events=16) as store:
        stats = store.stats()
        rows = [_follow(store, log.users, grown, settings) for grown in GROWN]
    keys = f"{stats.users:,} users, {stats.chunks:,} chunks, {SHARDS} shards"
    ways = [name for name in rows[0] if name.endswith(", ms")]
    curves = [
        Curve(name.removesuffix(", ms"), [str(grown) for grown in GROWN], [_samples(row[name]) for row in rows])
        for name in ways
    ]
    return Report(
        charts=[Chart("Listing of a snapshot", "users that grew", "ms", curves, kind="bars", log_y=True)],
        sections=[Section(f"The listing of a snapshot, after so many users grew ({keys})", rows)],
        facts={"users": stats.users, "chunks": stats.chunks, "shards": SHARDS},
    )


def _samples(value: Cell) -> Samples:
    assert isinstance(value, Samples)  # a time of several repetitions
    return value


def _append(store: Store, users: np.ndarray, rng: np.random.Generator, many: int) -> None:
    some = rng.choice(users, many, replace=False)
    zeros = {name: np.zeros(many, store.schema[name].numpy_dtype) for name in store.schema.names}
    store.append({"user_id": some, "ts": np.full(many, 1_900_000_000_000), **zeros}, backfill=True)


def _follow(store: Store, users: np.ndarray, grown: int, settings: Settings) -> dict[str, Cell]:
    rng = np.random.default_rng([settings.seed, grown])
    numbers = range(store.shards)
    shards = [Shard(store.path / "shards" / f"{number:04d}", number) for number in numbers]
    by_cursor = [_ByCursor(store.path / "shards" / f"{number:04d}", number) for number in numbers]
    known = NewestListing()

    def look(newest: NewestListing, shards: list[Shard]) -> Callable[[], None]:
        def list_it() -> None:
            transactions = [shard.begin_read() for shard in shards]
            newest.follow(shards, transactions)
            for transaction in transactions:
                transaction.abort()

        return list_it

    look(known, shards)()
    seconds: dict[str, list[float]] = {"follow": [], "walk all": [], "cursors": []}
    for _ in range(settings.pick(7, 25)):
        if grown:
            _append(store, users, rng, grown)
        ways = {
            "follow": look(known, shards), "walk all": look(NewestListing(), shards),
            "cursors": look(NewestListing(), list(by_cursor)),
        }  # fmt: skip
        for name, samples in interleave(ways, repeats=1, warmup=0).seconds.items():
            seconds[name].append(samples.median)
    for shard in (*shards, *by_cursor):
        shard.close()
    took = {name: Samples(np.array(values)) for name, values in seconds.items()}
    return {
        "users grown": grown,
        **{f"{name}, ms": samples.scaled(1e3) for name, samples in took.items()},
        "follow over walk": Samples(took["walk all"].values / took["follow"].values),
        "follow over cursors": Samples(took["cursors"].values / took["follow"].values),
    }


if __name__ == "__main__":
    run_bench("refresh", __doc__, measure)
