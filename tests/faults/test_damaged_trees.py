"""A damaged tree of keys is an error or another list of keys, and never a touch of memory that is not the map's.

An append looks at the pages that it will go through: damage there is an error before anything is written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perf.mutants import Guarded
from uihkv import Column, FormatError, Schema, Store
from uihkv.kernels.growth import ADDRESS, DONE, SIZE, find_growth
from uihkv.kernels.paths import check_paths
from uihkv.kernels.tree import FOUND_ALL, walk_tree
from uihkv.listing import Arena, NewestListing, OddError
from uihkv.shard import ShardGrowth
from uihkv.tree import _RECORD, Growth, Leaves

PAGE = 4096


def test_walking_damaged_pages_stays_within_the_map(tmp_path: Path) -> None:
    path = tmp_path / "store"
    rng = np.random.default_rng(0)
    with Store.create(path, Schema([Column("item_id", "int64")]), shards=1, chunk_events=40) as store:
        n = 30_000
        store.append({"user_id": rng.integers(0, 900, n), "ts": np.arange(n), "item_id": np.arange(n)}, backfill=True)
        entries = store.stats().chunks
    file = np.fromfile(path / "shards" / "0000" / "data.mdb", np.uint8)
    pages = len(file) // PAGE
    room = Guarded(len(file) + PAGE).take(len(file))
    flags = file.reshape(pages, PAGE)[:, 10]
    trees = np.flatnonzero((flags == 1) | (flags == 2))  # branches and leaves
    outcomes = {"listed": 0, "refused": 0}
    key, address, size = np.empty((entries, 3), np.int64), np.empty(entries, np.int64), np.empty(entries, np.int64)
    leaves = np.empty((pages, 2), np.int64)
    for root in trees[flags[trees] == 1].tolist():
        room[:] = file
        code, found, _ = walk_tree(room.ctypes.data, pages, PAGE, root, 3, key, address, size, leaves)
        if code != FOUND_ALL or found != entries:
            continue
        for _ in range(4_000):
            at = rng.choice(trees) * PAGE + rng.integers(0, 40 if rng.random() < 0.5 else PAGE, rng.integers(1, 4))
            room[at] = rng.integers(0, 256, len(at))
            code, found, _ = walk_tree(room.ctypes.data, pages, PAGE, root, 3, key, address, size, leaves)
            if code != FOUND_ALL or found != entries:
                outcomes["refused"] += 1
            else:
                end = address - room.ctypes.data + size
                assert ((address >= room.ctypes.data) & (end <= len(file))).all()
                outcomes["listed"] += 1
            room[at] = file[at]
    assert outcomes["refused"] > 150
    assert outcomes["listed"] > 300


def test_following_damaged_pages_stays_within_the_map(tmp_path: Path) -> None:
    """Of a store that has grown: its new pages are read as far as they are sound, or else the listing is made anew."""
    path = tmp_path / "store"
    rng = np.random.default_rng(0)

    def rows(n: int) -> dict[str, np.ndarray]:
        return {"user_id": rng.integers(0, USERS, n), "ts": np.arange(n), "item_id": np.arange(n)}

    with Store.create(path, Schema([Column("item_id", "int64")]), shards=1, chunk_events=10) as store:
        store.append(rows(20_000), backfill=True)
        with store.snapshot() as snapshot:
            known = NewestListing().follow(snapshot._shards, snapshot._transactions)
            store.append(rows(150), backfill=True)
            with store.snapshot() as grown:
                trees = [
                    (np.frombuffer(grown._transactions[0].get(name), _RECORD)[0].copy(), words)
                    for name, words in ((b"chunks", 3), (b"tails", 1))
                ]
    before = known.shards[0]
    assert before.leaves is not None
    leaves = (before.leaves.chunks.table, before.leaves.tails.table)
    file = data_of(path)
    pages = len(file) // PAGE
    room = Guarded(len(file) + PAGE).take(len(file))
    base = room.ctypes.data

    def follow() -> bool:
        growth = []
        for (record, words), table in zip(trees, leaves, strict=True):
            root = int(record["root"])
            numbers = (root, int(record["depth"]), int(record["entries"]))
            code, found, origin, fresh = find_growth(base, pages, PAGE, *numbers, words, table)
            if code != DONE:
                return False
            assert ((fresh[:, ADDRESS] >= base) & (fresh[:, ADDRESS] + fresh[:, SIZE] <= base + len(file))).all()
            growth.append(Growth(Leaves(base, root, found), table, found, origin, fresh))
        arena = Arena(60_000, 60_000)
        rows = arena.copy(0, before, known.arena)
        try:
            arena.grow(0, rows, ShardGrowth(*growth))
        except OddError:
            return False
        return True

    room[:] = file
    assert follow()
    seen = [set(table[:, 0].tolist()) for table in leaves]
    fresh = [
        number for number in np.flatnonzero(np.isin(file.reshape(pages, PAGE)[:, 10], (1, 2))).tolist()
        if not any(number in known for known in seen)
    ]  # fmt: skip
    outcomes = {True: 0, False: 0}
    for _ in range(3_000):
        at = rng.choice(fresh) * PAGE + rng.integers(0, 40 if rng.random() < 0.5 else PAGE, rng.integers(1, 4))
        room[at] = rng.integers(0, 256, len(at))
        outcomes[follow()] += 1
        room[at] = file[at]
    assert min(outcomes.values()) > 200


USERS = 900


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with Store.create(tmp_path / "store", Schema([Column("item_id", "int64")]), shards=1, chunk_events=10) as store:
        n = 20_000
        users = 2 * rng.integers(0, USERS, n)
        rows = {"user_id": users, "ts": np.arange(n), "item_id": rng.integers(0, 2**60, n)}
        store.append(rows, backfill=True, source="log", offset=0)
    return tmp_path / "store"


def data_of(path: Path) -> np.ndarray:
    return np.fromfile(path / "shards" / "0000" / "data.mdb", np.uint8)


def branches(file: np.ndarray, key_bytes: int) -> list[int]:
    """Offsets of the branch pages whose keys have so many bytes."""
    found = []
    for page in range(0, len(file), PAGE):
        node = page + int(file[page + 18 : page + 20].view("<u2")[0])
        own = int(file[page : page + 8].view("<u8")[0]) == page // PAGE
        if own and file[page + 10] == 1 and int(file[node + 6 : node + 8].view("<u2")[0]) == key_bytes:
            found.append(page)
    return found


def node_at(file: np.ndarray, page: int, index: int) -> int:
    return page + int(file[page + 16 + 2 * index : page + 18 + 2 * index].view("<u2")[0])


def append(store: Store, users: list[int], offset: int = 1) -> None:
    """With a source: when users' pages are looked at, the transaction has written already."""
    rows = {"user_id": users, "ts": [10**6] * len(users), "item_id": [1] * len(users)}
    store.append(rows, backfill=True, source="log", offset=offset)


@pytest.mark.parametrize("moved", [1, -3])
def test_an_append_that_a_moved_key_would_lead_astray_is_refused(path: Path, moved: int) -> None:
    """Led to another leaf, its user would be unknown there and get a second history."""
    file = data_of(path)
    page = max(branches(file, 8))
    key = node_at(file, page, 3) + 8
    user = int(file[key : key + 8].view(">u8")[0]) ^ (1 << 63)
    file[key : key + 8] = np.array([(user + (1 << 63)) % 2**64 + moved], ">u8").view(np.uint8)
    file.tofile(path / "shards" / "0000" / "data.mdb")
    astray = user if moved > 0 else user - 2
    with Store.open(path) as store:
        with store.snapshot() as snapshot:
            head = int(snapshot.head([0]).version[0])
        for users in ([astray], [0, astray], [0, user - 4, astray, user + 2]):
            with pytest.raises(FormatError, match="tails is damaged where this would be written; nothing was"):
                append(store, users)
        append(store, [0])
        with store.snapshot() as snapshot:
            assert snapshot.head([0]).version.tolist() == [head + 1]


@pytest.mark.parametrize("damage", ["child", "zeros", "order"])
@pytest.mark.parametrize("key_bytes", [8, 24])
def test_an_append_through_a_damaged_page_is_refused(path: Path, key_bytes: int, damage: str) -> None:
    file = data_of(path)
    page = max(branches(file, key_bytes))
    node = node_at(file, page, 2)
    child = int(file[node : node + 4].view("<u4")[0])
    if damage == "child":
        file[node + 2 : node + 4] = 255
    elif damage == "zeros":
        file[child * PAGE : (child + 1) * PAGE] = 0
    else:
        file[page + 16 : page + 24] = file[[page + 20, page + 21, page + 18, page + 19, *range(page + 16, page + 20)]]
    file.tofile(path / "shards" / "0000" / "data.mdb")
    everyone = np.repeat(2 * np.arange(USERS), 50).tolist()  # enough for a chunk of each
    with Store.open(path) as store, pytest.raises(FormatError, match="damaged where this would be written"):
        append(store, everyone)


def test_looking_at_damaged_paths_stays_within_the_map(path: Path) -> None:
    rng = np.random.default_rng(1)
    file = data_of(path)
    pages = len(file) // PAGE
    room = Guarded(len(file) + PAGE).take(len(file))
    roots = branches(file, 8)
    keys = (2 * np.arange(USERS, dtype=np.uint64) + np.uint64(1 << 63)).reshape(-1, 1)
    trees = np.flatnonzero((file.reshape(pages, PAGE)[:, 10] == 1) | (file.reshape(pages, PAGE)[:, 10] == 2))
    outcomes = {"sound": 0, "damaged": 0}
    for root in [page // PAGE for page in roots]:
        for _ in range(1_500):
            room[:] = file
            at = rng.choice(trees) * PAGE + rng.integers(0, 40 if rng.random() < 0.5 else PAGE, rng.integers(1, 4))
            room[at] = rng.integers(0, 256, len(at))
            found = check_paths(room.ctypes.data, pages, PAGE, root, 1, keys)
            outcomes["sound" if found < 0 else "damaged"] += 1
    assert min(outcomes.values()) > 50
