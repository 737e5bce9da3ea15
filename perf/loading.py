"""The store, the examples and the batches that the benches of the loader share.

A store of synthetic histories whose users' examples are drawn by the length of their histories, at random versions.
Batches hold about the same number of events whatever the length.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loader import ArrayExamples, Loader
from perf.harness import Settings
from perf.workloads import Log, Workload, build_store, make_log
from uihkv import Projection, Store

COLUMNS = ("ts", "item_id", "action", "dwell")

Ints = NDArray[np.int64]


class Bench:
    """The store and its examples, for all parts.

    Args:
        settings: of the run.
        shortest: events that each example sees at least, of histories twice as long; 0: lengths and versions as drawn.

    """

    def __init__(self, settings: Settings, shortest: int = 0) -> None:
        self.settings = settings
        self.repeats = settings.pick(4, 15)
        drawn = Workload(users=settings.pick(300, 1_000), mean_length=settings.pick(3_000, 12_000), tail=1.1)
        long = Workload(
            users=settings.pick(16, 64), mean_length=2 * shortest, shortest=2 * shortest, longest=2 * shortest
        )
        self.log: Log = make_log(long if shortest else drawn, settings.seed)
        self.path = settings.scratch / f"store-{shortest}"
        self.store = build_store(self.path, self.log, shards=8)
        rng = np.random.default_rng(settings.seed)
        self.user = rng.choice(len(self.log.users), settings.pick(16_384, 65_536), p=self.log.lengths / len(self.log))
        self.version = (rng.random(len(self.user)) * self.log.lengths[self.user]).astype(np.int64) + 1
        self.version = np.minimum(np.maximum(self.version, shortest), self.log.lengths[self.user])
        last = self.log.ts[self.log.offsets[self.user] + self.version - 1]
        self.columns = {
            "user_id": self.log.users[self.user], "version": self.version, "last_ts": last,
            "label": rng.random(len(self.user)).astype(np.float32),
        }  # fmt: skip
        self.examples = ArrayExamples(self.columns)

    def loader(self, length: int, store: Store | None = None, **options: Any) -> Loader:
        """A loader of histories of that length, with batches of about the same number of events."""
        if "tenants" not in options:
            options["projection"] = Projection(COLUMNS, length)
        examples = options.pop("examples", self.examples)
        return Loader(store or self.store, examples, **{"batch_size": batch_size(length), **options})


def batch_size(length: int) -> int:
    """Examples a batch: 512 of short histories, fewer of long ones."""
    return max(16, min(512, (1 << 20) // length))


def take(batches: Iterator[Any], number: int) -> None:
    """Take some batches, and leave the pass."""
    for _ in islice(batches, number):
        pass
    close = getattr(batches, "close", None)
    if close is not None:
        close()
