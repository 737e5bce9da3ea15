"""One number for each sequence of a batch: equal bytes in equal order give equal numbers, others almost never.

For comparing millions of sequences that were read at different times, by different processes. Not cryptographic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def digest_sequences(offsets: NDArray[np.int64], columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Digests of B sequences: int64[B].

    Args:
        offsets: int64[B+1], the events of row ``b`` are ``[offsets[b], offsets[b+1])``.
        columns: by name, ``[events]`` each, of types of 1 to 8 bytes.

    """
    lengths = np.diff(offsets)
    place = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], lengths)
    mixed = _mix(place.astype(np.uint64))
    for name in sorted(columns):
        values = np.ascontiguousarray(columns[name])
        words = values.view(f"u{values.dtype.itemsize}").astype(np.uint64)
        mixed = _mix(mixed ^ words)
    total = np.append(np.uint64(0), np.cumsum(mixed, dtype=np.uint64))
    whole = total[offsets[1:]] - total[offsets[:-1]]
    return _mix(whole ^ lengths.astype(np.uint64)).view(np.int64)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64."""
    z = z + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
