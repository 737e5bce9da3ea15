"""What does an example's history cost, by this store and by everything that would be picked instead?

Examples and events a second, processor seconds and memory, each way of :mod:`perf.access` in a process of its own, at
each length: five columns, windows of exactly so many events, batches of about a million events, page cache warm. All
give new flat arrays, and all of what each gives was compared with the log before it was timed (of CSV, a few rows).

- *random*: examples of users drawn at random, in random order;
- *by user*: eight examples of each user, sorted by user (in the short form at one length).

The processes stay open and are asked in turn, in an order drawn anew each round, so that ratios are formed within a
round. Processor time is of all threads: ways that use several look better by the clock than by it. Memory is the most
that was resident since the packages were imported, less what was resident before (*MB before*): what is mapped counts
where it was touched, and its share at the end is shown (*of files*), as the system can drop it at any time. *MB first*
is what a first read of a few examples takes: indexes, and what packages load at first use (of the store some fifty MB
of compiler that makes its kernels callable). None of it grows with the number of examples. Whoever reads only a few
examples a call, because a whole batch would take long, is timed on those.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from perf.access import STORE, WAYS
from perf.cases import BY_USER, RANDOM, Case
from perf.harness import Chart, Curve, Report, Samples, Section, Settings, run_bench
from perf.peers import INTERPRETER
from perf.report import Cell
from perf.workloads import Log, Workload, make_log

BATCH, BATCH_EVENTS = 1024, 1 << 20
A_USER = 8
PASS_S = 0.08
"""What one way's turn is meant to take."""
FEW = 16
BETTER = 0.95
"""Below this share of the store's a peer is called better."""


def measure(settings: Settings) -> Report:
    """Build all forms, and read them in turn."""
    lengths = settings.pick((1024, 16_384), (256, 1024, 4096, 16_384))
    by_user = settings.pick((1024,), lengths)
    cases: dict[tuple[int, str], Case] = {}
    for length in lengths:
        orders = (RANDOM, BY_USER) if length in by_user else (RANDOM,)
        cases.update({(length, order): case for order, case in _make_cases(length, orders, settings).items()})
    sizes, missing, versions = _build(cases)
    found: dict[tuple[int, str], dict[str, list[dict[str, Any]]]] = {}
    for (length, order), case in cases.items():
        names = [name for name in WAYS if (name, length, order) in sizes]
        found[length, order] = _ask_in_turn(case, order, names, settings)
    rows: dict[str, list[dict[str, Cell]]] = {RANDOM: [], BY_USER: []}
    for (length, order), answers in found.items():
        for name, passes in answers.items():
            rows[order].append(_row(length, name, passes, answers[STORE], sizes[name, length, order]))
    return Report(
        sections=[
            Section(f"{order}: x time and x cpu are over the store's with LZ4, of the same round", rows[order])
            for order in rows
        ],
        charts=[*_charts(rows, list(lengths))],
        notes=[*_notes(rows), *(f"left out: {name}: {why}" for name, why in missing.items())],
        facts={
            "ways": {name: way.what for name, way in WAYS.items()},
            "missing": missing,
            "versions": versions,
            "log_events": {length: int(case.offsets[-1]) for (length, _), case in cases.items()},
            "examples": {f"{length}, {order}": len(case.row) for (length, order), case in cases.items()},
            "passes": {
                f"{length}, {order}": {name: _merged(passes) for name, passes in answers.items()}
                for (length, order), answers in found.items()
            },
            "stored_bytes": {f"{name}, {length}, {order}": size for (name, length, order), size in sizes.items()},
        },
    )


def _make_cases(length: int, orders: tuple[str, ...], settings: Settings) -> dict[str, Case]:
    """A log whose histories are half as long again as the windows, and examples in these orders."""
    events = settings.pick(1, 5) << 21
    users = max(2 * A_USER, events * 2 // (3 * length))
    log = make_log(Workload(users=users, shortest=length * 3 // 2, longest=length * 3 // 2), settings.seed)
    count = max(2 * A_USER, events // length)
    rng = np.random.default_rng([settings.seed, length])
    few = rng.choice(users, -(-count // A_USER))
    chosen = {RANDOM: rng.integers(0, users, count), BY_USER: np.repeat(np.sort(few), A_USER)[:count]}
    batch = max(A_USER, min(BATCH, BATCH_EVENTS // length))
    return {
        order: _save(log, np.asarray(chosen[order], np.int64), length, batch, settings.scratch, order, rng)
        for order in orders
    }


def _save(
    log: Log, row: np.ndarray, length: int, batch: int, scratch: Path, order: str, rng: np.random.Generator
) -> Case:
    version = length + (rng.random(len(row)) * (log.lengths[row] - length + 1)).astype(np.int64)
    return Case.save(
        scratch / f"{length}-{order.replace(' ', '-')}", scratch / f"{length}", log, row, version, length, batch
    )


# -- the processes --------------------------------------------------------------------------------------


def _command(do: str, name: str, order: str, cases: list[Case]) -> list[str]:
    python = os.environ.get(INTERPRETER, sys.executable)
    folders = [str(case.folder) for case in cases]
    return [python, "-W", "ignore", "-m", "perf.access_process", do, name, order, *folders]


def _build(
    cases: dict[tuple[int, str], Case],
) -> tuple[dict[tuple[str, int, str], int], dict[str, str], dict[str, str]]:
    """Bytes of every form by way, length and order; why ways are missing; and versions of packages."""
    sizes: dict[tuple[str, int, str], int] = {}
    missing: dict[str, str] = {}
    versions: dict[str, str] = {}

    def build(name: str, order: str) -> None:
        mine = {length: case for (length, other), case in cases.items() if other == order}
        done = subprocess.run(_command("build", name, order, list(mine.values())), capture_output=True, text=True)
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if answers and "missing" in answers[0]:
            missing[name] = answers[0]["missing"]
            return
        if done.returncode:
            raise RuntimeError(f"{name}, {order}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
        for length, answer in zip(mine, answers, strict=True):
            sizes[name, length, order] = answer["bytes"]
            versions.update(answer["versions"])

    with ThreadPoolExecutor(2) as pool:
        for order in (RANDOM, BY_USER):  # the second finds what the first has built of the log
            names = [name for name, way in WAYS.items() if order == RANDOM or way.by_user]
            list(pool.map(build, names, [order] * len(names)))
    return sizes, missing, versions


class _Server:
    """A way's process that has a case open."""

    def __init__(self, name: str, case: Case, order: str) -> None:
        self._name = name
        command = _command("serve", name, order, [case])
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer(self) -> dict[str, Any]:
        """The next line that is an answer."""
        assert self._process.stdout is not None  # it is a pipe
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"the process of {self._name!r} ended with status {self._process.wait()}")

    def ask(self, calls: int, examples: int) -> dict[str, Any]:
        """Read so many examples of so many batches."""
        assert self._process.stdin is not None  # it is a pipe
        self._process.stdin.write(json.dumps({"calls": calls, "examples": examples}) + "\n")
        self._process.stdin.flush()
        return {**self.answer(), "examples": calls * examples}

    def hang_up(self) -> None:
        """Tell it that nothing more comes, by which it ends."""
        assert self._process.stdin is not None  # it is a pipe
        self._process.stdin.close()

    def close(self) -> None:
        """Wait for its end."""
        self._process.wait()


def _ask_in_turn(case: Case, order: str, names: list[str], settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """What each way answered in each round."""
    servers = {name: _Server(name, case, order) for name in names}
    try:
        plans: dict[str, list[int]] = {}
        first: dict[str, int] = {}
        for name, server in servers.items():
            server.answer()
            first[name], *plans[name] = _plan(server, case, WAYS[name].as_they_lie)
        rng = np.random.default_rng(settings.seed)
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(settings.pick(4, 11)):
            for index in rng.permutation(len(names)).tolist():
                name = names[index]
                answers[name].append({**servers[name].ask(*plans[name]), "first_bytes": first[name]})
    finally:
        for server in servers.values():
            server.hang_up()  # all of them first: they end side by side
        for server in servers.values():
            server.close()
    return answers


def _plan(server: _Server, case: Case, whole: bool) -> tuple[int, int, int]:
    """Peak memory of a first read, calls of a pass, and examples of each: a batch where that does not take long."""
    batch = min(case.batch, len(case.row))
    examples = batch if whole else min(FEW, batch)
    first = server.ask(1, examples)["peak_bytes"]
    took = server.ask(1, examples)["seconds"]
    while examples < batch and took < PASS_S:
        examples = min(batch, 8 * examples)
        took = server.ask(1, examples)["seconds"]
    return first, max(1, round(PASS_S / took)), examples


# -- the tables -----------------------------------------------------------------------------------------


def _row(
    length: int, name: str, passes: list[dict[str, Any]], ours: list[dict[str, Any]], size: int
) -> dict[str, Cell]:
    def each(key: str, of: list[dict[str, Any]] = passes) -> np.ndarray:
        return np.array([one[key] / one["examples"] for one in of])

    seconds, used = each("seconds"), each("processor_s")
    peak = max(one["peak_bytes"] for one in passes)
    return {
        "events": length,
        "way": name,
        "examples/s": Samples(1 / seconds),
        "M events/s": float(np.median(length / seconds)) / 1e6,
        "x time": Samples(seconds / each("seconds", ours)),
        "cpu s a M examples": Samples(used * 1e6),
        "x cpu": Samples(used / each("processor_s", ours)),
        "MB peak": max(0, peak - passes[-1]["baseline_bytes"]) / 1e6,
        "MB first": max(0, passes[-1]["first_bytes"] - passes[-1]["baseline_bytes"]) / 1e6,
        "of files": passes[-1]["mapped_bytes"] / 1e6,
        "MB before": passes[-1]["baseline_bytes"] / 1e6,
        "MB stored": size / 1e6,
    }


def _merged(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """Answers of all rounds: what is the same in each once."""
    every = {key: [one[key] for one in passes] for key in passes[0]}
    return {key: values[0] if len(set(values)) == 1 else values for key, values in every.items()}


def _number(value: Cell) -> float:
    """A cell's figure, of several the median."""
    return value.median if isinstance(value, Samples) else float(str(value))


def _notes(rows: dict[str, list[dict[str, Cell]]]) -> list[str]:
    """Where others are better, as sentences."""
    notes = []
    for order, some in rows.items():
        for length in dict.fromkeys(row["events"] for row in some):
            mine = [row for row in some if row["events"] == length]
            ours = next(row for row in mine if row["way"] == STORE)
            for what, key in (
                ("faster", "examples/s"), ("cheaper in processor time", "cpu s a M examples"),
                ("smaller on disk", "MB stored"), ("smaller in memory", "MB peak"),
            ):  # fmt: skip
                against = {str(row["way"]): _number(row[key]) / _number(ours[key]) for row in mine}
                if key == "examples/s":
                    against = {str(row["way"]): _number(row["x time"]) for row in mine}
                better = sorted((ratio, way) for way, ratio in against.items() if ratio < BETTER and way[:5] != "store")
                if better:
                    named = ", ".join(f"{way} ({ratio:.2f})" for ratio, way in better)
                    notes.append(f"{what} than the store with LZ4, {order}, {length:,} events: {named}")
    return notes


def _charts(rows: dict[str, list[dict[str, Cell]]], lengths: list[int]) -> list[Chart]:
    def curves(order: str, key: str) -> list[Curve]:
        made = []
        for length in lengths:
            some = [row for row in rows[order] if row["events"] == length]
            values = [value for row in some if isinstance(value := row[key], Samples | float)]
            if values:
                made.append(Curve(f"{length:,} events", [str(row["way"]) for row in some], values))
        return made

    made = [
        ("Time over the store's, random", "times", RANDOM, "x time", 1.0),
        ("Time over the store's, by user", "times", BY_USER, "x time", 1.0),
        ("Processor time, random", "s a million examples", RANDOM, "cpu s a M examples", None),
        ("Peak memory above the packages', random", "MB", RANDOM, "MB peak", None),
    ]
    return [
        Chart(title, "", unit, curves(order, key), "bars", log_y=True, line_at=line)
        for title, unit, order, key, line in made
    ]


if __name__ == "__main__":
    run_bench("throughput", __doc__, measure)
