"""How fast are reads from the disk, and how many bytes does the disk read for them?

The store's pages are dropped from memory (``posix_fadvise``), then a process of its own opens it and reads batches of
pointers, each user once: one page after the other as they are touched, with the pages of each read asked for together
(what a read does), and with the next batch's asked for while one is decoded (:meth:`Snapshot.prefetch`). At random
and in the order of shards and keys; whole histories and the newest events of two columns (in the short form, these at
random only).

*Amplification* is the bytes that the disk read over the stored bytes of the blocks that were needed. Listing the keys
is not among them and is told apart: it reads the trees, and short tails with them.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from perf.harness import Chart, Counters, Curve, Report, Samples, Section, Settings, run_bench
from perf.report import Cell
from perf.workloads import Workload, build_store, make_log
from uihkv import Projection, Store, codec

BATCH = 256
WAYS = ("touched", "together", "prefetched")
ORDERS = ("random", "by shard and key")
WHOLE = "whole histories"
PROJECTIONS = {
    WHOLE: Projection(),
    "newest 256 events, 2 columns": Projection(["item_id", "action"], max_len=256),
}


def measure(settings: Settings) -> Report:
    """Build a store and read it cold in every way."""
    path = settings.scratch / "store"
    users = settings.pick(5_000, 200_000)
    log = make_log(Workload(users=users, mean_length=1_500, shortest=64, longest=16_384), settings.seed)
    build_store(path, log, shards=8).close()
    examples = settings.pick(2_048, 16_384)
    repeats = settings.pick(3, 7)
    size = sum(file.stat().st_size for file in path.glob("shards/*/data.mdb"))
    disk = describe_disk(path)
    rows: list[dict[str, Cell]] = []
    facts: dict[str, Any] = {"disk": disk, "store_bytes": size}
    curves = []
    for name in PROJECTIONS:
        for order in ORDERS if settings.full or name == WHOLE else ORDERS[:1]:
            found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for repeat in range(repeats):
                for way in np.random.default_rng([settings.seed, repeat]).permutation(WAYS).tolist():
                    found[way].append(_read_cold(path, name, order, way, examples, settings.seed + repeat))
            rates = {way: Samples(np.array([run["examples_s"] for run in runs])) for way, runs in found.items()}
            for way, runs in found.items():
                rows.append(
                    {
                        "read": name, "order": order, "pages": way,
                        "examples/s": rates[way],
                        "times touched": Samples(rates[way].values / rates["touched"].values),
                        "disk, MB/s": float(np.median([run["read_bytes"] / run["seconds"] / 1e6 for run in runs])),
                        "amplification": float(np.median([run["read_bytes"] / run["needed_bytes"] for run in runs])),
                        "listing, MB": float(np.median([run["listing_bytes"] for run in runs])) / 1e6,
                    }
                )  # fmt: skip
            facts[f"{name}, {order}"] = found
            curves.append(Curve(f"{name}, {order}", list(WAYS), [rates[way] for way in WAYS]))
    title = f"{examples:,} examples of {users:,} users from {size / 1e6:.0f} MB; {disk['name']}, {disk['file_system']}"
    bound = [{"disk": "sequential, MB/s", "measured": disk["sequential_mb_s"]},
             {"disk": "4 KiB at random, one at a time, us", "measured": disk["random_4k_us"]}]  # fmt: skip
    return Report(
        sections=[Section(title, rows), Section("The disk itself", bound)],
        charts=[Chart("Cold reads", "pages", "examples/s", curves, kind="bars", log_y=True)],
        facts=facts,
    )  # fmt: skip


def drop_pages(path: Path) -> None:
    """Write back and drop a store's pages from memory; no process may have them mapped."""
    for file in path.glob("shards/*/data.mdb"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _read_cold(path: Path, name: str, order: str, way: str, examples: int, seed: int) -> dict[str, float]:
    drop_pages(path)
    command = [sys.executable, "-m", "perf.cold", "--child", str(path), name, order, way, str(examples), str(seed)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def draw_pointers(store: Store, order: str, examples: int, seed: int, users: np.ndarray) -> np.ndarray:
    """Different users, in an order."""
    drawn = np.random.default_rng(seed).permutation(users)[:examples]
    if order == "random":
        return drawn
    return drawn[np.lexsort((drawn, store.shard_of(drawn)))]


def _child(path: str, name: str, order: str, way: str, examples: int, seed: int) -> None:
    """Read batch after batch; seconds and bytes to stdout. Compiles and loads everything on another store first."""
    projection = PROJECTIONS[name]
    if way == "touched":
        setattr(codec, "are_in_memory", lambda address: True)  # noqa: B010
    with Store.open(path, readonly=True) as store, store.snapshot() as snapshot:
        began = Counters.now()
        users = snapshot.users()
        listed = Counters.now() - began
        drawn = draw_pointers(store, order, examples, seed, users)
        with Store.open(path, readonly=True) as other, other.snapshot() as warm:  # loads the kernels, on a few users
            few = warm.head(np.setdiff1d(users, drawn)[:8])
            warm.read(few, projection)
            warm.prefetch(few, projection)
        batches = np.split(drawn, range(BATCH, len(drawn), BATCH))
        needed = events = 0
        before, begin = Counters.now(), time.perf_counter()
        pointers = snapshot.head(batches[0])
        if way == "prefetched":
            snapshot.prefetch(pointers, projection)
        for index in range(len(batches)):
            following = snapshot.head(batches[index + 1]) if index + 1 < len(batches) else None
            if way == "prefetched" and following is not None:
                snapshot.prefetch(following, projection)
            found = snapshot.read(pointers, projection)
            needed += found.cost.bytes_read
            events += int(found.offsets[-1])
            if following is not None:
                pointers = following
        took, used = time.perf_counter() - begin, Counters.now() - before
    json.dump(
        {
            "seconds": took, "examples_s": len(drawn) / took, "events": events, "needed_bytes": needed,
            "read_bytes": used.read_bytes, "major_faults": used.major_faults, "listing_bytes": listed.read_bytes,
        },
        sys.stdout,
    )  # fmt: skip


def describe_disk(path: Path) -> dict[str, Any]:
    """Which disk a path is on, and what it gives in plain reads of a file of ours."""
    device = path.stat().st_dev
    found: dict[str, Any] = {"name": f"{os.major(device)}:{os.minor(device)}", "file_system": "?"}
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if block.exists():
        found["name"] = block.resolve().name
        for fact in ("queue/rotational", "device/model", "size"):
            if (block / fact).exists():
                found[fact.rsplit("/", 1)[-1]] = (block / fact).read_text().strip()
    mounts = Path("/proc/mounts")
    if mounts.exists():
        lines = [line.split()[:3] for line in mounts.read_text().splitlines()]
        above = [line for line in lines if str(path.resolve()).startswith(line[1])]
        found["file_system"] = max(above, key=lambda line: len(line[1]))[2] if above else "?"
    files = sorted(path.glob("shards/*/data.mdb"), key=lambda file: file.stat().st_size)
    drop_pages(path)
    file = os.open(files[-1], os.O_RDONLY)
    size = os.fstat(file).st_size
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    places = np.random.default_rng(0).integers(0, size // mmap.PAGESIZE, 300) * mmap.PAGESIZE
    begin = time.perf_counter()
    for place in places.tolist():
        os.pread(file, mmap.PAGESIZE, place)
    found["random_4k_us"] = (time.perf_counter() - begin) / len(places) * 1e6
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    begin, read = time.perf_counter(), 0
    while chunk := os.pread(file, 1 << 20, read):
        read += len(chunk)
    found["sequential_mb_s"] = read / (time.perf_counter() - begin) / 1e6
    os.close(file)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        place, name, order, way, examples, seed = sys.argv[2:8]
        _child(place, name, order, way, int(examples), int(seed))
    else:
        run_bench("cold", __doc__, measure)
