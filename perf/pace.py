"""How fast does the loader make batches, does a step wait for them, and does it slow the step: on whole passes.

What a figure is measured against is measured in the same run and stands beside it:

- *delivery*: the loader against bare ``snapshot.read`` of the same pointers, which drops each output at once and so
  writes the next one over it; and against bare reads that keep as many outputs as the loader has batches under way,
  which write into memory that no cache holds. How many cores each way keeps busy bounds what more processes can
  bring on this machine.
- *wait*: the step takes 1.25 times the loader's own time per batch, that of a pass drained by a consumer that does
  nothing. It sleeps, as a host does whose accelerator works. One pass is longer than the steps, so that no epoch
  begins among them; what an epoch's start costs is told apart. Beside it stands what handing over a batch takes that
  lies ready, after steps at least twice as long: these leave the caches colder, so it is more than each step pays.
- *interference*: a step computes on cached batches, by itself and beside a loader that it takes a batch from before
  each step. Beside it stands the same step next to a process that reads the same batches with ``snapshot.read`` and
  hands nothing over: what decoding on the other core costs whoever computes on this one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loader import ArrayExamples, Batch, Loader
from loader.order import permute_examples
from perf.cold import drop_pages
from perf.harness import Chart, Curve, Report, Samples, Section, interleave
from perf.loading import COLUMNS, Bench, Ints, batch_size, take
from perf.report import Cell
from uihkv import Histories, Pointers, Projection, Store

Bytes = NDArray[np.uint8]

CASES = ((256, 512), (256, 4096), (4096, 256), (65_536, 16))
"""Lengths and batch sizes. The histories of the longest are all that long."""

LAYERS = (2, 12)
"""Of the step that computes: one that is short beside a batch's making, and one that is long."""

STEP = 1.25
FIRST = 20
PREFETCH = 4


def measure_pace(bench: Bench, report: Report) -> None:
    """All of it."""
    long = Bench(bench.settings, CASES[-1][0])
    with long.store:
        measure_delivery((bench, long), report)
        measure_wait((bench, long), report)
    measure_interference(bench, report)


def measure_delivery(benches: tuple[Bench, Bench], report: Report) -> None:
    """Whole passes, drained."""
    rows: list[dict[str, Cell]] = []
    found: dict[str, list[Samples]] = {"loader": [], "1 worker": [], "2 workers": []}
    for length, size in CASES:
        bench = benches[length == CASES[-1][0]]
        number = bench.settings.pick(64 if size <= 512 else 24, 512)
        order = permute_examples(number * size, 0, 0)
        examples = repeat_examples(bench, number * size)
        options: dict[str, Any] = {"examples": examples, "batch_size": size, "prefetch": PREFETCH}
        loaders = {n: bench.loader(length, num_workers=n, **options) for n in (0, 1, 2)}
        pointers = [examples.take(order[first : first + size])[0] for first in range(0, number * size, size)]
        projection = Projection(COLUMNS, length)
        ways: dict[str, Callable[[], object]] = {
            "bare": partial(_read_bare, bench.store, pointers, projection),
            "keeping": partial(_read_keeping, bench.store, pointers, projection, [np.empty(0, np.uint8)]),
            **{f"workers {n}": partial(_drain, loader, number) for n, loader in loaders.items()},
        }
        compared = interleave(ways, bench.repeats, baseline="bare", warmup=2)
        report.facts[f"deliver-{length}"] = compared.describe()
        cores = _count_cores(ways["workers 0"])
        rows.append(
            {
                "length": length, "batch": size, "bare ms": compared.seconds["bare"].scaled(1e3 / number),
                "loader of bare": compared.speedup("workers 0"),
                "of bare that keeps": compared.speedup("workers 0", "keeping"),
                "1 worker of bare": compared.speedup("workers 1"), "2 of bare": compared.speedup("workers 2"),
                "2 workers over none": compared.speedup("workers 2", "workers 0"),
                "2 over 1": compared.speedup("workers 2", "workers 1"), "cores that none uses": cores,
            }
        )  # fmt: skip
        for n, name in enumerate(found):
            found[name].append(compared.speedup(f"workers {n}"))
        for loader in loaders.values():
            loader.close()
    report.sections.append(Section("Delivery: batches a second, over those of bare snapshot.read on one core", rows))
    report.notes.append(
        "Without workers the loader reads on several cores already; what n workers can bring over that is bounded by "
        "the cores there are over the cores that it uses."
    )
    places = [f"{size} of {length:,}" for length, size in CASES]
    report.charts.append(
        Chart("Delivery", "batch, of histories of at most so many events", "over bare reads",
              [Curve(name, places, its) for name, its in found.items()], kind="bars", line_at=0.85)
    )  # fmt: skip


def _drain(loader: Loader, number: int) -> None:
    take(iter(loader), number)


def _read_bare(store: Store, batches: Sequence[Pointers], projection: Projection) -> None:
    with store.snapshot() as snapshot:
        for pointers in batches:
            snapshot.read(pointers, projection)


def _read_keeping(store: Store, batches: Sequence[Pointers], projection: Projection, kept: list[Bytes]) -> None:
    """As :func:`_read_bare`, each batch into memory that was not used for some batches."""
    with store.snapshot() as snapshot:
        for number, pointers in enumerate(batches):
            while len(kept) < PREFETCH + 1:
                kept.append(np.empty(0, np.uint8))
            slab = kept[number % len(kept)]
            read = snapshot.read(pointers, projection, out=Histories(np.zeros(1, np.int64), {}, slab=slab))
            if read.nbytes > len(slab):
                kept[number % len(kept)] = np.empty(2 * read.nbytes, np.uint8)


def repeat_examples(bench: Bench, number: int) -> ArrayExamples:
    """So many of the bench's examples, which come again when there are not as many."""
    rows = np.arange(number) % len(bench.examples)
    return ArrayExamples({name: column[rows] for name, column in bench.columns.items()})


def _count_cores(way: Callable[[], object]) -> float:
    began, used = time.perf_counter(), time.process_time()
    way()
    return (time.process_time() - used) / (time.perf_counter() - began)


def measure_wait(benches: tuple[Bench, Bench], report: Report) -> None:
    """Steps that sleep, at 1.25 times the loader's own time."""
    rows: list[dict[str, Cell]] = []
    shares: dict[str, list[Samples]] = {}
    steps = benches[0].settings.pick(48, 400)
    for length, size in CASES:
        bench = benches[length == CASES[-1][0]]
        examples = repeat_examples(bench, (steps + PREFETCH + 2) * size)
        options = {"examples": examples, "batch_size": size, "prefetch": PREFETCH}
        for pages in ("warm", "cold"):
            for workers in (0, 1):
                repeats = bench.settings.pick(2 if pages == "warm" else 1, 7)
                found = [
                    _wait_once(bench, length, pages, steps, {**options, "num_workers": workers}) for _ in range(repeats)
                ]
                own, wait, first, begin, ready, start = (Samples(np.array(its)) for its in zip(*found, strict=True))
                rows.append(
                    {
                        "length": length, "batch": size, "pages": pages, "workers": workers,
                        "step ms": own.scaled(STEP * 1e3),
                        "wait %": wait.scaled(100), "first 20 steps %": first.scaled(100),
                        "hand-over of a ready batch %": Samples(100 * ready.values / (STEP * own.values)),
                        "first batch ms": begin.scaled(1e3), "an epoch's start ms": start.scaled(1e3),
                    }
                )  # fmt: skip
                shares.setdefault(f"{pages}, workers {workers}", []).append(wait.scaled(100))
    report.sections.append(Section("Share of the time that a step of 1.25 times the loader's own waits", rows))
    places = [f"{size} of {length:,}" for length, size in CASES]
    report.charts.append(
        Chart("Waiting", "batch, of histories of at most so many events", "% of the time",
              [Curve(name, places, its) for name, its in shares.items()], kind="bars", line_at=1.0)
    )  # fmt: skip


def _wait_once(bench: Bench, length: int, pages: str, steps: int, options: dict[str, Any]) -> tuple[float, ...]:
    """Own seconds a batch, wait share of all steps and of the first, seconds to the first batch, to hand over one that
    is ready, and of an epoch's start.
    """
    with _opened(bench, length, pages, options) as loader:
        passing = iter(loader)
        next(passing)  # waits for processes to start
        began = time.perf_counter()
        for _ in islice(passing, steps):
            pass
        own_s = (time.perf_counter() - began) / steps
        passing.close()
    with _opened(bench, length, pages, options) as loader:
        waits = _waits(iter(loader), STEP * own_s, steps + 1)
        ready = _waits(iter(loader), 2 * own_s + 5e-3, 12)[4:]
        starts = []
        for epoch in range(1, 4):
            loader.set_epoch(epoch)
            starts.append(_waits(iter(loader), 0.0, 1)[0])
    return (
        own_s, _share(waits[1:], STEP * own_s), _share(waits[1 : FIRST + 1], STEP * own_s), waits[0],
        float(np.median(ready)), float(np.median(starts)),
    )  # fmt: skip


@contextmanager
def _opened(bench: Bench, length: int, pages: str, options: dict[str, Any]) -> Iterator[Loader]:
    """A new loader on a store that was opened anew."""
    if pages == "cold":
        drop_pages(bench.path)
    with (
        Store.open(bench.path, readonly=True) as store,
        bench.loader(length, store, **options) as loader,
    ):
        yield loader


def _waits(passing: Any, step_s: float, steps: int) -> list[float]:
    """Seconds that each of some steps waited for its batch; the first from before the pass began to work."""
    waits: list[float] = []
    batch = None
    for _ in range(steps):
        started = time.perf_counter()
        new = next(passing)
        waits.append(time.perf_counter() - started)
        batch = new  # the step lets go of the batch before
        time.sleep(step_s)
    del batch, new
    passing.close()
    return waits


def _share(waits: Sequence[float], step_s: float) -> float:
    waited = sum(waits)
    return waited / (waited + step_s * len(waits))


def measure_interference(bench: Bench, report: Report) -> None:
    """Steps that compute in one thread, beside nothing, a loader, and a process that reads."""
    torch.set_num_threads(1)
    length, steps = 1024, bench.settings.pick(16, 24)
    weight = torch.randn(512, 512)
    with bench.loader(length) as loader:
        cached: list[Batch] = list(islice(loader, 4))
    examples = repeat_examples(bench, (steps + PREFETCH + 2) * batch_size(length))

    def compute(number: int, layers: int) -> float:
        started = time.perf_counter()
        x = cached[number % 4].history["dwell"].expand().padded(512)
        for _ in range(layers):
            x = torch.relu(x @ weight)
        float(x.sum())
        return time.perf_counter() - started

    def run(layers: int, before_each: Callable[[], object]) -> float:
        """Mean seconds of a step."""
        took = []
        for number in range(steps):
            before_each()
            took.append(compute(number, layers))
        return float(np.mean(took[2:]))

    times: dict[tuple[int, str], list[float]] = {}
    loaders = {n: bench.loader(length, examples=examples, num_workers=n, prefetch=PREFETCH) for n in (0, 1)}
    with _reading(bench, length) as read_one:
        for epoch in range(bench.repeats + 1):
            for layers in LAYERS:
                times.setdefault((layers, "nothing"), []).append(run(layers, lambda: None))
                for n, loader in loaders.items():
                    loader.set_epoch(epoch)
                    passing = iter(loader)
                    took = run(layers, lambda passing=passing: next(passing))  # type: ignore[misc]
                    times.setdefault((layers, f"a loader, workers {n}"), []).append(took)
                    passing.close()
                times.setdefault((layers, "a process that reads"), []).append(run(layers, read_one))
    for loader in loaders.values():
        loader.close()
    ratios = {key: Samples(np.array(its[1:]) / np.array(times[key[0], "nothing"][1:])) for key, its in times.items()}
    rows: list[dict[str, Cell]] = [
        {
            "layers": layers, "beside": name, "step ms": Samples(1e3 * np.array(its[1:])),
            "over the step by itself": ratios[layers, name],
        }
        for (layers, name), its in times.items()
    ]  # fmt: skip
    report.facts["interference"] = {f"{layers} layers, {name}": its for (layers, name), its in times.items()}
    report.sections.append(Section("Interference: a computing step on one of 2 cores", rows))
    names = list(dict.fromkeys(name for _, name in times))
    curves = [Curve(f"{layers} layers", names, [ratios[layers, name] for name in names]) for layers in LAYERS]
    report.charts.append(
        Chart("Interference", "beside", "step time over that by itself", curves, kind="bars", line_at=1.02)
    )


@contextmanager
def _reading(bench: Bench, length: int) -> Iterator[Callable[[], object]]:
    """A process that reads the next batch whenever it is told to, and tells nobody."""
    file = bench.settings.scratch / "read-beside.npz"
    np.savez(file, **{name: bench.columns[name] for name in ("user_id", "version", "last_ts")})
    command = [sys.executable, "-m", "perf.pace", str(bench.path), str(file), str(length)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        json.loads(process.stdout.readline())
        told = process.stdin

        def read_one() -> None:
            told.write(b"\n")
            told.flush()

        yield read_one
        told.close()
        process.wait(30)


def _read_when_told(path: str, file: str, length: int) -> None:
    columns = np.load(file)
    pointers = Pointers(columns["user_id"], columns["version"], columns["last_ts"])
    order: Ints = permute_examples(len(pointers), 0, 0)
    size, done = batch_size(length), 0
    projection = Projection(COLUMNS, length)
    with Store.open(path, readonly=True) as store, store.snapshot() as snapshot:
        snapshot.read(pointers[order[:size]], projection)
        print(json.dumps({"ready": True}), flush=True)
        for _ in sys.stdin.buffer:
            done = (done + size) % (len(order) - size)
            snapshot.read(pointers[order[done : done + size]], projection)


if __name__ == "__main__":
    _read_when_told(sys.argv[1], sys.argv[2], int(sys.argv[3]))
