"""A store across handles, snapshots, threads, processes and crashes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from uihkv import (
    Column,
    CorruptChunkError,
    PointerError,
    Pointers,
    Projection,
    ReadOnlyError,
    Schema,
    SchemaError,
    Store,
    StoreClosedError,
    environment,
)

SCHEMA = Schema([Column("item_id", "int64")])


def batch(users: int, events: int, first: int = 0) -> dict[str, np.ndarray]:
    """``events`` events of each user, in turns; the item is the event's version in its history."""
    version = np.repeat(np.arange(first, first + events), users)
    return {"user_id": np.tile(np.arange(users), events), "ts": 1000 + version, "item_id": version}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with Store.create(tmp_path / "store", SCHEMA, shards=3, chunk_events=8) as made:
        yield made


def items(store: Store, user: int = 0) -> list[int]:
    with store.snapshot() as snapshot:
        return snapshot.read(snapshot.head([user])).values("item_id").tolist()


def test_a_reopened_store_holds_what_was_appended(store: Store) -> None:
    store.append(batch(5, 20), backfill=True)
    store.append(batch(5, 3, first=20), backfill=True)
    store.close()
    with Store.open(store.path) as again:
        assert items(again, 4) == list(range(23))
        assert again.stats().events == 5 * 23


def test_a_snapshot_does_not_see_what_comes_later(store: Store) -> None:
    store.append(batch(2, 10), backfill=True)
    with store.snapshot() as before:
        pointers = before.head([0, 1])
        store.append(batch(2, 10, first=10), backfill=True)
        assert before.head([0, 1]) == pointers
        with store.snapshot() as after:
            assert after.head([0]).version.tolist() == [20]
            assert after.read(pointers).values("item_id").tolist() == list(range(10)) * 2


def test_a_replay_changes_nothing(store: Store) -> None:
    first = store.append(batch(7, 4), backfill=True, source="clicks", offset=10)
    again = store.append(batch(7, 4), backfill=True, source="clicks", offset=10)
    older = store.append(batch(7, 4), backfill=True, source="clicks", offset=9)
    assert (first.appended, first.replayed, first.users) == (28, 0, 7)
    assert (again.appended, again.replayed) == (0, 28)
    assert (older.appended, older.replayed) == (0, 28)
    assert items(store) == [0, 1, 2, 3]
    assert store.sources() == {"clicks": 10}


def test_two_sources_have_offsets_of_their_own(store: Store) -> None:
    store.append(batch(1, 1), backfill=True, source="a", offset=5)
    store.append(batch(1, 1, first=1), backfill=True, source="b", offset=0)
    assert store.sources() == {"a": 5, "b": 0}
    assert items(store) == [0, 1]


def test_visible_time_is_lifted_to_the_latest_and_counted(store: Store) -> None:
    data = {"user_id": [1, 1, 1], "ts": [50, 10, 30], "item_id": [0, 1, 2]}
    assert store.append(data, visible_at=[50, 40, 60]).lifted == 1
    assert store.append({"user_id": [1], "ts": [1], "item_id": [3]}, backfill=True).lifted == 1
    with store.snapshot() as snapshot:
        seen = snapshot.read(snapshot.head([1]), Projection(["visible_at"])).values("visible_at")
        assert seen.tolist() == [50, 50, 60, 60]
        assert snapshot.resolve([1] * 4, [50, 51, 60, 61]).version.tolist() == [0, 2, 2, 4]


def test_live_appends_take_the_clock(store: Store) -> None:
    before = time.time_ns() // 10**6
    store.append({"user_id": [1], "ts": [5], "item_id": [0]})
    with store.snapshot() as snapshot:
        seen = int(snapshot.read(snapshot.head([1]), Projection(["visible_at"])).values("visible_at")[0])
    assert before <= seen <= time.time_ns() // 10**6


def test_a_delay_holds_back_what_would_not_have_arrived(store: Store) -> None:
    store.append(batch(1, 10), backfill=True)  # visible at 1000 … 1009
    with store.snapshot() as snapshot:
        assert snapshot.resolve([0], [1005]).version.tolist() == [5]
        assert snapshot.resolve([0], [1005], delay=2).version.tolist() == [3]
        assert snapshot.resolve([0], [0], delay=10**18).version.tolist() == [0]


def test_a_closed_store_and_snapshot_say_so(store: Store) -> None:
    store.append(batch(1, 3), backfill=True)
    snapshot = store.snapshot()
    pointers = snapshot.head([0])
    snapshot.close()
    snapshot.close()
    with pytest.raises(StoreClosedError, match="snapshot is closed"):
        snapshot.read(pointers)
    open_snapshot = store.snapshot()
    store.close()
    store.close()
    with pytest.raises(StoreClosedError):
        open_snapshot.read(pointers)
    with pytest.raises(StoreClosedError):
        store.append(batch(1, 1))
    with pytest.raises(StoreClosedError):
        store.snapshot()


def test_a_readonly_store_reads_and_refuses_to_write(store: Store) -> None:
    store.append(batch(1, 3), backfill=True)
    with Store.open(store.path, readonly=True) as reader:
        assert items(reader) == [0, 1, 2]
        with pytest.raises(ReadOnlyError):
            reader.append(batch(1, 1))


def test_two_handles_of_one_process_share_the_store(store: Store) -> None:
    with Store.open(store.path) as other:
        other.append(batch(1, 2), backfill=True)
        assert items(store) == [0, 1]
    assert items(store) == [0, 1]


def test_many_threads_read_one_snapshot(store: Store) -> None:
    store.append(batch(50, 40), backfill=True)
    failures: list[object] = []
    with store.snapshot() as snapshot:

        def read(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for _ in range(30):
                pointers = Pointers(rng.integers(0, 50, 64), rng.integers(0, 41, 64))
                histories = snapshot.read(pointers, Projection(max_len=9))
                expected = [item for v in pointers.version.tolist() for item in range(max(0, v - 9), v)]
                if histories.values("item_id").tolist() != expected:
                    failures.append(seed)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def _items_in_child(store: Store) -> list[int]:
    return items(store)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_store_opens_itself_in_another_process(store: Store, method: str) -> None:
    store.append(batch(1, 12), backfill=True)
    assert items(store) == list(range(12))
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_items_in_child, (store,)) == list(range(12))
    store.append(batch(1, 1, first=12), backfill=True)
    assert items(store) == list(range(13))


def test_an_inherited_store_opens_itself_after_fork(store: Store) -> None:
    store.append(batch(1, 12), backfill=True)
    assert items(store) == list(range(12))
    child = os.fork()
    if child == 0:  # in the child: leave by _exit, whatever happens
        code = 1
        try:
            store.append(batch(1, 1, first=12), backfill=True)
            code = 0 if items(store) == list(range(13)) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert items(store) == list(range(13))


@pytest.mark.parametrize(("ending", "name"), [("exit", "store"), ("killed", "store"), ("exit", "a b\u2028c\x85d")])
def test_a_snapshot_keeps_its_pages_whatever_a_forked_child_does(store: Store, ending: str, name: str) -> None:
    """The child's writes would overwrite the tails that the parent's snapshot has not read yet, were it forgotten."""
    users = 200
    store.close()
    store.path.rename(store.path.with_name(name))
    with Store.open(store.path.with_name(name)) as moved:
        _check_pages_beside_a_child(moved, users, ending)


def _check_pages_beside_a_child(store: Store, users: int, ending: str) -> None:
    store.append(batch(users, 3), backfill=True)
    with store.snapshot() as snapshot:
        child = os.fork()
        if child == 0:
            try:
                for turn in range(8):
                    store.append(batch(users, 3, first=3 + 3 * turn), backfill=True)
                if ending == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        for turn in range(4):
            store.append(batch(users, 1, first=100 + turn), backfill=True)
        heads = snapshot.head(np.arange(users))
        assert heads.version.tolist() == [3] * users
        assert snapshot.read(heads, Projection(["item_id"])).values("item_id").tolist() == [0, 1, 2] * users


def test_a_pickled_store_is_a_handle_to_the_same_store(store: Store) -> None:
    store.append(batch(1, 2), backfill=True)
    with pickle.loads(pickle.dumps(store)) as other:
        assert items(other) == [0, 1]
        assert other.fingerprint == store.fingerprint


def test_a_pointer_of_another_store_is_found_out(store: Store, tmp_path: Path) -> None:
    store.append(batch(1, 5), backfill=True)
    with Store.create(tmp_path / "other", SCHEMA) as other:
        data = batch(1, 5)
        other.append({**data, "ts": data["ts"] + 1}, backfill=True)
        with store.snapshot() as mine, other.snapshot() as theirs:
            with pytest.raises(PointerError, match="last_ts"):
                theirs.read(mine.head([0]))
            bare = Pointers(mine.head([0]).user_id, mine.head([0]).version)
            assert theirs.read(bare).lengths.tolist() == [5]


def test_a_damaged_value_names_shard_user_and_range(tmp_path: Path) -> None:
    import lmdb

    with Store.create(tmp_path / "store", SCHEMA, shards=1, chunk_events=8) as store:
        store.append(batch(2, 20), backfill=True)
    environment = lmdb.open(str(tmp_path / "store/shards/0000"), max_dbs=8)
    with environment.begin(write=True) as transaction:
        chunks = environment.open_db(b"chunks", txn=transaction)
        key, value = next(iter(transaction.cursor(db=chunks)))
        damaged = bytearray(value)
        damaged[-1] ^= 1
        transaction.put(key, bytes(damaged), db=chunks)
    environment.close()
    with Store.open(tmp_path / "store") as store, store.snapshot() as snapshot:
        with pytest.raises(CorruptChunkError, match=r"shard 0000, user 0, versions \[0, 8\)") as raised:
            snapshot.read(Pointers([0], [20]))
        assert (raised.value.shard, raised.value.user_id, raised.value.start, raised.value.end) == (0, 0, 0, 8)
        again = pickle.loads(pickle.dumps(raised.value))
        assert (str(again), again.end) == (str(raised.value), 8)
        with pytest.raises(CorruptChunkError):
            snapshot.read(Pointers([0], [20]))
        assert snapshot.read(Pointers([1], [20])).values("item_id").tolist() == list(range(20))


_WRITER = """
import sys
from tests.engine.test_store_life import batch
from uihkv import Store
with Store.open(sys.argv[1]) as store:
    first = int(sys.argv[2])
    while True:
        store.append(batch(40, 3, first=first), backfill=True, source="w", offset=first)
        first += 3
        print(first, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_acknowledged(store: Store) -> None:
    """SIGKILL at any moment: what append returned for is there, and a replay completes the rest."""
    done = 0
    for round_number in range(6):
        command = [sys.executable, "-c", _WRITER, str(store.path), str(done)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(3 + 5 * round_number):
                done = int(writer.stdout.readline())
            time.sleep(0.001 * round_number)
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split()
            done = int(rest[-1]) if rest else done
        with Store.open(store.path) as again:
            assert again.sources()["w"] in (done - 3, done)
            again.append(batch(40, 3, first=done), backfill=True, source="w", offset=done)
            done += 3
            with again.snapshot() as snapshot:
                heads = snapshot.head(np.arange(40))
                assert set(heads.version.tolist()) == {done}
                found = snapshot.read(heads).values("item_id").reshape(40, done)
                assert np.array_equal(found, np.tile(np.arange(done), (40, 1)))


def test_short_and_long_chunks_of_both_compressions_read_the_same(tmp_path: Path) -> None:
    found = []
    for chunk_events, compression in ((1, "none"), (64, "lz4"), (5000, "lz4")):
        path = tmp_path / f"{chunk_events}"
        with Store.create(path, SCHEMA, shards=2, chunk_events=chunk_events, compression=compression) as store:
            store.append(batch(3, 700), backfill=True)
            with store.snapshot() as snapshot:
                histories = snapshot.read(Pointers([2, 0, 1, 9], [700, 333, 1, 0]), Projection(max_len=500))
                found.append((histories.values("item_id").tolist(), histories.offsets.tolist()))
    assert found[0] == found[1] == found[2]
    assert found[0][1] == [0, 500, 833, 834, 834]


def test_a_read_since_a_version_leaves_older_events_out(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s", Schema([Column("x", "int64")]), shards=1, chunk_events=4) as store:
        store.append({"user_id": [1] * 10, "ts": np.arange(10), "x": np.arange(10)}, backfill=True)
        with store.snapshot() as snapshot:
            pointers = Pointers([1, 1, 1, 2], [9, 5, 4, 0], [8, 4, 3, 0])
            found = snapshot.read(pointers, Projection(["x", "ts"], max_len=6), since=[7, 0, 4, 3])
            assert found.values("x").tolist() == [7, 8, 0, 1, 2, 3, 4]
            assert found.lengths.tolist() == [2, 5, 0, 0]
            with pytest.raises(PointerError, match="last_ts"):
                snapshot.read(Pointers([1], [9], [7]), Projection(["x"]), since=[9])
            for since, message in (([1], "4 pointers and 1 since"), ([0, 0, 0, -1], "since has -1")):
                with pytest.raises(PointerError, match=message):
                    snapshot.read(pointers, since=since)
            with pytest.raises(SchemaError, match="since goes with"):
                snapshot.read(pointers, Projection(max_age=3), since=[0] * 4)


@pytest.mark.parametrize("shards", [1, 3])
def test_closing_waits_for_what_other_threads_are_at(tmp_path: Path, shards: int) -> None:
    with Store.create(tmp_path / "busy", SCHEMA, shards=shards) as store:
        ends: list[BaseException] = []
        rounds = [0, 0]

        def append() -> None:
            store.append(batch(300, 2, first=2 * rounds[0]), backfill=True)

        def look() -> None:
            store.stats()

        def go_on(number: int, work: Callable[[], None]) -> None:
            try:
                while True:
                    work()
                    rounds[number] += 1
            except BaseException as error:
                ends.append(error)

        threads = [threading.Thread(target=go_on, args=task, daemon=True) for task in enumerate((append, look))]
        for thread in threads:
            thread.start()
        while min(rounds) < 2:
            time.sleep(0.001)
        store.close()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert [type(error) for error in ends] == [StoreClosedError] * 2
    with Store.open(tmp_path / "busy") as again:
        assert items(again, 299) == list(range(2 * rounds[0]))


def test_many_shards_share_the_address_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has 128 TiB of it, which 2,048 shards would use up if each took as much as one of a few does."""
    monkeypatch.setattr(environment, "STORE_MAP_BYTES", 32 << 20)
    with Store.create(tmp_path / "s", SCHEMA, shards=8) as store:
        store.append(batch(500, 2), backfill=True)
        assert [store._open.shard(number).map_bytes() for number in range(8)] == [4 << 20] * 8
        assert items(store, 499) == [0, 1]
