"""Jagged columns and batches: views against a plain model, one slab when they move."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loader import Batch, DeviceError, Jagged, Loader
from loader.batch import ALIGNMENT
from loader.testing import assert_same_batch
from tests.loader.conftest import World
from uihkv import Projection, SchemaError

ROWS = st.lists(st.lists(st.integers(0, 200), max_size=6), min_size=1, max_size=5)


def jagged(rows: list[list[Any]], dtype: str) -> Jagged:
    values = np.array([value for row in rows for value in row], dtype)
    offsets = np.cumsum([0, *map(len, rows)])
    return Jagged(torch.from_numpy(values), torch.from_numpy(offsets))


def first_batch(world: World, **options: Any) -> Batch:
    options.setdefault("projection", Projection())
    with Loader(world.store, world.examples, batch_size=20, **options) as loader:
        return next(iter(loader))


@settings(deadline=None)
@given(ROWS, st.integers(1, 8), st.sampled_from(["left", "right"]), st.sampled_from(["uint16", "int64", "float32"]))
def test_padded_keeps_the_newest_events(rows: list[list[int]], length: int, side: Any, dtype: str) -> None:
    fill = 65535 if dtype == "uint16" else -1 if dtype == "int64" else 0.5
    expected = []
    for row in rows:
        kept = row[-length:]
        gap = [fill] * (length - len(kept))
        expected.append([*gap, *kept] if side == "left" else [*kept, *gap])
    padded = jagged(rows, dtype).padded(length, fill, side=side)
    assert padded.dtype == getattr(torch, dtype)
    assert padded.tolist() == expected


def test_padded_keeps_the_shape_of_an_event() -> None:
    column = Jagged(torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 3]))
    assert column.padded(2).tolist() == [[[0, 0], [0, 1]], [[2, 3], [4, 5]]]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("uint8", -1), ("uint8", 256), ("int64", 0.5), ("bool", 2), ("uint64", 2**64), ("float32", "x")],
)
def test_padding_that_the_column_cannot_hold_is_refused(dtype: str, value: Any) -> None:
    with pytest.raises(SchemaError, match="value is"):
        jagged([[1]], dtype).padded(2, value)


def test_padding_at_the_edge_of_unsigned_types_is_exact() -> None:
    for dtype, value in (("uint8", 255), ("uint32", 2**32 - 1), ("uint64", 2**64 - 1)):
        assert jagged([[1]], dtype).padded(2, value).numpy().tolist() == [[value, 1]]


@pytest.mark.parametrize(("length", "side"), [(0, "left"), (2.0, "left"), (True, "left"), (2, "middle")])
def test_bad_rectangles_are_refused(length: Any, side: Any) -> None:
    with pytest.raises(SchemaError):
        jagged([[1]], "int64").padded(length, side=side)


@settings(deadline=None)
@given(ROWS)
def test_nested_is_the_same_memory(rows: list[list[int]]) -> None:
    column = jagged(rows, "int64")
    nested = column.nested()
    assert nested.layout == torch.jagged
    assert nested.values().data_ptr() == column.values.data_ptr()
    assert [row.tolist() for row in nested.unbind()] == rows
    assert (column.min_length, column.max_length) == (min(map(len, rows)), max(map(len, rows)))


def test_ragged_columns_carry_element_offsets(world: World) -> None:
    batch = first_batch(world, shuffle=False)
    tags = batch.history["tags"]
    assert tags.element_offsets is not None
    for row in range(len(batch)):
        events = range(int(tags.offsets[row]), int(tags.offsets[row + 1]))
        lists = [tags.values[tags.element_offsets[n] : tags.element_offsets[n + 1]].tolist() for n in events]
        assert lists == [list(tag) for tag in world.window(row, "tags", None)]
    with pytest.raises(SchemaError, match="ragged"):
        tags.padded(3)
    with pytest.raises(SchemaError, match="ragged"):
        tags.nested()


def test_a_batch_on_the_host_is_not_copied(world: World) -> None:
    batch = first_batch(world)
    assert batch.slab is None
    assert batch.to("cpu") is batch
    assert batch.device == torch.device("cpu")
    batch.record_stream(torch.Stream("cpu"))


def test_a_batch_moves_as_one_aligned_slab(world: World) -> None:
    batch = first_batch(world)
    packed = batch._packed()
    assert_same_batch(packed, batch)
    assert packed.slab is not None
    base, end = packed.slab.data_ptr(), packed.slab.data_ptr() + packed.slab.nbytes
    for tensor in packed._tensors():
        assert base <= tensor.data_ptr() <= end
        assert tensor.nbytes == 0 or (tensor.data_ptr() - base) % ALIGNMENT == 0
    moved = batch.to("meta")
    assert moved.device == torch.device("meta")
    assert len(moved) == len(batch)
    assert moved.nbytes == batch.nbytes
    assert moved.history["vec"].values.shape == batch.history["vec"].values.shape


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_pickles_once_over(world: World, packed: bool) -> None:
    batch = first_batch(world)
    batch = batch._packed() if packed else batch
    data = pickle.dumps(batch)
    assert_same_batch(pickle.loads(data), batch)
    assert len(data) < 2 * batch.nbytes + 8192


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_pinning_without_a_device_is_refused(world: World) -> None:
    with pytest.raises(DeviceError, match="needs a CUDA device"):
        first_batch(world).pin_memory()


def test_tenants_are_asked_by_name(world: World) -> None:
    batch = first_batch(world, projection=None, tenants={"a": Projection(["ts"]), "b": Projection(["vec"])})
    with pytest.raises(SchemaError, match="the tenants a, b"):
        _ = batch.history
    with pytest.raises(SchemaError, match="this projection has ts"):
        batch.histories["a"]["vec"]
    assert "ts" in batch.histories["a"]
    assert list(batch.histories["b"]) == ["vec"]
