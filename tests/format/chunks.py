"""Encode and decode single chunks in memory, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from uihkv.codec import (
    Entries,
    Layouts,
    Slices,
    decode_fixed,
    decode_list_elements,
    decode_list_lengths,
    encode,
)
from uihkv.coded import read_coded
from uihkv.events import Events
from uihkv.kernels.decode import VERIFY_ONCE
from uihkv.readcolumns import column_type
from uihkv.schema import Schema

USER = -7
START = 40


def encode_one(schema: Schema, events: Events, compress: bool = True, start: int = START) -> bytes:
    """The bytes of one chunk that holds all events."""
    one = np.ones(1, np.int64)
    chunks = encode(
        Layouts([schema]), events, 0 * one, len(events) * one, start * one, USER * one, 0 * one,
        max(len(events), 1), compress,
    )  # fmt: skip
    assert len(chunks) == 1
    return chunks.buffer.tobytes()


class OpenChunk:
    """A chunk's bytes, opened as an entry; keeps the buffer alive."""

    def __init__(
        self, schema: Schema, data: bytes, events: int, user: int = USER, start: int = START,
        verify: int = VERIFY_ONCE, newer: Sequence[Schema] = (),
    ) -> None:  # fmt: skip
        self.layouts = Layouts([schema, *newer])
        self.buffer = np.frombuffer(data, np.uint8).copy()
        self.verify = verify
        one = np.ones(1, np.int64)
        self.entries = Entries(3, (user * one, start * one, (start + events) * one), np.empty(0, np.int64))
        self.entries.address[0] = self.buffer.ctypes.data
        self.entries.size[0] = len(self.buffer)
        self.entries.open(np.zeros(1, np.int64), self.layouts, verify)

    def read(self, name: str, first: int, last: int) -> Any:
        """Values of events [first, last) of a column; of a ragged one a pair with its offsets."""
        schema = self.layouts.schema
        zero = np.zeros(1, np.int64)
        slices = Slices(zero, zero + first, zero + last, zero)
        dtype, shape = column_type(schema, name)
        if name in schema and schema[name].coded:
            return read_coded(self.entries, self.layouts, slices, name, last - first, self.verify)
        if name in schema and schema[name].ragged:
            lengths = np.empty(last - first, np.int64)
            decode_list_lengths(self.entries, self.layouts, slices, name, lengths, self.verify)
            offsets = np.zeros(len(lengths) + 1, np.int64)
            np.cumsum(lengths, out=offsets[1:])
            values = np.empty(int(offsets[-1]), dtype)
            decode_list_elements(self.entries, self.layouts, slices, name, offsets, values, self.verify)
            return values, offsets
        out = np.empty((last - first, *shape), dtype)
        decode_fixed(self.entries, self.layouts, slices, {name: out}, self.verify)
        return out


def one_column(name: str, values: Any, ts: Any = None, visible: Any = None) -> Events:
    """Events with one column and quiet clocks."""
    n = len(values)
    clock = np.arange(n, dtype=np.int64) if ts is None else np.asarray(ts, np.int64)
    seen = clock if visible is None else np.asarray(visible, np.int64)
    return Events(np.full(n, USER, np.int64), clock, seen, {name: np.ascontiguousarray(values)}, {})
