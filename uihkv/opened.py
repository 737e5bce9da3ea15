"""A read's plan at one go; see :mod:`uihkv.kernels.opened`.

It is tried first by each read of the newest events of its prefixes. Where it does not succeed, which says nothing yet,
the read goes step by step: that asks for pages, and tells what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from uihkv.codec import LOOKED_AT, Layouts, Slices
from uihkv.directory import SnapshotDirectory
from uihkv.kernels.opened import (
    BY_STEPS,
    CLOSED,
    PLANNED,
    find_unproved,
    hold_find_unproved,
    hold_plan_opened,
    plan_opened,
)
from uihkv.selection import Windows
from uihkv.slabs import address_of

Int64s = NDArray[np.int64]

_FEW = 1024
"""Pointers up to which a plan takes no longer than a fifth of a millisecond, so that the interpreter's lock is kept."""


def plan_at_once(
    directory: SnapshotDirectory, layouts: Layouts, user: Int64s | None, row: Int64s | None, version: Int64s,
    max_len: int | None, blocks: Int64s, prepare: Callable[[Int64s], object],
) -> tuple[Windows, Slices] | None:  # fmt: skip
    """The newest events of each prefix, and their slices sorted by entry; None: go step by step.

    Args:
        directory: of the snapshot.
        layouts: of the store.
        user: int64[pointers], to be looked up in the directory; or
        row: int64[pointers], rows in the directory.
        version: int64[pointers].
        max_len: None: whole prefixes.
        blocks: int64[schema versions, blocks], those that will be read.
        prepare: opens entries.

    """
    n, entries = len(version), directory.entries
    user, version = None if user is None else np.ascontiguousarray(user), np.ascontiguousarray(version)
    if row is None:
        row = np.empty(n, np.int64)
    low, high = np.empty((2, n), np.int64)
    offsets = np.empty(n + 1, np.int64)
    room = directory.slices_each * n
    plan = hold_plan_opened if n <= _FEW else plan_opened
    while True:
        part, ordered = np.empty((2, 4, room), np.int64)
        came, slices = plan(
            0 if user is None else address_of(user), row, address_of(version), max_len or 0,
            directory.index, directory.chunks_of, entries.start, entries.end,
            entries.first_tail, directory.opened, entries.address, layouts.width, layouts.elements, layouts.kind,
            blocks, LOOKED_AT, low, high, offsets, part, ordered,
        )  # fmt: skip
        if came == BY_STEPS:
            return None
        if came == PLANNED:
            entry, first, last, out = ordered[:, :slices]
            return Windows(row, low, high, offsets[:-1], offsets), Slices(entry, first, last, out)
        if came == CLOSED:
            prepare(ordered[0, :slices])
            continue
        plan = plan_opened  # that takes longer
        room *= 2
        directory.slices_each = -(-room // n)


def find_wrong(windows: Windows, ts: Int64s, last_ts: Int64s) -> int:
    """First of these windows, one a pointer, whose newest event has another ``ts`` than its pointer says; -1: none.

    Args:
        windows: none past its base.
        ts: int64[events], those of the windows.
        last_ts: int64[pointers].

    """
    find = hold_find_unproved if len(last_ts) <= _FEW else find_unproved
    return int(find(ts, windows.out, windows.low, windows.high, last_ts))
