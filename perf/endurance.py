"""Does the loader come through kills bit for bit, and does anything grow while epochs go by?

- *kills*: a process killed at random moments and resumed;
- *soak*: what the process holds early and late.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from perf.harness import Report, Section, Settings, run_bench
from perf.killed import kill_at_random, read_whole
from perf.loading import Bench, take
from perf.report import Cell


def measure(settings: Settings) -> Report:
    """Kills, then the soak."""
    bench = Bench(settings)
    report = Report()
    with bench.store:
        _kill(bench, report)
        _soak(bench, report)
    return report


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
    run_bench("endurance", __doc__, measure)
