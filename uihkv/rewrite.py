"""Stored chunks in another form: what trimming, sealing and compacting share.

Events are decoded from any chunks and tails, in the newest schema, and encoded again; what was is taken away in the
transaction that puts what is. Versions stay, so that every pointer stays good; readers of older snapshots keep the
old pages until they end.

Invariants: a transaction touches a bounded number of users; everything of it is decoded before its first write, since
LMDB moves values when it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from ctypes import string_at
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.chunk import SCHEMA_AT
from uihkv.codec import (
    EncodedChunks,
    Entries,
    Layouts,
    Slices,
    encode,
    greatest_times,
)
from uihkv.events import Events
from uihkv.kernels.bases import find_bases
from uihkv.kernels.decode import VERIFY_ONCE
from uihkv.kernels.headers import load_schema_versions
from uihkv.schema import VISIBLE_AT
from uihkv.shard import Shard, decode_events

Int64s = NDArray[np.int64]

PART_USERS = 4096
"""Most users that one transaction touches."""
PART_EVENTS = 1 << 19
"""About how many events one transaction decodes."""


@dataclass(frozen=True, slots=True)
class ShardView:
    """A shard in one transaction, and how its chunks are written.

    Attributes:
        shard: the open shard.
        transaction: for reading, or for writing.
        layouts: of every schema that the transaction can see.
        chunk_events: most events of a chunk.
        compress: whether LZ4 is tried.

    """

    shard: Shard
    transaction: Any
    layouts: Layouts
    chunk_events: int
    compress: bool

    @property
    def part_users(self) -> int:
        """Users that one transaction touches, when each of them has a chunk and a tail rewritten."""
        return max(1, min(PART_USERS, PART_EVENTS // (2 * self.chunk_events)))


@dataclass(frozen=True, slots=True)
class ShardAccess:
    """How a store's shards are reached, one at a time.

    Attributes:
        shards: how many there are.
        reading: the shard in a read transaction, which ends with the ``with``.
        writing: the shard in a write transaction, which commits at the end of the ``with``, or aborts when that fails.

    """

    shards: int
    reading: Callable[[int], AbstractContextManager[ShardView]]
    writing: Callable[[int], AbstractContextManager[ShardView]]


class UserParts:
    """The chunks and tails of some users of a shard, as a transaction sees them.

    Attributes:
        users: int64[users], ascending: those of the given that have a history.
        first_chunk: int64[users + 1], each user's chunks among the entries.
        row: int64[chunks], the row of each chunk's user.
        entries: the chunks in key order, then the tails in the order of the users; opened by :meth:`open`.

    """

    __slots__ = ("_view", "entries", "first_chunk", "row", "users")

    def __init__(self, view: ShardView, users: Int64s | None = None) -> None:
        self._view = view
        shard, transaction = view.shard, view.transaction
        found = shard.list_values(transaction) if users is None else shard.list_keys(transaction, users)
        self.users = found.tails
        self.entries = Entries(shard.number, (found.user, found.start, found.end), self.users)
        self.entries.name_of = lambda _, user: shard.names.name_of(transaction, user)
        self.first_chunk = np.append(np.searchsorted(found.user, self.users), len(found.user))
        self.row = np.searchsorted(self.users, found.user)

    @property
    def tails(self) -> Int64s:
        """The entries that are tails: int64[users]."""
        return np.arange(self.entries.first_tail, len(self.entries.user))

    def open(self, wanted: Int64s) -> None:
        """Look up and check entries.

        Raises:
            CorruptChunkError, FormatError: for values that are no chunks.

        """
        fresh = np.unique(wanted[self.entries.address[wanted] == 0])
        if len(fresh):
            self._view.shard.find_values(self._view.transaction, self.entries, fresh)
            self.entries.open(fresh, self._view.layouts, VERIFY_ONCE)

    def bases(self) -> Int64s:
        """First version that each user still has: int64[users]; the tails are open."""
        base = np.empty(len(self.users), np.int64)
        row = np.arange(len(self.users))
        chunks_of = np.stack([self.first_chunk[:-1], self.first_chunk[1:]], 1)
        find_bases(row, chunks_of, self.entries.start, self.entries.first_tail, base)
        return base

    def heads(self) -> Int64s:
        """Version that names each whole history: int64[users]; the tails are open."""
        return self.entries.end[self.tails]

    def greatest_visible(self, wanted: Int64s) -> Int64s:
        """Greatest visible time of opened entries: int64[n]; of an empty tail, the greatest its user ever had."""
        return greatest_times(self.entries, self._view.layouts, wanted, VISIBLE_AT)

    def schema_versions(self, wanted: Int64s) -> Int64s:
        """Which of the store's schemas opened entries were written by: int64[n]."""
        return schema_versions(self.entries, wanted)

    def values(self, wanted: Int64s) -> list[bytes]:
        """The stored bytes of opened entries."""
        address, size = self.entries.address[wanted].tolist(), self.entries.size[wanted].tolist()
        return [string_at(place, length) for place, length in zip(address, size, strict=True)]

    def decode(self, wanted: Int64s, first: Int64s) -> Events:
        """Events of opened entries from a place in each on, entry by entry: int64[n] each."""
        count = (self.entries.end - self.entries.start)[wanted] - first
        out = np.cumsum(count) - count
        full = count > 0
        slices = Slices(wanted[full], first[full], (first + count)[full], out[full]).by_entry()
        return decode_events(self.entries, self._view.layouts, slices, np.repeat(self.entries.user[wanted], count))

    def encode(
        self, events: Events, count: Int64s, start: Int64s, user: Int64s, visible: Int64s, *, fill_pages: bool = False
    ) -> EncodedChunks:
        """Chunks of the newest schema from groups of consecutive events, one user each.

        Args:
            events: group by group.
            count: int64[groups], events of each; none gives one empty chunk.
            start: int64[groups], the version before its first event.
            user: int64[groups].
            visible: int64[groups], greatest visible time, for groups without events.
            fill_pages: cut chunks where they fill pages of the file; a group of few events may then give several.

        """
        view = self._view
        row = np.cumsum(count) - count
        page_bytes = view.shard.page_bytes if fill_pages else 0
        return encode(
            view.layouts, events, row, count, start, user, visible, view.chunk_events, view.compress, page_bytes
        )


def schema_versions(entries: Entries, wanted: Int64s) -> Int64s:
    """Which of the store's schemas opened entries were written by: int64[n]."""
    version = np.empty(len(wanted), np.int64)
    load_schema_versions(entries.address, wanted, SCHEMA_AT, version)
    return version
