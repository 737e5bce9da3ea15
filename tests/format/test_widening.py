"""A chunk read by a newer schema gives the numbers that numpy would."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.format.chunks import OpenChunk, encode_one, one_column
from uihkv import Column, Schema
from uihkv.dtypes import NUMBERS
from uihkv.evolution import with_wider_column

PAIRS = [
    (old, new)
    for old in NUMBERS
    for new in NUMBERS
    if old != "bool" and new != "bool"
    and np.can_cast(old, new) and np.dtype(new).itemsize > np.dtype(old).itemsize
    and np.issubdtype(old, np.integer) == np.issubdtype(new, np.integer)
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(data=st.data(), pair=st.sampled_from(PAIRS), compress=st.booleans())
def test_widening_is_exact_in_every_encoding(data: Any, pair: tuple[str, str], compress: bool) -> None:
    old, new = pair
    n = data.draw(st.integers(1, 80))
    shape = data.draw(st.sampled_from([(), (3,)]))
    few = data.draw(st.booleans())
    elements = st.sampled_from([0, 1, 3]) if few else None
    values = data.draw(hnp.arrays(np.dtype(old), (n, *shape), elements=elements))
    values = np.sort(values, axis=0) if data.draw(st.booleans()) else values
    schema = Schema([Column("c", old, shape=shape)])
    bytes_then = encode_one(schema, one_column("c", values), compress)
    newer = with_wider_column([schema], "c", new)
    chunk = OpenChunk(schema, bytes_then, n, newer=[newer])
    with np.errstate(invalid="ignore"):
        expected = values.astype(new)
    assert chunk.read("c", 0, n).tobytes() == expected.tobytes()


def test_every_float16_widens_as_numpy_says() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    schema = Schema([Column("c", "float16")])
    data = encode_one(schema, one_column("c", halves))
    for wide in ("float32", "float64"):
        newer = with_wider_column([schema], "c", wide)
        found = OpenChunk(schema, data, len(halves), newer=[newer]).read("c", 0, len(halves))
        expected = halves.astype(wide)
        numbers = ~np.isnan(expected)
        assert found[numbers].tobytes() == expected[numbers].tobytes()
        assert np.isnan(found[~numbers]).all()
