"""A serving process: one snapshot a read, no older than it says, closed when its last read ended; pointers to log."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from uihkv import Column, PointerError, Pointers, Projection, Schema, SchemaError, Snapshot, Store, StoreClosedError
from uihkv.inline import InlineTail
from uihkv.serving import FreshSnapshots, HistoryReader

SCHEMA = Schema([Column("item_id", "int64")])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", SCHEMA, shards=2) as made:
        append(made, 0, 3)
        yield made


def append(store: Store, first: int, count: int, user: int = 7) -> None:
    items = np.arange(first, first + count)
    store.append({"user_id": np.full(count, user), "ts": 10 * items, "item_id": items}, backfill=True)


def is_closed(snapshot: Snapshot) -> bool:
    try:
        snapshot.users()
    except StoreClosedError:
        return True
    return False


def test_a_read_gives_a_history_and_the_pointer_that_rebuilds_it(store: Store) -> None:
    asked = Projection(["item_id"], max_len=2)
    with HistoryReader(store) as reader:
        served, pointers = reader.read([7, 99], asked)
    append(store, 3, 4)
    assert served.values("item_id").tolist() == [1, 2]
    assert pointers == Pointers([7, 99], [3, 0], [20, 0])
    with store.snapshot() as snapshot:
        assert snapshot.read(pointers, asked).values("item_id").tolist() == [1, 2]


def test_a_snapshot_is_shared_until_it_is_as_old_as_the_cadence(store: Store) -> None:
    with HistoryReader(store, refresh_s=0.3) as reader:
        assert reader.age_s is None
        begin = time.monotonic()
        assert reader.read([7])[1].version.tolist() == [3]
        append(store, 3, 1)
        if time.monotonic() - begin < 0.25:
            assert reader.read([7])[1].version.tolist() == [3]
        time.sleep(0.31)
        assert reader.read([7])[1].version.tolist() == [4]
        append(store, 4, 1)
        reader.refresh()
        assert reader.read([7])[1].version.tolist() == [5]
    with HistoryReader(store, refresh_s=0) as reader:
        for count in (5, 6, 7):
            assert reader.read([7])[1].version.tolist() == [count]
            append(store, count, 1)


def test_a_replaced_snapshot_is_closed_when_its_last_read_ended(store: Store) -> None:
    snapshots = FreshSnapshots(store, refresh_s=0)
    with snapshots.use() as first:
        with snapshots.use() as second:
            assert second is not first
            assert not is_closed(first)
        assert not is_closed(second)  # it is the current one
    assert is_closed(first)
    with snapshots.use() as third:
        assert is_closed(second)
        snapshots.close()
        assert not is_closed(third)
    assert is_closed(third)
    with pytest.raises(StoreClosedError), snapshots.use():
        pass


def test_threads_read_whole_prefixes_while_a_writer_appends(store: Store) -> None:
    stop = threading.Event()
    faults: list[str] = []
    reads = [0, 0, 0]

    def serve(number: int, reader: HistoryReader) -> None:
        while not stop.is_set():
            served, pointers = reader.read([7], Projection(["item_id"]))
            reads[number] += 1
            if served.values("item_id").tolist() != list(range(int(pointers.version[0]))):
                faults.append(f"{served.values('item_id')} for {pointers.version}")

    with HistoryReader(store, refresh_s=0.002) as reader:
        threads = [threading.Thread(target=serve, args=(number, reader)) for number in range(3)]
        for thread in threads:
            thread.start()
        for count in range(3, 43):
            append(store, count, 1)
        stop.set()
        for thread in threads:
            thread.join()
        assert reader.read([7])[1].version[0] > 3
    assert faults == []
    assert min(reads) > 0


def test_a_reader_goes_on_after_a_fork(store: Store) -> None:
    with HistoryReader(store, refresh_s=60) as reader:
        reader.read([7])
        child = os.fork()
        if not child:
            right = reader.read([7])[1] == Pointers([7], [3], [20])
            reader.close()
            os._exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert reader.read([7])[1].version.tolist() == [3]


def test_events_that_are_not_durable_yet_are_served_and_logged_inline(store: Store) -> None:
    fresh = {"ts": np.array([20, 30, 40]), "item_id": np.array([2, 3, 4])}
    inline = InlineTail.of(SCHEMA, [2], [0, 3], fresh)
    with HistoryReader(store) as reader:
        served, pointers = reader.read([7], inline=inline)
        assert served.values("item_id").tolist() == [0, 1, 2, 3, 4]
        logged = inline.after(pointers.version)
        assert (logged.start.tolist(), logged.events.values["item_id"].tolist()) == ([3], [3, 4])
    append(store, 3, 9)
    with store.snapshot() as snapshot:
        assert snapshot.read(pointers, inline=logged).values("item_id").tolist() == [0, 1, 2, 3, 4]
        assert snapshot.read(logged.extend(pointers)).values("item_id").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cadence", [-1, float("nan"), "1", True, None])
def test_a_cadence_that_cannot_be_is_refused(store: Store, cadence: object) -> None:
    with pytest.raises(SchemaError, match="refresh_s"):
        HistoryReader(store, cadence)  # type: ignore[arg-type]


def test_packed_pointers_are_24_bytes_each(store: Store) -> None:
    pointers = Pointers([-(2**63), 7, 2**63 - 1], [0, 3, 2**62], [0, 20, -5])
    packed = pointers.pack()
    assert len(packed) == 72
    assert packed[24:48] == (7).to_bytes(8, "little") + (3).to_bytes(8, "little") + (20).to_bytes(8, "little")
    assert Pointers.from_packed(packed) == pointers
    assert Pointers.from_packed(memoryview(packed)[24:48]) == pointers[1]
    assert len(Pointers.from_packed(b"")) == 0
    with pytest.raises(PointerError, match="24 bytes each"):
        Pointers.from_packed(packed[:-1])
    with pytest.raises(PointerError, match="no last_ts"):
        Pointers([1], [1]).pack()
    with pytest.raises(PointerError, match="negative"):
        Pointers.from_packed(b"\xff" * 24)
