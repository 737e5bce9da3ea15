"""From the newest listing that is known to the one that a new snapshot needs.

Idea: keys seldom change, and never behind a transaction's back.

1. where every shard is in the state that was listed, the listing serves as it is;
2. of a shard that has grown, only the users whose keys changed are listed again (:mod:`uihkv.changes` knows them) and
   put in the place of what was known of them; where only tails grew, no array is made anew;
3. where too many changed, or too long ago, the shard's keys are listed from first to last.

Where values lie is taken over for shards in the same state alone: a commit may move any value.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.directory import Listing, View
from uihkv.shard import Shard, ShardKeys

Int64s = NDArray[np.int64]

_LISTED_ANEW = 8
"""A user listed again costs about as much as so many keys listed in a row."""


class NewestListing:
    """The newest listing that a store's handle has; safe for threads."""

    __slots__ = ("_listing", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listing: Listing | None = None

    def follow(self, shards: Sequence[Shard], transactions: Sequence[Any]) -> Listing:
        """The listing of the states that these read transactions see.

        Raises:
            FormatError: for keys that cannot be.

        """
        views = [View.of(shard, transaction) for shard, transaction in zip(shards, transactions, strict=True)]
        with self._lock:
            known = self._listing
            newer = known is None or all(view.follows(before) for view, before in zip(views, known.views, strict=True))
            listing = _list_all(views, transactions) if known is None else _follow(known, views, transactions)
            if newer:
                self._listing = listing
            return listing


def _list_all(views: Sequence[View], transactions: Sequence[Any]) -> Listing:
    return Listing(views, [view.shard.list_keys(at) for view, at in zip(views, transactions, strict=True)])


def _follow(known: Listing, views: Sequence[View], transactions: Sequence[Any]) -> Listing:
    if tuple(views) == known.views:
        return known
    parts = []
    same = True
    for number, (view, transaction) in enumerate(zip(views, transactions, strict=True)):
        before = known.keys_of(number)
        part = before if view == known.views[number] else _list_changed(before, known.views[number], view, transaction)
        same = same and part is before
        parts.append(part)
    listing = known.succeed(views) if same else Listing(views, parts)
    listing.keep_places(known)
    return listing


def _list_changed(before: ShardKeys, known: View, view: View, transaction: Any) -> ShardKeys:
    """The keys of a shard in a later state (in another one: listed anew); ``before`` itself where they are the same."""
    shard = view.shard
    changed = shard.changed_users(transaction, known.changes) if view.follows(known) else None
    if changed is None or _LISTED_ANEW * len(changed) > len(before.user) + len(before.tails):
        return shard.list_keys(transaction)
    return replace_users(before, changed, shard.list_keys(transaction, changed))


def replace_users(before: ShardKeys, changed: Int64s, now: ShardKeys) -> ShardKeys:
    """Keys with those of some users, who ascend, replaced by what they have now."""
    old = _rows_of(before.user, changed)
    old_tails = _rows_of(before.tails, changed)
    chunks_stay = all(
        np.array_equal(getattr(before, name)[old], getattr(now, name)) for name in ("user", "start", "end")
    )
    tails_stay = np.array_equal(before.tails[old_tails], now.tails)
    if chunks_stay and tails_stay:
        return before
    tails = before.tails if tails_stay else _put_in(before.tails, old_tails, before.tails, now.tails, now.tails)
    if chunks_stay:
        return ShardKeys(before.user, before.start, before.end, tails)
    return ShardKeys(
        _put_in(before.user, old, before.user, now.user, now.user),
        _put_in(before.user, old, before.start, now.user, now.start),
        _put_in(before.user, old, before.end, now.user, now.end),
        tails,
    )


def _rows_of(user: Int64s, changed: Int64s) -> Int64s:
    """Rows of these users in a column of users that ascends: int64[n]."""
    first = np.searchsorted(user, changed)
    count = np.searchsorted(user, changed, "right") - first
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    rows: Int64s = np.repeat(first, count) + within
    return rows


def _put_in(user: Int64s, gone: Int64s, values: Int64s, new_user: Int64s, new_values: Int64s) -> Int64s:
    """A column in the order of ``user`` without some rows, and with new ones where their users belong."""
    at = np.searchsorted(np.delete(user, gone), new_user)
    column: Int64s = np.insert(np.delete(values, gone), at, new_values)
    return column
