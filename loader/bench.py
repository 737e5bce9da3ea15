"""``uihkv bench``: what this machine can feed from a store and a file of examples, and which stage limits.

The command line finds this function by its entry point. torch and the loader are imported when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uihkv.cli.arguments import Json, StorePath

if TYPE_CHECKING:
    from loader.loader import Loader
    from loader.stats import LoaderStats


def bench(
    store: StorePath,
    examples: Annotated[
        Path, typer.Argument(metavar="EXAMPLES", help="A Parquet file with pointers, or a folder.", show_default=False)
    ],
    max_len: Annotated[int, typer.Option(min=1, metavar="N", help="Most events of each history.")] = 1024,
    columns: Annotated[str, typer.Option(metavar="NAMES", help="Columns, with commas; all when empty.")] = "",
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Examples a batch.")] = 256,
    num_workers: Annotated[int, typer.Option(min=0, metavar="N", help="Worker processes; 0: threads of this one.")] = 0,
    prefetch: Annotated[int, typer.Option(min=1, metavar="N", help="Batches made ahead.")] = 4,
    dedup: Annotated[bool, typer.Option("--dedup", help="Hold shared events once.")] = False,
    seconds: Annotated[float, typer.Option(min=0.1, metavar="S", help="How long to measure each way.")] = 5.0,
    json: Json = False,
) -> None:
    """Say what this machine can feed, and which stage limits.

    Reads the examples in shuffled order, first by bare reads on one thread,
    then through the loader with nobody who trains, and then with a step that
    takes 1.25 times as long as a batch took. Warm reads unless memory is too
    small.

    Example: uihkv bench store slim.parquet --max-len 4096 --num-workers 1
    """
    from loader.examples import ParquetExamples
    from loader.loader import Loader
    from uihkv import Projection
    from uihkv.cli.output import fact_table, print_json, print_table
    from uihkv.cli.stores import open_store

    names = [name.strip() for name in columns.split(",") if name.strip()] or None
    with open_store(store) as opened:
        projection, rows = Projection(names, max_len), ParquetExamples(examples)
        with Loader(
            opened, rows, projection, batch_size=batch_size, num_workers=num_workers, prefetch=prefetch, dedup=dedup
        ) as loader:
            _run(loader, min(1.0, seconds), 0.0)  # compiles kernels, starts processes, warms pages
            bare = _read_bare(loader, projection, seconds)
            free = _run(loader, seconds, 0.0)
            batch_s = free.elapsed_s / max(free.batches, 1)
            step = _run(loader, seconds, 1.25 * batch_s)
    facts: dict[str, Any] = {
        "examples_per_s": round(free.examples_per_s), "events_per_s": round(free.events_per_s),
        "bytes_per_s": round(free.bytes_per_s), "of_bare_reads": round(free.examples_per_s / bare, 3) if bare else None,
        "limiting_stage": free.limiting, "bytes_saved": free.bytes_saved,
        "wait_share_at_1.25": round(step.wait_share, 4),
        "stages": {
            stage.name: {"mean_s": stage.mean_s, "p99_s": stage.p99_s, "busy_share": round(stage.busy_share, 3)}
            for stage in free.stages
        },
    }  # fmt: skip
    if json:
        print_json(facts)
        return
    stages = facts.pop("stages")
    facts |= {f"{name} ms a batch": its["mean_s"] * 1e3 for name, its in stages.items()}
    print_table(fact_table(f"{store}: batches of {batch_size}, {max_len} events at most", facts))


def _run(loader: Loader, seconds: float, step_s: float) -> LoaderStats:
    """Passes over the loader until the time is up; the numbers of the longest of them."""
    import time

    until = time.perf_counter() + seconds
    best = None
    epoch = 0
    while best is None or time.perf_counter() < until:
        loader.set_epoch(epoch)
        epoch += 1
        passing = iter(loader)
        for _ in passing:
            if step_s:
                time.sleep(step_s)
            if time.perf_counter() >= until:
                break
        passing.close()
        stats = loader.stats()
        if best is None or stats.batches > best.batches:
            best = stats
    return best


def _read_bare(loader: Loader, projection: Any, seconds: float) -> float:
    """Examples a second of plain reads of the loader's batches, on one thread."""
    import time

    import numpy as np

    from loader.order import permute_examples

    order = permute_examples(len(loader.dataset), 0, 0)
    done, started = 0, time.perf_counter()
    with loader.snapshot() as snapshot:
        snapshot.read(loader.dataset.take(order[: loader.batch_size])[0], projection)
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            rows = np.take(order, np.arange(done, done + loader.batch_size), mode="wrap")
            snapshot.read(loader.dataset.take(rows)[0], projection)
            done += len(rows)
    return done / (time.perf_counter() - started)
