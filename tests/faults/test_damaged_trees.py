"""A damaged tree of keys is an error or another list of keys, and never a touch of memory that is not the map's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perf.mutants import Guarded
from uihkv import Column, Schema, Store
from uihkv.kernels.tree import FOUND_ALL, walk_tree

PAGE = 4096


def test_walking_damaged_pages_stays_within_the_map(tmp_path: Path) -> None:
    path = tmp_path / "store"
    rng = np.random.default_rng(0)
    with Store.create(path, Schema([Column("item_id", "int64")]), shards=1, chunk_events=40) as store:
        n = 30_000
        store.append({"user_id": rng.integers(0, 900, n), "ts": np.arange(n), "item_id": np.arange(n)}, backfill=True)
        entries = store.stats().chunks
    file = np.fromfile(path / "shards" / "0000" / "data.mdb", np.uint8)
    pages = len(file) // PAGE
    room = Guarded(len(file) + PAGE).take(len(file))
    flags = file.reshape(pages, PAGE)[:, 10]
    trees = np.flatnonzero((flags == 1) | (flags == 2))  # branches and leaves
    outcomes = {"listed": 0, "refused": 0}
    key, address, size = np.empty((entries, 3), np.int64), np.empty(entries, np.int64), np.empty(entries, np.int64)
    for root in trees[flags[trees] == 1].tolist():
        room[:] = file
        code, found = walk_tree(room.ctypes.data, pages, PAGE, root, 3, key, address, size)
        if code != FOUND_ALL or found != entries:
            continue
        for _ in range(4_000):
            at = rng.choice(trees) * PAGE + rng.integers(0, 40 if rng.random() < 0.5 else PAGE, rng.integers(1, 4))
            room[at] = rng.integers(0, 256, len(at))
            code, found = walk_tree(room.ctypes.data, pages, PAGE, root, 3, key, address, size)
            if code != FOUND_ALL or found != entries:
                outcomes["refused"] += 1
            else:
                end = address - room.ctypes.data + size
                assert ((address >= room.ctypes.data) & (end <= len(file))).all()
                outcomes["listed"] += 1
            room[at] = file[at]
    assert outcomes["refused"] > 150
    assert outcomes["listed"] > 300
