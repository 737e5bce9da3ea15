"""How soon can a trainer in another process read an event, counted from when its append returned?

One process appends an event at a time and notes the moment at which each append returned; both clocks are the machine's
monotonic one. Another process takes snapshot after snapshot and notes when it first sees each event; or it reads its
pointer with a loader's stream, as a trainer would, and notes when the batch with it arrives.
Percentiles in milliseconds. An append returns when it is durable.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perf.harness import Chart, Curve, Report, Section, Settings, run_bench
from perf.report import Cell
from perf.workloads import FIVE_COLUMNS, Workload, build_store, make_log
from uihkv import Projection, Store

_USER = 1 << 50
"""Not among the log's."""


def measure(settings: Settings) -> Report:
    """Append here, read there."""
    events = settings.pick(200, 1000)
    rows: list[dict[str, Cell]] = []
    facts: dict[str, object] = {}
    curves: list[Curve] = []
    for users in settings.pick((0, 20_000), (0, 20_000, 500_000)):
        path = settings.scratch / f"store-{users}"
        if users:
            build_store(path, make_log(Workload(users=users, mean_length=50), settings.seed)).close()
        else:
            Store.create(path, FIVE_COLUMNS, shards=8).close()
        for way in ("snapshot", "stream"):
            lags_ms = _measure_way(path, way, events) * 1e3
            p50, p90, p99 = (float(value) for value in np.percentile(lags_ms, (50, 90, 99)))
            rows.append({"other users": users, "read by": way, "p50, ms": p50, "p90, ms": p90, "p99, ms": p99})
            facts[f"{users}-{way}"] = lags_ms.tolist()
            ordered, share = np.sort(lags_ms), np.linspace(0, 1, 41)
            curves.append(Curve(f"{way}, {users:,} others", np.quantile(ordered, share).tolist(), share.tolist()))
    return Report(
        sections=[Section(f"From append's return to readable elsewhere, {events} events", rows)],
        charts=[Chart("Readable in another process", "ms after the append returned", "share of events", curves)],
        facts=facts,
    )


def _measure_way(path: Path, way: str, events: int) -> NDArray[np.float64]:
    """Seconds from each append's return until the other process had the event: float64[events]."""
    with Store.open(path) as store:
        with store.snapshot() as snapshot:
            first = int(snapshot.head([_USER]).version[0])
        reader = subprocess.Popen(
            [sys.executable, "-m", "perf.latency", way, path, str(first), str(events)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert reader.stdin is not None and reader.stdout is not None  # they are pipes
        returned = np.empty(events)
        schema = pa.schema([("user_id", pa.int64()), ("version", pa.int64())])
        stream = pa.ipc.new_stream(pa.PythonFile(reader.stdin, mode="w"), schema)
        stream.write_table(pa.table({"user_id": [_USER], "version": [first]}, schema=schema))  # to get warm
        reader.stdin.flush()
        reader.stdout.readline()  # it is ready
        for number in range(events):
            data = {name: np.zeros(1, FIVE_COLUMNS[name].numpy_dtype) for name in FIVE_COLUMNS.names}
            store.append({"user_id": [_USER], "ts": [number], **data})
            returned[number] = time.monotonic()
            stream.write_table(pa.table({"user_id": [_USER], "version": [first + number + 1]}, schema=schema))
            reader.stdin.flush()
            time.sleep(0.005)
        stream.close()
        reader.stdin.close()
        seen = np.array([float(line) for line in reader.stdout], np.float64)
        if reader.wait() or len(seen) != events:
            raise RuntimeError(f"the reading process saw {len(seen)} of {events} events")
    return np.maximum(seen - returned, 0.0)


def watch_snapshots(path: Path, first: int, events: int) -> None:
    """Print the moment at which each event was first seen in a snapshot."""
    with Store.open(path, readonly=True) as store:
        with store.snapshot() as snapshot:
            snapshot.read(snapshot.head([_USER]))
        print("ready", flush=True)
        seen = first
        while seen < first + events:
            with store.snapshot() as snapshot:
                heads = snapshot.head([_USER])
                snapshot.read(heads, Projection(["item_id"], max_len=64))
            now, head = time.monotonic(), int(heads.version[0])
            for _ in range(head - seen):
                print(now)
            seen = head


def watch_stream(path: Path) -> None:
    """Print the moment at which the batch with each event's pointer was there."""
    from loader import ArrowStream, Loader, StreamExamples

    with Store.open(path, readonly=True) as store:
        stream = StreamExamples(ArrowStream(sys.stdin), deadline_s=60)
        with Loader(store, stream, Projection(["item_id"], max_len=64), batch_size=1, prefetch=1) as loader:
            passing = iter(loader)
            next(passing)
            print("ready", flush=True)
            for _ in passing:
                print(time.monotonic())


if __name__ == "__main__":
    if sys.argv[1:2] == ["snapshot"]:
        watch_snapshots(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["stream"]:
        watch_stream(Path(sys.argv[2]))
    else:
        run_bench("latency", __doc__, measure)
