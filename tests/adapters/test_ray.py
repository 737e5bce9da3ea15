"""The loader on a real local Ray: who reads changes nothing in the batches; what dies is started again, or told."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loader import ArrayExamples, Loader, LoaderClosedError, SettingError, StateError, WorkerError
from loader.reading import Request
from loader.testing import assert_resumes_exactly, assert_same_batch
from tests.engine.test_ingest import FULL, contents, make_rows, write
from tests.loader.conftest import World, no_thread_left, world
from tests.loader.test_dedup import TENANTS
from uihkv import Column, PointerError, Projection, Schema, SchemaError, Store, StoreExistsError, StoreNotFoundError
from uihkv.ingest import ingest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install uihkv[ray]")

from loader.adapters.ray import RayBatches, RayLoader, ShardActors, build_store  # noqa: E402

__all__ = ["no_thread_left", "world"]
WANTED = Projection(["item_id", "tags"], max_len=4)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=4, resources={"reader": 8}, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A store of more shards, for four actors."""
    rng = np.random.default_rng(2)
    users, n = 30, 600
    data = {"user_id": rng.integers(0, users, n), "ts": np.arange(n), "item_id": rng.integers(0, 10**12, n)}
    schema = Schema([Column("item_id", "int64"), Column("tags", "int32", ragged=True)])
    data["tags"] = [rng.integers(0, 99, rng.integers(0, 4)).astype(np.int32) for _ in range(n)]
    with Store.create(tmp_path_factory.mktemp("wide") / "store", schema, shards=8, chunk_events=8) as store:
        store.append(data, backfill=True)
        user = rng.integers(0, users, 200)
        with store.snapshot() as snapshot:
            head = snapshot.head(user).version
        columns = {"user_id": user, "version": rng.integers(0, head + 1), "label": rng.random(200).astype(np.float32)}
        yield World(store, {}, columns)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def await_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def plain(world: World, **options: Any) -> Loader:
    options.setdefault("projection", WANTED)
    return Loader(world.store, options.pop("examples", world.examples), **options)


@pytest.mark.parametrize("dedup", [False, True])
def test_two_actors_read_the_same_batches_in_the_same_order(world: World, dedup: bool) -> None:
    settings: dict[str, Any] = {"tenants": TENANTS, "batch_size": 7, "dedup": dedup}
    with (
        RayLoader(world.store, world.examples, actors=2, **settings) as loader,
        Loader(world.store, world.examples, **settings) as alone,
    ):
        for epoch in range(2):
            loader.set_epoch(epoch)
            alone.set_epoch(epoch)
            for batch, expected in zip(loader, alone, strict=True):
                assert_same_batch(batch, expected)
                batch.history if len(batch.histories) == 1 else batch.histories["short"]["item_id"].values.add_(1)
        told = loader.actors.describe()
        shards = [set(its["shards"]) for its in told]
        assert shards == [{0, 2}, {1}]  # each read its own shards' users and no others
        assert loader.stats().bytes_read > 0
        pids = [its["pid"] for its in told]
    await_end(pids)
    with pytest.raises(LoaderClosedError):
        iter(loader)
    loader.close()


@pytest.mark.parametrize("split", ["examples", "shards"])
def test_four_actors_stream_ready_batches_to_two_ranks(wide: World, split: str) -> None:
    with ShardActors(wide.store, 4) as actors:
        pids = [its["pid"] for its in actors.describe()]
        for rank in range(2):
            settings: dict[str, Any] = {"batch_size": 8, "rank": rank, "world_size": 2, "split": split, "seed": 3}
            given = wide.examples if rank else lambda: wide.examples
            with RayBatches(actors, given, WANTED, **settings) as batches, plain(wide, **settings) as alone:
                assert len(batches) == len(alone)
                for epoch in (0, 2):
                    batches.set_epoch(epoch)
                    alone.set_epoch(epoch)
                    for batch, expected in zip(batches, alone, strict=True):
                        assert_same_batch(batch, expected)
                        batch.examples["label"].zero_()  # the trainer's own memory
                    assert batches.state_dict() == alone.state_dict()
                pids.append(batches.pid)
            await_end(pids[-1:])
        owned = [its["shards"] for its in actors.describe()]
        assert owned == [[0, 4], [1, 5], [2, 6], [3, 7]]
        assert all(its["passes"] == 0 for its in actors.describe())
    await_end(pids)


@pytest.mark.parametrize("actors", [2, 4])
def test_actors_killed_in_the_middle_of_an_epoch_change_nothing(wide: World, actors: int) -> None:
    expected = list(plain(wide, batch_size=5))
    with ShardActors(wide.store, actors) as owners, RayBatches(owners, wide.examples, WANTED, batch_size=5) as batches:
        killed = set()
        for number, batch in enumerate(batches):
            assert_same_batch(batch, expected[number])
            if number in (3, 12):
                victim = owners.describe()[number % actors]["pid"]
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
            if number in (7, 20):
                killed.add(batches.pid)
                os.kill(batches.pid, signal.SIGKILL)
        assert number == len(expected) - 1
        assert len(killed) == 4
        living = {its["pid"] for its in owners.describe()} | {batches.pid}
        assert not living & killed
    await_end([*living, *killed])


def test_a_killed_actor_of_a_loader_is_asked_again(wide: World) -> None:
    expected = list(plain(wide, batch_size=10))
    with RayLoader(wide.store, wide.examples, WANTED, actors=2, batch_size=10, prefetch=2) as loader:
        for number, batch in enumerate(loader):
            assert_same_batch(batch, expected[number])
            if number == 4:
                os.kill(loader.actors.describe()[1]["pid"], signal.SIGKILL)
        assert number == len(expected) - 1


def test_actors_that_are_not_started_again_are_told(wide: World) -> None:
    with (
        ShardActors(wide.store, 2, restarts=0) as owners,
        RayLoader(wide.store, wide.examples, WANTED, actors=owners, batch_size=2, prefetch=1) as loader,
        RayBatches(owners, wide.examples, WANTED, batch_size=2, prefetch=1, restarts=0) as batches,
    ):
        passing, streaming = iter(loader), iter(batches)
        next(passing)
        next(streaming)
        os.kill(batches.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="not started again"):
            list(streaming)
        os.kill(owners.describe()[0]["pid"], signal.SIGKILL)
        with pytest.raises(WorkerError, match="a Ray actor or task is gone"):
            list(passing)


def test_an_error_comes_as_itself_with_its_place(world: World) -> None:
    columns = dict(world.columns)
    columns["version"] = columns["version"].copy()
    columns["version"][22] += 1000
    settings: dict[str, Any] = {"batch_size": 4, "shuffle": False}
    examples = ArrayExamples(columns)
    with plain(world, examples=examples, **settings) as alone, pytest.raises(PointerError) as expected:
        list(alone)
    with ShardActors(world.store, 2) as owners:
        with RayLoader(world.store, examples, WANTED, actors=owners, **settings) as loader:
            passing = iter(loader)
            assert [len(next(passing)) for _ in range(5)] == [4] * 5
            with pytest.raises(PointerError) as caught:
                next(passing)
            assert str(caught.value) == str(expected.value)
            assert caught.value.__notes__ == expected.value.__notes__
            assert len(next(iter(loader))) == 4  # the actors are well
        with RayBatches(owners, examples, WANTED, **settings) as batches:
            streaming = iter(batches)
            assert [len(next(streaming)) for _ in range(5)] == [4] * 5
            with pytest.raises(PointerError) as caught:
                next(streaming)
            assert str(caught.value) == str(expected.value)
            assert caught.value.__notes__ == expected.value.__notes__
            assert next(streaming, None) is None
            assert len(next(iter(batches))) == 4


def test_nothing_is_made_ahead_of_a_trainer_that_does_not_take(wide: World) -> None:
    settings: dict[str, Any] = {"batch_size": 2, "prefetch": 2}
    with ShardActors(wide.store, 2) as owners, RayBatches(owners, wide.examples, WANTED, **settings) as batches:
        passing = iter(batches)
        next(passing)
        made = []
        for _ in range(4):
            time.sleep(0.5)
            made.append((batches.stats().batches, sum(its["reads"] for its in owners.describe())))
        assert made[-1] == made[-2]  # it stands still
        assert made[-1][0] <= 1 + 2 + 1  # taken, waiting, at hand
        assert made[-1][1] <= 2 * (1 + 2 + 1 + 2)  # at most two owners a batch; prefetched beside
        passing.close()
        assert len(list(batches)) == 100  # the next pass is whole
        dropped = RayBatches(owners, wide.examples, WANTED, **settings)
        next(iter(dropped))
        pid = dropped.pid
        del dropped
        await_end([pid])


def test_batches_resume_from_anywhere(wide: World) -> None:
    whole = list(plain(wide, batch_size=20))
    with ShardActors(wide.store, 2) as owners:

        def fresh() -> RayBatches:
            return RayBatches(owners, wide.examples, WANTED, batch_size=20)

        with fresh() as batches:
            assert batches.state_dict()["consumed"] == 0
            passing = iter(batches)
            for expected in whole[:3]:
                assert_same_batch(next(passing), expected)
            state = json.loads(json.dumps(batches.state_dict()))
        with plain(wide, batch_size=20) as loader:  # a state is as good in one process
            loader.load_state_dict(state)
            for batch, expected in zip(loader, whole[3:], strict=True):
                assert_same_batch(batch, expected)
        with fresh() as batches:
            batches.load_state_dict(state)
            assert batches.state_dict() == state
            passing = iter(batches)
            assert_same_batch(next(passing), whole[3])
            passing = iter(batches)  # begun: the next pass is the epoch's
            assert_same_batch(next(passing), whole[0])
            for bad in ({}, {**state, "fingerprint": {}}, 3):
                with pytest.raises(StateError):
                    batches.load_state_dict(bad)  # type: ignore[arg-type]
        with pytest.raises(LoaderClosedError):
            iter(batches)
        assert_resumes_exactly(
            lambda: RayLoader(wide.store, wide.examples, WANTED, actors=owners, batch_size=20), steps=[0, 4]
        )


def test_the_example_of_the_docstring_runs(wide: World, tmp_path: Path) -> None:
    import textwrap

    import loader.adapters.ray as adapter

    _, _, block = (adapter.__doc__ or "").partition("in one process::\n\n")
    code = textwrap.dedent(block[: block.index("\n\nWays to")])
    for given, here in (
        ("ray.init()\n", ""),
        ("/shared/examples.parquet", str(tmp_path / "examples.parquet")),
        ("/shared/store", str(wide.store.path)),
        ("actors=8", "actors=2"),
        ("num_gpus=1", "num_cpus=0"),
        ('"cuda"', '"cpu"'),
    ):
        assert given in code
        code = code.replace(given, here)
    pq.write_table(pa.table(wide.columns), tmp_path / "examples.parquet")
    done: dict[str, Any] = {"step": lambda batch: len(batch), "save": lambda state: json.dumps(state)}
    exec(code, done)
    with pytest.raises(LoaderClosedError):
        done["actors"].describe()


def test_ranks_in_other_processes_share_the_owners(wide: World) -> None:
    def train(batches: RayBatches) -> list[Any]:
        with batches:
            return [batch.history["item_id"].values.sum().item() for batch in batches]

    with ShardActors(wide.store, 2) as owners:
        ranks = [
            RayBatches(owners, wide.examples, WANTED, batch_size=10, rank=rank, world_size=2, options={"num_cpus": 0})
            for rank in range(2)
        ]
        found = ray.get([ray.remote(train).options(num_cpus=0).remote(its) for its in ranks])
        assert all(its["pid"] for its in owners.describe())  # a borrower's end ends no owner
    for rank, sums in enumerate(found):
        alone = plain(wide, batch_size=10, rank=rank, world_size=2)
        assert sums == [batch.history["item_id"].values.sum().item() for batch in alone]


def test_what_a_trainer_that_died_has_left_is_closed(wide: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from loader.adapters import rayactors
    from loader.workers.wire import pack, tell_projection, unpack

    owner = rayactors.ShardOwner(str(wide.store.path), 0)
    setup = pack({"tenants": [("t", tell_projection(WANTED))], "dedup": False, "on_trimmed": "raise"})
    try:
        for name in ("dead", "living"):
            assert unpack(owner.begin(name, setup)) == {}
        assert len(owner._passes) == 2
        monkeypatch.setattr(rayactors, "IDLE_S", 0.0)
        owner.begin("new", setup)
        assert list(owner._passes) == ["new"]
        pointers, _ = wide.examples.take(np.arange(3))
        told, _ = owner.read("living", setup, pack(rayactors.tell_request(Request(pointers, None, 0, np.arange(3)))))
        assert "error" not in unpack(told)  # who comes back finds what he had
    finally:
        owner.close()


def test_what_cannot_be_is_refused(world: World, tmp_path: Path) -> None:
    for bad in ({"actors": 0}, {"threads": True}, {"restarts": -2}, {"actors": 2, "options": [{}]}):
        with pytest.raises(SettingError):
            ShardActors(world.store, **bad)
    with pytest.raises(SettingError, match="cannot own 3 shards"):
        RayLoader(world.store, world.examples, WANTED, actors=4)
    with pytest.raises(SettingError, match="num_workers"):
        RayLoader(world.store, world.examples, WANTED, actors=1, num_workers=1)
    with pytest.raises(SettingError, match="ShardActors"):
        RayLoader(world.store, world.examples, WANTED, actors="two")  # type: ignore[arg-type]
    with ShardActors(world.store, 1) as owners:
        with pytest.raises(SettingError, match="device"):
            RayBatches(owners, world.examples, WANTED, device="cpu")
        with RayBatches(owners, world.examples, WANTED, batch_size=0) as batches, pytest.raises(SettingError):
            list(batches)
        with RayBatches(owners, world.examples, Projection(["no"])) as batches, pytest.raises(SchemaError):
            len(batches)
    with (
        ShardActors(tmp_path / "none", 1) as owners,
        RayLoader(world.store, world.examples, WANTED, actors=owners) as loader,
        pytest.raises(StoreNotFoundError),
    ):
        list(loader)


@pytest.mark.parametrize("way", ["rows", "ordered", "scratch"])
def test_tasks_build_the_store_that_one_process_builds(tmp_path: Path, way: str) -> None:
    table = make_rows()
    bounds = [0, 1000, 1000, 2300, 3000]
    (tmp_path / "in").mkdir()
    names = ["a.parquet", "b.arrow", "c.arrows", "d.parquet"]
    for name, low, high in zip(names, bounds, bounds[1:], strict=False):
        write(table.slice(low, high - low), tmp_path / "in" / name)
    settings: dict[str, Any] = {"visible_at": "seen", "batch_rows": 170}
    if way == "ordered":
        settings["order_by"] = "arrived"
    with Store.build(tmp_path / "alone", FULL, 4, chunk_events=32) as store:
        expected = ingest(store, tmp_path / "in", **settings)
    if way == "scratch":
        settings["scratch"] = tmp_path
    told = build_store(tmp_path / "store", FULL, tmp_path / "in", shards=4, chunk_events=32, **settings)
    assert told == expected
    with Store.open(tmp_path / "store") as store, Store.open(tmp_path / "alone") as alone:
        assert contents(store) == contents(alone)
        assert store.verify().ok
    assert sorted(its.name for its in tmp_path.iterdir()) == ["alone", "in", "store"]
    with pytest.raises(StoreExistsError):
        build_store(tmp_path / "store", FULL, tmp_path / "in", **settings)


def test_files_of_string_users_with_columns_of_other_types_are_one_store(tmp_path: Path) -> None:
    schema = Schema([Column("item_id", "int64"), Column("dwell", "float32", default=0.5)], user_id="string")
    names = [f"user {number % 7}" for number in range(50)]
    first = {"user_id": names, "ts": pa.array(range(50), pa.timestamp("ms")), "item_id": pa.array(range(50), pa.int8())}
    second = {
        "item_id": range(50),
        "user_id": pa.array(names).dictionary_encode(),
        "ts": range(50),
        "dwell": [1.5] * 50,
    }
    write(pa.table(first), tmp_path / "a.parquet")
    write(pa.table(second), tmp_path / "b.parquet")
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    told = build_store(tmp_path / "store", schema, files, shards=3)
    with Store.build(tmp_path / "alone", schema, 3) as store:
        assert ingest(store, files) == told
    read = []
    for name in ("store", "alone"):
        with Store.open(tmp_path / name) as store, store.snapshot() as snapshot:
            found = snapshot.read(snapshot.head(np.unique(names)))
            read.append((found.offsets.tolist(), {its: found.values(its).tolist() for its in found}))
    assert read[0] == read[1]


def test_bad_rows_build_nothing_and_say_where(tmp_path: Path) -> None:
    table = make_rows(rows=300)
    write(table, tmp_path / "a.parquet")
    bad = table.set_column(table.schema.get_field_index("action"), "action", pa.array([300] * 300))
    write(bad, tmp_path / "b.parquet")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SchemaError, match=r"b\.parquet, rows 0 to 299.*'action'"):
        build_store(tmp_path / "store", FULL, tmp_path, shards=2)
    with pytest.raises(SchemaError, match="batch_rows"):
        build_store(tmp_path / "store", FULL, tmp_path, batch_rows=0)
    assert sorted(tmp_path.iterdir()) == before


def test_a_task_that_is_killed_is_run_again_and_stores_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loader.adapters import rayingest

    table = make_rows(rows=900)
    path = write(table, tmp_path / "a.parquet")
    build, taken = rayingest.build_shard, ["user_id", "ts", *FULL.names]

    def dying(assembly: str, number: int, *rest: Any) -> bytes:
        once = Path(assembly).parent / f"died-{number}"
        if number == 1 and not once.exists():
            once.touch()
            with Store.build_shard(assembly, number) as store:
                mine = np.flatnonzero(store.shard_of(np.arange(99)) == number)
                store.append(table.slice(0, 1).set_column(0, "user_id", pa.array(mine[:1])).select(taken))
                os.kill(os.getpid(), signal.SIGKILL)
        return build(assembly, number, *rest)

    monkeypatch.setattr(rayingest, "build_shard", dying)
    told = build_store(tmp_path / "store", FULL, path, shards=3, visible_at="seen")
    assert told.appended == 900
    assert (tmp_path / "died-1").exists()
    with Store.build(tmp_path / "alone", FULL, 3) as store:
        ingest(store, path, visible_at="seen")
    with Store.open(tmp_path / "store") as store, Store.open(tmp_path / "alone") as alone:
        assert contents(store) == contents(alone)
