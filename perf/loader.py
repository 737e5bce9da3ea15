"""Does the training step ever wait for the loader, what does each of its means bring, and what would others cost?

All on one store of synthetic histories, page cache warm where nothing else is said, ratios within one run:

- *delivery*: the loader, with and without worker processes, against bare ``snapshot.read`` of the same pointers;
- *wait*: share of the time that a step of 1.25 times the loader's own time per batch waits, warm and with pages
  dropped; the step sleeps, as a host does whose accelerator works;
- *interference*: how much longer a computing step takes beside a running loader than on cached batches;
- *affinity*, *dedup*, *tenants*: each on against off, as time, bytes and hits;
- *others*: ``DataLoader`` over memory-mapped arrays, fat rows in Parquet, and a CSV line of JSON lists a user;
- *kills*: a process killed at random moments and resumed; *soak*: what grows while epochs go by.

Nothing here runs on a GPU: copies to a device under running kernels have not been measured.
"""

from __future__ import annotations

import csv
import gc
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from loader import ArrayExamples, Batch, Loader
from loader.order import permute_examples
from perf.cold import drop_pages
from perf.harness import Report, Samples, Section, Settings, interleave, run_bench
from perf.killed import kill_at_random, read_whole
from perf.report import Cell
from perf.workloads import Log, Workload, build_store, make_log
from uihkv import Projection, Store

COLUMNS = ("ts", "item_id", "action", "dwell")
TENANTS = {
    "ranker": Projection(COLUMNS, 4096),
    "early": Projection(("ts", "item_id", "action"), 1024),
    "retrieval": Projection(("item_id",), 256),
}
STEP = 1.25
FIRST = 20

Ints = NDArray[np.int64]


class Bench:
    """The store and its examples, for all parts.

    Args:
        settings: of the run.

    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.repeats = settings.pick(5, 15)
        self.log: Log = make_log(
            Workload(users=settings.pick(300, 1_000), mean_length=settings.pick(3_000, 12_000), tail=1.1), settings.seed
        )
        self.path = settings.scratch / "store"
        self.store = build_store(self.path, self.log, shards=8)
        rng = np.random.default_rng(settings.seed)
        self.user = rng.choice(len(self.log.users), settings.pick(16_384, 65_536), p=self.log.lengths / len(self.log))
        self.version = (rng.random(len(self.user)) * self.log.lengths[self.user]).astype(np.int64) + 1
        self.version = np.minimum(self.version, self.log.lengths[self.user])
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


def take_each(loaders: Sequence[Loader], number: int) -> None:
    """Take some batches of each loader, one loader after the other."""
    for loader in loaders:
        take(iter(loader), number)


def measure(settings: Settings) -> Report:
    """All parts."""
    bench = Bench(settings)
    report = Report()
    with bench.store:
        for part in (_deliver, _wait, _interfere, _means, _others, _kill, _soak):
            part(bench, report)
    report.notes.append("No GPU: side-stream copies are written and not measured.")
    report.notes.append("SPDL, MosaicML and LitData are not run here.")
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


# -- what a user would write instead ---------------------------------------------------------------


class MemmapDataset(Dataset[dict[str, torch.Tensor]]):
    """An example's window cut out of memory-mapped columns, for torch's ``DataLoader``."""

    def __init__(self, folder: Path, offsets: Ints, user: Ints, version: Ints, length: int) -> None:
        self._columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
        self._end = offsets[user] + version
        self._start = self._end - np.minimum(version, length)

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start, end = int(self._start[index]), int(self._end[index])
        return {name: torch.from_numpy(np.array(column[start:end])) for name, column in self._columns.items()}


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Jagged columns out of rows."""
    lengths = torch.tensor([len(row["ts"]) for row in rows])
    return {"lengths": lengths} | {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _others(bench: Bench, report: Report) -> None:
    length, number = 1024, bench.settings.pick(12, 24)
    size = batch_size(length)
    folder = bench.settings.scratch
    readable = bench.log.readable
    for name in COLUMNS:
        np.save(folder / f"{name}.npy", readable[name])
    chosen = permute_examples(len(bench.examples), 0, 0)[: number * size]
    end = bench.log.offsets[bench.user[chosen]] + bench.version[chosen]
    start = end - np.minimum(bench.version[chosen], length)
    _write_fat_rows(folder / "fat.parquet", readable, start, end, size)
    text = _json_lines(readable, start, end)
    dataset = MemmapDataset(folder, bench.log.offsets, bench.user[chosen], bench.version[chosen], length)
    memmap = DataLoader(dataset, size, shuffle=True, num_workers=2, collate_fn=collate, persistent_workers=True)

    def parquet() -> None:
        for table in pq.ParquetFile(folder / "fat.parquet").iter_batches(size):
            for name in COLUMNS:
                table.column(name).flatten().to_numpy(zero_copy_only=False)

    def lines() -> None:
        for row in islice(csv.reader(io.StringIO(text)), size):
            for cell in row:
                np.array(json.loads(cell))

    few = ArrayExamples({name: column[chosen] for name, column in bench.columns.items()})
    with bench.loader(length, examples=few) as here, bench.loader(length, examples=few, num_workers=2) as there:
        ways: dict[str, Callable[[], object]] = {
            "loader": lambda: take(iter(here), number),
            "loader, 2 workers": lambda: take(iter(there), number),
            "DataLoader(2) over memmap": lambda: take(iter(memmap), number),
            "fat rows in Parquet, in file order": parquet,
            "CSV of JSON lists (one batch)": lines,
        }
        compared = interleave(ways, bench.settings.pick(3, 9), baseline="loader")
    report.facts["others"] = compared.describe()
    rows: list[dict[str, Cell]] = []
    for name in ways:
        times = compared.speedup(name)
        rows.append({"way": name, "speed over the loader": times.scaled(1 / number) if "one batch" in name else times})
    report.sections.append(Section(f"Others, the same {number} batches of {size}, up to {length} events", rows))


def _write_fat_rows(path: Path, columns: dict[str, Any], start: Ints, end: Ints, size: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(end - start)]).astype(np.int32)
    index = np.concatenate([np.arange(a, b) for a, b in zip(start.tolist(), end.tolist(), strict=True)])
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(columns[name][index])) for name in COLUMNS}
    pq.write_table(pa.table(lists), path, compression="lz4", row_group_size=size)


def _json_lines(columns: dict[str, Any], start: Ints, end: Ints) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    for a, b in zip(start[:512].tolist(), end[:512].tolist(), strict=True):
        writer.writerow([json.dumps(columns[name][a:b].tolist()) for name in COLUMNS])
    return out.getvalue()


# -- endings ---------------------------------------------------------------------------------------


def _kill(bench: Bench, report: Report) -> None:
    kills = bench.settings.pick(3, 50)
    path = bench.settings.scratch / "examples.parquet"
    pq.write_table(pa.table(bench.columns), path)
    whole = read_whole(bench.path, path)
    rows: list[dict[str, Cell]] = []
    for workers in (0, 1):
        log = bench.settings.scratch / f"killed-{workers}"
        found = kill_at_random(bench.path, path, log, workers, kills, bench.settings.seed, 0.2)
        if found != whole:
            raise RuntimeError(f"the stream of a process killed {kills} times differs from the uninterrupted one")
        rows.append({"workers": workers, "kills": kills, "batches": len(found), "bit for bit": found == whole})
    report.sections.append(Section("Resume after SIGKILL at random moments", rows))


def _soak(bench: Bench, report: Report) -> None:
    """Epoch after epoch: what the process holds after a tenth of the time, and at the end."""
    rows: list[dict[str, Cell]] = []
    seconds = bench.settings.pick(15, 1_800)
    for workers in (0, 1):
        with bench.loader(1024, num_workers=workers) as loader:
            started, epoch = time.perf_counter(), 0
            early: dict[str, int] = {}
            while (passed := time.perf_counter() - started) < seconds / 2:
                loader.set_epoch(epoch)
                take(iter(loader), 1 << 30)
                epoch += 1
                if not early and passed > seconds / 20:
                    early = _held()
            late = _held()
            rows.append(
                {"workers": workers, "epochs": epoch} | {name: f"{early.get(name, 0)} -> {late[name]}" for name in late}
            )
    report.sections.append(Section(f"Soak of {seconds} s: what is held early and late", rows))


def _held() -> dict[str, int]:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    maps = Path("/proc/self/maps").read_text().count("uihkv-loader")
    return {"MB": resident >> 10, "descriptors": len(list(Path("/proc/self/fd").iterdir())), "shared slabs": maps}


if __name__ == "__main__":
    run_bench("loader", __doc__, measure)
