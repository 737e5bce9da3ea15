"""Inner loops of selection: zones of chunks, draws without replacement, and runs of versions.

What is chosen stands in :mod:`uihkv.selection`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.chunk import BLOCKS_AT, DESCRIPTOR_BYTES, FORM_AT, FORM_ZONES, HEADER_BYTES, SCHEMA_AT, ZONE_BYTES
from uihkv.kernels.memory import load_i64, load_u8, load_u16


@njit(nogil=True, cache=True)
def load_zones(address: Any, entry: Any, want_block: Any, zone: Any, known: Any) -> None:
    """Zones of one column in opened entries.

    Args:
        address: int64[entries].
        entry: int64[n].
        want_block: int64[schema versions], the column's block, -1 where a version lacks it.
        zone: int64[3, n], outputs: least, greatest, bit set.
        known: bool[n], output: whether the entry has zones for it.

    """
    for i in range(len(entry)):
        chunk = address[entry[i]]
        block = want_block[load_u16(chunk + SCHEMA_AT)]
        known[i] = block >= 0 and load_u8(chunk + FORM_AT) == FORM_ZONES
        if known[i]:
            at = chunk + HEADER_BYTES + DESCRIPTOR_BYTES * load_u16(chunk + BLOCKS_AT) + ZONE_BYTES * block
            zone[0, i] = load_i64(at)
            zone[1, i] = load_i64(at + 8)
            zone[2, i] = load_i64(at + 16)


@njit(nogil=True, cache=True)
def newest_entries(row: Any, version: Any, chunks_of: Any, start: Any, first_tail: Any, position: Any) -> None:
    """Where each prefix ends: the number of its user's entries that hold events below ``version``.

    The entries of a user are its chunks in order, then its tail; ``position`` counts those that start below.
    """
    for i in range(len(row)):
        position[i] = 0
        if row[i] < 0 or version[i] <= 0:
            continue
        low = chunks_of[row[i], 0]
        high = chunks_of[row[i], 1]
        begin = low
        until = high
        while low < high:
            middle = (low + high) >> 1
            if start[middle] < version[i]:
                low = middle + 1
            else:
                high = middle
        position[i] = low - begin
        if low == until and start[first_tail + row[i]] < version[i]:
            position[i] += 1


@njit(nogil=True, cache=True)
def keep_newest(group: Any, accepted: Any, need: Any) -> None:
    """Leave only the newest ``need[group]`` accepted events of each group; rows run from oldest to newest.

    Args:
        group: int64[n].
        accepted: bool[n], changed in place.
        need: int64[groups], changed in place: what is still wanted.

    """
    for i in range(len(group) - 1, -1, -1):
        if accepted[i]:
            if need[group[i]] > 0:
                need[group[i]] -= 1
            else:
                accepted[i] = False


@njit(nogil=True, cache=True)
def _mix(z: Any) -> Any:
    z = np.uint64(z) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(nogil=True, cache=True)
def _below(state: Any, n: Any) -> Any:
    """A number below n from 64 random bits; the bias, below n / 2^64, cannot be seen."""
    return np.int64(_mix(state) % np.uint64(n))


@njit(nogil=True, cache=True)
def draw_events(
    length: Any, user: Any, version: Any, seed: Any, epoch: Any, most: Any, whole_at: Any, counts: Any, chosen: Any
) -> None:
    """Stochastic Length: how many events each sequence keeps, and which.

    Args:
        length: int64[n], events of each sequence.
        user, version: int64[n], of its pointer.
        seed, epoch: of the draw.
        most: sequences up to this length stay whole; longer ones are cut down to it.
        whole_at: N^alpha: a sequence of length l stays whole with probability ``whole_at / l**2``.
        counts: int64[n], output.
        chosen: bool[sum of length], output, one for each event in order.

    """
    at = 0
    for i in range(len(length)):
        n = length[i]
        state = _mix(_mix(_mix(np.uint64(seed)) ^ np.uint64(epoch)) ^ np.uint64(user[i]))
        state = _mix(state ^ np.uint64(version[i]))
        unit = np.float64(_mix(state) >> np.uint64(11)) / 9007199254740992.0
        if n <= most or unit < whole_at / (np.float64(n) * np.float64(n)):
            for j in range(n):
                chosen[at + j] = True
            counts[i] = n
        else:
            for j in range(n):
                chosen[at + j] = False
            # Floyd's draw without replacement: most distinct of n, each set equally likely.
            for j in range(n - most, n):
                state += np.uint64(0x9E3779B97F4A7C15)
                pick = _below(state, j + 1)
                if chosen[at + pick]:
                    pick = j
                chosen[at + pick] = True
            counts[i] = most
        at += n


@njit(nogil=True, cache=True)
def count_runs(group: Any, version: Any) -> Any:
    """How many runs of consecutive versions there are, in rows sorted by group and version."""
    runs = 0
    for i in range(len(group)):
        if i == 0 or group[i] != group[i - 1] or version[i] != version[i - 1] + 1:
            runs += 1
    return runs


@njit(nogil=True, cache=True)
def form_runs(group: Any, version: Any, run_group: Any, low: Any, high: Any, out: Any) -> None:
    """Runs of consecutive versions: ``[low, high)`` of a group, their first event at row ``out``."""
    run = -1
    for i in range(len(group)):
        if i == 0 or group[i] != group[i - 1] or version[i] != version[i - 1] + 1:
            run += 1
            run_group[run] = group[i]
            low[run] = version[i]
            out[run] = i
        high[run] = version[i] + 1
