"""The process of one way: it does what :mod:`perf.feeders` tells it, a JSON object a line."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perf.feeding.task import Ints, Task, Tensors, cut_windows
from perf.feeding.ways import OTHERS, WAYS
from perf.loading import COLUMNS


def size_on_disk(*paths: Path) -> int:
    """Bytes of files, and of all files in folders."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return sum(file.stat().st_size for file in files)


def read_sizes(task: Task, name: str) -> int:
    """Bytes on disk of what a way reads."""
    columns = [task.log / f"{column}.npy" for column in COLUMNS]
    slim = task.folder / "slim.parquet"
    if name.startswith("loader") or name == "SPDL, store":
        return size_on_disk(task.store, slim)
    if "memmap" in name:
        return size_on_disk(*columns, slim)
    form = {"Parquet": "fat.parquet", "MosaicML": "mds", "LitData": "litdata"}.get(name.split()[0].rstrip(","))
    return size_on_disk(task.log / "lines.csv", slim) if form is None else size_on_disk(task.folder / form)


class Feeding:
    """One way at one length, opened."""

    def __init__(self, name: str, task: Task) -> None:
        self._stack = ExitStack()
        self._task = task
        self._epoch = self._stack.enter_context((WAYS | OTHERS)[name](task))
        self._number = 0

    def run(self, at_least_s: float) -> dict[str, float]:
        """Whole epochs, one at least: seconds, examples and events; every page of every column is touched."""
        examples = events = 0
        started = time.perf_counter()
        while True:
            for batch in self._epoch(self._number):
                examples += len(batch["row"])
                events += int(batch["offsets"][-1])
                for tensor in batch.values():
                    tensor.view(torch.uint8)[:: os.sysconf("SC_PAGE_SIZE")].sum()
            self._number += 1
            took_s = time.perf_counter() - started
            if took_s >= at_least_s:
                return {"seconds": took_s, "examples": examples, "events": events}

    def check(self, whole: bool) -> dict[str, int]:
        """One epoch, each batch against the log: every example once, and every value of it."""
        columns, examples = self._task.columns(), self._task.examples()
        place = np.argsort(examples["row"])
        seen: list[Ints] = []
        for batch in self._epoch(self._number):
            row = batch["row"].numpy()
            index = place[np.searchsorted(examples["row"], row, sorter=place)]
            expected = cut_windows(columns, examples["start"][index], examples["end"][index])
            expected["label"] = torch.from_numpy(examples["label"][index])
            for name, values in expected.items():
                if not torch.equal(batch[name].to(values.dtype), values) or batch[name].dtype != values.dtype:
                    raise ValueError(f"column {name!r} differs from the log: {batch[name][:5]} where {values[:5]}")
            seen.append(row.copy())
        self._number += 1
        rows = np.concatenate(seen)
        if len(np.unique(rows)) != len(rows) or (whole and len(rows) != len(examples["row"])):
            raise ValueError(f"{len(np.unique(rows))} of {len(examples['row'])} examples were fed, {len(rows)} in all")
        return {"examples": len(rows), "batches": len(seen)}

    def close(self) -> None:
        """Let go of everything."""
        self._epoch = _nothing
        self._stack.close()
        gc.collect()  # worker processes of loaders that refer to themselves


def _nothing(_: int) -> Iterator[Tensors]:
    return iter(())


def serve() -> None:
    """Do what standard input says, a JSON object a line; what it gives is a line each."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is none of the answer
    feeding: Feeding | None = None
    for line in sys.stdin:
        told = json.loads(line)
        try:
            answer: dict[str, Any] = {}
            if told["do"] == "open":
                given = told["task"]
                task = Task(Path(given[0]), Path(given[1]), Path(given[2]), given[3], given[4])
                feeding = Feeding(told["way"], task)
                answer["bytes"] = read_sizes(task, told["way"])
            elif feeding is None:
                raise ValueError("nothing is open")
            elif told["do"] == "check":
                answer |= feeding.check(told["whole"])
            elif told["do"] == "run":
                answer |= feeding.run(told["at_least_s"])
            else:
                feeding.close()
                feeding = None
        except Exception as error:  # the other side names it
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    serve()
