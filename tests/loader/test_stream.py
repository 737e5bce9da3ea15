"""A stream of logged examples trains on what was served: never early, never short, and at the trainer's pace."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loader import (
    ArrowStream,
    Batch,
    JsonLines,
    Loader,
    LoaderClosedError,
    ParquetExamples,
    ParquetFolder,
    SettingError,
    StateError,
    StreamExamples,
    StreamLoader,
)
from tests.loader.conftest import loader_threads
from uihkv import Column, NotVisibleYetError, PointerError, Projection, Schema, SchemaError, Store
from uihkv.inline import InlineTail

SCHEMA = Schema([Column("item_id", "int64")])
WANTED = Projection(["item_id"])
USERS = 5


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Each of five users has the items 0, 1, 2, … as far as they were appended; ts is ten times the item."""
    with Store.create(tmp_path / "store", SCHEMA, shards=2, chunk_events=4) as made:
        append(made, 0, 6)
        yield made


def append(store: Store, first: int, count: int, users: range = range(USERS)) -> None:
    items = np.repeat(np.arange(first, first + count), len(users))
    store.append({"user_id": np.tile(users, count), "ts": 10 * items, "item_id": items}, backfill=True)


def examples(versions: list[int], **columns: Any) -> dict[str, np.ndarray]:
    version = np.array(versions)
    last_ts = np.maximum(10 * (version - 1), 0)
    user = np.arange(len(version)) % USERS
    return {"user_id": user, "version": version, "last_ts": last_ts, "row": np.arange(len(version)), **columns}


async def feed_of(*batches: Any) -> AsyncIterator[Any]:
    for batch in batches:
        yield batch


def check(batch: Batch) -> None:
    """Every sequence is what its pointer names."""
    for row, version in enumerate(batch.pointers.version.tolist()):
        low, high = batch.history["item_id"].offsets[row : row + 2].tolist()
        assert batch.history["item_id"].values[low:high].tolist() == list(range(version))


def rows_of(batches: list[Batch]) -> list[int]:
    return [row for batch in batches for row in batch.examples["row"].tolist()]


def later(wait_s: float, do: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        time.sleep(wait_s)
        do()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_batches_are_cut_from_whatever_arrives(store: Store) -> None:
    whole = examples([6, 0, 3, 2, 5, 1, 4])
    feed = feed_of(
        {name: column[:1] for name, column in whole.items()},
        {name: column[:0] for name, column in whole.items()},
        pa.table({name: column[1:6] for name, column in whole.items()}),
        pa.record_batch({name: pa.array(column[6:]) for name, column in whole.items()}),
    )
    with Loader(store, StreamExamples(feed), WANTED, batch_size=3) as loader:
        assert isinstance(loader, StreamLoader)
        batches = list(loader)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert rows_of(batches) == list(range(7))
    for batch in batches:
        check(batch)
    stats = loader.stats()
    assert (stats.batches, stats.examples) == (3, 7)
    assert stats.freshness is not None
    assert (stats.freshness.waited, stats.freshness.skipped, stats.freshness.held) == (0, 0, 0)
    assert loader.state_dict()["consumed"] == 7
    assert loader_threads() == []


def test_a_queue_is_awaited_in_its_own_loop(store: Store) -> None:
    async def serve_and_train() -> list[Batch]:
        queue: asyncio.Queue[Any] = asyncio.Queue(1)

        async def serve() -> None:
            for first in range(0, 12, 2):
                await queue.put({name: column[first : first + 2] for name, column in examples([4] * 12).items()})
            await queue.put(None)

        serving = asyncio.create_task(serve())
        with Loader(store, StreamExamples(queue), WANTED, batch_size=4, prefetch=2) as loader:
            batches = [batch async for batch in loader]
        await serving
        return batches

    batches = asyncio.run(serve_and_train())
    assert rows_of(batches) == list(range(12))
    assert loader_threads() == []


def test_leaving_a_stream_that_waits_leaves_nothing_behind(store: Store) -> None:
    async def leave() -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        await queue.put(examples([1, 2]))
        loader = Loader(store, StreamExamples(queue), WANTED, batch_size=2)
        async for _ in loader:
            break
        loader.close()

    asyncio.run(leave())
    assert loader_threads() == []


def test_an_example_waits_for_its_events_and_is_never_short(store: Store) -> None:
    feed = feed_of(examples([3, 9, 2]), examples([1, 8]))
    writer = later(0.3, lambda: append(store, 6, 3))
    with Loader(store, StreamExamples(feed, deadline_s=20), WANTED, batch_size=2) as loader:
        batches = list(loader)
    writer.join()
    for batch in batches:
        check(batch)
    assert rows_of(batches) == [0, 1, 2, 0, 1]  # the order is the stream's
    freshness = loader.stats().freshness
    assert freshness is not None
    assert freshness.waited == 1
    assert freshness.arrival.max is not None and freshness.arrival.max > 0.2


def test_past_its_deadline_it_raises(store: Store) -> None:
    begin = time.monotonic()
    with (
        Loader(store, StreamExamples(feed_of(examples([3, 9, 2])), deadline_s=0.2), WANTED, batch_size=1) as loader,
        pytest.raises(NotVisibleYetError, match=r"1 examples .*version 9 of user 1"),
    ):
        for batch in loader:
            check(batch)
    assert 0.2 <= time.monotonic() - begin < 10
    assert loader_threads() == []


def test_past_its_deadline_it_is_skipped_and_counted(store: Store) -> None:
    feed = feed_of(examples([3, 9, 2, 7]), examples([1]))
    with Loader(store, StreamExamples(feed, deadline_s=0.1, late="skip"), WANTED, batch_size=2) as loader:
        batches = list(loader)
    assert rows_of(batches) == [0, 2, 0]
    freshness = loader.stats().freshness
    assert freshness is not None
    assert (freshness.waited, freshness.skipped, freshness.held) == (2, 2, 0)


def test_past_its_deadline_it_is_held_back_while_others_pass(store: Store) -> None:
    def feed() -> AsyncIterator[Any]:
        async def run() -> AsyncIterator[Any]:
            yield examples([3, 9, 2])
            yield examples([1, 1])
            append(store, 6, 3)
            yield examples([4])

        return run()

    with Loader(
        store, StreamExamples(feed(), deadline_s=0.05, late="hold"), WANTED, batch_size=1, prefetch=1
    ) as loader:
        batches = list(loader)
    for batch in batches:
        check(batch)
    versions = [int(batch.pointers.version[0]) for batch in batches]
    assert sorted(versions) == [1, 1, 2, 3, 4, 9]
    assert versions.index(9) >= 2  # others went past it
    freshness = loader.stats().freshness
    assert freshness is not None
    assert (freshness.waited, freshness.skipped, freshness.held) == (1, 0, 1)


def test_what_is_held_back_is_bounded_and_never_lost(store: Store) -> None:
    full = feed_of(examples([9, 9]), examples([9]), examples([1]))
    with (
        Loader(store, StreamExamples(full, deadline_s=0.1, late="hold", hold_max=2), WANTED, batch_size=1) as loader,
        pytest.raises(NotVisibleYetError, match="2 of at most 2"),
    ):
        list(loader)
    ended = feed_of(examples([2, 9]))
    with (
        Loader(store, StreamExamples(ended, deadline_s=0.1, late="hold"), WANTED, batch_size=1) as loader,
        pytest.raises(NotVisibleYetError, match="after the end"),
    ):
        list(loader)
    room = feed_of(examples([9, 9]), examples([9]), examples([1]))
    writer = later(0.5, lambda: append(store, 6, 3))
    rules = StreamExamples(room, deadline_s=5, late="hold", hold_max=2)
    with Loader(store, rules, WANTED, batch_size=4) as loader:
        assert sorted(loader.__iter__().__next__().pointers.version.tolist()) == [1, 9, 9, 9]
    writer.join()


def test_a_slow_trainer_holds_back_the_feed(store: Store) -> None:
    given = 0

    async def feed() -> AsyncIterator[Any]:
        nonlocal given
        for _ in range(50):
            given += 1
            yield examples([2, 3])

    with Loader(store, StreamExamples(feed()), WANTED, batch_size=2, prefetch=3) as loader:
        passing = iter(loader)
        next(passing)
        time.sleep(0.3)
        assert given <= 6
        assert 1 + len(list(passing)) == 50


def test_a_batch_that_lingers_is_given_as_it_is(store: Store) -> None:
    async def feed() -> AsyncIterator[Any]:
        yield examples([2, 3, 4])
        await asyncio.sleep(5)
        yield examples([1])

    with Loader(store, StreamExamples(feed(), linger_s=0.1), WANTED, batch_size=64) as loader:
        begin = time.monotonic()
        assert len(next(iter(loader))) == 3
        assert time.monotonic() - begin < 4


def test_a_smaller_last_batch_can_be_left_out(store: Store) -> None:
    with Loader(store, StreamExamples(feed_of(examples([1] * 5))), WANTED, batch_size=2, drop_last=True) as loader:
        assert [len(batch) for batch in loader] == [2, 2]


def test_freshness_counts_from_the_request(store: Store) -> None:
    now = int(time.time() * 1000)
    given = examples([1, 2], as_of=np.array([now - 5000, now - 1000]))
    with Loader(store, StreamExamples(feed_of(given)), WANTED, batch_size=2) as loader:
        list(loader)
    freshness = loader.stats().freshness
    assert freshness is not None
    assert freshness.request.p50 is not None and 1 <= freshness.request.p50 < 4
    assert freshness.request.max is not None and 5 <= freshness.request.max < 30
    with Loader(store, StreamExamples(feed_of(examples([1]))), WANTED) as loader:
        list(loader)
    assert loader.stats().freshness.request.p50 is None  # type: ignore[union-attr]


def test_inline_tails_are_joined(store: Store) -> None:
    table = pa.table(examples([4, 6]))
    events = {"ts": [40, 50, 60, 70], "item_id": [4, 5, 6, 7]}
    tail = InlineTail.of(SCHEMA, [4, 6], [0, 2, 4], events).to_arrow(SCHEMA)
    for name in tail.column_names:
        table = table.append_column(name, tail.column(name))
    append(store, 6, 1)  # and not yet item 7
    with Loader(store, StreamExamples(feed_of(table, table.slice(1))), WANTED, batch_size=3) as loader:
        (batch,) = loader
    lengths = batch.history.lengths.tolist()
    assert lengths == [6, 8, 8]
    assert batch.history["item_id"].values.tolist() == [*range(6), *range(8), *range(8)]
    assert list(batch.examples) == ["row"]


def test_inline_tails_in_a_file_are_refused_with_a_way_out(store: Store, tmp_path: Path) -> None:
    table = pa.table(examples([4]))
    tail = InlineTail.of(SCHEMA, [4], [0, 1], {"ts": [40], "item_id": [4]}).to_arrow(SCHEMA)
    for name in tail.column_names:
        table = table.append_column(name, tail.column(name))
    pq.write_table(table, tmp_path / "e.parquet")
    with pytest.raises(SchemaError, match="uihkv slim"):
        ParquetExamples(tmp_path / "e.parquet")


def test_json_lines_from_a_pipe(store: Store) -> None:
    reading, writing = os.pipe()
    lines = [
        json.dumps(
            {name: column[row].item() for name, column in examples([1, 2, 3], label=np.array([0.5, 1, 0])).items()}
        )
        for row in range(3)
    ]

    def write() -> None:
        with os.fdopen(writing, "w") as pipe:
            pipe.write(lines[0] + "\n" + lines[1][:9])
            pipe.flush()
            time.sleep(0.1)
            pipe.write(lines[1][9:] + "\n\n" + lines[2])

    writer = later(0.0, write)
    with Loader(store, StreamExamples(JsonLines(reading)), WANTED, batch_size=2) as loader:
        batches = list(loader)
    writer.join()
    os.close(reading)
    assert rows_of(batches) == [0, 1, 2]
    assert batches[0].examples["label"].tolist() == [0.5, 1.0]
    for batch in batches:
        check(batch)


def test_a_line_may_be_long(store: Store, tmp_path: Path) -> None:
    wide = np.arange(600_000).reshape(2, -1)
    given = examples([1, 2], wide=wide)
    lines = [json.dumps({name: column[row].tolist() for name, column in given.items()}) for row in range(2)]
    (tmp_path / "lines").write_text("\n".join(lines))
    with Loader(store, StreamExamples(JsonLines(tmp_path / "lines")), WANTED, batch_size=2) as loader:
        [batch] = loader
    assert batch.examples["wide"].tolist() == wide.tolist()


def test_a_stream_without_an_end_needs_no_more_memory(store: Store) -> None:
    feed = feed_of(*[examples([version % 5]) for version in range(300)])
    with Loader(store, StreamExamples(feed), WANTED, batch_size=1) as loader:
        passing = iter(loader)
        for done in range(1, 301):
            next(passing)
            assert loader.state_dict()["consumed"] == done
        assert len(passing._plan._consumed) < 100


def test_arrow_from_a_socket(store: Store) -> None:
    ours, theirs = socket.socketpair()

    def write() -> None:
        with theirs, theirs.makefile("wb") as file:
            table = pa.table(examples([1, 2, 3, 4]))
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table.slice(0, 3))
                file.flush()
                time.sleep(0.1)
                stream.write_table(table.slice(3))

    writer = later(0.0, write)
    with ours, Loader(store, StreamExamples(ArrowStream(ours)), WANTED, batch_size=2) as loader:
        batches = list(loader)
    writer.join()
    assert rows_of(batches) == [0, 1, 2, 3]


def test_a_growing_folder(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "log"

    def put(name: str, versions: list[int]) -> None:
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.table(examples(versions)), folder / f".{name}")
        (folder / f".{name}").rename(folder / name)

    def write() -> None:
        put("b.parquet", [3])
        time.sleep(0.2)
        put("a.parquet", [4, 5])
        (folder / "_SUCCESS").touch()

    writer = later(0.1, write)
    with Loader(store, StreamExamples(ParquetFolder(folder, poll_s=0.05)), WANTED, batch_size=1) as loader:
        versions = [int(batch.pointers.version[0]) for batch in loader]
    writer.join()
    assert versions == [3, 4, 5]


@pytest.mark.parametrize("kind", [JsonLines, ArrowStream])
def test_closing_ends_a_read_that_waits(store: Store, kind: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody ever writes to it
    loader = Loader(store, StreamExamples(kind(tmp_path / "pipe")), WANTED)
    passing = iter(loader)
    time.sleep(0.2)
    begin = time.monotonic()
    loader.close()
    assert time.monotonic() - begin < 5
    assert loader_threads() == []
    with pytest.raises(LoaderClosedError):
        next(passing)


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        ([{"user_id": [1]}], SchemaError, "no column 'version'"),
        ([[1, 2]], SchemaError, "list in the stream"),
        ([examples([1]), {**examples([1]), "row": [0.5]}], SchemaError, "columns changed"),
        ([{**examples([3]), "last_ts": [7]}], PointerError, "last_ts is 7"),
        ([{**examples([3]), "version": [-1]}], PointerError, "negative"),
    ],
)
def test_what_cannot_be_in_a_stream_reaches_the_trainer(store: Store, batches: Any, error: Any, words: str) -> None:
    with (
        Loader(store, StreamExamples(feed_of(*batches)), WANTED, batch_size=1) as loader,
        pytest.raises(error, match=words),
    ):
        list(loader)
    assert loader_threads() == []


def test_an_error_of_the_feed_comes_as_itself_after_what_came_before(store: Store) -> None:
    async def feed() -> AsyncIterator[Any]:
        yield examples([1, 2])
        raise OSError("the broker went away")

    with Loader(store, StreamExamples(feed()), WANTED, batch_size=2) as loader:
        passing = iter(loader)
        assert len(next(passing)) == 2
        with pytest.raises(OSError, match="broker"):
            next(passing)


def test_bad_lines_and_cut_streams_are_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"user_id": 1, "version": 1}\n{"user_id": 1,\n')
    with Loader(store, StreamExamples(JsonLines(tmp_path / "lines")), WANTED) as loader, pytest.raises(SchemaError):
        list(loader)
    table = pa.table(examples([1] * 500))
    with pa.ipc.new_stream(tmp_path / "arrow", table.schema) as stream:
        stream.write_table(table)
    (tmp_path / "arrow").write_bytes((tmp_path / "arrow").read_bytes()[:3000])
    cut = StreamExamples(ArrowStream(tmp_path / "arrow"))
    with Loader(store, cut, WANTED) as loader, pytest.raises(SchemaError, match="cut short"):
        list(loader)


def test_a_stream_is_read_once_and_has_no_epochs(store: Store) -> None:
    loader = Loader(store, StreamExamples(feed_of(examples([1]))), WANTED)
    list(loader)
    with pytest.raises(LoaderClosedError, match="read once"):
        iter(loader)
    with pytest.raises(TypeError, match="no length"):
        len(loader)
    with pytest.raises(SettingError, match="epoch"):
        loader.set_epoch(1)
    with pytest.raises(SettingError, match="1 batches to be skipped of a stream"):
        loader.skip(1)
    with pytest.raises(StateError, match="being read"):
        loader.load_state_dict(loader.state_dict())
    with pytest.raises(StateError, match="cannot be wound"):
        Loader(store, StreamExamples(feed_of(examples([1]))), WANTED).load_state_dict(loader.state_dict())
    with pytest.raises(SettingError, match="shuffle=True"):
        Loader(store, StreamExamples(feed_of()), WANTED, shuffle=True)
    for wrong in ({"late": "never"}, {"deadline_s": -1}, {"hold_max": 0}, {"poll_s": "1"}, {"columns": "a"}):
        with pytest.raises(SettingError):
            StreamExamples(feed_of(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="async iterator"):
        StreamExamples([1])  # type: ignore[arg-type]
