"""Which row of a snapshot's directory holds a user's history?

int64 ids are looked up as they are. A string id is looked up by its hash; what stands there is compared with the name
in full, and where another user has that number, the next one of the sequence is tried: numbers are never freed, so that
the first one that nobody has ends the search.

Names are taken from the store when they are first asked for, and kept: 16 bytes a user of the directory, and the bytes
of the names that were asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.directory import SnapshotDirectory
from uihkv.distinct import Bytes
from uihkv.errors import PointerError
from uihkv.kernels.coded import match_names
from uihkv.names import hash_names, next_numbers, pack_names
from uihkv.shard import Shard
from uihkv.slabs import address_of
from uihkv.userids import INT64, STRING, UserIds, is_string

Int64s = NDArray[np.int64]


class UserLookup:
    """Rows of users in a directory; safe for threads.

    Args:
        kind: of the store's user ids.
        directory: of the snapshot.
        shards, transactions: what it is a directory of.

    """

    __slots__ = ("_address", "_directory", "_kept", "_kind", "_lock", "_shards", "_size", "_transactions")

    def __init__(
        self, kind: str, directory: SnapshotDirectory, shards: Sequence[Shard], transactions: Sequence[Any]
    ) -> None:
        self._kind = kind
        self._directory = directory
        self._shards = shards
        self._transactions = transactions
        self._lock = threading.Lock()
        self._kept: list[Bytes] = []
        self._address = self._size = np.empty(0, np.int64)

    def rows_of(self, user_ids: UserIds) -> Int64s:
        """Row of each user, -1 for users without a history: int64[n].

        Raises:
            PointerError: for ids that are not of the store's kind.

        """
        if len(user_ids) and is_string(user_ids) != (self._kind == STRING):
            given = STRING if is_string(user_ids) else INT64
            raise PointerError(
                f"the user ids given are {given}, this store's are {self._kind}; they are of another store"
            )
        if not is_string(user_ids):
            return self._directory.rows_of(user_ids)
        return self._rows_of_names(user_ids)

    def _rows_of_names(self, user_ids: UserIds) -> Int64s:
        values, offsets = pack_names(user_ids)
        number = hash_names(values, offsets)
        row = self._directory.rows_of(number)
        unsure = np.flatnonzero(row >= 0)
        while len(unsure):
            self._find_names(row[unsure])
            same = np.empty(len(unsure), np.bool_)
            match_names(values, offsets, unsure, row[unsure], self._address, self._size, same)
            unsure = unsure[~same]
            number[unsure] = next_numbers(number[unsure], len(self._shards))
            row[unsure] = self._directory.rows_of(number[unsure])
            unsure = unsure[row[unsure] >= 0]
        return row

    def _find_names(self, row: Int64s) -> None:
        """Make sure that the names of these rows are at hand."""
        directory = self._directory
        with self._lock:
            if not len(self._address):
                self._size = np.zeros(len(directory.row_user), np.int64)
                self._address = np.zeros(len(directory.row_user), np.int64)
            unknown = row[self._address[row] == 0]
            if not len(unknown):
                return
            unknown = np.unique(unknown)
            shard = directory.entries.shard[directory.entries.first_tail + unknown]
            for number in np.unique(shard).tolist():
                some = unknown[shard == number]
                names, transaction = self._shards[number].names, self._transactions[number]
                values, offsets = names.names_of(transaction, directory.row_user[some])
                self._kept.append(values)
                self._size[some] = np.diff(offsets)
                self._address[some] = address_of(values) + offsets[:-1]

    def users(self) -> UserIds:
        """All users that have a history, ascending: int64[users], or strings."""
        if self._kind == INT64:
            return np.sort(self._directory.users())
        names = [
            name
            for shard, transaction in zip(self._shards, self._transactions, strict=True)
            for name in shard.names.list_names(transaction)
        ]
        return np.sort(np.array(names, np.dtypes.StringDType()))
