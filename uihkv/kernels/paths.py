"""Checking the pages of a B+tree of LMDB 0.9 that a write of some keys will go through, before LMDB does.

LMDB believes its pages: what lies in one may end the process, or lead a key to another leaf, where its record is not
found and written a second time. For each key the pages from the root down to its leaf are looked at: each must be a
page of the tree with its own number, its nodes within it and in the order of their keys, its keys within the bounds
that the pages above give it. Where a key is not there and would be put at the edge of its leaf, the leaf beyond that
edge is looked at too: a bound that was moved shows there. The layout of pages is that of :mod:`uihkv.kernels.tree`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.kernels.memory import load_i64, load_u16, load_u32
from uihkv.kernels.tree import NODE_HEADER, PAGE_HEADER

_BRANCH, _LEAF = 1, 2
_BIG = 1
_DEEPEST = 32
_FIRST_PAGE = 2
"""Behind the two meta pages."""
_BY_ROW, _BY_KEY, _BEFORE_KEY = np.int64(0), np.int64(1), np.int64(2)
"""Not plain numbers, nor is any row below: numba would compile what takes them once for each."""


@njit(nogil=True, cache=True)
def big_endian(address: Any) -> Any:
    """A word of a key as the number by which keys are ordered: they are stored big-endian."""
    word = np.uint64(load_i64(address))
    low = np.uint64(0x00FF00FF00FF00FF)
    word = ((word & low) << np.uint64(8)) | ((word >> np.uint64(8)) & low)
    low = np.uint64(0x0000FFFF0000FFFF)
    word = ((word & low) << np.uint64(16)) | ((word >> np.uint64(16)) & low)
    return (word << np.uint64(32)) | (word >> np.uint64(32))


@njit(nogil=True, cache=True)
def _compare(one: Any, other: Any, words: Any) -> Any:
    """Negative, 0 or positive: how the keys at two addresses are ordered."""
    for word in range(words):
        mine, theirs = big_endian(one + 8 * word), big_endian(other + 8 * word)
        if mine != theirs:
            return -1 if mine < theirs else 1
    return 0


@njit(nogil=True, cache=True)
def _compare_row(address: Any, key: Any, row: Any, words: Any) -> Any:
    """How the key at an address and one of ``key`` are ordered."""
    for word in range(words):
        mine, theirs = big_endian(address + 8 * word), key[row, word]
        if mine != theirs:
            return -1 if mine < theirs else 1
    return 0


@njit(nogil=True, cache=True)
def _key_at(page: Any, index: Any) -> Any:
    """Address of a node's key."""
    return page + load_u16(page + PAGE_HEADER + 2 * index) + NODE_HEADER


@njit(nogil=True, cache=True)
def _check_page(page: Any, number: Any, page_bytes: Any, pages: Any, words: Any, low: Any, high: Any) -> Any:
    """Number of nodes, negative where anything is wrong, and whether they are leaves.

    ``low``, ``high``: addresses of the keys between which its own must lie, the lower one included; 0: no bound.
    """
    flags, lower, upper = load_u16(page + 10), load_u16(page + 12), load_u16(page + 14)
    leaf = flags == _LEAF
    if load_i64(page) != number or not (leaf or flags == _BRANCH):
        return -1, leaf
    if lower < PAGE_HEADER + 2 or lower & 1 or lower > upper or upper > page_bytes:
        return -1, leaf
    nodes = (lower - PAGE_HEADER) >> 1
    first = 0 if leaf else 1  # a branch's first node holds for all that is below its second
    for index in range(nodes):
        at = load_u16(page + PAGE_HEADER + 2 * index)
        if at < upper or at + NODE_HEADER > page_bytes:
            return -1, leaf
        node = page + at
        key_bytes = load_u16(node + 6)
        end = at + NODE_HEADER + key_bytes
        if (index >= first and key_bytes != 8 * words) or end > page_bytes:
            return -1, leaf
        if leaf:
            kind, value_bytes = load_u16(node + 4), load_u32(node)
            if kind & ~_BIG or end + (8 if kind & _BIG else value_bytes) > page_bytes:
                return -1, leaf
            if kind & _BIG:
                begin = load_i64(page + end)
                own = (PAGE_HEADER + value_bytes + page_bytes - 1) // page_bytes
                if begin < _FIRST_PAGE or begin + own > pages:
                    return -1, leaf
        else:
            child = load_u32(node) | load_u16(node + 4) << 32
            if child < _FIRST_PAGE or child >= pages:
                return -1, leaf
        if index > first and _compare(_key_at(page, index - 1), node + NODE_HEADER, words) >= 0:
            return -1, leaf
    if nodes > first:
        if low != 0 and _compare(_key_at(page, first), low, words) < 0:
            return -1, leaf
        if high != 0 and _compare(_key_at(page, nodes - 1), high, words) >= 0:
            return -1, leaf
    return nodes, leaf


@njit(nogil=True, cache=True)
def _descend(
    base: Any, pages: Any, page_bytes: Any, root: Any, words: Any, key: Any, row: Any, target: Any, how: Any
) -> Any:
    """The leaf of a key, all pages on the way checked: its address (0: damaged), nodes, and the bounds of its keys.

    By ``how``, the key is ``key[row]``, the one at the address ``target``, or any right before that.
    """
    number, low, high = root, np.int64(0), np.int64(0)
    for _ in range(_DEEPEST):
        if number < _FIRST_PAGE or number >= pages:
            break
        page = base + number * page_bytes
        nodes, leaf = _check_page(page, number, page_bytes, pages, words, low, high)
        if nodes < 0:
            break
        if leaf:
            return page, nodes, low, high
        begin, end = 1, nodes  # the first node whose key is above: between these
        while begin < end:
            middle = (begin + end) >> 1
            if how == _BY_ROW:
                order = _compare_row(_key_at(page, middle), key, row, words)
            else:
                order = _compare(_key_at(page, middle), target, words)
            if order < 0 or (order == 0 and how != _BEFORE_KEY):
                begin = middle + 1
            else:
                end = middle
        if begin > 1:
            low = _key_at(page, begin - 1)
        if begin < nodes:
            high = _key_at(page, begin)
        node = page + load_u16(page + PAGE_HEADER + 2 * (begin - 1))
        number = load_u32(node) | load_u16(node + 4) << 32
    return np.int64(0), np.int64(0), low, high


@njit(nogil=True, cache=True)
def check_paths(base: Any, pages: Any, page_bytes: Any, root: Any, words: Any, key: Any) -> Any:
    """Check the pages on the way to some keys.

    Args:
        base: address of the map.
        pages: number of pages that may be touched.
        page_bytes: of each.
        root: number of the root's page; negative: the tree is empty.
        words: words of 8 bytes in each key.
        key: uint64[n, words], ascending.

    Returns:
        the first row whose way is damaged; -1: none.

    """
    row = np.int64(0)
    while row < len(key) and root >= 0:
        page, nodes, low, high = _descend(base, pages, page_bytes, root, words, key, row, np.int64(0), _BY_ROW)
        if page == 0:
            return row
        before = after = False
        place = 0
        first = row
        while row < len(key) and (high == 0 or _compare_row(high, key, row, words) > 0):
            end = nodes
            while place < end:  # of ascending keys, none stands before the last one's place
                middle = (place + end) >> 1
                if _compare_row(_key_at(page, middle), key, row, words) < 0:
                    place = middle + 1
                else:
                    end = middle
            if place == nodes:
                after = high != 0
            elif place == 0 and _compare_row(_key_at(page, 0), key, row, words) != 0:
                before = low != 0
            row += 1
        if before and _descend(base, pages, page_bytes, root, words, key, first, low, _BEFORE_KEY)[0] == 0:
            return first
        if after and _descend(base, pages, page_bytes, root, words, key, first, high, _BY_KEY)[0] == 0:
            return first
        if row == first:
            return row
    return -1
