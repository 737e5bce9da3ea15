"""Whatever goes into a chunk comes out of every window of it, bit for bit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.format.chunks import USER, OpenChunk, encode_one, one_column
from uihkv import Column, Schema
from uihkv.chunk import (
    CONSTANT,
    DECIMAL,
    DELTA,
    DESCRIPTOR_BYTES,
    FORM_AT,
    FORM_SHORT,
    FRAME,
    HEADER_BYTES,
    RAW,
    SAME,
)
from uihkv.dtypes import BFLOAT16, NUMBERS, element_type
from uihkv.events import Events


def encodings(data: bytes, blocks: int) -> list[int]:
    return [data[HEADER_BYTES + DESCRIPTOR_BYTES * block] for block in range(blocks)]


def is_short(data: bytes) -> bool:
    return data[FORM_AT] == FORM_SHORT


@settings(max_examples=300, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([*NUMBERS, BFLOAT16]), compress=st.booleans())
def test_every_window_of_any_column_is_what_was_written(data: Any, dtype: str, compress: bool) -> None:
    shape = data.draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    n = data.draw(st.integers(1, 70))
    narrow = data.draw(st.booleans())  # few different values, so that every width and encoding is met
    elements = st.integers(0, 3) if narrow and dtype != "bool" and not dtype.startswith("float") else None
    values = data.draw(hnp.arrays(element_type(dtype), (n, *shape), elements=elements))
    schema = Schema([Column("c", dtype, shape=shape)])
    chunk = OpenChunk(schema, encode_one(schema, one_column("c", values), compress), n)
    first = data.draw(st.integers(0, n))
    last = data.draw(st.integers(first, n))
    assert chunk.read("c", first, last).tobytes() == values[first:last].tobytes()


@settings(max_examples=200, deadline=None)
@given(
    ts=hnp.arrays(np.int64, st.integers(1, 400), elements=st.integers(0, 2**63 - 1)),
    unit=st.sampled_from([1, 1000, 60_000, 86_400_000]),
    rising=st.booleans(),
)
def test_clocks_of_any_shape_survive(ts: np.ndarray, unit: int, rising: bool) -> None:
    ts = ts // unit * unit
    visible = np.sort(ts)
    ts = visible.copy() if rising else ts
    schema = Schema([Column("c", "uint8")])
    n = len(ts)
    chunk = OpenChunk(schema, encode_one(schema, one_column("c", np.zeros(n, np.uint8), ts=ts, visible=visible)), n)
    assert np.array_equal(chunk.read("ts", 0, n), ts)
    assert np.array_equal(chunk.read("visible_at", n // 2, n), visible[n // 2 :])


@settings(max_examples=150, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9), min_size=1, max_size=60),
    data=st.data(),
)
def test_ragged_lists_survive_in_every_window(lists: list[list[int]], data: Any) -> None:
    schema = Schema([Column("tags", "int32", ragged=True)])
    n = len(lists)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum([len(part) for part in lists], out=offsets[1:])
    flat = np.array([value for part in lists for value in part], np.int32)
    clock = np.arange(n, dtype=np.int64)
    events = Events(np.full(n, USER), clock, clock, {"tags": flat}, {"tags": offsets})
    chunk = OpenChunk(schema, encode_one(schema, events), n)
    first = data.draw(st.integers(0, n))
    last = data.draw(st.integers(first, n))
    values, inner = chunk.read("tags", first, last)
    found = [values[a:b].tolist() for a, b in pairwise(inner)]
    assert found == lists[first:last]


def coded(schema: Schema, values: list[bytes]) -> Events:
    """Events with one bytes column."""
    n = len(values)
    clock = np.arange(n, dtype=np.int64)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    flat = np.frombuffer(b"".join(values), np.uint8).copy()
    return Events(np.full(n, USER), clock, clock, {schema.names[0]: flat}, {schema.names[0]: offsets})


@settings(max_examples=150, deadline=None)
@given(values=st.lists(st.sampled_from([b"", b"a", b"click"]) | st.binary(max_size=20), min_size=1), data=st.data())
def test_byte_strings_survive_in_every_window(values: list[bytes], data: Any) -> None:
    schema = Schema([Column("c", "bytes")])
    chunk = OpenChunk(schema, encode_one(schema, coded(schema, values), data.draw(st.booleans())), len(values))
    first = data.draw(st.integers(0, len(values)))
    last = data.draw(st.integers(first, len(values)))
    flat, inner = chunk.read("c", first, last)
    assert [flat[a:b].tobytes() for a, b in pairwise(inner)] == values[first:last]


def test_a_repeated_byte_string_costs_a_code_and_a_unique_one_no_code() -> None:
    schema = Schema([Column("c", "string")])
    few = encode_one(schema, coded(schema, [b"a long name of an action %d" % (n % 3) for n in range(1000)]))
    assert len(few) < 1000 + 500
    unique = [b"%016x" % (n * 0x9E3779B97F4A7C15 % 2**64) for n in range(1000)]
    data = encode_one(schema, coded(schema, unique), compress=False)
    assert encodings(data, 4)[2:4] == [DELTA, CONSTANT]
    assert len(data) < 1000 * 16 + 500


def test_lists_and_vectors_are_compressed_too() -> None:
    schema = Schema([Column("tags", "int32", ragged=True), Column("vec", "int16", shape=(8,))])
    n = 1000
    clock = np.arange(n, dtype=np.int64)
    tags = np.tile(np.arange(5, dtype=np.int32) + 10**6, n)
    columns = {"tags": tags, "vec": np.tile(np.arange(8, dtype=np.int16), (n, 1))}
    events = Events(np.full(n, USER), clock, clock, columns, {"tags": 5 * np.arange(n + 1)})
    plain = encode_one(schema, events, compress=False)
    assert encodings(plain, 5)[3:] == [FRAME, FRAME]
    assert len(plain) < n * (5 + 8) + 500  # one byte an element instead of four and two
    assert len(encode_one(schema, events)) < len(plain) // 10


@pytest.mark.parametrize(
    ("values", "dtype", "encoding"),
    [
        (np.full(500, 7), "int64", CONSTANT),
        (np.full(500, np.nan), "float32", CONSTANT),
        (np.arange(500) % 200 + 10**12, "int64", FRAME),
        (np.cumsum(np.arange(500) % 7) + 10**12, "int64", DELTA),
        (np.arange(500) * 3600_000, "int64", DELTA),
        (np.linspace(0, 1, 500), "float64", RAW),
    ],
)
def test_encoding_is_the_smallest_that_fits(values: np.ndarray, dtype: str, encoding: int) -> None:
    schema = Schema([Column("c", dtype)])
    data = encode_one(schema, one_column("c", values.astype(dtype)), compress=False)
    assert encodings(data, 3)[2] == encoding


def test_visible_times_equal_to_ts_take_no_room() -> None:
    schema = Schema([Column("c", "int64")])
    ts = np.cumsum(np.random.default_rng(0).integers(0, 10**9, 500))
    same = encode_one(schema, one_column("c", np.zeros(500, np.int64), ts=ts))
    assert encodings(same, 3)[1] == SAME
    assert len(same) < 500 * 8


def test_a_coarse_clock_takes_half_the_room() -> None:
    schema = Schema([Column("c", "uint8")])
    seconds = np.random.default_rng(0).integers(10**9, 2 * 10**9, 1000)
    zeros = np.zeros(1000, np.uint8)
    coarse = encode_one(schema, one_column("c", zeros, ts=seconds * 1000), compress=False)
    fine = encode_one(schema, one_column("c", zeros, ts=seconds * 1000 + seconds % 999), compress=False)
    assert len(coarse) < 0.6 * len(fine)


def test_lz4_is_kept_only_where_it_wins() -> None:
    schema = Schema([Column("c", "int32")])
    noise = np.random.default_rng(0).integers(-(2**31), 2**31 - 1, 4000).astype(np.int32)
    pattern = np.tile(noise[:40], 100)
    assert len(encode_one(schema, one_column("c", noise))) == len(
        encode_one(schema, one_column("c", noise), compress=False)
    )
    assert len(encode_one(schema, one_column("c", pattern))) < 3000


def test_a_handful_of_events_takes_little_more_than_themselves() -> None:
    schema = Schema([Column("a", "int64"), Column("b", "uint8"), Column("v", "float16", shape=(4,))])
    clock = np.array([1_700_000_000_000, 1_700_000_060_000], np.int64)
    columns = {
        "a": np.array([1, -1]), "b": np.array([3, 4], np.uint8), "v": np.ones((2, 4), np.float16),
    }  # fmt: skip
    data = encode_one(schema, Events(np.full(2, USER), clock, clock, columns, {}))
    assert is_short(data)
    assert len(data) < 40  # 66 in memory
    chunk = OpenChunk(schema, data, 2)
    assert chunk.read("a", 1, 2).tolist() == [-1]
    assert chunk.read("visible_at", 0, 2).tolist() == clock.tolist()
    assert chunk.read("v", 0, 2).tolist() == columns["v"].tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("digits", [0, 1, 2])
def test_rounded_floats_are_stored_as_the_numbers_they_were_written_as(dtype: str, digits: int) -> None:
    values = np.round(np.random.default_rng(0).lognormal(2, 1.2, 600), digits).astype(dtype)
    schema = Schema([Column("c", dtype)])
    data = encode_one(schema, one_column("c", values))
    assert encodings(data, 3)[2] == DECIMAL
    assert OpenChunk(schema, data, 600).read("c", 17, 600).tobytes() == values[17:].tobytes()


@pytest.mark.parametrize("odd", [-0.0, np.nan, np.inf, 1 / 3, 1e300])
def test_a_float_that_no_decimal_gives_back_keeps_its_bits(odd: float) -> None:
    values = np.full(300, 2.5)
    values[123] = odd
    schema = Schema([Column("c", "float64")])
    data = encode_one(schema, one_column("c", values))
    assert encodings(data, 3)[2] == RAW
    assert OpenChunk(schema, data, 300).read("c", 0, 300).tobytes() == values.tobytes()


@settings(max_examples=100, deadline=None)
@given(bits=st.integers(1, 63), n=st.integers(1, 700), step=st.booleans(), data=st.data())
def test_elements_of_any_width_in_bits_survive_in_every_window(bits: int, n: int, step: bool, data: Any) -> None:
    values = np.random.default_rng(bits * n).integers(0, 1 << bits, n, dtype=np.int64)
    values = np.cumsum(values % (1 << min(bits, 50))) if step else values
    schema = Schema([Column("c", "int64")])
    chunk = OpenChunk(schema, encode_one(schema, one_column("c", values)), n)
    first = data.draw(st.integers(0, n))
    last = data.draw(st.integers(first, n))
    assert chunk.read("c", first, last).tobytes() == values[first:last].tobytes()
