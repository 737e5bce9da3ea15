"""Asking the system for pages of LMDB's map before they are touched.

A page that is not in memory stops the thread that touches it until the device has delivered, one page at a time. Asked
for together beforehand, the device has many to deliver at once. Whether pages are in memory costs a system call each
to find out, so that a few are looked at; asking for pages that are there does no harm. Neither touches a page.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numba import njit

from uihkv.chunk import SCHEMA_AT
from uihkv.kernels.decode import _find_block
from uihkv.kernels.memory import load_u16
from uihkv.native import advise, residence

PAGE = mmap.PAGESIZE
_WILL_NEED = getattr(mmap, "MADV_WILLNEED", 3)


@njit(nogil=True, cache=True)
def is_in_memory(address: Any) -> Any:
    """Whether the page of an address is in memory, as far as the system tells."""
    answer = np.ones(1, np.uint8)
    residence(address // PAGE * PAGE, np.uintp(PAGE), np.int64(answer.ctypes.data))
    return answer[0] & 1 != 0


@njit(nogil=True, cache=True)
def ask_for_page(address: Any) -> None:
    """Ask for the page of an address."""
    advise(address // PAGE * PAGE, np.uintp(PAGE), np.int32(_WILL_NEED))


@njit(nogil=True, cache=True)
def are_in_memory(address: Any) -> Any:
    """Whether the pages of all addresses are in memory; an address of 0 has none."""
    answer = np.ones(1, np.uint8)
    for i in range(len(address)):
        if address[i] != 0:
            residence(address[i] // PAGE * PAGE, np.uintp(PAGE), np.int64(answer.ctypes.data))
            if answer[0] & 1 == 0:
                return False
    return True


@njit(nogil=True, cache=True)
def ask_for_pages(begin: Any, end: Any) -> Any:
    """Ask for the pages of ranges of addresses.

    Args:
        begin, end: int64[n], sorted by ``begin``; ranges without bytes are left out.

    Returns:
        bytes asked for, whole pages.

    """
    total = np.int64(0)
    i = 0
    while i < len(begin):
        if end[i] <= begin[i]:
            i += 1
            continue
        low = begin[i] // PAGE * PAGE
        high = (end[i] + PAGE - 1) // PAGE * PAGE
        i += 1
        while i < len(begin) and begin[i] <= high:
            high = max(high, (end[i] + PAGE - 1) // PAGE * PAGE)
            i += 1
        advise(low, np.uintp(high - low), np.int32(_WILL_NEED))
        total += high - low
    return total


@njit(nogil=True, cache=True)
def find_blocks(
    address: Any, slice_entry: Any, lay_width: Any, lay_elements: Any, lay_kind: Any, want_block: Any,
    begin: Any, end: Any,
) -> None:  # fmt: skip
    """Where the wanted blocks of opened entries lie.

    Args:
        address: int64[entries].
        slice_entry: int64[slices], sorted.
        lay_*: int64[schema versions, blocks], the layouts.
        want_block: int64[schema versions, wanted], negative where a version lacks the block.
        begin, end: int64[slices, wanted], outputs: addresses, equal where there is nothing to read.

    """
    for i in range(len(slice_entry)):
        chunk = address[slice_entry[i]]
        version = load_u16(chunk + SCHEMA_AT)
        for want in range(want_block.shape[1]):
            begin[i, want] = chunk
            end[i, want] = chunk
            block = want_block[version, want]
            if block >= 0 and (i == 0 or slice_entry[i] != slice_entry[i - 1]):
                block, _, _, _, _, first, last, _, _ = _find_block(chunk, block, lay_width, lay_elements, lay_kind)
                begin[i, want] = chunk + first
                end[i, want] = chunk + last
