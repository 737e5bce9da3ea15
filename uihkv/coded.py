"""Reading dictionary-coded columns: ``bytes`` and ``string``.

The output is that of a ragged column, uint8 elements and where each event's begin. A condition on such a column is
answered from the chunks' distinct values, each compared once however often it occurs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.codec import Entries, Layouts, Slices
from uihkv.distinct import Bytes, as_bytes, hash_values
from uihkv.kernels import coded as _coded
from uihkv.kernels import status
from uihkv.slabs import address_of

Int64s = NDArray[np.int64]


class _Read:
    """One pass over slices of a coded column: what the kernels share."""

    def __init__(self, entries: Entries, layouts: Layouts, slices: Slices, name: str, verify: int) -> None:
        self._entries = entries
        block = np.ascontiguousarray(layouts.first_blocks([name])[:, 0])
        events, size = _coded.coded_bounds(
            entries.address, slices.entry, layouts.width, layouts.elements, layouts.kind, block
        )
        self.default = as_bytes(layouts.schema[name].default_bytes)
        self._from = (
            entries.address, entries.user, entries.verified, slices.entry, slices.first, slices.last, slices.out,
            layouts.width, layouts.kind, layouts.elements, block,
        )  # fmt: skip
        scratch = np.empty(max(entries.scratch_bytes, 1), np.uint8)
        self._room = (verify, scratch, np.empty(max(int(events), 1), np.int64), np.empty(int(events) + 1, np.int64))
        self._values = np.empty(max(int(size), 1), np.uint8)

    def lengths(self, out: Int64s) -> None:
        self._check(_coded.read_coded_lengths(*self._from, len(self.default), out, *self._room))

    def values(self, offsets: Int64s, out: Bytes) -> None:
        self._check(
            _coded.read_coded_values(*self._from, self.default, offsets, address_of(out), *self._room, self._values)
        )

    def match(self, values: Bytes, offsets: Int64s, hashes: Int64s, out: NDArray[np.bool_]) -> None:
        self._check(
            _coded.match_coded(*self._from, self.default, values, offsets, hashes, out, *self._room, self._values)
        )

    def _check(self, outcome: tuple[Any, Any]) -> None:
        code, entry = outcome
        if code != status.OK:
            raise self._entries.error(code, entry)


def read_coded(
    entries: Entries, layouts: Layouts, slices: Slices, name: str, n: int, verify: int
) -> tuple[Bytes, Int64s]:
    """Values of a coded column over slices, sorted by entry, of n events: uint8, and int64[n+1] where each begins.

    Raises:
        CorruptChunkError: where a checksum fails, a block does not decompress, or codes and lengths do not fit.

    """
    read = _Read(entries, layouts, slices, name, verify)
    lengths = np.zeros(n, np.int64)
    read.lengths(lengths)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    values = np.empty(int(offsets[-1]), np.uint8)
    read.values(offsets, values)
    return values, offsets


def match_coded(
    entries: Entries, layouts: Layouts, slices: Slices, name: str, wanted: tuple[bytes, ...], n: int, verify: int
) -> NDArray[np.bool_]:
    """Which of n events over slices have one of the wanted values: bool[n].

    Raises:
        CorruptChunkError: as :func:`read_coded`.

    """
    offsets = np.zeros(len(wanted) + 1, np.int64)
    np.cumsum([len(value) for value in wanted], out=offsets[1:])
    values = as_bytes(b"".join(wanted))
    order = np.argsort(hash_values(values, offsets), kind="stable").tolist()
    ordered = [wanted[place] for place in order]
    np.cumsum([len(value) for value in ordered], out=offsets[1:])
    values = as_bytes(b"".join(ordered))
    met = np.zeros(n, np.bool_)
    _Read(entries, layouts, slices, name, verify).match(values, offsets, hash_values(values, offsets), met)
    return met
