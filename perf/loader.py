"""Does the training step ever wait for the loader, and what does each of its means bring?

All on one store of synthetic histories, page cache warm where nothing else is said, ratios within one run:

- *delivery*, *wait*, *interference*: :mod:`perf.pace`;
- *affinity*, *dedup*, *tenants*: each on against off, as time, bytes and hits.

What others cost is asked by :mod:`perf.feeders`, whether it endures by :mod:`perf.endurance`.

Nothing here runs on a GPU: copies to a device under running kernels have not been measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from loader import Loader
from loader.order import permute_examples
from perf.harness import Report, Section, Settings, interleave, run_bench
from perf.loading import COLUMNS, Bench, take
from perf.pace import measure_pace
from perf.report import Cell
from uihkv import Projection

TENANTS = {
    "ranker": Projection(COLUMNS, 4096),
    "early": Projection(("ts", "item_id", "action"), 1024),
    "retrieval": Projection(("item_id",), 256),
}


def take_each(loaders: Sequence[Loader], number: int) -> None:
    """Take some batches of each loader, one loader after the other."""
    for loader in loaders:
        take(iter(loader), number)


def measure(settings: Settings) -> Report:
    """All parts."""
    bench = Bench(settings)
    report = Report()
    with bench.store:
        for part in (measure_pace, _means):
            part(bench, report)
    report.notes.append("No GPU: side-stream copies are written and not measured.")
    return report


def _means(bench: Bench, report: Report) -> None:
    """Affinity, dedup and tenants, each on against off."""
    size, number = 128, bench.settings.pick(14, 60)
    variants: dict[str, list[Loader]] = {
        "plain": [bench.loader(4096, batch_size=size)],
        "affinity 2048": [bench.loader(4096, batch_size=size, affinity_window=2048)],
        "dedup": [bench.loader(4096, batch_size=size, dedup=True)],
        "affinity + dedup": [bench.loader(4096, batch_size=size, affinity_window=2048, dedup=True)],
        "tenants apart": [bench.loader(4096, batch_size=size, tenants={name: its}) for name, its in TENANTS.items()],
        "tenants shared": [bench.loader(4096, batch_size=size, tenants=TENANTS)],
        "tenants shared + dedup": [bench.loader(4096, batch_size=size, tenants=TENANTS, dedup=True)],
    }
    ways: dict[str, Callable[[], object]] = {
        name: partial(take_each, loaders, number) for name, loaders in variants.items()
    }
    compared = interleave(ways, bench.repeats, baseline="plain")
    report.facts["means"] = compared.describe()
    rows: list[dict[str, Cell]] = []
    for name, loaders in variants.items():
        stats = []
        for loader in loaders:
            take(iter(loader), number)
            stats.append(loader.stats())
        base = "tenants apart" if name.startswith("tenants") else "plain"
        asked = sum(its.chunks_asked for its in stats)
        rows.append(
            {
                "way": name, "over": base, "speed": compared.speedup(name, base),
                "MB to the device": sum(its.bytes for its in stats) / 1e6,
                "MB saved": sum(its.bytes_saved for its in stats) / 1e6,
                "MB read": sum(its.bytes_read for its in stats) / 1e6,
                "chunk hits": 1 - sum(its.chunks_read for its in stats) / asked if asked else None,
            }
        )  # fmt: skip
    report.sections.append(Section(f"Means: {number} batches of {size}, up to 4,096 events", rows))
    report.sections.append(Section("Randomness: an order with affinity against a drawn one", _randomness(bench, size)))


def _randomness(bench: Bench, size: int) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    n = len(bench.examples)
    drawn = permute_examples(n, 0, 0)
    place = np.empty(n, np.int64)
    place[drawn] = np.arange(n)
    for window in (None, 512, 2048, n):
        with bench.loader(256, batch_size=size, affinity_window=window) as loader:
            batches = list(loader)
        users = [len(np.unique(batch.pointers.user_id)) / len(batch) for batch in batches]
        ids = np.concatenate([batch.pointers.user_id for batch in batches])
        labels = np.concatenate([batch.examples["label"].numpy() for batch in batches])
        order = np.argsort(bench.columns["label"], kind="stable")
        index = order[np.searchsorted(bench.columns["label"][order], labels)]
        rows.append(
            {
                "window": window or 0, "users of a batch's examples": float(np.mean(users)),
                "neighbours of one user": float(np.mean(ids[1:] == ids[:-1])),
                "mean shift, of the epoch": float(np.abs(place[index] - np.arange(len(index))).mean() / n),
            }
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    run_bench("loader", __doc__, measure)
