"""The quick ways to decode narrow elements give what the slow ways give."""

from __future__ import annotations

import numpy as np
import pytest

from tests.format.chunks import OpenChunk, encode_one, one_column
from uihkv import Column, Schema


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("kinds", [2, 3, 8, 9, 30, 100, 200])
def test_windows_of_narrow_elements_begin_and_end_anywhere(dtype: str, kinds: int) -> None:
    schema = Schema([Column("a", dtype)])
    rng = np.random.default_rng(kinds)
    low = -min(kinds, 128) // 2 if dtype == "int8" else 256 - kinds
    values = (low + rng.integers(0, min(kinds, 128), 300)).astype(dtype)
    chunk = OpenChunk(schema, encode_one(schema, one_column("a", values)), 300)
    for first in (0, 1, 7, 8, 9, 100, 250):
        for last in (first + 1, first + 15, first + 16, first + 40, 299, 300):
            last = max(first, min(last, 300))
            assert np.array_equal(chunk.read("a", first, last), values[first:last]), (first, last)


WINDOWS = (
    (0, 1),
    (0, 2_500),
    (1, 2_499),
    (7, 40),
    (8, 1_032),
    (9, 1_034),
    (1_023, 2_300),
    (2_000, 2_500),
    (2_499, 2_500),
)


@pytest.mark.parametrize("bits", range(1, 60))
def test_elements_of_any_number_of_bits_are_those_that_were_stored(bits: int) -> None:
    dtypes = [name for name, most in (("int16", 15), ("int32", 31), ("int64", 63)) if bits <= most]
    schema = Schema([Column(name, name) for name in dtypes])
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 2**bits, 2_500)
    events = one_column(dtypes[0], (values - 2 ** (bits - 1)).astype(dtypes[0]))
    for name in dtypes[1:]:
        events.columns[name] = (values - 2 ** (bits - 1)).astype(name)
    chunk = OpenChunk(schema, encode_one(schema, events), 2_500)
    for first, last in WINDOWS:
        for name in dtypes:
            expected = events.columns[name][first:last]
            assert np.array_equal(chunk.read(name, first, last), expected), (name, first, last)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("bits", [0, 1, 5, 8, 12, 16, 20, 25, 26, 31, 32, 40, 48])
@pytest.mark.parametrize("unit", [1, 1000])
def test_sums_of_increments_are_what_was_stored(bits: int, unit: int, compress: bool) -> None:
    dtypes = [name for name, most in (("int16", 3), ("int32", 18), ("int64", 63)) if bits <= most]
    schema = Schema([Column(name, name) for name in dtypes])
    rng = np.random.default_rng(bits)
    steps = 5 + np.cumsum(3 + rng.integers(0, 2**bits, 2_500))
    events = one_column("int64", steps, ts=unit * steps)
    for name in dtypes:
        events.columns[name] = steps.astype(name)
    chunk = OpenChunk(schema, encode_one(schema, events, compress), 2_500)
    for first, last in WINDOWS:
        assert np.array_equal(chunk.read("ts", first, last), unit * steps[first:last]), (first, last)
        for name in dtypes:
            assert np.array_equal(chunk.read(name, first, last), steps[first:last].astype(name)), (name, first, last)


@pytest.mark.parametrize("digits", [0, 1, 2, 3])
@pytest.mark.parametrize("low, high", [(0, 50), (-900, 900), (0, 2**24), (-(2**23), 2**23), (0, 2**31)])
def test_quotients_are_the_floats_that_were_stored(digits: int, low: int, high: int) -> None:
    schema = Schema([Column("f", "float32"), Column("d", "float64")])
    rng = np.random.default_rng(digits)
    exact = rng.integers(low, high, 5_000) / 10**digits
    events = one_column("f", exact.astype(np.float32))
    events.columns["d"] = exact
    chunk = OpenChunk(schema, encode_one(schema, events), 5_000)
    assert chunk.read("f", 0, 5_000).tobytes() == exact.astype(np.float32).tobytes()
    assert chunk.read("d", 3, 4_998).tobytes() == exact[3:4_998].tobytes()
