"""Does the training step ever wait for the loader, and what does each of its means bring?

All on one store of synthetic histories, page cache warm where nothing else is said, ratios within one run:

- *delivery*: the loader, with and without worker processes, against bare ``snapshot.read`` of the same pointers;
- *wait*: share of the time that a step of 1.25 times the loader's own time per batch waits, warm and with pages
  dropped; the step sleeps, as a host does whose accelerator works;
- *interference*: how much longer a computing step takes beside a running loader than on cached batches;
- *affinity*, *dedup*, *tenants*: each on against off, as time, bytes and hits.

What others cost is asked by :mod:`perf.feeders`, whether it endures by :mod:`perf.endurance`.

Nothing here runs on a GPU: copies to a device under running kernels have not been measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch

from loader import Batch, Loader
from loader.order import permute_examples
from perf.cold import drop_pages
from perf.harness import Report, Samples, Section, Settings, interleave, run_bench
from perf.loading import COLUMNS, Bench, Ints, batch_size, take
from perf.report import Cell
from uihkv import Projection, Store

TENANTS = {
    "ranker": Projection(COLUMNS, 4096),
    "early": Projection(("ts", "item_id", "action"), 1024),
    "retrieval": Projection(("item_id",), 256),
}
STEP = 1.25
FIRST = 20


def take_each(loaders: Sequence[Loader], number: int) -> None:
    """Take some batches of each loader, one loader after the other."""
    for loader in loaders:
        take(iter(loader), number)


def measure(settings: Settings) -> Report:
    """All parts."""
    bench = Bench(settings)
    report = Report()
    with bench.store:
        for part in (_deliver, _wait, _interfere, _means):
            part(bench, report)
    report.notes.append("No GPU: side-stream copies are written and not measured.")
    return report


def _deliver(bench: Bench, report: Report) -> None:
    rows: list[dict[str, Cell]] = []
    for length in bench.settings.pick((256, 4096), (256, 4096, 65_536)):
        number = len(bench.examples) // batch_size(length)  # whole epochs: nothing is made ahead for nobody
        loaders = {f"workers {n}": bench.loader(length, num_workers=n, prefetch=4) for n in (0, 1, 2)}
        order, size = permute_examples(len(bench.examples), 0, 0), batch_size(length)
        projection = Projection(COLUMNS, length)

        def bare(order: Ints = order, size: int = size, number: int = number, its: Projection = projection) -> None:
            with bench.store.snapshot() as snapshot:
                for first in range(0, number * size, size):
                    snapshot.read(bench.examples.take(order[first : first + size])[0], its)

        ways: dict[str, Callable[[], object]] = {"bare": bare}
        for name, loader in loaders.items():
            ways[name] = lambda loader=loader, number=number: take(iter(loader), number)  # type: ignore[misc]
        compared = interleave(ways, bench.repeats, baseline="bare", warmup=1)
        report.facts[f"deliver-{length}"] = compared.describe()
        rows.append(
            {
                "length": length, "batch": size, "loader of bare": compared.speedup("workers 0"),
                "1 worker of bare": compared.speedup("workers 1"),
                "2 workers over none": compared.speedup("workers 2", "workers 0"),
                "2 workers over 1": compared.speedup("workers 2", "workers 1"),
            }
        )  # fmt: skip
        for loader in loaders.values():
            loader.close()
    report.sections.append(
        Section("Delivery: batches a second over those of bare snapshot.read (threads share the cores)", rows)
    )


def _wait(bench: Bench, report: Report) -> None:
    rows: list[dict[str, Cell]] = []
    steps = bench.settings.pick(60, 300)
    for length in bench.settings.pick((256, 4096), (256, 4096, 65_536)):
        for pages in ("warm", "cold"):
            for workers in (0, 1):
                if pages == "cold":
                    drop_pages(bench.path)
                with (
                    Store.open(bench.path, readonly=True) as store,
                    bench.loader(length, store, num_workers=workers) as loader,
                ):
                    # Its own time, a batch: of those after the first, which waits for processes to start.
                    own_s = sum(_steps(loader, 0.0, steps // 2)[1:]) / (steps // 2 - 1)
                if pages == "cold":
                    drop_pages(bench.path)
                with (
                    Store.open(bench.path, readonly=True) as store,
                    bench.loader(length, store, num_workers=workers) as loader,
                ):
                    waits = _steps(loader, STEP * own_s, steps)
                rows.append(
                    {
                        "length": length, "pages": pages, "workers": workers, "step ms": own_s * STEP * 1e3,
                        "wait %": 100 * _share(waits[1:], STEP * own_s),
                        "first 20 steps %": 100 * _share(waits[1 : FIRST + 1], STEP * own_s),
                        "first batch ms": waits[0] * 1e3,
                    }
                )  # fmt: skip
    report.sections.append(Section("Share of the time that a step of 1.25 times the loader's own waits", rows))


def _steps(loader: Loader, step_s: float, steps: int) -> list[float]:
    """Seconds that each of some steps waited for its batch, over as many epochs as it takes."""
    waits: list[float] = []
    epoch = 0
    while len(waits) < steps:
        loader.set_epoch(epoch)
        passing = iter(loader)
        while len(waits) < steps:
            started = time.perf_counter()
            if next(passing, None) is None:
                break
            waits.append(time.perf_counter() - started)
            time.sleep(step_s)
        passing.close()
        epoch += 1
    return waits


def _share(waits: Sequence[float], step_s: float) -> float:
    waited = sum(waits)
    return waited / (waited + step_s * len(waits))


def _interfere(bench: Bench, report: Report) -> None:
    """One thread computes on cached batches, by itself and while a loader is drained at the pace of its steps."""
    torch.set_num_threads(1)
    weight = torch.randn(512, 512)
    rows: list[dict[str, Cell]] = []
    with bench.loader(1024) as loader:
        cached = list(islice(loader, 4))
    times: dict[str, list[float]] = {"cached": [], "workers 0": [], "workers 1": []}
    loaders = {f"workers {n}": bench.loader(1024, num_workers=n) for n in (0, 1)}

    def step(batch: Batch) -> float:
        started = time.perf_counter()
        x = batch.history["dwell"].expand().padded(512)
        for _ in range(2):
            x = torch.relu(x @ weight)
        float(x.sum())
        return time.perf_counter() - started

    for loader in loaders.values():
        take(iter(loader), 4)
    for epoch in range(bench.repeats):
        for name in times:
            if name == "cached":
                times[name].append(float(np.median([step(cached[i % 4]) for i in range(14)])))
                continue
            loaders[name].set_epoch(epoch)
            passing = iter(loaders[name])
            took = []
            for number, _ in enumerate(passing):
                took.append(step(cached[number % 4]))
                if number == 13:
                    break
            passing.close()
            times[name].append(float(np.median(took[2:])))
    for name in ("workers 0", "workers 1"):
        ratio = Samples(np.array(times[name]) / np.array(times["cached"]))
        rows.append({"loader": name, "step time over that on cached batches": ratio})
        loaders[name].close()
    report.facts["interference"] = times
    report.sections.append(
        Section("Interference: a computing step beside the loader (2 cores, others may use them)", rows)
    )


def _means(bench: Bench, report: Report) -> None:
    """Affinity, dedup and tenants, each on against off."""
    size, number = 128, bench.settings.pick(20, 60)
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
