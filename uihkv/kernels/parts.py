"""Parts of a read that threads take one by one.

Whoever is free takes the next part, by counting it: a thread that wakes late takes fewer, or none, and nobody waits for
one that does not have one under way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from uihkv.kernels.decode import read_blocks

COUNTERS = 16
"""int64 numbers that threads share: how many parts were taken, and, on a cache line of its own, how many are done."""
_DONE_AT = 8 * 8
_SPINS = 20_000
"""Looks at a counter that take less time than it takes to wake a thread."""


def _add_one(typing_context: Any, address: Any) -> Any:
    """Count one more at an address, for all threads; what it was before. All that was stored is seen by who sees it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(types.int64), generate


def _load_shared(typing_context: Any, address: Any) -> Any:
    """What another thread has counted."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), generate


add_one: Any = intrinsic(_add_one)
load_shared: Any = intrinsic(_load_shared)


@njit(nogil=True, cache=True)
def cut_parts(slice_entry: Any, slice_from: Any, slice_to: Any, events: Any) -> Any:
    """Bounds of parts of about so many events, none of an entry in two: int64[parts + 1]; slices sorted by entry."""
    bounds = np.empty(len(slice_entry) + 1, np.int64)
    bounds[0] = 0
    parts = 0
    held = 0
    for i in range(len(slice_entry)):
        if held >= events and slice_entry[i] != slice_entry[i - 1]:
            parts += 1
            bounds[parts] = i
            held = 0
        held += slice_to[i] - slice_from[i]
    parts += 1
    bounds[parts] = len(slice_entry)
    return bounds[: parts + 1].copy()


@njit(nogil=True, cache=True)
def read_parts(
    address: Any, user: Any, verified: Any,
    slice_entry: Any, slice_from: Any, slice_to: Any, slice_out: Any,
    lay_width: Any, lay_kind: Any, lay_elements: Any,
    want_block: Any, want_address: Any, want_width: Any, want_elements: Any, want_default: Any,
    verify: Any, scratch: Any, bounds: Any, outcome: Any, counters: Any,
) -> None:  # fmt: skip
    """Read parts until all are taken.

    Args:
        bounds: int64[parts + 1], of :func:`cut_parts`.
        outcome: int64[parts, 4], outputs: what :func:`uihkv.kernels.decode.read_blocks` says of each.
        counters: int64[COUNTERS], zeros before the first thread.

    The other arguments are those of ``read_blocks``; ``scratch`` is this thread's own.

    """
    parts = len(bounds) - 1
    taken = np.int64(counters.ctypes.data)
    while True:
        part = add_one(taken)
        if part >= parts:
            return
        low, until = bounds[part], bounds[part + 1]
        code, entry, chunks, stored = read_blocks(
            address, user, verified, slice_entry[low:until], slice_from[low:until], slice_to[low:until],
            slice_out[low:until], lay_width, lay_kind, lay_elements,
            want_block, want_address, want_width, want_elements, want_default, verify, scratch,
        )  # fmt: skip
        outcome[part, 0], outcome[part, 1], outcome[part, 2], outcome[part, 3] = code, entry, chunks, stored
        add_one(taken + _DONE_AT)


@njit(nogil=True, cache=True)
def are_done(counters: Any, parts: Any) -> Any:
    """Whether all parts are done, or soon will be: it looks for about as long as a thread takes to wake."""
    done = np.int64(counters.ctypes.data) + _DONE_AT
    for _ in range(_SPINS):
        if load_shared(done) >= parts:
            return True
    return False
