"""Planning a read at one go.

What :mod:`uihkv.kernels.plan` does step by step, for the commonest read: the newest events of each prefix. Each step
called from Python costs as much as it does for a batch of some hundred pointers, and lets go of the interpreter's lock:
beside another thread that reads, every such call is a chance to wait for the lock. Entries that are not open are named
and no more. Whatever is not that simple, such as a version past the head, is left to the steps, which say what is
wrong.

Both kernels that Python calls are there twice. ``hold_`` keeps the lock: it is for little work, of at most some hundred
microseconds, after which a thread that had let go of the lock would wait for it longer than the work took. (Two threads
that read batches of 512 pointers did 1.33 of what one does while planning held it, 0.86 to 1.15 when it did not.) The
interpreter itself lets others wait for 5 ms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.chunk import SCHEMA_AT
from uihkv.kernels import status
from uihkv.kernels.ahead import is_in_memory
from uihkv.kernels.decode import _find_block
from uihkv.kernels.memory import load_i64, load_u16
from uihkv.kernels.plan import find_row, plan_slices, sort_slices

PLANNED, BY_STEPS, ROOM, CLOSED = range(4)
"""What came of it: all of it; nothing, and steps are needed; or more room for slices; or entries to be opened."""


@njit(nogil=True, cache=True)
def _newest(
    row: Any, version: Any, max_len: Any, chunks_of: Any, start: Any, end: Any, first_tail: Any, opened: Any,
    low: Any, high: Any, offsets: Any, closed: Any,
) -> Any:  # fmt: skip
    """Whether all windows can be read, as far as known, and how many tails are not open; these in ``closed``."""
    total = 0
    missing = 0
    for i in range(len(row)):
        r = row[i]
        until = load_i64(version + 8 * i)
        begin = np.int64(0)
        if r < 0:
            if until > 0:
                return False, 0
        else:
            tail = first_tail + r
            if not opened[tail]:
                closed[missing] = tail
                missing += 1
                continue
            if until > end[tail]:
                return False, 0
            if 0 < max_len < until:
                begin = until - max_len
            if until > 0:
                chunk = chunks_of[r, 0]
                base = start[chunk] if chunk < chunks_of[r, 1] else start[tail]
                if begin < base or until <= base:
                    return False, 0
        low[i] = begin
        high[i] = until
        offsets[i] = total
        total += until - begin
    offsets[len(row)] = total
    return True, missing


@njit(nogil=True, cache=True)
def _name_closed(entry: Any, n: Any, opened: Any, closed: Any) -> Any:
    """How many of the first ``n`` entries are not open; these in ``closed``."""
    missing = 0
    for i in range(n):
        if not opened[entry[i]]:
            closed[missing] = entry[i]
            missing += 1
    return missing


@njit(nogil=True, cache=True)
def _seem_in_memory(
    entry: Any, n: Any, address: Any, lay_width: Any, lay_elements: Any, lay_kind: Any, want_block: Any, looks: Any
) -> Any:  # fmt: skip
    """Whether the pages of some slices' blocks are in memory, of each another column's."""
    want = 0
    for i in range(0, n, n // looks + 1):
        chunk = address[entry[i]]
        block = want_block[load_u16(chunk + SCHEMA_AT), want]
        begin = np.int64(0)
        if block >= 0:
            block, _, _, _, _, begin, _, _, _ = _find_block(chunk, block, lay_width, lay_elements, lay_kind)
        if not is_in_memory(chunk + begin):
            return False
        want = want + 1 if want + 1 < want_block.shape[1] else 0
    return True


@njit(nogil=True, cache=True)
def find_unproved(ts: Any, out: Any, low: Any, high: Any, last_ts: Any) -> Any:
    """First window whose newest event has another ``ts`` than its pointer says; -1: none.

    Args:
        ts: int64[events], those of the windows.
        out, low, high: int64[windows], place of each among the events, and its versions.
        last_ts: int64[windows].

    """
    for i in range(len(out)):
        if high[i] > low[i] and ts[out[i] + high[i] - low[i] - 1] != last_ts[i]:
            return i
    return -1


@njit(cache=True)
def hold_find_unproved(ts: Any, out: Any, low: Any, high: Any, last_ts: Any) -> Any:
    """As :func:`find_unproved`, with the interpreter's lock."""
    return find_unproved(ts, out, low, high, last_ts)


@njit(nogil=True, cache=True)
def plan_opened(
    user: Any, row: Any, version: Any, max_len: Any, index: Any, chunks_of: Any, start: Any,
    end: Any, first_tail: Any, opened: Any, address: Any, lay_width: Any, lay_elements: Any, lay_kind: Any,
    want_block: Any, looks: Any, low: Any, high: Any, offsets: Any, part: Any, ordered: Any,
) -> Any:  # fmt: skip
    """Windows of the newest events of each prefix, and their slices sorted by entry.

    Args:
        user: where the pointers' users stand, int64 each, to be looked up in a directory; 0: the rows are given.
        row: int64[pointers], rows in the directory, -1 for users without a history.
        version: where the pointers' versions stand, int64 each. Addresses, since arrays that may not be written to
            would have the kernel compiled once more.
        max_len: 0 or below: no limit.
        index: as in :func:`uihkv.kernels.plan.find_rows`.
        chunks_of, start, end, first_tail: as in :func:`uihkv.kernels.plan.plan_slices`.
        opened: uint8[entries], 0 of those that are not open.
        address: int64[entries], where those that are open lie.
        lay_*: int64[schema versions, blocks], the layouts.
        want_block: int64[schema versions, wanted], the blocks that will be read, negative where a version lacks one.
        looks: at about how many slices' pages to look whether they are in memory.
        low, high: int64[pointers], outputs: the windows.
        offsets: int64[pointers + 1], output: where each begins among the events.
        part: int64[4, room], scratch.
        ordered: int64[4, room], output: entry, first and last event in it, and place in the output. Or, in the first
            row, entries that are not open.

    Returns:
        one of :data:`PLANNED`, :data:`BY_STEPS`, :data:`ROOM` and :data:`CLOSED`; slices, or entries.

    """
    if user != 0:
        for i in range(len(row)):
            row[i] = find_row(load_i64(user + 8 * i), index)
    closed = ordered[0]
    possible, missing = _newest(
        row, version, max_len, chunks_of, start, end, first_tail, opened, low, high, offsets, closed
    )
    if not possible:
        return BY_STEPS, 0
    if missing:
        return CLOSED, missing
    code, n = plan_slices(row, low, high, offsets, chunks_of, start, end, first_tail, part)
    if code != status.OK:
        return BY_STEPS, 0
    if n > part.shape[1]:
        return ROOM, 0
    missing = _name_closed(part[0], n, opened, closed)
    if missing:
        return CLOSED, missing
    sort_slices(part, n, ordered)
    if not _seem_in_memory(ordered[0], n, address, lay_width, lay_elements, lay_kind, want_block, looks):
        return BY_STEPS, 0
    return PLANNED, n


@njit(cache=True)
def hold_plan_opened(
    user: Any, row: Any, version: Any, max_len: Any, index: Any, chunks_of: Any, start: Any,
    end: Any, first_tail: Any, opened: Any, address: Any, lay_width: Any, lay_elements: Any, lay_kind: Any,
    want_block: Any, looks: Any, low: Any, high: Any, offsets: Any, part: Any, ordered: Any,
) -> Any:  # fmt: skip
    """As :func:`plan_opened`, with the interpreter's lock."""
    return plan_opened(
        user, row, version, max_len, index, chunks_of, start, end, first_tail, opened, address,
        lay_width, lay_elements, lay_kind, want_block, looks, low, high, offsets, part, ordered,
    )  # fmt: skip
