"""From columns in memory to chunks.

One call encodes any number of chunks back to back. Every block is widened to int64, its range decides between
constant, frame and delta, and LZ4 is kept where it wins a tenth. What the codes and fields mean stands in
:mod:`uihkv.chunk`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.chunk import (
    CHUNK_FORMAT,
    CODEC_LZ4,
    CODEC_NONE,
    CONSTANT,
    DELTA,
    DESCRIPTOR_BYTES,
    FLAG_PLAIN,
    FLAG_ZONES,
    FLOAT,
    FRAME,
    HEADER_BYTES,
    MAGIC,
    RAW,
    SAME,
    SCALES,
    SIGNED,
    UNSIGNED,
    ZONE_BYTES,
    ZONE_MIN_COUNT,
)
from uihkv.kernels.memory import (
    copy_bytes,
    i8_at,
    i16_at,
    i32_at,
    i64_at,
    load_i64,
    store_i64,
    store_u8,
    store_u16,
    store_u32,
    u8_at,
    u16_at,
    u32_at,
)
from uihkv.native import lz4_compress, xxh3

_SCALE_TABLE = np.array(SCALES, np.int64)
_LZ4_MIN_BYTES = 64
"""Shorter blocks are not worth a try."""
_BIAS = np.int64(-(1 << 63))
"""Turning the sign bit over maps the order of uint64 to that of int64."""


@njit(nogil=True, cache=True)
def _spread(x: Any, target: Any, n: Any) -> None:
    for i in range(n):
        target[i] = np.int64(x[i])


@njit(nogil=True, cache=True)
def _widen(source: Any, width: Any, kind: Any, n: Any, target: Any) -> None:
    """Elements as int64; of floats, their bits."""
    if width == 8:
        _spread(i64_at(source, n), target, n)
    elif kind == SIGNED:
        if width == 1:
            _spread(i8_at(source, n), target, n)
        elif width == 2:
            _spread(i16_at(source, n), target, n)
        else:
            _spread(i32_at(source, n), target, n)
    elif width == 1:
        _spread(u8_at(source, n), target, n)
    elif width == 2:
        _spread(u16_at(source, n), target, n)
    else:
        _spread(u32_at(source, n), target, n)


@njit(nogil=True, cache=True)
def _bounds(values: Any, n: Any, bias: Any) -> Any:
    least = values[0] ^ bias
    greatest = least
    for i in range(n):
        value = values[i] ^ bias
        least = min(least, value)
        greatest = max(greatest, value)
    return least ^ bias, greatest ^ bias


@njit(nogil=True, cache=True)
def _width_of(span: Any) -> Any:
    """Bytes that hold every unsigned number up to ``span``."""
    if span <= np.uint64(0xFF):
        return 1
    if span <= np.uint64(0xFFFF):
        return 2
    if span <= np.uint64(0xFFFFFFFF):
        return 4
    return 8


@njit(nogil=True, cache=True)
def _common_scale(values: Any, n: Any, least: Any, span: Any) -> Any:
    """Index of the greatest scale that divides all distances from ``least`` and saves a width; else 0."""
    width = _width_of(span)
    if width == 1:
        return 0
    for index in range(len(_SCALE_TABLE) - 1, 0, -1):
        scale = np.uint64(_SCALE_TABLE[index])
        if scale > span:
            continue
        if _width_of(span // scale) == width:
            return 0
        divides = True
        for i in range(n):
            if np.uint64(values[i] - least) % scale != np.uint64(0):
                divides = False
                break
        if divides:
            return index
    return 0


@njit(nogil=True, cache=True)
def _narrow(x: Any, base: Any, scale: Any, target: Any, width: Any, n: Any) -> None:
    """``(x - base) / scale`` for n elements, in ``width`` bytes each."""
    if scale != 1:
        for i in range(n):
            value = np.int64(np.uint64(x[i] - base) // np.uint64(scale))
            if width == 1:
                store_u8(target + i, value)
            elif width == 2:
                store_u16(target + 2 * i, value)
            elif width == 4:
                store_u32(target + 4 * i, value)
            else:
                store_i64(target + 8 * i, value)
    elif width == 1:
        out8 = u8_at(target, n)
        for i in range(n):
            out8[i] = x[i] - base
    elif width == 2:
        out16 = u16_at(target, n)
        for i in range(n):
            out16[i] = x[i] - base
    elif width == 4:
        out32 = u32_at(target, n)
        for i in range(n):
            out32[i] = x[i] - base
    else:
        out64 = i64_at(target, n)
        for i in range(n):
            out64[i] = x[i] - base


@njit(nogil=True, cache=True)
def _float_bounds(source: Any, width: Any, n: Any) -> Any:
    """Least and greatest number as the bits of a float64; NaNs do not count, float16 says nothing."""
    least = np.inf
    greatest = -np.inf
    if width == 4:
        narrow = u32_at(source, n).view(np.float32)
        for i in range(n):
            value = np.float64(narrow[i])
            if value < least:
                least = value
            if value > greatest:
                greatest = value
    elif width == 8:
        wide = i64_at(source, n).view(np.float64)
        for i in range(n):
            if wide[i] < least:
                least = wide[i]
            if wide[i] > greatest:
                greatest = wide[i]
    else:
        least = -np.inf
        greatest = np.inf
    pair = np.empty(2, np.float64)
    pair[0] = least
    pair[1] = greatest
    bits = pair.view(np.int64)
    return bits[0], bits[1]


@njit(nogil=True, cache=True)
def _store_zone(at: Any, values: Any, n: Any, kind: Any, least: Any, greatest: Any) -> None:
    store_i64(at, least)
    store_i64(at + 8, greatest)
    present = np.int64(-1)
    if kind != FLOAT and np.uint64(greatest - least) < np.uint64(64):
        present = np.int64(0)
        for i in range(n):
            present |= np.int64(1) << (values[i] - least)
    store_i64(at + 16, present)


@njit(nogil=True, cache=True)
def _store_descriptor(
    at: Any, encoding: Any, width: Any, codec: Any, scale: Any, end: Any, items: Any, check: Any, base: Any
) -> None:
    store_u8(at, encoding)
    store_u8(at + 1, width)
    store_u8(at + 2, codec)
    store_u8(at + 3, scale)
    store_u32(at + 4, end)
    store_u32(at + 8, items)
    store_u32(at + 12, check)
    store_i64(at + 16, base)


@njit(nogil=True, cache=True)
def _pack(
    source: Any, values: Any, width: Any, kind: Any, elements: Any, n: Any,
    least: Any, greatest: Any, packed: Any,
) -> Any:  # fmt: skip
    """Encode n elements into ``packed``: encoding, width, scale index, base, bytes."""
    if n == 0:
        return CONSTANT, 0, 0, np.int64(0), 0
    if kind == FLOAT:
        same = True
        for i in range(1, n):
            if values[i] != values[0]:
                same = False
                break
        if same:
            return CONSTANT, 0, 0, values[0], 0
        copy_bytes(source, packed, n * width)
        return RAW, width, 0, np.int64(0), n * width
    if least == greatest:
        return CONSTANT, 0, 0, least, 0
    span = np.uint64(greatest - least)
    index = _common_scale(values, n, least, span)
    scale = _SCALE_TABLE[index]
    frame_width = _width_of(span // np.uint64(scale))
    # Increments of a span of 2^62 or less cannot overflow.
    if elements == 1 and frame_width > 1 and span < np.uint64(1 << 62):
        low = np.int64(0)
        high = np.int64(0)
        for i in range(1, n):
            increment = values[i] - values[i - 1]
            if i == 1:
                low = increment
                high = increment
            low = min(low, increment)
            high = max(high, increment)
        increment_span = np.uint64(high - low) // np.uint64(scale)
        delta_width = _width_of(increment_span) if increment_span > np.uint64(0) else 0
        if 8 + (n - 1) * delta_width < n * frame_width:
            first = values[0]
            previous = first
            for i in range(1, n):
                value = values[i]
                values[i - 1] = value - previous
                previous = value
            store_i64(packed, low // scale)
            if delta_width > 0:
                _narrow(values, low, scale, packed + 8, delta_width, n - 1)
            return DELTA, delta_width, index, first, 8 + (n - 1) * delta_width
    _narrow(values, least, scale, packed, frame_width, n)
    return FRAME, frame_width, index, least, n * frame_width


@njit(nogil=True, cache=True)
def _encode_plain(out: Any, row: Any, count: Any, data: Any, width: Any, elements: Any) -> Any:
    at = out + HEADER_BYTES
    for block in range(len(data)):
        step = width[block] * elements[block]
        copy_bytes(data[block] + row * step, at, count * step)
        at += count * step
    return at - out


@njit(nogil=True, cache=True)
def _equal(source: Any, other: Any, n: Any) -> Any:
    left = i64_at(source, n)
    right = i64_at(other, n)
    for i in range(n):
        if left[i] != right[i]:
            return False
    return True


@njit(nogil=True, cache=True)
def encode_chunks(
    segment_row: Any, segment_count: Any, segment_start: Any, segment_user: Any, segment_visible: Any,
    data: Any, lists: Any, width: Any, kind: Any, elements: Any, event_bytes: Any, ragged: Any,
    schema_version: Any, compress: Any, values: Any, packed: Any,
    out: Any, out_end: Any,
) -> Any:  # fmt: skip
    """Encode rows of columns into chunks, back to back.

    Args:
        segment_row, segment_count: int64[chunks], the rows that each chunk takes.
        segment_start, segment_user: int64[chunks], version before the first event; the user.
        segment_visible: int64[chunks], greatest visible time for chunks without events.
        data: int64[blocks], address of each block's elements, contiguous, in the order of rows.
        lists: int64[blocks], of the element blocks of ragged columns the address of int64[rows + 1] offsets
            of their lists, else 0.
        width, kind, elements, event_bytes, ragged: the layout.
        schema_version: index that the chunks carry.
        compress: whether LZ4 is tried.
        values: int64 scratch for the elements of the largest block; packed: uint8, 8 bytes for each of them and 8.
        out: uint8, large enough for every chunk uncompressed; out_end: int64[chunks], filled in.

    Returns:
        bytes written to ``out``.

    """
    blocks = len(data)
    packed_at = np.int64(packed.ctypes.data)
    out_at = np.int64(out.ctypes.data)
    written = np.int64(0)
    for segment in range(len(segment_row)):
        row = segment_row[segment]
        count = segment_count[segment]
        chunk = out_at + written
        zones = count >= ZONE_MIN_COUNT
        head = HEADER_BYTES + DESCRIPTOR_BYTES * blocks
        if zones:
            head += ZONE_BYTES * blocks
        end = head
        seed = np.uint64(segment_user[segment])
        ts_least = np.int64(0)
        ts_greatest = np.int64(0)
        visible_least = segment_visible[segment]
        visible_greatest = segment_visible[segment]
        for block in range(blocks):
            if lists[block] != 0:
                first = load_i64(lists[block] + 8 * row)
                items = load_i64(lists[block] + 8 * (row + count)) - first
                source = data[block] + first * width[block]
            else:
                items = count * elements[block]
                source = data[block] + row * elements[block] * width[block]
            least = np.int64(0)
            greatest = np.int64(0)
            _widen(source, width[block], kind[block], items, values)
            if kind[block] == FLOAT:
                if zones:
                    least, greatest = _float_bounds(source, width[block], items)
            elif items > 0:
                bias = _BIAS if kind[block] == UNSIGNED and width[block] == 8 else np.int64(0)
                least, greatest = _bounds(values, items, bias)
            if count > 0 and block == 0:
                ts_least = least
                ts_greatest = greatest
            if count > 0 and block == 1:
                visible_least = least
                visible_greatest = greatest
            if zones:
                at = chunk + HEADER_BYTES + DESCRIPTOR_BYTES * blocks + ZONE_BYTES * block
                _store_zone(at, values, items, kind[block], least, greatest)
            if block == 1 and count > 0 and least != greatest and _equal(data[0] + 8 * row, source, count):
                encoding, stored_width, scale, base, size = SAME, 0, 0, 0, 0
            else:
                encoding, stored_width, scale, base, size = _pack(
                    source, values, width[block], kind[block], elements[block], items,
                    least, greatest, packed_at,
                )  # fmt: skip
            codec: Any = CODEC_NONE
            target = chunk + end
            if compress and size >= _LZ4_MIN_BYTES:
                limit = size * 9 // 10
                got = np.int64(lz4_compress(packed_at, target, np.int32(size), np.int32(limit)))
                if got > 0:
                    codec = CODEC_LZ4
                    size = int(got)
            if codec == CODEC_NONE:
                copy_bytes(packed_at, target, size)
            end += size
            check = np.int64(xxh3(target, np.uintp(size), seed)) & 0xFFFFFFFF
            at = chunk + HEADER_BYTES + DESCRIPTOR_BYTES * block
            _store_descriptor(at, encoding, stored_width, codec, scale, end, items, check, base)
        flags = FLAG_ZONES if zones else 0
        covered = head
        if not ragged and HEADER_BYTES + count * event_bytes <= end:
            end = _encode_plain(chunk, row, count, data, width, elements)
            flags = FLAG_PLAIN
            covered = end
        store_u32(chunk + 8, MAGIC)
        store_u8(chunk + 12, CHUNK_FORMAT)
        store_u8(chunk + 13, flags)
        store_u16(chunk + 14, schema_version)
        store_u32(chunk + 16, count)
        store_u16(chunk + 20, blocks)
        store_u16(chunk + 22, 0)
        store_i64(chunk + 24, segment_start[segment])
        store_i64(chunk + 32, ts_least)
        store_i64(chunk + 40, ts_greatest)
        store_i64(chunk + 48, visible_least)
        store_i64(chunk + 56, visible_greatest)
        store_i64(chunk, np.int64(xxh3(chunk + 8, np.uintp(covered - 8), seed)))
        written += end
        out_end[segment] = written
    return written


@njit(nogil=True, cache=True)
def cut_segments(
    group_row: Any, group_count: Any, event_bytes: Any, fixed_bytes: Any, chunk_events: Any, chunk_bytes: Any,
    segment_group: Any, segment_row: Any, segment_count: Any,
) -> Any:  # fmt: skip
    """Cut each group of rows into chunks of at most ``chunk_events`` events and ``chunk_bytes`` in memory.

    Args:
        group_row, group_count: int64[groups], consecutive rows of one user; a group of no rows gives one
            empty segment.
        event_bytes: int64[rows] in memory, or empty: every event has ``fixed_bytes``.
        segment_group, segment_row, segment_count: outputs with room for a segment a row and one a group.

    Returns:
        the number of segments.

    """
    segments = 0
    for group in range(len(group_row)):
        row = group_row[group]
        until = row + group_count[group]
        while True:
            count = 0
            size = np.int64(0)
            while row + count < until and count < chunk_events:
                step = event_bytes[row + count] if len(event_bytes) else fixed_bytes
                if count > 0 and size + step > chunk_bytes:
                    break
                size += step
                count += 1
            segment_group[segments] = group
            segment_row[segments] = row
            segment_count[segments] = count
            segments += 1
            row += count
            if row >= until:
                break
    return segments
