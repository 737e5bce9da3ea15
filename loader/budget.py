"""How many events a batch holds, before anything is read, and how batches are cut and dealt by that.

The length of a window follows from the pointer's version and the projection alone: ``min(version, max_len)``. Where a
projection also selects by value, age or draw, that is an upper bound; so a batch cut by these numbers never exceeds
its budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from uihkv import Projection

Int64s = NDArray[np.int64]


def bound_events(projections: Iterable[Projection], version: Int64s) -> Int64s:
    """Most events that these projections together read of each pointer: int64[B]; exact where none of them selects."""
    total = np.zeros(len(version), np.int64)
    for projection in projections:
        total += version if projection.max_len is None else np.minimum(version, projection.max_len)
    return total


def cut_by_events(events: Int64s, batch_size: int, max_events: int | None) -> Int64s:
    """Cut a sequence of examples, from its start on, into batches as large as the limits allow: int64[batches + 1].

    Args:
        events: int64[n], of each example; none above ``max_events``.
        batch_size: most examples a batch.
        max_events: most events a batch; None: no limit.

    Returns:
        the places of the cuts, from 0 to n. What follows a cut does not depend on what came before it.

    """
    n = len(events)
    if max_events is None:
        return np.append(np.arange(0, n, batch_size), n) if n else np.zeros(1, np.int64)
    running = np.zeros(n + 1, np.int64)
    np.cumsum(events, out=running[1:])
    cuts = [0]
    while (at := cuts[-1]) < n:
        fits = int(np.searchsorted(running, running[at] + max_events, "right")) - 1
        cuts.append(min(at + batch_size, fits, n))
    return np.array(cuts, np.int64)


def split_evenly(cuts: Sequence[int], parts: int) -> list[int]:
    """Cut some batches further until there are ``parts`` of them, none empty: their cuts.

    Args:
        cuts: of consecutive batches, fewer than ``parts``, with at least ``parts`` examples together.
        parts: how many are wanted.

    """
    places = list(cuts)
    while len(places) <= parts:
        at = max(range(len(places) - 1), key=lambda i: places[i + 1] - places[i])
        places.insert(at + 1, (places[at] + places[at + 1] + 1) // 2)
    return places


def deal_evenly(events: Int64s, ranks: int) -> Int64s:
    """Deal examples to ranks so that all get equally many, give or take one, and nearly equal events.

    The longest go first, one to each rank a round, the longest of a round to the rank with the fewest events so far.

    Args:
        events: int64[n], of each example.
        ranks: how many there are.

    Returns:
        the rank of each example: int64[n].

    """
    dealt = np.empty(len(events), np.int64)
    longest_first = np.argsort(-events, kind="stable")
    held = np.zeros(ranks, np.int64)
    for start in range(0, len(events), ranks):
        some = longest_first[start : start + ranks]
        emptiest = np.argsort(held, kind="stable")[: len(some)]
        dealt[some] = emptiest
        held[emptiest] += events[some]
    return dealt
