"""Inner loops of dictionary-coded columns: numbering distinct values, and giving them back by their codes.

A byte string column in memory is uint8 elements with int64 offsets. In a chunk it is three blocks: codes, lengths of
the distinct values, their bytes. Whatever a chunk says about them is checked here before it is used as an index:
codes against the number of values, lengths against the bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.chunk import MAX_CHUNK_RAW_BYTES, SCHEMA_AT
from uihkv.kernels import status
from uihkv.kernels.decode import (
    EIGHT,
    ONE,
    ZERO,
    decode_window,
    event_count,
    find_block,
    unpack_block,
    verify_block,
)
from uihkv.kernels.memory import copy_bytes, load_i64, load_u8, load_u16
from uihkv.native import xxh3

_OK = status.OK
_CHECKSUM = status.CHECKSUM
_LZ4 = status.LZ4
_CODES = status.CODES


@njit(nogil=True, cache=True)
def same_bytes(left: Any, right: Any, size: Any) -> Any:
    """Whether the bytes at two addresses are equal."""
    at = 0
    while at + 8 <= size:
        if load_i64(left + at) != load_i64(right + at):
            return False
        at += 8
    while at < size:
        if load_u8(left + at) != load_u8(right + at):
            return False
        at += 1
    return True


@njit(nogil=True, cache=True)
def hash_values(values: Any, offsets: Any, out: Any) -> None:
    """xxh3-64 of each value, as int64."""
    at = np.int64(values.ctypes.data)
    for i in range(len(offsets) - 1):
        size = offsets[i + 1] - offsets[i]
        out[i] = np.int64(xxh3(at + offsets[i], np.uintp(size), np.uint64(0)))


@njit(nogil=True, cache=True)
def number_values(
    values: Any, offsets: Any, segment_row: Any, segment_count: Any, table: Any, hashes: Any,
    code: Any, value_before: Any, byte_before: Any, length: Any, distinct: Any,
) -> Any:  # fmt: skip
    """Number the distinct values of each segment of rows in the order in which they first occur.

    Args:
        values: uint8, the bytes of all rows; offsets: int64[rows + 1], where each row's begin.
        segment_row, segment_count: int64[segments], rows that are numbered on their own.
        table: int64, -1 everywhere; its size is a power of two, at least twice the longest segment.
        hashes: int64[rows], scratch.
        code: uint32[rows], output: the number of the row's value in its segment.
        value_before, byte_before: int64[rows + 1], outputs: distinct values, and their bytes, of all segments before
            the row and of its own segment's rows before it.
        length: uint32[rows], distinct: uint8[bytes of all rows], outputs: the distinct values, segment by segment.

    Returns:
        the distinct values of all segments, and their bytes.

    """
    source = np.int64(values.ctypes.data)
    target = np.int64(distinct.ctypes.data)
    mask = np.int64(len(table) - 1)
    found = np.int64(0)
    size_found = np.int64(0)
    for segment in range(len(segment_row)):
        first = segment_row[segment]
        until = first + segment_count[segment]
        found_before = found
        for row in range(first, until):
            value_before[row] = found
            byte_before[row] = size_found
            begin = source + offsets[row]
            size = offsets[row + 1] - offsets[row]
            mark = np.int64(xxh3(begin, np.uintp(size), np.uint64(0)))
            hashes[row] = mark
            slot = mark & mask
            while True:
                other = table[slot]
                if other < first or other >= until:  # free, or of another segment
                    table[slot] = row
                    code[row] = found - found_before
                    length[found] = size
                    copy_bytes(begin, target + size_found, size)
                    found += 1
                    size_found += size
                    break
                if (
                    hashes[other] == mark
                    and offsets[other + 1] - offsets[other] == size
                    and same_bytes(begin, source + offsets[other], size)
                ):
                    code[row] = code[other]
                    break
                slot = (slot + 1) & mask
        value_before[until] = found
        byte_before[until] = size_found
    return found, size_found


@njit(nogil=True, cache=True)
def coded_bounds(
    address: Any, slice_entry: Any, lay_width: Any, lay_elements: Any, lay_kind: Any, want_block: Any
) -> Any:
    """Most events of the opened chunks that slices touch, and most bytes of their distinct values."""
    events = np.int64(0)
    size = np.int64(0)
    for i in range(len(slice_entry)):
        chunk = address[slice_entry[i]]
        events = max(events, np.int64(event_count(chunk)))
        block = want_block[load_u16(chunk + SCHEMA_AT)]
        if block >= 0:
            _, _, _, _, _, _, _, items, _ = find_block(chunk, block + 2, lay_width, lay_elements, lay_kind)
            size = max(size, np.int64(items))
    return events, size


@njit(nogil=True, cache=True)
def _load_block(
    chunk: Any, user: Any, entry: Any, wanted: Any, lay_width: Any, lay_kind: Any, lay_elements: Any,
    verify: Any, verified: Any, scratch: Any, target: Any, target_width: Any, most: Any,
) -> Any:  # fmt: skip
    """Decode a block whole: status, its elements. More than ``most`` elements are refused."""
    version = load_u16(chunk + SCHEMA_AT)
    block, encoding, width, codec, scale, begin, end, items, base = find_block(
        chunk, wanted, lay_width, lay_elements, lay_kind
    )
    if items > most:
        return _CODES, np.int64(0)
    if not verify_block(chunk, user, block, begin, end, verify, verified, entry):
        return _CHECKSUM, np.int64(0)
    source = unpack_block(chunk, begin, end, encoding, width, codec, items, items, np.int64(scratch.ctypes.data))
    if source == 0:
        return _LZ4, np.int64(0)
    decode_window(
        source, encoding, width, lay_kind[version, block], lay_width[version, block], items, scale, base,
        ZERO, items, target, target_width,
    )  # fmt: skip
    return _OK, np.int64(items)


@njit(nogil=True, cache=True)
def _load_codes(
    chunk: Any, user: Any, entry: Any, wanted: Any, lay_width: Any, lay_kind: Any, lay_elements: Any,
    verify: Any, verified: Any, scratch: Any, codes: Any, start: Any,
) -> Any:  # fmt: skip
    """Codes of a chunk's events, and where each distinct value begins: status, values, their bytes."""
    count = np.int64(event_count(chunk))
    code, _ = _load_block(
        chunk, user, entry, wanted, lay_width, lay_kind, lay_elements, verify, verified, scratch,
        np.int64(codes.ctypes.data), EIGHT, count,
    )  # fmt: skip
    if code != _OK:
        return code, np.int64(0), np.int64(0)
    code, values = _load_block(
        chunk, user, entry, wanted + 1, lay_width, lay_kind, lay_elements, verify, verified, scratch,
        np.int64(start.ctypes.data) + 8, EIGHT, count,
    )  # fmt: skip
    if code != _OK:
        return code, np.int64(0), np.int64(0)
    _, _, _, _, _, _, _, size, _ = find_block(chunk, wanted + 2, lay_width, lay_elements, lay_kind)
    total = np.int64(0)
    start[0] = 0
    for i in range(values):
        length = start[i + 1]
        if length < 0 or length > size - total:
            return _CODES, np.int64(0), np.int64(0)
        total += length
        start[i + 1] = total
    if total != size:
        return _CODES, np.int64(0), np.int64(0)
    read = np.int64(0)  # what all events hold: repeats of a long value could ask for more than there is memory
    for i in range(count):
        if codes[i] < 0 or codes[i] >= values:
            return _CODES, np.int64(0), np.int64(0)
        read += start[codes[i] + 1] - start[codes[i]]
        if i > 0 and read > MAX_CHUNK_RAW_BYTES:
            return _CODES, np.int64(0), np.int64(0)
    return _OK, values, total


@njit(nogil=True, cache=True)
def read_coded_lengths(
    address: Any, user: Any, verified: Any,
    slice_entry: Any, slice_from: Any, slice_to: Any, slice_out: Any,
    lay_width: Any, lay_kind: Any, lay_elements: Any,
    want_block: Any, default_length: Any, out: Any,
    verify: Any, scratch: Any, codes: Any, start: Any,
) -> Any:  # fmt: skip
    """Bytes of each event's value in windows of opened chunks.

    Args:
        address, user, verified, slice_*, lay_*, verify, scratch: as of ``read_blocks``; slices are sorted by entry.
        want_block: int64[schema versions], the block of the codes, -1 where a version lacks the column.
        default_length: bytes of the value of events of such a version.
        out: int64[events], the output.
        codes: int64 scratch for the events of the longest chunk; start: int64, one more.

    Returns:
        status, the entry that it is about.

    """
    for i in range(len(slice_entry)):
        entry = slice_entry[i]
        chunk = address[entry]
        block = want_block[load_u16(chunk + SCHEMA_AT)]
        n = slice_to[i] - slice_from[i]
        if block < 0:
            for event in range(n):
                out[slice_out[i] + event] = default_length
            continue
        if i == 0 or slice_entry[i - 1] != entry:
            code, _, _ = _load_codes(
                chunk, user[entry], entry, block, lay_width, lay_kind, lay_elements,
                verify, verified, scratch, codes, start,
            )  # fmt: skip
            if code != _OK:
                return code, entry
        for event in range(n):
            value = codes[slice_from[i] + event]
            out[slice_out[i] + event] = start[value + 1] - start[value]
    return _OK, 0


@njit(nogil=True, cache=True)
def read_coded_values(
    address: Any, user: Any, verified: Any,
    slice_entry: Any, slice_from: Any, slice_to: Any, slice_out: Any,
    lay_width: Any, lay_kind: Any, lay_elements: Any,
    want_block: Any, default: Any, offsets: Any, target: Any,
    verify: Any, scratch: Any, codes: Any, start: Any, room: Any,
) -> Any:  # fmt: skip
    """Values of events in windows of opened chunks, to where ``offsets`` says.

    Args:
        default: uint8, the value of events of a version without the column.
        offsets: int64[events + 1], made of what :func:`read_coded_lengths` gave.
        target: address of the output.
        room: uint8 scratch for the distinct values of any of the chunks.

    The other arguments and the result are those of :func:`read_coded_lengths`.

    """
    values_at = np.int64(room.ctypes.data)
    default_at = np.int64(default.ctypes.data)
    for i in range(len(slice_entry)):
        entry = slice_entry[i]
        chunk = address[entry]
        block = want_block[load_u16(chunk + SCHEMA_AT)]
        if block >= 0 and (i == 0 or slice_entry[i - 1] != entry):
            code, _, _ = _load_codes(
                chunk, user[entry], entry, block, lay_width, lay_kind, lay_elements,
                verify, verified, scratch, codes, start,
            )  # fmt: skip
            if code == _OK:
                code, _ = _load_block(
                    chunk, user[entry], entry, block + 2, lay_width, lay_kind, lay_elements,
                    verify, verified, scratch, values_at, ONE, len(room),
                )  # fmt: skip
            if code != _OK:
                return code, entry
        for event in range(slice_to[i] - slice_from[i]):
            begin = offsets[slice_out[i] + event]
            size = offsets[slice_out[i] + event + 1] - begin
            source = default_at
            length = np.int64(len(default))
            if block >= 0:
                value = codes[slice_from[i] + event]
                source = values_at + start[value]
                length = start[value + 1] - start[value]
            if length != size:
                return _CODES, entry
            copy_bytes(source, target + begin, size)
    return _OK, 0


@njit(nogil=True, cache=True)
def _is_wanted(source: Any, size: Any, values: Any, offsets: Any, hashes: Any) -> Any:
    """Whether a value is among the wanted ones, which are sorted by their hashes."""
    mark = np.int64(xxh3(source, np.uintp(size), np.uint64(0)))
    low = 0
    high = len(hashes)
    while low < high:
        middle = (low + high) >> 1
        if hashes[middle] < mark:
            low = middle + 1
        else:
            high = middle
    while low < len(hashes) and hashes[low] == mark:
        length = offsets[low + 1] - offsets[low]
        if length == size and same_bytes(source, np.int64(values.ctypes.data) + offsets[low], size):
            return True
        low += 1
    return False


@njit(nogil=True, cache=True)
def match_coded(
    address: Any, user: Any, verified: Any,
    slice_entry: Any, slice_from: Any, slice_to: Any, slice_out: Any,
    lay_width: Any, lay_kind: Any, lay_elements: Any,
    want_block: Any, default: Any, values: Any, offsets: Any, hashes: Any, out: Any,
    verify: Any, scratch: Any, codes: Any, start: Any, room: Any,
) -> Any:  # fmt: skip
    """Which events of windows of opened chunks have one of the wanted values: each distinct value is compared once.

    Args:
        values, offsets: uint8 and int64[wanted + 1], the wanted values; hashes: int64[wanted], theirs, ascending.
        out: bool[events], the output.

    The other arguments and the result are those of :func:`read_coded_values`.

    """
    values_at = np.int64(room.ctypes.data)
    default_met = _is_wanted(np.int64(default.ctypes.data), len(default), values, offsets, hashes)
    for i in range(len(slice_entry)):
        entry = slice_entry[i]
        chunk = address[entry]
        block = want_block[load_u16(chunk + SCHEMA_AT)]
        if block >= 0 and (i == 0 or slice_entry[i - 1] != entry):
            code, found, _ = _load_codes(
                chunk, user[entry], entry, block, lay_width, lay_kind, lay_elements,
                verify, verified, scratch, codes, start,
            )  # fmt: skip
            if code == _OK:
                code, _ = _load_block(
                    chunk, user[entry], entry, block + 2, lay_width, lay_kind, lay_elements,
                    verify, verified, scratch, values_at, ONE, len(room),
                )  # fmt: skip
            if code != _OK:
                return code, entry
            begin = start[0]
            for value in range(found):  # from here on, start holds whether the value is met
                until = start[value + 1]
                met = _is_wanted(values_at + begin, until - begin, values, offsets, hashes)
                start[value] = 1 if met else 0
                begin = until
        for event in range(slice_to[i] - slice_from[i]):
            out[slice_out[i] + event] = start[codes[slice_from[i] + event]] == 1 if block >= 0 else default_met
    return _OK, 0


@njit(nogil=True, cache=True)
def match_names(values: Any, offsets: Any, some: Any, row: Any, address: Any, size: Any, same: Any) -> None:
    """Whether some of the values are what lies at the addresses of their rows.

    Args:
        values, offsets: uint8 and int64[values + 1].
        some, row: int64[n], which values, and the row that each is compared with.
        address, size: int64[rows].
        same: bool[n], output.

    """
    at = np.int64(values.ctypes.data)
    for i in range(len(some)):
        begin = offsets[some[i]]
        length = offsets[some[i] + 1] - begin
        same[i] = length == size[row[i]] and same_bytes(at + begin, address[row[i]], length)
