"""Which events of a prefix a projection with conditions chooses, and what finding out has cost.

Idea: walk back from each pointer's version, chunk by chunk, until enough events are accepted:

1. of each prefix that still wants events, take its next older chunks: one in the first round, then two, four, …, so
   that few rounds are needed and at most about twice the chunks that were wanted are looked at;
2. leave out chunks whose zones or ``ts`` bounds say that no event of theirs can be accepted: nothing of them is
   decoded;
3. decode the conditions' columns of the others, and accept events; keep the newest that are still wanted.

The result is runs of consecutive versions, which a read decodes as it decodes any window. All steps take whole arrays.

Invariant: the outcome depends on the events alone, not on how chunks cut them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.codec import Entries, Layouts, Slices, decode_fixed, greatest_times
from uihkv.coded import match_coded
from uihkv.conditions import Test
from uihkv.directory import SnapshotDirectory
from uihkv.kernels.select import (
    count_runs,
    draw_events,
    form_runs,
    keep_newest,
    load_zones,
    newest_entries,
)
from uihkv.readcolumns import column_type
from uihkv.sampling import StochasticLength
from uihkv.schema import TS

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]

_ALL = (1 << 63) - 1
_ROUND_EVENTS = 1 << 23
"""About how many events one round holds in memory."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Runs of versions to read: ``[low, high)`` of a user's row to output events from ``out``.

    Attributes:
        row, low, high, out: int64[windows].
        offsets: int64[pointers + 1], events of each pointer in the output.
        considered, skipped: chunks that were looked at, and those of them that zones ruled out.

    """

    row: Int64s
    low: Int64s
    high: Int64s
    out: Int64s
    offsets: Int64s
    considered: int = 0
    skipped: int = 0

    def since(self, version: Int64s) -> Windows:
        """Of one window a pointer, what begins at these versions or later: int64[pointers]."""
        low = np.minimum(np.maximum(self.low, version), self.high)
        offsets = np.zeros(len(low) + 1, np.int64)
        np.cumsum(self.high - low, out=offsets[1:])
        return Windows(self.row, low, self.high, offsets[:-1], offsets)


def select_events(
    directory: SnapshotDirectory,
    layouts: Layouts,
    prepare: Callable[[Int64s], object],
    row: Int64s,
    version: Int64s,
    tests: Sequence[Test],
    oldest_ts: Int64s | None,
    max_len: int | None,
    verify: int,
) -> Windows:
    """The newest ``max_len`` accepted events of each prefix.

    Args:
        directory: of the snapshot; the tails of the rows are open.
        layouts: of the store.
        prepare: opens entries.
        row: int64[pointers], -1 for users without a history.
        version: int64[pointers], at most the heads.
        tests: what is accepted.
        oldest_ts: int64[pointers], least accepted ``ts``; None: any.
        max_len: None: all that are accepted.
        verify: one of the codec's codes.

    """
    entries = directory.entries
    left = np.empty(len(row), np.int64)
    newest_entries(row, version, directory.chunks_of, entries.start, entries.first_tail, left)
    need = np.full(len(row), _ALL if max_len is None else max_len, np.int64)
    found_group: list[Int64s] = []
    found_version: list[Int64s] = []
    considered = skipped = 0
    step = 1
    while True:
        active = np.flatnonzero((left > 0) & (need > 0))
        if not len(active):
            break
        step_now = max(1, min(step, _ROUND_EVENTS // (len(active) * directory.typical_events())))
        group, entry = _next_entries(directory, row, active, left, step_now)
        prepare(entry)
        considered += len(entry)
        may = _admitted(entries, layouts, entry, group, tests, oldest_ts)
        skipped += int(len(entry) - np.count_nonzero(may))
        accepted_group, accepted_version = _accept(
            entries, layouts, group[may], entry[may], version, tests, oldest_ts, need, verify
        )
        found_group.append(accepted_group)
        found_version.append(accepted_version)
        step *= 2
    if not found_group:
        return _as_windows(row, np.empty(0, np.int64), np.empty(0, np.int64), len(row))
    chosen_group, chosen_version = np.concatenate(found_group), np.concatenate(found_version)
    order = np.lexsort((chosen_version, chosen_group))
    return _as_windows(row, chosen_group[order], chosen_version[order], len(row), considered, skipped)


def draw_sample(
    windows: Windows, pointer_user: Int64s, pointer_version: Int64s, sample: StochasticLength, max_len: int, epoch: int
) -> Windows:
    """Of each pointer's events in the windows, those that Stochastic Length draws."""
    length = np.diff(windows.offsets)
    most = sample.threshold(max_len)
    if not len(length) or int(length.max()) <= most:
        return windows
    counts = np.empty(len(length), np.int64)
    chosen = np.empty(int(windows.offsets[-1]), np.bool_)
    draw_events(
        length, pointer_user, pointer_version, sample.seed, epoch, most, float(max_len) ** sample.alpha, counts, chosen
    )
    size = windows.high - windows.low
    full = size > 0
    order = np.flatnonzero(full)[np.argsort(windows.out[full], kind="stable")]
    size = size[order]
    within = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
    versions = np.repeat(windows.low[order], size) + within
    row = np.repeat(windows.row[order], size)
    pointer = np.repeat(np.arange(len(length)), length)
    kept = np.flatnonzero(chosen)
    rows = np.full(len(length), -1, np.int64)
    rows[pointer] = row
    return _as_windows(rows, pointer[kept], versions[kept], len(length), windows.considered, windows.skipped)


def _next_entries(
    directory: SnapshotDirectory, row: Int64s, active: Int64s, left: Int64s, step: int
) -> tuple[Int64s, Int64s]:
    """The next older ``step`` entries of each active prefix, oldest first within each; counts ``left`` down."""
    take = np.minimum(left[active], step)
    left[active] -= take
    group = np.repeat(active, take)
    within = np.arange(len(group)) - np.repeat(np.cumsum(take) - take, take)
    position = left[group] + within
    mine = row[group]
    first, until = directory.chunks_of[mine].T
    entry = np.where(position < until - first, first + position, directory.entries.first_tail + mine)
    return group, entry


def _admitted(
    entries: Entries, layouts: Layouts, entry: Int64s, group: Int64s, tests: Sequence[Test], oldest_ts: Int64s | None
) -> Bools:
    """Which entries may hold an accepted event, by their headers and zones."""
    may = np.ones(len(entry), np.bool_)
    if oldest_ts is not None:
        may &= greatest_times(entries, layouts, entry, TS) >= oldest_ts[group]
    for test in tests:
        if not test.zoned:
            continue
        zone = np.zeros((3, len(entry)), np.int64)
        known = np.empty(len(entry), np.bool_)
        load_zones(entries.address, entry, layouts.first_blocks([test.column])[:, 0], zone, known)
        may &= ~known | test.admits(zone[0], zone[1], zone[2])
    return may


def _accept(
    entries: Entries, layouts: Layouts, group: Int64s, entry: Int64s, version: Int64s, tests: Sequence[Test],
    oldest_ts: Int64s | None, need: Int64s, verify: int,
) -> tuple[Int64s, Int64s]:  # fmt: skip
    """Pointer and version of the events of these entries that are accepted and still wanted; ``need`` counts down."""
    start = entries.start[entry]
    size = np.maximum(np.minimum(entries.end[entry], version[group]) - start, 0)
    out = np.cumsum(size) - size
    n = int(size.sum())
    columns: dict[str, NDArray[Any]] = {}
    numbers = [test.column for test in tests if test.texts is None]
    for name in dict.fromkeys([*numbers, *([] if oldest_ts is None else [TS])]):
        columns[name] = np.empty(n, column_type(layouts.schema, name)[0])
    slices = Slices(entry, np.zeros_like(entry), size, out).by_entry()
    decode_fixed(entries, layouts, slices, columns, verify)
    of = np.repeat(group, size)
    accepted = np.ones(n, np.bool_)
    if oldest_ts is not None:
        accepted &= columns[TS] >= oldest_ts[of]
    for test in tests:
        if test.texts is None:
            accepted &= test.accepts(columns[test.column])
        else:
            accepted &= match_coded(entries, layouts, slices, test.column, test.texts, n, verify)
    keep_newest(of, accepted, need)
    kept = np.flatnonzero(accepted)
    return of[kept], (np.repeat(start - out, size) + np.arange(n))[kept]


def _as_windows(
    row: Int64s, group: Int64s, version: Int64s, pointers: int, considered: int = 0, skipped: int = 0
) -> Windows:
    """Runs of the chosen events, sorted by pointer and version."""
    offsets = np.zeros(pointers + 1, np.int64)
    np.cumsum(np.bincount(group, minlength=pointers), out=offsets[1:])
    runs = count_runs(group, version)
    part = np.empty((4, runs), np.int64)
    form_runs(group, version, part[0], part[1], part[2], part[3])
    return Windows(row[part[0]], part[1], part[2], part[3], offsets, considered, skipped)
