"""What do parsers make of inputs that a fuzzer finds by watching which code they reach?

The parsers of manifests, records, chunk headers, chunks, pointers and examples (:mod:`perf.guidedtargets`) are fuzzed
in turn by atheris, libFuzzer for Python, each in a process of its own, from seeds of stores that are kept. A death, a
hang, too much memory, or an error without a name of ours is a finding; its input is kept beside the report.

``python -m perf.guided [--minutes N]``: a minute in all, or with ``--full`` an hour. Where atheris is not installed
(``pip install 'uihkv[fuzz]'``) seeds are changed blindly, and the report says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from perf.guidedtargets import TARGETS
from perf.harness import Report, Section, Settings, run_bench
from perf.report import Cell

_DONE = re.compile(r"#(\d+)\s+(?:DONE|pulse|NEW|REDUCE|RELOAD|INITED)?\s*cov: (\d+) ft: (\d+)(?: corp: (\d+))?")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target.

    Attributes:
        runs: inputs.
        seconds: that it took.
        features: what libFuzzer counts as new: edges, and how often each was passed.
        inputs: that reached something new, and are kept in its corpus.
        finding: what was found; empty: nothing.

    """

    runs: int
    seconds: float
    features: int
    inputs: int
    finding: str


def fuzz(name: str, seconds: int, scratch: Path, seed: int, *, blind: bool) -> Outcome:
    """Fuzz one target for so long."""
    corpus = scratch / name
    command = [sys.executable, "-m", "perf.guidedtargets", name, "--corpus", str(corpus), "--seconds", str(seconds),
               "--seed", str(seed), *(["--blind"] if blind else [])]  # fmt: skip
    begin = time.monotonic()
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    told = [found for found in map(_DONE.search, done.stderr.splitlines()) if found]
    runs, features = (int(told[-1][1]), int(told[-1][3])) if told else (0, 0)
    kept = len(list(corpus.iterdir())) if corpus.exists() else 0
    finding = "" if done.returncode == 0 else f"status {done.returncode}: {done.stderr[-1500:]}"
    return Outcome(runs, time.monotonic() - begin, features, kept, finding)


def measure(settings: Settings, minutes: float | None = None) -> Report:
    """Fuzz every target in turn."""
    blind = importlib.util.find_spec("atheris") is None
    total_s = 60 * (settings.pick(1.0, 60.0) if minutes is None else minutes)
    rows: list[dict[str, Cell]] = []
    findings = []
    for name in TARGETS:
        one = fuzz(name, max(1, round(total_s / len(TARGETS))), settings.scratch, settings.seed + 1, blind=blind)
        rows.append({"parser": name, "inputs": one.runs, "seconds": one.seconds, "features": one.features,
                     "kept inputs": one.inputs, "findings": int(bool(one.finding))})  # fmt: skip
        if one.finding:
            findings.append(f"{name}: {one.finding}")
    settings.out.mkdir(parents=True, exist_ok=True)
    for file in settings.scratch.glob("finding-*"):
        shutil.copy(file, settings.out / file.name)
    how = "seeds changed blindly: atheris is not installed" if blind else "by coverage (atheris)"
    return Report(sections=[Section(f"Parsers fuzzed, {how}", rows)], facts={"findings": findings, "blind": blind})


def main() -> None:
    """The bench, with how long it runs; a finding is status 1."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--minutes", type=float)
    given, rest = parser.parse_known_args()
    found: list[str] = []

    def run(settings: Settings) -> Report:
        report = measure(settings, given.minutes)
        found.extend(report.facts["findings"])
        return report

    run_bench("guided", __doc__, run, rest)
    if found:
        print("\n".join(["found:", *found]), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
