"""Where is every chunk and tail, and what does it cost to know when the store has grown?

A :class:`Listing` is what all snapshots of the same transactions share: every range of versions, and where the values
lie in LMDB's map. It is built from keys alone, so that a large store is opened without reading it, and from the listing
before: shards that nobody has written to are taken over; of others the pages are read that were not there before, if a
snapshot as old as that listing was open until now (:mod:`uihkv.tree`), else all pages of keys.

Rows and entries are numbers into the flat arrays of an :class:`Arena`, which listings share. A row is a user as some
of them see him: his chunks, which stand together and in order, and his tail. It never changes. Where a chunk or the
tail of a user is new, or has moved with the page that it shares, he gets a new row; a listing is which row each user
has. So a listing that follows another costs the pages that changed, the users in them, and 16 bytes a user of their
shards.
What the rows of older listings hold is left behind when an arena is full, and the newest one moves to another.

Entries stand in this order: room for chunks, then one tail a row. Memory: 42 bytes a chunk, 82 a user with his tail,
and up to half as much again of what older listings had.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from uihkv.codec import Entries
from uihkv.kernels.growth import DONE, NO_ROOM
from uihkv.kernels.plan import find_first_chunks
from uihkv.kernels.splice import NOBODYS, copy_rows, splice_chunks, splice_rows
from uihkv.shard import Shard, ShardGrowth, ShardKeys, ShardLeaves
from uihkv.slabs import address_of

Int64s = NDArray[np.int64]

_LEAST_ROOM = 256


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


@dataclass(frozen=True, slots=True)
class ShardRows:
    """Which row each user of a shard has.

    Attributes:
        users: int64[users], ascending.
        rows: int64[users].
        leaves: pages of the keys; None: nothing can follow them.
        place: addresses of the users and of the rows, and how many they are.

    """

    users: Int64s
    rows: Int64s
    leaves: ShardLeaves | None
    place: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", (address_of(self.users), address_of(self.rows), len(self.rows)))


class _NoRoomError(Exception):
    """The arena is full."""


class OddError(Exception):
    """What was read does not fit what is known."""


class Arena:
    """Rows and their entries, added to while there is room; whoever adds holds the lock of :class:`NewestListing`.

    Args:
        chunks, rows: for how many there is room.

    Attributes:
        entries: none of them opened: an address says where a value lies, 0 that nobody asked yet.
        chunks_of: int64[rows, 2], where each row's chunks begin and end among the entries.
        row_user: int64[rows].
        chunks, rows: how many there are.

    """

    __slots__ = ("chunks", "chunks_of", "entries", "lock", "row_user", "rows")

    def __init__(self, chunks: int, rows: int) -> None:
        self.lock = threading.Lock()
        self.entries = Entries.reserve(chunks, rows)
        self.chunks_of = np.empty((rows, 2), np.int64)
        self.row_user = np.empty(rows, np.int64)
        self.chunks = self.rows = 0

    def _columns(self) -> tuple[Int64s, ...]:
        entries = self.entries
        return entries.user, entries.start, entries.end, entries.address, entries.size

    def put(self, number: int, keys: ShardKeys) -> ShardRows:
        """Add all of a shard."""
        chunks, rows, entries = len(keys.user), len(keys.tails), self.entries
        at, row = self.chunks + 1, self.rows
        if at + chunks > entries.first_tail or row + rows > len(self.row_user):
            raise _NoRoomError
        self._separate(self.chunks)
        sealed, tails = slice(at, at + chunks), slice(entries.first_tail + row, entries.first_tail + row + rows)
        entries.user[sealed], entries.start[sealed], entries.end[sealed] = keys.user, keys.start, keys.end
        entries.user[tails], entries.start[tails], entries.end[tails] = keys.tails, -1, -1
        for some, there in ((sealed, slice(None, chunks)), (tails, slice(chunks, None))):
            entries.shard[some] = number
            entries.address[some] = 0 if keys.address is None else keys.address[there]
            entries.size[some] = 0 if keys.size is None else keys.size[there]
        self.row_user[row : row + rows] = keys.tails
        first = np.full(rows + 1, at + chunks)
        find_first_chunks(keys.user, keys.tails, at, first[:-1])
        self.chunks_of[row : row + rows, 0] = first[:-1]
        self.chunks_of[row : row + rows, 1] = first[1:]
        self.chunks, self.rows = at + chunks, row + rows
        return ShardRows(keys.tails, np.arange(row, row + rows), keys.leaves)

    def grow(self, number: int, known: ShardRows, growth: ShardGrowth) -> ShardRows:
        """Add those users of a shard of whom something changed."""
        users, rows, entries, columns = known.users, known.rows, self.entries, self._columns()
        sealed, tails = growth.chunks, growth.tails
        changed = np.empty((len(users) + len(sealed.fresh), 3), np.int64)
        at, n = self.chunks, 0
        if not sealed.is_none:
            code, at, n = splice_chunks(
                sealed.known, sealed.table, sealed.origin, sealed.fresh, users, rows, self.chunks_of, columns,
                entries.shard, number, at, entries.first_tail, changed,
            )  # fmt: skip
            _check(code)
        new = np.empty((2, len(users) + len(tails.fresh)), np.int64)
        code, row, count, same = splice_rows(
            tails.known, tails.table, tails.origin, tails.fresh, changed[:n], users, rows, self.chunks_of,
            self.row_user, columns, entries.shard, entries.first_tail, number, self.rows, new[0], new[1],
        )  # fmt: skip
        _check(code)
        self.chunks, self.rows = at, row
        leaves = ShardLeaves(sealed.leaves, tails.leaves)
        return ShardRows(users if same else new[0, :count], new[1, :count], leaves)

    def copy(self, number: int, known: ShardRows, source: Arena) -> ShardRows:
        """Add a shard as another arena has it."""
        row, rows, entries = self.rows, len(known.rows), self.entries
        at = self.chunks
        self._separate(at)
        self.chunks = copy_rows(
            known.rows, number, source.chunks_of, source.row_user, source._columns(), source.entries.first_tail,
            self.chunks_of, self.row_user, self._columns(), entries.shard, entries.first_tail, at + 1, row,
        )  # fmt: skip
        self.rows += rows
        return ShardRows(known.users, np.arange(row, row + rows), known.leaves)

    def chunks_in(self, rows: Int64s) -> int:
        """How many chunks rows have, and one that parts them from others."""
        return int((self.chunks_of[rows, 1] - self.chunks_of[rows, 0]).sum()) + 1

    def _separate(self, at: int) -> None:
        entries = self.entries
        entries.user[at] = entries.start[at] = entries.end[at] = entries.address[at] = entries.size[at] = 0
        entries.shard[at] = NOBODYS


class Listing:
    """Every chunk and tail in some states of all shards.

    Attributes:
        views: the states.
        shards: which rows their users have.
        arena: what the rows are.
        index: int64[shards, 3], of each shard: the addresses of its users and of their rows, and how many they are.

    """

    __slots__ = ("arena", "index", "shards", "views")

    def __init__(self, views: Sequence[View], shards: Sequence[ShardRows], arena: Arena) -> None:
        self.views = tuple(views)
        self.shards = tuple(shards)
        self.arena = arena
        self.index = np.array([some.place for some in shards], np.int64)

    def locate(self, wanted: Int64s, transactions: Sequence[Any]) -> Int64s:
        """Where values lie: int64[n]; 0 for those that are not there. Transactions of the listing's own states."""
        entries = self.arena.entries
        with self.arena.lock:
            unknown = wanted[entries.address[wanted] == 0]
            shard = entries.shard[unknown]
            for number in np.unique(shard).tolist():
                self.views[number].shard.find_values(transactions[number], entries, unknown[shard == number])
            return entries.address[wanted]


@dataclass(frozen=True, slots=True)
class Predecessor:
    """What a snapshot's listing can follow.

    Attributes:
        listing: the newest when the snapshot began.
        held: of each shard, whether a snapshot that was open then kept what the listing saw from being written to.

    """

    listing: Listing
    held: tuple[bool, ...]


class NewestListing:
    """The newest listing that a store's handle has; safe for threads."""

    __slots__ = ("_listing", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listing: Listing | None = None

    def predecessor(self, shards: Sequence[Shard], transactions: Sequence[Any]) -> Predecessor | None:
        """What the listing of these read transactions, which have just begun, can follow."""
        known = self._listing
        if known is None:
            return None
        held = [
            view.shard is shard and (transaction.id() == view.transaction_id or shard.holds_back(view.transaction_id))
            for view, shard, transaction in zip(known.views, shards, transactions, strict=True)
        ]
        return Predecessor(known, tuple(held))

    def follow(
        self, shards: Sequence[Shard], transactions: Sequence[Any], predecessor: Predecessor | None = None
    ) -> Listing:
        """The listing of the states that these read transactions see: only what is in another state is listed.

        Raises:
            FormatError: for keys that cannot be, or damaged pages.

        """
        views = tuple(View.of(shard, transaction) for shard, transaction in zip(shards, transactions, strict=True))
        with self._lock:
            newest = self._listing
            if newest is not None and newest.views == views:
                return newest
            known = newest if predecessor is None else predecessor.listing
            found: list[ShardRows | ShardGrowth | ShardKeys] = []
            for number, view in enumerate(views):
                before = None if known is None else known.views[number]
                rows = None if known is None else known.shards[number]
                found.append(_look(view, before, rows, transactions[number], predecessor, number))
            listing = _put_together(views, found, known, transactions)
            if newest is None or all(view.follows(before) for view, before in zip(views, newest.views, strict=True)):
                self._listing = listing
            return listing


def _look(
    view: View, before: View | None, rows: ShardRows | None, transaction: Any, predecessor: Predecessor | None,
    number: int,
) -> ShardRows | ShardGrowth | ShardKeys:  # fmt: skip
    """What there is to say of a shard: nothing new, what has changed, or all."""
    if before is not None and rows is not None:
        if before == view:
            return rows
        if predecessor is not None and predecessor.held[number] and rows.leaves is not None and view.follows(before):
            growth = view.shard.list_growth(transaction, rows.leaves)
            if growth is not None:
                return growth
    return view.shard.list_values(transaction)


def _put_together(
    views: Sequence[View], found: list[ShardRows | ShardGrowth | ShardKeys], known: Listing | None,
    transactions: Sequence[Any],
) -> Listing:  # fmt: skip
    """A listing of what was found; in the arena of the known one if there is room."""
    arena, before = (None, ()) if known is None else (known.arena, known.shards)
    while True:
        try:
            if arena is None:
                arena, before = _move(found, known)
            shards = []
            for number, some in enumerate(found):
                if isinstance(some, ShardRows):
                    shards.append(before[number])
                elif isinstance(some, ShardKeys):
                    shards.append(arena.put(number, some))
                else:
                    shards.append(arena.grow(number, before[number], some))
            return Listing(views, shards, arena)
        except _NoRoomError:
            arena = None
        except OddError:
            found[number] = views[number].shard.list_values(transactions[number])


def _move(
    found: Sequence[ShardRows | ShardGrowth | ShardKeys], known: Listing | None
) -> tuple[Arena, tuple[ShardRows, ...]]:
    """A larger arena with what of the known rows goes on, and room for what was found."""
    chunks = rows = more_chunks = more_rows = 0
    for number, some in enumerate(found):
        if isinstance(some, ShardKeys):
            chunks += len(some.user) + 1
            rows += len(some.tails)
            continue
        assert known is not None  # what else was found goes on from it
        mine = known.shards[number].rows
        own = known.arena.chunks_in(mine)
        chunks, rows = chunks + own, rows + len(mine)
        if isinstance(some, ShardGrowth):
            more_chunks += own + len(some.chunks.fresh)
            more_rows += len(mine) + len(some.tails.fresh)
    arena = Arena(chunks + max(chunks // 2, more_chunks, _LEAST_ROOM), rows + max(rows // 2, more_rows, _LEAST_ROOM))
    if known is None:
        return arena, ()
    return arena, tuple(
        before if isinstance(some, ShardKeys) else arena.copy(number, before, known.arena)
        for number, (some, before) in enumerate(zip(found, known.shards, strict=True))
    )


def _check(code: int) -> None:
    if code == NO_ROOM:
        raise _NoRoomError
    if code != DONE:
        raise OddError
