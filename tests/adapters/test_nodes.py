"""The loader as a source of torchdata's nodes."""

from __future__ import annotations

from itertools import islice

import pytest

from loader import Loader
from loader.testing import assert_same_batch
from tests.loader.conftest import World, no_thread_left, world
from uihkv import Projection

__all__ = ["no_thread_left", "world"]
tn = pytest.importorskip("torchdata.nodes", reason="torchdata is not installed")


def make(world: World) -> Loader:
    return Loader(world.store, world.examples, Projection(["item_id"], max_len=4), batch_size=6)


@pytest.mark.parametrize("threads", [False, True])
def test_nodes_give_the_same_batches_and_resume_to_the_batch(world: World, threads: bool) -> None:
    from loader.adapters.nodes import UIHNode

    def node(loader: Loader) -> object:
        source = UIHNode(loader)
        return tn.Loader(tn.Prefetcher(source, prefetch_factor=2) if threads else source)

    whole = list(make(world))
    with make(world) as one, make(world) as two:
        first = node(one)
        for batch, expected in zip(islice(first, 4), whole, strict=False):  # type: ignore[call-overload]
            assert_same_batch(batch, expected)
        state = first.state_dict()  # type: ignore[attr-defined]
        second = node(two)
        second.load_state_dict(state)  # type: ignore[attr-defined]
        for batch, expected in zip(second, whole[4:], strict=True):  # type: ignore[call-overload]
            assert_same_batch(batch, expected)
        for batch, expected in zip(second, whole, strict=True):  # type: ignore[call-overload]
            assert_same_batch(batch, expected)
        del first, second
