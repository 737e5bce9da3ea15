"""Outputs are written a cache line at a time, wherever they begin and end, and nothing beside them is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.format.chunks import OpenChunk, encode_one, one_column
from uihkv import Column, Schema
from uihkv.codec import Slices, decode_fixed
from uihkv.kernels.decode import VERIFY_ONCE

EVENTS = 300
COUNTS = (1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 129, 240)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("most", [1, 6, 200, 3_000, 100_000, 2**40])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float32", "float64"])
def test_a_window_is_written_whole_and_nothing_beside_it(dtype: str, most: int, compress: bool) -> None:
    rng = np.random.default_rng(most)
    whole = np.dtype(dtype).kind in "iu"
    most = min(most, np.iinfo(dtype).max if whole else 2**24)
    values = (rng.integers(0, most, EVENTS) / (1 if whole else 10)).astype(dtype)
    clock = 10**12 + np.cumsum(rng.integers(0, most, EVENTS))
    schema = Schema([Column("c", dtype)])
    chunk = OpenChunk(schema, encode_one(schema, one_column("c", values, ts=clock), compress), EVENTS)
    zero = np.zeros(1, np.int64)
    for out in range(65):
        count = COUNTS[out % len(COUNTS)]
        first = int(rng.integers(0, EVENTS - count))
        rooms = {"c": np.full(EVENTS + 100, 77, dtype), "ts": np.full(EVENTS + 100, 77, np.int64)}
        decode_fixed(
            chunk.entries,
            chunk.layouts,
            Slices(zero, zero + first, zero + first + count, zero + out),
            rooms,
            VERIFY_ONCE,
        )
        for name, stored in (("c", values), ("ts", clock)):
            expected = np.full_like(rooms[name], 77)
            expected[out : out + count] = stored[first : first + count]
            assert rooms[name].tobytes() == expected.tobytes(), (name, out, first, count)
