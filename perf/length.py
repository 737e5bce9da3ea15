"""What do longer histories buy a model, and what does a join on event time fake?

One small HSTU-style model is trained at history lengths of 16 to 4,096 events, on the same requests with the same
budget, seed by seed, and ranks all candidates for later requests (:mod:`perf.lengthdata` says which;
:mod:`perf.lengthmodel`, how). *Normalised entropy* (NE) is the cross entropy of the targets under the softmax over all
candidates, over that under the base rate, the candidates' counts before the split: 1 knows nothing more than
popularity, less is better. HR@10 and NDCG@10 are of the same ranking. Differences are paired: same seeds and requests.

Length can only buy something for those who have it, so every figure also stands by the length that was served.
Intervals are 95 %, over users and seeds; where a stratum has fewer than ten users, over its requests and seeds: they
then speak of these users alone. Each interval stands for itself: of twenty differences that are nothing, about one will
be called something.

Then the same model learns from histories joined on event time, and is evaluated on these (what an offline metric
would say), on versions (what it does when served), and beside a model that learned from versions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loader.demo.evaluate import rank_by_popularity
from loader.demo.eventlog import EventLog, copy_log, read_log
from perf.harness import Chart, Curve, Interval, Report, Samples, Section, Settings, run_bench
from perf.intervals import Resampling
from perf.lengthdata import DRAWN, EDGES, JOINS, SPLIT_SHARE, Task, count_before, draw_log, make_task
from perf.lengthmodel import BATCH_SIZE, QUERIES, TEMPERATURE, WIDTH, Scored
from perf.lengthruns import JOIN_LENGTH, TIMED_STEPS, Bench, Runs, Way
from perf.protocol import REAL_LOGS
from perf.report import Cell

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

METRICS = ("NE", "HR@10", "NDCG@10")
FEW_USERS = 10
SHORTEST = 16
_UNTOLD = "no difference that could be told"


@dataclass(frozen=True, slots=True)
class Plan:
    """The budget.

    Attributes:
        lengths: newest events that models see.
        steps: optimiser steps of each training, of ``BATCH_SIZE`` examples each, all different.
        seeds: models of each way.
        per_stratum: evaluated requests of each stratum, at most.

    """

    lengths: tuple[int, ...]
    steps: int
    seeds: int
    per_stratum: int


SHORT = Plan((16, 256, 1_024), 60, 2, 150)
FULL = Plan((16, 64, 256, 1_024, 4_096), 600, 3, 400)


def measure(settings: Settings) -> Report:
    """Train at every length on the real logs, then on joins of these and of a drawn log."""
    plan = settings.pick(SHORT, FULL)
    model = {"batch": BATCH_SIZE, "width": WIDTH, "queries": QUERIES, "temperature": TEMPERATURE}
    report = Report(facts={"plan": asdict(plan) | model})
    report.notes.append(
        f"the model's base rate and its first temperature, {TEMPERATURE:g}, were chosen by looking at requests of the "
        "ansible log that are evaluated here; they are the same at all lengths and for joins"
    )
    report.notes.append("intervals are not corrected for how many there are")
    if not settings.full:
        report.notes.append(
            f"short form: {plan.seeds} seeds, {plan.steps} steps, lengths to {max(plan.lengths):,}, one real log; "
            "intervals are wide, and what they cannot tell, --full may"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # trainings run side by side
    try:
        for number, (name, log) in enumerate(_logs(settings)):
            real = name != "drawn"
            task = make_task(
                log, train=plan.steps * BATCH_SIZE, per_stratum=plan.per_stratum, seed=settings.seed
            )  # fmt: skip
            with Bench(task, settings.scratch / name) as bench:
                runs = bench.run(
                    plan.lengths if real else (JOIN_LENGTH,), JOINS if real else ("ts <",), plan.seeds, _teller(name)
                )  # fmt: skip
                steps = bench.time_steps(plan.lengths) if number == 0 else None
            _add_log(report, name, runs, plan, settings.seed)
            if steps is not None:
                report.sections.append(_describe_steps(name, steps))
    finally:
        torch.set_num_threads(threads)
    report.sections.sort(key=lambda section: "join on event time" in section.title)
    return report


def _teller(name: str) -> Callable[[str], None]:
    begin = time.perf_counter()
    return lambda done: print(f"{time.perf_counter() - begin:5.0f} s  {name}: {done}", file=sys.stderr, flush=True)


def _logs(settings: Settings) -> list[tuple[str, EventLog]]:
    shipped = copy_log(settings.scratch / "ansible.parquet")
    paths = [("ansible", shipped)] + ([("git", REAL_LOGS / "git-events.parquet")] if settings.full else [])
    real = [(name, read_log(path)) for name, path in paths if path.exists()]
    return [*real, ("drawn", draw_log(settings.seed))]


class _Judge:
    """Metrics of a set of requests.

    Args:
        runs: of a log.
        among: bool[n]: which of the evaluated requests.
        seed: of the draws.

    """

    def __init__(self, runs: Runs, among: Bools, seed: int) -> None:
        self._runs, self._among = runs, among
        self._base = runs.task.base_losses()[among]
        users = runs.task.evaluate.user_id[among]
        self.requests, self.users = len(users), len(np.unique(users))
        self.over = "users" if self.users >= FEW_USERS else "requests"
        seeds = len(next(iter(runs.scored.values())))
        groups = users if self.users >= FEW_USERS else np.arange(len(users))
        self._resampling = Resampling(groups, seeds, seed=seed)

    def metric(self, name: str, way: Way, less: Way | None = None) -> Interval:
        """A metric of a way, or by how much it exceeds that of another."""
        top = self._values(name, way)
        if less is not None:
            top = top - self._values(name, less)
        return self._resampling.ratio(top, self._base if name == "NE" else None)

    def times(self, name: str, way: Way, over: Way) -> Interval | None:
        """A metric of a way over that of another; None where the other's is nothing in too many draws."""
        found = self._resampling.ratio(self._values(name, way), self._values(name, over))
        return found if np.isfinite([found.value, found.low, found.high]).all() else None

    def _values(self, name: str, way: Way) -> Floats:
        return np.stack([_value(name, scored)[self._among] for scored in self._runs.scored[way]])


def _value(name: str, scored: Scored) -> Floats:
    return {"NE": scored.loss, "HR@10": scored.hit, "NDCG@10": scored.gain}[name]


def _add_log(report: Report, name: str, runs: Runs, plan: Plan, seed: int) -> None:
    everybody = _Judge(runs, np.ones(len(runs.task.evaluate), bool), seed)
    if name != "drawn":
        judges = _judge_strata(runs, seed)
        report.sections += [
            _describe_requests(name, runs.task, judges),
            _describe_lengths(name, runs.task, everybody, plan.lengths),
            _describe_strata(name, judges, plan.lengths),
            _describe_gains(name, runs, plan.lengths, seed),
        ]
        report.notes += _say_what_length_buys(name, runs, plan.lengths, seed)
        report.charts.append(_draw_lengths(name, everybody, plan.lengths))
        report.charts += [_draw_strata(name, metric, judges, plan.lengths) for metric in ("NE", "NDCG@10")]
    report.sections.append(_describe_leaks(name, runs, everybody))
    report.notes += _say_what_leakage_fakes(name, runs, everybody)
    report.charts.append(_draw_leaks(name, runs, everybody))
    report.facts[name] = _facts(runs)


def _judge_strata(runs: Runs, seed: int) -> dict[int, _Judge]:
    """By place in ``EDGES``; strata without requests are left out."""
    strata = runs.task.evaluate.stratum
    return {one: _Judge(runs, strata == one, seed) for one in np.unique(strata).tolist()}


def _stratum_name(one: int) -> str:
    return f"{EDGES[one]:,} to {EDGES[one + 1] - 1:,}" if one + 1 < len(EDGES) else f"{EDGES[one]:,} and more"


def _describe_requests(name: str, task: Task, judges: dict[int, _Judge]) -> Section:
    trained = np.bincount(task.train.stratum, minlength=len(EDGES))
    versions = count_before(task.log)
    rows: list[dict[str, Cell]] = [
        {
            "events served": _stratum_name(one), "trained on": int(trained[one]), "later": int(task.available[one]),
            "evaluated": judges[one].requests if one in judges else 0,
            "users": judges[one].users if one in judges else 0,
            "intervals over": judges[one].over if one in judges else "-",
            "events with as many before": int((versions >= edge).sum()),
        }
        for one, edge in enumerate(EDGES)
    ]  # fmt: skip
    title = (
        f"{name}: {len(task.log):,} events; {len(task.candidates):,} candidates; {task.left_out:.1%} of later requests "
        "left out, for an item that is none"
    )
    return Section(title, rows)


def _describe_lengths(name: str, task: Task, judge: _Judge, lengths: tuple[int, ...]) -> Section:
    rows: list[dict[str, Cell]] = []
    for length in lengths:
        row: dict[str, Cell] = {"length": f"{length:,}"}
        for metric in METRICS:
            row[metric] = judge.metric(metric, Way(length))
            row[f"{metric} - at {SHORTEST}"] = (
                None if length == SHORTEST else judge.metric(metric, Way(length), Way(SHORTEST))
            )  # fmt: skip
        rows.append(row)
    place = np.searchsorted(task.candidates, task.evaluate.target)
    popular = Scored(rank_by_popularity(task.counts[task.candidates], place), task.base_losses())
    last: dict[str, Cell] = dict.fromkeys(rows[0])
    last |= {
        "length": "popularity",
        "NE": 1.0,
        "HR@10": float(popular.hit.mean()),
        "NDCG@10": float(popular.gain.mean()),
    }
    title = f"{name}: the same model and budget at each length, all evaluated requests, strata as drawn"
    return Section(title, [*rows, last])


def _describe_strata(name: str, judges: dict[int, _Judge], lengths: tuple[int, ...]) -> Section:
    rows: list[dict[str, Cell]] = []
    for one, judge in judges.items():
        for metric in METRICS:
            row: dict[str, Cell] = {"events served": _stratum_name(one), "users": judge.users, "metric": metric}
            row[f"at {SHORTEST}"] = judge.metric(metric, Way(SHORTEST))
            for length in lengths[1:]:
                row[f"{length:,} - {SHORTEST}"] = judge.metric(metric, Way(length), Way(SHORTEST))
            rows.append(row)
    return Section(f"{name}: what length buys those who have it, against {SHORTEST} events", rows)


def _describe_gains(name: str, runs: Runs, lengths: tuple[int, ...], seed: int) -> Section:
    rows: list[dict[str, Cell]] = []
    for shorter, longer in pairwise(lengths):
        served = runs.task.evaluate.served > shorter
        if served.any():
            judge = _Judge(runs, served, seed)
            row: dict[str, Cell] = {
                "log": name, "length": f"{longer:,}", "requests": judge.requests, "users": judge.users,
            }  # fmt: skip
            row |= {metric: judge.times(metric, Way(longer), Way(SHORTEST)) for metric in METRICS}
            rows.append(row)
    title = (
        f"Gain of length, {name}: metrics over those at {SHORTEST} events, for requests that were served more than the "
        "next shorter length"
    )
    return Section(title, rows)


def _verdict(metric: str, difference: Interval) -> str:
    if not difference.told:
        return _UNTOLD
    return "better" if (difference.value < 0) == (metric == "NE") else "worse"


def _say_what_length_buys(name: str, runs: Runs, lengths: tuple[int, ...], seed: int) -> list[str]:
    """A sentence for each step in length, over the requests that were served more than its shorter one."""
    said = []
    for shorter, longer in pairwise(lengths):
        served = runs.task.evaluate.served > shorter
        if not served.any():
            continue
        judge = _Judge(runs, served, seed)
        parts = []
        for metric in METRICS:
            difference = judge.metric(metric, Way(longer), Way(shorter))
            parts.append(f"{metric} {difference.text()}, {_verdict(metric, difference)}")
        said.append(
            f"{name}: {longer:,} events against {shorter:,}, for the {judge.requests:,} requests of {judge.users} "
            f"users that had more than {shorter:,}: {'; '.join(parts)}"
        )
    return said


def _describe_leaks(name: str, runs: Runs, judge: _Judge) -> Section:
    rows: list[dict[str, Cell]] = []
    honest = Way(JOIN_LENGTH)
    for join, (share, events) in runs.leaking.items():
        offline, served = Way(JOIN_LENGTH, join, served=False), Way(JOIN_LENGTH, join)
        rows += [
            {
                "join": join, "requests that leak": f"{share:.1%}", "events leaked": f"{events:.1f}", "metric": metric,
                "offline, on the join": judge.metric(metric, offline), "the same, served": judge.metric(metric, served),
                "learned from versions": judge.metric(metric, honest),
                "inflation": judge.metric(metric, offline, honest), "drop": judge.metric(metric, served, offline),
                "served - versions": judge.metric(metric, served, honest),
            }
            for metric in METRICS
        ]  # fmt: skip
    late = float((runs.task.log.visible_at > runs.task.log.ts).mean())
    title = (
        f"{name}: a join on event time, {JOIN_LENGTH} events; {late:.1%} of all events become visible after their ts"
    )
    if name == "drawn":
        title += f" ({DRAWN.late_s / 3600:.0f} h in the mean)"
    return Section(title, rows)


def _say_what_leakage_fakes(name: str, runs: Runs, judge: _Judge) -> list[str]:
    said = []
    said_of = {"better": "inflated", "worse": "no inflation, it is worse", _UNTOLD: "no inflation that could be told"}
    honest = Way(JOIN_LENGTH)
    for join in runs.leaking:
        offline, served = Way(JOIN_LENGTH, join, served=False), Way(JOIN_LENGTH, join)
        for metric in ("NE", "HR@10"):
            inflated = judge.metric(metric, offline, honest)
            read, real, learned = (judge.metric(metric, way).text() for way in (offline, served, honest))
            said.append(
                f"{name}, join on {join}: {metric} reads {read} offline, is {real} when served, and {learned} by one "
                f"that learned from versions; offline less versions {inflated.text()}: "
                f"{said_of[_verdict(metric, inflated)]}"
            )
    return said


def _draw_lengths(name: str, judge: _Judge, lengths: tuple[int, ...]) -> Chart:
    metrics = ("HR@10", "NDCG@10")
    curves = [Curve(one, lengths, [judge.metric(one, Way(length)) for length in lengths]) for one in metrics]
    return Chart(f"{name}: all evaluated requests, 95 %", "length", "metric", curves, log_x=True)


def _draw_strata(name: str, metric: str, judges: dict[int, _Judge], lengths: tuple[int, ...]) -> Chart:
    longer = lengths[1:]
    curves = [
        Curve(
            f"{_stratum_name(one)} events", [length * 2 ** (0.06 * place) for length in longer],
            [judge.metric(metric, Way(length), Way(SHORTEST)) for length in longer],
        )
        for place, (one, judge) in enumerate(judges.items())
    ]  # fmt: skip
    title = f"{name}: {metric} less that at {SHORTEST}, by events served, 95 %"
    return Chart(title, "length (set apart a little)", metric, curves, log_x=True, line_at=0)


def _draw_leaks(name: str, runs: Runs, judge: _Judge) -> Chart:
    ways = [Way(JOIN_LENGTH, join, served) for join in runs.leaking for served in (False, True)] + [Way(JOIN_LENGTH)]
    names = [way.name for way in ways]
    curves = [Curve(metric, names, [judge.metric(metric, way) for way in ways]) for metric in ("HR@10", "NDCG@10")]
    return Chart(f"{name}: join on event time, 95 %", "", "metric", curves, kind="bars")


def _describe_steps(name: str, steps: dict[int, tuple[Samples, Samples]]) -> Section:
    rows: list[dict[str, Cell]] = [
        {
            "length": f"{length:,}", "steps": TIMED_STEPS[length], "ms a step": seconds.scaled(1e3),
            "examples/s": Samples(BATCH_SIZE / seconds.values), "wait share": f"{waited.median:.2%}",
            "wait share, worst": f"{waited.values.max():.2%}",
        }
        for length, (seconds, waited) in steps.items()
    ]  # fmt: skip
    return Section(f"{name}: what a step costs, one training at a time, torch with one thread", rows)


def _facts(runs: Runs) -> dict[str, Any]:
    """Every seed's figures, over all evaluated requests."""
    base = runs.task.base_losses()
    by_way = {
        way.name: {
            "NE": [float(one.loss.sum() / base.sum()) for one in scored],
            "log loss": [float(one.loss.mean()) for one in scored],
            "HR@10": [float(one.hit.mean()) for one in scored],
            "NDCG@10": [float(one.gain.mean()) for one in scored],
        }
        for way, scored in runs.scored.items()
    }
    trained = {
        name: {
            "examples": [one.examples for one in results],
            "steps": [len(one.losses["model"]) for one in results],
            "wall_s": [one.elapsed_s for one in results],
            "examples_per_s": [one.examples_per_s for one in results],
            "wait_share": [one.wait_share for one in results],
        }
        for name, results in runs.trained.items()
    }
    return {
        "split_share": SPLIT_SHARE, "split_ms": runs.task.split, "candidates": len(runs.task.candidates),
        "base_log_loss": float(base.mean()), "left_out": runs.task.left_out, "metrics": by_way,
        "trainings, two at a time": trained, "leaking": runs.leaking,
    }  # fmt: skip


if __name__ == "__main__":
    run_bench("length", __doc__, measure)
