"""Slabs: their memory goes back to the system, whichever thread took it."""

from __future__ import annotations

import gc
from itertools import islice
from pathlib import Path

import numpy as np

from loader import ArrayExamples, Loader
from loader.slabs import make_slab
from uihkv import Column, Projection, Schema, Store


def resident_mb() -> float:
    gc.collect()
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


def test_loaders_that_are_closed_hold_no_memory(tmp_path: Path) -> None:
    users, length = 64, 1024
    with Store.create(tmp_path / "store", Schema([Column("item_id", "int64")])) as store:
        items = np.arange(users * length)
        store.append({"user_id": items % users, "ts": items, "item_id": items}, backfill=True)
        row = np.arange(1280)
        examples = ArrayExamples({"user_id": row % users, "version": length - row % 100})

        def pass_once() -> None:
            with Loader(store, examples, projection=Projection(max_len=length), batch_size=128) as loader:
                for _ in islice(loader, 5):
                    pass

        for _ in range(4):
            pass_once()
        before = resident_mb()
        for _ in range(30):
            pass_once()
        assert resident_mb() - before < 30


def test_a_slab_is_writable_memory_of_its_size() -> None:
    for size in (1 << 16, 5 << 20):
        slab = make_slab(size)
        slab[-1] = 7
        assert (len(slab), slab.sum()) == (size, 7)
