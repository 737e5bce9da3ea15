"""Run the short form of every bench in turn, each in a process of its own.

``python -m perf [NAME ...] [--full] [--out perf/out] [--seed N]``; the exit status is 1 when one fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from perf.harness import add_options

BENCHES: dict[str, str] = {
    "read": "versioned reads against arrays in memory and file formats, and where their time goes",
    "lookup": "versioned reads against slices of plain arrays, in a few seconds",
    "fatrows": "bytes stored, written and read: pointers against fat rows",
    "footprint": "bytes an event on disk, against raw columns and Parquet",
    "ingest": "events a second in bulk and one at a time, and bytes written for them",
    "latency": "how soon another process reads an event after its append returned",
    "protocol": "what is trained on against what was served, and joins on event time beside it",
    "resolve": "pointers resolved a second, against ASOF joins of DuckDB and Polars",
    "throughput": "examples a second, processor time and memory, beside everything that would be picked instead",
    "cold": "reads from the disk: throughput, and bytes read over bytes needed",
    "maintenance": "what compaction brings, and what each pass over a store costs",
    "bulkmemory": "an ingest of a file five times larger than the memory it may have",
    "refresh": "a new snapshot of a store that has grown",
    "loader": "whether a step ever waits, and what each means of the loader brings",
    "feeders": "the loader beside what a user would write instead",
    "endurance": "the loader killed at random moments and resumed, and what grows while epochs go by",
    "soak": "processes of every kind on one store, killed at random: what was done, and what was lost",
    "hostile": "stores with damaged files, opened and used: named errors, and what LMDB's own pages may do",
    "fuzz": "damaged chunks against the decoder: no crash, no hang, no wrong sequence",
}
"""Every bench by its module's name, and what it asks in a few words."""


def main() -> int:
    """Run the benches that are named, else all."""
    parser = argparse.ArgumentParser(
        prog="python -m perf",
        description="Run benches, each in a process of its own.",
        epilog="\n".join(f"{name}: {asks}" for name, asks in BENCHES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benches to run (default: all)")
    add_options(parser)
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(BENCHES))
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    failed = []
    for name in given.names or BENCHES:
        command = [sys.executable, "-m", f"perf.{name}", "--out", str(given.out), "--seed", str(given.seed)]
        if given.full:
            command.append("--full")
        if subprocess.run(command).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
