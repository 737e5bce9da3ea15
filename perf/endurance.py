"""Does the loader come through kills bit for bit, and does anything grow while epochs go by?

*Kills*: training processes, with 0, 1 and 2 workers, get SIGKILL at random moments, 12 times in all (``--full``: 50
times each), and are started again from the state that they wrote after their newest batch. All their batches, one
behind the other, must equal those of an uninterrupted epoch bit for bit, and no worker may outlive its trainer.

*Soak*: for ``--minutes N`` (2; ``--full``: 30) rounds of everything that loaders meet (:mod:`perf.longrun`), beside a
process that appends and trims. After each round no pass is open, and it is noted what is held. A quantity *grows*, and
the bench ends with status 1, if over the time watched, less the first quarter, the median slope between all pairs of
looks or the step from the first to the last third adds up to more than it is allowed (:mod:`perf.trends`):

- descriptors, threads, worker processes, reader slots and open read transactions: not by one;
- shared slabs, and the descriptors that their maps hold: each worker makes one when it needs it and none is free, so
  their number climbs to where it never was needed before, and may not pass its bound, for each worker the batches
  ahead, two with the consumer, and the page that says which are free;
- memory of this process, of its workers, and of all together: by 16 MB or a twentieth; the store and its free pages:
  by 4 MB or a tenth.

``--part kills`` or ``--part soak`` does one of the two. ``--leak KIND`` soaks and holds on to something in each round,
to see the verdict fail.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perf.harness import Chart, Curve, Report, Section, Settings, run_bench
from perf.killed import kill_at_random, read_whole
from perf.loading import Bench
from perf.longrun import SLABS, LongRun, rounds
from perf.report import Cell
from perf.trends import LEAST, Trend, judge

KILLS = {0: 4, 1: 4, 2: 4}
"""Each takes as long as starting a process of torch's does."""

LIFE_S = 0.15
LEAKS = ("descriptors", "memory", "threads", "slabs", "slots")

_COUNTED = 0.5
"""Growth of what is counted in whole numbers that is none."""

ALLOWED: dict[str, tuple[float, float, float | None]] = {
    "memory": (16.0, 0.05, None),
    "memory of workers": (16.0, 0.05, None),
    "memory of all, shared once": (16.0, 0.05, None),
    "descriptors": (_COUNTED, 0.0, None),
    "descriptors of slabs": (SLABS, 0.0, SLABS),
    "descriptors of workers": (SLABS, 0.0, None),
    "shared slabs": (SLABS, 0.0, SLABS),
    "threads": (_COUNTED, 0.0, None),
    "threads of workers": (_COUNTED, 0.0, None),
    "workers": (_COUNTED, 0.0, None),
    "reader slots": (_COUNTED, 0.0, None),
    "read transactions": (_COUNTED, 0.0, None),
    "store": (4.0, 0.1, None),
    "free pages": (4.0, 0.1, None),
}
"""How much each quantity may grow, at least this share of it, and what it may never exceed; megabytes or a count."""


def measure(
    settings: Settings, minutes: float | None = None, leak: str | None = None, part: str | None = None
) -> Report:
    """Kills, then the soak; ``facts["found"]`` says what grew."""
    bench = Bench(settings)
    report = Report(facts={"found": []})
    with bench.store:
        if leak is None and part != "soak":
            _kill(bench, report)
        if part != "kills":
            _soak(bench, report, settings.pick(2.0, 30.0) if minutes is None else minutes, leak)
    return report


def _kill(bench: Bench, report: Report) -> None:
    path = bench.settings.scratch / "examples.parquet"
    pq.write_table(pa.table(bench.columns), path)
    whole = read_whole(bench.path, path)

    def kill(workers: int) -> list[str]:
        log = bench.settings.scratch / f"killed-{workers}"
        kills = bench.settings.pick(KILLS[workers], 50)
        return kill_at_random(bench.path, path, log, workers, kills, bench.settings.seed + workers, LIFE_S)

    started = time.perf_counter()
    with ThreadPoolExecutor(len(KILLS)) as pool:  # side by side: they disturb each other, which is welcome
        found = dict(zip(KILLS, pool.map(kill, KILLS), strict=True))
    rows: list[dict[str, Cell]] = []
    for workers, digests in found.items():
        rows.append(
            {
                "workers": workers, "SIGKILLs": bench.settings.pick(KILLS[workers], 50), "batches": len(digests),
                "bit for bit": digests == whole,
            }
        )  # fmt: skip
        if digests != whole:
            report.facts["found"].append(f"with {workers} workers the stream of killed processes is another one")
    report.facts["kills_s"] = time.perf_counter() - started
    report.sections.append(Section("Resumed after SIGKILL at random moments, beside an uninterrupted epoch", rows))


def _soak(bench: Bench, report: Report, minutes: float, leak: str | None) -> None:
    at_s: list[float] = []
    looks: list[dict[str, float]] = []
    with LongRun(bench, leak) as run:
        started = time.monotonic()
        for look in rounds(run):
            at_s.append(time.monotonic() - started)
            looks.append(look)
            print(f"{at_s[-1]:.0f} s, round {len(looks)}: {look}", file=sys.stderr, flush=True)
            if at_s[-1] > 60 * minutes and len(looks) >= LEAST:
                break
    trends: dict[str, Trend] = {}
    rows: list[dict[str, Cell]] = []
    for name, (allowed, share, limit) in ALLOWED.items():
        trend = trends[name] = judge(
            at_s, [look[name] for look in looks], allowed=allowed, share=share, limit=limit
        )  # fmt: skip
        rows.append(
            {
                "held": name, "early": trend.early, "late": trend.late, "most": trend.most, "slope adds": trend.slope,
                "allowed": trend.allowed, "limit": limit, "grows": trend.grows,
            }
        )  # fmt: skip
        if trend.grows:
            report.facts["found"].append(
                f"{name}: {trend.early:.4g} early, {trend.late:.4g} late, {trend.most:.4g} at most; the slope adds "
                f"{trend.slope:.3g} where {trend.allowed:.3g} is allowed"
            )
    done: list[dict[str, Cell]] = [{"what": what, "times": times} for what, times in run.done.items()]
    report.facts |= {"minutes": minutes, "rounds": len(looks)}
    report.sections.append(Section(f"Soak of {minutes:g} minutes, {len(looks)} rounds: what was done", done))
    report.sections.append(Section("What is held between rounds (memory, store: MB)", rows))
    shown = np.unique(np.linspace(0, len(looks) - 1, min(len(looks), 150)).astype(int)).tolist()
    report.charts += [
        Chart(
            title, "seconds", unit,
            [Curve(name, [at_s[look] for look in shown], [looks[look][name] for look in shown]) for name in names],
        )
        for title, unit, names in (
            ("Memory between rounds", "MB", ("memory", "memory of workers", "memory of all, shared once")),
            ("Held between rounds", "count", ("descriptors", "shared slabs", "threads", "reader slots")),
            ("Store", "MB", ("store", "free pages")),
        )
    ]  # fmt: skip


def main() -> None:
    """The bench, with how long it soaks."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--leak", choices=LEAKS)
    parser.add_argument("--part", choices=("kills", "soak"))
    given, rest = parser.parse_known_args()
    found: list[str] = []

    def run(settings: Settings) -> Report:
        report = measure(settings, given.minutes, given.leak, given.part)
        found.extend(report.facts["found"])
        return report

    run_bench("endurance", __doc__, run, rest)
    for what in found:
        print(f"found: {what}", file=sys.stderr)
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
