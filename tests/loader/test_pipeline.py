"""The pipeline by itself: order, bounds, ends, and the loop it runs on."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from loader.handoff import PATIENCE_S, Ended, Failed, Handoff
from loader.pipeline import Pipeline


def take_all(pipeline: Pipeline[Any, Any]) -> list[Any]:
    results = []
    while True:
        try:
            results.append(pipeline.take())
        except Ended:
            return results


def nothing() -> None:
    pass


@pytest.mark.parametrize("workers", [1, 4])
def test_results_come_in_order_whatever_takes_longest(workers: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    pipeline = Pipeline(range(20), work, nothing, ahead=5, workers=workers)
    assert take_all(pipeline) == [item * item for item in range(20)]
    pipeline.close()


def test_a_lane_that_waits_for_a_place_keeps_nothing_alive() -> None:
    class Result:
        pass

    pipeline = Pipeline(range(9), lambda item: Result(), nothing, ahead=1, workers=2)
    taken = weakref.ref(pipeline.take())
    deadline = time.monotonic() + 5
    while taken() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert taken() is None
    pipeline.close()


def test_release_comes_last_and_once() -> None:
    events: list[str] = []
    lock = threading.Lock()

    def work(item: int) -> int:
        time.sleep(0.01)
        with lock:
            events.append("work")
        return item

    pipeline = Pipeline(range(100), work, lambda: events.append("release"), ahead=4, workers=2)
    pipeline.take()
    pipeline.close()
    pipeline.close()
    assert events.count("release") == 1
    assert events[-1] == "release"
    assert events.count("work") <= 5
    with pytest.raises(Ended):
        pipeline.take()


def test_error_of_the_source_comes_at_its_place() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("no third")

    pipeline = Pipeline(source(), lambda item: item, nothing, ahead=8, workers=2)
    assert [pipeline.take(), pipeline.take()] == [1, 2]
    with pytest.raises(LookupError, match="no third"):
        pipeline.take()
    with pytest.raises(Ended):
        pipeline.take()
    pipeline.close()


def test_error_of_the_release_is_not_lost() -> None:
    def release() -> None:
        raise OSError("cannot close")

    pipeline = Pipeline(range(2), lambda item: item, release, ahead=1, workers=1)
    assert [pipeline.take(), pipeline.take()] == [0, 1]
    with pytest.raises(OSError, match="cannot close"):
        pipeline.take()
    pipeline.close()


def test_closing_at_once_leaves_nothing() -> None:
    released: list[int] = []
    for number in range(50):
        Pipeline(range(9), lambda item: item, lambda number=number: released.append(number), ahead=2, workers=2).close()
    assert released == list(range(50))


@pytest.mark.parametrize("blocked", [False, True])
def test_runs_on_uvloop_where_it_can_be_imported(monkeypatch: pytest.MonkeyPatch, blocked: bool) -> None:
    if blocked:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    else:
        pytest.importorskip("uvloop")
    pipeline = Pipeline(range(5), str, nothing, ahead=2, workers=1)
    assert ("uvloop" in type(pipeline._loop).__module__) == (not blocked)
    assert take_all(pipeline) == ["0", "1", "2", "3", "4"]
    pipeline.close()


def test_handoff_wakes_threads_and_loops() -> None:
    taken: list[int] = []
    handoff: Handoff[int] = Handoff(lambda: taken.append(1))

    async def consume() -> int:
        return await handoff.take_async()

    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(consume())))
    thread.start()
    time.sleep(0.05)
    handoff.put(0, 1)
    thread.join(5)
    handoff.put(1, 2)
    results.append(handoff.take())
    handoff.end()
    handoff.put(2, 3)
    with pytest.raises(Ended):
        handoff.take()
    assert results == [1, 2]
    assert len(taken) == 2


def test_handoff_outlives_a_consumer_whose_loop_is_gone() -> None:
    handoff: Handoff[int] = Handoff(nothing)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handoff.take_async(), 0.01)

    asyncio.run(give_up())
    handoff.put(0, 1)
    assert handoff.take() == 1


def test_the_first_items_are_kept_until_there_are_as_many_as_wanted() -> None:
    handoff: Handoff[int] = Handoff(nothing, first=3)
    handoff.put(0, 0)
    handoff.put(1, 1)
    assert len(handoff.ready) == 0
    handoff.put(2, 2)
    assert len(handoff.ready) == 3
    assert [handoff.take() for _ in range(3)] == [0, 1, 2]
    handoff.put(3, 3)
    assert len(handoff.ready) == 1, "later ones are given as they come"


def test_few_slow_or_failed_first_items_are_given_all_the_same() -> None:
    few: Handoff[int] = Handoff(nothing, first=3)
    few.put(0, 0)
    few.end()
    assert few.take() == 0
    slow: Handoff[int] = Handoff(nothing, first=3)
    slow.put(0, 0)
    time.sleep(2 * PATIENCE_S)
    slow.put(1, 1)
    assert len(slow.ready) == 2
    failed: Handoff[int] = Handoff(nothing, first=3)
    failed.put(0, 0)
    failed.put(1, Failed(KeyError("b")))
    assert failed.take() == 0
    with pytest.raises(KeyError):
        failed.take()


def test_a_pipeline_of_fewer_places_than_first_items_begins() -> None:
    pipeline = Pipeline(range(5), lambda item: item, nothing, ahead=2, workers=1, first=9)
    assert take_all(pipeline) == list(range(5))
    pipeline.close()
