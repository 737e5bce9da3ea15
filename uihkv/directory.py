"""Which chunks and tails a snapshot has opened, and what of them it has verified.

A :class:`SnapshotDirectory` is one snapshot's own; where its chunks and tails are, the listing says that it shares with
others (:mod:`uihkv.listing`). What entries hold is :mod:`uihkv.codec`'s. Memory: 17 bytes an entry that it uses.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from uihkv.codec import Layouts, ask_for_values
from uihkv.errors import CorruptChunkError
from uihkv.kernels.plan import are_open, find_rows
from uihkv.listing import Listing
from uihkv.shard import Shard

Int64s = NDArray[np.int64]
Ahead = Literal["headers", "values"]

_TYPICAL = 1024
"""Chunks that stand for all."""


class SnapshotDirectory:
    """Every chunk and tail, as one read transaction a shard sees them, and what of them a snapshot has opened.

    Not safe for threads: the snapshot holds a lock around :meth:`prepare`.

    Attributes:
        row_user: int64[rows], whose each row is; a user's row is one of those.
        chunks_of: int64[rows, 2], where each row's chunks begin and end among the entries.
        entries: the listing's entries, opened on first use; the tail of row ``r`` is entry ``first_tail + r``.
        opened: uint8[entries], 1 of those that were found sound; set last, so that it may be looked at without the
            lock.
        slices_each: of a pointer, for how many there is room when a read is planned; grows with what is seen.

    """

    __slots__ = ("_listing", "_transactions", "chunks_of", "entries", "opened", "row_user", "slices_each")

    def __init__(self, listing: Listing, transactions: Sequence[Any]) -> None:
        self._listing = listing
        self._transactions = transactions
        self.row_user, self.chunks_of = listing.arena.row_user, listing.arena.chunks_of
        self.entries = listing.arena.entries.unopened()
        self.opened = np.zeros(len(self.entries.address), np.uint8)
        self.slices_each = 4
        self.entries.name_of = functools.partial(_name_of, [view.shard for view in listing.views], transactions)

    def rows_of(self, user_id: Int64s) -> Int64s:
        """Row of each user, -1 for users without a history: int64[n]."""
        rows = np.empty(len(user_id), np.int64)
        find_rows(user_id, self._listing.index, rows)
        return rows

    @property
    def index(self) -> Int64s:
        """The listing's: where each shard's users are."""
        return self._listing.index

    def users(self) -> Int64s:
        """All users, ascending within each shard: int64[users]."""
        return np.concatenate([rows.users for rows in self._listing.shards])

    def users_of(self, number: int) -> Int64s:
        """The users of a shard, ascending: int64[users]."""
        return self._listing.shards[number].users

    def typical_events(self) -> int:
        """Events of a chunk, about."""
        some = slice(0, min(self._listing.arena.chunks, _TYPICAL))
        return max(1, int((self.entries.end[some] - self.entries.start[some]).mean())) if some.stop else 256

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
        if are_open(self.opened, wanted):
            return 0
        fresh = np.unique(wanted[self.opened[wanted] == 0])
        address = self._listing.locate(fresh, self._transactions)
        asked = ask_for_values(entries, fresh, address, ahead == "values", always)
        entries.address[fresh] = address
        entries.open(fresh, layouts, verify)
        self._check_ranges(fresh)
        self.opened[fresh] = 1
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
        has_chunks = self.chunks_of[row, 1] > self.chunks_of[row, 0]
        tails, last = tails[has_chunks], self.chunks_of[row, 1][has_chunks] - 1
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
