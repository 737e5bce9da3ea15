"""The way to a CUDA device: the order of its calls anywhere, its bytes where there is a device."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from loader import Batch, Loader
from loader.prefetch import Transfer, check_device
from loader.testing import assert_same_batch
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
