"""All trainings and evaluations of one log, for :mod:`perf.length`.

A *way* is what a model was trained on and what it is evaluated on: versions at one length, a join on event time, or a
model of the join that is served versions. Every way has the same requests, weights to begin with and budget, seed by
seed. Trainings run side by side, one core each; what a step costs is measured afterwards, one training at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loader.demo.eventlog import EventLog
from loader.demo.train import TrainResult
from perf.lengthdata import JOINS, Join, Requests, Task, join_on_time, joined_store, versioned_store, write_requests
from perf.lengthmodel import BATCH_SIZE, Scored, score_requests, train_model
from perf.timing import Samples
from uihkv import Store

JOIN_LENGTH = 256
"""Newest events that a model of a join sees."""
TIMED_STEPS = {16: 48, 64: 48, 256: 32, 1_024: 12, 4_096: 6}
"""Steps of a timed training, by length: one to three seconds each."""
_TIMED_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Way:
    """What a model was trained on, and what it is evaluated on.

    Attributes:
        length: newest events that it sees.
        trained: None: versions; else the join.
        served: whether it is evaluated on versions.

    """

    length: int
    trained: Join | None = None
    served: bool = True

    @property
    def name(self) -> str:
        """As in tables and files."""
        if self.trained is None:
            return f"versions, {self.length:,}"
        return f"{self.trained}, {'served' if self.served else 'join'}"


@dataclass(frozen=True, slots=True)
class Runs:
    """All that was trained on a log.

    Attributes:
        task: what on.
        scored: by way, one for each seed.
        trained: by name of what was trained, one for each seed.
        leaking: by join: share of the evaluated requests that it gives events they had not seen, and such events of a
            request in the mean.

    """

    task: Task
    scored: dict[Way, list[Scored]]
    trained: dict[str, list[TrainResult]]
    leaking: dict[Join, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Fed:
    """A store and the slim examples that point into it."""

    store: Store
    train: Path
    evaluate: Path


@dataclass(slots=True)
class Bench:
    """The stores and examples of one log, while they are open.

    Attributes:
        task: the requests.
        folder: where stores and examples lie.

    """

    task: Task
    folder: Path
    _open: ExitStack = field(default_factory=ExitStack)
    _fed: dict[Join | None, _Fed] = field(default_factory=dict)

    def __enter__(self) -> Bench:
        self.folder.mkdir()
        self._fed[None] = self._feed(None)
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.close()

    def run(self, lengths: tuple[int, ...], joins: tuple[Join, ...], seeds: int, tell: Callable[[str], None]) -> Runs:
        """Train and evaluate every way.

        Args:
            lengths: at which models see versions.
            joins: of which models are trained as well.
            seeds: how many models of each.
            tell: called with what is done.

        """
        leaking: dict[Join, tuple[float, float]] = {}
        for each in joins:
            self._fed[each] = self._feed(each)
            leaking[each] = count_leaks(self.task.log, self.task.evaluate, each)
        wanted: list[tuple[int, Join | None]] = [(length, None) for length in sorted(lengths, reverse=True)]
        wanted += [(JOIN_LENGTH, join) for join in leaking]
        scored: dict[Way, list[Scored]] = {}
        trained: dict[str, list[TrainResult]] = {}
        with ThreadPoolExecutor(max(1, min(2, os.cpu_count() or 1))) as pool:
            running = {
                (length, join): [pool.submit(self._train, length, join, seed) for seed in range(seeds)]
                for length, join in wanted
            }
            for (length, join), futures in running.items():
                done = [future.result() for future in futures]
                for way in done[0][0]:
                    scored[way] = [by_way[way] for by_way, _ in done]
                trained["versions, " + f"{length:,}" if join is None else join] = [result for _, result in done]
                tell(", ".join(way.name for way in done[0][0]))
        return Runs(self.task, scored, trained, leaking)

    def time_steps(self, lengths: tuple[int, ...]) -> dict[int, tuple[Samples, Samples]]:
        """Seconds a step and wait share at each length, one training at a time."""
        seconds: dict[int, list[float]] = {length: [] for length in lengths}
        waited: dict[int, list[float]] = {length: [] for length in lengths}
        fed = self._fed[None]
        with fed.store.snapshot() as snapshot:
            for length in lengths:
                some = self.task.train.take(np.arange(min(len(self.task.train), BATCH_SIZE * TIMED_STEPS[length])))
                pointers = snapshot.resolve(some.user_id, some.moment)
                write_requests(self.folder / f"timed-{length}.parquet", pointers, some)
        for repeat in range(_TIMED_REPEATS):
            for length in lengths:
                path = self.folder / f"timed-{length}.parquet"
                _, result = train_model(
                    fed.store, path, self.task.log.kinds, self.task.counts, length=length, seed=repeat
                )  # fmt: skip
                seconds[length].append(result.elapsed_s / len(result.losses["model"]))
                waited[length].append(result.wait_share)
        return {
            length: (Samples(np.array(seconds[length])), Samples(np.array(waited[length]))) for length in lengths
        }  # fmt: skip

    def _feed(self, join: Join | None) -> _Fed:
        name = "versions" if join is None else f"join-{JOINS.index(join)}"
        train, evaluate = self.folder / f"{name}-train.parquet", self.folder / f"{name}-evaluate.parquet"
        path, log = self.folder / name, self.task.log
        both = self.task.train.and_then(self.task.evaluate)
        if join is None:
            store = self._open.enter_context(versioned_store(path, log))
        else:
            store = self._open.enter_context(joined_store(path, log, both, join, JOIN_LENGTH))
        with store.snapshot() as snapshot:
            pointers = (
                snapshot.resolve(both.user_id, both.moment) if join is None else snapshot.head(np.arange(len(both)))
            )
        cut = len(self.task.train)
        write_requests(train, pointers[:cut], self.task.train)
        write_requests(evaluate, pointers[cut:], self.task.evaluate)
        return _Fed(store, train, evaluate)

    def _train(self, length: int, join: Join | None, seed: int) -> tuple[dict[Way, Scored], TrainResult]:
        counts = self.task.counts if join is None else _count_by_time(self.task.log, self.task.split)
        fed, versions = self._fed[join], self._fed[None]
        model, result = train_model(fed.store, fed.train, self.task.log.kinds, counts, length=length, seed=seed)
        candidates = self.task.candidates
        scored = {
            Way(length, join): score_requests(versions.store, versions.evaluate, model, candidates, length),
        }
        if join is not None:
            scored[Way(length, join, served=False)] = score_requests(
                fed.store, fed.evaluate, model, candidates, length
            )  # fmt: skip
        result.models.clear()
        return scored, result


def count_leaks(log: EventLog, requests: Requests, join: Join) -> tuple[float, float]:
    """Share of requests that a join gives events not visible at their moment, and such events of a request."""
    rows, offsets = join_on_time(log, requests, join, JOIN_LENGTH)
    request = np.repeat(np.arange(len(requests)), np.diff(offsets))
    leaked = np.bincount(request[log.visible_at[rows] >= requests.moment[request]], minlength=len(requests))
    return float((leaked > 0).mean()), float(leaked.mean())


def _count_by_time(log: EventLog, split: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Events of each item with a ``ts`` before the split: what a join shows while it trains."""
    return np.bincount(log.item_id[log.ts < split], minlength=log.items).astype(np.int64)
