"""What has changed in a tree of keys: the leaves that an earlier one did not have.

A leaf is a row of five numbers, the columns ``PAGE`` to ``COUNT``: its page, the users of its first and its last key,
how many of its keys are the last user's, and how many it has. A fresh value is a row of five: user, end, start,
address, size. :mod:`uihkv.tree` says why pages tell what has changed; what becomes of rows and entries,
:mod:`uihkv.kernels.splice`.

Nothing of the pages is believed. Whatever does not fit ends in a status, upon which the caller lists the shard whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.kernels.ahead import ask_for_page, is_in_memory
from uihkv.kernels.paths import big_endian
from uihkv.kernels.tree import DEEPEST, FOUND_ALL, ask_for_children, child_of, nodes_of, value_of

PAGE, FIRST, LAST, RUN, COUNT = range(5)
USER, END, START, ADDRESS, SIZE = range(5)
DONE, ODD, NO_ROOM = range(3)
_SIGN = np.uint64(1 << 63)
_AHEAD = 64


@njit(nogil=True, cache=True)
def _describe_leaf(leaf: Any, page: Any, user: Any) -> None:
    """Describe one leaf, int64[5], of the users of its keys, of which it has one at least."""
    count = len(user)
    run = 1
    while run < count and user[count - run - 1] == user[count - 1]:
        run += 1
    leaf[PAGE] = page
    leaf[FIRST] = user[0]
    leaf[LAST] = user[count - 1]
    leaf[RUN] = run
    leaf[COUNT] = count


@njit(nogil=True, cache=True)
def describe_leaves(user: Any, walked: Any, leaf: Any) -> Any:
    """Describe the leaves of a tree that was walked.

    Args:
        user: int64[n], the keys' users.
        walked: int64[leaves, 2], each leaf's page, and how many keys it and the leaves before it have.
        leaf: int64[leaves, 5], output.

    Returns:
        whether the users ascend and no leaf is empty.

    """
    for i in range(1, len(user)):
        if user[i] < user[i - 1]:
            return False
    begin = 0
    for i in range(len(walked)):
        end = walked[i, 1]
        if end <= begin:
            return False
        _describe_leaf(leaf[i], walked[i, 0], user[begin:end])
        begin = end
    return True


@njit(nogil=True, cache=True)
def _list_leaves(base: Any, pages: Any, page_bytes: Any, root: Any, depth: Any, number: Any) -> Any:
    """Page numbers of a tree's leaves, from its branches alone: how many, -1 where the branches are damaged."""
    if root < 0:
        return 0
    if depth < 1 or depth >= DEEPEST or root >= pages or len(number) == 0:
        return -1
    if depth == 1:
        number[0] = root
        return 1
    path, place, nodes = np.empty((3, DEEPEST), np.int64)
    found = 0
    visited = 0
    level = 0
    path[0] = root
    place[0] = 0
    while True:
        page = base + path[level] * page_bytes
        if place[level] == 0:
            visited += 1
            count, is_leaf = nodes_of(page, path[level], page_bytes)
            if count <= 0 or is_leaf or visited > pages:
                return -1
            nodes[level] = count
            if level < depth - 2:
                ask_for_children(base, page, count, page_bytes, pages)
            else:
                if found + count > len(number):
                    return -1
                for index in range(count):
                    child = child_of(page, index, page_bytes, pages)
                    if child < 0:
                        return -1
                    number[found] = child
                    found += 1
                place[level] = count
        if place[level] < nodes[level]:
            child = child_of(page, place[level], page_bytes, pages)
            if child < 0:
                return -1
            place[level] += 1
            level += 1
            path[level] = child
            place[level] = 0
        else:
            level -= 1
            if level < 0:
                return found


@njit(nogil=True, cache=True)
def _match_leaves(known: Any, number: Any, origin: Any) -> Any:
    """Which known leaf each page is, -1: none; whether they stand in the same order."""
    slots = 4
    while slots < 2 * len(known):
        slots <<= 1
    table = np.full(slots, -1, np.int32)
    for i in range(len(known)):
        slot = known[i, PAGE] * 0x9E3779B1 & slots - 1
        while table[slot] >= 0:
            slot = slot + 1 & slots - 1
        table[slot] = i
    before = -1
    for j in range(len(number)):
        origin[j] = -1
        slot = number[j] * 0x9E3779B1 & slots - 1
        while table[slot] >= 0:
            if known[table[slot], PAGE] == number[j]:
                origin[j] = table[slot]
                if origin[j] <= before:
                    return False
                before = origin[j]
                break
            slot = slot + 1 & slots - 1
    return True


@njit(nogil=True, cache=True)
def find_growth(
    base: Any, pages: Any, page_bytes: Any, root: Any, depth: Any, entries: Any, key_words: Any, known: Any
) -> Any:
    """Read those leaves of a tree that are not known.

    Args:
        base: address of the map.
        pages: number of pages that may be touched.
        page_bytes: of each.
        root: number of the root's page; negative: the tree is empty.
        depth, entries: what the tree is said to have.
        key_words: words of 8 bytes in each key: user, and for chunks end and start.
        known: int64[known leaves, 5].

    Returns:
        status, the leaves: int64[leaves, 5], which known one each is, -1 for those that were read: int64[leaves], and
        the values of these: int64[n, 5].

    """
    leaf = np.empty((0, 5), np.int64)
    origin = np.empty(0, np.int64)
    fresh = np.empty((0, 5), np.int64)
    number = np.empty(max(pages, 0), np.int64)
    leaves = _list_leaves(base, pages, page_bytes, root, depth, number)
    if leaves < 0:
        return ODD, leaf, origin, fresh
    number = number[:leaves]
    origin = np.empty(leaves, np.int64)
    if not _match_leaves(known, number, origin):
        return ODD, leaf, origin, fresh
    leaf = np.empty((leaves, 5), np.int64)
    total = 0
    asked = 0
    for j in range(leaves):
        if origin[j] >= 0:
            for word in range(known.shape[1]):  # by a row, numba compiles an error message too: two seconds
                leaf[j, word] = known[origin[j], word]
            total += leaf[j, COUNT]
    room = entries - total
    if room < 0 or room > pages * page_bytes:
        return ODD, leaf, origin, fresh
    fresh = np.empty((room, 5), np.int64)
    found = 0
    for j in range(leaves):
        if origin[j] >= 0:
            continue
        page = base + number[j] * page_bytes
        if j >= asked:
            asked = min(j + _AHEAD, leaves)
            if not is_in_memory(page):
                for k in range(j, asked):
                    if origin[k] < 0:
                        ask_for_page(base + number[k] * page_bytes)
        nodes, is_leaf = nodes_of(page, number[j], page_bytes)
        if not is_leaf or nodes <= 0 or found + nodes > room:
            return ODD, leaf, origin, fresh
        for index in range(nodes):
            code, key_at, value_at, value_bytes = value_of(base, pages, page_bytes, page, index, key_words)
            if code != FOUND_ALL:
                return ODD, leaf, origin, fresh
            fresh[found, USER] = np.int64(big_endian(key_at) ^ _SIGN)
            fresh[found, END] = np.int64(big_endian(key_at + 8)) if key_words == 3 else -1
            fresh[found, START] = np.int64(big_endian(key_at + 16)) if key_words == 3 else -1
            fresh[found, ADDRESS] = value_at
            fresh[found, SIZE] = value_bytes
            if index > 0 and fresh[found, USER] < fresh[found - 1, USER]:
                return ODD, leaf, origin, fresh
            found += 1
        _describe_leaf(leaf[j], number[j], fresh[found - nodes : found, USER])
    return DONE if found == room else ODD, leaf, origin, fresh
