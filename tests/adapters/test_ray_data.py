"""Ray Data on a real local Ray: datasets of batches are the loader's, and any dataset of events becomes a store."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loader import ArrayExamples, Batch, Jagged, Loader, SettingError, TenantHistory
from tests.adapters.test_ray import cluster, plain, wide
from tests.engine.test_ingest import FULL, contents, make_rows, write
from tests.loader.conftest import World, no_thread_left, world
from uihkv import Column, Projection, Schema, SchemaError, Store
from uihkv.ingest import ingest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install uihkv[ray]")
pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install uihkv[ray]")

from loader.adapters.ray import OneBatch, ShardActors, build_store, ray_dataset  # noqa: E402

__all__ = ["cluster", "no_thread_left", "wide", "world"]
WANTED = Projection(["item_id", "tags"], max_len=4)
SETTINGS: dict[str, Any] = {"batch_size": 9, "seed": 5}


def assert_same(arrays: dict[str, Any], expected: Batch, number: int) -> None:
    """The arrays of a row are those of the in-process batch, to the bit and the type."""
    pointers, history = expected.pointers, expected.history.expand()
    wanted: dict[str, Any] = {"number": np.int64(number)}
    wanted |= {"user_id": pointers.user_id, "version": pointers.version}
    if pointers.last_ts is not None:
        wanted["last_ts"] = pointers.last_ts
    wanted |= {name: its.numpy() for name, its in expected.examples.items()}
    wanted["history.offsets"] = history.offsets.numpy()
    wanted |= {f"history.{name}": its.numpy() for name, its in history.values.items()}
    wanted |= {f"history.{name}.offsets": its.numpy() for name, its in history.element_offsets.items()}
    assert list(arrays) == list(wanted)
    for name, its in arrays.items():
        found = np.asarray(its)
        assert found.dtype == wanted[name].dtype, name
        assert np.array_equal(found, wanted[name]), name


def tensors(source: Any) -> Iterator[dict[str, torch.Tensor]]:
    return iter(source.iter_torch_batches(batch_size=1, collate_fn=OneBatch()))


@pytest.mark.parametrize("actors", [2, 4])
def test_a_dataset_has_the_batches_of_one_process_in_order_though_actors_die(wide: World, actors: int) -> None:
    alone = plain(wide, **SETTINGS)
    alone.set_epoch(1)
    expected = list(alone)
    with ShardActors(wide.store, actors) as owners:
        dataset = ray_dataset(owners, lambda: wide.examples, WANTED, epoch=1, tasks=3, **SETTINGS)
        for number, arrays in enumerate(dataset.iter_rows()):
            assert_same(arrays, expected[number], number)
            if number in (2, 9):
                os.kill(owners.describe()[number % actors]["pid"], signal.SIGKILL)
        assert number == len(expected) - 1
        for number, batch in enumerate(tensors(dataset)):
            assert_same(batch, expected[number], number)
            history = Jagged(batch["history.item_id"], batch["history.offsets"])
            assert torch.equal(history.padded(4), expected[number].history["item_id"].padded(4))
            batch["label"].zero_()  # the trainer's own memory
        assert number == len(expected) - 1
        assert sum(its["reads"] for its in owners.describe()) > 0


def test_consumers_of_a_split_get_every_batch_once(wide: World) -> None:
    expected = list(plain(wide, **SETTINGS))
    with ShardActors(wide.store, 2) as owners:
        shares = ray_dataset(owners, wide.examples, WANTED, **SETTINGS).streaming_split(2)

        def train(share: Any) -> list[dict[str, Any]]:
            return [{name: its.numpy() for name, its in batch.items()} for batch in tensors(share)]

        found = ray.get([ray.remote(train).options(num_cpus=0).remote(share) for share in shares])
    got = {int(its["number"]): its for share in found for its in share}
    assert sum(map(len, found)) == len(got) == len(expected)
    for number, arrays in got.items():
        assert_same(arrays, expected[number], number)


def test_an_epoch_goes_on_at_a_batch(wide: World) -> None:
    expected = list(plain(wide, max_events=40, seed=5, batch_size=50))
    with ShardActors(wide.store, 2) as owners:
        rest = ray_dataset(owners, wide.examples, WANTED, max_events=40, seed=5, batch_size=50, first=5)
        rows = list(rest.iter_rows())
        assert [row["number"] for row in rows] == list(range(5, len(expected)))
        for row in rows:
            assert_same(row, expected[row["number"]], row["number"])
        end = ray_dataset(owners, wide.examples, WANTED, **SETTINGS, first=len(list(plain(wide, **SETTINGS))))
        assert list(end.iter_rows()) == []


def test_a_task_that_is_killed_is_run_again(wide: World, tmp_path: Path) -> None:
    once = tmp_path / "died"

    class Dying(ArrayExamples):
        """Kills the process that takes the fifth time, once."""

        taken = 0

        def take(self, indices: Any) -> Any:
            self.taken += 1
            if self.taken == 5 and not once.exists():
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().take(indices)

    with ShardActors(wide.store, 2) as owners:
        rows = list(ray_dataset(owners, lambda: Dying(wide.columns), WANTED, **SETTINGS).iter_rows())
    assert once.exists()
    for number, (row, expected) in enumerate(zip(rows, plain(wide, **SETTINGS), strict=True)):
        assert_same(row, expected, number)


def test_what_no_dataset_can_be_is_refused(wide: World) -> None:
    with ShardActors(wide.store, 1) as owners:
        for bad in ({"device": "cpu"}, {"dedup": True}, {"first": -1}, {"first": 99}, {"tasks": 0}, {"batch_size": 0}):
            with pytest.raises(SettingError):
                ray_dataset(owners, wide.examples, WANTED, **bad)
        with pytest.raises(SettingError, match="ShardActors"):
            ray_dataset("store", wide.examples, WANTED)  # type: ignore[arg-type]
        with pytest.raises(SchemaError):
            ray_dataset(owners, wide.examples, Projection(["no"]))
        with pytest.raises(SettingError, match="batch_size=1"):
            OneBatch()({"number": np.arange(2)})


@pytest.mark.parametrize("way", ["rows", "ordered"])
def test_any_dataset_of_events_becomes_the_store_that_one_process_builds(tmp_path: Path, way: str) -> None:
    table = make_rows()
    settings: dict[str, Any] = {"visible_at": "seen", "batch_rows": 170}
    if way == "ordered":
        settings["order_by"] = "arrived"
    path = write(table, tmp_path / "events.parquet")
    with Store.build(tmp_path / "alone", FULL, 4, chunk_events=32) as store:
        expected = ingest(store, path, **settings)
    dataset = ray.data.from_arrow([table.slice(low, 700) for low in range(0, len(table), 700)])
    if way == "ordered":
        dataset = ray.data.read_parquet(str(path)).map_batches(lambda rows: rows, batch_format="pyarrow")
    told = build_store(tmp_path / "store", FULL, dataset, shards=4, chunk_events=32, **settings)
    assert (told.rows, told.appended, told.lifted, told.ignored) == (
        expected.rows, expected.appended, expected.lifted, expected.ignored,
    )  # fmt: skip
    with Store.open(tmp_path / "store") as store, Store.open(tmp_path / "alone") as alone:
        assert contents(store) == contents(alone)
        assert store.verify().ok
    assert sorted(its.name for its in tmp_path.iterdir()) == ["alone", "events.parquet", "store"]


def test_rows_that_are_dicts_with_vectors_become_a_store(tmp_path: Path) -> None:
    schema = Schema([Column("vec", "float32", shape=(3,)), Column("tags", "int32", ragged=True)], user_id="string")
    rows = [
        {"user_id": f"u{n % 3}", "ts": n, "vec": np.full(3, n, np.float32), "tags": np.arange(n % 4, dtype=np.int32)}
        for n in range(20)
    ]
    told = build_store(tmp_path / "store", schema, ray.data.from_items(rows), shards=2)
    assert told.appended == 20
    with Store.open(tmp_path / "store") as store, store.snapshot() as snapshot:
        found = snapshot.read(snapshot.head(np.array(["u1"])))
        assert found.values("vec").tolist() == [[n] * 3 for n in range(1, 20, 3)]
        assert found.values("tags").tolist() == [at for n in range(1, 20, 3) for at in range(n % 4)]


def test_a_dataset_with_bad_rows_builds_nothing(tmp_path: Path) -> None:
    dataset = ray.data.from_items([{"user_id": n, "ts": n, "item_id": n, "action": 300} for n in range(9)])
    schema = Schema([Column("item_id", "int64"), Column("action", "uint8")])
    with pytest.raises(SchemaError, match=r"block 0.*'action'"):
        build_store(tmp_path / "store", schema, dataset, shards=2)
    assert list(tmp_path.iterdir()) == []


def test_string_users_and_bits_of_bfloat16_travel(tmp_path: Path) -> None:
    schema = Schema([Column("score", "bfloat16"), Column("page", "string")], user_id="string")
    users = ["ann", "bob", "žofie"] * 4
    with Store.create(tmp_path / "store", schema, shards=2) as store:
        pages = [f"/{n % 2}" * (n % 3) for n in range(12)]
        store.append({"user_id": users, "ts": np.arange(12), "score": np.arange(12) / 4, "page": pages}, backfill=True)
        examples = ArrayExamples({"user_id": users[:5], "version": [4, 3, 0, 1, 2], "label": [1.0, 0, 1, 0, 1]})
        with Loader(store, examples, Projection(), batch_size=3, shuffle=False) as loader:
            expected = list(loader)
        with ShardActors(store, 2) as owners:
            dataset = ray_dataset(owners, examples, Projection(), batch_size=3, shuffle=False)
            rows = list(dataset.iter_rows())
            batches = list(tensors(dataset))
    assert [list(row["user_id"]) for row in rows] == [["ann", "bob", "žofie"], ["ann", "bob"]]
    for row, batch, wanted in zip(rows, batches, expected, strict=True):
        history = wanted.history
        assert isinstance(history, TenantHistory)
        scores = history["score"].values
        assert torch.equal(torch.from_numpy(np.array(row["history.score"])).view(torch.bfloat16), scores)
        assert torch.equal(batch["history.page"], history["page"].values)
        assert torch.equal(batch["history.page.offsets"], history["page"].element_offsets)
        assert "user_id" not in batch and batch["version"].tolist() == wanted.pointers.version.tolist()
