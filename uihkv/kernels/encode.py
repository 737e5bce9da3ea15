"""From columns in memory to chunks.

One call encodes any number of chunks back to back. Every block is widened to int64, its range decides between
constant, frame and delta, floats are tried as decimals, and what is left is stored in bytes, in bits or by LZ4,
whichever is smallest by a tenth. What the codes and fields mean stands in :mod:`uihkv.chunk`.

How many events a chunk gets is found out here too (:func:`encode_groups`): a value of more than half a page has
pages of its own in LMDB, so that a chunk is cut where it fills them.
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
    COUNT_AT,
    DECIMAL,
    DELTA,
    DESCRIPTOR_BYTES,
    FLOAT,
    FORM_LONG,
    FORM_SHORT,
    FORM_ZONES,
    FRAME,
    HEADER_BYTES,
    IN_BITS,
    MAX_BITS,
    RAW,
    SAME,
    SCALES,
    SHORT_BITS,
    SHORT_HEADER_BYTES,
    SHORT_MAX_COUNT,
    SHORT_SAME,
    SIGNED,
    START_AT,
    TS_AT,
    UNSIGNED,
    VISIBLE_TIME_AT,
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
    load_u8,
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
_SHORT_BITS = np.array(SHORT_BITS, np.int64)
_DECIMALS = np.array([index for index, scale in enumerate(SCALES) if scale in (1, 10, 100, 1000, 10_000)], np.int64)
"""Scales of floats: a power of ten."""
_SURE_SHORT_BYTES = 1024
"""Events of fewer bytes in memory are stored short without a look at the long form."""
_MAX_DECIMAL = float(1 << 53)
_PAGE_HEAD = 16
"""Bytes that LMDB puts before a value with pages of its own."""
_WASTE_SHIFT = 5
"""A chunk that leaves no more than a 32nd of its pages empty is not cut once more."""
_ATTEMPTS = 3
_NO_LISTS = np.bool_(False)
"""A plain False would have all that it is handed to compiled once more."""
_LZ4_MIN_BYTES = 64
"""Shorter blocks are not worth a try."""
_BIAS = np.int64(-(1 << 63))
"""Turning the sign bit over maps the order of uint64 to that of int64."""


@njit(nogil=True, cache=True, inline="always")
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
def _bits_of(span: Any) -> Any:
    """Bits that hold every unsigned number up to ``span``."""
    bits = 0
    while span > np.uint64(0):
        span >>= np.uint64(1)
        bits += 1
    return bits


@njit(nogil=True, cache=True)
def _put_bits(x: Any, bits: Any, target: Any, n: Any) -> None:
    """The low bits of n elements, back to back; zeros fill the last byte."""
    if bits <= 32:
        word = np.uint64(0)
        held = 0
        for i in range(n):
            word |= np.uint64(x[i]) << np.uint64(held)
            held += bits
            if held >= 32:
                store_u32(target, np.int64(word))
                target += 4
                word >>= np.uint64(32)
                held -= 32
        while held > 0:
            store_u8(target, np.int64(word))
            target += 1
            word >>= np.uint64(8)
            held -= 8
        return
    out = u8_at(target, (n * bits + 7) >> 3)
    out[:] = 0
    bit = 0
    for i in range(n):
        value = np.uint64(x[i])
        left = bits
        while left > 0:
            inside = bit & 7
            out[bit >> 3] |= np.uint8((value << np.uint64(inside)) & np.uint64(0xFF))
            step = min(8 - inside, left)
            value >>= np.uint64(step)
            bit += step
            left -= step


@njit(nogil=True, cache=True, inline="always")
def _pack_bits(source: Any, width: Any, bits: Any, target: Any, n: Any) -> None:
    """N unsigned elements of ``width`` bytes in so many bits each."""
    if width == 1:
        _put_bits(u8_at(source, n), bits, target, n)
    elif width == 2:
        _put_bits(u16_at(source, n), bits, target, n)
    elif width == 4:
        _put_bits(u32_at(source, n), bits, target, n)
    else:
        _put_bits(i64_at(source, n), bits, target, n)


@njit(nogil=True, cache=True)
def _as_decimals(source: Any, width: Any, n: Any, values: Any) -> Any:
    """Index of the scale whose quotients are the floats, bit by bit, with their numerators in ``values``; -1: none."""
    if width == 4:
        singles = u32_at(source, n).view(np.float32)
        place = 0
        i = 0
        while i < n:
            scale = np.float64(_SCALE_TABLE[_DECIMALS[place]])
            number = np.float64(singles[i])
            product = np.rint(number * scale)
            if (
                abs(product) < _MAX_DECIMAL
                and np.float32(product / scale) == singles[i]
                and (product != 0 or u32_at(source + 4 * i, 1)[0] == 0)
            ):
                values[i] = np.int64(product)
                i += 1
            else:
                place += 1
                if place == len(_DECIMALS):
                    return -1
                i = 0
        return _DECIMALS[place]
    if width == 8:
        doubles = i64_at(source, n).view(np.float64)
        place = 0
        i = 0
        while i < n:
            scale = np.float64(_SCALE_TABLE[_DECIMALS[place]])
            product = np.rint(doubles[i] * scale)
            if (
                abs(product) < _MAX_DECIMAL
                and product / scale == doubles[i]
                and (product != 0 or load_i64(source + 8 * i) == 0)
            ):
                values[i] = np.int64(product)
                i += 1
            else:
                place += 1
                if place == len(_DECIMALS):
                    return -1
                i = 0
        return _DECIMALS[place]
    return -1


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


@njit(nogil=True, cache=True, inline="always")
def _store_zone(at: Any, values: Any, n: Any, kind: Any, least: Any, greatest: Any) -> None:
    store_i64(at, least)
    store_i64(at + 8, greatest)
    present = np.int64(-1)
    if kind != FLOAT and np.uint64(greatest - least) < np.uint64(64):
        present = np.int64(0)
        for i in range(n):
            present |= np.int64(1) << (values[i] - least)
    store_i64(at + 16, present)


@njit(nogil=True, cache=True, inline="always")
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
    source: Any, values: Any, width: Any, kind: Any, elements: Any, n: Any, least: Any, greatest: Any, in_bits: Any,
    packed: Any,
) -> Any:  # fmt: skip
    """Encode n elements into ``packed``, in bytes.

    Returns:
        encoding, width in bytes, bits that an element needs, scale index, base, bytes.

    """
    if n == 0:
        return CONSTANT, 0, 0, 0, np.int64(0), 0
    if kind == FLOAT:
        same = True
        for i in range(1, n):
            if values[i] != values[0]:
                same = False
                break
        if same:
            return CONSTANT, 0, 0, 0, values[0], 0
        index = _as_decimals(source, width, n, values)
        if index >= 0:
            least, greatest = _bounds(values, n, np.int64(0))
            span = np.uint64(greatest - least)
            narrow = _width_of(span)
            bits = _bits_of(span)
            if narrow < width or (in_bits and bits < 7 * width):
                _narrow(values, least, np.int64(1), packed, narrow, n)
                return DECIMAL, narrow, bits, index, least, n * narrow
        copy_bytes(source, packed, n * width)
        return RAW, width, 8 * width, 0, np.int64(0), n * width
    if least == greatest:
        return CONSTANT, 0, 0, 0, least, 0
    span = np.uint64(greatest - least)
    index = _common_scale(values, n, least, span)
    scale = _SCALE_TABLE[index]
    frame_width = _width_of(span // np.uint64(scale))
    frame_bits = _bits_of(span // np.uint64(scale))
    # Increments of a span of 2^62 or less cannot overflow.
    if elements == 1 and (frame_width > 1 or in_bits) and span < np.uint64(1 << 62):
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
        delta_bits = _bits_of(increment_span)
        if in_bits:
            delta_wins = 64 + (n - 1) * delta_bits < n * frame_bits
        else:
            delta_wins = 8 + (n - 1) * delta_width < n * frame_width
        if delta_wins:
            first = values[0]
            previous = first
            for i in range(1, n):
                value = values[i]
                values[i - 1] = value - previous
                previous = value
            store_i64(packed, low // scale)
            if delta_width > 0:
                _narrow(values, low, scale, packed + 8, delta_width, n - 1)
            return DELTA, delta_width, delta_bits, index, first, 8 + (n - 1) * delta_width
    _narrow(values, least, scale, packed, frame_width, n)
    return FRAME, frame_width, frame_bits, index, least, n * frame_width


@njit(nogil=True, cache=True)
def _store_packed(
    packed: Any, encoding: Any, width: Any, bits: Any, items: Any, size: Any, compress: Any, target: Any
) -> Any:
    """What :func:`_pack` made, in the smallest of bytes, bits and LZ4: width, codec, bytes."""
    if not compress or size == 0:
        copy_bytes(packed, target, size)
        return width, CODEC_NONE, size
    head = 8 if encoding == DELTA else 0
    count = items - 1 if encoding == DELTA else items
    smallest = size
    if width > 0 and bits <= MAX_BITS and encoding != RAW:
        in_bits = head + ((count * bits + 7) >> 3)
        if 10 * in_bits <= 9 * size:
            smallest = in_bits
    if size >= _LZ4_MIN_BYTES:
        got = np.int64(lz4_compress(packed, target, np.int32(size), np.int32(smallest * 9 // 10)))
        if got > 0:
            return width, CODEC_LZ4, got
    if smallest < size:
        copy_bytes(packed, target, head)
        _pack_bits(packed + head, width, bits, target + head, count)
        return IN_BITS + bits, CODEC_NONE, smallest
    copy_bytes(packed, target, size)
    return width, CODEC_NONE, size


@njit(nogil=True, cache=True)
def _short_bits(span: Any) -> Any:
    """Index of the fewest bits of a short chunk's element that hold every unsigned number up to ``span``."""
    need = _bits_of(span)
    index = 0
    while _SHORT_BITS[index] < need:
        index += 1
    return index


@njit(nogil=True, cache=True)
def _base_bytes(base: Any, kind: Any) -> Any:
    """Fewest bytes that hold a base: signed, of floats unsigned."""
    size = 0
    if kind == FLOAT:
        left = np.uint64(base)
        while left > np.uint64(0):
            left >>= np.uint64(8)
            size += 1
        return size
    if base == 0:
        return 0
    size = 1
    while size < 8 and ((base << (64 - 8 * size)) >> (64 - 8 * size)) != base:
        size += 1
    return size


@njit(nogil=True, cache=True)
def _encode_short(
    chunk: Any, row: Any, count: Any, start: Any, user: Any, data: Any, width: Any, kind: Any, elements: Any,
    version: Any, values: Any, limit: Any,
) -> Any:  # fmt: skip
    """Write a short chunk; its bytes, or 0 where it would have more than ``limit``."""
    blocks = len(data)
    start_bytes = 0
    while start_bytes < 8 and np.uint64(start) >> np.uint64(8 * start_bytes) > np.uint64(0):
        start_bytes += 1
    codes = chunk + SHORT_HEADER_BYTES + start_bytes
    base_at = codes + blocks
    size = SHORT_HEADER_BYTES + start_bytes + blocks
    least = np.empty(blocks, np.int64)
    for block in range(blocks):
        step = elements[block] * width[block]
        source = data[block] + row * step
        if block == 1 and _equal(data[0] + 8 * row, source, count):
            store_u8(codes + block, SHORT_SAME)
            continue
        items = count * elements[block]
        _widen(source, width[block], kind[block], items, values)
        bias = _BIAS if kind[block] != SIGNED and width[block] == 8 else np.int64(0)
        low, high = _bounds(values, items, bias)
        index = _short_bits(np.uint64(high - low))
        if _SHORT_BITS[index] == 64:
            low = np.int64(0)
        base_bytes = _base_bytes(low, kind[block])
        least[block] = low
        size += base_bytes + ((items * _SHORT_BITS[index] + 7) >> 3)
        if size > limit:
            return 0
        store_u8(codes + block, base_bytes | (index << 4))
        for i in range(base_bytes):
            store_u8(base_at + i, low >> (8 * i))
        base_at += base_bytes
    at = base_at
    for block in range(blocks):
        bits = _SHORT_BITS[load_u8(codes + block) >> 4]
        if bits == 0:
            continue
        items = count * elements[block]
        _widen(data[block] + row * elements[block] * width[block], width[block], kind[block], items, values)
        for i in range(items):
            values[i] -= least[block]
        _put_bits(values, bits, at, items)
        at += (items * bits + 7) >> 3
    for i in range(start_bytes):
        store_u8(chunk + SHORT_HEADER_BYTES + i, start >> (8 * i))
    store_u8(chunk + COUNT_AT, count)
    store_u8(chunk + COUNT_AT + 1, start_bytes)
    _seal_header(chunk, FORM_SHORT, version, size, user)
    return size


@njit(nogil=True, cache=True)
def _seal_header(chunk: Any, form: Any, version: Any, covered: Any, user: Any) -> None:
    """The first eight bytes, when all that they cover stands."""
    store_u8(chunk + 4, form)
    store_u8(chunk + 5, CHUNK_FORMAT)
    store_u16(chunk + 6, version)
    store_u32(chunk, np.int64(xxh3(chunk + 4, np.uintp(covered - 4), np.uint64(user))))


@njit(nogil=True, cache=True)
def _equal(source: Any, other: Any, n: Any) -> Any:
    left = i64_at(source, n)
    right = i64_at(other, n)
    for i in range(n):
        if left[i] != right[i]:
            return False
    return True


@njit(nogil=True, cache=True)
def _head_bytes(count: Any, blocks: Any) -> Any:
    """Bytes of a long chunk before its blocks."""
    return HEADER_BYTES + blocks * (DESCRIPTOR_BYTES + (ZONE_BYTES if count >= ZONE_MIN_COUNT else 0))


@njit(nogil=True, cache=True)
def _encode_chunk(
    chunk: Any, row: Any, count: Any, start: Any, user: Any, latest: Any,
    data: Any, lists: Any, width: Any, kind: Any, elements: Any, event_bytes: Any, ragged: Any,
    version: Any, compress: Any, values: Any, packed_at: Any,
) -> Any:  # fmt: skip
    """Write one chunk at an address, long or short; its bytes."""
    blocks = len(data)
    may_be_short = not ragged and 0 < count <= SHORT_MAX_COUNT
    if may_be_short and count * event_bytes <= _SURE_SHORT_BYTES:
        limit = np.int64(1) << 62
        return _encode_short(chunk, row, count, start, user, data, width, kind, elements, version, values, limit)
    zones = count >= ZONE_MIN_COUNT
    head = _head_bytes(count, blocks)
    end = head
    seed = np.uint64(user)
    store_i64(chunk + TS_AT, 0)
    store_i64(chunk + TS_AT + 8, 0)
    store_i64(chunk + VISIBLE_TIME_AT, latest)
    store_i64(chunk + VISIBLE_TIME_AT + 8, latest)
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
        if count > 0 and block < 2:
            field = TS_AT if block == 0 else VISIBLE_TIME_AT
            store_i64(chunk + field, least)
            store_i64(chunk + field + 8, greatest)
        if zones:
            at = chunk + HEADER_BYTES + DESCRIPTOR_BYTES * blocks + ZONE_BYTES * block
            _store_zone(at, values, items, kind[block], least, greatest)
        if block == 1 and count > 0 and least != greatest and _equal(data[0] + 8 * row, source, count):
            encoding, bytes_each, bits, scale, base, size = SAME, 0, 0, 0, np.int64(0), 0
        else:
            encoding, bytes_each, bits, scale, base, size = _pack(
                source, values, width[block], kind[block], elements[block], items,
                least, greatest, compress, packed_at,
            )  # fmt: skip
        target = chunk + end
        stored_width, codec, size = _store_packed(packed_at, encoding, bytes_each, bits, items, size, compress, target)
        end += size
        check = np.int64(xxh3(target, np.uintp(size), seed)) & 0xFFFFFFFF
        at = chunk + HEADER_BYTES + DESCRIPTOR_BYTES * block
        _store_descriptor(at, encoding, stored_width, codec, scale, end, items, check, base)
    if may_be_short:
        at = chunk + end  # behind the long one, until it is known which is smaller
        size = _encode_short(at, row, count, start, user, data, width, kind, elements, version, values, 3 * end // 4)
        if size > 0:
            small, large = u8_at(at, size), u8_at(chunk, size)
            for i in range(size):
                large[i] = small[i]
            return size
    store_u32(chunk + COUNT_AT, count)
    store_u16(chunk + COUNT_AT + 4, blocks)
    store_u16(chunk + COUNT_AT + 6, 0)
    store_i64(chunk + START_AT, start)
    _seal_header(chunk, FORM_ZONES if zones else FORM_LONG, version, head, user)
    return end


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
        compress: whether bits and LZ4 are tried.
        values: int64 scratch for the elements of the largest block; packed: uint8, 8 bytes for each of them and 16.
        out: uint8, large enough for every chunk uncompressed and one more; out_end: int64[chunks], filled in.

    Returns:
        bytes written to ``out``.

    """
    packed_at = np.int64(packed.ctypes.data)
    out_at = np.int64(out.ctypes.data)
    written = np.int64(0)
    for segment in range(len(segment_row)):
        written += _encode_chunk(
            out_at + written, segment_row[segment], segment_count[segment], segment_start[segment],
            segment_user[segment], segment_visible[segment],
            data, lists, width, kind, elements, event_bytes, ragged, schema_version, compress, values, packed_at,
        )  # fmt: skip
        out_end[segment] = written
    return written


@njit(nogil=True, cache=True)
def encode_groups(
    group_row: Any, group_count: Any, group_start: Any, group_user: Any, group_visible: Any,
    chunk_events: Any, page_bytes: Any,
    data: Any, lists: Any, width: Any, kind: Any, elements: Any, event_bytes: Any,
    schema_version: Any, compress: Any, values: Any, packed: Any,
    out: Any, out_end: Any, out_group: Any, out_row: Any, out_count: Any,
) -> Any:  # fmt: skip
    """Encode groups of rows without lists, each into chunks that fill whole pages, and a last one of what is left.

    Beyond half a page a value is kept in pages of its own, behind a header of 16 bytes. A chunk is cut so that it
    fills as many of them as it would fill wholly, by the bytes an event had in the attempt before; a group's last
    chunk has less than a page or, where ``chunk_events`` do not fill one, fewer events than that.

    Args:
        group_row, group_count, group_start, group_user, group_visible: int64[groups]; a group without rows gives
            one empty chunk.
        chunk_events: most events a chunk.
        page_bytes: 0: chunks are of ``chunk_events``, whatever their size.
        out_end, out_group, out_row, out_count: int64[…], outputs with room for a chunk a group and one for each
            ``chunk_events`` events; what room they have beyond, chunks that fill pages may take.

    The other arguments are those of :func:`encode_chunks`.

    Returns:
        chunks written.

    """
    packed_at = np.int64(packed.ctypes.data)
    out_at = np.int64(out.ctypes.data)
    blocks = len(data)
    written = np.int64(0)
    chunks = 0
    groups = len(group_row)
    left = np.int64(0)
    for group in range(groups):
        left += group_count[group]
    for group in range(groups):
        row = group_row[group]
        until = row + group_count[group]
        rate = 0.0
        while True:
            fit = page_bytes > 0 and chunks + (groups - group) + left // chunk_events + 1 < len(out_end)
            most = min(until - row, chunk_events)
            count = most
            fits = np.int64(0)  # events known to fit
            over = most + 1  # events known not to fit, or not to be had
            pages = np.int64(0)  # to be filled; 0: not known yet
            if fit and rate > 0 and most == chunk_events < until - row:
                pages = np.int64((_head_bytes(count, blocks) + _PAGE_HEAD + rate * count) / page_bytes)
                if pages > 0:
                    count = _fill_pages(pages, page_bytes, most, rate, blocks)
            attempt = 0
            while True:
                size = _encode_chunk(
                    out_at + written, row, count, group_start[group] + row - group_row[group], group_user[group],
                    group_visible[group], data, lists, width, kind, elements, event_bytes, _NO_LISTS,
                    schema_version, compress, values, packed_at,
                )  # fmt: skip
                if not fit or count == fits:
                    break
                rate = max(size - _head_bytes(count, blocks), 1) / max(count, 1)
                if pages == 0:
                    pages = (size + _PAGE_HEAD) // page_bytes
                    if pages == 0:
                        break
                room = pages * page_bytes - _PAGE_HEAD
                if size <= room:
                    fits = count
                    if room - size <= room >> _WASTE_SHIFT or over - fits <= 1 or attempt >= _ATTEMPTS:
                        break
                    count = min(max(_fill_pages(pages, page_bytes, most, rate, blocks), fits + 1), over - 1)
                else:
                    over = count
                    count = _fill_pages(pages, page_bytes, most, rate, blocks) - (attempt << 2)
                    if attempt >= _ATTEMPTS and fits > 0:
                        count = fits
                    count = max(min(count, over - 1), max(fits, 1))
                    if over == 1:
                        break
                attempt += 1
            written += size
            out_end[chunks] = written
            out_group[chunks] = group
            out_row[chunks] = row
            out_count[chunks] = count
            chunks += 1
            row += count
            left -= count
            if row >= until:
                break
    return chunks


@njit(nogil=True, cache=True)
def _fill_pages(pages: Any, page_bytes: Any, most: Any, rate: Any, blocks: Any) -> Any:
    """Events that are likely to fill so many pages, at ``rate`` bytes an event."""
    room = pages * page_bytes - _PAGE_HEAD
    count = np.int64((room - _head_bytes(most, blocks)) / rate)
    if count < ZONE_MIN_COUNT <= most:
        count = min(np.int64((room - _head_bytes(1, blocks)) / rate), np.int64(ZONE_MIN_COUNT - 1))
    return min(max(count, 1), most)


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
