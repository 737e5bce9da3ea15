"""Elements packed in bits, as words.

A window of a block is unpacked in pieces that stay in the first cache, from where it is decoded as bytes are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.kernels.memory import load_i64, store_i64, store_u8, store_u32
from uihkv.kernels.vectors import GROUP_ELEMENTS, LOADED_BYTES, MOST_AT_ONCE, WORD_BYTES, unpack_groups

PIECE = 1024
"""Elements that are unpacked at a time."""

PIECE_ROOM = 8 * (8 + PIECE + MOST_AT_ONCE)
"""Bytes that :func:`unpack_bits` may write for a piece."""


@njit(nogil=True, cache=True, inline="always")
def load_bits(source: Any, size: Any, bit: Any, mask: Any) -> Any:
    """The element that begins at a bit of a block of ``size`` bytes, cut to ``mask``.

    No byte behind the block is read, and of those before it up to seven, where it has fewer than eight.
    """
    byte = min(bit >> 3, size - 8)
    return (load_i64(source + byte) >> (bit - 8 * byte)) & mask


@njit(nogil=True, cache=True)
def unpack_bits(source: Any, bits: Any, size: Any, first: Any, n: Any, target: Any) -> Any:
    """Unpack elements ``[first, first + n)`` of a block of ``size`` bytes.

    Groups begin at whole bytes, so up to 7 elements before the first are unpacked with it; what is written behind the
    last means nothing. No byte outside of the block is read, but for the seven before a block of fewer than eight: a
    header stands there.

    Args:
        source: address of the block's elements.
        bits: of an element, 1 to 56.
        size: bytes of the block.
        first, n: which elements.
        target: address of ``8 + n + MOST_AT_ONCE`` words of ``WORD_BYTES[bits]`` bytes.

    Returns:
        how many words stand before the first element.

    """
    skip = first & 7
    begin = first - skip
    wanted = n + skip
    group = GROUP_ELEMENTS[bits]
    at = (begin >> 3) * bits
    groups = (wanted + group - 1) // group
    room = size - LOADED_BYTES[bits] - at
    if room < 0:
        groups = 0
    else:
        groups = min(groups, room // ((group >> 3) * bits) + 1)
    unpack_groups(source + at, bits, groups, target)
    word = WORD_BYTES[bits]
    mask = (np.int64(1) << bits) - 1
    bit = (begin + groups * group) * bits
    for i in range(groups * group, wanted):
        x = load_bits(source, size, bit, mask)
        if word == 1:
            store_u8(target + i, x)
        elif word == 4:
            store_u32(target + 4 * i, x)
        else:
            store_i64(target + 8 * i, x)
        bit += bits
    return skip
