"""How fast are versioned reads, against slices of arrays in memory and against file formats?

Every example wants the newest L events of a prefix that ends anywhere in its user's history, so that windows begin and
end inside of chunks. Page cache warm, repetitions interleaved, ratios within each repetition.

- *Against arrays*: ``np.concatenate`` of slices of uncompressed arrays, new outputs against new ones and reused against
  reused (``out=``); of random users, and clustered (16 examples of each user); with and without LZ4; columns as logs
  have them (*zipf*), and *uniform* values, of which little can be compressed. Above 1 the store is faster.
- *What bounds it, clustered*: arrays' slices come out of the cache there, so that what is left is to write the outputs.
  Writing them from nothing is timed in the same run: how many times as fast as arrays that is, no reader that writes a
  copy for each example can pass. One that shares what examples of a user share can: the windows as spans of one read.
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

import ctypes
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perf import rivals
from perf.harness import Chart, Comparison, Curve, Line, Report, Samples, Section, Settings, interleave, run_bench
from perf.report import Cell
from perf.workloads import Log, Workload, build_store, make_log
from uihkv import Histories, Pointers, Projection, Snapshot, Store, snapshot
from uihkv.chunk import CODEC_LZ4, SCHEMA_AT
from uihkv.codec import Entries, Layouts, Slices
from uihkv.kernels.decode import _find_block, _stored_bytes
from uihkv.kernels.memory import load_u16
from uihkv.native import lz4_decompress

LENGTHS = (128, 1024, 8192, 65_536)
ALL = ("ts", "item_id", "action", "surface", "dwell")
TWO = ("item_id", "action")
COMPRESSIONS = ("none", "lz4")
CASES = (("random", "zipf"), ("clustered", "zipf"), ("random", "uniform"))
"""Order of the examples, and values of the columns."""
CLUSTER = 16
BATCH = 1024
BATCH_EVENTS = 1 << 20
LOG_EVENTS = 2 << 20
ONE_BY_ONE = 64


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


def measure(settings: Settings) -> Report:
    """All tables."""
    values = list(dict.fromkeys(values for _, values in CASES))
    made = {kind: [_prepare(length, kind, settings) for length in LENGTHS] for kind in values}
    benches = made[values[0]]
    bandwidth = measure_bandwidth()
    arrays, fits, curves = _against_arrays(made, settings)
    bounds = [_bound_clustered(bench, settings) for bench in benches]
    steps = [_profile(bench, compression, bandwidth, settings) for bench in benches for compression in COMPRESSIONS]
    others, missing = _against_others(benches, settings)
    facts: dict[str, Any] = {
        "bandwidth_bytes_s": bandwidth, "fits": {name: line.describe() for name, line in fits.items()},
        "missing": missing,
        "store_share_of_raw": {f"{b.values}-{b.length}": _shares(b) for some in made.values() for b in some},
    }  # fmt: skip
    fitted: list[dict[str, Cell]] = [
        {"way": name, "a, us an example": line.a, "b, ns an event": 1e3 * line.b} for name, line in fits.items()
    ]
    return Report(
        sections=[
            Section("Against arrays: five columns, one thread, verify once (times as fast as arrays)", arrays),
            Section("Clustered, outputs reused: what bounds it (times as fast as arrays)", bounds),
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


def _prepare(length: int, values: Any, settings: Settings) -> Bench:
    users = max(2 * CLUSTER, settings.pick(1, 8) * LOG_EVENTS * 2 // (3 * length))
    workload = Workload(users=users, mean_length=length * 3 // 2, shortest=length, longest=2 * length, values=values)
    log = make_log(workload, settings.seed)
    stores = {}
    for compression in COMPRESSIONS:
        stores[compression] = settings.scratch / f"{values}-{compression}-{length}"
        build_store(stores[compression], log, shards=4, compression=compression).close()
    return Bench(length, values, log, stores)


def _shares(bench: Bench) -> dict[str, float]:
    """Bytes of the store's files over those of the log's columns, visible times included."""
    raw = len(bench.log) * (bench.log.event_bytes + 8)
    return {
        name: sum(file.stat().st_size for file in path.glob("shards/*/data.mdb")) / raw
        for name, path in bench.stores.items()
    }


@contextmanager
def _open(bench: Bench, compression: str, **how: Any) -> Iterator[Snapshot]:
    verify = how.pop("verify", "once")
    with Store.open(bench.stores[compression], readonly=True, **how) as store, store.snapshot(verify=verify) as view:
        yield view


def _reused(view: Snapshot, pointers: Pointers, projection: Projection) -> Callable[[], object]:
    last = view.read(pointers, projection)

    def read() -> None:
        nonlocal last
        last = view.read(pointers, projection, out=last)

    return read


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
            with _open(bench, "none") as plain, _open(bench, "lz4") as packed:
                views = {"none": plain, "lz4": packed}
                ways = {
                    "arrays": rivals.slices_of_arrays(windows, ALL, reuse=False),
                    "arrays, reused": rivals.slices_of_arrays(windows, ALL, reuse=True),
                }
                for name, view in views.items():
                    _check(view, pointers, wanted, windows)
                    ways[name] = partial(view.read, pointers, wanted)
                    ways[f"{name}, reused"] = _reused(view, pointers, wanted)
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
                        "us an example": _micros(compared, name, len(pointers)),
                        "arrays, us": _micros(compared, "arrays", len(pointers)),
                    }
                )  # fmt: skip
            if order == "random":
                for name, samples in compared.seconds.items():
                    cost[f"{values}, {name}"].append((bench.length, samples.median / len(pointers) * 1e6))
    fits = {name: Line.fit(*np.array(points, float).T) for name, points in cost.items()}
    curves = [Curve(name, list(LENGTHS), list(samples)) for name, samples in found.items()]
    return rows, fits, curves


def _bound_clustered(bench: Bench, settings: Settings) -> dict[str, Cell]:
    """Outputs that are only written, and windows that share a read, against arrays."""
    pointers, windows = bench.draw("clustered", settings.seed)
    wanted = Projection(ALL, max_len=bench.length)
    outputs = [windows.gather(name) for name in ALL]

    def write() -> None:
        for array in outputs:
            ctypes.memset(array.ctypes.data, 1, array.nbytes)

    with _open(bench, "none") as plain, _open(bench, "lz4") as packed:
        ways: dict[str, Callable[[], object]] = {
            "arrays": rivals.slices_of_arrays(windows, ALL, reuse=True), "write": write,
            "none": _reused(plain, pointers, wanted), "lz4": _reused(packed, pointers, wanted),
        }  # fmt: skip
        for name, view in (("none", plain), ("lz4", packed)):
            ways[f"{name}, shared"] = partial(_read_shared, view, pointers, bench.length)
            found, start = _read_shared(view, pointers, bench.length)
            for place in (0, len(start) - 1):
                span = slice(int(start[place]), int(start[place]) + bench.length)
                if not np.array_equal(found.values("ts")[span], bench.log.ts[slice(*windows.bounds[place])]):
                    raise RuntimeError(f"the window of row {place}, read with others, differs from the log")
        compared = interleave(ways, repeats=settings.pick(11, 41), warmup=2, clock=time.thread_time)
    row: dict[str, Cell] = {"events": bench.length, "outputs written, no more": compared.speedup("write")}
    for name in COMPRESSIONS:
        row[name] = compared.speedup(name)
        row[f"{name}, shared windows"] = compared.speedup(f"{name}, shared")
    return row


def _read_shared(view: Snapshot, pointers: Pointers, length: int) -> tuple[Histories, NDArray[np.int64]]:
    """Each user's events once, from the first that any window has to the last, and where each window begins in them."""
    order = np.lexsort((pointers.version, pointers.user_id))
    user, version = pointers.user_id[order], pointers.version[order]
    first = np.flatnonzero(np.append(True, user[1:] != user[:-1]))
    last = np.append(first[1:], len(user)) - 1
    low = version[first] - length
    found = view.read(pointers[order[last]], Projection(ALL), since=low)
    start = np.empty(len(user), np.int64)
    start[order] = version - length - np.repeat(low - found.offsets[:-1], last - first + 1)
    return found, start


def _micros(compared: Comparison, name: str, examples: int) -> Samples:
    return compared.seconds[name].scaled(1e6 / examples)


def _check(view: Snapshot, pointers: Pointers, projection: Projection, windows: rivals.Windows) -> None:
    found = view.read(pointers, projection)
    for name in found.columns:
        if not np.array_equal(found.values(name), windows.gather(name)):
            raise RuntimeError(f"column {name!r} read from the store differs from the log")


def _factors(benches: list[Bench], settings: Settings) -> list[dict[str, Cell]]:
    """One thing changed at a time."""
    rows: list[dict[str, Cell]] = []
    for compression in COMPRESSIONS:
        for bench in benches:
            pointers, _ = bench.draw("random", settings.seed)
            wanted = Projection(ALL, max_len=bench.length)
            with (
                _open(bench, compression) as base, _open(bench, compression, verify="never") as never,
                _open(bench, compression, verify="always") as always, _open(bench, compression, threads=2) as two,
            ):  # fmt: skip
                compared = interleave(
                    {
                        "base": partial(base.read, pointers, wanted),
                        "2 columns": partial(base.read, pointers, Projection(TWO, max_len=bench.length)),
                        "verify never": partial(never.read, pointers, wanted),
                        "verify always": partial(always.read, pointers, wanted),
                        "2 threads": partial(two.read, pointers, wanted),
                    },
                    repeats=settings.pick(7, 31), baseline="base",
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
        with _open(bench, "lz4") as view:
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
            taken = _micros(compared, name, count)
            ours = _micros(compared, "this store, lz4", len(pointers))
            rows.append(
                {"events": bench.length, "way": name, "us": taken, "times ours": Samples(taken.values / ours.values)}
            )
    return rows, list(missing)


def _read_each(view: Snapshot, pointers: list[Pointers], projection: Projection) -> None:
    for one in pointers:
        view.read(one, projection)


# -- where the time goes --------------------------------------------------------------------------------


def measure_bandwidth() -> float:
    """Bytes a second of a large copy, those read and those written; the best of several."""
    source, target = np.ones(1 << 27, np.uint8), np.ones(1 << 27, np.uint8)
    best = min(interleave({"copy": lambda: np.copyto(target, source)}, repeats=9, warmup=2).seconds["copy"].values)
    return float(2 * len(source) / best)


class _Stopwatch:
    """Time of the steps inside of a read: methods and functions of the snapshot's module, wrapped while it runs."""

    STEPS: tuple[tuple[Any, str, str], ...] = (
        (Snapshot, "_newest", "heads"), (Snapshot, "_slices", "plan"), (Snapshot, "_outputs", "outputs"),
        (snapshot, "decode_fixed", "decode"), (snapshot, "ask_for_blocks", "look at pages"),
        (snapshot, "measure_slices", "cost"),
    )  # fmt: skip

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.decoded: tuple[Entries, Layouts, Slices] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        kept = [(owner, name, getattr(owner, name)) for owner, name, _ in self.STEPS]
        try:
            for (owner, name, function), (_, _, step) in zip(kept, self.STEPS, strict=True):
                setattr(owner, name, self._timed(function, step))
            yield
        finally:
            for owner, name, function in kept:
                setattr(owner, name, function)

    def _timed(self, function: Callable[..., Any], step: str) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*given, **named)
            finally:
                self.seconds[step] += time.thread_time() - begin
                if step == "decode":
                    self.decoded = given[:3]

        return run


def _decompress_alone(watch: _Stopwatch) -> None:
    """LZ4 on the blocks of the last read that are compressed, and nothing else."""
    assert watch.decoded is not None  # something was read
    entries, layouts, slices = watch.decoded
    room = np.empty(max(entries.scratch_bytes, 1), np.uint8)
    _decompress_blocks(
        entries.address, np.unique(slices.entry), layouts.width, layouts.elements, layouts.kind,
        layouts.first_blocks(ALL), room,
    )  # fmt: skip


@njit(nogil=True)
def _decompress_blocks(
    address: Any, entry: Any, lay_width: Any, lay_elements: Any, lay_kind: Any, want_block: Any, room: Any
) -> None:
    for i in range(len(entry)):
        chunk = address[entry[i]]
        version = load_u16(chunk + SCHEMA_AT)
        for want in range(want_block.shape[1]):
            _, encoding, width, codec, _, begin, end, items, _ = _find_block(
                chunk, want_block[version, want], lay_width, lay_elements, lay_kind
            )
            if codec == CODEC_LZ4:
                raw = np.int32(_stored_bytes(encoding, width, items))
                lz4_decompress(chunk + begin, np.int64(room.ctypes.data), np.int32(end - begin), raw)


def _profile(bench: Bench, compression: str, bandwidth: float, settings: Settings) -> dict[str, Cell]:
    """Shares of the steps; and of a read into reused outputs, and of the same bytes at the speed of a copy."""
    pointers, _ = bench.draw("random", settings.seed)
    wanted = Projection(ALL, max_len=bench.length)
    repeats = settings.pick(11, 41)
    with _open(bench, compression) as view:
        cost = view.read(pointers, wanted).cost
        again = _reused(view, pointers, wanted)
        watch = _Stopwatch()
        with watch.running():
            begin = time.thread_time()
            for _ in range(repeats):
                view.read(pointers, wanted)
            took = time.thread_time() - begin
        compared = interleave(
            {"new": partial(view.read, pointers, wanted), "reused": again, "LZ4": partial(_decompress_alone, watch)},
            repeats=repeats, baseline="new", clock=time.thread_time,
        )  # fmt: skip
    row: dict[str, Cell] = {"events": bench.length, "compression": compression}
    for _, _, step in _Stopwatch.STEPS:
        row[step] = watch.seconds[step] / took
    row["rest"] = 1 - sum(watch.seconds.values()) / took
    row["LZ4 alone"] = Samples(1 / compared.speedup("LZ4").values)
    row["reused outputs"] = Samples(1 / compared.speedup("reused").values)
    row["copy of its bytes"] = (cost.bytes_read + cost.bytes_decoded) / bandwidth / compared.seconds["new"].median
    return row


if __name__ == "__main__":
    run_bench("read", __doc__, measure)
