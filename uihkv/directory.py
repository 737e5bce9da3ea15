"""Where every chunk and tail of a snapshot is: the directory that all its readers share.

Flat arrays over all shards, built from keys alone: a large store is opened without reading it. Where a value lies in
LMDB's map is looked up on first use and then remembered for the life of the snapshot. Memory: 50 bytes a chunk and
66 a user (its tail included).

Entries stand in this order: the chunks of shard 0 in key order, of shard 1, …, then one tail a user, in the order of
the users. Users are ascending within each shard. What entries hold is :mod:`uihkv.codec`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.codec import Entries, Layouts
from uihkv.kernels.plan import find_rows
from uihkv.shard import Shard

Int64s = NDArray[np.int64]


class SnapshotDirectory:
    """Every chunk and tail, as one read transaction a shard sees them.

    Not safe for threads: the snapshot holds a lock around :meth:`prepare`.

    Attributes:
        users: int64[users], ascending within each shard.
        first_user: int64[shards + 1], each shard's users.
        first_chunk: int64[users + 1], each user's chunks among the entries.
        entries: the entries; the tail of user row ``r`` is entry ``first_tail + r``.

    """

    __slots__ = ("_shard_chunks", "_shards", "_transactions", "entries", "first_chunk", "first_user", "users")

    def __init__(self, shards: Sequence[Shard], transactions: Sequence[Any]) -> None:
        self._shards = shards
        self._transactions = transactions
        chunks: list[tuple[Int64s, Int64s, Int64s]] = []
        tails: list[Int64s] = []
        bounds: list[Int64s] = []
        before = 0
        for shard, transaction in zip(shards, transactions, strict=True):
            keys, users = shard.list_keys(transaction)
            bounds.append(np.searchsorted(keys[0], users) + before)
            before += len(keys[0])
            chunks.append(keys)
            tails.append(users)
        self.users = np.concatenate(tails)
        self.first_user = _running([len(users) for users in tails])
        self.first_chunk = np.concatenate([*bounds, np.array([before])])
        self._shard_chunks = _running([len(user) for user, _, _ in chunks])
        number = np.arange(len(shards), dtype=np.uint16)
        shard_of = np.concatenate(
            [np.repeat(number, np.diff(self._shard_chunks)), np.repeat(number, np.diff(self.first_user))]
        )
        user, start, end = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        self.entries = Entries(shard_of, (user, start, end), self.users)

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
        shard = entries.shard[fresh]
        for number in np.unique(shard).tolist():
            self._shards[number].find_values(self._transactions[number], entries, fresh[shard == number])
        entries.open(fresh, layouts, verify)


def _running(counts: Sequence[int]) -> Int64s:
    """Where each part begins, and where the last one ends."""
    total = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=total[1:])
    return total
