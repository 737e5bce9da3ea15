"""How a bench is run: options, scratch room, and where its outcome goes.

A bench module reads::

    \"\"\"The question, in a line.

    What is measured, and what would answer it.
    \"\"\"

    def measure(settings: Settings) -> Report:
        compared = interleave({"store": read_store, "arrays": read_arrays}, repeats=9, baseline="arrays")
        row = {"length": 128, "speed-up": compared.speedup("store")}
        return Report(sections=[Section("Read", [row])], charts=[...], facts={"read": compared.describe()})

    if __name__ == "__main__":
        run_bench("NAME", __doc__, measure)

and is named in :data:`perf.__main__.BENCHES`. A report without charts gets one of its tables' figures. How it gets into
the report says :mod:`perf`. The names that a bench needs are all importable from here.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from perf.intervals import Interval
from perf.machine import CoreTime, Counters, Machine, describe_machine, installed_version
from perf.report import Chart, Curve, Report, Section, draw, plot_sections, show, write_json
from perf.timing import Comparison, Line, Samples, interleave, timed

__all__ = [
    "Chart", "Comparison", "Counters", "Curve", "Interval", "Line", "Machine", "Report", "Samples", "Section",
    "Settings", "describe_machine", "installed_version", "interleave", "run_bench", "timed",
]  # fmt: skip

OUT = Path("perf/out")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a bench is given.

    Attributes:
        full: the long form: more sizes, more repetitions. The short form ends within three minutes.
        seed: of everything drawn.
        scratch: an empty directory that is taken away afterwards.
        out: where outcomes go, for benches that keep more than the report.

    """

    full: bool
    seed: int
    scratch: Path
    out: Path

    def pick(self, short: _T, full: _T) -> _T:
        """One value or the other."""
        return full if self.full else short


def run_bench(
    name: str, doc: str | None, measure: Callable[[Settings], Report], arguments: Sequence[str] | None = None
) -> None:
    """Run one bench from the command line: print its tables, write ``NAME.json`` and ``NAME.png``."""
    question = (doc or name).strip()
    parser = argparse.ArgumentParser(prog=f"python -m perf.{name}", description=question.splitlines()[0])
    add_options(parser)
    parser.add_argument("--scratch", type=Path, help="folder for what is built (default: the system's temporary one)")
    given = parser.parse_args(arguments)
    machine = describe_machine()
    console = Console()
    console.print(f"[bold]{name}[/bold]: {question.splitlines()[0]}")
    begin, before, cores, load = time.perf_counter(), Counters.now(), CoreTime.now(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix=f"perf-{name}-", dir=given.scratch) as scratch:
        report = measure(Settings(given.full, given.seed, Path(scratch), given.out))
    took, worked = time.perf_counter() - begin, (CoreTime.now() - cores).shares(machine.cores)
    run = {
        "arguments": _typed(name, arguments),
        "full": given.full,
        "seed": given.seed,
        "took_s": took,
        "load": [load, os.getloadavg()[0]],
        "cores": worked,
        "counters": (Counters.now() - before).describe(),
    }
    show(console, report)
    path = given.out / f"{name}.json"
    report.charts = report.charts or plot_sections(report.sections)
    write_json(path, name, question, report, machine, run)
    written = [str(path)]
    if report.charts:
        draw(given.out / f"{name}.png", f"{name}, {machine.cpu}, {machine.cores} cores", report.charts)
        written.append(str(given.out / f"{name}.png"))
    disturbed = f"others took {worked['others']:.0%} of the cores, {worked['stolen']:.0%} were stolen"
    console.print(f"{took:.0f} s ({disturbed}); wrote {', '.join(written)}", highlight=False)


def _typed(name: str, arguments: Sequence[str] | None) -> list[str]:
    """What was typed behind the bench's name; some of it a bench may have taken before it handed on the rest."""
    started = getattr(sys.modules["__main__"], "__spec__", None)
    by_name = started is not None and started.name == f"perf.{name}"
    return sys.argv[1:] if by_name or arguments is None else list(arguments)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all benches share."""
    parser.add_argument("--full", action="store_true", help="the long form: more sizes and repetitions")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where JSON and pictures go (default: {OUT})")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (default: 0)")
