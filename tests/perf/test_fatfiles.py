"""Bytes are counted where they belong: a union's reader pays for its whole length, a store's for what it asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from perf.fatfiles import column_bytes, in_child, read_parquet, read_store, write_fat
from perf.storage import _draw_examples
from perf.storagetables import ARRIVING, SORTED
from perf.workloads import Log, Workload, build_store, make_log

EXAMPLE = ["user_id", "label"]


@pytest.fixture(scope="module")
def log() -> Log:
    return make_log(Workload(users=4, shortest=3000, longest=3000, values="uniform"), 1)


@pytest.fixture(scope="module")
def rows(log: Log) -> np.ndarray:
    return _draw_examples(log, 3, 0)[SORTED]


def test_a_union_is_read_at_its_own_length(log: Log, tmp_path: Path) -> None:
    rows = _draw_examples(log, 40, 0)[SORTED]
    asked = {}
    for length in (256, 2048):
        path = tmp_path / f"{length}.parquet"
        assert in_child(write_fat, path, log, rows, length, "lz4") == path.stat().st_size
        columns = column_bytes(path)
        asked[length] = sum(columns[name] for name in (*EXAMPLE, "item_id"))
        read = in_child(read_parquet, path, [*EXAMPLE, "item_id"])
        assert asked[length] <= read <= asked[length] + columns[""] + 65_536  # what a footer is looked for in
    assert asked[2048] > 1.2 * asked[256]  # copies of a value share a place in the dictionary


def test_a_store_is_read_at_the_readers_length_and_columns(log: Log, rows: np.ndarray, tmp_path: Path) -> None:
    build_store(tmp_path / "store", log, shards=1).close()
    short, long = (read_store(tmp_path / "store", log, rows, length, 1, ["item_id"]) for length in (64, 2048))
    all_columns = read_store(tmp_path / "store", log, rows, 2048, 1)
    together = read_store(tmp_path / "store", log, rows, 2048, len(rows))
    assert short < long < all_columns
    assert together < all_columns  # a batch reads a block once


def test_examples_are_the_same_in_either_order_and_fewer_draw_from_more(log: Log) -> None:
    few, more = _draw_examples(log, 2, 0), _draw_examples(log, 5, 0)
    assert sorted(few[ARRIVING]) == few[SORTED].tolist()
    assert set(few[SORTED]) < set(more[SORTED])
    assert np.bincount(np.searchsorted(log.offsets, more[SORTED], "right") - 1).tolist() == [5] * 4
    assert (np.diff(log.visible_at[more[ARRIVING]]) >= 0).all()


def test_fat_rows_hold_what_the_examples_saw(log: Log, rows: np.ndarray, tmp_path: Path) -> None:
    write_fat(tmp_path / "fat.parquet", log, rows, 100, "zstd")
    lists = pq.read_table(tmp_path / "fat.parquet").column("ts").to_pylist()
    for row, seen in zip(rows.tolist(), lists, strict=True):
        first = max(int(log.offsets[np.searchsorted(log.offsets, row, "right") - 1]), row - 100)
        assert seen == log.ts[first:row].tolist()
