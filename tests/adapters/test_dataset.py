"""The loader inside torch's own loaders: the same batches in the same order."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from torch.utils.data import DataLoader

from loader import IterableUIHDataset, Loader, SettingError, StateError
from loader.testing import assert_same_batch
from tests.loader.conftest import World, no_thread_left, world
from uihkv import Projection

__all__ = ["no_thread_left", "world"]
WANTED = Projection(["item_id", "tags", "vec"], max_len=4)


def dataset(world: World, **settings: Any) -> IterableUIHDataset:
    return IterableUIHDataset(world.store, world.examples, WANTED, **{"batch_size": 6, **settings})


def plain(world: World, epoch: int = 0, **settings: Any) -> list[Any]:
    loader = Loader(world.store, world.examples, WANTED, **{"batch_size": 6, **settings})
    loader.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (3, "spawn")])
def test_torchs_loader_gives_the_same_batches_in_the_same_order(world: World, workers: int, context: Any) -> None:
    data = dataset(world, dedup=workers == 2)
    assert len(data) == 9
    data.set_epoch(4)
    loader = DataLoader(data, batch_size=None, num_workers=workers, multiprocessing_context=context)
    assert len(loader) == 9
    for batch, expected in zip(loader, plain(world, 4), strict=True):
        assert_same_batch(batch, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_resumes_to_the_batch(world: World, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    whole = plain(world, 1)

    def make() -> Any:
        data = dataset(world)
        data.set_epoch(1)
        return stateful.StatefulDataLoader(data, batch_size=None, num_workers=workers)

    first = make()
    for batch, expected in zip(islice(first, 4), whole, strict=False):
        assert_same_batch(batch, expected)
    state = first.state_dict()
    second = make()
    second.load_state_dict(state)
    passing = iter(second)
    for expected in whole[4:6]:
        assert_same_batch(next(passing), expected)
    third = make()
    third.load_state_dict(second.state_dict())
    for batch, expected in zip(third, whole[6:], strict=True):
        assert_same_batch(batch, expected)
    del passing


def test_what_is_torchs_to_set_and_states_of_others_are_refused(world: World) -> None:
    with pytest.raises(SettingError, match="num_workers is the DataLoader's"):
        dataset(world, num_workers=2)
    data = dataset(world)
    state = data.state_dict()
    for change in ({"workers": 3}, {"fingerprint": {}}):
        with pytest.raises(StateError):
            data.load_state_dict({**state, **change})
    with pytest.raises(StateError, match="not this dataset's"):
        data.load_state_dict({})
