"""Deduplicated batches hold each event once and are the plain ones when expanded; tenants share their reads."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loader import ArrayExamples, Batch, DedupHistory, Loader
from loader.spans import copy_spans, merge_windows, number_rows
from loader.testing import assert_resumes_exactly, assert_same_batch
from tests.loader.conftest import World
from uihkv import Column, PointerError, Projection, Schema, SchemaError, StochasticLength, Store

TENANTS = {
    "everything": Projection(),
    "short": Projection(["item_id", "tags", "ts"], max_len=3),
    "long": Projection(["vec", "item_id"], max_len=7),
    "same": Projection(["tags", "surface"], max_len=7),
    "low": Projection(["item_id", "tags"], max_len=4, where={"surface": (0, 30_000)}),
    "twin": Projection(["item_id", "tags"], max_len=4, where={"surface": (0, 30_000)}),
    "recent": Projection(["ts"], max_age=700),
    "drawn": Projection(["ts", "vec"], max_len=6, sample=StochasticLength(1.2)),
}


def make(world: World, **options: Any) -> Loader:
    options = {"batch_size": 20} | options
    if "projection" not in options:
        options.setdefault("tenants", TENANTS)
    return Loader(world.store, options.pop("examples", world.examples), **options)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=20), st.integers(1, 12))
def test_windows_are_one_run_where_they_overlap_and_only_there(pairs: list[tuple[int, int]], length: int) -> None:
    user = np.array([pair[0] for pair in pairs], np.int64)
    high = np.array([pair[1] for pair in pairs], np.int64)
    low = np.maximum(high - length, 0)
    runs = merge_windows(user, low, high)
    covered: set[tuple[int, int]] = set()
    total = 0
    for run, top in enumerate(runs.top.tolist()):
        assert runs.of[top] == run
        events = {(int(user[top]), event) for event in range(runs.low[run], high[top])}
        assert not events & covered
        covered |= events
        total += len(events)
    for row in range(len(pairs)):
        run = runs.of[row]
        assert user[runs.top[run]] == user[row]
        assert runs.low[run] <= low[row] <= high[row] <= high[runs.top[run]]
    wanted = {(int(u), e) for u, a, b in zip(user, low, high, strict=True) for e in range(a, b)}
    assert covered == wanted
    assert total == len(wanted)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12))
def test_equal_rows_get_one_number(rows: list[tuple[int, int]]) -> None:
    columns = [np.array([row[i] for row in rows], np.int64) for i in range(2)]
    first, number = number_rows(*columns)
    assert len(first) == len(set(rows))
    assert [rows[first[n]] for n in number] == rows


@pytest.mark.parametrize(("dtype", "shape"), [("int64", ()), ("uint8", ()), ("float32", (2,)), ("bool", (3, 1))])
def test_copied_spans_are_slices(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(20 * int(np.prod(shape, dtype=int))).reshape(20, *shape).astype(dtype)
    start, end = np.array([3, 0, 7, 20]), np.array([9, 0, 8, 20])
    offsets = np.cumsum([0, *(end - start)])
    expected = np.concatenate([values[a:b] for a, b in zip(start, end, strict=True)])
    copied = copy_spans(values, start, end, offsets)
    assert copied.dtype == values.dtype
    assert np.array_equal(copied, expected)


def test_tenants_that_share_reads_get_what_each_would_get_alone(world: World) -> None:
    alone = {name: make(world, projection=projection) for name, projection in TENANTS.items()}
    for batch, *singles in zip(make(world), *alone.values(), strict=True):
        assert list(batch.histories) == list(TENANTS)
        for (name, history), single in zip(batch.histories.items(), singles, strict=True):
            assert history.columns == single.history.columns
            expected = Batch(single.examples, single.pointers, {name: single.history})
            assert_same_batch(Batch(batch.examples, batch.pointers, {name: history}), expected)


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"batch_size": 53}, {"batch_size": 1}])
def test_a_deduplicated_batch_expands_to_the_plain_one(world: World, options: dict[str, Any]) -> None:
    for batch, plain in zip(make(world, dedup=True, **options), make(world, **options), strict=True):
        assert_same_batch(batch, plain)
        assert batch.events == plain.events
        for name, history in batch.histories.items():
            assert isinstance(history, DedupHistory)
            assert history.columns == plain.histories[name].columns
            assert len(history) == len(batch)
            assert torch.equal(history.lengths, plain.histories[name].lengths)


def test_each_event_is_there_once(world: World) -> None:
    (batch,) = make(world, dedup=True, batch_size=53, projection=Projection(["item_id"], max_len=5))
    column = batch.history["item_id"]
    windows = [
        (int(u), e)
        for u, v in zip(world.columns["user_id"], world.columns["version"], strict=True)
        for e in range(max(0, v - 5), v)
    ]
    assert len(column.values) == len(set(windows)) < len(windows) == batch.events


def test_views_of_a_deduplicated_column_are_those_of_the_plain_one(world: World) -> None:
    batch, plain = next(iter(make(world, dedup=True))), next(iter(make(world)))
    for tenant in ("everything", "short", "low"):
        for name in ("item_id",):
            column, expected = batch.histories[tenant][name], plain.histories[tenant][name]
            for side in ("left", "right"):
                assert torch.equal(column.padded(5, -1, side=side), expected.padded(5, -1, side=side))
            assert torch.equal(column.nested().values(), expected.values)
        assert torch.equal(column.lengths, expected.lengths)
    tags = batch.histories["short"]["tags"]
    for refused in (lambda: tags.padded(3), tags.nested):
        with pytest.raises(SchemaError, match="ragged"):
            refused()
    with pytest.raises(SchemaError, match="'nope' was not read"):
        batch.histories["short"]["nope"]
    assert expected.expand() is expected


def test_a_deduplicated_batch_moves_once_for_all_tenants(world: World) -> None:
    batch, plain = next(iter(make(world, dedup=True))), next(iter(make(world)))
    assert batch.nbytes < plain.nbytes
    assert batch.expanded_nbytes == sum(history.expanded_nbytes for history in plain.histories.values()) + sum(
        tensor.nbytes for tensor in plain.examples.values()
    )
    packed = batch._packed()
    assert packed.slab is not None
    assert_same_batch(packed, plain)
    assert packed.nbytes == batch.nbytes
    data = pickle.dumps(batch)
    assert len(data) < 2 * batch.nbytes + 16_384
    assert_same_batch(pickle.loads(data), plain)


def test_bytes_saved_are_reported(world: World) -> None:
    sizes = {}
    for dedup in (False, True):
        loader = make(world, dedup=dedup, projection=Projection(["item_id", "ts"]))
        list(loader)
        stats = loader.stats()
        sizes[dedup] = (stats.bytes, stats.bytes_saved)
        assert 0 < stats.chunks_read <= stats.chunks_asked
        assert stats.bytes_read > 0
        assert stats.bytes_decoded > 0
    plain, saved = sizes[False]
    assert saved == 0
    assert sum(sizes[True]) == plain
    assert sizes[True][1] > 0


@pytest.mark.parametrize("columns", [["item_id"], ["item_id", "ts"]])
@pytest.mark.parametrize("dedup", [False, True])
def test_every_pointer_is_proved(world: World, columns: list[str], dedup: bool) -> None:
    """A wrong last_ts inside another example's window is refused as in the plain form."""
    version, user = world.columns["version"], world.columns["user_id"]
    longest = {int(u): int(version[user == u].max()) for u in set(user.tolist())}
    row = next(r for r in range(len(user)) if 0 < version[r] < longest[int(user[r])])
    wrong = dict(world.columns)
    wrong["last_ts"] = wrong["last_ts"].copy()
    wrong["last_ts"][row] += 1
    options: dict[str, Any] = {"batch_size": 53, "shuffle": False, "projection": Projection(columns, max_len=50)}
    with pytest.raises(PointerError, match="last_ts") as caught:
        list(make(world, examples=ArrayExamples(wrong), dedup=dedup, **options))
    assert any(f"at example {row} (row {row} of the batch)" in note for note in caught.value.__notes__)


def test_pointers_without_proof_are_read_too(world: World) -> None:
    columns = {name: column for name, column in world.columns.items() if name != "last_ts"}
    tenants = {name: TENANTS[name] for name in ("everything", "short", "low")}
    options: dict[str, Any] = {"examples": ArrayExamples(columns), "tenants": tenants}
    for batch, plain in zip(make(world, dedup=True, **options), make(world, **options), strict=True):
        assert_same_batch(batch, plain)


def test_moments_count_for_deduplication(world: World) -> None:
    """Two examples of one pointer asked at different moments see different ages."""
    row = int(np.argmax(world.columns["version"]))
    pointer = {name: np.repeat(world.columns[name][row], 3) for name in ("user_id", "version", "last_ts")}
    last = int(pointer["last_ts"][0])
    examples = ArrayExamples({**pointer, "as_of": np.array([last, last + 600, last])})
    options: dict[str, Any] = {"examples": examples, "projection": Projection(["ts"], max_age=650), "shuffle": False}
    plain, batch = next(iter(make(world, **options))), next(iter(make(world, dedup=True, **options)))
    assert_same_batch(batch, plain)
    lengths = plain.history.lengths.tolist()
    assert lengths[0] == lengths[2] > lengths[1]
    assert len(batch.history["ts"].values) == lengths[0] + lengths[1]


def test_deduplicated_batches_resume(world: World) -> None:
    assert_resumes_exactly(lambda: make(world, dedup=True, batch_size=8), steps=[0, 3])


def test_memory_is_used_again_only_when_the_last_tensor_is_gone(world: World) -> None:
    """Tensors kept from every fifth batch hold what they held, while slabs go round."""
    loader = make(world, projection=Projection(), batch_size=2, prefetch=2)
    kept = []
    for epoch in range(3):
        for number, batch in enumerate(loader):
            if number % 5 == epoch:
                column = batch.history["vec"]
                kept.append((column.values, column.values.clone()))
    for values, copy in kept:
        assert torch.equal(values, copy)


def test_what_trimming_left_is_the_same_in_both_forms(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s", Schema([Column("x", "int64")]), shards=1, chunk_events=4) as store:
        store.append({"user_id": [1] * 30, "ts": np.arange(30), "x": np.arange(30)}, backfill=True)
        store.trim(1, before_version=13)
        version = np.array([30, 2, 14, 13, 20, 0, 12])
        last_ts = np.maximum(version - 1, 0)
        examples = ArrayExamples({"user_id": np.ones(7, np.int64), "version": version, "last_ts": last_ts})
        tenants = {"a": Projection(["x", "ts"], max_len=9), "b": Projection(["x"], max_len=3)}
        options: dict[str, Any] = {"tenants": tenants, "shuffle": False, "on_trimmed": "truncate"}
        plain, batch = (
            next(iter(Loader(store, examples, **options))),
            next(iter(Loader(store, examples, dedup=True, **options))),
        )
        assert_same_batch(batch, plain)
        assert plain.histories["a"].lengths.tolist() == [9, 0, 1, 0, 7, 0, 0]
        assert plain.histories["b"].lengths.tolist() == [3, 0, 1, 0, 3, 0, 0]


def test_columns_that_numpy_lacks_keep_their_type(tmp_path: Path) -> None:
    schema = Schema([Column("half", "bfloat16"), Column("name", "string")])
    with Store.create(tmp_path / "s", schema, shards=1) as store:
        names = [f"n{'x' * i}" for i in range(6)]
        store.append({"user_id": [1] * 6, "ts": np.arange(6), "half": np.arange(6.0, dtype=np.float32), "name": names})
        examples = ArrayExamples({"user_id": [1, 1, 1], "version": [6, 4, 0]})
        tenants = {"a": Projection(["half", "name"], max_len=4), "b": Projection(["name", "half"], max_len=2)}
        for dedup in (False, True):
            batch = next(iter(Loader(store, examples, tenants=tenants, shuffle=False, dedup=dedup)))
            for tenant, lengths in (("a", [4, 4, 0]), ("b", [2, 2, 0])):
                half, name = batch.histories[tenant]["half"].expand(), batch.histories[tenant]["name"].expand()
                assert half.values.dtype == torch.bfloat16
                assert half.lengths.tolist() == lengths
                events = [event for last, n in zip((6, 4, 0), lengths, strict=True) for event in range(last - n, last)]
                assert half.values.tolist() == events
                assert name.element_offsets is not None
                text, at = bytes(name.values.tolist()).decode(), name.element_offsets.tolist()
                assert [text[low:high] for low, high in pairwise(at)] == [names[event] for event in events]
