"""Examples see the past as it was: not their own event, nothing later, nothing late."""

from __future__ import annotations

import numpy as np
import pytest

from loader import ParquetExamples
from loader.demo.eventlog import EventLog, lift_visible_times
from loader.demo.examples import Requests, pick_requests
from loader.demo.train import NegativeSampler
from tests.demo.conftest import FullDemo
from uihkv import Projection


def join_both(parts: tuple[Requests, Requests]) -> Requests:
    return Requests(*(np.concatenate([getattr(part, name) for part in parts]) for name in Requests.__slots__))


def rows_of(log: EventLog, user: int) -> np.ndarray:
    return np.flatnonzero(log.user_id == user)


def test_visible_times_are_the_running_maximum_of_each_user() -> None:
    user = np.array([1, 2, 1, 2, 1])
    assert lift_visible_times(user, np.array([5, 9, 3, 10, 6])).tolist() == [5, 9, 5, 10, 6]


def test_visible_times_are_those_of_the_store(full_demo: FullDemo) -> None:
    with full_demo.store.snapshot() as snapshot:
        stored = snapshot.read(snapshot.head(snapshot.users()), Projection(["visible_at"])).values("visible_at")
    by_user = np.argsort(full_demo.log.user_id, kind="stable")
    assert np.array_equal(stored, full_demo.log.visible_at[by_user])


def test_the_split_separates_training_from_evaluation(full_demo: FullDemo) -> None:
    log, every = full_demo.log, len(full_demo.log) // (len(full_demo.earlier) + len(full_demo.later))
    assert full_demo.earlier.as_of.max() < full_demo.split <= full_demo.later.as_of.min()
    assert len(full_demo.earlier) + len(full_demo.later) == len(pick_requests(log, every))
    assert 0.85 < len(full_demo.earlier) / (len(full_demo.earlier) + len(full_demo.later)) < 0.95


def test_no_example_sees_its_own_event_or_any_of_that_moment(full_demo: FullDemo) -> None:
    for path in (full_demo.train, full_demo.evaluate):
        pointers, features = ParquetExamples(path).take(np.arange(len(ParquetExamples(path))))
        with full_demo.store.snapshot() as snapshot:
            for start in range(0, len(pointers), 4096):
                some = slice(start, start + 4096)
                newest = snapshot.read(pointers[some], Projection(["visible_at"], max_len=1))
                # Visible time never steps back in a history, so its newest event stands for all.
                as_of = features["as_of"][some][newest.lengths > 0]
                assert (newest.values("visible_at") < as_of).all()


def test_late_events_leak_through_a_join_on_ts_and_never_through_resolve(
    full_demo: FullDemo, capsys: pytest.CaptureFixture[str]
) -> None:
    log, requests = full_demo.log, join_both((full_demo.earlier, full_demo.later))
    with full_demo.store.snapshot() as snapshot:
        version = snapshot.resolve(requests.user_id, requests.as_of).version
    leaky = leaked = beyond_own_commit = by_resolve = 0
    for user in np.unique(requests.user_id).tolist():
        events = rows_of(log, user)
        ts, visible = log.ts[events], log.visible_at[events]
        for request in np.flatnonzero(requests.user_id == user).tolist():
            as_of = requests.as_of[request]
            unseen = visible >= as_of
            joined = unseen & (ts < as_of)
            leaky += bool(joined.any())
            leaked += int(joined.sum())
            beyond_own_commit += bool((joined & (visible > as_of)).any())
            by_resolve += int(unseen[: version[request]].sum())
            assert not unseen[: version[request]].any() and unseen[version[request] :].all()
    with capsys.disabled():
        print(
            f"\n{len(requests):,} examples: a join on ts alone leaks {leaked:,} events that were not visible yet into "
            f"{leaky:,} examples ({leaky / len(requests):.1%}); into {beyond_own_commit:,} of them events that became "
            f"visible even later than the example's own. resolve leaks {by_resolve}."
        )
    assert leaky > 0
    assert beyond_own_commit > 0
    assert by_resolve == 0


def test_negatives_are_only_items_seen_before_the_split() -> None:
    sampler = NegativeSampler(np.array([0, 16, 0, 1]), seed=3)
    drawn = sampler.draw(2000)
    assert set(drawn.tolist()) == {2, 4}  # tokens: items 1 and 3
    assert 0.85 < (drawn == 2).double().mean() < 0.92  # 16 ** 0.75 to 1
    assert sampler.log_q[2].exp().item() == pytest.approx(8 / 9)
