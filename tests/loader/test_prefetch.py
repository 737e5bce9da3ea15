"""The way to a CUDA device: the order of its calls anywhere, its bytes where there is a device."""

from __future__ import annotations

import gc
import os
import pickle
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loader import Batch, Loader
from loader.batch import assemble_batch, pack_in_place
from loader.pinning import lock_pages
from loader.prefetch import Transfer, check_device
from loader.reading import Reading, Request
from loader.testing import assert_same_batch
from loader.workers.pool import WorkerPool
from loader.workers.shared import MappedSlabs, make_file
from tests.loader.conftest import World
from uihkv import Projection

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_calls_that_keep_memory_safe_come_in_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording stand-ins for torch.cuda: this checks the order of calls and nothing of a device."""
    calls: list[str] = []

    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = "side" if isinstance(name, torch.device) else name

        def wait_event(self, event: Any) -> None:
            calls.append(f"{self.name} waits for {event.after}")

    class Event:
        def record(self, stream: Stream) -> None:
            self.after = calls[-1]
            calls.append(f"event on {stream.name}")

    @contextmanager
    def inside(what: Any) -> Any:
        calls.append(f"enter {getattr(what, 'name', what)}")
        yield

    def pin(batch: Batch) -> Batch:
        calls.append("pin")
        return batch._packed()

    def to(batch: Batch, device: Any, non_blocking: bool = False) -> Batch:
        calls.append(f"copy to {device}, non_blocking={non_blocking}")
        return batch

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", inside)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(f"current of {device}"))
    monkeypatch.setattr(Batch, "pin_memory", pin)
    monkeypatch.setattr(Batch, "to", to)
    monkeypatch.setattr(Batch, "record_stream", lambda batch, stream: calls.append(f"record {stream.name}"))

    transfer = Transfer(torch.device("cuda"))
    with Loader(world.store, world.examples, Projection(), batch_size=53) as loader:
        batch = next(iter(loader))
    sent = transfer.send(batch)
    copy = "copy to cuda:1, non_blocking=True"
    assert calls == ["enter cuda:1", "enter side", "pin", copy, "event on side"]
    calls.clear()
    assert_same_batch(transfer.receive(sent), batch)
    assert calls == [f"current of cuda:1 waits for {copy}", "record current of cuda:1"]


@contextmanager
def worker_reading(world: World, lock: Callable[[Any], bool], **options: Any) -> Iterator[Reading]:
    """What a worker process gives for the first twenty examples."""
    pool = WorkerPool(1, world.store.path, {"history": Projection()}, options.get("dedup", False), "raise", 2, lock)
    try:
        rows = np.arange(20)
        pointers, _ = world.examples.take(rows)
        yield pool.ask(pool.begin_pass(), Request(pointers, None, 0, rows))
    finally:
        pool.close()


@pytest.mark.parametrize("dedup", [False, True])
def test_a_batch_in_a_workers_locked_slab_is_packed_where_it_lies(world: World, dedup: bool) -> None:
    with worker_reading(world, lambda slab: True, dedup=dedup) as reading:
        assert reading.slab is not None
        pointers, features = world.examples.take(np.arange(20))
        batch = assemble_batch(features, pointers, reading)
        packed = pack_in_place(batch, reading.slab)
        assert packed.slab is not None
        assert packed.slab.data_ptr() == reading.slab.ctypes.data
        stayed = {tensor.data_ptr() for tensor in batch._tensors()} & {its.data_ptr() for its in packed._tensors()}
        moved = [tensor for tensor in packed._tensors() if tensor.nbytes and tensor.data_ptr() not in stayed]
        assert len(moved) == len(features)
        assert_same_batch(packed, batch)
        assert_same_batch(pickle.loads(pickle.dumps(packed)), batch)
        assert_same_batch(packed._carved(packed.slab.clone()), batch)  # what a copy to a device does
        end = max(its.data_ptr() + its.nbytes for its in batch._tensors() if its.data_ptr() in stayed)
        full = reading.slab[: end - reading.slab.ctypes.data]
        assert pack_in_place(batch, full) is batch
        del full, moved, packed, batch, reading


def test_a_slab_that_cannot_be_locked_is_no_slab_to_copy_from(world: World) -> None:
    with worker_reading(world, lambda slab: False) as reading:
        assert reading.slab is None


def test_locked_pages_are_given_back_before_they_are_unmapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for CUDA's runtime: what is called when, and nothing of a device."""
    calls: list[Any] = []

    class Runtime:
        refuses = 0

        def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
            calls.append(("lock", size, flags))
            return self.refuses

        def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
            mapped = Path("/proc/self/maps").read_text().count("uihkv-loader")
            calls.append(("unlock", mapped))
            return 0

    @contextmanager
    def inside(what: Any) -> Any:
        yield

    runtime = Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "device", inside)
    for refused in (0, 2):
        runtime.refuses = refused
        slabs = MappedSlabs(np.zeros(8, np.uint8), lambda slab: lock_pages(slab, torch.device("cuda:0")))
        descriptor = make_file(8192)
        slabs.add([(3, 8192)], 8192, [descriptor])
        os.close(descriptor)
        assert slabs.is_locked(3) == (not refused)
        lease = slabs.lease(3)
        del slabs
        part = lease[:10]
        del lease
        assert calls.pop(0) == ("lock", 8192, 1)
        assert calls == []
        del part
        assert calls == ([] if refused else [("unlock", 1)])
        calls.clear()


def test_a_batch_in_locked_memory_is_kept_until_its_copy_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[bool] = []

    class Event:
        def record(self, stream: Any) -> None:
            pass

        def query(self) -> bool:
            return bool(ended)

    @contextmanager
    def inside(what: Any) -> Any:
        yield

    for name, stand_in in (("Stream", lambda device: None), ("Event", Event), ("device", inside), ("stream", inside)):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(Batch, "pin_memory", lambda batch: batch)
    monkeypatch.setattr(Batch, "to", lambda batch, device, non_blocking: batch._packed())
    transfer = Transfer(torch.device("cuda:0"))
    with Loader(world.store, world.examples, Projection(), batch_size=20) as loader:
        first, second = islice(loader, 2)
    lease = weakref.ref(first.examples["row"])
    transfer.send(first)
    del first
    gc.collect()
    assert lease() is not None
    ended.append(True)
    transfer.send(second)
    gc.collect()
    assert lease() is None


def test_the_host_is_no_device_to_copy_to() -> None:
    assert check_device(None) is None
    assert check_device("cpu") is None


@needs_cuda
def test_batches_on_the_device_are_those_of_the_host(world: World) -> None:
    options: dict[str, Any] = {"projection": Projection(), "batch_size": 4}
    on_host = list(Loader(world.store, world.examples, **options))
    loader = Loader(world.store, world.examples, device="cuda", prefetch=3, **options)
    for _ in range(20):  # many slabs are freed and reused while work on them is queued
        arrived = []
        for batch in loader:
            assert batch.device.type == "cuda"
            torch.cuda._sleep(100_000)
            arrived.append(batch._carved(batch.slab.clone()))  # type: ignore[union-attr]
        for batch, expected in zip(arrived, on_host, strict=True):
            assert_same_batch(batch.to("cpu"), expected)
            for side in ("left", "right"):
                padded = batch.history["surface"].padded(3, 65535, side=side)
                assert torch.equal(padded.cpu(), expected.history["surface"].padded(3, 65535, side=side))
    assert [stage.name for stage in loader.stats().stages][-1] == "transfer"


@needs_cuda
def test_batches_move_by_hand(world: World) -> None:
    with Loader(world.store, world.examples, Projection(), batch_size=20) as loader:
        batch = next(iter(loader))
    pinned = batch.pin_memory()
    assert pinned.slab is not None
    assert pinned.slab.is_pinned()
    assert pinned.pin_memory() is pinned
    moved = pinned.to("cuda", non_blocking=True)
    moved.record_stream(torch.cuda.current_stream())
    assert moved.to("cuda") is moved
    assert_same_batch(moved.to("cpu"), batch)
    assert torch.equal(moved.history["item_id"].nested().values().cpu(), batch.history["item_id"].values)


def test_a_transfer_that_is_dropped_waits_for_its_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, stand-ins: memory that workers would have back, or that is unmapped, may be copied from still."""
    calls: list[str] = []

    class Stream:
        def __init__(self, device: Any) -> None:
            pass

        def synchronize(self) -> None:
            calls.append("waits")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    transfer = Transfer(torch.device("cuda:0"))
    memory = np.zeros(1)
    weakref.finalize(memory, calls.append, "lets go")
    transfer._copying.append((None, memory))  # type: ignore[arg-type]
    del memory, transfer
    gc.collect()
    assert calls == ["waits", "lets go"]
