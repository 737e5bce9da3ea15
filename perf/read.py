"""How fast are versioned reads, against slices of arrays in memory and against file formats?

Every example wants the newest L events of a prefix that ends anywhere in its user's history, so that windows begin and
end inside of chunks. Page cache warm, repetitions interleaved, ratios within each repetition.

- *Against arrays*: ``np.concatenate`` of slices of uncompressed arrays, new outputs against new ones and reused against
  reused (``out=``); of random users, and clustered (16 examples of each user); with and without LZ4; columns as logs
  have them (*zipf*), and *uniform* values, of which little can be compressed. Above 1 the store is faster.
- *One thread and two*: both orders, by the clock on the wall; and what two threads are to one on this machine at work
  that shares nothing: a large copy, writing memory, and arithmetic alone.
- *What bounds it*: writing the outputs from nothing is timed in the same run, and writing each chunk's part of them
  after its stored bytes were added up: how many times as fast as arrays these are, no reader passes that writes a copy
  for each example. Clustered, arrays' slices come out of the cache, so that it is not much. A reader that shares what
  examples of a user share can pass it: the windows as spans of one read.
- *What it depends on*: columns, verification and threads, against the store itself.
- *Against others*: mapped files, fat rows in Parquet, Lance, Vortex and Hugging Face datasets, and the store asked for
  one pointer at a time. Those that are not installed are named.
- *Cost*: microseconds an example as a + b·events, fitted over the lengths.
- *Where the time goes*: the steps of a read, how long LZ4 alone takes for the same blocks, and what the bytes would
  take at the speed of a large copy.

What one thread does is measured by its processor time, so that other work on the machine counts little; threads and
other packages, which have threads of their own, by the clock on the wall.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from perf import rivals
from perf.harness import Chart, Curve, Line, Report, Samples, Section, Settings, interleave, run_bench
from perf.readbounds import bound_row, measure_bandwidth, profile_row
from perf.readcases import (
    ALL,
    CASES,
    COMPRESSIONS,
    LENGTHS,
    ORDERS,
    TWO,
    Bench,
    check_columns,
    microseconds,
    open_view,
    prepare,
    read_again,
    share_of_raw,
)  # fmt: skip
from perf.readthreads import compare_threads, two_over_one
from perf.report import Cell
from uihkv import Pointers, Projection, Snapshot

ONE_BY_ONE = 64


def measure(settings: Settings) -> Report:
    """All tables."""
    values = list(dict.fromkeys(values for _, values in CASES))
    made = {kind: [prepare(length, kind, settings) for length in LENGTHS] for kind in values}
    benches = made[values[0]]
    bandwidth = measure_bandwidth()
    arrays, fits, curves = _against_arrays(made, settings)
    threads = [row for order in ORDERS for bench in benches for row in compare_threads(bench, order, settings)]
    bounds = {order: [bound_row(bench, order, settings) for bench in benches] for order in ORDERS}
    steps = [profile_row(bench, compression, bandwidth, settings) for bench in benches for compression in COMPRESSIONS]
    others, missing = _against_others(settings.pick(benches[::2], benches), settings)
    facts: dict[str, Any] = {
        "bandwidth_bytes_s": bandwidth, "fits": {name: line.describe() for name, line in fits.items()},
        "missing": missing,
        "store_share_of_raw": {f"{b.values}-{b.length}": share_of_raw(b) for some in made.values() for b in some},
    }  # fmt: skip
    fitted: list[dict[str, Cell]] = [
        {"way": name, "a, us an example": line.a, "b, ns an event": 1e3 * line.b} for name, line in fits.items()
    ]
    return Report(
        sections=[
            Section("Against arrays: five columns, one thread, verify once (times as fast as arrays)", arrays),
            Section("One thread and two, new outputs, by the clock (times as fast as arrays)", threads),
            Section("Two threads over one, of this machine", [two_over_one(settings)]),
            Section("Random users, outputs reused: what bounds it (times as fast as arrays)", bounds["random"]),
            Section("Clustered, outputs reused: what bounds it (times as fast as arrays)", bounds["clustered"]),
            Section("Cost of an example, random users: a + b·events", fitted),
            Section("What it depends on (time over that of all columns, verify once, one thread)",
                    _factors(benches, settings)),
            Section(f"Where the time goes: share of a read; copies here move {bandwidth / 1e9:.1f} GB/s", steps),
            Section("Against others: random users, five columns, microseconds an example", others),
        ],
        charts=[Chart("Speed-up over arrays, new outputs", "events", "times as fast", curves, log_x=True, line_at=1.0)],
        notes=[f"left out: {reason}" for reason in missing],
        facts=facts,
    )  # fmt: skip


def _against_arrays(
    made: dict[str, list[Bench]], settings: Settings
) -> tuple[list[dict[str, Cell]], dict[str, Line], list[Curve]]:
    rows: list[dict[str, Cell]] = []
    cost: dict[str, list[tuple[int, float]]] = defaultdict(list)
    found: dict[str, list[Samples]] = defaultdict(list)
    projection = {length: Projection(ALL, max_len=length) for length in LENGTHS}
    for order, values in CASES:
        for bench in made[values]:
            pointers, windows = bench.draw(order, settings.seed)
            wanted = projection[bench.length]
            with open_view(bench, "none") as plain, open_view(bench, "lz4") as packed:
                views = {"none": plain, "lz4": packed}
                ways = {
                    "arrays": rivals.slices_of_arrays(windows, ALL, reuse=False),
                    "arrays, reused": rivals.slices_of_arrays(windows, ALL, reuse=True),
                }
                for name, view in views.items():
                    check_columns(view, pointers, wanted, windows)
                    ways[name] = partial(view.read, pointers, wanted)
                    ways[f"{name}, reused"] = read_again(view, pointers, wanted)
                compared = interleave(
                    ways, repeats=settings.pick(11, 41), warmup=2, baseline="arrays", clock=time.thread_time
                )
            for name in COMPRESSIONS:
                fresh, reused = compared.speedup(name), compared.speedup(f"{name}, reused", "arrays, reused")
                found[f"{order}, {values}, {name}"].append(fresh)
                rows.append(
                    {
                        "order": order, "values": values, "events": bench.length, "compression": name,
                        "new outputs": fresh,
                        "reused": reused,
                        "us an example": microseconds(compared, name, len(pointers)),
                        "arrays, us": microseconds(compared, "arrays", len(pointers)),
                    }
                )  # fmt: skip
            if order == "random":
                for name, samples in compared.seconds.items():
                    cost[f"{values}, {name}"].append((bench.length, samples.median / len(pointers) * 1e6))
    fits = {name: Line.fit(*np.array(points, float).T) for name, points in cost.items()}
    curves = [Curve(name, list(LENGTHS), list(samples)) for name, samples in found.items()]
    return rows, fits, curves


def _factors(benches: list[Bench], settings: Settings) -> list[dict[str, Cell]]:
    """One thing changed at a time, each in a snapshot of its own: outputs' memory is kept by the snapshot."""
    rows: list[dict[str, Cell]] = []
    for compression in COMPRESSIONS:
        for bench in benches:
            pointers, _ = bench.draw("random", settings.seed)
            wanted = Projection(ALL, max_len=bench.length)
            with (
                open_view(bench, compression) as base, open_view(bench, compression, verify="never") as never,
                open_view(bench, compression, verify="always") as always,
                open_view(bench, compression, threads=2) as two, open_view(bench, compression) as few,
            ):  # fmt: skip
                compared = interleave(
                    {
                        "base": partial(base.read, pointers, wanted),
                        "2 columns": partial(few.read, pointers, Projection(TWO, max_len=bench.length)),
                        "verify never": partial(never.read, pointers, wanted),
                        "verify always": partial(always.read, pointers, wanted),
                        "2 threads": partial(two.read, pointers, wanted),
                    },
                    repeats=settings.pick(5, 31), baseline="base",
                )  # fmt: skip
            row: dict[str, Cell] = {"compression": compression, "events": bench.length}
            for name in compared.seconds:
                if name != "base":
                    row[name] = Samples(1 / compared.speedup(name).values)
            rows.append(row)
    return rows


def _against_others(benches: list[Bench], settings: Settings) -> tuple[list[dict[str, Cell]], list[str]]:
    rows: list[dict[str, Cell]] = []
    missing: dict[str, None] = {}
    for bench in benches:
        pointers, windows = bench.draw("random", settings.seed)
        wanted = Projection(ALL, max_len=bench.length)
        folder = settings.scratch / f"rivals-{bench.length}"
        folder.mkdir()
        with open_view(bench, "lz4") as view:
            few = [pointers[i : i + 1] for i in range(min(ONE_BY_ONE, len(pointers)))]
            ways: dict[str, Callable[[], object]] = {
                "this store, lz4": partial(view.read, pointers, wanted),
                "one pointer at a time": partial(_read_each, view, few, wanted),
                "arrays": rivals.slices_of_arrays(windows, ALL, reuse=False),
                "memmap": rivals.slices_of_memmaps(windows, ALL, folder / "memmap"),
                "Parquet, random": rivals.parquet_fat_rows(windows, ALL, folder / "random.parquet", clustered=False),
                "Parquet, in order": rivals.parquet_fat_rows(windows, ALL, folder / "order.parquet", clustered=True),
            }
            for name, make in (
                ("Lance", rivals.lance_fat_rows), ("Vortex", rivals.vortex_fat_rows),
                ("Vortex, event rows", rivals.vortex_event_rows), ("HF datasets", rivals.datasets_fat_rows),
            ):  # fmt: skip
                try:
                    ways[name] = make(windows, ALL, folder / name)
                except rivals.MissingPackageError as reason:
                    missing[f"{name}: {reason}"] = None
            compared = interleave(ways, repeats=settings.pick(4, 15), baseline="this store, lz4")
        for name in ways:
            count = len(few) if name == "one pointer at a time" else len(pointers)
            taken = microseconds(compared, name, count)
            ours = microseconds(compared, "this store, lz4", len(pointers))
            rows.append(
                {"events": bench.length, "way": name, "us": taken, "times ours": Samples(taken.values / ours.values)}
            )
    return rows, list(missing)


def _read_each(view: Snapshot, pointers: list[Pointers], projection: Projection) -> None:
    for one in pointers:
        view.read(one, projection)


if __name__ == "__main__":
    run_bench("read", __doc__, measure)
