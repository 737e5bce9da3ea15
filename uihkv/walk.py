"""Whole histories of many users, some at a time: what reports and self-labelled examples go through.

Of histories that were trimmed it gives what is left.

Invariant: memory holds about ``batch_events`` events, and never less than one user's history.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.histories import Histories
from uihkv.kernels.order import count_late
from uihkv.pointers import Pointers
from uihkv.projection import Projection
from uihkv.schema import TS
from uihkv.snapshot import Snapshot

BATCH_EVENTS = 1 << 20
_HEADS_AT_A_TIME = 1 << 16


def walk_histories(
    snapshot: Snapshot, users: NDArray[Any], projection: Projection, batch_events: int = BATCH_EVENTS
) -> Iterator[tuple[Pointers, Histories]]:
    """Heads of these users, in their order, and what they name, in batches."""
    for first in range(0, len(users), _HEADS_AT_A_TIME):
        heads = snapshot.head(users[first : first + _HEADS_AT_A_TIME])
        step = (np.cumsum(heads.version) - 1) // batch_events
        bounds = [0, *(np.flatnonzero(np.diff(step)) + 1).tolist(), len(heads)]
        for low, high in pairwise(bounds):
            some = heads[low:high]
            yield some, snapshot.read(some, projection, on_trimmed="truncate")


def count_late_events(snapshot: Snapshot, users: NDArray[Any]) -> tuple[int, int]:
    """How many events these users have, and how many arrived with a ``ts`` below one that had arrived before."""
    events = late = 0
    for _, histories in walk_histories(snapshot, users, Projection([TS])):
        events += int(histories.offsets[-1])
        late += int(count_late(histories.values(TS), histories.offsets))
    return events, late
