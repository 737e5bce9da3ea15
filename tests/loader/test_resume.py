"""A state names a place in an epoch, to the row."""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import Any

import pytest

from loader import ArrayExamples, Loader, SettingError, StateError
from loader.testing import assert_resumes_exactly
from tests.loader.conftest import EXAMPLES, World
from uihkv import Projection

WANTED = Projection(["item_id"], max_len=4)


def make(world: World, **options: Any) -> Loader:
    options = {"projection": WANTED, "batch_size": 8} | options
    return Loader(world.store, options.pop("examples", world.examples), **options)


def rows(batches: Any) -> list[list[int]]:
    return [batch.examples["row"].tolist() for batch in batches]


@pytest.mark.parametrize("options", [{}, {"drop_last": True, "prefetch": 1}, {"shuffle": False, "prefetch": 9}])
def test_resumes_at_every_place_twice(world: World, options: dict[str, Any]) -> None:
    assert_resumes_exactly(lambda: make(world, **options))


def test_the_check_finds_a_loader_that_does_not_resume(world: World) -> None:
    class Forgetful(Loader):
        def load_state_dict(self, state: Any) -> None:
            pass

    with pytest.raises(AssertionError, match=r"differ|came"):
        assert_resumes_exactly(lambda: Forgetful(world.store, world.examples, WANTED, batch_size=8))


def test_batches_made_ahead_do_not_count(world: World) -> None:
    loader = make(world, prefetch=50)
    passing = iter(loader)
    next(passing)
    next(passing)
    state = loader.state_dict()
    assert (state["epoch"], state["consumed"]) == (0, 16)
    assert json.loads(json.dumps(state)) == state
    rest = make(world)
    rest.load_state_dict(state)
    assert rows(rest) == rows(passing)


def test_state_is_legal_before_the_first_and_after_the_last_batch(world: World) -> None:
    loader = make(world)
    before = loader.state_dict()
    whole = rows(loader)
    after = loader.state_dict()
    assert (before["consumed"], after["consumed"]) == (0, EXAMPLES)
    loader.load_state_dict(before)
    assert rows(loader) == whole
    loader.load_state_dict(after)
    assert rows(loader) == []
    assert rows(loader) == whole  # the place holds for one pass


def test_a_loaded_state_is_the_state_until_the_next_batch(world: World) -> None:
    loader = make(world)
    loader.set_epoch(3)
    next(iter(loader))
    state = loader.state_dict()
    other = make(world)
    other.load_state_dict(state)
    assert other.state_dict() == state
    passing = iter(other)
    assert other.state_dict() == state
    passing.close()


def test_an_iterator_that_hands_out_nothing_leaves_the_place_to_the_next(world: World) -> None:
    whole = rows(make(world))
    loader = make(world)
    next(passing := iter(loader))
    passing.close()
    resumed = make(world)
    resumed.load_state_dict(loader.state_dict())
    iter(resumed).close()
    assert resumed.state_dict() == loader.state_dict()
    assert rows(resumed) == whole[1:]
    assert rows(resumed) == whole


def test_set_epoch_keeps_the_place_in_that_epoch_and_begins_others_anew(world: World) -> None:
    loader = make(world)
    loader.set_epoch(2)
    whole = rows(loader)
    list(islice(loader, 3))
    state = loader.state_dict()
    resumed = make(world)
    resumed.load_state_dict(state)
    resumed.set_epoch(2)
    assert rows(resumed) == whole[3:]
    resumed.load_state_dict(state)
    resumed.set_epoch(3)
    assert resumed.state_dict()["consumed"] == 0
    assert sum(map(len, rows(resumed))) == EXAMPLES


@pytest.mark.parametrize("taken", [0, 1, 3, 6, 7])
def test_resumes_with_another_world_size_of_the_same_global_batch(world: World, taken: int) -> None:
    whole = rows(make(world))
    loader = make(world)
    passing = iter(loader)
    for _ in range(taken):
        next(passing)
    state = loader.state_dict()
    passing.close()
    ranks = [make(world, batch_size=2, rank=rank, world_size=4) for rank in range(4)]
    parts = []
    for rank in ranks:
        rank.load_state_dict(state)
        parts.append(rows(rank))
    together = [list(chain(*batches)) for batches in zip(*parts, strict=True)]
    assert together == whole[taken:]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"shuffle": False}, "shuffle"),
        ({"drop_last": True}, "drop_last"),
        ({"batch_size": 4}, "global_batch was 8 and is 4"),
        ({"projection": Projection(["item_id"], max_len=5)}, "tenants"),
    ],
)
def test_state_of_other_settings_is_refused(world: World, change: dict[str, Any], named: str) -> None:
    other = make(world, **change)
    with pytest.raises(StateError, match=named):
        other.load_state_dict(make(world).state_dict())
    assert other.state_dict()["consumed"] == 0


def test_state_of_other_data_is_refused(world: World) -> None:
    state = make(world).state_dict()
    fewer = ArrayExamples({name: array[1:] for name, array in world.columns.items()})
    with pytest.raises(StateError, match="examples was"):
        make(world, examples=fewer).load_state_dict(state)
    state["fingerprint"]["store"] = "another"
    with pytest.raises(StateError, match="store was 'another'"):
        make(world).load_state_dict(state)


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"epoch": -1}, {"epoch": "0"}, {"consumed": 7}, {"consumed": 800}, {"consumed": True}, None],
)
def test_what_is_no_state_is_refused(world: World, change: dict[str, Any] | None) -> None:
    loader = make(world)
    with pytest.raises(StateError):
        loader.load_state_dict({} if change is None else loader.state_dict() | change)


def test_batches_are_skipped_by_hand(world: World) -> None:
    whole = rows(make(world))
    loader = make(world)
    loader.skip(2)
    loader.skip(1)
    assert rows(loader) == whole[3:]
    next(passing := iter(loader))
    passing.close()
    loader.skip(2)
    assert loader.state_dict()["consumed"] == 24
    assert rows(loader) == whole[3:]
    for wrong in (-1, 1.5, 8):
        with pytest.raises(SettingError):
            make(world).skip(wrong)  # type: ignore[arg-type]
