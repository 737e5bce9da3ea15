"""Does an ingest of a file five times larger than the memory it may have complete?

A Parquet file is written whose events are those of all users interleaved. Then a process of its own limits its memory
(``RLIMIT_DATA``: private writable memory, which is all of Python's, numpy's, Arrow's and LMDB's heap; a limit on
address space would count LMDB's maps, which reserve 64 GiB a shard and use what the page cache has) and ingests the
file, grouped by user: into a store that is being built, and into an open one by the order of a column. An allocation
past the limit fails, and with it the run. Arrow takes its memory from the C library here: its own allocator sets a
gigabyte aside, needed or not.

*Peak* is the process's largest resident set (``VmHWM``), which also counts pages of files that it has mapped and that
the system takes back when it likes; *heap* is what the limit binds, at its largest when looked at after each batch.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perf.harness import Chart, Curve, Report, Section, Settings, run_bench
from perf.report import Cell
from perf.workloads import FIVE_COLUMNS
from uihkv import Store
from uihkv.ingest import IngestProgress, ingest

LIMIT_BYTES = 384 << 20
TIMES = 5
BATCH_ROWS = 1 << 16
_GROUP_ROWS = 1 << 18


def write_file(path: Path, size: int, users: int, seed: int) -> int:
    """Events of many users, interleaved, until the file is as large as wanted: how many."""
    rng = np.random.default_rng(seed)
    schema = pa.schema(
        [("user_id", pa.int64()), ("ts", pa.int64()), ("item_id", pa.int64()), ("action", pa.uint8()),
         ("surface", pa.uint8()), ("dwell", pa.float32()), ("arrived", pa.int64())]
    )  # fmt: skip
    rows = 0
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        while path.stat().st_size < size:
            n = _GROUP_ROWS
            table = {
                "user_id": rng.integers(0, users, n), "ts": 1_700_000_000_000 + rows + np.arange(n),
                "item_id": rng.integers(0, 1 << 20, n), "action": rng.integers(0, 8, n).astype(np.uint8),
                "surface": rng.integers(0, 4, n).astype(np.uint8), "dwell": rng.random(n, np.float32),
                "arrived": rng.integers(0, 1 << 40, n),
            }  # fmt: skip
            writer.write_table(pa.table(table, schema=schema))
            rows += n
    return rows


def ingest_within(store_path: str, file: str, how: str, limit: int) -> dict[str, Any]:
    """Ingest in this process, which may have so much memory: what it took."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        np.zeros(limit, np.uint8)
        raise RuntimeError("the limit on memory does not bind here")
    except MemoryError:
        pass
    heap = 0

    def look(_: IngestProgress) -> None:
        nonlocal heap
        heap = max(heap, status_bytes("VmData"))

    begin = time.perf_counter()
    order = "arrived" if how == "ordered" else None
    if how == "built":
        with Store.build(store_path, FIVE_COLUMNS) as store:
            result = ingest(store, file, batch_rows=BATCH_ROWS, progress=look)
    else:
        with Store.create(store_path, FIVE_COLUMNS, durability="relaxed") as store:
            result = ingest(store, file, batch_rows=BATCH_ROWS, order_by=order, progress=look)
    took = time.perf_counter() - begin
    return {"appended": result.appended, "peak": status_bytes("VmHWM"), "heap": heap, "took_s": took}


def status_bytes(name: str) -> int:
    """A size of this process, as the system counts it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":")]
    return int(line.split()[1]) * 1024


def measure(settings: Settings) -> Report:
    """Write the file, and ingest it in each way."""
    file = settings.scratch / "events.parquet"
    limit = LIMIT_BYTES * settings.pick(1, 2)
    events = write_file(file, TIMES * limit, settings.pick(40_000, 80_000), settings.seed)
    size = file.stat().st_size
    rows: list[dict[str, Cell]] = []
    ways = settings.pick(("built",), ("built", "ordered"))
    for how in ways:
        code = "import json, sys; from perf.bulkmemory import ingest_within; "
        code += "print(json.dumps(ingest_within(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))"
        store = settings.scratch / how
        command = [sys.executable, "-c", code, str(store), str(file), how, str(limit)]
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError(f"ingest ({how}) did not complete: {ran.stderr[-2000:]}")
        said = json.loads(ran.stdout.splitlines()[-1])
        with Store.open(store, readonly=True) as opened:
            stats = opened.stats()
        if stats.events != events:
            raise RuntimeError(f"{stats.events} events stored of {events}")
        rows.append(
            {
                "way": how, "events": events, "file MB": size / 1e6, "limit MB": limit / 1e6,
                "file / limit": size / limit, "heap MB": said["heap"] / 1e6, "peak MB": said["peak"] / 1e6,
                "events a user": stats.events // stats.users, "M events/s": events / said["took_s"] / 1e6,
            }
        )  # fmt: skip
    sizes = ("file MB", "limit MB", "heap MB", "peak MB")
    curves = [
        Curve(str(row["way"]), [name.removesuffix(" MB") for name in sizes], [float(str(row[name])) for name in sizes])
        for row in rows
    ]
    return Report(
        sections=[Section("A file larger than memory (RLIMIT_DATA)", rows)],
        charts=[Chart("An ingest's memory", "", "MB", curves, kind="bars")],
        facts={"batch_rows": BATCH_ROWS},
    )


if __name__ == "__main__":
    run_bench("bulkmemory", __doc__, measure)
