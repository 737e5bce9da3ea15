"""However a pass ends, no thread and no snapshot is left, and an error comes as itself."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from loader import ArrayExamples, Loader, LoaderClosedError
from tests.loader.conftest import World, is_closed, loader_threads
from uihkv import PointerError, Pointers, Projection, Snapshot, StoreClosedError

WANTED = Projection(["item_id"], max_len=4)


def make(world: World, examples: ArrayExamples | None = None, **options: Any) -> Loader:
    options = {"batch_size": 4, "shuffle": False} | options
    return Loader(world.store, examples or world.examples, WANTED, **options)


def assert_nothing_left(snapshots: list[Snapshot]) -> None:
    assert loader_threads() == []
    assert snapshots
    assert all(map(is_closed, snapshots))


class Bad(ArrayExamples):
    """Examples whose third batch cannot be taken."""

    error: BaseException = OSError("the disk went away")

    def take(self, indices: Any) -> tuple[Pointers, dict[str, Any]]:
        if indices[0] == 8:
            raise self.error
        return super().take(indices)


def test_end_of_epoch(world: World, snapshots: list[Snapshot]) -> None:
    loader = make(world)
    passing = iter(loader)
    for _ in passing:
        pass
    assert_nothing_left(snapshots)
    assert next(passing, None) is None


def test_break_out_of_the_loop(world: World, snapshots: list[Snapshot]) -> None:
    for _ in make(world):
        assert loader_threads() != []
        break
    assert_nothing_left(snapshots)


def test_error_in_the_loop(world: World, snapshots: list[Snapshot]) -> None:
    def train() -> None:
        for _ in make(world):
            raise ArithmeticError

    with pytest.raises(ArithmeticError) as caught:
        train()
    del caught
    gc.collect()
    assert_nothing_left(snapshots)


def test_iterator_that_was_never_used(world: World, snapshots: list[Snapshot]) -> None:
    iter(make(world))
    assert_nothing_left(snapshots)


def test_iterator_in_a_reference_cycle(world: World, snapshots: list[Snapshot]) -> None:
    cycle: list[Any] = [iter(make(world))]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert_nothing_left(snapshots)


def test_async_break(world: World, snapshots: list[Snapshot]) -> None:
    async def consume() -> None:
        async for _ in make(world):
            break

    asyncio.run(consume())
    assert_nothing_left(snapshots)


def test_close_twice_from_the_iterator_and_from_the_loader(world: World, snapshots: list[Snapshot]) -> None:
    loader = make(world)
    first, second = iter(loader), iter(loader)
    next(first)
    first.close()
    first.close()
    assert next(first, None) is None
    assert next(second) is not None
    loader.close()
    loader.close()
    assert_nothing_left(snapshots)
    with pytest.raises(LoaderClosedError, match="closed after batch 1 of 14"):
        next(second)
    assert next(second, None) is None
    with pytest.raises(LoaderClosedError, match="make a new one"):
        iter(loader)


def test_loader_as_a_context(world: World, snapshots: list[Snapshot]) -> None:
    with make(world) as loader:
        passing = iter(loader)
        next(passing)
    assert_nothing_left(snapshots)


def test_close_wakes_a_consumer_that_waits(world: World, snapshots: list[Snapshot]) -> None:
    release = threading.Event()

    class Slow(ArrayExamples):
        def take(self, indices: Any) -> tuple[Pointers, dict[str, Any]]:
            release.wait(10)
            return super().take(indices)

    loader = make(world, Slow(world.columns))
    passing = iter(loader)
    caught: list[BaseException] = []

    def consume() -> None:
        try:
            next(passing)
        except LoaderClosedError as error:
            caught.append(error)

    consumer = threading.Thread(target=consume)
    consumer.start()
    closer = threading.Thread(target=loader.close)
    closer.start()
    time.sleep(0.05)
    release.set()
    closer.join(5)
    consumer.join(5)
    assert len(caught) == 1
    assert_nothing_left(snapshots)


def test_pointer_past_the_head_is_a_pointer_error_with_its_place(world: World, snapshots: list[Snapshot]) -> None:
    columns = dict(world.columns)
    columns["version"] = columns["version"].copy()
    columns["version"][22] += 1000
    passing = iter(make(world, ArrayExamples(columns)))
    good = [next(passing) for _ in range(5)]
    assert [len(batch) for batch in good] == [4] * 5
    with pytest.raises(PointerError, match="row 2") as caught:
        next(passing)
    notes = "\n".join(caught.value.__notes__)
    assert f"example 22 (row 2 of the batch): user {columns['user_id'][22]}" in notes
    assert "stage 'read', batch 5 of epoch 0, rank 0" in notes
    assert_nothing_left(snapshots)
    assert next(passing, None) is None


def test_wrong_last_ts_is_a_pointer_error_with_its_place(world: World) -> None:
    columns = dict(world.columns)
    row = int(np.flatnonzero(columns["version"] > 0)[-1])
    columns["last_ts"] = columns["last_ts"].copy()
    columns["last_ts"][row] += 1
    with pytest.raises(PointerError, match="last_ts") as caught:
        list(make(world, ArrayExamples(columns)))
    assert any(f"example {row} " in note for note in caught.value.__notes__)


@pytest.mark.parametrize("error", [OSError("gone"), SystemExit(3), KeyError("x"), asyncio.CancelledError()])
def test_any_error_of_a_source_comes_as_itself_and_in_order(
    world: World, snapshots: list[Snapshot], error: BaseException
) -> None:
    examples = Bad(world.columns)
    examples.error = error
    passing = iter(make(world, examples, prefetch=8))
    assert next(passing).examples["row"].tolist() == [0, 1, 2, 3]
    assert next(passing).examples["row"].tolist() == [4, 5, 6, 7]
    with pytest.raises(type(error)) as caught:
        next(passing)
    assert caught.value is error
    assert any("stage 'take', batch 2" in note for note in error.__notes__)
    assert_nothing_left(snapshots)
    assert next(passing, None) is None


def test_stop_iteration_in_a_stage_does_not_end_the_epoch_unseen(world: World) -> None:
    examples = Bad(world.columns)
    examples.error = StopIteration()
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(make(world, examples))


def test_error_reaches_an_async_consumer(world: World, snapshots: list[Snapshot]) -> None:
    async def consume() -> None:
        async for _ in make(world, Bad(world.columns)):
            pass

    with pytest.raises(OSError, match="the disk went away"):
        asyncio.run(consume())
    assert_nothing_left(snapshots)


def test_store_closed_under_a_pass(world: World) -> None:
    from uihkv import Store

    store = Store.open(world.store.path, readonly=True)
    passing = iter(Loader(store, world.examples, WANTED, batch_size=2, prefetch=1))
    next(passing)
    store.close()
    with pytest.raises(StoreClosedError):
        list(passing)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C raises, also where the tests run in the background of a shell, which turns it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_interrupt_while_waiting(world: World, snapshots: list[Snapshot]) -> None:
    release = threading.Event()

    class Slow(ArrayExamples):
        def take(self, indices: Any) -> tuple[Pointers, dict[str, Any]]:
            release.wait(10)
            return super().take(indices)

    def interrupt() -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        release.set()

    passing = iter(make(world, Slow(world.columns)))
    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        next(passing)
    sender.join()
    assert_nothing_left(snapshots)


def test_a_program_that_ends_in_the_midst_of_a_pass_ends_quietly(world: World) -> None:
    program = f"""
import numpy as np
from loader import ArrayExamples, Loader
from uihkv import Projection, Store
store = Store.open({str(world.store.path)!r}, readonly=True)
passing = iter(Loader(store, ArrayExamples({{"user_id": np.ones(4000, int), "version": np.ones(4000, int)}}),
                      Projection(["ts"]), batch_size=2))
print(len(next(passing)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n")
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
