"""Batches are what the store says, in an order that settings alone decide."""

from __future__ import annotations

import asyncio
import threading
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loader as package
from loader import ArrayExamples, Loader, LoaderStats, ParquetExamples, SettingError
from loader.testing import assert_same_batch
from tests.loader.conftest import EXAMPLES, World
from uihkv import Column, Pointers, Projection, Schema, Store, TrimmedError

WANTED = Projection(["item_id", "surface", "ts"], max_len=5)


def make(world: World, **options: Any) -> Loader:
    options.setdefault("projection", WANTED)
    return Loader(world.store, world.examples, batch_size=options.pop("batch_size", 8), **options)


def rows(loader: Loader) -> list[list[int]]:
    return [batch.examples["row"].tolist() for batch in loader]


def test_every_example_gets_the_history_that_its_pointer_names(world: World) -> None:
    seen = []
    for batch in make(world):
        for row, example in enumerate(batch.examples["row"].tolist()):
            assert int(batch.pointers.user_id[row]) == world.columns["user_id"][example]
            assert float(batch.examples["label"][row]) == world.columns["label"][example]
            assert batch.examples["candidate"][row].tolist() == world.columns["candidate"][example].tolist()
            for name in ("item_id", "surface", "ts"):
                column = batch.history[name]
                start, end = column.offsets[row : row + 2].tolist()
                assert column.values[start:end].tolist() == world.window(example, name, 5)
            seen.append(example)
    assert sorted(seen) == list(range(EXAMPLES))


def test_batches_equal_reading_the_pointers_directly(world: World) -> None:
    with world.store.snapshot() as snapshot:
        for batch in make(world, projection=Projection()):
            histories = snapshot.read(batch.pointers, Projection())
            assert batch.history.columns == histories.columns
            for name in histories:
                assert np.array_equal(batch.history[name].values.numpy(), histories.values(name))
                inner, expected = batch.history[name].element_offsets, histories.element_offsets(name)
                assert (inner is None) == (expected is None)
                assert inner is None or np.array_equal(inner.numpy(), expected)
            assert np.array_equal(batch.history.lengths.numpy(), histories.lengths)
            for side in ("left", "right"):
                padded = batch.history["vec"].padded(3, side=side).numpy()
                assert np.array_equal(padded, histories.padded("vec", 3, side=side))


@pytest.mark.parametrize("prefetch", [2, 7, 100])
def test_prefetch_changes_nothing_but_speed(world: World, prefetch: int) -> None:
    for batch, expected in zip(make(world, prefetch=prefetch), make(world, prefetch=1), strict=True):
        assert_same_batch(batch, expected)


def test_seed_and_epoch_decide_the_order(world: World) -> None:
    loader = make(world)
    first = rows(loader)
    assert rows(loader) == first
    loader.set_epoch(1)
    second = rows(loader)
    assert second != first
    assert sorted(chain(*second)) == sorted(chain(*first))
    loader.sampler.set_epoch(0)
    assert rows(loader) == first
    assert rows(make(world, seed=1)) != first
    assert list(chain(*rows(make(world, shuffle=False)))) == list(range(EXAMPLES))


@pytest.mark.parametrize(("drop_last", "world_size"), [(False, 1), (True, 1), (False, 3), (True, 3), (False, 4)])
def test_ranks_partition_the_epoch(world: World, drop_last: bool, world_size: int) -> None:
    ranks = [
        make(world, rank=rank, world_size=world_size, batch_size=4, drop_last=drop_last) for rank in range(world_size)
    ]
    by_rank = [rows(loader) for loader in ranks]
    assert {len(batches) for batches in by_rank} == {len(ranks[0])}
    alone = make(world, batch_size=4 * world_size, drop_last=drop_last)
    for number, expected in zip(range(len(ranks[0])), rows(alone), strict=False):
        assert list(chain(*(batches[number] for batches in by_rank))) == expected
    seen = sorted(chain(*chain(*by_rank)))
    assert len(set(seen)) == len(seen)
    assert EXAMPLES - len(seen) < (4 * world_size if drop_last else world_size)


@pytest.mark.parametrize("batch_size", [1, 7, 53, 54, 1000])
def test_len_is_exact(world: World, batch_size: int) -> None:
    loader = make(world, batch_size=batch_size)
    sizes = [len(batch) for batch in loader]
    assert len(sizes) == len(loader)
    assert sum(sizes) == EXAMPLES
    assert all(size == batch_size for size in sizes[:-1])


def test_each_iter_is_a_new_pass_and_passes_do_not_disturb_each_other(world: World) -> None:
    loader = make(world)
    one, two = iter(loader), iter(loader)
    assert one is not two
    assert iter(one) is one
    pairs = list(zip(one, two, strict=True))
    assert len(pairs) == len(loader)
    for left, right in pairs:
        assert_same_batch(left, right)
    assert list(one) == []


def test_tenants_get_a_history_each(world: World) -> None:
    tenants = {"ranker": Projection(["item_id"], max_len=2), "retrieval": Projection(["ts", "item_id"])}
    for batch in make(world, projection=None, tenants=tenants):
        assert list(batch.histories) == ["ranker", "retrieval"]
        for row, example in enumerate(batch.examples["row"].tolist()):
            for tenant, max_len in (("ranker", 2), ("retrieval", None)):
                column = batch.histories[tenant]["item_id"]
                start, end = column.offsets[row : row + 2].tolist()
                assert column.values[start:end].tolist() == world.window(example, "item_id", max_len)


def test_parquet_examples_give_the_same_batches(world: World, parquet: Any) -> None:
    other = Loader(world.store, ParquetExamples(parquet), WANTED, batch_size=8)
    for batch, expected in zip(other, make(world), strict=True):
        assert_same_batch(batch, expected)


def test_one_pass_reads_one_snapshot(world: World, tmp_path: Any) -> None:
    """Events that arrive during a pass are not in its histories; pointers decide, and they are older."""
    store = Store.create(tmp_path / "store", world.store.schema, shards=1)
    row = {"user_id": [1], "ts": [1], "item_id": [1], "surface": [0], "tags": [[]], "vec": [[0, 0]]}
    arrays = {name: np.array(values, np.float32 if name == "vec" else None) for name, values in row.items()}
    arrays["surface"], arrays["tags"] = np.array([0], np.uint16), [np.array([], np.int32)]
    store.append(arrays)
    examples = package.ArrayExamples({"user_id": [1] * 50, "version": [1] * 50})
    with store, Loader(store, examples, Projection(["item_id"]), batch_size=1, prefetch=1) as loader:
        for number, batch in enumerate(loader):
            if number % 10 == 0:
                store.append(arrays)
            assert batch.history["item_id"].values.tolist() == [1]


def test_async_iteration_gives_the_same_batches_without_blocking_the_loop(world: World) -> None:
    async def consume(loader: Loader) -> tuple[list[Any], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        batches = [batch async for batch in loader]
        ticking.cancel()
        return batches, ticks

    batches, ticks = asyncio.run(consume(make(world)))
    assert ticks > 0
    for batch, expected in zip(batches, make(world), strict=True):
        assert_same_batch(batch, expected)


def test_cancelled_wait_loses_no_batch(world: World) -> None:
    async def consume(loader: Loader) -> list[list[int]]:
        seen = []
        passing = aiter(loader)
        while True:
            try:
                batch = await asyncio.wait_for(anext(passing), timeout=0.0005)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return seen
            seen.append(batch.examples["row"].tolist())

    assert asyncio.run(consume(make(world, batch_size=2))) == rows(make(world, batch_size=2))


def test_trainers_find_the_attributes_they_read(world: World) -> None:
    loader = make(world, drop_last=True)
    assert (loader.batch_size, loader.drop_last, loader.num_workers, loader.pin_memory) == (8, True, 0, False)
    assert loader.dataset.columns == ("label", "row", "candidate")
    assert callable(loader.sampler.set_epoch)


def test_rank_comes_from_torch_distributed_when_it_is_initialised(world: World, tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        assert rows(make(world)) == rows(make(world, rank=0, world_size=1))
    finally:
        torch.distributed.destroy_process_group()


def test_stats_count_the_pass(world: World) -> None:
    loader = make(world)
    empty = loader.stats()
    assert isinstance(empty, LoaderStats)
    assert (empty.batches, empty.limiting) == (0, "")
    events = size = 0
    for batch in loader:
        events += batch.events
        size += batch.nbytes
    stats = loader.stats()
    assert [stage.name for stage in stats.stages] == ["take", "read", "assemble"]
    assert all(stage.count == len(loader) and 0 < stage.mean_s <= stage.max_s for stage in stats.stages)
    assert (stats.batches, stats.examples, stats.events, stats.bytes) == (len(loader), EXAMPLES, events, size)
    assert events == sum(len(world.window(example, "ts", 5)) for example in range(EXAMPLES))
    assert 0 <= stats.wait_s <= stats.elapsed_s
    assert 0 <= stats.wait_share <= 1
    assert stats.limiting in {"take", "read", "assemble", "consumer"}
    assert stats.describe()["batches"] == len(loader)


def test_no_more_than_prefetch_batches_are_made_ahead(world: World) -> None:
    made: list[int] = []
    all_made = threading.Event()

    class Watched(package.ArrayExamples):
        def take(self, indices: Any) -> tuple[Pointers, dict[str, Any]]:
            made.append(len(indices))
            if len(made) == 3:
                all_made.set()
            return super().take(indices)

    loader = Loader(world.store, Watched(world.columns), WANTED, batch_size=2, prefetch=3)
    with loader:
        passing = iter(loader)
        assert all_made.wait(5)
        assert not threading.Event().wait(0.05)
        assert len(made) == 3
        next(passing)
    assert len(made) <= 4


def test_an_example_whose_history_was_trimmed_is_named_or_cut(tmp_path: Path) -> None:
    with Store.create(tmp_path / "trimmed", Schema([Column("item_id", "int64")]), shards=2) as store:
        users = np.repeat(np.arange(6), 10)
        store.append({"user_id": users, "ts": np.arange(60), "item_id": np.arange(60)}, backfill=True)
        store.trim(4, 7)
        examples = ArrayExamples({"user_id": np.arange(6), "version": np.full(6, 10)})
        asked = Projection(["item_id"], max_len=5)
        with Loader(store, examples, asked, batch_size=6, shuffle=False) as loader:
            with pytest.raises(TrimmedError) as raised:
                list(loader)
            assert any("example 4" in note for note in raised.value.__notes__)
        with Loader(store, examples, asked, batch_size=6, shuffle=False, on_trimmed="truncate") as loader:
            (batch,) = list(loader)
            assert batch.history["item_id"].offsets.diff().tolist() == [5, 5, 5, 5, 3, 5]
        with pytest.raises(SettingError, match="on_trimmed"):
            Loader(store, examples, asked, on_trimmed="skip")  # type: ignore[arg-type]
