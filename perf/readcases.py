"""What :mod:`perf.read` reads: stores of users of one length, batches of examples, and the same windows as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perf import rivals
from perf.harness import Comparison, Samples, Settings
from perf.workloads import Log, Workload, build_store, make_log
from uihkv import Pointers, Projection, Snapshot, Store

LENGTHS = (128, 1024, 8192, 65_536)
ALL = ("ts", "item_id", "action", "surface", "dwell")
TWO = ("item_id", "action")
COMPRESSIONS = ("none", "lz4")
ORDERS = ("random", "clustered")
CASES = (("random", "zipf"), ("clustered", "zipf"), ("random", "uniform"))
"""Order of the examples, and values of the columns."""
CLUSTER = 16
BATCH = 1024
BATCH_EVENTS = 1 << 20
LOG_EVENTS = 2 << 20


@dataclass(slots=True)
class Bench:
    """What is read at one length.

    Attributes:
        length: events of each window.
        values: of the log's columns.
        log: where they are from.
        stores: by compression.

    """

    length: int
    values: str
    log: Log
    stores: dict[str, Path]

    def draw(self, order: str, seed: int) -> tuple[Pointers, rivals.Windows]:
        """A batch of examples: pointers, and the same windows of the log."""
        rng = np.random.default_rng([seed, self.length])
        count = max(2 * CLUSTER, min(BATCH, BATCH_EVENTS // self.length))
        if order == "clustered":
            user = np.repeat(rng.integers(0, len(self.log.users), count // CLUSTER), CLUSTER)
        else:
            user = rng.integers(0, len(self.log.users), count)
        room = self.log.lengths[user] - self.length
        version = self.length + (rng.random(len(user)) * (room + 1)).astype(np.int64)
        high = self.log.offsets[user] + version
        pointers = Pointers(self.log.users[user], version, self.log.ts[high - 1])
        return pointers, rivals.Windows(self.log.readable, high - self.length, high)


def prepare(length: int, values: Any, settings: Settings) -> Bench:
    users = max(2 * CLUSTER, settings.pick(1, 8) * LOG_EVENTS * 2 // (3 * length))
    workload = Workload(users=users, mean_length=length * 3 // 2, shortest=length, longest=2 * length, values=values)
    log = make_log(workload, settings.seed)
    stores = {}
    for compression in COMPRESSIONS:
        stores[compression] = settings.scratch / f"{values}-{compression}-{length}"
        build_store(stores[compression], log, shards=4, compression=compression).close()
    return Bench(length, values, log, stores)


def share_of_raw(bench: Bench) -> dict[str, float]:
    """Bytes of the store's files over those of the log's columns, visible times included."""
    raw = len(bench.log) * (bench.log.event_bytes + 8)
    return {
        name: sum(file.stat().st_size for file in path.glob("shards/*/data.mdb")) / raw
        for name, path in bench.stores.items()
    }


@contextmanager
def open_view(bench: Bench, compression: str, **how: Any) -> Iterator[Snapshot]:
    verify = how.pop("verify", "once")
    with Store.open(bench.stores[compression], readonly=True, **how) as store, store.snapshot(verify=verify) as view:
        yield view


def read_again(view: Snapshot, pointers: Pointers, projection: Projection) -> Callable[[], object]:
    last = view.read(pointers, projection)

    def read() -> None:
        nonlocal last
        last = view.read(pointers, projection, out=last)

    return read


def microseconds(compared: Comparison, name: str, examples: int) -> Samples:
    return compared.seconds[name].scaled(1e6 / examples)


def check_columns(view: Snapshot, pointers: Pointers, projection: Projection, windows: rivals.Windows) -> None:
    found = view.read(pointers, projection)
    for name in found.columns:
        if not np.array_equal(found.values(name), windows.gather(name)):
            raise RuntimeError(f"column {name!r} read from the store differs from the log")
