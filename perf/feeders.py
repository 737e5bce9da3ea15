"""What would others cost that feed a trainer with the same histories?

The loader beside what a user would write instead (:mod:`perf.feeding.ways` says what each way is), at length 1,024,
with ``--full`` at 256, 4,096 and 65,536 too. All of them feed the same examples, whole batches of the same columns as
torch tensors in the process that trains, and each is checked against the log, value by value, before it is timed. Each
way has a process of its own; all are open at once and take turns, whole epochs, in an order drawn anew in each
repetition, so that ratios are within repetitions. The page cache is warm.

Told of each: examples and events a second; processor time of the process and its children for a million examples; the
most memory they held, as resident pages and with shared pages split; the bytes on disk of what it reads (for fat rows
at this one length; a second length takes them a second time); and its speed over that of the loader, with no worker and
with two. Batches hold 256 examples at most.

*Trainers at once*: two processes train from one store at the same time, with different projections, against each alone.

Ways whose library is not installed are named and left out. Their home is any environment that has this project's
dependencies and theirs: ``spdl``, ``litdata`` (as the Makefile installs it) and ``mosaicml-streaming``.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perf.feeding.task import Task
from perf.feeding.ways import OTHERS, WAYS
from perf.harness import Chart, Curve, Report, Samples, Section, Settings, run_bench
from perf.loading import COLUMNS, Bench, batch_size
from perf.processes import PeakMemory, cpu_seconds, list_tree
from perf.report import Cell

SHORT, LONG = (1024,), (256, 1024, 4096, 65_536)
BATCH = 256
"""Most examples a batch; of long histories fewer."""
MOST = {False: (8_192, 8_000_000), True: (32_768, 24_000_000)}
"""Examples, and events of all their windows: as many examples of a length are taken as exceed neither."""
SLOW_S, SLOW_TURNS = 1.5, {False: 2, True: 3}
"""A way that takes longer over an epoch has fewer turns."""

TOGETHER_S = {False: 0.5, True: 1.0}
Rows = list[dict[str, Cell]]
BASE, BEST = "loader", "loader, 2 workers"
PAIRS = {BASE: "another trainer", "loader, 1 worker": "another trainer, 1 worker"}


class WayError(Exception):
    """A way that does not do what it should."""


class WayProcess:
    """The process of one way.

    Args:
        name: of the way.

    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.size_bytes = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perf.feeding.serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def tell(self, do: str, **more: Any) -> None:
        """Say what to do."""
        assert self._process.stdin is not None  # it is a pipe
        self._process.stdin.write(json.dumps({"do": do, "way": self.name, **more}) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """What came of it.

        Raises:
            WayError: when nothing good did.

        """
        assert self._process.stdout is not None  # it is a pipe
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process ended"}
        if "error" in answer:
            raise WayError(f"{self.name}: {answer['error']}")
        return answer

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Tell and hear."""
        self.tell(do, **more)
        return self.hear()

    def hang_up(self) -> None:
        """Tell it that nothing more comes, by which it ends."""
        assert self._process.stdin is not None  # it is a pipe
        self._process.stdin.close()

    def close(self) -> None:
        """Wait for its end."""
        assert self._process.stdout is not None  # it is a pipe
        self._process.stdout.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(slots=True)
class Measured:
    """What was seen of a way at a length: a value each repetition, and the most memory."""

    examples_s: list[float]
    events_s: list[float]
    cpu_s: list[float]
    resident: int = 0
    proportional: int = 0


def measure(settings: Settings) -> Report:
    """All ways, length by length."""
    bench = Bench(settings)
    bench.store.close()
    report = Report()
    absent: dict[str, str] = {}
    lengths = settings.pick(SHORT, LONG)
    rates: dict[int, Rows] = {}
    costs: dict[int, Rows] = {}
    together: list[dict[str, Cell]] = []
    lines = _write_log(bench)
    with ExitStack() as stack:
        ways = {name: WayProcess(name) for name in (*WAYS, *OTHERS)}
        for way in ways.values():
            stack.callback(way.close)
        for way in ways.values():
            stack.callback(way.hang_up)  # comes first, for all of them: they end side by side
        for length in lengths:
            task = _write_examples(bench, length, lines)
            opened = _open(ways, task, absent)
            rates[length], costs[length] = _measure_length(opened, settings, report, length)
            if length == 1024:
                together = _measure_together(opened, settings.pick(3, 15), TOGETHER_S[settings.full])
            for way in opened.values():
                way.tell("close")  # side by side, too
            for way in opened.values():
                way.hear()
                if length == lengths[-1]:
                    way.hang_up()  # it ends while slower ones still close
        raw = 21 * len(bench.log)
    for length in lengths:
        size = min(BATCH, batch_size(length))
        report.sections += [
            Section(f"Others, up to {length:,} events, batches of {size}", rates[length]),
            Section(f"What they take, up to {length:,} events", costs[length]),
        ]
    report.sections.append(Section("Two trainers on one store at once, each over what it does alone", together))
    report.charts += _charts(rates, costs)
    report.notes += [f"{name} is left out: {why}" for name, why in absent.items()]
    report.notes.append(f"The log has {len(bench.log):,} events, {raw / 1e6:.0f} MB in these four columns.")
    return report


def _write_log(bench: Bench) -> np.ndarray:
    """Columns as ``.npy``, users as lines; where each user's line begins."""
    folder = bench.settings.scratch / "log"
    folder.mkdir()
    columns = bench.log.readable
    for name in COLUMNS:
        np.save(folder / f"{name}.npy", columns[name])
    begins = np.zeros(len(bench.log.users), np.int64)
    with (folder / "lines.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for user, (first, last) in enumerate(zip(bench.log.offsets[:-1], bench.log.offsets[1:], strict=True)):
            begins[user] = file.tell()
            cells = [json.dumps(columns[name][first:last].tolist()) for name in COLUMNS]
            writer.writerow([int(bench.log.users[user]), *cells])
    return begins


def _write_examples(bench: Bench, length: int, lines: np.ndarray) -> Task:
    """The first examples, as many as :data:`MOST` allows, in whole batches."""
    folder = bench.settings.scratch / f"length-{length}"
    folder.mkdir()
    size = min(BATCH, batch_size(length))
    window = np.minimum(bench.version, length)
    examples, events = MOST[bench.settings.full]
    fits = min(int(np.searchsorted(np.cumsum(window), events, "right")), examples)
    part = slice(0, max(size, fits // size * size))
    end = bench.log.offsets[bench.user[part]] + bench.version[part]
    columns = {name: column[part] for name, column in bench.columns.items()}
    columns["row"] = np.arange(len(end))
    pq.write_table(pa.table(columns), folder / "slim.parquet")
    np.savez(folder / "examples.npz", start=end - window[part], end=end, line=lines[bench.user[part]], **columns)
    return Task(folder, bench.settings.scratch / "log", bench.path, length, size)


def _open(ways: dict[str, WayProcess], task: Task, absent: dict[str, str]) -> dict[str, WayProcess]:
    """Those that can be opened, each checked against the log; two at once, since nothing is timed."""
    told = [str(task.folder), str(task.log), str(task.store), task.length, task.size]

    def open_one(name: str) -> bool:
        way = ways[name]
        try:
            way.size_bytes = way.ask("open", task=told)["bytes"]
        except WayError as error:
            if "ModuleNotFoundError" not in str(error) and "ImportError" not in str(error):
                raise
            absent[name] = str(error).partition(": ")[2]
            return False
        if name not in OTHERS:
            way.ask("check", whole="JSON" not in name)
        return True

    names = [name for name in ways if name not in absent and (name not in OTHERS or task.length == 1024)]
    with ThreadPoolExecutor(2) as pool:
        return {name: ways[name] for name, opened in zip(names, pool.map(open_one, names), strict=True) if opened}


def _measure_length(
    opened: dict[str, WayProcess], settings: Settings, report: Report, length: int
) -> tuple[Rows, Rows]:
    ways = [way for name, way in opened.items() if name in WAYS]
    found = {way.name: Measured([], [], []) for way in ways}
    rng = np.random.default_rng(settings.seed)
    slow: set[str] = set()
    for turn in range(settings.pick(3, 11)):
        for index in rng.permutation(len(ways)).tolist():
            way = ways[index]
            if turn >= SLOW_TURNS[settings.full] and way.name in slow:
                continue
            before = cpu_seconds(list_tree(way.pid))
            ran = way.ask("run", at_least_s=settings.pick(0.2, 0.5))
            spent = cpu_seconds(list_tree(way.pid)) - before
            if ran["seconds"] > SLOW_S:
                slow.add(way.name)
            its = found[way.name]
            its.examples_s.append(ran["examples"] / ran["seconds"])
            its.events_s.append(ran["events"] / ran["seconds"])
            its.cpu_s.append(spent / ran["examples"] * 1e6)
    for way in ways:
        with PeakMemory(way.pid) as peak:
            way.ask("run", at_least_s=0.3)
        found[way.name].resident, found[way.name].proportional = peak.resident, peak.proportional
    base, best = (np.array(found[name].examples_s) for name in (BASE, BEST))
    rates: list[dict[str, Cell]] = []
    costs: list[dict[str, Cell]] = []
    for way in ways:
        its = found[way.name]
        turns = len(its.examples_s)
        rates.append(
            {
                "way": way.name, "events": length, "examples/s": Samples(np.array(its.examples_s)).median,
                "M events/s": Samples(np.array(its.events_s)).median / 1e6,
                "speed over the loader": Samples(np.array(its.examples_s) / base[:turns]),
                "over 2 workers": Samples(np.array(its.examples_s) / best[:turns]),
            }
        )  # fmt: skip
        costs.append(
            {
                "way": way.name, "events": length, "CPU s a M examples": Samples(np.array(its.cpu_s)).median,
                "MB resident": its.resident / 1e6, "MB proportional": its.proportional / 1e6,
                "MB on disk": way.size_bytes / 1e6,
            }
        )  # fmt: skip
    report.facts[f"length-{length}"] = {
        name: {"examples_s": its.examples_s, "events_s": its.events_s, "cpu_s": its.cpu_s}
        for name, its in found.items()
    }
    return rates, costs


def _measure_together(opened: dict[str, WayProcess], repeats: int, both_s: float) -> list[dict[str, Cell]]:
    """Pairs of trainers, each alone and both at once, in turns."""
    rows: list[dict[str, Cell]] = []
    for name, other in PAIRS.items():
        pair = (opened[name], opened[other])
        alone: tuple[list[float], list[float]] = ([], [])
        both: tuple[list[float], list[float]] = ([], [])
        for way in pair:
            way.ask("run", at_least_s=0.1)
        for _ in range(repeats):
            for way, rates in zip(pair, alone, strict=True):
                rates.append(_rate(way.ask("run", at_least_s=both_s / 2)))
            for way in pair:
                way.tell("run", at_least_s=both_s)
            for way, rates in zip(pair, both, strict=True):
                rates.append(_rate(way.hear()))
        first, second = (np.array(b) / np.array(a) for a, b in zip(alone, both, strict=True))
        rows.append(
            {
                "workers of each": 1 if "1 worker" in name else 0, "first": Samples(first), "second": Samples(second),
                "both together": Samples(first + second),
            }
        )  # fmt: skip
    return rows


def _rate(ran: dict[str, Any]) -> float:
    return float(ran["examples"] / ran["seconds"])


def _charts(rates: dict[int, Rows], costs: dict[int, Rows]) -> list[Chart]:
    names = list(dict.fromkeys(str(row["way"]) for rows in rates.values() for row in rows))

    def curves(tables: dict[int, Rows], key: str) -> list[Curve]:
        return [
            Curve(f"{length:,} events", names, [_value(rows, name, key) for name in names])
            for length, rows in tables.items()
        ]

    speed = curves(rates, "speed over the loader")
    cpu = curves(costs, "CPU s a M examples")
    return [
        Chart("Speed", "", "of the loader's", speed, kind="bars", log_y=True, line_at=1.0),
        Chart("Processor time", "", "s a million examples", cpu, kind="bars", log_y=True),
        Chart("Read from disk", "", "MB", curves(costs, "MB on disk"), kind="bars", log_y=True),
        Chart("Memory, shared pages split", "", "MB", curves(costs, "MB proportional"), kind="bars"),
    ]


def _value(rows: list[dict[str, Cell]], name: str, key: str) -> Samples | float:
    value = next((row[key] for row in rows if row["way"] == name), 0.0)
    return value if isinstance(value, Samples | float) else 0.0


if __name__ == "__main__":
    run_bench("feeders", __doc__, measure)
