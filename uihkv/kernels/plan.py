"""From pointers to slices of chunks.

A pointer's window ``[low, high)`` is cut along the version ranges of its user's chunks and tail. Nothing here
reads a chunk: ranges are all that a plan needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.chunk import DESCRIPTOR_BYTES, HEADER_BYTES, SCHEMA_AT
from uihkv.kernels import status
from uihkv.kernels.memory import load_i64, load_u16, load_u32

_OK = status.OK
_GAP = status.GAP
_DIGIT_BITS = 11
_DIGITS = 1 << _DIGIT_BITS


@njit(nogil=True, cache=True)
def _first_past(end: Any, low: Any, high: Any, version: Any) -> Any:
    """First chunk in ``[low, high)`` that ends past a version."""
    while low < high:
        middle = (low + high) >> 1
        if end[middle] <= version:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def find_first_chunks(chunk_user: Any, user: Any, before: Any, first: Any) -> None:
    """Where each user's chunks begin.

    Args:
        chunk_user: int64[chunks], ascending.
        user: int64[users], ascending.
        before: what is added to each place.
        first: int64[users], the output.

    """
    chunk = 0
    for i in range(len(user)):
        while chunk < len(chunk_user) and chunk_user[chunk] < user[i]:
            chunk += 1
        first[i] = before + chunk


@njit(nogil=True, cache=True)
def shard_of_user(user: Any, shards: Any) -> Any:
    """Shard of a user id: the finaliser of splitmix64, as :func:`uihkv.keys.shard_of`."""
    z = np.uint64(user) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.int64(z % np.uint64(shards))


@njit(nogil=True, cache=True)
def find_row(wanted: Any, index: Any) -> Any:
    """Row of one user in a directory, -1 if it has none; see :func:`find_rows`."""
    shard = shard_of_user(wanted, len(index))
    users = index[shard, 0]
    low = np.int64(0)
    until = index[shard, 2]
    high = until
    while low < high:
        middle = (low + high) >> 1
        if load_i64(users + 8 * middle) < wanted:
            low = middle + 1
        else:
            high = middle
    found = low < until and load_i64(users + 8 * low) == wanted
    return load_i64(index[shard, 1] + 8 * low) if found else -1


@njit(nogil=True, cache=True)
def find_rows(user: Any, index: Any, row: Any) -> None:
    """Row of each user in a directory, -1 where it has none.

    Args:
        user: int64[n].
        index: int64[shards, 3], of each shard: the address of its users, who ascend, that of their rows, how many.
        row: int64[n], the output.

    """
    for i in range(len(user)):
        row[i] = find_row(user[i], index)


@njit(nogil=True, cache=True)
def cut_windows(row: Any, version: Any, max_len: Any, end: Any, first_tail: Any, low: Any, high: Any, out: Any) -> Any:
    """The newest ``max_len`` events below each version, and where they go in the output.

    Args:
        row: int64[pointers], -1 for users without a history.
        version: int64[pointers].
        max_len: 0 or below: no limit.
        end: int64[entries]; the entries from ``first_tail`` are the users' tails, opened, whose end is the head.
        low, high: int64[pointers], outputs: the window ``[low, high)``; empty where the version is past the head.
        out: int64[pointers + 1], output: running number of events.

    Returns:
        the first pointer whose version is past the head; -1: none.

    """
    bad = -1
    total = 0
    for i in range(len(row)):
        head = end[first_tail + row[i]] if row[i] >= 0 else 0
        until = version[i]
        if until > head:
            if bad < 0:
                bad = i
            until = 0
        begin = until - max_len if 0 < max_len < until else 0
        low[i] = begin
        high[i] = until
        out[i] = total
        total += until - begin
    out[len(row)] = total
    return bad


@njit(nogil=True, cache=True)
def count_slices(row: Any, low: Any, high: Any, chunks_of: Any, start: Any, end: Any, first_tail: Any) -> Any:
    """How many slices the windows are cut into. Arguments as in :func:`plan_slices`."""
    total = 0
    for i in range(len(row)):
        if low[i] >= high[i]:
            continue
        until = chunks_of[row[i], 1]
        chunk = _first_past(end, chunks_of[row[i], 0], until, low[i])
        while chunk < until and start[chunk] < high[i]:
            total += 1
            chunk += 1
        if high[i] > start[first_tail + row[i]]:
            total += 1
    return total


@njit(nogil=True, cache=True)
def plan_slices(
    row: Any, low: Any, high: Any, out: Any, chunks_of: Any, start: Any, end: Any, first_tail: Any, part: Any
) -> Any:  # fmt: skip
    """Cut windows into slices of entries.

    Args:
        row: int64[windows], the user's row among the shard's users.
        low, high: int64[windows], versions; empty where ``low >= high``.
        out: int64[windows], where the window's first event goes in the output.
        chunks_of: int64[rows, 2], where each user's chunks begin and end among the entries.
        start, end: int64[entries], ranges; entries from ``first_tail`` are the users' tails.
        part: int64[4, room], outputs: entry, from, to and out of each slice.

    Returns:
        status, and the slices, one more than there is room for if they are more; or the window that has a gap.

    """
    at = 0
    for i in range(len(row)):
        version = low[i]
        if version >= high[i]:
            continue
        until = chunks_of[row[i], 1]
        chunk = _first_past(end, chunks_of[row[i], 0], until, version)
        while version < high[i]:
            if chunk < until:
                entry = chunk
                chunk += 1
            else:
                entry = first_tail + row[i]
            stop = min(high[i], end[entry])
            if start[entry] > version or stop <= version:
                return _GAP, i
            if at == part.shape[1]:
                return _OK, at + 1
            part[0, at] = entry
            part[1, at] = version - start[entry]
            part[2, at] = stop - start[entry]
            part[3, at] = out[i] + version - low[i]
            at += 1
            version = stop
    return _OK, at


@njit(nogil=True, cache=True)
def order_of(key: Any, order: Any) -> None:
    """The places of keys of 0 or more by which they ascend, those of equal ones as they stand: a radix sort.

    Args:
        key: int64[n].
        order: int64[n], output.

    """
    n = len(key)
    greatest = np.int64(0)
    sorted_already = True
    for i in range(n):
        order[i] = i
        greatest = max(greatest, key[i])
        sorted_already = sorted_already and (i == 0 or key[i - 1] <= key[i])
    if sorted_already:
        return
    count = np.empty(_DIGITS, np.int64)
    other = np.empty(n, np.int64)
    shift = 0
    while greatest >> shift > 0:
        count[:] = 0
        for i in range(n):
            count[key[i] >> shift & _DIGITS - 1] += 1
        total = 0
        for digit in range(_DIGITS):
            here = count[digit]
            count[digit] = total
            total += here
        for i in range(n):
            digit = key[order[i]] >> shift & _DIGITS - 1
            other[count[digit]] = order[i]
            count[digit] += 1
        for i in range(n):  # by a slice, numba compiles an error message too: two seconds
            order[i] = other[i]
        shift += _DIGIT_BITS


@njit(nogil=True, cache=True)
def sort_slices(part: Any, n: Any, by_entry: Any) -> None:
    """The first ``n`` slices of ``part`` in the order of their entries: int64[4, n or more] each."""
    order = np.empty(n, np.int64)
    order_of(part[0, :n], order)
    for field in range(4):
        for i in range(n):
            by_entry[field, i] = part[field, order[i]]


@njit(nogil=True, cache=True)
def plan_by_entry(
    row: Any, low: Any, high: Any, out: Any, chunks_of: Any, start: Any, end: Any, first_tail: Any
) -> Any:
    """Cut windows into slices of entries, in the order of the entries. Arguments as in :func:`plan_slices`.

    Returns:
        status, the window that it is about, and the slices: int64[4, slices], entry, from, to and out.

    """
    n = count_slices(row, low, high, chunks_of, start, end, first_tail)
    part = np.empty((4, n), np.int64)
    code, at = plan_slices(row, low, high, out, chunks_of, start, end, first_tail, part)
    if code != _OK:
        return code, at, part
    if at != n:
        return _GAP, 0, part
    by_entry = np.empty((4, n), np.int64)
    sort_slices(part, n, by_entry)
    return _OK, 0, by_entry


@njit(nogil=True, cache=True)
def are_open(opened: Any, entry: Any) -> Any:
    """Whether all of these entries are open: int64[n]."""
    for i in range(len(entry)):
        if not opened[entry[i]]:
            return False
    return True


@njit(nogil=True, cache=True)
def are_tails_open(opened: Any, row: Any, first_tail: Any) -> Any:
    """Whether the tails of all of these rows are open: int64[n]; -1 is no row."""
    for i in range(len(row)):
        if row[i] >= 0 and not opened[first_tail + row[i]]:
            return False
    return True


@njit(nogil=True, cache=True)
def count_before(row: Any, moment: Any, offsets: Any, visible: Any, first: Any, version: Any) -> None:
    """Versions of the prefixes visible strictly before each moment.

    Args:
        row: int64[pointers], the user's row in ``offsets``; -1: a user without a history.
        moment: int64[pointers].
        offsets: int64[rows + 1] into ``visible``, which ascends within each row.
        first: int64[rows], version before the row's first event.
        version: int64[pointers], the output.

    """
    for i in range(len(row)):
        r = row[i]
        if r < 0:
            version[i] = 0
            continue
        low = offsets[r]
        high = offsets[r + 1]
        while low < high:
            middle = (low + high) >> 1
            if visible[middle] < moment[i]:
                low = middle + 1
            else:
                high = middle
        version[i] = first[r] + low - offsets[r]


@njit(nogil=True, cache=True)
def gather_lists(source: Any, offsets: Any, order: Any, new_offsets: Any, width: Any, target: Any) -> None:
    """Lists in another order: bytes of elements of ``width``, offsets in elements."""
    for i in range(len(order)):
        begin = offsets[order[i]] * width
        size = (offsets[order[i] + 1]) * width - begin
        at = new_offsets[i] * width
        for j in range(size):
            target[at + j] = source[begin + j]


@njit(nogil=True, cache=True)
def lift_visible(visible: Any, group_row: Any, group_count: Any, latest: Any) -> Any:
    """Raise visible times below their user's latest to it, in place; how many were."""
    lifted = 0
    for group in range(len(group_row)):
        high = latest[group]
        for row in range(group_row[group], group_row[group] + group_count[group]):
            if visible[row] < high:
                visible[row] = high
                lifted += 1
            else:
                high = visible[row]
    return lifted


@njit(nogil=True, cache=True)
def list_bound(address: Any, slice_entry: Any, want_block: Any) -> Any:
    """Most elements of a ragged column that slices of opened chunks can hold, by their headers.

    Args:
        address: int64[entries].
        slice_entry: int64[slices].
        want_block: int64[schema versions], the block of the lists' lengths, -1 where there is none.

    """
    total = 0
    for i in range(len(slice_entry)):
        chunk = address[slice_entry[i]]
        block = want_block[load_u16(chunk + SCHEMA_AT)]
        if block >= 0:
            total += load_u32(chunk + HEADER_BYTES + DESCRIPTOR_BYTES * (block + 1) + 8)
    return total
