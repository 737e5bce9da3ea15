"""Stores whose users are strings: every way in and out, and names whose hashes collide."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loader import ArrayExamples, Loader, ParquetExamples
from uihkv import (
    Column,
    CorruptChunkError,
    FormatError,
    PointerError,
    Pointers,
    Projection,
    Schema,
    SchemaError,
    Store,
    TrimmedError,
    names,
)
from uihkv.ingest import ingest
from uihkv.resolve import resolve_file

SCHEMA = Schema([Column("item", "int64")], user_id="string")
STRING = np.dtypes.StringDType()
USERS = ["alice", "bob", "zoë", "42", "x" * 480]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", SCHEMA, shards=3, chunk_events=4) as made:
        yield made


def append(store: Store, users: Any, first: int = 0) -> None:
    n = len(users)
    store.append({"user_id": users, "ts": np.arange(n) + first, "item": np.arange(n) + first}, backfill=True)


def items(store: Store, user: str) -> list[int]:
    with store.snapshot() as snapshot:
        found: list[int] = snapshot.read(snapshot.head([user])).values("item").tolist()
        return found


@pytest.mark.parametrize(
    "users",
    [
        USERS * 3,
        tuple(USERS * 3),
        np.array(USERS * 3),
        np.array(USERS * 3, STRING),
        np.array(USERS * 3, object),
        pa.array(USERS * 3),
        pa.array(USERS * 3).dictionary_encode(),
        pa.chunked_array([USERS, USERS * 2]),
    ],
    ids=["list", "tuple", "U", "StringDType", "object", "arrow", "dictionary", "chunked"],
)
def test_string_users_are_taken_and_looked_up_in_every_form(store: Store, users: Any) -> None:
    append(store, users)
    with store.snapshot() as snapshot:
        assert snapshot.users().tolist() == sorted(USERS)
        heads = snapshot.head(users)
        assert heads.version.tolist() == [3] * 15
        assert heads.user_id.tolist() == USERS * 3
        found = snapshot.read(heads[:5])
        assert found.values("item").reshape(5, 3).tolist() == [[n, n + 5, n + 10] for n in range(5)]
        assert snapshot.resolve(users, 7).version[:5].tolist() == [2, 2, 1, 1, 1]
        assert snapshot.head("nobody").version.tolist() == [0]
    assert store.shard_of(users).tolist() == store.shard_of(list(USERS)).tolist() * 3


def test_pointers_of_strings_are_pointers(store: Store) -> None:
    append(store, USERS)
    with store.snapshot() as snapshot:
        heads = snapshot.head(USERS)
    assert heads.user_id.dtype == STRING
    assert heads[1].user_id.tolist() == ["bob"]
    assert heads[np.array([3, 0])].user_id.tolist() == ["42", "alice"]
    assert Pointers.concat([heads[:2], heads[2:]]) == heads
    assert heads + Pointers([], []) == Pointers(USERS, [1] * 5)
    assert heads != Pointers([1, 2, 3, 4, 5], heads.version, heads.last_ts)
    table = heads.to_arrow()
    assert table.column("user_id").type == pa.large_string()
    for column in (table.column("user_id"), table.column("user_id").dictionary_encode()):
        assert Pointers.from_arrow(table.set_column(0, "user_id", column)) == heads
    assert pickle.loads(pickle.dumps(heads)) == heads
    assert Pointers("bob", 1).user_id.tolist() == ["bob"]
    with pytest.raises(PointerError, match="24 bytes"):
        heads.pack()
    with pytest.raises(PointerError, match="different stores"):
        Pointers.concat([heads, Pointers([1], [1])])


@pytest.mark.parametrize(
    ("users", "words"),
    [
        ([1, 2], "str or bytes"),
        (np.array([1, 2]), "user ids are strings"),
        (pa.array([1, 2]), "Arrow type int64"),
        (["a", ""], "row 1 is '', 0 bytes"),
        (["x" * 481, "a"], "row 0 is .*481 bytes"),
        (["é" * 241, "a"], "482 bytes"),
        (["a", None], "row 1 is null"),
        (["a", 1], "str or bytes"),
        (["a", "\ud800"], "surrogates"),
    ],
)
def test_other_users_are_refused_whole(store: Store, users: Any, words: str) -> None:
    with pytest.raises(SchemaError, match=words) as refused:
        append(store, users)
    assert "user_id" in str(refused.value)
    with store.snapshot() as snapshot:
        assert len(snapshot.users()) == 0
        with pytest.raises((PointerError, SchemaError)):
            snapshot.head(users)


def test_ids_of_the_other_kind_are_refused(store: Store, tmp_path: Path) -> None:
    append(store, USERS)
    with store.snapshot() as snapshot:
        for action in (lambda: snapshot.head([1]), lambda: snapshot.read(Pointers([1], [0])), lambda: store.trim(1)):
            with pytest.raises(PointerError, match="given are int64, this store's are string"):
                action()
        assert len(snapshot.head([])) == 0
    with Store.create(tmp_path / "numbers", Schema([Column("item", "int64")])) as numbers:
        with (
            numbers.snapshot() as snapshot,
            pytest.raises(PointerError, match="this store's are int64"),
        ):
            snapshot.head(["alice"])
        with pytest.raises(SchemaError, match="int64 is expected"):
            append(numbers, USERS)
    with pytest.raises(SchemaError, match="one of int64, string"):
        Schema([Column("item", "int64")], user_id="uuid")


# -- collisions -----------------------------------------------------------------------------------------


@pytest.fixture
def colliding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of two bits, so that every name meets others."""
    monkeypatch.setattr(names, "HASH_MASK", 3)


@pytest.mark.usefixtures("colliding")
def test_names_with_one_hash_keep_histories_of_their_own(store: Store) -> None:
    users = [f"user {n}" for n in range(60)]
    for part in range(4):
        append(store, users if part % 2 else users[::-1], first=100 * part)
    kept = {user: items(store, user) for user in users}
    assert kept["user 7"] == [52, 107, 252, 307]
    for place, user in enumerate(users):
        assert kept[user] == [59 - place, 100 + place, 259 - place, 300 + place]
    with Store.open(store.path) as again, again.snapshot() as snapshot:
        assert snapshot.users().tolist() == sorted(users)
        found = snapshot.read(snapshot.head([*users, "nobody"]))
        assert found.values("item").tolist() == [item for user in users for item in kept[user]]
        assert found.lengths.tolist() == [4] * 60 + [0]
    store.trim(["user 7", "nobody"], 1)
    assert items_kept(store, "user 7") == kept["user 7"][1:]
    assert items(store, "user 8") == kept["user 8"]


def items_kept(store: Store, user: str) -> list[int]:
    with store.snapshot() as snapshot:
        found: list[int] = snapshot.read(snapshot.head([user]), on_trimmed="truncate").values("item").tolist()
        return found


@pytest.mark.usefixtures("colliding")
def test_copies_keep_the_names(store: Store, tmp_path: Path) -> None:
    users = [f"user {n}" for n in range(30)]
    append(store, users * 2)
    store.trim(users[:10])
    store.compact()
    assert store.verify().ok
    store.compact(copy_to=tmp_path / "copy")
    with Store.open(tmp_path / "copy") as copy:
        assert [items_kept(copy, user) for user in users] == [[]] * 10 + [[n, n + 30] for n in range(10, 30)]
        append(copy, users, first=100)
        assert items_kept(copy, "user 3") == [103]
        assert copy.verify().ok


@pytest.mark.usefixtures("colliding")
def test_one_batch_may_hold_all_the_names_of_a_hash(store: Store) -> None:
    users = [f"user {n}" for n in range(40)]
    append(store, users * 2)
    assert [items(store, user) for user in users] == [[n, n + 40] for n in range(40)]
    shards = store.shard_of(users)
    with store.snapshot() as snapshot:
        numbers, known = snapshot.find_users([*users, "nobody"])
    assert known.tolist() == [True] * 40 + [False]
    assert len(set(numbers[:40].tolist())) == 40
    from uihkv.keys import shard_of

    assert shard_of(numbers[:40], store.shards).tolist() == shards.tolist()  # routing needs the string alone


def _append_some(path: Path, first: int) -> None:
    names.HASH_MASK = 3
    with Store.open(path) as store:
        for n in range(first, first + 20):
            store.append({"user_id": [f"user {n}", "all"], "ts": [n, n], "item": [n, n]}, backfill=True)


@pytest.mark.usefixtures("colliding")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_writers_side_by_side_give_each_name_its_own_number(store: Store) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(_append_some, [(store.path, 0), (store.path, 20)])
    assert [items(store, f"user {n}") for n in range(40)] == [[n] for n in range(40)]
    assert sorted(items(store, "all")) == list(range(40))


def test_a_refused_batch_leaves_no_name(store: Store) -> None:
    with pytest.raises(SchemaError):
        store.append({"user_id": ["alice"], "ts": [0], "item": [0.5]}, backfill=True)
    append(store, ["bob"])
    with store.snapshot() as snapshot:
        assert snapshot.users().tolist() == ["bob"]


def test_replays_store_no_user_twice(store: Store) -> None:
    data = {"user_id": USERS, "ts": np.arange(5), "item": np.arange(5)}
    assert store.append(data, backfill=True, source="s", offset=1).appended == 5
    assert store.append(data, backfill=True, source="s", offset=1).replayed == 5
    assert items(store, "42") == [3]


# -- errors ---------------------------------------------------------------------------------------------


def test_errors_name_the_string(store: Store) -> None:
    append(store, USERS * 3)
    with store.snapshot() as snapshot:
        with pytest.raises(PointerError, match="user zoë has 3 events"):
            snapshot.read(Pointers(["zoë"], [4]))
        with pytest.raises(PointerError, match="of user bob has ts 11"):
            snapshot.read(Pointers(["bob"], [3], [7]))
    store.trim("bob", 2)
    with store.snapshot() as snapshot, pytest.raises(TrimmedError, match="user bob below version 2"):
        snapshot.read(Pointers(["bob"], [3]))
    with pytest.raises(PointerError, match="user bob has 3 events"):
        store.trim("bob", 9)


def test_damage_names_the_string(store: Store) -> None:
    append(store, ["zoë"] * 3)
    path = store.path
    with store.snapshot() as snapshot:
        key = names.keys.tail_keys(snapshot.find_users(["zoë"])[0])
    shard = store._open.shard(int(store.shard_of("zoë")[0]))
    transaction = shard.begin_write()
    tails = shard.databases(transaction)[b"tails"]
    value = bytes(transaction.get(key, db=tails))
    transaction.put(key, value[:-1] + bytes([value[-1] ^ 1]), db=tails)
    transaction.commit()
    with Store.open(path) as again, again.snapshot() as snapshot:
        with pytest.raises(CorruptChunkError, match="user zoë") as found:
            snapshot.read(Pointers(["zoë"], [3]))
        assert found.value.user_id == "zoë"
        assert pickle.loads(pickle.dumps(found.value)).user_id == "zoë"
        with pytest.raises(CorruptChunkError, match="user zoë"):
            append(again, ["zoë"])


def test_a_user_without_a_name_is_damage(store: Store) -> None:
    append(store, USERS)
    number = int(store.shard_of(["bob"])[0])
    shard = store._open.shard(number)
    with store.snapshot() as snapshot:
        key = names.keys.tail_keys(snapshot.find_users(["bob"])[0])
        mine = snapshot._directory().users_of(number)
    transaction = shard.begin_write()
    assert shard.names.find_faults(transaction, mine) == []
    transaction.delete(key, db=shard.names.databases[1])
    assert len(shard.names.find_faults(transaction, mine)) == 2
    transaction.commit()
    with store.snapshot() as snapshot, pytest.raises(FormatError, match="no name"):
        snapshot.head(["bob"])
    report = store.verify()
    assert [problem.shard for problem in report.problems] == [number, number]
    assert "user 'bob' has a number that is not noted as his" in str(report.problems[0])


# -- files, the loader, the command line ----------------------------------------------------------------


def test_files_of_string_users_are_ingested_and_resolved(store: Store, tmp_path: Path) -> None:
    log = {"user_id": pa.array(USERS * 3).dictionary_encode(), "ts": range(15), "item": range(15)}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    assert ingest(store, tmp_path / "log.parquet", source="s").appended == 15
    asked = {"user_id": [*USERS, "nobody"], "as_of": [6] * 6, "label": [1.0] * 6}
    pq.write_table(pa.table(asked), tmp_path / "asked.parquet")
    result = resolve_file(store, tmp_path / "asked.parquet", tmp_path / "slim.parquet", as_of="as_of")
    assert (result.rows, result.users, result.empty) == (6, 6, 1)
    slim = pq.read_table(tmp_path / "slim.parquet")
    assert slim.column("version").to_pylist() == [2, 1, 1, 1, 1, 0]
    assert slim.column("user_id").to_pylist() == [*USERS, "nobody"]
    examples = ParquetExamples(tmp_path / "slim.parquet")
    with Loader(store, examples, Projection(["item"]), batch_size=4, seed=3) as loader:
        batches = list(loader)
        state = loader.state_dict()
    seen = {}
    for batch in batches:
        bounds = batch.history.offsets.tolist()
        for row, user in enumerate(batch.pointers.user_id.tolist()):
            seen[user] = batch.history["item"].values[bounds[row] : bounds[row + 1]].tolist()
        assert pickle.loads(pickle.dumps(batch)).pointers == batch.pointers
    assert seen == {"alice": [0, 5], "bob": [1], "zoë": [2], "42": [3], "x" * 480: [4], "nobody": []}
    for given in ({"num_workers": 2}, {"dedup": True}):
        with Loader(store, examples, Projection(["item"]), batch_size=4, seed=3, **given) as other:
            for batch, again in zip(batches, other, strict=True):
                assert again.pointers == batch.pointers
                if "dedup" not in given:
                    assert again.history["item"].values.tolist() == batch.history["item"].values.tolist()
    same = ArrayExamples(slim)
    assert same.fingerprint == examples.fingerprint
    with Loader(store, same, Projection(["item"]), batch_size=4, seed=3) as other:
        other.load_state_dict(state)
    swapped = slim.set_column(0, "user_id", pa.array(["bob", "alice", *USERS[2:], "nobody"]))
    assert ArrayExamples(swapped).fingerprint != examples.fingerprint
    pq.write_table(slim.set_column(0, "user_id", pa.array(range(6))), tmp_path / "numbers.parquet")
    with pytest.raises(SchemaError, match="a string is expected"):
        resolve_file(store, tmp_path / "numbers.parquet", tmp_path / "out.parquet", as_of="as_of")
    with (
        Loader(store, ParquetExamples(tmp_path / "numbers.parquet"), Projection(["item"]), batch_size=4) as wrong,
        pytest.raises(PointerError, match="given are int64"),
    ):
        next(iter(wrong))


def test_the_command_line_shows_a_named_user(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text('user_id = "string"\n[columns]\nitem = "int64"\nname = "string"\n')
    schema = Schema.from_toml(tmp_path / "schema.toml")
    with Store.create(tmp_path / "store", schema) as store:
        store.append({"user_id": ["zoë"], "ts": [1], "item": [5], "name": ["vue"]}, backfill=True)
    command = [sys.executable, "-c", "from uihkv.cli import main; main()", "show", str(tmp_path / "store"), "zoë"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "user zoë, version 1" in done.stdout and "vue" in done.stdout


def test_pages_of_named_users_are_asked_for_ahead(store: Store) -> None:
    append(store, USERS * 3)
    with store.snapshot() as snapshot:
        heads = snapshot.head([*USERS, "nobody"])
        snapshot.prefetch(heads)
        assert snapshot.read(heads).lengths.tolist() == [3] * 5 + [0]


@pytest.mark.parametrize(("processes", "mask"), [(1, -1), (1, 3), (2, -1)])  # other processes hash with all bits
def test_rows_grouped_by_user_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, mask: int
) -> None:
    monkeypatch.setattr(names, "HASH_MASK", mask)
    rng = np.random.default_rng(0)
    users = np.array([f"user {n}" for n in range(30)])[rng.integers(0, 30, 900)]
    rows = {"user_id": users, "ts": rng.integers(0, 1000, 900), "item": np.arange(900)}
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    with Store.create(tmp_path / "store", SCHEMA, shards=3, chunk_events=8) as store:
        ingest(store, tmp_path / "log.parquet", order_by="ts", processes=processes, batch_rows=100)
        order = np.argsort(rows["ts"], kind="stable")
        for user in ("user 0", "user 7", "user 29"):
            assert items(store, user) == [row for row in order.tolist() if users[row] == user]
        assert store.stats().users == 30
        assert store.verify().ok
