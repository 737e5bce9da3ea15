"""Run the short form of every bench in turn, each in a process of its own, and collect the report.

``python -m perf [NAME ...] [--full] [--out perf/out] [--seed N] [--collect]``. One that fails, or takes too long, stops
no other: it is named at the end and in the report, and the exit status is 1. Where benches are named, the report is
left alone unless it is asked for.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from perf.harness import add_options

BENCHES: dict[str, str] = {
    "read": "versioned reads against arrays in memory and file formats, and where their time goes",
    "lookup": "versioned reads against slices of plain arrays, in a few seconds",
    "fatrows": "bytes stored, written and read: pointers against fat rows",
    "storage": "the same for many tenants of one data set, and how it grows, beside the paper's figures",
    "footprint": "bytes an event on disk, against raw columns and Parquet",
    "ingest": "events a second in bulk and one at a time, and bytes written for them",
    "latency": "how soon another process reads an event after its append returned",
    "protocol": "what is trained on against what was served, and joins on event time beside it",
    "resolve": "pointers resolved a second, against ASOF joins of DuckDB and Polars",
    "throughput": "examples a second, processor time and memory, beside everything that would be picked instead",
    "scaling": "laws of bytes, pages and processor time, tried on stores held out; one node and many, and limits",
    "cold": "reads from the disk: throughput, and bytes read over bytes needed",
    "maintenance": "what compaction brings, and what each pass over a store costs",
    "bulkmemory": "an ingest of a file five times larger than the memory it may have",
    "refresh": "a new snapshot of a store that has grown",
    "loader": "whether a step ever waits, and what each means of the loader brings",
    "feeders": "the loader beside what a user would write instead",
    "endurance": "the loader killed at random moments and resumed, and what grows while epochs go by",
    "length": "what longer histories buy a model on real logs, and what a join on event time fakes",
    "held": "what a snapshot costs that is held for long: what files grow by, and what keeps them from reusing pages",
    "soak": "processes of every kind on one store, killed at random: what was done, and what was lost",
    "cuts": "operations cut off at every system call, by kills and power cuts: all there, or not at all",
    "hostile": "stores with damaged files, opened and used: named errors, and what LMDB's own pages may do",
    "guided": "parsers fuzzed by the code that inputs reach: named errors, and no crash, hang or wrong sequence",
    "fuzz": "damaged chunks against the decoder: no crash, no hang, no wrong sequence",
}
"""Every bench by its module's name, and what it asks in a few words."""


SHORTER: dict[str, tuple[str, ...]] = dict.fromkeys(("endurance", "soak", "guided"), ("--minutes", "0.3"))
"""Options that keep all short forms together below 15 minutes on two cores; by themselves these benches run longer."""

UNTIMED = (
    "length", "endurance", "bulkmemory", "storage", "fatrows", "hostile", "guided", "soak", "footprint", "protocol",
    "cuts", "fuzz", "held",
)  # fmt: skip
"""Benches that find bytes and outcomes, not times: two of them run at once, at the end, the longest first."""

LIMIT_S = {False: 600, True: 4 * 3600}
"""How long a bench's short and full forms may take before they are ended."""


def run_apart(command: Sequence[str], limit_s: float, aside: bool = False) -> str:
    """Run a bench in a process group of its own: how it failed; empty: it did not.

    Args:
        command: what to run.
        limit_s: after how long it is ended.
        aside: others run at the same time: what it says is said when it is done.

    """
    with tempfile.TemporaryFile() as said:
        words = said if aside else None
        process = subprocess.Popen(command, start_new_session=True, stdout=words, stderr=words)
        try:
            status = process.wait(limit_s)
            return f"exit status {status}" if status else ""
        except subprocess.TimeoutExpired:
            return f"not done after {limit_s:.0f} s"
        finally:
            if process.poll() is None:  # too long, or we are interrupted
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if aside:
                said.seek(0)
                print(said.read().decode(errors="replace"), end="", flush=True)


@dataclass(frozen=True, slots=True)
class Ran:
    """A bench that has run: how it failed (empty: it did not), and seconds."""

    name: str
    failed: str
    took_s: float


def run_benches(names: Sequence[str], out: Path, seed: int, full: bool) -> list[Ran]:
    """Run benches one after the other; those of all that are not timed two at once, at the end."""

    def run(name: str, aside: bool) -> Ran:
        shorter = SHORTER.get(name, ()) if whole and not full else ()
        options = ["--out", str(out), "--seed", str(seed), *(["--full"] if full else []), *shorter]
        begin = time.time()
        failed = run_apart([sys.executable, "-m", f"perf.{name}", *options], LIMIT_S[full], aside)
        if failed:
            note_failure(out / f"{name}.json", name, failed, options, begin)
        return Ran(name, failed, time.time() - begin)

    whole = set(names) == set(BENCHES)
    aside = [name for name in UNTIMED if whole and name in BENCHES]
    ran = [run(name, False) for name in names if name not in aside]
    with ThreadPoolExecutor(2) as pool:
        return ran + list(pool.map(run, aside, [True] * len(aside)))


def main() -> int:
    """Run the benches that are named, else all."""
    parser = argparse.ArgumentParser(
        prog="python -m perf",
        description="Run benches, each in a process of its own, and collect the report.",
        epilog="\n".join(f"{name}: {asks}" for name, asks in BENCHES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benches to run (default: all)")
    parser.add_argument("--collect", action="store_true", help="make the report although benches are named")
    add_options(parser)
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(BENCHES))
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    begin = time.time()
    ran = run_benches(given.names or list(BENCHES), given.out, given.seed, given.full)
    each = ", ".join(f"{one.name} {one.took_s:.0f}" for one in ran)
    print(f"{time.time() - begin:.0f} s: {each}")
    wrong = [f"failed: {one.name}, {one.failed}" for one in ran if one.failed]
    if given.collect or not given.names:
        from perf.collect import collect

        wrong += [f"not found: {words}" for words in collect(given.out, given.names)]
    for words in wrong:
        print(words, file=sys.stderr)
    return 1 if wrong else 0


def note_failure(path: Path, name: str, how: str, options: Sequence[str], begin: float) -> None:
    """Leave word of a failure where the bench's outcome would be, or in it, if it had got that far."""
    import json
    from datetime import UTC, datetime

    from perf.report import write_document

    document = {"bench": name, "question": BENCHES[name], "run": {"arguments": list(options)}}
    if path.exists() and path.stat().st_mtime >= begin:
        document = json.loads(path.read_text())
    when = datetime.now(UTC).isoformat(timespec="seconds")
    write_document(path, document | {"when": when, "failed": how})


if __name__ == "__main__":
    sys.exit(main())
