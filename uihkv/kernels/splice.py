"""What becomes of the rows and entries of users, when leaves of the keys of a shard have changed.

Rows and entries are :mod:`uihkv.listing`'s, leaves and fresh values :mod:`uihkv.kernels.growth`'s. The leaves of before
and of now are gone through together: where they differ, the users between are put together anew, from what was read,
and, where a user's chunks go on in leaves that are known, from the entries that he had.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.kernels.growth import ADDRESS, COUNT, DONE, END, FIRST, LAST, NO_ROOM, ODD, RUN, SIZE, START, USER

NOBODYS = 0xFFFF
"""Shard of the entry before those that were put in together: no other's chunk stands right before a user's first."""


@njit(nogil=True, cache=True)
def _first_from(users: Any, begin: Any, user: Any) -> Any:
    """First place, from one on, of a user who is not below."""
    low, high = begin, len(users)
    while low < high:
        middle = (low + high) >> 1
        if users[middle] < user:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def _region_after(known: Any, leaf: Any, origin: Any, i: Any, j: Any) -> Any:
    """The next leaves that differ, and between which users: known ``[i, until_i)`` went, ``[j, until_j)`` are fresh.

    What is given has passed: ``i`` known leaves and ``j`` leaves. At the end, nothing is left.
    """
    while j < len(leaf) and origin[j] == i:
        i += 1
        j += 1
    until_j = j
    while until_j < len(leaf) and origin[until_j] < 0:
        until_j += 1
    until_i = origin[until_j] if until_j < len(leaf) else np.int64(len(known))
    low, high = np.int64(0), np.int64(-1)
    if i < until_i:
        low, high = known[i, FIRST], known[until_i - 1, LAST]
        if j < until_j:
            low, high = min(low, leaf[j, FIRST]), max(high, leaf[until_j - 1, LAST])
    elif j < until_j:
        low, high = leaf[j, FIRST], leaf[until_j - 1, LAST]
    return i, until_i, j, until_j, low, high


@njit(nogil=True, cache=True)
def _copy_entries(entry: Any, shard: Any, number: Any, begin: Any, count: Any, at: Any) -> None:
    user, start, end, address, size = entry
    for k in range(count):
        user[at + k] = user[begin + k]
        start[at + k] = start[begin + k]
        end[at + k] = end[begin + k]
        address[at + k] = address[begin + k]
        size[at + k] = size[begin + k]
        shard[at + k] = number


@njit(nogil=True, cache=True)
def splice_chunks(
    known: Any, leaf: Any, origin: Any, fresh: Any, users: Any, rows: Any, chunks_of: Any, entry: Any, shard: Any,
    number: Any, at: Any, room: Any, changed: Any,
) -> Any:  # fmt: skip
    """Put the chunks of those users behind the entries of whom a chunk has changed its place, all of each together.

    What of them is in leaves that were not read is taken from the entries that they had.

    Args:
        known: int64[known leaves, 5].
        leaf, origin, fresh: of :func:`find_growth`.
        users, rows: int64[users], the known users of the shard, ascending, and their rows.
        chunks_of: int64[rows, 2], where the chunks of rows are.
        entry: user, start, end, address and size of all entries, int64[entries] each; added to.
        shard: uint16[entries], added to.
        number: of the shard.
        at: where to put them.
        room: where the room for them ends.
        changed: int64[users + fresh, 3], output: users, ascending, and where their chunks now begin and end.

    Returns:
        status, where the entries now end, how many users have changed.

    """
    user, start, end, address, size = entry
    n = 0
    until = np.empty(len(known), np.int64)  # chunks of each leaf's last user in it and the leaves before
    for k in range(len(known)):
        until[k] = known[k, RUN]
        if k > 0 and known[k, FIRST] == known[k, LAST] and known[k - 1, LAST] == known[k, LAST]:
            until[k] += until[k - 1]
    if at >= room:
        return NO_ROOM, at, n
    user[at], start[at], end[at], address[at], size[at], shard[at] = 0, 0, 0, 0, 0, NOBODYS
    at += 1
    i: Any = np.int64(0)
    j: Any = np.int64(0)
    read = 0
    place = 0
    current: Any = np.int64(0)
    begin: Any = np.int64(-1)  # of the current user's entries; -1: none is begun
    while True:
        i, until_i, j, until_j, low, high = _region_after(known, leaf, origin, i, j)
        if begin >= 0 and (low > high or current < low):
            changed[n, 0], changed[n, 1], changed[n, 2] = current, begin, at
            n += 1
            begin = np.int64(-1)
        if i == len(known) and j == len(leaf):
            return DONE if read == len(fresh) else ODD, at, n
        if (i > 0 and known[i - 1, LAST] > low) or (until_i < len(known) and known[until_i, FIRST] < high):
            return ODD, at, n
        stop = read
        for k in range(j, until_j):
            stop += leaf[k, COUNT]
        place = _first_from(users, place, low)
        while True:
            is_known = place < len(users) and users[place] <= high
            if read < stop:
                who = min(fresh[read, USER], users[place]) if is_known else fresh[read, USER]
            elif is_known:
                who = users[place]
            else:
                break
            is_known = is_known and users[place] == who
            first, last = np.int64(0), np.int64(0)
            if is_known:
                first, last = chunks_of[rows[place], 0], chunks_of[rows[place], 1]
                place += 1
                if first == last and (read >= stop or fresh[read, USER] != who):
                    continue  # a tail alone, as before
            if begin >= 0 and current != who:
                return ODD, at, n
            if begin < 0:
                current, begin = who, at
                if i > 0 and known[i - 1, LAST] == who:
                    count = until[i - 1]
                    if count > last - first:
                        return ODD, at, n
                    if at + count > room:
                        return NO_ROOM, at, n
                    _copy_entries(entry, shard, number, first, count, at)
                    at += count
            while read < stop and fresh[read, USER] == who:
                if at >= room:
                    return NO_ROOM, at, n
                if at > begin and fresh[read, END] <= end[at - 1]:
                    return ODD, at, n
                user[at], start[at], end[at] = who, fresh[read, START], fresh[read, END]
                address[at], size[at], shard[at] = fresh[read, ADDRESS], fresh[read, SIZE], number
                at += 1
                read += 1
            goes_on = False
            if until_i < len(known) and known[until_i, FIRST] == who:
                skipped = until[until_i - 1] if until_i > 0 and known[until_i - 1, LAST] == who else 0
                k_i, k_j = until_i, until_j
                while True:
                    if known[k_i, LAST] != who:
                        taken = last - first
                        break
                    taken = until[k_i]
                    k_i += 1
                    k_j += 1
                    if k_j >= len(leaf) or origin[k_j] != k_i:
                        goes_on = True  # the next that differ may be his too
                        break
                    if known[k_i, FIRST] != who:
                        break
                count = taken - skipped
                if count < 0 or taken > last - first:
                    return ODD, at, n
                if at + count > room:
                    return NO_ROOM, at, n
                if count > 0 and at > begin and start[first + skipped] < end[at - 1]:
                    return ODD, at, n
                _copy_entries(entry, shard, number, first + skipped, count, at)
                at += count
            if not goes_on:
                changed[n, 0], changed[n, 1], changed[n, 2] = current, begin, at
                n += 1
                begin = np.int64(-1)
        if read != stop:
            return ODD, at, n
        i, j = until_i, until_j


@njit(nogil=True, cache=True)
def _find_gone(known: Any, leaf: Any, origin: Any, fresh: Any, users: Any, gone: Any) -> Any:
    """Status, and how many users of tails that were read again have none any more: ``gone``, ascending."""
    n = 0
    i = j = np.int64(0)
    read = place = 0
    while True:
        i, until_i, j, until_j, low, high = _region_after(known, leaf, origin, i, j)
        if i == len(known) and j == len(leaf):
            return DONE if read == len(fresh) else ODD, n
        if (i > 0 and known[i - 1, LAST] >= low) or (until_i < len(known) and known[until_i, FIRST] <= high):
            return ODD, n
        stop = read
        for k in range(j, until_j):
            stop += leaf[k, COUNT]
        place = _first_from(users, place, low)
        while read < stop or (place < len(users) and users[place] <= high):
            is_known = place < len(users) and users[place] <= high
            if read < stop and read > 0 and fresh[read, USER] <= fresh[read - 1, USER]:
                return ODD, n
            if read < stop and (not is_known or fresh[read, USER] < users[place]):
                read += 1
            elif read < stop and fresh[read, USER] == users[place]:
                read += 1
                place += 1
            else:
                gone[n] = users[place]
                n += 1
                place += 1
        i, j = until_i, until_j


@njit(nogil=True, cache=True)
def splice_rows(
    known: Any, leaf: Any, origin: Any, fresh: Any, changed: Any, users: Any, rows: Any, chunks_of: Any, row_user: Any,
    entry: Any, shard: Any, first_tail: Any, number: Any, at: Any, new_users: Any, new_rows: Any,
) -> Any:  # fmt: skip
    """Give those users a new row of whom the tail or a chunk has changed its place.

    Args:
        known, leaf, origin, fresh: of the tails, as for :func:`splice_chunks`.
        changed: int64[n, 3], users, ascending, and where their chunks are now.
        users, rows: int64[users], the known users of the shard, ascending, and their rows.
        chunks_of: int64[rows, 2], added to, as ``row_user``: int64[rows].
        entry, shard: as for :func:`splice_chunks`; the tail of row ``r`` is entry ``first_tail + r``.
        first_tail: number of entries for chunks.
        number: of the shard.
        at: the first row that is free.
        new_users, new_rows: int64[users + fresh], outputs: as ``users`` and ``rows``.

    Returns:
        status, the first row that is then free, how many users there are, whether they are the same.

    """
    user, start, end, address, size = entry
    gone = np.empty(len(users), np.int64)
    code, n_gone = _find_gone(known, leaf, origin, fresh, users, gone)
    if code != DONE:
        return code, at, 0, False
    same = n_gone == 0
    n = 0
    place = read = moved = passed = 0
    while place < len(users) or read < len(fresh):
        is_known = place < len(users) and (read >= len(fresh) or users[place] <= fresh[read, USER])
        who = users[place] if is_known else fresh[read, USER]
        has_tail = read < len(fresh) and fresh[read, USER] == who
        if moved < len(changed) and changed[moved, 0] < who:
            return ODD, at, n, False  # chunks of a user without a tail
        has_moved = moved < len(changed) and changed[moved, 0] == who
        old = rows[place] if is_known else np.int64(-1)
        place += is_known
        if is_known and passed < n_gone and gone[passed] == who:
            passed += 1
            if has_moved and changed[moved, 1] < changed[moved, 2]:
                return ODD, at, n, False
            if not has_moved and chunks_of[old, 0] < chunks_of[old, 1]:
                return ODD, at, n, False
            moved += has_moved
            continue
        row = old
        if has_tail or has_moved:
            if at >= len(row_user):
                return NO_ROOM, at, n, False
            row = at
            at += 1
            row_user[row] = who
            if has_moved:
                chunks_of[row, 0], chunks_of[row, 1] = changed[moved, 1], changed[moved, 2]
            elif is_known:
                chunks_of[row, 0], chunks_of[row, 1] = chunks_of[old, 0], chunks_of[old, 1]
            else:
                chunks_of[row, 0], chunks_of[row, 1] = 0, 0
            tail = first_tail + row
            user[tail], start[tail], end[tail], shard[tail] = who, -1, -1, number
            if has_tail:
                address[tail], size[tail] = fresh[read, ADDRESS], fresh[read, SIZE]
            else:
                address[tail], size[tail] = address[first_tail + old], size[first_tail + old]
            same = same and is_known
            moved += has_moved
            read += has_tail
        new_users[n] = who
        new_rows[n] = row
        n += 1
    return DONE if moved == len(changed) and passed == n_gone else ODD, at, n, same


@njit(nogil=True, cache=True)
def copy_rows(
    rows: Any, number: Any, chunks_of: Any, row_user: Any, entry: Any, first_tail: Any, new_chunks_of: Any,
    new_row_user: Any, new_entry: Any, new_shard: Any, new_first_tail: Any, at: Any, row: Any,
) -> Any:  # fmt: skip
    """Copy the rows of a shard, and their entries, into other arrays, where they come to stand from ``row`` and ``at``.

    Returns:
        where the entries for chunks then end.

    """
    user, start, end, address, size = entry
    new_user, new_start, new_end, new_address, new_size = new_entry
    for i in range(len(rows)):
        old = rows[i]
        new_row_user[row + i] = row_user[old]
        new_chunks_of[row + i, 0] = at
        for k in range(chunks_of[old, 0], chunks_of[old, 1]):
            new_user[at], new_start[at], new_end[at] = user[k], start[k], end[k]
            new_address[at], new_size[at], new_shard[at] = address[k], size[k], number
            at += 1
        new_chunks_of[row + i, 1] = at
        tail, new_tail = first_tail + old, new_first_tail + row + i
        new_user[new_tail], new_start[new_tail], new_end[new_tail] = user[tail], start[tail], end[tail]
        new_address[new_tail], new_size[new_tail], new_shard[new_tail] = address[tail], size[tail], number
    return at
