"""Walking a B+tree of LMDB 0.9 in its map: every key, and where its value lies.

A page of a sub-database begins with its number (8 bytes), 2 unused, flags (2), and the bounds of its free room (2 + 2);
offsets of its nodes follow (2 each). A node is 8 bytes (low and high half of a word, flags, bytes of the key), the key,
and in leaves the value, or, of one that has pages of its own, the number of the first of them. In branches the word and
the flags are the number of the child's page.

Nothing is believed: page numbers, offsets and sizes are checked, so that a damaged tree ends in a status.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.kernels.ahead import ask_for_page, is_in_memory
from uihkv.kernels.memory import load_i64, load_u16, load_u32

PAGE_HEADER = 16
NODE_HEADER = 8
MAGIC = 0xBEEFC0DE
VERSION = 1
_BRANCH, _LEAF = 1, 2
_BIG = 1
DEEPEST = 32

FOUND_ALL, DAMAGED, OTHER_KEY = range(3)


@njit(nogil=True, cache=True)
def is_environment(base: Any) -> Any:
    """Whether the first page of an LMDB map, of the version that is known here, is at an address of mapped memory."""
    return load_u32(base + PAGE_HEADER) == MAGIC and load_u32(base + PAGE_HEADER + 4) == VERSION


@njit(nogil=True, cache=True)
def nodes_of(page: Any, number: Any, page_bytes: Any) -> Any:
    """Number of nodes, negative where it is no page of a tree, and whether they are leaves."""
    flags = load_u16(page + 10)
    lower = load_u16(page + 12)
    upper = load_u16(page + 14)
    leaf = flags & 0xFF == _LEAF
    if load_i64(page) != number or not (leaf or flags & 0xFF == _BRANCH):
        return -1, leaf
    if lower < PAGE_HEADER or lower > upper or upper > page_bytes:
        return -1, leaf
    return (lower - PAGE_HEADER) >> 1, leaf


@njit(nogil=True, cache=True)
def child_of(page: Any, index: Any, page_bytes: Any, pages: Any) -> Any:
    """Number of the page that a branch's node names; -1: none."""
    at = load_u16(page + PAGE_HEADER + 2 * index)
    if at < PAGE_HEADER or at + NODE_HEADER > page_bytes:
        return np.int64(-1)
    number = load_u32(page + at) | load_u16(page + at + 4) << 32
    return number if number < pages else np.int64(-1)


@njit(nogil=True, cache=True)
def ask_for_children(base: Any, page: Any, nodes: Any, page_bytes: Any, pages: Any) -> None:
    """Ask for all children of a branch together, if the first is not in memory."""
    first = child_of(page, 0, page_bytes, pages)
    if first < 0 or is_in_memory(base + first * page_bytes):
        return
    for index in range(nodes):
        child = child_of(page, index, page_bytes, pages)
        if child >= 0:
            ask_for_page(base + child * page_bytes)


@njit(nogil=True, cache=True)
def value_of(base: Any, pages: Any, page_bytes: Any, page: Any, index: Any, key_words: Any) -> Any:
    """Status, addresses of a leaf's key and of its value, and bytes of the value."""
    none = np.int64(0)
    at = load_u16(page + PAGE_HEADER + 2 * index)
    if at < PAGE_HEADER or at + NODE_HEADER > page_bytes:
        return DAMAGED, none, none, none
    node = page + at
    flags = load_u16(node + 4)
    key_bytes = load_u16(node + 6)
    if key_bytes != 8 * key_words:
        return OTHER_KEY, none, none, none
    value_bytes = load_u32(node)
    value = NODE_HEADER + key_bytes
    if flags & ~_BIG or at + value + (8 if flags & _BIG else value_bytes) > page_bytes:
        return DAMAGED, none, none, none
    if not flags & _BIG:
        return FOUND_ALL, node + NODE_HEADER, node + value, value_bytes
    first = load_i64(node + value)
    own = (PAGE_HEADER + value_bytes + page_bytes - 1) // page_bytes
    if first < 0 or first + own > pages:
        return DAMAGED, none, none, none
    return FOUND_ALL, node + NODE_HEADER, base + first * page_bytes + PAGE_HEADER, value_bytes


@njit(nogil=True, cache=True)
def walk_tree(
    base: Any, pages: Any, page_bytes: Any, root: Any, key_words: Any, key: Any, address: Any, size: Any, leaf: Any
) -> Any:
    """List a tree in the order of its keys.

    Args:
        base: address of the map.
        pages: number of pages that may be touched.
        page_bytes: of each.
        root: number of the root's page; negative: the tree is empty.
        key_words: words of 8 bytes in each key.
        key: int64[n, key_words], output: the keys' bytes.
        address, size: int64[n], outputs: where the values lie.
        leaf: int64[leaves, 2], output: each leaf's page, and how many values it and the leaves before it have.

    Returns:
        status, how many values were found, how many leaves.

    """
    found = 0
    leaves = 0
    visited = 0
    path = np.empty(DEEPEST, np.int64)
    place = np.empty(DEEPEST, np.int64)
    depth = -1
    number = root
    if root < 0:
        return FOUND_ALL, found, leaves
    while True:
        # Down to the leaf at the left.
        while True:
            if number < 0 or number >= pages or visited > pages or depth + 1 >= DEEPEST:
                return DAMAGED, found, leaves
            visited += 1
            page = base + number * page_bytes
            nodes, is_leaf = nodes_of(page, number, page_bytes)
            if nodes < 0 or (nodes == 0 and not is_leaf):
                return DAMAGED, found, leaves
            if is_leaf:
                break
            ask_for_children(base, page, nodes, page_bytes, pages)
            depth += 1
            path[depth] = number
            place[depth] = 0
            number = child_of(page, 0, page_bytes, pages)
        if found + nodes > len(size) or leaves >= len(leaf):
            return DAMAGED, found, leaves
        for index in range(nodes):
            code, key_at, value_at, value_bytes = value_of(base, pages, page_bytes, page, index, key_words)
            if code != FOUND_ALL:
                return code, found, leaves
            for word in range(key_words):
                key[found, word] = load_i64(key_at + 8 * word)
            address[found] = value_at
            size[found] = value_bytes
            found += 1
        leaf[leaves, 0] = number
        leaf[leaves, 1] = found
        leaves += 1
        # Up to where a branch has a next child.
        while True:
            if depth < 0:
                return FOUND_ALL, found, leaves
            page = base + path[depth] * page_bytes
            place[depth] += 1
            if place[depth] < (load_u16(page + 12) - PAGE_HEADER) >> 1:
                number = child_of(page, place[depth], page_bytes, pages)
                break
            depth -= 1
