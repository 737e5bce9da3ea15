"""One shard: an LMDB environment that holds the chunks, tails and source offsets of its users.

Its write path turns events into chunks and tails inside one transaction; its read path gives a directory of entries
over one read transaction. Which users belong to which shard is the store's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from uihkv import keys
from uihkv.codec import (
    EncodedChunks,
    Entries,
    Layouts,
    Slices,
    decode_fixed,
    decode_list_elements,
    decode_list_lengths,
    encode,
    greatest_times,
)
from uihkv.coded import read_coded
from uihkv.environment import Readers, close_environment, open_environment, page_errors
from uihkv.errors import FormatError, ReadOnlyError, StoreFullError
from uihkv.events import Events
from uihkv.freepages import list_free_pages
from uihkv.kernels.decode import VERIFY_ONCE
from uihkv.kernels.plan import lift_visible
from uihkv.nametable import NameTable
from uihkv.readcolumns import column_type
from uihkv.schema import TS, VISIBLE_AT
from uihkv.slabs import address_of
from uihkv.sources import UNKNOWN, SourceRecord
from uihkv.tree import Growth, Leaves, PathCheck, list_growth, list_values

Int64s = NDArray[np.int64]

_NO_CHUNKS = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))
_CHUNKS, _TAILS = b"chunks", b"tails"
_NEVER = np.iinfo(np.int64).min
_TRIES = 5


@dataclass(frozen=True, slots=True)
class ShardAppend:
    """What one shard made of its part of a batch."""

    appended: int
    replayed: int
    lifted: int
    users: int


@dataclass(frozen=True, slots=True)
class PageCounts:
    """Pages of a shard's chunks and tails, by kind, and the bytes of one."""

    branch: int
    leaf: int
    overflow: int
    page_bytes: int


@dataclass(frozen=True, slots=True)
class ShardLeaves:
    """Which pages held the keys of a shard."""

    chunks: Leaves
    tails: Leaves


@dataclass(frozen=True, slots=True)
class ShardGrowth:
    """Of a shard's keys and values, those in pages that an earlier transaction did not have."""

    chunks: Growth
    tails: Growth


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """What the keys of a shard, or of some of its users, say.

    Attributes:
        user, start, end: int64[chunks], in key order.
        tails: int64[tails], the users that have one, ascending.
        address, size: int64[chunks + tails], where the values lie; None where that was not looked up.
        leaves: of the trees, for :meth:`Shard.list_growth`; None where that cannot follow.

    """

    user: Int64s
    start: Int64s
    end: Int64s
    tails: Int64s
    address: Int64s | None = None
    size: Int64s | None = None
    leaves: ShardLeaves | None = None


class Shard:
    """An open shard.

    Args:
        path: the environment's directory.
        number: the shard's number, for messages.
        create: make it.
        flush: whether commits flush their pages (:func:`uihkv.environment.open_environment`).
        shards: how many the store has, for the address space that is reserved.

    Raises:
        FormatError: when the path holds no shard.

    """

    def __init__(self, path: Path, number: int, *, create: bool = False, flush: bool = True, shards: int = 1) -> None:
        self.path = path
        self.number = number
        self._shared = open_environment(path, create=create, flush=flush, shards=shards)
        self._environment = self._shared.raw
        try:
            # LMDB publishes a handle by an (empty) write transaction: opening may wait for a writer's current one.
            names = (_CHUNKS, _TAILS, b"sources")
            # Made in one transaction: each would leave pages of the one before behind.
            with self._environment.begin(write=True) if create else nullcontext() as making:
                self._chunks, self._tails, self._sources = (
                    self._environment.open_db(name, txn=making, create=create) for name in names
                )
                self.names = NameTable(self._environment, number, create=create, making=making)
        except lmdb.Error as error:
            close_environment(self._shared)
            raise FormatError(f"{path} is not a shard of a uihkv store ({error})") from error

        self.page_bytes = int(self._environment.stat()["psize"])
        self._paths = PathCheck(self._environment, path / "data.mdb")

    def close(self) -> None:
        """Let go of the environment."""
        close_environment(self._shared)

    @property
    def writable(self) -> bool:
        """Whether the file system lets it be written to."""
        return not self._environment.flags()["readonly"]

    def databases(self, transaction: Any) -> dict[bytes, Any]:
        """Every sub-database by its name, as the transaction sees them."""
        with transaction.cursor() as cursor:
            names = [bytes(key) for key in cursor.iternext(values=False)]
        return {name: self._environment.open_db(name, txn=transaction, create=False) for name in names}

    # -- writing ------------------------------------------------------------------------------------

    def begin_write(self) -> Any:
        """Start a write transaction; the caller commits or aborts it."""
        with page_errors(self.path):
            return self._shared.begin(write=True)

    def grow(self) -> bool:
        """Make room in the address space; False: a transaction of this process is active, such as a snapshot's."""
        return self._shared.grow()

    def sync(self) -> None:
        """Make durable what was committed until now, by whomever.

        A commit alone leaves its meta page to the operating system: a power cut may undo the last one, never more
        and never in part.
        """
        self._environment.sync(True)

    def source(self, transaction: Any, source: str) -> SourceRecord:
        """What this shard knows of a source, as the transaction sees it."""
        value = transaction.get(source.encode(), db=self._sources)
        return UNKNOWN if value is None else self._unpack_source(source.encode(), value)[1]

    def _unpack_source(self, name: bytes, value: Any) -> tuple[str, SourceRecord]:
        try:
            return name.decode(), SourceRecord.unpack(value)
        except (ValueError, IndexError) as error:
            raise FormatError(
                f"shard {self.number:04d}: the source {name!r} cannot be read ({error}); restore it from a backup"
            ) from error

    def put_source(self, transaction: Any, source: str, record: SourceRecord) -> None:
        """Note what this shard knows of a source, in the transaction."""
        transaction.put(source.encode(), record.pack(), db=self._sources)

    def drop_source(self, transaction: Any, source: str) -> None:
        """Forget a source, in the transaction."""
        transaction.delete(source.encode(), db=self._sources)

    def append(
        self, transaction: Any, layouts: Layouts, events: Events, chunk_events: int, compress: bool
    ) -> ShardAppend:
        """Append events, in the order of rows, to their users' histories.

        Each user's tail is opened, the events are put behind it, visible times are lifted to the user's latest, full
        chunks are sealed, and the rest, at least one event, becomes the new tail.

        Raises:
            CorruptChunkError, FormatError: when a tail, or a page that leads to it, is damaged; nothing is then
                committed by the caller.

        """
        users = np.unique(events.user_id)
        self._paths.check(transaction, _TAILS, keys.tail_keys(users), 1)
        tails = self._find_tails(transaction, users)
        known = np.flatnonzero(tails.address)
        tails.open(known, layouts, VERIFY_ONCE)
        held = self._decode_tails(layouts, tails, known)
        both = Events.concat(held, events)
        both = both.take(np.argsort(both.user_id, kind="stable"))
        group_row = np.searchsorted(both.user_id, users)
        group_count = np.diff(np.append(group_row, len(both)))
        start = np.where(tails.address != 0, tails.start, 0)
        latest = np.full(len(users), _NEVER)
        latest[known] = greatest_times(tails, layouts, known, VISIBLE_AT)
        # The held events of a tail stand first and ascend: only what is new can be lifted.
        low = np.where(tails.end > tails.start, _NEVER, latest)
        lifted = lift_visible(both.visible_at, group_row, group_count, low)
        chunks = encode(
            layouts, both, group_row, group_count, start, users, latest, chunk_events, compress, self.page_bytes
        )
        sealed = np.flatnonzero(chunks.group[1:] == chunks.group[:-1])
        sealed_keys = (users[chunks.group[sealed]], chunks.start[sealed], (chunks.start + chunks.count)[sealed])
        self._paths.check(transaction, _CHUNKS, keys.chunk_keys(*sealed_keys), 3)
        try:
            self._put(transaction, users, chunks)
        except lmdb.MapFullError as error:
            raise AddressSpaceFullError(self.path, error, self.number) from error
        return ShardAppend(len(events), 0, int(lifted), len(users))

    def _find_tails(self, transaction: Any, users: Int64s) -> Entries:
        """Entries of these users' tails; address 0 for users without one."""
        entries = Entries(self.number, _NO_CHUNKS, users)
        entries.name_of = lambda _, user: self.names.name_of(transaction, user)
        packed = keys.tail_keys(users)
        with transaction.cursor(db=self._tails) as cursor:
            _fill(cursor, packed, keys.TAIL_KEY_BYTES, np.arange(len(users)), entries)
        return entries

    def _decode_tails(self, layouts: Layouts, tails: Entries, known: Int64s) -> Events:
        """All events of these tails, tail by tail."""
        count = (tails.end - tails.start)[known]
        out = np.cumsum(count) - count
        full = count > 0
        slices = Slices(known[full], np.zeros_like(known)[full], count[full], out[full])
        return decode_events(tails, layouts, slices, np.repeat(tails.user[known], count))

    def _put(self, transaction: Any, users: Int64s, chunks: EncodedChunks) -> None:
        """Write chunks under their keys; the last of each group becomes the user's tail."""
        end = chunks.end.tolist()
        begin = [0, *end[:-1]]
        is_tail = np.append(chunks.group[1:] != chunks.group[:-1], True)
        sealed, tails = np.flatnonzero(~is_tail), np.flatnonzero(is_tail)
        buffer = chunks.buffer.data
        owner = users[chunks.group]
        packed = keys.chunk_keys(owner[sealed], chunks.start[sealed], (chunks.start + chunks.count)[sealed])
        for database, packed_keys, width, some in (
            (self._chunks, packed, keys.CHUNK_KEY_BYTES, sealed),
            (self._tails, keys.tail_keys(owner[tails]), keys.TAIL_KEY_BYTES, tails),
        ):
            if len(some):
                records = [
                    (packed_keys[at * width : (at + 1) * width], buffer[begin[index] : end[index]])
                    for at, index in enumerate(some.tolist())
                ]
                with transaction.cursor(db=database) as cursor:
                    cursor.putmulti(records)

    def holds(
        self, transaction: Any, chunks: tuple[Int64s, Int64s, Int64s], tail_users: Int64s, tails: Sequence[bytes]
    ) -> bool:
        """Whether chunks are still there, and tails still what they were.

        Args:
            transaction: of any kind.
            chunks: users, starts and ends; a chunk never changes.
            tail_users: int64[n].
            tails: their values.

        """
        packed, width = keys.chunk_keys(*chunks), keys.CHUNK_KEY_BYTES
        with transaction.cursor(db=self._chunks) as cursor:
            if not all(cursor.set_key(packed[at : at + width]) for at in range(0, len(packed), width)):
                return False
        packed, width = keys.tail_keys(tail_users), keys.TAIL_KEY_BYTES
        return all(
            transaction.get(packed[index * width : (index + 1) * width], db=self._tails) == value
            for index, value in enumerate(tails)
        )

    def rewrite(
        self,
        transaction: Any,
        users: Int64s,
        gone: tuple[Int64s, Int64s, Int64s],
        sealed: Sequence[tuple[Int64s, EncodedChunks]] = (),
        tails: Sequence[tuple[Int64s, EncodedChunks]] = (),
    ) -> None:
        """Take chunks away and put others in their place.

        Args:
            transaction: a write transaction.
            users: int64[n], whose chunks and tails are touched.
            gone: users, starts and ends of the chunks that go; of those that are there.
            sealed: chunks, each with its user: int64[chunks].
            tails: chunks in groups, a user each: int64[groups]; the last of each becomes his tail.

        """
        packed = keys.chunk_keys(*gone)
        width = keys.CHUNK_KEY_BYTES
        for at in range(0, len(packed), width):
            transaction.delete(packed[at : at + width], db=self._chunks)
        for user, chunks in sealed:
            packed = keys.chunk_keys(user, chunks.start, chunks.start + chunks.count)
            buffer, begin = chunks.buffer.data, 0
            for index, end in enumerate(chunks.end.tolist()):
                transaction.put(packed[index * width : (index + 1) * width], buffer[begin:end], db=self._chunks)
                begin = end
        for owners, chunks in tails:
            if len(chunks):
                self._put(transaction, owners, chunks)

    # -- reading ------------------------------------------------------------------------------------

    def begin_read(self) -> Any:
        """Start a read transaction; the caller aborts it."""
        with page_errors(self.path):
            return self._shared.begin()

    def readers(self) -> Readers:
        """Who reads this shard now, in all processes."""
        return self._shared.readers()

    def sources(self, transaction: Any) -> dict[str, SourceRecord]:
        """What this shard knows of every source that it has met."""
        with transaction.cursor(db=self._sources) as cursor:
            return dict(self._unpack_source(bytes(key), value) for key, value in cursor)

    def directory(self, transaction: Any) -> Directory:
        """The directory of this shard as the transaction sees it."""
        return Directory(self.number, transaction, self._chunks, self._tails)

    def list_keys(self, transaction: Any, users: Int64s | None = None) -> ShardKeys:
        """The keys of all chunks and tails, or of those of some users, who ascend: int64[n]."""
        if users is not None:
            return _list_keys_of(transaction, self._chunks, self._tails, users)
        (user, start, end), tails = list_keys(self.number, transaction, self._chunks, self._tails)
        return ShardKeys(user, start, end, tails)

    def list_values(self, transaction: Any) -> ShardKeys:
        """The keys of all chunks and tails, and where their values lie if that can be told without touching them.

        Args:
            transaction: a read transaction.

        Raises:
            FormatError: for keys that cannot be, or damaged pages.

        """
        data = self.path / "data.mdb"
        chunks = list_values(self._environment, transaction, _CHUNKS, self._chunks, 3, data)
        tails = list_values(self._environment, transaction, _TAILS, self._tails, 1, data)
        if chunks is None or tails is None:
            return self.list_keys(transaction)
        leaves = None
        if chunks.leaves is not None and tails.leaves is not None:
            leaves = ShardLeaves(chunks.leaves, tails.leaves)
        return ShardKeys(
            *keys.parse_chunk_words(chunks.keys), keys.parse_tail_words(tails.keys[:, 0]),
            np.concatenate([chunks.address, tails.address]), np.concatenate([chunks.size, tails.size]),
            leaves,
        )  # fmt: skip

    def list_growth(self, transaction: Any, known: ShardLeaves) -> ShardGrowth | None:
        """What the shard has that it had not; None where that cannot be told, or pages are damaged.

        Args:
            transaction: a read transaction; when it had begun, :meth:`holds_back` was true of the earlier one.
            known: what the earlier one saw.

        """
        size = (self.path / "data.mdb").stat().st_size
        pages = min(int(self._environment.info()["last_pgno"]) + 1, size // self.page_bytes)
        chunks = list_growth(transaction, _CHUNKS, 3, pages, known.chunks)
        tails = list_growth(transaction, _TAILS, 1, pages, known.tails)
        return None if chunks is None or tails is None else ShardGrowth(chunks, tails)

    def holds_back(self, transaction_id: int) -> bool:
        """Whether a snapshot of this process keeps all pages that a transaction saw from being written to."""
        return self._shared.holds_back(transaction_id)

    def map_bytes(self) -> int:
        """Size of LMDB's map."""
        return int(self._environment.info()["map_size"])

    def find_values(self, transaction: Any, entries: Entries, some: Int64s) -> None:
        """Note where the values of some entries of this shard lie: int64[n], ascending."""
        find_values(transaction, self._chunks, self._tails, entries, some)

    def page_counts(self, transaction: Any) -> PageCounts:
        """Pages of chunks and tails."""
        stats = [transaction.stat(database) for database in (self._chunks, self._tails)]
        kinds = [sum(int(stat[f"{kind}_pages"]) for stat in stats) for kind in ("branch", "leaf", "overflow")]
        return PageCounts(kinds[0], kinds[1], kinds[2], int(stats[0]["psize"]))

    def kept_pages(self, oldest: int) -> int | None:
        """Free pages that an open snapshot of the transaction ``oldest`` keeps; None where that cannot be told."""
        for _ in range(_TRIES):  # two commits may overwrite the meta page between the begin and the look
            with self._shared.begin() as transaction:
                free = list_free_pages(self._environment, transaction, _TAILS, self.path / "data.mdb")
            if free is not None:
                return free.kept_by(oldest)
        return None

    def pages(self) -> tuple[int, int]:
        """Pages in use, and bytes of a page."""
        with self._shared.begin() as transaction:
            databases = (self._chunks, self._tails, self._sources, *self.names.databases)
            stats = [transaction.stat(db) for db in databases]
        used = sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats)
        return used, int(stats[0]["psize"])


class Directory:
    """Every chunk and tail of a shard, as one read transaction sees them.

    Built from keys alone; where a value lies is looked up on first use and then remembered. Memory: 56 bytes an
    entry. Not safe for threads: the snapshot holds a lock around :meth:`prepare`.

    Attributes:
        users: int64[users], ascending.
        first_chunk: int64[users + 1], each user's chunks among the entries.
        entries: the entries; the tail of user row ``r`` is entry ``first_tail + r``.

    """

    __slots__ = ("_chunks", "_tails", "_transaction", "entries", "first_chunk", "users")

    def __init__(self, number: int, transaction: Any, chunks: Any, tails: Any) -> None:
        self._transaction = transaction
        self._chunks = chunks
        self._tails = tails
        chunk_entries, self.users = list_keys(number, transaction, chunks, tails)
        self.entries = Entries(number, chunk_entries, self.users)
        bounds = np.searchsorted(chunk_entries[0], self.users)
        self.first_chunk = np.append(bounds, len(chunk_entries[0]))

    def rows_of(self, user_id: Int64s) -> Int64s:
        """Row of each user among ``users``, -1 for users without a history: int64[n]."""
        if not len(self.users):
            return np.full(len(user_id), -1, np.int64)
        row = np.searchsorted(self.users, user_id)
        row[row == len(self.users)] = 0
        return np.where(self.users[row] == user_id, row, -1)

    def prepare(self, wanted: Int64s, layouts: Layouts, verify: int) -> None:
        """Look up and check the entries among the wanted that were not used before.

        Raises:
            CorruptChunkError, FormatError: for values that are no chunks.

        """
        entries = self.entries
        fresh = np.unique(wanted[entries.address[wanted] == 0])
        if not len(fresh):
            return
        find_values(self._transaction, self._chunks, self._tails, entries, fresh)
        entries.open(fresh, layouts, verify)


def list_keys(number: int, transaction: Any, chunks: Any, tails: Any) -> tuple[tuple[Int64s, Int64s, Int64s], Int64s]:
    """Users, starts and ends of all chunks, and the users of all tails, in key order."""
    with transaction.cursor(db=chunks) as cursor:
        chunk_entries = keys.parse_chunk_keys(_keys_of(cursor, keys.CHUNK_KEY_BYTES, number))
    with transaction.cursor(db=tails) as cursor:
        return chunk_entries, keys.parse_tail_keys(_keys_of(cursor, keys.TAIL_KEY_BYTES, number))


def _list_keys_of(transaction: Any, chunks: Any, tails: Any, users: Int64s) -> ShardKeys:
    """The keys of some users, who ascend."""
    width = keys.TAIL_KEY_BYTES
    packed = keys.tail_keys(users)
    prefixes = [packed[at : at + width] for at in range(0, len(packed), width)]
    found: list[bytes] = []
    with transaction.cursor(db=chunks) as cursor:
        for prefix in prefixes:
            more = cursor.set_range(prefix)
            while more and (key := bytes(cursor.key())).startswith(prefix):
                found.append(key)
                more = cursor.next()
    user, start, end = keys.parse_chunk_keys(found)
    with transaction.cursor(db=tails) as cursor:
        there = np.fromiter((cursor.set_key(prefix) for prefix in prefixes), np.bool_, len(prefixes))
    return ShardKeys(user, start, end, users[there])


def find_values(transaction: Any, chunks: Any, tails: Any, entries: Entries, some: Int64s) -> None:
    """Note where the values of some entries lie: int64[n], ascending."""
    split = int(np.searchsorted(some, entries.first_tail))
    sealed, open_ones = some[:split], some[split:]
    if len(sealed):
        packed = keys.chunk_keys(entries.user[sealed], entries.start[sealed], entries.end[sealed])
        with transaction.cursor(db=chunks) as cursor:
            _fill(cursor, packed, keys.CHUNK_KEY_BYTES, sealed, entries)
    if len(open_ones):
        packed = keys.tail_keys(entries.user[open_ones])
        with transaction.cursor(db=tails) as cursor:
            _fill(cursor, packed, keys.TAIL_KEY_BYTES, open_ones, entries)


def _keys_of(cursor: Any, width: int, number: int) -> Iterator[bytes]:
    for key in cursor.iternext(keys=True, values=False):
        if len(key) != width:
            raise FormatError(
                f"shard {number:04d} holds a key of {len(key)} bytes, {width} are expected; restore it from a backup"
            )
        yield key


def _fill(cursor: Any, packed: bytes, width: int, rows: Int64s, entries: Entries) -> None:
    """Note where the values of these keys lie."""
    address, size = entries.address, entries.size
    for index, row in enumerate(rows.tolist()):
        if cursor.set_key(packed[index * width : (index + 1) * width]):
            value = np.frombuffer(cursor.value(), np.uint8)
            address[row] = address_of(value)
            size[row] = len(value)


def read_ragged(
    parts: Sequence[tuple[Entries, Slices]], layouts: Layouts, name: str, n: int, verify: int
) -> tuple[NDArray[Any], Int64s]:
    """Elements of a varying column over the slices of several shards, and int64[n+1] offsets of each event's."""
    if layouts.schema[name].coded:
        [(entries, slices)] = parts
        return read_coded(entries, layouts, slices, name, n, verify)
    lengths = np.zeros(n, np.int64)
    for entries, slices in parts:
        decode_list_lengths(entries, layouts, slices, name, lengths, verify)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    values = np.empty(int(offsets[-1]), layouts.schema[name].numpy_dtype)
    for entries, slices in parts:
        decode_list_elements(entries, layouts, slices, name, offsets, values, verify)
    return values, offsets


class AddressSpaceFullError(StoreFullError):
    """A shard's map is too small for a write, which was undone; the caller may let it grow and write again."""

    def __init__(self, path: Path, error: lmdb.Error, shard: int | None = None) -> None:
        self.shard = shard
        super().__init__(
            f"the address space reserved for {path} is used up ({error}), and can grow only while no snapshot of this "
            "process is open; close them and try again"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross a process border as the plain error: nobody there can let it grow."""
        return StoreFullError, (str(self),)


def decode_events(entries: Entries, layouts: Layouts, slices: Slices, user: Int64s) -> Events:
    """Slices of opened entries as events of the newest schema; ``user``: int64[n], whose each of them is.

    Raises:
        CorruptChunkError: for bytes that are not what was written.

    """
    schema = layouts.schema
    n = len(user)
    fixed: dict[str, NDArray[Any]] = {}
    for name in schema.readable:
        if name in (TS, VISIBLE_AT) or not schema[name].varying:
            dtype, shape = column_type(schema, name)
            fixed[name] = np.empty((n, *shape), dtype)
    decode_fixed(entries, layouts, slices, fixed, VERIFY_ONCE)
    lists: dict[str, Int64s] = {}
    for column in schema.columns:
        if column.varying:
            fixed[column.name], lists[column.name] = read_ragged(
                [(entries, slices)], layouts, column.name, n, VERIFY_ONCE
            )
    return Events(user, fixed[TS], fixed[VISIBLE_AT], {name: fixed[name] for name in schema.names}, lists)


@contextmanager
def space_errors(path: Path, committed: Sized = ()) -> Iterator[None]:
    """Turn LMDB's ways of having no room into ours; ``committed``: the shards that have their part of the batch."""

    def full(what: str, error: lmdb.Error) -> StoreFullError:
        stored = "nothing of this batch was stored"
        if len(committed):
            stored = f"{len(committed)} shards have stored their part; the same append, with its source and offset, "
            stored += "completes the batch once there is room"
        return StoreFullError(f"{what} ({error}); {stored}")

    try:
        with page_errors(path):
            yield
    except lmdb.MapFullError as error:
        raise AddressSpaceFullError(path, error) from error
    except lmdb.DiskError as error:
        raise full(f"no space left for {path}", error) from error
    except lmdb.Error as error:
        if "No space left" in str(error) or "File too large" in str(error):
            raise full(f"no space left for {path}", error) from error
        if "Read-only file system" in str(error):
            raise ReadOnlyError(f"{path} can no longer be written to ({error})") from error
        if "Input/output error" in str(error):  # how LMDB calls it when the system took only a part of a write
            raise full(f"no space left for {path}, or its disk fails", error) from error
        raise
