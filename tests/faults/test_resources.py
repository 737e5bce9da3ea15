"""Something is used up, forbidden or odd: files, reader slots, memory, writing to the disk, a clock that turns back.

A named error, a sound store, and work that goes on once the cause is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from uihkv import Column, Pointers, Schema, Store, StoreFullError, StoreWarning, environment, place

ROOT = Path(__file__).parents[2]
SCHEMA = Schema([Column("item_id", "int64")])
USERS = 8


def batch(number: int, events: int = 2) -> dict[str, np.ndarray]:
    """So many events of every user; the item is the batch's number."""
    users = np.repeat(np.arange(USERS), events)
    return {"user_id": users, "ts": np.full(len(users), number), "item_id": np.full(len(users), number)}


def items(store: Store, user: int = 0) -> list[int]:
    with store.snapshot() as snapshot:
        return snapshot.read(snapshot.head([user])).values("item_id").tolist()


def run(program: str, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    command = [*prefix, sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one batch, closed."""
    with Store.create(tmp_path / "store", SCHEMA, shards=4, chunk_events=4) as store:
        store.append(batch(0), backfill=True)
    return tmp_path / "store"


NO_FILES = """
import os, resource, sys
from pathlib import Path
from tests.faults.test_resources import batch, items
from uihkv import Column, Store, StoreFullError
path = Path(sys.argv[1])
copy = path.parent / "copy"
def opened():
    return len(os.listdir("/proc/self/fd"))
def everything(number):
    with Store.open(path) as store:
        store.append(batch(number), backfill=True)
        if copy.exists():
            copy.rename(path.parent / f"copy-{number}")
        store.backup(copy)
        store.add_column(Column(f"column{number}", "int8", default=1))
        return items(store)
everything(1)  # imports
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
before, refused, number = opened(), 0, 2
for more in range(30):
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + more, hard))
    try:
        everything(number)
        number += 1
    except StoreFullError as error:
        assert "ulimit -n" in str(error), error
        refused += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert opened() == before, f"{opened() - before} files are left open"
everything(number)
print(refused, number)
"""


def test_when_no_more_files_may_be_open_it_says_so_and_leaves_none_open(path: Path) -> None:
    refused, succeeded = map(int, run(NO_FILES, path).split())
    assert refused > 10
    assert succeeded > 2
    assert not [left.name for left in path.parent.iterdir() if left.name.startswith(".")]
    with Store.open(path) as store:
        assert store.verify(isolated=False).ok


LITTLE_MEMORY = """
import resource, sys
from tests.faults.test_resources import batch, items
from uihkv import Store, StoreFullError
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
with Store.open(sys.argv[1]) as store:
    store.append(batch(1), backfill=True)
    large = batch(2, 1_000_000)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
    try:
        store.append(large, backfill=True)
        print("it fits")
    except MemoryError:
        print("memory")
    store.append(batch(3), backfill=True)
    assert items(store) == [0, 0, 1, 1, 3, 3]
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, hard))
try:
    Store.open(sys.argv[1])
except StoreFullError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
with Store.open(sys.argv[1]) as store:
    assert store.verify(isolated=False).ok
    store.append(batch(4), backfill=True)
"""


def test_too_little_memory_is_an_error_and_stores_nothing(path: Path) -> None:
    first, second = run(LITTLE_MEMORY, path).splitlines()
    assert first == "memory"
    assert "raise the limit on the process's address space" in second
    with Store.open(path) as store:
        assert items(store) == [0, 0, 1, 1, 3, 3, 4, 4]


READ_ONLY = """
import sys
from pathlib import Path
from tests.faults.test_resources import SCHEMA, batch, items
from uihkv import Column, ReadOnlyError, Store
path = Path(sys.argv[1])
for readonly in (True, False):
    with Store.open(path, readonly=readonly) as store:
        assert items(store) == [0, 0]
        assert store.verify(isolated=False).ok
        store.stats(details=True)
        for write in (
            lambda: store.append(batch(1)), store.seal, lambda: store.trim(0), lambda: store.erase(1),
            lambda: store.add_column(Column("more", "int8", default=0)), lambda: store.drop_column("item_id"),
            lambda: store.backup(path.parent / "copy"), lambda: Store.create(path.parent / "new", SCHEMA),
        ):
            try:
                write()
            except ReadOnlyError:
                print("refused")
        assert store.backup(Path(sys.argv[2]) / f"copy-{readonly}").records
"""


def test_a_disk_that_may_only_be_read_is_read_and_every_write_is_refused(path: Path, tmp_path: Path) -> None:
    can = (
        subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
        if shutil.which("unshare")
        else None
    )
    if can is None or can.returncode:
        pytest.skip("needs mounts of its own (unshare -rm)")
    disk = tmp_path / "disk"
    disk.mkdir()
    path.rename(disk / "store")
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = run(READ_ONLY, disk / "store", elsewhere, prefix=("unshare", "-rm", "sh", "-c", mount, str(disk)))
    assert said.split() == ["refused"] * 16
    with Store.open(elsewhere / "copy-False") as store:
        assert items(store) == [0, 0]


def test_a_clock_that_turns_back_leaves_visible_times_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(path) as store:
        for number, now in ((1, 5_000), (2, 3_000), (3, 4_000), (4, 6_000)):
            monkeypatch.setattr("time.time_ns", lambda now=now: now * 10**6)
            assert store.append(batch(number)).lifted == (2 * USERS if now in (3_000, 4_000) else 0)
        monkeypatch.undo()
        with store.snapshot() as snapshot:
            assert snapshot.resolve([0] * 4, [5_000, 5_001, 6_000, 6_001]).version.tolist() == [2, 8, 8, 10]
        assert store.verify(isolated=False).ok


def test_used_up_reader_slots_are_an_error_until_snapshots_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "MAX_READERS", 4)
    with Store.create(tmp_path / "few", SCHEMA, shards=2) as store:
        store.append(batch(0), backfill=True)
        held = []
        with pytest.raises(StoreFullError, match="close snapshots"):
            held.extend(store.snapshot() for _ in range(1000))
        assert 3 <= len(held) < 200
        for _ in range(2):  # what was refused holds nothing
            held.pop().close()
            with store.snapshot() as snapshot:
                assert snapshot.head([0]).version.tolist() == [2]
        store.append(batch(1), backfill=True)
        for snapshot in held:
            snapshot.close()
        assert items(store) == [0, 0, 1, 1]


HOLD = """
import sys, time
from uihkv import Store, StoreFullError
store = Store.open(sys.argv[1])
held = []
try:
    while len(held) < int(sys.argv[2]):
        held.append(store.snapshot())
except StoreFullError:
    pass
print(len(held), flush=True)
time.sleep(60)
"""


def hold(path: Path, count: int) -> subprocess.Popen[str]:
    """A process that holds snapshots."""
    command = [sys.executable, "-c", HOLD, str(path), str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0
    return process


def test_slots_of_killed_processes_are_free_for_a_store_that_was_open_all_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "MAX_READERS", 4)
    with Store.create(tmp_path / "few", SCHEMA, shards=1) as store:
        store.append(batch(0), backfill=True)
        with hold(store.path, 1000) as holder:
            with pytest.raises(StoreFullError, match="reader slot"):
                store.snapshot()
            holder.send_signal(signal.SIGKILL)
        with store.snapshot() as snapshot:
            assert snapshot.head([0]).version.tolist() == [2]


def test_stats_tell_how_far_the_oldest_snapshot_is_behind(path: Path) -> None:
    with Store.open(path) as store:
        assert (store.stats().readers, store.stats().reader_lag) == (0, 0)
        with store.snapshot(), hold(path, 1) as holder:
            for number in range(1, 6):
                store.append(batch(number), backfill=True)
            stats = store.stats()
            assert (stats.readers, stats.reader_lag) == (2, 5)
            holder.send_signal(signal.SIGKILL)
        with Store.open(path) as again:
            assert (again.stats().readers, again.stats().reader_lag) == (0, 0)


def test_stats_explain_what_files_grow_by_while_a_snapshot_is_held(path: Path) -> None:
    with Store.open(path, durability="relaxed") as store:
        for number in range(30):
            store.append(batch(number, 40), backfill=True)
        before = store.stats()
        assert (before.kept_bytes, before.oldest_reader) == (0, None)
        with store.snapshot():
            for number in range(60):
                store.append(batch(number, 40), backfill=True)
            held = store.stats()
        closed = store.stats()
    assert held.kept_bytes is not None
    assert held.oldest_reader == os.getpid()
    grown, used = held.bytes - before.bytes, held.used_bytes - before.used_bytes
    had = before.free_bytes
    assert held.kept_bytes > 1 << 20
    assert grown - used <= held.kept_bytes <= held.free_bytes
    assert held.kept_bytes <= grown - used + had
    assert (closed.kept_bytes, closed.oldest_reader, closed.bytes) == (0, None, held.bytes)


def test_a_snapshot_that_is_held_while_the_file_grows_is_warned_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(environment, "HELD_GROWTH_BYTES", 1 << 18)

    def grow(store: Store, batches: int) -> None:
        for number in range(batches):
            store.append(batch(number, 40), backfill=True)

    with Store.open(path) as store:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            grow(store, 40)
            for _ in range(40):  # short ones do no harm
                with store.snapshot():
                    grow(store, 1)
        with store.snapshot() as snapshot, pytest.warns(StoreWarning, match=f"process {os.getpid()} has been open for"):
            grow(store, 200)
            assert snapshot.head([0]).version[0] == 2 + 80 * 40
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            grow(store, 40)


def test_free_pages_of_killed_readers_are_used_again_by_a_writer_that_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "LOOK_EVERY_S", 0.0)
    with Store.open(path) as store:
        with hold(path, 1) as holder:
            holder.send_signal(signal.SIGKILL)
        for number in range(150):
            store.append(batch(number), backfill=True)
        assert store.stats().bytes < 2 << 20  # 4 shards; with the slots left, each commit takes pages of its own


def test_a_store_opened_twice_is_one_and_one_put_in_its_place_is_another(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with Store.open(path) as first, Store.open(tmp_path / "link") as second:
        first.append(batch(1), backfill=True)
        second.append(batch(2), backfill=True)
        assert items(first) == items(second) == [0, 0, 1, 1, 2, 2]
        first.close()
        second.append(batch(3), backfill=True)
        assert items(second) == [0, 0, 1, 1, 2, 2, 3, 3]
        second.compact(copy_to=tmp_path / "copy")
        path.rename(tmp_path / "old")
        (tmp_path / "copy").rename(path)
        with Store.open(path) as third:
            third.append(batch(4), backfill=True)
            assert items(third) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    with Store.open(tmp_path / "old") as old, Store.open(path) as new:
        assert items(old) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert items(new)[-1] == 4


def append_and_read(store: Store, number: int) -> None:
    """What a child does; its exit status tells."""
    before = items(store)
    store.append(batch(number), backfill=True)
    assert items(store) == [*before, number, number]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_store_and_its_pages_live_through_fork_and_spawn_in_turn(path: Path) -> None:
    with Store.open(path) as store:
        with store.snapshot() as held:
            for number, method in enumerate(("fork", "spawn", "fork"), 1):
                child = multiprocessing.get_context(method).Process(target=append_and_read, args=(store, number))
                child.start()
                child.join(60)
                assert child.exitcode == 0
                store.append(batch(10 * number), backfill=True)
            assert held.read(held.head([0])).values("item_id").tolist() == [0, 0]
            assert held.read(Pointers([0], [2])).lengths.tolist() == [2]
        assert items(store) == [number for number in (0, 1, 10, 2, 20, 3, 30) for _ in range(2)]


def test_a_network_file_system_is_warned_of(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = subprocess.run(["stat", "-f", "-c", "%t", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert place.file_system_type(tmp_path) == int(told, 16)
    assert place.file_system_type(tmp_path / "nothing") == 0
    monkeypatch.setattr(place, "file_system_type", lambda _: 0x6969)
    with pytest.warns(StoreWarning, match=r"network file system \(NFS\)"), Store.open(path) as store:
        assert items(store) == [0, 0]
    with pytest.warns(StoreWarning, match="one machine"):
        Store.create(tmp_path / "new", SCHEMA, shards=1).close()
