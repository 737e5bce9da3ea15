"""String user ids and the numbers behind them.

A store keeps every user under an int64. Of a string id that is the *hash* of its UTF-8 bytes (xxh3-64), or, where
another user has that number already, the next free one of a fixed sequence: the next greater numbers of the same shard.
Each shard holds which number a name got (:mod:`uihkv.nametable`), so that two names never share a history, and which
shard holds a user follows from the string alone.

Names are handled a batch at a time, as bytes back to back with offsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv import keys
from uihkv.distinct import Bytes, hash_values, number_values
from uihkv.dtypes import STRING
from uihkv.errors import PointerError, SchemaError, UihkvError
from uihkv.schema import USER_ID
from uihkv.texts import flatten_arrow, parse_texts
from uihkv.userids import UserIds, is_string, to_arrow

Int64s = NDArray[np.int64]

MOST_BYTES = 480
"""Most bytes of a name: it is a key of LMDB, which takes 511."""

HASH_MASK = -1
"""Bits of a name's hash that count: all. Tests take most of them away, so that names collide."""


@dataclass(frozen=True, slots=True)
class BatchNames:
    """The users of a batch of events.

    Attributes:
        code: uint32[rows], which of the names each row is of.
        values, offsets: the bytes of the distinct names, uint8 and int64[names + 1].
        number: int64[names], their hashes.

    """

    code: NDArray[np.uint32]
    values: Bytes
    offsets: Int64s
    number: Int64s

    def take(self, rows: Int64s) -> BatchNames:
        """Those of these rows, in this order."""
        return BatchNames(self.code[rows], self.values, self.offsets, self.number)

    def to_arrow(self) -> Any:
        """The name of each row: an Arrow array of large_binary, from which :func:`parse_names` makes the same."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self.offsets), pa.py_buffer(self.values)]
        names = pa.Array.from_buffers(pa.large_binary(), len(self.number), buffers)
        return names.take(pa.array(self.code))


def parse_names(values: Any, n: int | None = None) -> BatchNames:
    """The ``user_id`` column of a batch for a store with string ids: str or bytes, as ``string`` columns take them.

    Raises:
        SchemaError: for anything else, or ids that are empty or too long.

    """
    kind = getattr(getattr(values, "dtype", None), "kind", None)
    if kind in ("i", "u") and len(values):
        raise SchemaError(f"column 'user_id': {values.dtype} given, and this store's user ids are strings; give str")
    flat, offsets = parse_texts(STRING, USER_ID, values, n)
    _check_lengths(flat, offsets, "column 'user_id'", SchemaError)
    rows = len(offsets) - 1
    found = number_values(flat, offsets, np.zeros(1, np.int64), np.array([rows]))
    return BatchNames(found.code, found.values, found.offsets, hash_names(found.values, found.offsets))


def pack_names(user_ids: UserIds, name: str = "user_id") -> tuple[Bytes, Int64s]:
    """The bytes of string ids, uint8, and int64[n+1], where each begins.

    Raises:
        PointerError: for ids that are empty or too long.

    """
    flat, offsets = flatten_arrow(name, to_arrow(user_ids), STRING)
    _check_lengths(flat, offsets, name, PointerError)
    return flat, offsets


def _check_lengths(flat: Bytes, offsets: Int64s, what: str, error: type[UihkvError]) -> None:
    size = np.diff(offsets)
    odd = (size < 1) | (size > MOST_BYTES)
    if odd.any():
        row = int(np.argmax(odd))
        start = flat[offsets[row] : offsets[row + 1]][:20].tobytes().decode(errors="replace")
        raise error(
            f"{what}: row {row} is {start!r}{'…' if size[row] > 20 else ''}, {int(size[row])} bytes of UTF-8; string "
            f"user ids have 1 to {MOST_BYTES}"
        )


def hash_names(values: Bytes, offsets: Int64s) -> Int64s:
    """The number that each name has where nobody else has it: int64[n]."""
    return hash_values(values, offsets) & np.int64(HASH_MASK)


def next_numbers(number: Int64s, shards: int) -> Int64s:
    """The numbers that come after these in the sequence of their shard: int64[n]."""
    shard = keys.shard_of(number, shards)
    moved = number.copy()
    active = np.arange(len(number))
    while len(active):
        moved[active] += 1  # the greatest is followed by the least
        active = active[keys.shard_of(moved[active], shards) != shard[active]]
    return moved


def numbers_of(user_ids: UserIds) -> Int64s:
    """int64 ids as they are, of strings their hashes: what routes and draws go by. Different strings may share one.

    Raises:
        PointerError: for string ids that are empty or too long.

    """
    return hash_names(*pack_names(user_ids)) if is_string(user_ids) else user_ids
