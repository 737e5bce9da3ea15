"""Where every chunk and tail of a snapshot is.

A :class:`Listing` is what all snapshots of the same transactions share: every range of versions, and where the values
lie in LMDB's map. It is built from keys alone, so that a large store is opened without reading it, and from the
listing before: the shards that nobody has written to since are taken over. A :class:`SnapshotDirectory` is one
snapshot's own: which entries it has opened, and what of them it has verified.

Flat arrays over all shards. Entries stand in this order: the chunks of shard 0 in key order, of shard 1, …, then one
tail a user, in the order of the users. Users are ascending within each shard. What entries hold is
:mod:`uihkv.codec`'s. Memory: 42 bytes a chunk and 58 a user (its tail included), and 16 an entry that a snapshot uses.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from uihkv.codec import Entries, Layouts, ask_for_values
from uihkv.errors import CorruptChunkError
from uihkv.kernels.plan import find_first_chunks, find_rows
from uihkv.shard import Shard, ShardKeys

Int64s = NDArray[np.int64]
Ahead = Literal["headers", "values"]


@dataclass(frozen=True, slots=True)
class View:
    """Which state of a shard was listed.

    Attributes:
        shard: the open shard.
        map_bytes: size of its map: where values lie is another place in another map.
        transaction_id: of the last transaction that had committed. Until the next one commits, no page changes place.

    """

    shard: Shard
    map_bytes: int
    transaction_id: int

    @classmethod
    def of(cls, shard: Shard, transaction: Any) -> Self:
        """The state that a read transaction sees."""
        return cls(shard, shard.map_bytes(), transaction.id())

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
        self.first_chunk = np.empty(len(self.users) + 1, np.int64)
        self.first_chunk[-1] = self._shard_chunks[-1]
        number = np.arange(len(parts), dtype=np.uint16)
        shard_of = np.concatenate(
            [np.repeat(number, np.diff(self._shard_chunks)), np.repeat(number, np.diff(self.first_user))]
        )
        ranges = [np.concatenate([getattr(part, name) for part in parts]) for name in ("user", "start", "end")]
        self.entries = Entries(shard_of, (ranges[0], ranges[1], ranges[2]), self.users)
        for index, part in enumerate(parts):
            before, users = self._shard_chunks[index], slice(*self.first_user[index : index + 2].tolist())
            find_first_chunks(part.user, part.tails, before, self.first_chunk[users])
            if part.address is not None and part.size is not None:
                for span, there in zip(self._spans_of(index), _halves(len(part.user)), strict=True):
                    self.entries.address[span] = part.address[there]
                    self.entries.size[span] = part.size[there]

    def _spans_of(self, number: int) -> tuple[slice, slice]:
        """Where the chunks and where the tails of a shard stand among the entries."""
        tails = self.first_user[number : number + 2] + self.entries.first_tail
        chunks = self._shard_chunks[number : number + 2]
        return slice(*chunks.tolist()), slice(*tails.tolist())

    def keys_of(self, number: int) -> ShardKeys:
        """What was found of one shard."""
        chunks, tails = self._spans_of(number)
        entries = self.entries
        with self._lock:
            address, size = (np.concatenate([part[chunks], part[tails]]) for part in (entries.address, entries.size))
        return ShardKeys(
            entries.user[chunks], entries.start[chunks], entries.end[chunks], entries.user[tails], address, size
        )

    def locate(self, wanted: Int64s, transactions: Sequence[Any]) -> Int64s:
        """Where values lie: int64[n]; 0 for those that are not there. Transactions of the listing's own states."""
        entries = self.entries
        with self._lock:
            unknown = wanted[entries.address[wanted] == 0]
            shard = entries.shard[unknown]
            for number in np.unique(shard).tolist():
                self.views[number].shard.find_values(transactions[number], entries, unknown[shard == number])
            return entries.address[wanted]


class NewestListing:
    """The newest listing that a store's handle has; safe for threads."""

    __slots__ = ("_listing", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listing: Listing | None = None

    def follow(self, shards: Sequence[Shard], transactions: Sequence[Any]) -> Listing:
        """The listing of the states that these read transactions see: only shards in another state are listed.

        Raises:
            FormatError: for keys that cannot be, or damaged pages.

        """
        views = tuple(View.of(shard, transaction) for shard, transaction in zip(shards, transactions, strict=True))
        with self._lock:
            known = self._listing
            if known is not None and known.views == views:
                return known
            listing = Listing(
                views,
                [
                    known.keys_of(number)
                    if known is not None and known.views[number] == view
                    else view.shard.list_values(transactions[number])
                    for number, view in enumerate(views)
                ],
            )
            if known is None or all(view.follows(before) for view, before in zip(views, known.views, strict=True)):
                self._listing = listing
            return listing


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
        self.entries.name_of = functools.partial(_name_of, [view.shard for view in listing.views], transactions)

    def rows_of(self, user_id: Int64s) -> Int64s:
        """Row of each user among ``users``, -1 for users without a history: int64[n]."""
        rows = np.empty(len(user_id), np.int64)
        find_rows(user_id, self.first_user, self.users, rows)
        return rows

    def prepare(
        self, wanted: Int64s, layouts: Layouts, verify: int, ahead: Ahead = "headers", always: bool = False
    ) -> int:
        """Look up and check the entries among the wanted that were not used before.

        Args:
            wanted: int64[n], entries.
            layouts: of the store.
            verify: one of the codec's codes.
            ahead: which of their pages to ask the system for before the first is touched, unless they are in memory;
                always: in any case.

        Returns:
            bytes asked for.

        Raises:
            CorruptChunkError, FormatError: for values that are no chunks.

        """
        entries = self.entries
        unused = entries.address[wanted] == 0
        if not unused.any():
            return 0
        fresh = np.unique(wanted[unused])
        address = self._listing.locate(fresh, self._transactions)
        asked = ask_for_values(entries, fresh, address, ahead == "values", always)
        entries.address[fresh] = address
        entries.open(fresh, layouts, verify)
        self._check_ranges(fresh)
        return asked

    def _check_ranges(self, fresh: Int64s) -> None:
        """Refuse entries that do not begin where the one before ends: int64[n], opened, ascending.

        Each is sound by itself; that all of a user's are there, and none of another history of his, only this tells.
        """
        entries = self.entries
        split = int(np.searchsorted(fresh, entries.first_tail))
        sealed, tails = fresh[:split], fresh[split:]
        sealed = sealed[sealed > 0]
        row = tails - entries.first_tail
        has_chunks = self.first_chunk[row + 1] > self.first_chunk[row]
        tails, last = tails[has_chunks], self.first_chunk[row + 1][has_chunks] - 1
        same = (entries.user[sealed - 1] == entries.user[sealed]) & (entries.shard[sealed - 1] == entries.shard[sealed])
        broken = np.concatenate([
            sealed[same & (entries.end[sealed - 1] != entries.start[sealed])],
            tails[entries.end[last] != entries.start[tails]],
        ])  # fmt: skip
        if len(broken):
            at = int(broken[0])
            number, user = int(entries.shard[at]), int(entries.user[at])
            entries.address[fresh] = 0  # not opened: the next read finds it too
            name = _name_of([view.shard for view in self._listing.views], self._transactions, number, user)
            what, start, end = "it does not begin where the chunk before it ends", entries.start[at], entries.end[at]
            raise CorruptChunkError(what, shard=number, user_id=name, start=int(start), end=int(end))


def _name_of(shards: Sequence[Shard], transactions: Sequence[Any], number: int, user: int) -> int | str:
    return shards[number].names.name_of(transactions[number], user)


def _running(counts: Sequence[int]) -> Int64s:
    """Where each part begins, and where the last one ends."""
    return np.fromiter(itertools.accumulate(counts, initial=0), np.int64, len(counts) + 1)


def _halves(chunks: int) -> tuple[slice, slice]:
    return slice(None, chunks), slice(chunks, None)
