"""From chunks in memory to output arrays.

Two steps. ``open_chunks`` meets untrusted bytes: it checks every field and length of a header against the size of the
value, so that what comes later needs no check. ``read_blocks`` and ``read_lists`` decode windows of opened
chunks straight into output arrays; they verify checksums and the result of LZ4, nothing else.

A batch's slices come sorted by chunk: a compressed block is decompressed once for all slices of its chunk, and what
one slice holds of a column is copied to those that want no more of it.

A kernel is compiled together with all that it calls, at each level anew: what only one function calls is inlined into
it before that, which halves how long a first read takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.chunk import (
    BLOCKS_AT,
    CHUNK_FORMAT,
    CODEC_LZ4,
    CODEC_NONE,
    CONSTANT,
    COUNT_AT,
    DECIMAL,
    DELTA,
    DESCRIPTOR_BYTES,
    FLOAT,
    FORM_AT,
    FORM_LONG,
    FORM_SHORT,
    FORM_ZONES,
    FORMAT_AT,
    FRAME,
    HEADER_BYTES,
    IN_BITS,
    MAX_BITS,
    MAX_EVENT_RAW_BYTES,
    RAW,
    SAME,
    SCALES,
    SCHEMA_AT,
    SHORT_BITS,
    SHORT_HEADER_BYTES,
    SHORT_SAME,
    SIGNED,
    START_AT,
    ZONE_BYTES,
)
from uihkv.kernels import status
from uihkv.kernels.bits import PIECE, PIECE_ROOM, load_bits, unpack_bits
from uihkv.kernels.cachelines import LINE, add_lines, copy_lines, divide_lines
from uihkv.kernels.floats import widen_floats
from uihkv.kernels.memory import (
    copy_bytes,
    i8_at,
    i16_at,
    i32_at,
    i64_at,
    load_i64,
    load_u8,
    load_u16,
    load_u32,
    prefetch,
    stack_room,
    store_i64,
    u8_at,
    u16_at,
    u32_at,
)
from uihkv.kernels.vectors import SUM_GROUP, WORD_BYTES, sum_groups
from uihkv.native import lz4_decompress, lz4_decompress_part, xxh3

SCALE_TABLE = np.array(SCALES, np.int64)
_SCALES = len(SCALES)
_SHORT_BITS = np.array(SHORT_BITS, np.int64)
_MAX_RAW = (1 << 31) - 1
VERIFY_NEVER, VERIFY_ONCE, VERIFY_ALWAYS = range(3)
_LAST_BIT = 63

_EXACT_BITS = 23
"""An integer of so many bits is a float32."""

_unpacked, _summed, _held = stack_room(PIECE_ROOM), stack_room(8 * PIECE), stack_room(8 * PIECE)
"""Where elements of a piece are between two steps; a piece is short enough for the first cache."""

ZERO, ONE, EIGHT = np.int64(0), np.int64(1), np.int64(8)
"""Arguments of functions that are compiled once for each type: numba takes a plain 1 for a type of its own."""

_AHEAD = 3
"""Chunks between the one whose header is asked for and the next one: a header takes about that long to come."""

_OK = status.OK
_SHORT = status.SHORT
_FORM = status.FORM
_NEWER = status.NEWER
_SCHEMA = status.SCHEMA
_RANGE = status.RANGE
_CHECKSUM = status.CHECKSUM
_BLOCK = status.BLOCK
_LENGTH = status.LENGTH
_LZ4 = status.LZ4
_LISTS = status.LISTS


@njit(nogil=True, cache=True)
def _packed_bytes(width: Any, items: Any) -> Any:
    """Bytes of elements of a width, which may be one in bits."""
    if width > IN_BITS:
        return (items * (width - IN_BITS) + 7) >> 3
    return items * width


@njit(nogil=True, cache=True)
def _stored_bytes(encoding: Any, width: Any, items: Any) -> Any:
    """Bytes of a block before LZ4."""
    if items == 0 or encoding == CONSTANT or encoding == SAME:
        return 0
    if encoding == DELTA:
        return 8 + _packed_bytes(width, items - 1)
    return _packed_bytes(width, items)


@njit(nogil=True, cache=True)
def _check_descriptors(
    address: Any, size: Any, count: Any, begin: Any, version: Any, blocks: Any,
    lay_width: Any, lay_kind: Any, lay_elements: Any,
) -> Any:  # fmt: skip
    """Status, and the most bytes that a block has before LZ4."""
    largest = 0
    for block in range(blocks):
        at = address + HEADER_BYTES + DESCRIPTOR_BYTES * block
        encoding = load_u8(at)
        width = load_u8(at + 1)
        codec = load_u8(at + 2)
        scale = load_u8(at + 3)
        end = load_u32(at + 4)
        items = load_u32(at + 8)
        base = load_i64(at + 16)
        full = lay_width[version, block]
        kind = lay_kind[version, block]
        elements = lay_elements[version, block]
        if encoding > DECIMAL or codec > CODEC_LZ4 or scale >= _SCALES:
            return _BLOCK, largest
        if elements > 0 and items != count * elements:
            return _LENGTH, largest
        if width > IN_BITS:
            bits = width - IN_BITS
            if bits > MAX_BITS or bits > 8 * full or codec != CODEC_NONE:
                return _BLOCK, largest
        elif width > full or not (width == 0 or width == 1 or width == 2 or width == 4 or width == 8):
            return _BLOCK, largest
        if encoding == FRAME and (kind == FLOAT or width == 0):
            return _BLOCK, largest
        if encoding == DECIMAL and (kind != FLOAT or width == 0 or full < 4):
            return _BLOCK, largest
        if encoding == DELTA and (kind == FLOAT or elements != 1 or items == 0):
            return _BLOCK, largest
        if encoding == RAW and width != full:
            return _BLOCK, largest
        if encoding == SAME:
            if base < 0 or base >= block or elements == 0:
                return _BLOCK, largest
            other = address + HEADER_BYTES + DESCRIPTOR_BYTES * base
            if (
                load_u8(other) == SAME
                or load_u32(other + 8) != items
                or lay_kind[version, base] != kind
                or lay_width[version, base] != full
            ):
                return _BLOCK, largest
        if end < begin or end > size:
            return _LENGTH, largest
        if items * full > MAX_EVENT_RAW_BYTES:  # a chunk of several events has fewer still
            return _LENGTH, largest
        stored = end - begin
        raw = _stored_bytes(encoding, width, items)
        if codec == CODEC_NONE:
            if stored != raw:
                return _LENGTH, largest
        else:
            # LZ4 cannot grow a byte to more than 255: a bound on what a lying header can make us allocate.
            if raw > _MAX_RAW or raw > 255 * stored or stored > _MAX_RAW:
                return _LENGTH, largest
            largest = max(largest, raw)
        begin = end
    if begin != size:
        return _LENGTH, largest
    return _OK, largest


@njit(nogil=True, cache=True)
def is_short(chunk: Any) -> Any:
    """Whether the chunk at an address is a short one."""
    return load_u8(chunk + FORM_AT) == FORM_SHORT


@njit(nogil=True, cache=True)
def event_count(chunk: Any) -> Any:
    """Events of the chunk at an address."""
    return load_u8(chunk + COUNT_AT) if is_short(chunk) else load_u32(chunk + COUNT_AT)


@njit(nogil=True, cache=True)
def _load_base(at: Any, size: Any, signed: Any) -> Any:
    """A number of up to 8 bytes."""
    value = np.int64(0)
    for i in range(size):
        value |= load_u8(at + i) << (8 * i)
    if signed and 0 < size < 8:
        shift = 64 - 8 * size
        value = (value << shift) >> shift
    return value


@njit(nogil=True, cache=True)
def _check_short(address: Any, size: Any, version: Any, blocks: Any, lay_width: Any, lay_elements: Any) -> Any:
    """Status of a short chunk whose first bytes are right."""
    count = load_u8(address + COUNT_AT)
    start_bytes = load_u8(address + COUNT_AT + 1)
    if count == 0 or start_bytes > 8:
        return _RANGE
    end = SHORT_HEADER_BYTES + start_bytes + blocks
    if end > size:
        return _SHORT
    codes = address + SHORT_HEADER_BYTES + start_bytes
    for block in range(blocks):
        code = load_u8(codes + block)
        base_bytes = code & 15
        bits = _SHORT_BITS[code >> 4]
        if base_bytes == SHORT_SAME:
            if block != 1 or bits != 0:
                return _BLOCK
        elif base_bytes > 8 or bits > 8 * lay_width[version, block]:
            return _BLOCK
        else:
            end += base_bytes + ((count * lay_elements[version, block] * bits + 7) >> 3)
    return _OK if end == size else _LENGTH


@njit(nogil=True, cache=True)
def open_chunks(
    wanted: Any, address: Any, size: Any, user: Any, start: Any, end: Any, first_tail: Any,
    lay_width: Any, lay_kind: Any, lay_elements: Any, lay_blocks: Any, lay_ragged: Any,
    verify: Any,
) -> Any:  # fmt: skip
    """Check the headers of the wanted entries; learn the ranges of tails.

    Entries below ``first_tail`` are chunks, whose ``start`` and ``end`` come from their keys and are compared;
    the others are tails, whose ``start`` and ``end`` are filled in.

    Returns:
        status, the entry that it is about, the most bytes that a block has before LZ4.

    """
    largest = 0
    for i in range(len(wanted)):
        entry = wanted[i]
        at = address[entry]
        bytes_here = size[entry]
        if bytes_here < SHORT_HEADER_BYTES:
            return _SHORT, entry, largest
        form = load_u8(at + FORM_AT)
        if form != FORM_LONG and form != FORM_SHORT and form != FORM_ZONES:
            return _FORM, entry, largest
        if load_u8(at + FORMAT_AT) != CHUNK_FORMAT:
            return _NEWER, entry, largest
        version = load_u16(at + SCHEMA_AT)
        if version >= len(lay_blocks):
            return _SCHEMA, entry, largest
        blocks = lay_blocks[version]
        if form == FORM_SHORT:
            if lay_ragged[version]:
                return _BLOCK, entry, largest
            code = _check_short(at, bytes_here, version, blocks, lay_width, lay_elements)
            if code != _OK:
                return code, entry, largest
            count = load_u8(at + COUNT_AT)
            first = _load_base(at + SHORT_HEADER_BYTES, load_u8(at + COUNT_AT + 1), False)
            covered = bytes_here
        else:
            covered = HEADER_BYTES + DESCRIPTOR_BYTES * blocks
            if form == FORM_ZONES:
                covered += ZONE_BYTES * blocks
            if covered > bytes_here:
                return _SHORT, entry, largest
            if load_u16(at + BLOCKS_AT) != blocks:
                return _SCHEMA, entry, largest
            count = load_u32(at + COUNT_AT)
            first = load_i64(at + START_AT)
        last = first + count
        if first < 0 or last < first:
            return _RANGE, entry, largest
        if entry < first_tail and (first != start[entry] or last != end[entry] or count == 0):
            return _RANGE, entry, largest
        if verify != VERIFY_NEVER:
            found = xxh3(at + 4, np.uintp(covered - 4), np.uint64(user[entry]))
            if np.int64(found) & 0xFFFFFFFF != load_u32(at):
                return _CHECKSUM, entry, largest
        if form != FORM_SHORT:
            code, raw = _check_descriptors(
                at, bytes_here, count, covered, version, blocks, lay_width, lay_kind, lay_elements
            )
            if code != _OK:
                return code, entry, largest
            largest = max(largest, raw)
        if entry >= first_tail:
            start[entry] = first
            end[entry] = last
    return _OK, 0, largest


@njit(nogil=True, cache=True)
def _copy(source: Any, target: Any, size: Any) -> None:
    """Bytes from one address to another that does not overlap."""
    if size >= LINE:
        copy_lines(source, target, size)
    else:
        copy_bytes(source, target, size)


@njit(nogil=True, cache=True)
def _fill(bits: Any, target: Any, width: Any, n: Any) -> None:
    """The low bytes of ``bits``, n times."""
    if width == 1:
        out8 = i8_at(target, n)
        for i in range(n):
            out8[i] = bits
    elif width == 2:
        out16 = i16_at(target, n)
        for i in range(n):
            out16[i] = bits
    elif width == 4:
        out32 = i32_at(target, n)
        for i in range(n):
            out32[i] = bits
    else:
        out64 = i64_at(target, n)
        for i in range(n):
            out64[i] = bits


@njit(nogil=True, cache=True, inline="always")
def _shift(x: Any, base: Any, scale: Any, target: Any, width: Any, n: Any) -> None:
    """``base + scale * x`` for n elements, into elements of ``width`` bytes.

    The loop is written out for each width, so that each is compiled to vector instructions of its own.
    """
    if width == 8:
        far64 = i64_at(target, n)
        for i in range(n):
            far64[i] = base + scale * np.int64(x[i])
    elif width == 4:
        far32 = i32_at(target, n)
        for i in range(n):
            far32[i] = base + scale * np.int64(x[i])
    elif width == 2:
        far16 = i16_at(target, n)
        for i in range(n):
            far16[i] = base + scale * np.int64(x[i])
    else:
        far8 = i8_at(target, n)
        for i in range(n):
            far8[i] = base + scale * np.int64(x[i])


@njit(nogil=True, cache=True)
def _shift_unsigned(source: Any, width: Any, base: Any, scale: Any, target: Any, target_width: Any, n: Any) -> None:
    """``base + scale * x`` for n unsigned elements of ``width`` bytes, into elements of ``target_width`` bytes."""
    if scale == 1 and n * target_width >= LINE:
        add_lines(source, width, base, target, target_width, n)
    elif width == 1:
        _shift(u8_at(source, n), base, scale, target, target_width, n)
    elif width == 2:
        _shift(u16_at(source, n), base, scale, target, target_width, n)
    elif width == 4:
        _shift(u32_at(source, n), base, scale, target, target_width, n)
    else:
        _shift(i64_at(source, n), base, scale, target, target_width, n)


@njit(nogil=True, cache=True, inline="always")
def _decode_bits(
    source: Any, bits: Any, size: Any, first: Any, base: Any, scale: Any, target: Any, target_width: Any, n: Any
) -> None:
    """N elements of so many bits, from the first on; the block has ``size`` bytes."""
    held = _unpacked()
    word = WORD_BYTES[bits]
    for begin in range(0, n, PIECE):
        m = min(PIECE, n - begin)
        at = held + word * unpack_bits(source, bits, size, first + begin, m, held)
        _shift_unsigned(at, word, base, scale, target + begin * target_width, target_width, m)


@njit(nogil=True, cache=True)
def _decode_frame(
    source: Any, width: Any, items: Any, first: Any, base: Any, scale: Any, target: Any, target_width: Any, n: Any
) -> None:
    """N elements of a block of ``items``, from the first on."""
    if width > IN_BITS:
        size = _packed_bytes(width, items)
        _decode_bits(source, width - IN_BITS, size, first, base, scale, target, target_width, n)
    else:
        _shift_unsigned(source + width * first, width, base, scale, target, target_width, n)


@njit(nogil=True, cache=True, inline="always")
def _decode_float_bits(
    source: Any, width: Any, items: Any, first: Any, base: Any, full: Any, target: Any, target_width: Any, n: Any
) -> None:
    """N floats of a short chunk, whose bits are a frame, into a type that may be wider."""
    if full == target_width:
        _decode_frame(source, width, items, first, base, ONE, target, target_width, n)
    else:
        held = _held()
        for begin in range(0, n, PIECE):
            m = min(PIECE, n - begin)
            _decode_frame(source, width, items, first + begin, base, ONE, held, full, m)
            widen_floats(held, full, target + begin * target_width, target_width, m)


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _divide_short(source: Any, width: Any, base: Any, scale: Any, target: Any, n: Any) -> None:
    """``(base + x) / scale`` as float32 of n unsigned elements of ``width`` bytes; all of these numbers are float32."""
    if 4 * n >= LINE:
        divide_lines(source, width, base, scale, target, n)
        return
    short = u32_at(target, n).view(np.float32)
    divisor = np.float32(scale)
    for i in range(n):
        short[i] = np.float32(base + _load_base(source + i * width, width, False)) / divisor


@njit(nogil=True, cache=True, inline="always")
def _decode_short_decimal(
    source: Any, width: Any, items: Any, first: Any, base: Any, scale: Any, target: Any, n: Any
) -> None:
    """As :func:`_divide_short`, of elements from the first on of a block, whose width may be in bits."""
    if width <= IN_BITS:
        _divide_short(source + width * first, width, base, scale, target, n)
        return
    bits = width - IN_BITS
    size = _packed_bytes(width, items)
    held = _unpacked()
    word = WORD_BYTES[bits]
    for begin in range(0, n, PIECE):
        m = min(PIECE, n - begin)
        at = held + word * unpack_bits(source, bits, size, first + begin, m, held)
        _divide_short(at, word, base, scale, target + 4 * begin, m)


@njit(nogil=True, cache=True, error_model="numpy")
def _decode_decimal(
    source: Any, width: Any, items: Any, first: Any, base: Any, scale: Any, full: Any,
    target: Any, target_width: Any, n: Any,
) -> None:  # fmt: skip
    """N quotients: float64, rounded to the type of ``full`` bytes, in the target's type."""
    divisor = np.float64(scale)
    bits = width - IN_BITS if width > IN_BITS else 8 * width
    if target_width == 4 and bits <= _EXACT_BITS and abs(base) <= 1 << _EXACT_BITS and scale <= 1 << _EXACT_BITS:
        # Both numbers are float32, whose quotient is the one that float64's rounds to (53 bits are twice 24 and more).
        _decode_short_decimal(source, width, items, first, base, scale, target, n)
        return
    if target_width == 8:
        # Each word is read before the quotient takes its place.
        _decode_frame(source, width, items, first, base, ONE, target, EIGHT, n)
        words = i64_at(target, n)
        wide = words.view(np.float64)
        if full == 4:
            for i in range(n):
                wide[i] = np.float64(np.float32(np.float64(words[i]) / divisor))
        else:
            for i in range(n):
                wide[i] = np.float64(words[i]) / divisor
        return
    narrow = u32_at(target, n).view(np.float32)
    held = _held()
    for begin in range(0, n, PIECE):
        m = min(PIECE, n - begin)
        _decode_frame(source, width, items, first + begin, base, ONE, held, EIGHT, m)
        numerators = i64_at(held, m)
        for i in range(m):
            narrow[begin + i] = np.float64(numerators[i]) / divisor


@njit(nogil=True, cache=True, inline="always")
def _fill_constant(base: Any, full: Any, kind: Any, target: Any, target_width: Any, n: Any) -> None:
    """The constant of a block whose type has ``full`` bytes, n times."""
    if kind == FLOAT and full < target_width and n > 0:
        held = _held()
        store_i64(held, base)
        widen_floats(held, full, target, target_width, ONE)
        base = load_i64(target) if target_width == 8 else load_u32(target)
    _fill(base, target, target_width, n)


@njit(nogil=True, cache=True)
def _widen_signed(source: Any, width: Any, target: Any, target_width: Any, n: Any) -> None:
    """N signed elements of ``width`` bytes in a wider type."""
    if width == 1:
        _shift(i8_at(source, n), ZERO, ONE, target, target_width, n)
    elif width == 2:
        _shift(i16_at(source, n), ZERO, ONE, target, target_width, n)
    else:
        _shift(i32_at(source, n), ZERO, ONE, target, target_width, n)


@njit(nogil=True, cache=True, inline="always")
def _decode_raw(source: Any, width: Any, kind: Any, target: Any, target_width: Any, n: Any) -> None:
    if width == target_width:
        _copy(source, target, n * width)
    elif kind == FLOAT:
        widen_floats(source, width, target, target_width, n)
    elif kind != SIGNED:
        _decode_frame(source, width, n, ZERO, ZERO, ONE, target, target_width, n)
    else:
        _widen_signed(source, width, target, target_width, n)


@njit(nogil=True, cache=True, inline="always")
def _sum_of(x: Any, n: Any) -> Any:
    total = np.int64(0)
    for i in range(n):
        total += np.int64(x[i])
    return total


@njit(nogil=True, cache=True)
def _sum(at: Any, width: Any, n: Any) -> Any:
    """Sum of n unsigned words of ``width`` bytes."""
    if width == 1:
        return _sum_of(u8_at(at, n), n)
    if width == 2:
        return _sum_of(u16_at(at, n), n)
    if width == 4:
        return _sum_of(u32_at(at, n), n)
    return _sum_of(i64_at(at, n), n)


@njit(nogil=True, cache=True)
def _run_on(at: Any, width: Any, n: Any, value: Any, scale: Any, stride: Any, target: Any) -> Any:
    """Running sums, int64, from a value on, of n increments of ``width`` bytes; the last sum."""
    begin = np.int64(0)
    if n >= SUM_GROUP:
        # One group where the output begins; the others at begins of lines, which are stored whole.
        sum_groups(at, width, ONE, value, scale, stride, target)
        begin = SUM_GROUP - ((target & (LINE - 1)) >> 3)
        value = load_i64(target + 8 * (begin - 1))
    groups = (n - begin) // SUM_GROUP
    value = sum_groups(at + begin * width, width, groups, value, scale, stride, target + 8 * begin)
    for i in range(begin + groups * SUM_GROUP, n):
        value += stride + scale * _sum(at + i * width, width, ONE)
        store_i64(target + 8 * i, value)
    return value


@njit(nogil=True, cache=True, inline="always")
def _accumulate(
    source: Any, width: Any, items: Any, first: Any, last: Any, base: Any, scale: Any, step: Any,
    target: Any, target_width: Any,
) -> None:  # fmt: skip
    """Elements ``[first, last)`` of a delta block of so many increments, whose width may be in bits."""
    bits = width - IN_BITS
    size = _packed_bytes(width, items)
    held = _unpacked()
    sums = _summed()
    word = WORD_BYTES[bits] if width > IN_BITS else width
    total = np.int64(0)
    for begin in range(0, first, PIECE):
        m = min(PIECE, first - begin)
        if width > IN_BITS:
            at = held + word * unpack_bits(source, bits, size, begin, m, held)
        else:
            at = source + begin * word
        total += _sum(at, word, m)
    value = base + scale * (first * step + total)
    stride = scale * step
    _fill(value, target, target_width, ONE)
    for begin in range(first, last - 1, PIECE):
        m = min(PIECE, last - 1 - begin)
        if width > IN_BITS:
            at = held + word * unpack_bits(source, bits, size, begin, m, held)
        else:
            at = source + begin * word
        to = target + (begin + 1 - first) * target_width
        if target_width == 8:
            value = _run_on(at, word, m, value, scale, stride, to)
        else:
            value = _run_on(at, word, m, value, scale, stride, sums)
            _shift_unsigned(sums, EIGHT, ZERO, ONE, to, target_width, m)


@njit(nogil=True, cache=True, inline="always")
def _decode_delta(
    source: Any, width: Any, items: Any, first: Any, last: Any, base: Any, scale: Any,
    target: Any, target_width: Any,
) -> None:  # fmt: skip
    step = load_i64(source)
    increments = source + 8
    if width == 0:
        n = last - first
        if target_width == 8:
            even64 = i64_at(target, n)
            for i in range(n):
                even64[i] = base + scale * step * (first + i)
        else:
            for i in range(n):
                _fill(base + scale * step * (first + i), target + i * target_width, target_width, ONE)
    else:
        _accumulate(increments, width, items - 1, first, last, base, scale, step, target, target_width)


@njit(nogil=True, cache=True)
def _find_in_short(address: Any, block: Any, elements_at: Any, widest: Any, signed: Any) -> Any:
    """As :func:`_find_block`, in a short chunk.

    The elements of its version's blocks stand at an address, of those that it lacks 0: with arrays as arguments
    the call would not be worth inlining where it stands, and nothing around it would be.
    """
    count = load_u8(address + COUNT_AT)
    codes = address + SHORT_HEADER_BYTES + load_u8(address + COUNT_AT + 1)
    blocks = 0
    while blocks < widest and load_i64(elements_at + 8 * blocks) > 0:
        blocks += 1
    if load_u8(codes + block) & 15 == SHORT_SAME:
        block -= 1
    code = load_u8(codes + block)
    bits = _SHORT_BITS[code >> 4]
    items = count * load_i64(elements_at + 8 * block)
    base_at = codes + blocks
    bases = np.int64(0)
    before = np.int64(0)
    mine = np.int64(0)
    for other in range(blocks):
        here = load_u8(codes + other)
        if other == block:
            mine = bases
        if here & 15 != SHORT_SAME:
            bases += here & 15
            if other < block:
                before += (count * load_i64(elements_at + 8 * other) * _SHORT_BITS[here >> 4] + 7) >> 3
    base = _load_base(base_at + mine, code & 15, signed)
    begin = base_at + bases + before - address
    encoding = np.int64(CONSTANT) if bits == 0 else np.int64(FRAME)
    if bits == 0 or bits == 8 or bits == 16 or bits == 32 or bits == 64:
        width = bits >> 3
    else:
        width = IN_BITS + bits
    return (
        block, encoding, width, np.int64(CODEC_NONE), np.int64(1),
        begin, begin + ((items * bits + 7) >> 3), items, base,
    )  # fmt: skip


@njit(nogil=True, cache=True, inline="always")
def _find_block(address: Any, block: Any, lay_width: Any, lay_elements: Any, lay_kind: Any) -> Any:
    """As :func:`_find_block_at`, of layouts in arrays, for kernels that read few blocks."""
    elements_at = np.int64(lay_elements.ctypes.data)
    return _find_block_at(address, block, elements_at, np.int64(lay_kind.ctypes.data), lay_elements.shape[1])


@njit(nogil=True, cache=True)
def _find_block_at(address: Any, block: Any, elements_at: Any, kind_at: Any, widest: Any) -> Any:
    """Where a block of an opened chunk is and how it is coded.

    The layouts' elements and kinds stand at addresses, ``widest`` words a version.

    Returns:
        block (another one where it is the same), encoding, width, codec, scale, begin, end, items, base.

    """
    if is_short(address):
        row = widest * load_u16(address + SCHEMA_AT)
        signed = load_i64(kind_at + 8 * (row + block)) != FLOAT
        return _find_in_short(address, block, elements_at + 8 * row, widest, signed)
    at = address + HEADER_BYTES + DESCRIPTOR_BYTES * block
    if load_u8(at) == SAME:
        block = load_i64(at + 16)
        at = address + HEADER_BYTES + DESCRIPTOR_BYTES * block
    if block > 0:
        begin = load_u32(at - DESCRIPTOR_BYTES + 4)
    else:
        blocks = load_u16(address + BLOCKS_AT)
        begin = HEADER_BYTES + DESCRIPTOR_BYTES * blocks
        if load_u8(address + FORM_AT) == FORM_ZONES:
            begin += ZONE_BYTES * blocks
    return (
        block, load_u8(at), load_u8(at + 1), load_u8(at + 2), SCALE_TABLE[load_u8(at + 3)],
        begin, load_u32(at + 4), load_u32(at + 8), load_i64(at + 16),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _verify_block_at(address: Any, user: Any, block: Any, begin: Any, end: Any, verify: Any, verified_at: Any) -> Any:
    """Whether the block's bytes are those that were written; remembers a yes."""
    if verify == VERIFY_NEVER or is_short(address):
        return True  # the header's checksum covers a short chunk whole
    bit = np.int64(1) << min(block, _LAST_BIT)
    done = load_i64(verified_at)
    if verify == VERIFY_ONCE and done & bit:
        return True
    found = np.int64(xxh3(address + begin, np.uintp(end - begin), np.uint64(user))) & 0xFFFFFFFF
    if found != load_u32(address + HEADER_BYTES + DESCRIPTOR_BYTES * block + 12):
        return False
    if block < _LAST_BIT:  # the last bit would stand for several blocks: those are verified each time
        store_i64(verified_at, done | bit)
    return True


@njit(nogil=True, cache=True)
def _verify_block(
    address: Any, user: Any, block: Any, begin: Any, end: Any, verify: Any, verified: Any, entry: Any
) -> Any:
    """As :func:`_verify_block_at`, with the verified blocks of all entries in an array."""
    return _verify_block_at(address, user, block, begin, end, verify, np.int64(verified.ctypes.data) + 8 * entry)


@njit(nogil=True, cache=True)
def _unpack(
    address: Any, begin: Any, end: Any, encoding: Any, width: Any, codec: Any, items: Any, last: Any, target: Any
) -> Any:
    """Address of the block's bytes without LZ4, up to element ``last``; 0 when they do not decompress.

    ``target`` is the address of room for the whole of them.
    """
    source = address + begin
    if codec == CODEC_NONE:
        return source
    raw = _stored_bytes(encoding, width, items)
    wanted = _stored_bytes(encoding, width, last)
    if wanted < raw:
        got = lz4_decompress_part(source, target, np.int32(end - begin), np.int32(wanted), np.int32(raw))
        return target if got == wanted else np.int64(0)
    got = lz4_decompress(source, target, np.int32(end - begin), np.int32(raw))
    return target if got == raw else np.int64(0)


@njit(nogil=True, cache=True, inline="always")
def _decode_window(
    source: Any, encoding: Any, width: Any, kind: Any, full: Any, items: Any, scale: Any, base: Any,
    first: Any, last: Any, target: Any, target_width: Any,
) -> None:  # fmt: skip
    """Elements ``[first, last)`` of an unpacked block whose schema's type has ``full`` bytes."""
    n = last - first
    if n <= 0:
        return
    if encoding == FRAME and kind != FLOAT:
        _decode_frame(source, width, items, first, base, scale, target, target_width, n)
    elif encoding == FRAME:
        _decode_float_bits(source, width, items, first, base, full, target, target_width, n)
    elif encoding == DELTA:
        _decode_delta(source, width, items, first, last, base, scale, target, target_width)
    elif encoding == RAW:
        _decode_raw(source + first * width, width, kind, target, target_width, n)
    elif encoding == DECIMAL:
        _decode_decimal(source, width, items, first, base, scale, full, target, target_width, n)
    else:
        _fill_constant(base, full, kind, target, target_width, n)


@njit(nogil=True, cache=True)
def decode_window(
    source: Any, encoding: Any, width: Any, kind: Any, full: Any, items: Any, scale: Any, base: Any,
    first: Any, last: Any, target: Any, target_width: Any,
) -> None:  # fmt: skip
    """As :func:`_decode_window`, for kernels that call it several times."""
    _decode_window(source, encoding, width, kind, full, items, scale, base, first, last, target, target_width)


@njit(nogil=True, cache=True)
def _prefetch_header(chunk: Any, blocks: Any) -> None:
    for line in range(0, HEADER_BYTES + DESCRIPTOR_BYTES * blocks, LINE):
        prefetch(chunk + line)


@njit(nogil=True, cache=True)
def _prefetch_windows(
    chunk: Any, first: Any, elements_at: Any, kind_at: Any, widest: Any, block_at: Any, wanted: Any
) -> None:
    """Ask for where the blocks of a chunk, whose header is at hand, will be read first."""
    version = load_u16(chunk + SCHEMA_AT)
    for want in range(wanted):
        block = load_i64(block_at + 8 * (wanted * version + want))
        if block >= 0:
            block, encoding, width, codec, _, begin, end, _, _ = _find_block_at(
                chunk, block, elements_at, kind_at, widest
            )
            if codec == CODEC_NONE and encoding != DELTA:
                elements = load_i64(elements_at + 8 * (widest * version + block))
                begin = min(end, begin + _packed_bytes(width, first * elements))
            prefetch(chunk + begin)
            prefetch(chunk + begin + LINE)


@njit(nogil=True, cache=True)
def read_blocks(
    address: Any, user: Any, verified: Any,
    slice_entry: Any, slice_from: Any, slice_to: Any, slice_out: Any,
    lay_width: Any, lay_kind: Any, lay_elements: Any,
    want_block: Any, want_address: Any, want_width: Any, want_elements: Any, want_default: Any,
    verify: Any, scratch: Any,
) -> Any:  # fmt: skip
    """Decode event windows of blocks with a fixed number of elements an event. All arrays are contiguous.

    Args:
        address, user, verified: int64[entries] of the shard's directory.
        slice_entry, slice_from, slice_to, slice_out: int64[slices], sorted by entry: events
            ``[from, to)`` of the entry's chunk go to events ``[out, out + to - from)`` of the outputs.
        lay_*: int64[schema versions, blocks], the layouts.
        want_block: int64[schema versions, wanted], -1 where a version lacks the column.
        want_address, want_width, want_elements, want_default: int64[wanted], the outputs.
        verify: one of the ``VERIFY_`` codes.
        scratch: uint8 array that holds the largest block before LZ4.

    Returns:
        status, the entry that it is about, different entries, and the stored bytes of the wanted blocks in them.

    """
    return _read_blocks_at(
        np.int64(address.ctypes.data), np.int64(user.ctypes.data), np.int64(verified.ctypes.data),
        np.int64(slice_entry.ctypes.data), np.int64(slice_from.ctypes.data), np.int64(slice_to.ctypes.data),
        np.int64(slice_out.ctypes.data), len(slice_entry),
        np.int64(lay_width.ctypes.data), np.int64(lay_kind.ctypes.data), np.int64(lay_elements.ctypes.data),
        lay_width.shape[1],
        np.int64(want_block.ctypes.data), np.int64(want_address.ctypes.data), np.int64(want_width.ctypes.data),
        np.int64(want_elements.ctypes.data), np.int64(want_default.ctypes.data), len(want_address),
        verify, np.int64(scratch.ctypes.data),
    )  # fmt: skip


@njit(nogil=True, cache=True, inline="always")
def _read_blocks_at(
    address: Any, user: Any, verified: Any,
    slice_entry: Any, slice_from: Any, slice_to: Any, slice_out: Any, slices: Any,
    lay_width: Any, lay_kind: Any, lay_elements: Any, widest: Any,
    want_block: Any, want_address: Any, want_width: Any, want_elements: Any, want_default: Any, wanted: Any,
    verify: Any, scratch: Any,
) -> Any:  # fmt: skip
    """As :func:`read_blocks`, with the address of each array's int64 elements in place of the array.

    An array that is handed on has its references counted, by an instruction that waits until everything stored before
    has reached the cache: of columns on their way to memory, a large part of the time.
    """
    chunks = 0
    stored = np.int64(0)
    at = 0
    while at < slices:
        chunks += 1
        entry = load_i64(slice_entry + 8 * at)
        until = at + 1
        last = load_i64(slice_to + 8 * at)
        while until < slices and load_i64(slice_entry + 8 * until) == entry:
            last = max(last, load_i64(slice_to + 8 * until))
            until += 1
        if until + _AHEAD < slices:
            _prefetch_header(load_i64(address + 8 * load_i64(slice_entry + 8 * (until + _AHEAD))), widest)
        if until < slices:
            _prefetch_windows(
                load_i64(address + 8 * load_i64(slice_entry + 8 * until)), load_i64(slice_from + 8 * until),
                lay_elements, lay_kind, widest, want_block, wanted,
            )  # fmt: skip
        chunk = load_i64(address + 8 * entry)
        version = load_u16(chunk + SCHEMA_AT)
        for want in range(wanted):
            block = load_i64(want_block + 8 * (wanted * version + want))
            elements = load_i64(want_elements + 8 * want)
            target = load_i64(want_address + 8 * want)
            target_width = load_i64(want_width + 8 * want)
            step = elements * target_width
            if block < 0:
                default = load_i64(want_default + 8 * want)
                for i in range(at, until):
                    n = (load_i64(slice_to + 8 * i) - load_i64(slice_from + 8 * i)) * elements
                    _fill(default, target + load_i64(slice_out + 8 * i) * step, target_width, n)
                continue
            block, encoding, width, codec, scale, begin, end, items, base = _find_block_at(
                chunk, block, lay_elements, lay_kind, widest
            )
            owner = load_i64(user + 8 * entry)
            if not _verify_block_at(chunk, owner, block, begin, end, verify, verified + 8 * entry):
                return _CHECKSUM, entry, chunks, stored
            source = _unpack(chunk, begin, end, encoding, width, codec, items, last * elements, scratch)
            if source == 0:
                return _LZ4, entry, chunks, stored
            kind = load_i64(lay_kind + 8 * (widest * version + block))
            full = load_i64(lay_width + 8 * (widest * version + block))
            stored += end - begin
            held_from = np.int64(0)
            held_to = np.int64(0)
            held_at = np.int64(0)
            for i in range(at, until):
                low = load_i64(slice_from + 8 * i)
                high = load_i64(slice_to + 8 * i)
                out = target + load_i64(slice_out + 8 * i) * step
                if held_from <= low and high <= held_to:
                    _copy(held_at + (low - held_from) * step, out, (high - low) * step)
                    continue
                _decode_window(
                    source, encoding, width, kind, full, items, scale, base, low * elements, high * elements, out,
                    target_width,
                )  # fmt: skip
                if high - low > held_to - held_from:
                    held_from, held_to, held_at = low, high, out
        at = until
    return _OK, 0, chunks, stored


@njit(nogil=True, cache=True)
def read_lists(
    address: Any, user: Any, verified: Any,
    slice_entry: Any, slice_from: Any, slice_to: Any, slice_out: Any,
    lay_width: Any, lay_kind: Any, lay_elements: Any,
    want_block: Any, offsets: Any, target: Any, target_width: Any,
    verify: Any, scratch: Any, lengths: Any,
) -> Any:  # fmt: skip
    """Decode the elements of a ragged column; its lengths were read before, into ``offsets``.

    Args:
        want_block: int64[schema versions], the block of the lists' lengths; their elements follow it.
        offsets: int64[events + 1], where each event's list begins in the output.
        target: address of the output, elements of ``target_width`` bytes.
        lengths: int64 array that holds the events of the longest chunk.

    The other arguments are those of :func:`read_blocks`.

    Returns:
        status, the entry that it is about.

    """
    room = np.int64(lengths.ctypes.data)
    scratch_at = np.int64(scratch.ctypes.data)
    for i in range(len(slice_entry)):
        entry = slice_entry[i]
        chunk = address[entry]
        version = load_u16(chunk + SCHEMA_AT)
        block = want_block[version]
        if block < 0:
            continue
        count = event_count(chunk)
        block, encoding, width, codec, scale, begin, end, items, base = _find_block(
            chunk, block, lay_width, lay_elements, lay_kind
        )
        source = _unpack(chunk, begin, end, encoding, width, codec, items, items, scratch_at)
        if source == 0:
            return _LZ4, entry
        decode_window(
            source, encoding, width, lay_kind[version, block], lay_width[version, block], items, scale, base,
            ZERO, count, room, EIGHT,
        )  # fmt: skip
        block, encoding, width, codec, scale, begin, end, items, base = _find_block(
            chunk, want_block[version] + 1, lay_width, lay_elements, lay_kind
        )
        first = np.int64(0)
        last = np.int64(0)
        total = np.int64(0)
        for event in range(count):
            if lengths[event] < 0 or lengths[event] > items:
                return _LISTS, entry
            if event < slice_from[i]:
                first += lengths[event]
            if event < slice_to[i]:
                last += lengths[event]
            total += lengths[event]
        if (
            total != items
            or last - first != offsets[slice_out[i] + slice_to[i] - slice_from[i]] - offsets[slice_out[i]]
        ):
            return _LISTS, entry
        if not _verify_block(chunk, user[entry], block, begin, end, verify, verified, entry):
            return _CHECKSUM, entry
        source = _unpack(chunk, begin, end, encoding, width, codec, items, last, scratch_at)
        if source == 0:
            return _LZ4, entry
        decode_window(
            source, encoding, width, lay_kind[version, block], lay_width[version, block], items, scale, base,
            first, last, target + offsets[slice_out[i]] * target_width, target_width,
        )  # fmt: skip
    return _OK, 0


@njit(nogil=True, cache=True)
def _greatest(source: Any, bits: Any, items: Any, base: Any) -> Any:
    """The greatest ``base + x`` of unsigned elements of so many bits.

    One by one, of the few that a short chunk has: decoding them would compile all of that into one more kernel.
    """
    size = (items * bits + 7) >> 3
    mask = np.int64(-1) if bits == 64 else (np.int64(1) << bits) - 1
    greatest = np.int64(0)
    for i in range(items):
        value = base + load_bits(source, size, i * bits, mask)
        greatest = value if i == 0 else max(greatest, value)
    return greatest


@njit(nogil=True, cache=True)
def greatest_times(
    address: Any, wanted: Any, block: Any, field: Any, lay_width: Any, lay_elements: Any, lay_kind: Any, words: Any
) -> None:
    """The greatest element of a clock's block in each wanted entry, opened before.

    Args:
        block: 0 for ``ts``, 1 for visible time.
        field: where long chunks' headers hold it.
        words: int64[wanted], the output.

    """
    for i in range(len(wanted)):
        chunk = address[wanted[i]]
        if not is_short(chunk):
            words[i] = load_i64(chunk + field)
            continue
        _, _, width, _, _, begin, _, items, base = _find_block(chunk, block, lay_width, lay_elements, lay_kind)
        greatest = base
        if width > 0:
            bits = width - IN_BITS if width > IN_BITS else 8 * width
            greatest = _greatest(chunk + begin, bits, items, base)
        words[i] = greatest


@njit(nogil=True, cache=True)
def measure_blocks(
    address: Any, slice_entry: Any, lay_width: Any, lay_elements: Any, lay_kind: Any, want_block: Any
) -> Any:
    """How many opened entries slices, sorted by entry, touch, and the stored bytes of the wanted blocks in them.

    ``want_block``: int64[schema versions, wanted], negative where a version lacks the block.
    """
    chunks = 0
    size = np.int64(0)
    for i in range(len(slice_entry)):
        if i > 0 and slice_entry[i] == slice_entry[i - 1]:
            continue
        chunks += 1
        chunk = address[slice_entry[i]]
        version = load_u16(chunk + SCHEMA_AT)
        for want in range(want_block.shape[1]):
            block = want_block[version, want]
            if block >= 0:
                block, _, _, _, _, begin, end, _, _ = _find_block(chunk, block, lay_width, lay_elements, lay_kind)
                size += end - begin
    return chunks, size


find_block, verify_block, unpack_block = _find_block, _verify_block, _unpack
"""For the kernels of coded columns, which read the same blocks."""
