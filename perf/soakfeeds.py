"""What goes into the store of a soak from files, and out of it to trainers; both go on where they were killed.

Files are ingested under a source, some files each, by rows or by user in turn; a killed ingest is run again with the
same files. A training process keeps its examples and, with each batch, one line of a log: the examples of the batch and
the loader's state. Killed, it goes on behind the last whole line; at the end of a pass the log must name each example
once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perf.soakjournal import (
    EVERYONE,
    FILES_A_SOURCE,
    LOST,
    TWICE,
    Journal,
    Progress,
    SoakError,
    check_columns,
    check_view,
    file_rows,
    source_of_file,
)
from uihkv import Projection, Store
from uihkv.ingest import ingest
from uihkv.openstore import Durability

BATCH_ROWS = 20
"""Rows an append of an ingest: several batches a file."""
WINDOW = Projection(["item_id", "kind"], max_len=64)
EXAMPLES = 960
BATCH = 32


def ingest_files(path: Path, journal: Journal, durability: Durability, folder: Path, rest: Callable[[], None]) -> None:
    """Ingest file after file, the one that was begun again first."""
    folder.mkdir(exist_ok=True)
    with Store.open(path, durability=durability) as store:
        while True:
            begun = journal["files begun"]
            number = begun - 1 if begun > journal["files acknowledged"] else begun
            journal["files begun"] = number + 1
            rows = ingest_file(store, folder, number)
            journal["files acknowledged"] = number + 1
            journal.count("files ingested")
            journal.count("file rows acknowledged", rows)
            rest()


def ingest_file(store: Store, folder: Path, number: int) -> int:
    """Ingest the files of a source up to this one; how many rows it has.

    Raises:
        SoakError: when the source stands where it cannot.

    """
    first = number // FILES_A_SOURCE * FILES_A_SOURCE
    files = [folder / f"{one:06d}.parquet" for one in range(first, number + 1)]
    if number == first:
        for old in folder.glob("*.parquet"):
            if old < files[0]:
                old.unlink()
    for one, file in enumerate(files, first):
        if not file.exists():
            pq.write_table(pa.table(file_rows(one)), aside := file.with_suffix(".aside"))
            aside.rename(file)
    by_user = first // FILES_A_SOURCE % 2 == 1
    result = ingest(
        store, files, source=source_of_file(number), batch_rows=BATCH_ROWS, order_by="place" if by_user else None
    )
    rows = len(file_rows(number)["ts"])
    total = rows * len(files)
    if result.rows != total or store.sources().get(source_of_file(number)) != total:
        raise SoakError(LOST, f"{result} of files of {total} rows, sources() says {store.sources()}")
    return rows


def train(path: Path, journal: Journal, folder: Path, workers: int, rest: Callable[[], None]) -> None:
    """Go through pass after pass, from where the last one was left."""
    from loader import WorkerError

    folder.mkdir(exist_ok=True)
    with Store.open(path, readonly=True) as store:
        while True:
            number, examples = current_pass(store, journal, folder)
            try:
                finish_pass(store, journal, folder / f"{number}.log", examples, workers, rest)
            except WorkerError:
                journal.count("deaths of workers told")
                continue
            journal.count("passes whole, each example once")
            (folder / f"{number}.done").touch()


def current_pass(store: Store, journal: Journal, folder: Path) -> tuple[int, dict[str, Any]]:
    """The examples of the pass that was left, or of a new one: heads, and versions below them."""
    done = [int(file.stem) for file in folder.glob("*.done")]
    number = max(done, default=-1) + 1
    kept = folder / f"{number}.npz"
    if not kept.exists():
        for old in folder.iterdir():
            if int(old.name.split(".")[0]) < number - 1:
                old.unlink()
        rng = np.random.default_rng(number)
        least = Progress.acknowledged(journal)  # first: what is acknowledged later need not be in the snapshot
        with store.snapshot() as snapshot:
            heads = check_view(snapshot, least, journal)
        row = rng.integers(0, len(EVERYONE), EXAMPLES)
        version = np.maximum(heads.version[row] - rng.integers(0, 40, EXAMPLES), 0)
        with (aside := folder / f"{number}.aside").open("wb") as file:
            np.savez(file, user_id=np.asarray(heads.user_id)[row], version=version, row=np.arange(EXAMPLES))
        shutil.move(aside, kept)
    with np.load(kept) as found:
        return number, dict(found)


def finish_pass(
    store: Store, journal: Journal, log: Path, examples: dict[str, Any], workers: int, rest: Callable[[], None]
) -> None:
    """Train to the end of a pass.

    Raises:
        SoakError: when a batch is wrong, or an example was left out or came twice.
        WorkerError: when a worker was killed.

    """
    from loader import ArrayExamples, Loader

    lines = read_log(log)
    options: dict[str, Any] = {"batch_size": BATCH, "seed": 3, "on_trimmed": "truncate", "num_workers": workers}
    with Loader(store, ArrayExamples(examples), WINDOW, **options) as loader, log.open("a") as out:
        if lines:
            loader.load_state_dict(lines[-1]["state"])
        out.write("\n")  # behind a line in which it was killed
        for batch in loader:
            rows = batch.examples["row"].tolist()
            history = batch.history.expand()
            columns = {name: history.values[name].numpy() for name in ("item_id", "kind")}
            users, versions = examples["user_id"][rows], examples["version"][rows]
            check_columns(columns, history.offsets.numpy(), users, versions)
            line = {"rows": rows, "state": loader.state_dict()}
            out.write(json.dumps(line) + "\n")
            out.flush()
            lines.append(line)
            journal.count("batches trained on")
            rest()
    seen = np.concatenate([line["rows"] for line in lines])
    if len(seen) != len(np.unique(seen)) or len(seen) != EXAMPLES:
        raise SoakError(TWICE, f"a pass gave {len(seen)} examples, {len(np.unique(seen))} of {EXAMPLES} different ones")


def read_log(log: Path) -> list[dict[str, Any]]:
    """The whole lines of a log."""
    found = []
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
