"""A stream goes on where it was left, to the example; and worker processes read it as fresh as it must be."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loader import Batch, Loader, ParquetFolder, SettingError, StateError, StreamExamples, WorkerError
from perf.processes import list_tree
from tests.loader.test_stream import SCHEMA, USERS, WANTED, append, check, examples, feed_of, rows_of, store
from tests.loader.test_workers import assert_same_batch, nothing_left
from uihkv import Projection, Store
from uihkv.inline import InlineTail

__all__ = ["nothing_left", "store"]  # fixtures


class Log(AsyncIterator[Any]):
    """A feed with offsets, as of a broker: batches of three, numbered examples; some name versions still to come."""

    def __init__(self, versions: list[int], until: int | None = None) -> None:
        self.versions = versions
        self.offset = 0
        self.most = 0
        """Examples that it has given."""
        self._until = len(versions) if until is None else until

    async def __anext__(self) -> Any:
        if self.offset >= self._until:
            raise StopAsyncIteration
        row = np.arange(self.offset, min(self.offset + 3, self._until))
        version = np.array(self.versions)[row]
        self.offset = self.most = int(row[-1]) + 1
        return {
            "user_id": row % USERS, "version": version, "last_ts": np.maximum(10 * (version - 1), 0), "row": row,
        }  # fmt: skip

    def state_dict(self) -> dict[str, int]:
        return {"offset": self.offset}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.offset = state["offset"]


VERSIONS = [6, 0, 3, 2, 5, 1, 4, 6, 6, 2, 3, 3, 1, 0, 5, 4, 2]


def take(store: Store, feed: Any, batches: int, state: Any, **options: Any) -> tuple[list[Batch], Any]:
    """Some batches from a state on, and the state then, by way of JSON."""
    rules = {name: options.pop(name) for name in ("late", "deadline_s") if name in options}
    with Loader(store, StreamExamples(feed, **rules), WANTED, batch_size=2, **options) as loader:
        if state is not None:
            loader.load_state_dict(state)
        found = []
        for batch in loader:
            check(batch)
            found.append(batch)
            if len(found) == batches:
                break
        return found, json.loads(json.dumps(loader.state_dict()))


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_stream_resumes_at_every_batch_to_the_example(store: Store, stop: int) -> None:
    whole, _ = take(store, Log(VERSIONS), 99, None)
    first, state = take(store, Log(VERSIONS), stop, None)
    assert state["consumed"] == 2 * stop
    assert state["feed"]["offset"] <= 2 * stop  # the feed was ahead of the trainer
    second, state = take(store, Log(VERSIONS), 1, state)
    third, state = take(store, Log(VERSIONS), 99, state)
    for batch, expected in zip([*first, *second, *third], whole, strict=True):
        assert_same_batch(batch, expected)
    assert state["consumed"] == len(VERSIONS)
    again, _ = take(store, Log(VERSIONS), 99, state)
    assert again == []


def test_what_was_made_ahead_comes_again(store: Store) -> None:
    feed = Log(VERSIONS)
    with Loader(store, StreamExamples(feed), WANTED, batch_size=2, prefetch=6) as loader:
        for _ in loader:
            deadline = time.monotonic() + 5
            while feed.most <= 6 and time.monotonic() < deadline:
                time.sleep(0.001)
            break
        state = json.loads(json.dumps(loader.state_dict()))
    assert feed.most > 6
    rest, _ = take(store, Log(VERSIONS), 99, state)
    assert rows_of(rest) == list(range(2, len(VERSIONS)))


@pytest.mark.parametrize("late", ["skip", "hold"])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_skipped_and_held_examples_resume_too(store: Store, late: str, stop: int) -> None:
    versions = [6, 9, 3, 2, 9, 1, 4, 6, 6, 2, 8, 3]  # three are of versions that are not there yet
    rules: dict[str, Any] = {"late": late, "deadline_s": 0.02, "prefetch": 1}
    first, state = take(store, Log(versions), stop if late == "skip" else min(stop, 4), None, **rules)
    append(store, 6, 3)
    second, _ = take(store, Log(versions), 99, state, **rules)
    rows = rows_of([*first, *second])
    assert len(set(rows)) == len(rows)
    if late == "hold":
        assert sorted(rows) == list(range(len(versions)))
    else:
        assert set(rows) >= set(range(len(versions))) - {1, 4, 10}
        assert 1 not in rows  # skipped before the first batch was handed out, and that stands


def test_a_state_says_where_the_feed_begins_before_anything_came(store: Store) -> None:
    with Loader(store, StreamExamples(Log(VERSIONS)), WANTED, batch_size=2) as loader:
        state = loader.state_dict()
        assert (state["consumed"], state["feed"], state["done"]) == (0, {"offset": 0}, [])
        loader.load_state_dict(state)
        assert rows_of(list(loader)) == list(range(len(VERSIONS)))


def test_states_that_cannot_be_are_refused(store: Store, tmp_path: Path) -> None:
    _, state = take(store, Log(VERSIONS), 2, None)
    _, without = take(store, feed_of(examples([1, 2])), 1, None)
    assert "feed" not in without
    loader = Loader(store, StreamExamples(Log(VERSIONS)), WANTED)
    for wrong, words in (
        (without, "without state_dict"),
        ({**state, "done": [[3, 1]]}, "ascending ranges"),
        ({**state, "done": "all"}, "pairs of whole numbers"),
        ({"feed": 1}, "not a loader's state"),
    ):
        with pytest.raises(StateError, match=words):
            loader.load_state_dict(wrong)
    with Store.create(tmp_path / "other", SCHEMA, shards=1) as other, pytest.raises(StateError, match="other data"):
        Loader(other, StreamExamples(Log(VERSIONS)), WANTED).load_state_dict(state)
    odd = Log(VERSIONS)
    odd.state_dict = lambda: {"offset": b"1"}  # type: ignore[assignment,method-assign,return-value]
    with pytest.raises(StateError, match="JSON cannot hold"):
        take(store, odd, 1, None)


def test_a_growing_folder_resumes(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for name, first in (("a", 0), ("b", 5), ("c", 10)):
        part = {**examples([1, 2, 3, 4, 5]), "row": np.arange(first, first + 5)}
        pq.write_table(pa.table(part), folder / f"{name}.parquet")
    (folder / "_SUCCESS").touch()
    found, state = [], None
    for stop in (1, 2, 2, 99):
        some, state = take(store, ParquetFolder(folder, batch_rows=2), stop, state)
        found += rows_of(some)
    assert found == list(range(15))
    with pytest.raises(StateError, match="no place in a folder"):
        ParquetFolder(folder).load_state_dict({"read": ["a"]})


def test_workers_read_what_was_appended_after_they_started(store: Store) -> None:
    """Every example is of a version that was appended only after the batches before it had been handed out."""
    steps = 12

    async def feed() -> AsyncIterator[Any]:
        for step in range(steps):
            append(store, 6 + step, 1)
            yield examples([7 + step, 7 + step, 3])

    with Loader(store, StreamExamples(feed()), WANTED, batch_size=3, num_workers=2, prefetch=3) as loader:
        batches = list(loader)
    assert [int(batch.pointers.version[0]) for batch in batches] == [7 + step for step in range(steps)]
    for batch in batches:
        check(batch)
    assert loader.stats().bytes_read > 0


def tailed(rows: int) -> pa.Table:
    """Examples at version 4 whose tails have four events more."""
    table = pa.table(examples([4] * rows))
    events = {"ts": [40, 50, 60, 70] * rows, "item_id": [4, 5, 6, 7] * rows}
    tail = InlineTail.of(SCHEMA, [4] * rows, [4 * row for row in range(rows + 1)], events).to_arrow(SCHEMA)
    for name in tail.column_names:
        table = table.append_column(name, tail.column(name))
    return table


@pytest.mark.parametrize("workers", [0, 1])
def test_the_deduplicated_form_is_the_same_stream(store: Store, workers: int) -> None:
    tenants = {"all": Projection(["item_id"]), "few": Projection(["ts", "item_id"], 2)}

    def run(given: Any, **options: Any) -> list[Batch]:
        with Loader(store, StreamExamples(feed_of(*given)), tenants=tenants, batch_size=8, **options) as loader:
            return list(loader)

    for given in ([examples([6, 3, 2, 5, 5, 6, 6, 1])], [tailed(4)]):
        (plain,) = run(given)
        (shared,) = run(given, dedup=True, num_workers=workers)
        for tenant in tenants:
            expanded = shared.histories[tenant].expand()
            for name in plain.histories[tenant]:
                assert expanded[name].values.tolist() == plain.histories[tenant][name].values.tolist()
                assert expanded[name].offsets.tolist() == plain.histories[tenant][name].offsets.tolist()


def test_a_killed_worker_ends_a_stream_with_what_happened(store: Store) -> None:
    async def feed() -> AsyncIterator[Any]:
        while True:
            yield examples([3])

    before = set(list_tree(os.getpid()))
    with Loader(store, StreamExamples(feed()), WANTED, batch_size=1, num_workers=1) as loader:
        passing = iter(loader)
        next(passing)
        (pid,) = set(list_tree(os.getpid())) - before
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="SIGKILL"):
            for _ in passing:
                pass


def test_a_stream_is_traced(store: Store, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    with Loader(store, StreamExamples(feed_of(examples([1] * 4))), WANTED, batch_size=2, trace=trace) as loader:
        list(loader)
    names = [event["name"] for event in json.loads(trace.read_text())["traceEvents"]]
    assert names.count("read") == names.count("wait") == 2


def test_settings_of_streams_are_checked(store: Store) -> None:
    for wrong in ({"num_workers": -1}, {"num_workers": 1.5}, {"dedup": 1}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            Loader(store, StreamExamples(feed_of()), WANTED, **wrong)  # type: ignore[arg-type]
