"""A batch read in parts, by whoever owns their shards, is the batch."""

from __future__ import annotations

import numpy as np
import pytest

from loader.batch import assemble_batch
from loader.errors import WorkerError
from loader.joining import Part, join_readings
from loader.reading import LocalReader, Request
from loader.testing import assert_same_batch
from tests.loader.conftest import World
from tests.loader.test_dedup import TENANTS
from uihkv import Column, Projection, Schema, Store


@pytest.mark.parametrize("dedup", [False, True])
@pytest.mark.parametrize("owners", [1, 2, 3])
def test_parts_by_shard_are_joined_to_the_batch(world: World, dedup: bool, owners: int) -> None:
    rng = np.random.default_rng(owners)
    with world.store.snapshot() as snapshot:
        reader = LocalReader(snapshot, TENANTS, dedup)
        for size in (1, 2, 30):
            indices = rng.integers(0, len(world.examples), size)
            pointers, features = world.examples.take(indices)
            owner = world.store.shard_of(pointers.user_id) % owners
            parts = []
            for number in np.unique(owner):
                rows = np.flatnonzero(owner == number)
                parts.append(Part(rows, reader.read(Request(pointers[rows], None, 3, indices[rows]))))
            joined = join_readings(parts)
            whole = reader.read(Request(pointers, None, 3, indices))
            batch, expected = (assemble_batch(features, pointers, reading) for reading in (joined, whole))
            assert_same_batch(batch, expected)
            assert batch.nbytes == expected.nbytes  # what tenants share is there once
            assert sum(cost.events for cost in joined.costs) == sum(cost.events for cost in whole.costs)


def test_parts_of_two_schemas_are_refused(tmp_path: object) -> None:
    with Store.create(f"{tmp_path}/s", Schema([Column("x", "int16")]), shards=1) as store:
        store.append({"user_id": [1, 2], "ts": [1, 1], "x": [1, 2]})
        readings = []
        for _ in range(2):
            with store.snapshot() as snapshot:
                pointers = snapshot.head([1])
                reader = LocalReader(snapshot, {"t": Projection(["x"])}, False)
                readings.append(reader.read(Request(pointers, None, 0, np.zeros(1, np.int64))))
            store.widen_column("x", "int32")
            break
        with store.snapshot() as snapshot:
            reader = LocalReader(snapshot, {"t": Projection(["x"])}, False)
            readings.append(reader.read(Request(pointers, None, 0, np.zeros(1, np.int64))))
    with pytest.raises(WorkerError, match="schema was changed"):
        join_readings([Part(np.array([row]), reading) for row, reading in enumerate(readings)])
