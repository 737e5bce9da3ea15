"""What does a new snapshot cost when the store has grown?

A snapshot needs every chunk's range and place. A handle that listed them a moment ago reads only the pages of keys that
changed, if its last snapshot was still open when the next one began (*follow*), and where none was, the shards that
were written to since (*none held*): against walking the trees of all shards, as a process does that has just opened the
store, and against py-lmdb's cursors, which is what other versions of LMDB get. *Snapshot* is what a user waits for: a
new snapshot, and the head of one user, while the last snapshot is open.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from perf.harness import Chart, Curve, Report, Samples, Section, Settings, interleave, run_bench
from perf.report import Cell
from perf.workloads import Workload, build_store, make_log
from uihkv import Snapshot, Store
from uihkv.listing import NewestListing
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
    known, not_held = NewestListing(), NewestListing()

    def look(newest: NewestListing, shards: list[Shard], held: bool = False) -> Callable[[], None]:
        def list_it() -> None:
            transactions = [shard.begin_read() for shard in shards]
            newest.follow(shards, transactions, newest.predecessor(shards, transactions) if held else None)
            for transaction in transactions:
                transaction.abort()

        return list_it

    def take_snapshot() -> None:
        snapshot = store.snapshot()
        snapshot.head(users[:1])
        held.append(snapshot)

    held: list[Snapshot] = []
    take_snapshot()
    look(known, shards)()
    look(not_held, shards)()
    seconds: dict[str, list[float]] = {"follow": [], "none held": [], "walk all": [], "cursors": [], "snapshot": []}
    for _ in range(settings.pick(15, 25)):
        if grown:
            _append(store, users, rng, grown)
        ways = {
            "follow": look(known, shards, held=True), "none held": look(not_held, shards),
            "walk all": look(NewestListing(), shards), "cursors": look(NewestListing(), list(by_cursor)),
            "snapshot": take_snapshot,
        }  # fmt: skip
        for name, samples in interleave(ways, repeats=1, warmup=0).seconds.items():
            seconds[name].append(samples.median)
        held.pop(0).close()
    held.pop().close()
    for shard in (*shards, *by_cursor):
        shard.close()
    took = {name: Samples(np.array(values[1:])) for name, values in seconds.items()}  # the first one finds cold caches
    return {
        "users grown": grown,
        **{f"{name}, ms": samples.scaled(1e3) for name, samples in took.items()},
        "follow over none held": Samples(took["none held"].values / took["follow"].values),
        "follow over walk": Samples(took["walk all"].values / took["follow"].values),
        "follow over cursors": Samples(took["cursors"].values / took["follow"].values),
    }


if __name__ == "__main__":
    run_bench("refresh", __doc__, measure)
