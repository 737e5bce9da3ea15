"""How long are histories, and how late do events arrive? What a picture of a store shows beside its bytes.

Lengths and delays are of the events that are there. A store of more than ``most_events`` events is looked at by every
k-th user, so that a picture of a large store costs no more than one of a middling one; what was looked at is told.

*Delay* is visible time minus ``ts``: how long an event was on its way, as far as the store's clocks say. An event is
*out of order* when one of a later ``ts`` had arrived before it in its history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uihkv.kernels.order import count_late
from uihkv.projection import Projection
from uihkv.schema import TIME_UNITS, TS, VISIBLE_AT
from uihkv.snapshot import Snapshot
from uihkv.walk import walk_histories

Int64s = NDArray[np.int64]

MOST_EVENTS = 1 << 23

DELAYS = {
    "none": 0, "1 s": 1, "10 s": 10, "1 min": 60, "10 min": 600, "1 h": 3_600, "6 h": 21_600, "1 day": 86_400,
    "1 week": 604_800, "30 days": 2_592_000,
}  # fmt: skip
"""Delays up to which events are counted together, in seconds; what is above the last is counted as ``"more"``."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """What was seen.

    Attributes:
        users: of the store.
        lengths: int64[n], events of each history that was looked at.
        delays: events by how long they were on their way, up to each of ``DELAYS`` and ``"more"``.
        out_of_order: events that arrived behind one of a later ``ts``.

    """

    users: int
    lengths: Int64s
    delays: dict[str, int]
    out_of_order: int

    @property
    def events(self) -> int:
        """Events that were looked at."""
        return int(self.lengths.sum())


def take_portrait(snapshot: Snapshot, events: int, most_events: int = MOST_EVENTS) -> Portrait:
    """Look at a snapshot.

    Args:
        snapshot: of the store.
        events: that the store holds, about.
        most_events: how many to read, about.

    """
    users = snapshot.users()
    looked_at = users[:: max(1, -(-events // most_events))]
    second = TIME_UNITS[snapshot.schema.time_unit]
    bounds = np.array(list(DELAYS.values()), np.int64) * second
    counts = np.zeros(len(bounds) + 1, np.int64)
    lengths: list[Int64s] = [np.empty(0, np.int64)]
    late = 0
    for _, histories in walk_histories(snapshot, looked_at, Projection([TS, VISIBLE_AT])):
        ts = histories.values(TS)
        # Clocks may be at both ends of int64: a difference that does not fit is far on one side or the other.
        delay = np.clip(histories.values(VISIBLE_AT).astype(np.float64) - ts, -1, 2.0**62).astype(np.int64)
        counts += np.bincount(np.searchsorted(bounds, delay), minlength=len(counts))
        late += int(count_late(ts, histories.offsets))
        lengths.append(histories.lengths)
    named = dict(zip([*DELAYS, "more"], counts.tolist(), strict=True))
    return Portrait(len(users), np.concatenate(lengths), named, late)
