"""How far does one node go, and how many nodes do 10^8 users take?

Small stores of different users, events a user, shards and appends are built live and measured: bytes stored and
written, and for tenants of three lengths and three sets of columns the bytes, 4 KiB pages, chunks (device requests: a
chunk's pages lie together) and processor seconds of an example; before and after compaction. The laws of
:mod:`perf.scalingmodel` are fitted to most of them and predict the others, among them heavy-tailed and larger ones:
their errors are what the tables are worth. The bench fails where bytes, pages or chunks are predicted worse than
promised. Processor time is the machine's, and is only told.

Then the laws are evaluated for 10^8 users on one node and for shards over many, under assumptions that are stated, with
limits that are measured here or follow from the format: LMDB's map, reader slots, the directory's memory and the time
to list it, one writer a shard.
"""

from __future__ import annotations

import math
import time
import tracemalloc
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perf.fatfiles import in_child, load_kernels
from perf.harness import Chart, Counters, Curve, Report, Section, Settings, run_bench
from perf.report import Cell
from perf.scalingmodel import COMPACTED, LIVE, STATES, Config, Measured, Model, Terms
from perf.workloads import COLUMN_SETS, FIVE_COLUMNS, Log, Workload, build_store, make_log
from uihkv import Pointers, Projection, Store, StoreFullError
from uihkv.environment import _MAX_MAP_BYTES, MAP_BYTES, MAX_READERS

FITTED = (
    Config(100, 1000, 1, 4096), Config(400, 250, 2, 4096), Config(64, 4000, 1, 16_384), Config(1000, 100, 4, 4096),
    Config(200, 1500, 4, 16_384), Config(800, 400, 1, 16_384), Config(300, 800, 2, 8192), Config(2000, 60, 1, 8192),
    Config(150, 2000, 4, 4096), Config(80, 1600, 8, 2048),
)  # fmt: skip
HELD_OUT = (
    Config(500, 600, 2, 12_288), Config(64, 6000, 4, 4096), Config(1200, 200, 1, 4096),
    Config(250, 1000, 2, 8192, heavy=True), Config(400, 2000, 4, 16_384),
)  # fmt: skip
LARGE = Config(2500, 4000, 8, 65_536)
"""Held out too in the long form: ten million events, thirty times as many as the largest that is fitted has."""
LENGTHS = (128, 1024, 4096)
BATCH, BATCHES = 64, 4
PAGE = 4096
PROMISED = {
    "bytes stored": 0.15,
    "chunks and tails": 0.25,
    "bytes written": 0.25,
    "bytes read": 0.25,
    "pages read": 0.25,
    "chunks read": 0.25,
}
"""Greatest median of the errors of held-out stores."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it is assumed.

    Attributes:
        read_iops: random reads of 4 KiB a second.
        read_bytes_s, write_bytes_s: bandwidth of the device.
        capacity_bytes: of it; ``fill`` of that is used.
        memory_bytes, cores, shards: of the node.

    """

    read_iops: float = 1.0e6
    read_bytes_s: float = 6.5e9
    write_bytes_s: float = 2.5e9
    capacity_bytes: float = 15.36e12
    fill: float = 0.8
    memory_bytes: float = 512e9
    cores: int = 64
    shards: int = 64


NODE = Node()
USERS = 10**8
HISTORIES = (250, 1000, 4000)
"""Events a user."""
JOBS = ((128, 2), (1024, 5), (1024, 20), (4096, 20))
COMMIT_EVENTS = 16_384
DEMAND_S = 200_000
"""Examples a second that all trainers together are to get, 1,024 events of 20 columns each."""


def measure(settings: Settings) -> Report:
    """Measure, fit, predict, extrapolate."""
    held_out = settings.pick(HELD_OUT, (*HELD_OUT, LARGE))
    load_kernels(settings.scratch, FITTED[0].make_log(settings.seed))
    found = {config: _measure(config, settings) for config in (*FITTED, *held_out)}
    model = Model.fit([found[config] for config in FITTED])
    errors, failed = _errors(model, {config: found[config] for config in held_out})
    limits, directory, commits = _limits(settings)
    facts = {
        "model": model.describe(), "node": asdict(NODE), "directory": directory, "commits": commits,
        "promised": PROMISED, "failed": failed,
        "stores": [_describe(config, *found[config], config in held_out) for config in found],
    }  # fmt: skip
    if failed:
        raise RuntimeError(f"held-out stores are predicted worse than promised: {', '.join(failed)}")
    return Report(
        sections=[
            Section("Laws: coefficients of the terms", _laws(model)),
            Section("Held-out stores: predicted over measured, less 1", errors),
            Section("Limits", limits),
            Section(f"{USERS:,} users on one node", _one_node(model, directory)),
            Section(f"Appends to one node, {COMMIT_EVENTS:,} events a commit", _appends(model)),
            Section(
                f"Examples a second from one node, cold, {HISTORIES[-1]:,} events a user, and what bounds them",
                _rates(model),
            ),
            Section(f"Nodes for {DEMAND_S:,} examples a second of 1,024 events", _many_nodes(model, directory)),
        ],
        charts=_charts(model, found),
        notes=[
            f"assumed of a node: {NODE.read_iops:,.0f} reads of 4 KiB a second, {NODE.read_bytes_s / 1e9} GB/s read, "
            f"{NODE.write_bytes_s / 1e9} GB/s write, {NODE.capacity_bytes / 1e12} TB used to {NODE.fill:.0%}, "
            f"{NODE.memory_bytes / 1e9:.0f} GB memory, {NODE.cores} cores as fast as this machine's, {NODE.shards} "
            "shards; every example reads the device; histories of equal length",
            "a request is a chunk, read in one piece; pages count what the device moves",
            "20 columns of 68 raw bytes as perf.workloads draws them",
            "what small stores cannot show: the trees of 10^8 users are a level or two deeper, so that an append of "
            "single events writes up to as many more pages an event",
        ],
        facts=facts,
    )


# -- measuring ------------------------------------------------------------------------------------------


def _measure(config: Config, settings: Settings) -> tuple[Terms, Measured]:
    log = config.make_log(settings.seed)
    path = settings.scratch / f"{config.users}-{config.events}-{config.shards}-{config.append_events}"
    written, used = in_child(_append, path, log, config)
    stored, entries, read = {}, {}, {}
    for state in STATES:
        if state == COMPACTED:
            in_child(_compact, path)
        stored[state], entries[state], jobs = in_child(_read, path, log, settings.seed, state == COMPACTED)
        read.update({(state, *job): values for job, values in jobs.items()})
    return Terms.of(config, log), Measured(stored, entries, written, used, read)


def _append(path: Path, log: Log, config: Config) -> tuple[int, float]:
    """Append live; bytes written and processor seconds, kernels' too unless they are loaded."""
    arriving = log.in_arrival_order()
    with Store.create(path, log.schema, config.shards, durability="relaxed") as store:
        before = Counters.now()
        for first in range(0, len(log), config.append_events):
            last = first + config.append_events
            store.append(arriving.rows(first, last), arriving.visible_at[first:last])
        taken = Counters.now() - before
    return taken.wchar, taken.user_s + taken.system_s


def _compact(path: Path) -> None:
    with Store.open(path) as store:
        store.compact()


def _read(
    path: Path, log: Log, seed: int, compacted: bool
) -> tuple[float, float, dict[tuple[int, int], dict[str, float]]]:
    """Bytes stored, chunks and tails, and what an example takes, by length and columns; no user twice in a batch."""
    rng = np.random.default_rng(seed)
    row = np.concatenate([rng.choice(len(log.users), BATCH, replace=False) for _ in range(BATCHES)])
    version = 1 + (rng.random(len(row)) * log.lengths[row]).astype(np.int64)
    pointers = Pointers(log.users[row], version, log.ts[log.offsets[row] + version - 1])
    batches = [pointers[first : first + BATCH] for first in range(0, len(row), BATCH)]
    found = {}
    with Store.open(path, readonly=True) as store:
        stats = store.stats()
        size = stats.used_bytes if compacted else stats.bytes  # a file keeps pages that were freed
        for length in LENGTHS:
            for count, names in COLUMN_SETS.items():
                projection = Projection(names, max_len=length)
                with store.snapshot() as view:
                    costs = [view.read(batch, projection).cost for batch in batches]
                    pages = sum(view.prefetch(batch, projection) for batch in batches) / PAGE
                    used = math.inf
                    for _ in range(3):
                        begin = time.thread_time()
                        for batch in batches:
                            view.read(batch, projection)
                        used = min(used, time.thread_time() - begin)
                total = {
                    "bytes read": sum(cost.bytes_read for cost in costs), "pages read": pages,
                    "chunks read": sum(cost.chunks_read for cost in costs), "read cpu s": used,
                }  # fmt: skip
                found[length, count] = {name: value / len(row) for name, value in total.items()}
    return float(size), float(stats.chunks + stats.users), found


# -- tables ---------------------------------------------------------------------------------------------


def _errors(model: Model, held_out: dict[Config, tuple[Terms, Measured]]) -> tuple[list[dict[str, Cell]], list[str]]:
    """Errors of what was held out, by quantity, and the quantities that are worse than promised."""
    every: dict[str, list[float]] = defaultdict(list)
    for terms, measured in held_out.values():
        for name, error in model.errors(terms, measured):
            every[name].append(error)
    rows: list[dict[str, Cell]] = []
    failed = []
    for name, errors in every.items():
        middle, promised = float(np.median(np.abs(errors))), PROMISED.get(name.split(",")[0])
        if promised is not None and middle > promised:
            failed.append(f"{name} ({middle:.0%} of {promised:.0%})")
        rows.append({
            "quantity": name, "predictions": len(errors), "median |error|": middle, "lowest": min(errors),
            "highest": max(errors), "promised": promised, "held": promised is None or middle <= promised,
        })  # fmt: skip
    return rows, failed


def _laws(model: Model) -> list[dict[str, Cell]]:
    laws = [(f"bytes stored, {state}", model.stored[state]) for state in STATES]
    laws += [(f"chunks and tails, {state}", model.entries[state]) for state in STATES]
    laws += [("bytes written", model.written), ("append cpu s", model.append_cpu_s)]
    laws += [(f"{name}, {state}, {count} columns", law) for (state, count, name), law in model.read.items()]
    return [
        {
            "quantity": name,
            "law": " + ".join(
                f"{value:.4g}·{term}" for term, value in zip(law.names, law.coefficients.tolist(), strict=True) if value
            ),
            "fitted stores off by at most": law.residual,
        }
        for name, law in laws
    ]


def _describe(config: Config, terms: Terms, measured: Measured, held_out: bool) -> dict[str, Any]:
    return {
        "config": config.text(), "held_out": held_out, "events": terms.events, "commits": terms.commits,
        "touches": terms.touches, "stored": measured.stored, "entries": measured.entries, "written": measured.written,
        "append_cpu_s": measured.append_cpu_s,
        "read": {", ".join(map(str, key)): values for key, values in measured.read.items()},
    }  # fmt: skip


def _terms(users: float, events: float, a_touch: float = 1.0) -> Terms:
    """Of a large store of equal histories; a commit has so many events of each user that it meets."""
    total = users * events
    return Terms(total, users, NODE.shards, total / COMMIT_EVENTS, total / a_touch, np.array([int(events)]))


def _appends(model: Model) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for a_touch in (1, 4, 16):
        terms = _terms(USERS, HISTORIES[1], a_touch)
        written = float(model.written.at(terms.writing(model.pages_a_user))) / terms.events
        used = float(model.append_cpu_s.at(terms.appending())) / terms.events
        rates = {"device": NODE.write_bytes_s / written, "cores": NODE.cores / used, "writers": NODE.shards / used}
        bound = min(rates, key=lambda name: rates[name])
        rows.append({
            "events of a user an append": a_touch, "bytes written an event": written, "us cpu an event": used * 1e6,
            **{f"M events/s by {name}": rate / 1e6 for name, rate in rates.items()}, "bound": bound,
            "TB a day at a tenth of that": rates[bound] / 10 * written * 86_400 / 1e12,
        })  # fmt: skip
    return rows


def _directory_bytes(users: float, chunks: float, directory: dict[str, float]) -> float:
    return users * directory["bytes_a_user"] + chunks * directory["bytes_a_chunk"]


def _one_node(model: Model, directory: dict[str, float]) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for events in HISTORIES:
        terms = _terms(USERS, events)
        for state in STATES:
            stored = float(model.stored[state].at(terms.storing()))
            chunks = model.chunks(state, terms)
            memory = _directory_bytes(USERS, chunks, directory)
            rows.append({
                "events a user": events, "state": state, "TB stored": stored / 1e12,
                "of the device": stored / NODE.capacity_bytes, "chunks a user": chunks / USERS,
                "GB directory": memory / 1e9, "of memory": memory / NODE.memory_bytes,
                "s to list": (chunks + USERS) * directory["seconds_a_key"],
                "fits": stored < NODE.fill * NODE.capacity_bytes and memory < NODE.memory_bytes,
            })  # fmt: skip
    return rows


def _example(model: Model, state: str, length: int, count: int, events: int) -> dict[str, float]:
    terms = model.reading(state, _terms(USERS, events), length)
    names = ("pages read", "chunks read", "bytes read", "read cpu s")
    return {name: float(model.read[state, count, name].at(terms)) for name in names}


def _bounds(example: dict[str, float]) -> dict[str, float]:
    """Examples a second that each part of a node allows."""
    return {
        "requests": NODE.read_iops / example["chunks read"],
        "bandwidth": NODE.read_bytes_s / (example["pages read"] * PAGE),
        "cores": NODE.cores / example["read cpu s"],
    }


def _rates(model: Model) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for state in STATES:
        for length, count in JOBS:
            example = _example(model, state, length, count, HISTORIES[-1])
            bounds = _bounds(example)
            bound = min(bounds, key=lambda name: bounds[name])
            rows.append({
                "state": state, "length": length, "columns": count, "requests": example["chunks read"],
                "kB moved": example["pages read"] * PAGE / 1e3, "us cpu": example["read cpu s"] * 1e6,
                **{f"by {name}": rate for name, rate in bounds.items()}, "bound": bound,
            })  # fmt: skip
    return rows


def _many_nodes(model: Model, directory: dict[str, float]) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for users in (10**8, 10**9):
        for events in HISTORIES:
            for state in STATES:
                terms = _terms(users, events)
                stored = float(model.stored[state].at(terms.storing()))
                chunks = model.chunks(state, terms)
                example = _example(model, state, 1024, 20, events)
                needs = {
                    "capacity": stored / (NODE.fill * NODE.capacity_bytes),
                    "memory": _directory_bytes(users, chunks, directory) / (0.8 * NODE.memory_bytes),
                    **{name: DEMAND_S / rate for name, rate in _bounds(example).items()},
                }
                nodes = math.ceil(max(needs.values()))
                rows.append({
                    "users": users, "events a user": events, "state": state, "TB": stored / 1e12, "nodes": nodes,
                    "bound": max(needs, key=lambda name: needs[name]), "GB a shard": stored / nodes / NODE.shards / 1e9,
                    **needs,
                })  # fmt: skip
    return rows


# -- limits ---------------------------------------------------------------------------------------------


def _limits(settings: Settings) -> tuple[list[dict[str, Cell]], dict[str, float], dict[str, float]]:
    directory = _measure_directory(settings)
    readers = in_child(_count_readers, settings.scratch / "readers")
    commits = in_child(_measure_commits, settings.scratch / "commits", settings.seed)
    address_space = 1 << 47
    limits = [
        ("map of a shard at first, of address space", f"{MAP_BYTES >> 30} GiB", "format"),
        ("map of a shard at most", f"{_MAX_MAP_BYTES >> 40} TiB", "format"),
        (
            "shards that one process can hold open at first", f"{address_space // MAP_BYTES:,}",
            "47 bits of address space",
        ),
        (
            "data that one process can map",
            f"{address_space // 4 / 2**40:.0f} to {address_space // 2 / 2**40:.0f} TiB",
            "maps of two to four times the file, 47 bits",
        ),
        ("reader slots of a shard", f"{MAX_READERS:,}", "format"),
        ("snapshots open at once, all processes", f"{readers:,}", "measured"),
        (
            "directory, bytes a chunk / a user", f"{directory['bytes_a_chunk']:.0f} / {directory['bytes_a_user']:.0f}",
            "measured, as allocated",
        ),
        ("listing, us a key, page cache warm", f"{directory['seconds_a_key'] * 1e6:.2f}", "measured"),
        (
            "one writer a shard: durable commits of one event a second", f"{commits['commits_s']:,.0f}",
            "measured, this disk",
        ),
        (
            f"one writer a shard: events a second in commits of {COMMIT_EVENTS:,}", f"{commits['events_s']:,.0f}",
            "measured, this disk",
        ),
    ]  # fmt: skip
    rows: list[dict[str, Cell]] = [{"limit": what, "value": value, "from": source} for what, value, source in limits]
    return rows, directory, commits


def _measure_directory(settings: Settings) -> dict[str, float]:
    """Bytes of memory a chunk and a user, and seconds a key, from one store of many users and one of many chunks."""
    counted = []
    for name, users, events, chunk_events in (
        ("many users", settings.pick(100_000, 2_000_000), 1, 1024), ("many chunks", settings.pick(200, 4_000), 2048, 8),
    ):  # fmt: skip
        log = make_log(Workload(users=users, shortest=events, longest=events, schema=FIVE_COLUMNS), settings.seed)
        build_store(settings.scratch / name, log, shards=4, chunk_events=chunk_events).close()
        counted.append(in_child(_list_keys, settings.scratch / name, log.users[:1]))
    table = np.array([[one["chunks"], one["users"]] for one in counted])
    a_chunk, a_user = np.linalg.solve(table, np.array([one["bytes"] for one in counted])).tolist()
    keys_listed = sum(one["chunks"] + one["users"] for one in counted)
    return {
        "bytes_a_chunk": a_chunk, "bytes_a_user": a_user,
        "seconds_a_key": sum(one["seconds"] for one in counted) / keys_listed,
        **{f"{key}_{place}": value for place, one in enumerate(counted) for key, value in one.items()},
    }  # fmt: skip


def _list_keys(path: Path, user: np.ndarray) -> dict[str, float]:
    with Store.open(path, readonly=True) as store:
        stats = store.stats()
        with store.snapshot() as view:
            tracemalloc.start()
            begin = time.perf_counter()
            view.head(user)
            seconds = time.perf_counter() - begin
            kept, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    return {"chunks": stats.chunks, "users": stats.users, "bytes": kept, "bytes_meanwhile": most, "seconds": seconds}


def _count_readers(path: Path) -> int:
    """Snapshots that can be open at once."""
    with Store.create(path, FIVE_COLUMNS, shards=1) as store, ExitStack() as held:
        for count in range(4 * MAX_READERS):
            try:
                held.enter_context(store.snapshot())
            except StoreFullError:
                return count
    raise RuntimeError(f"{4 * MAX_READERS} snapshots are open and none was refused")


def _measure_commits(path: Path, seed: int) -> dict[str, float]:
    """Durable appends to one shard: of one event each, and of many."""
    log = make_log(Workload(users=200, mean_length=600), seed).in_arrival_order()
    found = {}
    with Store.create(path, log.schema, shards=1) as store:
        store.append(log.rows(0, 64), log.visible_at[:64])
        for name, size, times in (("commits_s", 1, 60), ("events_s", COMMIT_EVENTS, 5)):
            begin, first = time.perf_counter(), 64
            for _ in range(times):
                store.append(log.rows(first, first + size), log.visible_at[first : first + size])
                first += size
            found[name] = times * (size if size > 1 else 1) / (time.perf_counter() - begin)
    return found


# -- charts ---------------------------------------------------------------------------------------------


def _charts(model: Model, found: dict[Config, tuple[Terms, Measured]]) -> list[Chart]:
    def against(title: str, unit: str, points: list[tuple[bool, float, float]]) -> Chart:
        curves = []
        for name, wanted in (("fitted", False), ("held out", True)):
            some = sorted((x, y) for held, x, y in points if held == wanted)
            curves.append(Curve(name, [x for x, _ in some], [y for _, y in some]))
        return Chart(title, f"{unit} measured", "predicted over measured", curves, "points", log_x=True, line_at=1.0)

    stored, written, pages = [], [], []
    for config, (terms, measured) in found.items():
        held = config not in FITTED
        for state in STATES:
            predicted = float(model.stored[state].at(terms.storing()))
            stored.append((held, measured.stored[state] / 1e6, predicted / measured.stored[state]))
        predicted = float(model.written.at(terms.writing(model.pages_a_user)))
        written.append((held, measured.written / 1e6, predicted / measured.written))
        for (state, length, count), values in measured.read.items():
            law = model.read[state, count, "pages read"]
            predicted = float(law.at(model.reading(state, terms, length)))
            pages.append((held, values["pages read"], predicted / values["pages read"]))
    rates = []
    lengths = [128, 256, 512, 1024, 2048, 4096]
    for state in (LIVE, COMPACTED):
        for count in (5, 20):
            made = [min(_bounds(_example(model, state, n, count, 4000)).values()) for n in lengths]
            rates.append(Curve(f"{state}, {count} columns", lengths, made))
    return [
        against("Bytes stored", "MB", stored), against("Bytes written", "MB", written),
        against("Pages read by an example", "pages", pages),
        Chart("Examples a second from one node, cold, 4,000 events a user", "events an example at most", "a second",
              rates, log_x=True, log_y=True),
    ]  # fmt: skip


if __name__ == "__main__":
    run_bench("scaling", __doc__, measure)
