"""The chunk: an immutable, encoded, columnar block of consecutive events of one user.

This module is the format: offsets, codes and limits, and which blocks a schema gives rise to. The loops that
write and read chunks are in :mod:`uihkv.kernels`; what calls them, :mod:`uihkv.codec`.

All integers are little-endian; nothing is aligned. A chunk is *long* or *short*; both begin alike:

====== ===== ================================================================================================
offset bytes field
====== ===== ================================================================================================
0      4     checksum: low half of xxh3-64, seeded with the user id, of bytes 4 to the end of the zones (of a short
             chunk: to its end), so that a chunk under another user's key is not taken for his
4      1     form: ``0xC0``, plus 1 for a short chunk, plus 2 for a long one with zones
5      1     format version, 1
6      2     schema version: index into the manifest's schema history
====== ===== ================================================================================================

A *long* chunk is a header, one descriptor for each block, for longer chunks one zone for each block, then the blocks
back to back. Its header, 56 bytes, goes on:

====== ===== ================================================================================================
8      4     count of events
12     2     count of blocks
14     2     zero
16     8     start: version before the chunk's first event; the chunk is ``[start, start + count)``
24     16    least and greatest ``ts``
40     16    least and greatest visible time; of an empty open chunk, the greatest that the user ever had
====== ===== ================================================================================================

Descriptor, 24 bytes:

====== ===== ================================================================================================
0      1     encoding: 0 constant, 1 frame of reference, 2 delta, 3 raw, 4 same as another block, 5 decimal
1      1     width of a stored element: 0 (constant, same; delta of constant stride), 1, 2, 4 or 8 bytes, or
             64 + b: b bits, 1 to 56
2      1     codec: 0 none, 1 LZ4 block (not of elements in bits)
3      1     scale: index into ``SCALES``
4      4     end of the block, from the chunk's first byte; it begins where the block before it ends
8      4     elements in the block
12     4     checksum: low half of xxh3-64 of the stored bytes, seeded with the user id
16     8     base
====== ===== ================================================================================================

Zone, 24 bytes: least and greatest value (int64, or the bits of a float64 for float columns, uint64 as its bits), and
a set of 64 bits: bit ``i`` says that ``least + i`` occurs, all ones where more than 64 values are between.

Blocks stand in this order: ``ts``, ``visible_at``, then the schema's columns. A ragged column has two blocks: the
lengths of its lists and their elements. A ``bytes`` or ``string`` column has three: the code of each event's value,
the lengths of the chunk's distinct values and their bytes; codes number the values in the order in which they first
occur, so that the increments of a column without repeats are all 1.

Elements decode as follows, in 64-bit arithmetic that wraps:

=========== ==================================================================================================
constant    every element is ``base`` (for floats, its bits)
frame       ``base + scale * x`` with ``x`` unsigned
delta       8 bytes ``step``, then ``x`` for all but the first; element i is
            ``base + scale * (i * step + x[1] + … + x[i])``
raw         the bytes as they are
same        the elements of block ``base``
decimal     of floats: the float64 quotient ``(base + x) / scale``, rounded to the column's type
=========== ==================================================================================================

Elements of b bits stand back to back, element i in bits ``[i * b, (i + 1) * b)`` of the block, the low bit of a byte
first; zeros fill the last byte.

A *short* chunk, of 1 to 255 events and a schema without ragged columns, has neither descriptors nor zones: a handful
of events takes little more than themselves. It is written where it is smaller.

====== ===== ================================================================================================
8      1     count of events
9      1     s: bytes of the start, 0 to 8
10     s     start, unsigned
10 + s n     a code for each of the n blocks: its low half says how many bytes (0 to 8) its base has, 15 for a block
             that is the same as the one before; its high half is an index into ``SHORT_BITS``, the bits of its elements
then         the bases of the n blocks, back to back: signed; of floats unsigned
then         the elements of the n blocks, each block from a whole byte on: ``base + x``, of floats their bits
====== ===== ================================================================================================

Integers are stored by frame, delta or constant, floats raw, constant, or decimal where that gives back every bit.
With compression a block is kept as LZ4 where that wins a tenth or more over the other ways, else in bits where these
win a tenth over bytes. Schema evolution needs nothing more: a chunk names its schema version, a reader
maps wanted columns to that version's blocks, and fills in defaults for those it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uihkv.schema import TS, VISIBLE_AT, Column, Schema

CHUNK_FORMAT = 1

HEADER_BYTES = 56
DESCRIPTOR_BYTES = 24
ZONE_BYTES = 24
SHORT_HEADER_BYTES = 10

FORM_AT, FORMAT_AT, SCHEMA_AT = 4, 5, 6
COUNT_AT, BLOCKS_AT, START_AT, TS_AT, VISIBLE_TIME_AT = 8, 12, 16, 24, 40
"""Where fields of long chunks are; of short ones the first three."""

FORM_LONG = 0xC0
FORM_SHORT = FORM_LONG + 1
FORM_ZONES = FORM_LONG + 2

CONSTANT, FRAME, DELTA, RAW, SAME, DECIMAL = range(6)
CODEC_NONE, CODEC_LZ4 = range(2)

SCALES = (
    1, 10, 60, 100, 1_000, 3_600, 10_000, 60_000, 86_400, 100_000, 1_000_000, 3_600_000, 10_000_000,
    60_000_000, 86_400_000, 1_000_000_000, 3_600_000_000, 60_000_000_000, 86_400_000_000,
    3_600_000_000_000, 86_400_000_000_000,
)  # fmt: skip
"""Common divisors that frame and delta may take out: clocks often tick coarser than their unit."""

IN_BITS = 64
"""A width above says how many bits an element has; below, how many bytes."""

MAX_BITS = 56
"""Any element of so many bits lies within eight bytes."""

SHORT_BITS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
"""Bits that elements of a short chunk may have."""

SHORT_MAX_COUNT = 255
SHORT_SAME = 15

UNSIGNED, SIGNED, FLOAT = range(3)
"""Kinds of a block's elements; bool counts as unsigned."""

ZONE_MIN_COUNT = 256
"""Chunks of fewer events carry no zones: reading them costs less than the zones would."""

MAX_CHUNK_RAW_BYTES = 1 << 24
"""A chunk ends before its events pass this many bytes in memory, unless one event alone does."""

MAX_EVENT_RAW_BYTES = 1 << 29
"""Most bytes in memory that one event may have."""


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """The blocks of one schema version, as the kernels take them.

    Attributes:
        names: the column of each block.
        width: int64[blocks], bytes of an element in the schema's type (lengths of lists and codes: 4).
        kind: int64[blocks], ``UNSIGNED``, ``SIGNED`` or ``FLOAT``.
        elements: int64[blocks], elements an event has; 0 for those of lists and of distinct values.
        event_bytes: bytes an event has in memory; for ragged schemas, without its lists.
        first_block: the block where each column begins, by the column's id (``Schema.identities``).

    """

    names: tuple[str, ...]
    width: NDArray[np.int64]
    kind: NDArray[np.int64]
    elements: NDArray[np.int64]
    event_bytes: int
    first_block: dict[int, int]

    @property
    def blocks(self) -> int:
        """How many blocks a chunk of this layout has."""
        return len(self.names)

    @property
    def ragged(self) -> bool:
        """Whether any column is varying."""
        return bool((self.elements == 0).any())

    @classmethod
    def of(cls, schema: Schema) -> BlockLayout:
        """The layout that a schema gives rise to."""
        rows: list[tuple[str, int, int, int]] = [(TS, 8, SIGNED, 1), (VISIBLE_AT, 8, SIGNED, 1)]
        for column in schema.columns:
            if column.varying:
                rows.append((column.name, 4, UNSIGNED, 1))  # lengths of lists, or codes
            if column.coded:
                rows.append((column.name, 4, UNSIGNED, 0))  # lengths of distinct values
            rows.append((column.name, column.numpy_dtype.itemsize, kind_of(column), column.elements))
        names = tuple(row[0] for row in rows)
        table = np.array([row[1:] for row in rows], np.int64)
        event_bytes = table[:, 0] * table[:, 2]
        identities = schema.identities
        first_block: dict[int, int] = {}
        for block, name in enumerate(names):
            first_block.setdefault(identities[name], block)
        return cls(
            names=names,
            width=table[:, 0].copy(),
            kind=table[:, 1].copy(),
            elements=table[:, 2].copy(),
            event_bytes=int(event_bytes.sum()),
            first_block=first_block,
        )


def kind_of(column: Column) -> int:
    """How the elements of a column are treated."""
    return {"b": UNSIGNED, "u": UNSIGNED, "i": SIGNED, "f": FLOAT}[column.numpy_dtype.kind]
