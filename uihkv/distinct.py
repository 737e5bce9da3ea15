"""The distinct values of a column of byte strings, numbered in the order in which they first occur.

What chunks hold of a ``bytes`` or ``string`` column, and what a batch with string user ids is routed by. Values are
compared in full; their hashes only find them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uihkv.kernels import coded as _coded

Int64s = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DistinctValues:
    """Distinct values of segments of rows.

    Attributes:
        code: uint32[rows], the number of each row's value among its segment's.
        value_before, byte_before: int64[rows + 1], distinct values, and their bytes, before each row.
        length: uint32[values], of each value, segment by segment.
        values: uint8, their bytes.

    """

    code: NDArray[np.uint32]
    value_before: Int64s
    byte_before: Int64s
    length: NDArray[np.uint32]
    values: Bytes

    @property
    def offsets(self) -> Int64s:
        """Where each distinct value begins: int64[values + 1]."""
        offsets = np.zeros(len(self.length) + 1, np.int64)
        np.cumsum(self.length, out=offsets[1:])
        return offsets


def number_values(values: Bytes, offsets: Int64s, row: Int64s, count: Int64s) -> DistinctValues:
    """Number the values of each segment of rows ``[row, row + count)``; segments ascend and do not overlap."""
    n = len(offsets) - 1
    size = 1 << max(int(2 * count.max(initial=1)) - 1, 1).bit_length()
    code, length = np.empty(n, np.uint32), np.empty(n, np.uint32)
    value_before, byte_before = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    distinct = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    found, found_bytes = _coded.number_values(
        values, offsets, row, count, np.full(size, -1, np.int64), np.empty(n, np.int64),
        code, value_before, byte_before, length, distinct,
    )  # fmt: skip
    return DistinctValues(code, value_before, byte_before, length[:found], distinct[:found_bytes])


def as_bytes(data: bytes) -> Bytes:
    """Bytes as an array that kernels take: one that may be written, so that they are compiled once."""
    array = np.empty(len(data), np.uint8)
    array[:] = np.frombuffer(data, np.uint8) if data else 0
    return array


def hash_values(values: Bytes, offsets: Int64s) -> Int64s:
    """xxh3-64 of each value, as int64[n]."""
    hashes = np.empty(len(offsets) - 1, np.int64)
    _coded.hash_values(values, offsets, hashes)
    return hashes
