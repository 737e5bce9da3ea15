"""What a loader refuses, and that it refuses before it starts anything."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loader import DeviceError, Loader, SettingError
from tests.loader.conftest import World, loader_threads
from uihkv import Projection, SchemaError, Snapshot

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"batch_size": 0}, SettingError, "batch_size is 0"),
    ({"batch_size": 2.0}, SettingError, "batch_size is 2.0"),
    ({"batch_size": True}, SettingError, "batch_size is True"),
    ({"prefetch": 0}, SettingError, "prefetch is 0"),
    ({"prefetch": None}, SettingError, "prefetch is None"),
    ({"seed": -1}, SettingError, "seed is -1"),
    ({"seed": 2**64}, SettingError, "seed"),
    ({"shuffle": 1}, SettingError, "shuffle is 1"),
    ({"drop_last": "no"}, SettingError, "drop_last"),
    ({"rank": 0}, SettingError, "both or neither"),
    ({"rank": 2, "world_size": 2}, SettingError, "rank is 2; a whole number from 0 to 1"),
    ({"rank": 0, "world_size": 0}, SettingError, "world_size is 0"),
    ({"rank": 0, "world_size": 99}, SettingError, "53 examples make no batch of 8 on 99 ranks"),
    ({"batch_size": 54, "drop_last": True}, SettingError, "with drop_last=True"),
    ({"projection": None}, SettingError, "neither projection nor tenants"),
    ({"tenants": {"a": Projection()}}, SettingError, "both projection and tenants"),
    ({"projection": None, "tenants": {}}, SettingError, "at least one"),
    ({"projection": None, "tenants": {"a": ["item_id"]}}, SettingError, "tenant 'a' has a list"),
    ({"projection": None, "tenants": {1: Projection()}}, SettingError, "tenant name 1"),
    ({"projection": Projection(["nope"])}, SchemaError, "'nope'"),
    ({"projection": None, "tenants": {"a": Projection(), "b": Projection(["nope"])}}, SchemaError, "'nope'"),
    ({"device": "tpu"}, DeviceError, "device is 'tpu'"),
    ({"device": "mps"}, DeviceError, "prefetches to 'cuda'"),
    ({"store": "a path"}, SettingError, "str given as store"),
    ({"examples": {"user_id": [1], "version": [0]}}, SettingError, "dict given as examples"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_setting_is_refused_at_construction(
    world: World, snapshots: list[Snapshot], change: dict[str, Any], error: type[Exception], message: str
) -> None:
    options = {"store": world.store, "examples": world.examples, "projection": Projection(), "batch_size": 8} | change
    with pytest.raises(error, match=message):
        Loader(options.pop("store"), options.pop("examples"), **options)
    assert loader_threads() == []
    assert snapshots == []


def test_tenant_of_an_unknown_column_is_named(world: World) -> None:
    with pytest.raises(SchemaError) as caught:
        Loader(world.store, world.examples, tenants={"ranker": Projection(["nope"])})
    assert caught.value.__notes__ == ["in the projection of tenant 'ranker'"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_cuda_without_a_device_is_refused(world: World, device: Any) -> None:
    with pytest.raises(DeviceError, match="finds no CUDA device"):
        Loader(world.store, world.examples, Projection(), device=device)


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_on_the_cpu_batches_pass_through(world: World, device: Any) -> None:
    with Loader(world.store, world.examples, Projection(), device=device) as loader:
        batch = next(iter(loader))
    assert batch.device == torch.device("cpu")
    assert batch.slab is None


@pytest.mark.parametrize("epoch", [-1, 1.5, "1", True])
def test_bad_epoch_is_refused(world: World, epoch: Any) -> None:
    with pytest.raises(SettingError, match="epoch is"):
        Loader(world.store, world.examples, Projection()).set_epoch(epoch)


def test_a_loader_starts_nothing_until_it_is_iterated(world: World, snapshots: list[Snapshot]) -> None:
    loader = Loader(world.store, world.examples, Projection())
    loader.state_dict()
    loader.stats()
    assert len(loader) == 1
    assert loader_threads() == []
    assert snapshots == []
