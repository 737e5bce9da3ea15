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
