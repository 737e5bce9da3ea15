"""Where every chunk and tail of a snapshot is.

A :class:`Listing` is what all snapshots of the same transactions share: every range of versions, built from keys alone,
so that a large store is opened without reading it, and where values lie in LMDB's map, looked up on first use. A
:class:`SnapshotDirectory` is one snapshot's own: which entries it has opened, and what of them it has verified.
How the next listing follows from one when the store has grown is :mod:`uihkv.refresh`'s.

Flat arrays over all shards. Entries stand in this order: the chunks of shard 0 in key order, of shard 1, …, then one
tail a user, in the order of the users. Users are ascending within each shard. What entries hold is
:mod:`uihkv.codec`'s. Memory: 42 bytes a chunk and 58 a user (its tail included), and 16 an entry that a snapshot uses.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from uihkv.codec import Entries, Layouts
from uihkv.kernels.plan import find_rows
from uihkv.shard import Shard, ShardKeys

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class View:
    """Which state of a shard was listed.

    Attributes:
        shard: the open shard.
        map_bytes: size of its map: where values lie is another place in another map.
        transaction_id: of the last transaction that had committed. Until the next one commits, no page changes place.
        changes: how many changed users it had noted.

    """

    shard: Shard
    map_bytes: int
    transaction_id: int
    changes: int

    @classmethod
    def of(cls, shard: Shard, transaction: Any) -> Self:
        """The state that a read transaction sees."""
        return cls(shard, shard.map_bytes(), transaction.id(), shard.changes(transaction))

    def follows(self, other: View) -> bool:
        """Whether it is the same shard, no older and at the same place."""
        return (
            self.shard is other.shard
            and self.map_bytes == other.map_bytes
            and self.transaction_id >= other.transaction_id
        )


class Listing:
    """Every chunk and tail in some states of all shards.

    Attributes:
        views: the states.
        users: int64[users], ascending within each shard.
        first_user: int64[shards + 1], each shard's users.
        first_chunk: int64[users + 1], each user's chunks among the entries.
        entries: the entries, none of them opened: an address says where a value lies, 0 that nobody asked yet.

    """

    __slots__ = ("_lock", "_shard_chunks", "entries", "first_chunk", "first_user", "users", "views")

    def __init__(self, views: Sequence[View], parts: Sequence[ShardKeys]) -> None:
        self._lock = threading.Lock()
        self.views = tuple(views)
        self.users = np.concatenate([part.tails for part in parts])
        self.first_user = _running([len(part.tails) for part in parts])
        self._shard_chunks = _running([len(part.user) for part in parts])
        before = self._shard_chunks.tolist()
        bounds = [np.searchsorted(part.user, part.tails) + before[i] for i, part in enumerate(parts)]
        self.first_chunk = np.concatenate([*bounds, self._shard_chunks[-1:]])
        number = np.arange(len(parts), dtype=np.uint16)
        shard_of = np.concatenate(
            [np.repeat(number, np.diff(self._shard_chunks)), np.repeat(number, np.diff(self.first_user))]
        )
        ranges = [np.concatenate([getattr(part, name) for part in parts]) for name in ("user", "start", "end")]
        self.entries = Entries(shard_of, (ranges[0], ranges[1], ranges[2]), self.users)

    def succeed(self, views: Sequence[View]) -> Listing:
        """The listing of later states with the same keys; the arrays that keys give are shared."""
        other: Listing = object.__new__(Listing)
        other._lock = threading.Lock()
        other.views = tuple(views)
        other.users, other.first_user, other.first_chunk = self.users, self.first_user, self.first_chunk
        other._shard_chunks = self._shard_chunks
        other.entries = self.entries.with_closed_tails()
        return other

    def keep_places(self, before: Listing) -> None:
        """Take over where the values of unchanged shards lie."""
        with before._lock:
            for number, (view, known) in enumerate(zip(self.views, before.views, strict=True)):
                if view != known:
                    continue
                pairs = zip(self.spans_of(number), before.spans_of(number), strict=True)
                for here, there in pairs:
                    self.entries.address[here] = before.entries.address[there]
                    self.entries.size[here] = before.entries.size[there]

    def spans_of(self, number: int) -> tuple[slice, slice]:
        """Where the chunks and where the tails of a shard stand among the entries."""
        tails = self.first_user[number : number + 2] + self.entries.first_tail
        chunks = self._shard_chunks[number : number + 2]
        return slice(*chunks.tolist()), slice(*tails.tolist())

    def keys_of(self, number: int) -> ShardKeys:
        """The keys of one shard, as views of the arrays."""
        chunks, tails = self.spans_of(number)
        entries = self.entries
        return ShardKeys(entries.user[chunks], entries.start[chunks], entries.end[chunks], entries.user[tails])

    def locate(self, wanted: Int64s, transactions: Sequence[Any]) -> Int64s:
        """Where values lie: int64[n]; 0 for those that are not there. Transactions of the listing's own states."""
        entries = self.entries
        with self._lock:
            unknown = wanted[entries.address[wanted] == 0]
            shard = entries.shard[unknown]
            for number in np.unique(shard).tolist():
                self.views[number].shard.find_values(transactions[number], entries, unknown[shard == number])
            return entries.address[wanted]


class SnapshotDirectory:
    """Every chunk and tail, as one read transaction a shard sees them, and what of them a snapshot has opened.

    Not safe for threads: the snapshot holds a lock around :meth:`prepare`.

    Attributes:
        users, first_user, first_chunk: those of the listing.
        entries: the listing's entries, opened on first use; the tail of user row ``r`` is entry ``first_tail + r``.

    """

    __slots__ = ("_listing", "_transactions", "entries", "first_chunk", "first_user", "users")

    def __init__(self, listing: Listing, transactions: Sequence[Any]) -> None:
        self._listing = listing
        self._transactions = transactions
        self.users, self.first_user, self.first_chunk = listing.users, listing.first_user, listing.first_chunk
        self.entries = listing.entries.unopened()

    def rows_of(self, user_id: Int64s) -> Int64s:
        """Row of each user among ``users``, -1 for users without a history: int64[n]."""
        rows = np.empty(len(user_id), np.int64)
        find_rows(user_id, self.first_user, self.users, rows)
        return rows

    def prepare(self, wanted: Int64s, layouts: Layouts, verify: int) -> None:
        """Look up and check the entries among the wanted that were not used before.

        Raises:
            CorruptChunkError, FormatError: for values that are no chunks.

        """
        entries = self.entries
        unused = entries.address[wanted] == 0
        if not unused.any():
            return
        fresh = np.unique(wanted[unused])
        entries.address[fresh] = self._listing.locate(fresh, self._transactions)
        entries.open(fresh, layouts, verify)


def _running(counts: Sequence[int]) -> Int64s:
    """Where each part begins, and where the last one ends."""
    return np.fromiter(itertools.accumulate(counts, initial=0), np.int64, len(counts) + 1)
