"""The demo from end to end: event log, store, slim examples, training, evaluation, fat rows.

Each step is a module's; here is their order, the folder that they share, and the figures that come out. Everything is
made anew in each run, in a folder that an earlier run made or that is empty: others are refused, nothing
of a user's is ever removed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loader import Loader, ParquetExamples
from loader.demo.evaluate import Metrics, count_items, measure_ranks, rank_by_models, rank_by_popularity
from loader.demo.eventlog import EventLog, copy_log, read_log, store_log
from loader.demo.examples import pick_requests, split_time, write_examples
from loader.demo.fatrows import join_projections, sort_by_user, write_fat_rows
from loader.demo.progress import Stages
from loader.demo.report import Figures
from loader.demo.train import TENANTS, StepReport, TrainResult, train
from uihkv import Pointers, Projection, Snapshot, Store, StoreExistsError

BATCH_SIZE = 64
LEARNING_RATE = 3e-3
QUICK_EVENTS = 20_000
MARKER = ".uihkv-demo"
BASELINE = "most popular"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run depends on.

    Attributes:
        out: folder for everything that the demo makes.
        every: an example for every ``every``-th event.
        epochs: over the training examples.
        seed: of weights, order and negatives.
        max_events: of the log, the first so many; None: all.

    """

    out: Path
    every: int = 8
    epochs: int = 1
    seed: int = 0
    max_events: int | None = None


class _Clock:
    """Seconds that each step took, by its name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start


def run_demo(settings: Settings, stages: Stages) -> Figures:
    """Do all of it, in ``settings.out``.

    Raises:
        StoreExistsError: when the folder holds something that no demo made.

    """
    out = prepare_folder(settings.out)
    clock = _Clock()
    log_path = copy_log(out / "events.parquet", settings.max_events)
    log = read_log(log_path)
    with clock.timed("ingest"), stages.stage("ingest", len(log)) as update:
        update(0, "a first run compiles kernels")
        store = store_log(log_path, out / "store", lambda at: update(at.rows, at.stage))
    with store, store.snapshot() as snapshot:
        split = split_time(log)
        earlier = pick_requests(log, settings.every, end=split)
        later = pick_requests(log, settings.every, start=split)
        with clock.timed("resolve"):
            pointers = Pointers.concat(
                [
                    write_examples(snapshot, earlier, out / "train.parquet"),
                    write_examples(snapshot, later, out / "evaluate.parquet"),
                ]
            )
        features = {
            "as_of": np.concatenate([earlier.as_of, later.as_of]),
            "target": np.concatenate([earlier.target, later.target]),
        }
        with clock.timed("train"):
            result = _train(settings, store, log, split, out / "train.parquet", stages)
        with clock.timed("evaluate"):
            metrics = _evaluate(settings, store, log, split, result, out / "evaluate.parquet", stages)
        joined = join_projections(tenant.projection for tenant in TENANTS)
        with clock.timed("fat rows"):
            fat = _weigh_fat_rows(snapshot, pointers, features, joined, out, stages)
        stats = store.stats()
        return Figures(
            events=stats.events,
            users=stats.users,
            train_examples=len(earlier),
            evaluate_examples=len(later),
            store_bytes=stats.bytes,
            slim_bytes=sum((out / name).stat().st_size for name in ("train.parquet", "evaluate.parquet")),
            fat_bytes=fat[0],
            fat_sorted_bytes=fat[1],
            fat_events=int(np.minimum(pointers.version, joined.max_len or 0).sum()),
            examples_per_s=result.examples_per_s,
            wait_share=result.wait_share,
            metrics=metrics,
            losses=result.losses,
            seconds=clock.seconds,
        )


def prepare_folder(out: Path) -> Path:
    """An empty folder: a new one, or that of an earlier run without what that run made."""
    marker = out / MARKER
    if out.exists() and not marker.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise StoreExistsError(f"{out}: something is there that no demo made; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()
    shutil.rmtree(out / "store", ignore_errors=True)
    for name in ("events", "train", "evaluate", "fat", "fat-sorted"):
        (out / f"{name}.parquet").unlink(missing_ok=True)
    return out


def _projections() -> dict[str, Projection]:
    return {tenant.name: tenant.projection for tenant in TENANTS}


def _train(settings: Settings, store: Store, log: EventLog, split: int, examples: Path, stages: Stages) -> TrainResult:
    models = {tenant.name: tenant.build_model(log.items, log.kinds, settings.seed) for tenant in TENANTS}
    counts = count_items(log, before=split)
    with (
        Loader(
            store, ParquetExamples(examples), tenants=_projections(), batch_size=BATCH_SIZE, seed=settings.seed
        ) as loader,
        stages.stage("train", len(loader) * settings.epochs) as update,
    ):
        next(iter(loader))  # a first run compiles kernels, which is no waiting for data

        def report(at: StepReport) -> None:
            losses = "/".join(f"{loss:.2f}" for loss in at.losses.values())
            update(at.step, f"loss {losses} {at.examples_per_s:,.0f} ex/s wait {at.wait_share:.1%}")

        return train(
            loader, TENANTS, models, counts,
            epochs=settings.epochs, learning_rate=LEARNING_RATE, seed=settings.seed, report=report,
        )  # fmt: skip


def _evaluate(
    settings: Settings, store: Store, log: EventLog, split: int, result: TrainResult, examples: Path, stages: Stages
) -> dict[str, Metrics]:
    later = ParquetExamples(examples)
    with (
        Loader(store, later, tenants=_projections(), batch_size=BATCH_SIZE, shuffle=False) as loader,
        stages.stage("evaluate", len(loader)) as update,
    ):
        ranks = rank_by_models(loader, result.models, update)
    target = later.take(np.arange(len(later)))[1]["target"]
    ranks[BASELINE] = rank_by_popularity(count_items(log, before=split), target)
    return {name: measure_ranks(places) for name, places in ranks.items()}


def _weigh_fat_rows(
    snapshot: Snapshot,
    pointers: Pointers,
    features: dict[str, NDArray[np.int64]],
    projection: Projection,
    out: Path,
    stages: Stages,
) -> tuple[int, int]:
    """Bytes of the fat rows in order of arrival, and sorted by user."""
    sizes = []
    orders = (
        ("fat", "fat rows", np.arange(len(pointers))),
        ("fat-sorted", "fat rows, sorted", sort_by_user(pointers)),
    )
    for name, title, order in orders:
        with stages.stage(title, len(pointers)) as update:
            size = write_fat_rows(
                snapshot, pointers[order], {name: values[order] for name, values in features.items()},
                projection, out / f"{name}.parquet", update,
            )  # fmt: skip
            sizes.append(size)
    return sizes[0], sizes[1]
