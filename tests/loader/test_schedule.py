"""Batches by budget, by balance, by affinity and by owned shards: what each promises, at every world size."""

from __future__ import annotations

import json
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader import ArrayExamples, Loader, SettingError, StateError
from loader.budget import cut_by_events, deal_evenly, split_evenly
from loader.order import group_examples, permute_examples
from loader.ownership import assign_shards
from loader.testing import assert_resumes_exactly, assert_same_batch
from tests.loader.conftest import EXAMPLES, World
from uihkv import Projection

WANTED = Projection(["item_id"], max_len=5)
LENGTHS = st.lists(st.integers(0, 9), max_size=40)


def make(world: World, **options: Any) -> Loader:
    options = {"projection": WANTED, "batch_size": 8} | options
    return Loader(world.store, options.pop("examples", world.examples), **options)


def ranks(world: World, world_size: int, **options: Any) -> list[Loader]:
    return [make(world, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def rows(batches: Any) -> list[list[int]]:
    return [batch.examples["row"].tolist() for batch in batches]


def bounds(world: World, max_len: int = 5) -> np.ndarray[Any, Any]:
    return np.minimum(world.columns["version"], max_len)


# -- laws of the pure parts -----------------------------------------------------------------------


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 7), st.none() | st.integers(9, 30))
def test_a_cut_comes_only_where_one_more_example_would_not_fit(
    lengths: list[int], batch_size: int, max_events: int | None
) -> None:
    cuts = cut_by_events(np.array(lengths, np.int64), batch_size, max_events).tolist()
    assert (cuts[0], cuts[-1]) == (0, len(lengths))
    for low, high in pairwise(cuts):
        assert 0 < high - low <= batch_size
        assert max_events is None or sum(lengths[low:high]) <= max_events
        if high < len(lengths):
            over = max_events is not None and sum(lengths[low : high + 1]) > max_events
            assert over or high - low == batch_size


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 6))
def test_dealing_gives_every_rank_as_many_and_nearly_equal_events(lengths: list[int], world_size: int) -> None:
    dealt = deal_evenly(np.array(lengths, np.int64), world_size)
    counts = np.bincount(dealt, minlength=world_size)
    assert counts.max() - counts.min() <= 1
    if len(lengths) % world_size == 0 and lengths:
        held = np.bincount(dealt, lengths, world_size)
        assert held.max() - held.min() <= max(lengths) - min(lengths)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 6))
def test_splitting_evenly_keeps_cuts_and_leaves_none_empty(sizes: list[int], parts: int) -> None:
    cuts = np.cumsum([0, *sizes]).tolist()
    if not len(sizes) <= parts <= sum(sizes):
        return
    places = split_evenly(cuts, parts)
    assert len(places) == parts + 1
    assert set(cuts) <= set(places)
    assert all(low < high for low, high in pairwise(places))


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 50), st.integers(0, 3))
def test_affinity_puts_users_together_and_moves_nothing_out_of_its_window(
    users: list[int], window: int, seed: int
) -> None:
    user = np.array(users, np.int64)
    order = permute_examples(len(user), seed, epoch=0)
    grouped = group_examples(order, user % 3, user, window)
    for start in range(0, len(user), window):
        mine, drawn = grouped[start : start + window], order[start : start + window]
        assert sorted(mine) == sorted(drawn)
        for key in (user % 3, user):
            runs = [key[mine][0], *(b for a, b in zip(key[mine], key[mine][1:], strict=False) if a != b)]
            assert len(runs) == len(set(runs))
        for one in set(users):
            assert [i for i in mine if user[i] == one] == [i for i in drawn if user[i] == one]


def test_shards_are_given_out_by_examples() -> None:
    assert assign_shards(np.array([9, 1, 1, 7, 1]), 2).tolist() == [0, 1, 1, 1, 0]
    owner = assign_shards(np.zeros(8, np.int64), 4)
    assert np.bincount(owner, minlength=4).tolist() == [2, 2, 2, 2]


# -- budgets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("balance", [False, True])
def test_no_batch_exceeds_its_events_and_every_example_comes_once(world: World, world_size: int, balance: bool) -> None:
    loaders = ranks(world, world_size, max_events=17, balance=balance)
    seen: list[int] = []
    for loader in loaders:
        batches = list(loader)
        assert len(batches) == len(loader) == len(loaders[0])
        assert all(batch.events <= 17 and 0 < len(batch) <= 8 for batch in batches)
        seen += chain(*rows(batches))
    assert len(set(seen)) == len(seen) > EXAMPLES - world_size


def test_a_budget_counts_all_tenants_and_bounds_what_selects(world: World) -> None:
    tenants = {"a": WANTED, "b": Projection(["ts"], max_len=3, where={"surface": (0, 30_000)})}
    for batch in make(world, projection=None, tenants=tenants, max_events=20):
        assert batch.events <= 20
        version = batch.pointers.version
        assert np.minimum(version, 5).sum() + np.minimum(version, 3).sum() <= 20


def test_an_example_above_the_budget_is_refused_by_name(world: World) -> None:
    first = int(np.argmax(bounds(world) > 4))
    with pytest.raises(SettingError, match=f"example {first} alone has up to 5 events, max_events is 4"):
        make(world, max_events=4)


def test_a_place_stays_where_more_ranks_find_too_few_examples_behind_it(world: World) -> None:
    state = make(world, max_events=40).state_dict() | {"consumed": EXAMPLES - 3}
    eight = make(world, batch_size=1, max_events=5, rank=0, world_size=8)
    eight.load_state_dict(state)
    assert list(eight) == []
    eight.skip(0)
    assert eight.state_dict()["consumed"] == EXAMPLES - 3


@pytest.mark.parametrize("options", [{"max_events": 23}, {"max_events": 23, "drop_last": True, "affinity_window": 20}])
def test_budgeted_batches_resume_at_every_place_twice(world: World, options: dict[str, Any]) -> None:
    assert_resumes_exactly(lambda: make(world, **options))


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_budgeted_batches_resume_on_other_ranks_every_example_once(world: World, taken: int) -> None:
    before = ranks(world, 2, batch_size=6, max_events=12)
    seen: list[int] = []
    for loader in before:
        seen += chain(*rows(islice(passing := iter(loader), taken)))
        passing.close()
    state = before[0].state_dict()
    assert state == before[1].state_dict()
    after = ranks(world, 3, batch_size=4, max_events=8)
    for loader in after:
        loader.load_state_dict(json.loads(json.dumps(state)))
        seen += chain(*rows(loader))
    assert len(set(seen)) == len(seen) > EXAMPLES - 3


# -- balance and affinity -------------------------------------------------------------------------


def test_balanced_ranks_share_each_step_and_spread_events_less(world: World) -> None:
    spread = {}
    for balance in (False, True):
        loaders = ranks(world, 2, batch_size=6, balance=balance, projection=Projection(["ts"]))
        batches = [list(loader) for loader in loaders]
        steps = [sorted(chain(*rows(step))) for step in zip(*batches, strict=True)]
        spread[balance] = [np.ptp([batch.events for batch in step]) for step in zip(*batches, strict=True)]
        assert all(len(batch) == 6 for own in batches for batch in own[:-1])
        spread[f"steps {balance}"] = steps
    assert spread["steps True"] == spread["steps False"]
    assert sum(spread[True]) < sum(spread[False]) / 2


@pytest.mark.parametrize("shuffle", [False, True])
def test_affinity_is_an_order_like_another(world: World, shuffle: bool) -> None:
    def grouped() -> Loader:
        return make(world, affinity_window=24, shuffle=shuffle)

    plain, order = list(chain(*rows(make(world, shuffle=shuffle)))), list(chain(*rows(grouped())))
    assert [sorted(order[i : i + 24]) for i in (0, 24)] == [sorted(plain[i : i + 24]) for i in (0, 24)]
    users = world.columns["user_id"]
    switches = [sum(users[a] != users[b] for a, b in pairwise(o)) for o in (plain, order)]
    assert switches[1] < switches[0]
    assert_resumes_exactly(grouped, steps=[0, 3, 7])


# -- shards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_events", [None, 17])
def test_no_rank_reads_another_ranks_shards(world: World, max_events: int | None) -> None:
    loaders = ranks(world, 3, batch_size=4, split="shards", uneven="pad", max_events=max_events)
    owners: dict[int, set[int]] = {}
    seen: set[int] = set()
    for rank, loader in enumerate(loaders):
        batches = list(loader)
        assert len(batches) == len(loader) == len(loaders[0])
        for batch in batches:
            for shard in world.store.shard_of(batch.pointers.user_id).tolist():
                owners.setdefault(shard, set()).add(rank)
        seen |= set(chain(*rows(batches)))
    assert all(len(owner) == 1 for owner in owners.values())
    assert seen == set(range(EXAMPLES))


def test_uneven_ranks_stop_together_repeat_or_are_refused(world: World) -> None:
    one = np.flatnonzero(world.store.shard_of(world.columns["user_id"]) == 0)
    few = np.flatnonzero(world.store.shard_of(world.columns["user_id"]) == 1)[:3]
    mine = np.concatenate([one, few])
    examples = ArrayExamples({name: column[mine] for name, column in world.columns.items()})
    shared = {"examples": examples, "batch_size": 2, "split": "shards", "shuffle": False}
    drop, pad = ranks(world, 2, **shared), ranks(world, 2, uneven="pad", **shared)
    assert [len(loader) for loader in drop] == [2, 2]
    assert [len(rows(loader)) for loader in drop] == [2, 2]
    longest = -(-len(one) // 2)
    assert [len(loader) for loader in pad] == [longest, longest]
    short = rows(pad[1])
    assert short[:4] == [few[:2].tolist(), few[2:].tolist()] * 2
    with pytest.raises(SettingError, match=f"the ranks' shards make 2 to {longest} batches"):
        make(world, rank=0, world_size=2, uneven="raise", **shared)


def test_owned_shards_resume_at_every_place_twice(world: World) -> None:
    assert_resumes_exactly(lambda: make(world, rank=1, world_size=2, batch_size=4, split="shards"))
    assert_resumes_exactly(lambda: make(world, split="shards", max_events=20, affinity_window=16))


@pytest.mark.parametrize("sizes", [(2, 3, 1), (3, 1, 2), (1, 1, 2)])
def test_owned_shards_resume_on_other_ranks_every_example_once_and_again(world: World, sizes: tuple[int, ...]) -> None:
    """Batches of three fleets in turn; the last one runs to the end and pads, so only repeats come twice."""
    state: dict[str, Any] | None = None
    seen: list[int] = []
    for fleet, world_size in enumerate(sizes):
        loaders = ranks(world, world_size, batch_size=3 + fleet, split="shards", uneven="pad")
        last = fleet == len(sizes) - 1
        states = []
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
            passing = iter(loader)
            found = list(chain(*rows(passing if last else islice(passing, 2))))
            passing.close()
            seen += dict.fromkeys(found) if last else found
            states.append(loader.state_dict())
        assert all(other == states[0] for other in states)
        state = states[0]
        if not last:
            assert state["consumed"] == len(seen)
    assert sorted(seen) == list(range(EXAMPLES))


def test_segments_that_cannot_have_been_are_refused(world: World) -> None:
    loader = make(world, split="shards", batch_size=4)
    next(passing := iter(loader))
    passing.close()
    state = loader.state_dict()
    assert state["segments"] == [[1, 4, 0, 1]]
    for change in (
        {"segments": [[1, 4, 0, 99]]},
        {"segments": [[99, 4, 0, 1]]},
        {"segments": [[1, 4, 0]]},
        {"segments": [[1, 4, 0, True]]},
        {"segments": 5},
        {"segments": []},
        {"consumed": 3},
    ):
        with pytest.raises(StateError):
            loader.load_state_dict({**state, **change})
    with pytest.raises(StateError):
        make(world, batch_size=4).load_state_dict(state)


def test_left_over_examples_are_left_out_padded_or_refused(world: World) -> None:
    """53 examples in global batches of 26 leave one, for two ranks."""
    drop = [rows(loader) for loader in ranks(world, 2, batch_size=13, shuffle=False)]
    assert sorted(chain(*chain(*drop))) == list(range(52))
    pad = [rows(loader) for loader in ranks(world, 2, batch_size=13, shuffle=False, uneven="pad")]
    assert [own[-1] for own in pad] == [[52], [0]]
    with pytest.raises(SettingError, match="1 examples at the end of the epoch are too few for 2 ranks"):
        make(world, rank=0, world_size=2, batch_size=13, uneven="raise")
    assert len(make(world, rank=0, world_size=2, batch_size=13, uneven="raise", drop_last=True)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_events": 0}, "max_events is 0"),
        ({"affinity_window": 0}, "affinity_window is 0"),
        ({"balance": 1}, "balance is 1"),
        ({"split": "users"}, "split is 'users'; one of 'examples', 'shards'"),
        ({"uneven": None}, "uneven is None; one of 'drop', 'pad', 'raise'"),
        ({"split": "shards", "balance": True}, "balance=True with split='shards'"),
        ({"split": "shards", "rank": 0, "world_size": 4}, "4 ranks cannot own 3 shards"),
    ],
)
def test_settings_that_cannot_be_are_refused(world: World, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make(world, **change)


def test_a_source_without_pointers_at_hand_is_asked_for_them(world: World) -> None:
    class Asked:
        columns: tuple[str, ...] = ("row",)
        fingerprint = "asked"

        def __len__(self) -> int:
            return EXAMPLES

        def take(self, indices: Any) -> Any:
            return world.examples.take(indices)

    one = make(world, examples=Asked(), max_events=17, affinity_window=30)
    for batch, expected in zip(one, make(world, max_events=17, affinity_window=30), strict=True):
        assert_same_batch(batch, expected)
