"""A store: a directory of shards, and the manifest that says what they hold.

The store routes: events to the shards of their users, snapshots over all shards. How a shard writes is
:mod:`uihkv.shard`'s, how a snapshot reads :mod:`uihkv.snapshot`'s.

Invariants: arrival order is the order of appends, and of rows within one; versions are never reused; an append
that returned is durable, as far as the handle's durability says; an offset that :meth:`Store.sources` lists is one that
every shard has (:mod:`uihkv.sources`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import uuid
import weakref
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uihkv import keys
from uihkv.errors import (
    FormatError,
    PointerError,
    ReadOnlyError,
    SchemaError,
    StoreClosedError,
    StoreExistsError,
)
from uihkv.evolution import with_column, with_wider_column, without_column
from uihkv.maintenance import (
    BackupResult,
    CompactionPolicy,
    CompactionResult,
    Progress,
    SealResult,
    StoreStats,
    TrimResult,
    VerifyReport,
)
from uihkv.manifest import (
    MANIFEST_NAME,
    MAX_CHUNK_EVENTS,
    MAX_SHARDS,
    Manifest,
    manifest_stamp,
    read_manifest,
    sync_directory,
    write_manifest,
)
from uihkv.pointers import as_int64, as_user_ids
from uihkv.schema import TIME_UNITS, Column, Schema
from uihkv.sources import NONE, UNKNOWN, home_of, offset_done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from uihkv.codec import Layouts, Threads, Verify
    from uihkv.directory import NewestListing
    from uihkv.events import Events
    from uihkv.lanes import Lanes
    from uihkv.rewrite import ShardAccess, ShardView
    from uihkv.shard import Shard, ShardAppend
    from uihkv.snapshot import Snapshot
    from uihkv.sources import SourceRecord

COMPRESSIONS = ("lz4", "none")

Durability = Literal["sync", "relaxed"]
"""What a handle promises of its appends: :meth:`Store.open` says what each loses."""
_MAX_SOURCE_BYTES = 400
MAX_THREADS = 256


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of a batch.

    Attributes:
        appended: events stored.
        replayed: events that a shard already had from this source, not stored again.
        users: users whose history grew.
        lifted: events whose visible time was below the user's latest and was raised to it.

    """

    appended: int
    replayed: int
    users: int
    lifted: int

    @classmethod
    def of(cls, parts: Iterable[ShardAppend]) -> AppendResult:
        """What became of a batch whose parts went to several shards."""
        parts = list(parts)
        return cls(
            appended=sum(part.appended for part in parts),
            replayed=sum(part.replayed for part in parts),
            users=sum(part.users for part in parts),
            lifted=sum(part.lifted for part in parts),
        )


class Store:
    """Histories on disk. Make one with :meth:`create`, open one with :meth:`open`, end with :meth:`close`.

    A store may be pickled, and used after ``fork`` or in a spawned process: it opens itself again there. Snapshots
    do not travel. Several processes may read and write the same store at once; each shard has one writer at
    a time, and the others wait.
    """

    def __init__(
        self, path: Path, manifest: Manifest, readonly: bool, threads: int = 1, durability: Durability = "sync"
    ) -> None:
        self._path = path
        self._manifest = manifest
        self._readonly = readonly
        self._threads = threads
        self._durability: Durability = durability
        self._unsynced: set[int] = set()
        self._building = False
        self._reading_threads: Threads | None = None
        self._lanes: Lanes | None = None
        self._lock = threading.RLock()
        self._closed = False
        self._pid = os.getpid()
        self._open_shards: dict[int, Shard] = {}
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._layouts_made: Layouts | None = None
        self._newest_listing: NewestListing | None = None
        self._stamp: tuple[int, int, int] | None = None

    # -- life ---------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        schema: Schema,
        shards: int = 16,
        *,
        chunk_events: int = 1024,
        compression: str = "lz4",
        durability: Durability = "sync",
    ) -> Store:
        """Make a store and open it. It appears under its path whole or not at all.

        Args:
            path: where nothing is yet, or an empty directory.
            schema: the columns of its events.
            shards: number of LMDB environments, fixed for the store's life: the unit of writing and affinity.
            chunk_events: events at which a tail is sealed; fewer make short reads cheaper and the store larger.
            compression: ``"lz4"``, or ``"none"``.
            durability: of the handle that is returned, as in :meth:`open`.

        Raises:
            StoreExistsError: when something is there.
            SchemaError: for arguments that cannot be.

        """
        _check_durability(durability)
        target, manifest = _plan_store(path, schema, shards, chunk_events, compression)
        with _new_parents(target), _placed_whole(target) as aside:
            _create_shards(aside, shards)
            write_manifest(aside, manifest)
        sync_directory(target.parent)
        return cls(target, manifest, False, durability=durability)

    @classmethod
    @contextmanager
    def build(
        cls,
        path: str | os.PathLike[str],
        schema: Schema,
        shards: int = 16,
        *,
        chunk_events: int = 1024,
        compression: str = "lz4",
    ) -> Iterator[Store]:
        """A new store, filled aside at full speed and put under its path when the block ends without an error.

        Inside the block it is a store like any other, only that appends do not wait for the disk. At the block's end
        it is closed, all of it is flushed, and one rename publishes it: at no moment, whatever fails, does
        the path hold a part of it. What is lost until then, at an error or a crash of the process, of the operating
        system or of the power, is all that was appended; what a killed process leaves in a hidden directory
        beside the path, the next build of the same path removes (:mod:`uihkv.aside`).

        Whole histories are best appended at once: each append rewrites the tails of its users.
        :func:`uihkv.ingest.ingest` groups files by user itself when it fills such a store.

        Args:
            path: where nothing is yet, or an empty directory.
            schema: the columns of its events.
            shards: as in :meth:`create`, like the rest.
            chunk_events: events at which a tail is sealed.
            compression: ``"lz4"``, or ``"none"``.

        Raises:
            StoreExistsError: when something is there, at the beginning or the end.
            SchemaError: for arguments that cannot be.

        """
        from uihkv.aside import built_aside

        target, manifest = _plan_store(path, schema, shards, chunk_events, compression)
        with _new_parents(target), built_aside(target) as aside:
            _create_shards(aside, shards, flush=False)
            write_manifest(aside, manifest)
            with cls._open_built(aside, manifest) as store:
                yield store

    @classmethod
    def _open_built(cls, path: Path, manifest: Manifest) -> Self:
        store = cls(path, manifest, False)
        store._building = True
        return store

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        readonly: bool = False,
        *,
        threads: int = 1,
        durability: Durability = "sync",
    ) -> Store:
        """Open a store.

        What an append that returned may still lose, by the handle's durability:

        - ``"sync"``: nothing, at a crash of the process, of the operating system or of the power. Each append waits
          for the disk twice a shard.
        - ``"relaxed"``: nothing at a crash of the process; at a crash of the operating system or of the power, each
          shard may lose its last commit, as a whole. Every shard stays sound, what is left is a prefix of every
          history, and :meth:`sources` says where to go on, so that a source that is replayed from there makes up
          for the loss exactly. Each append waits for the disk once a shard. :meth:`sync` and :meth:`close` wait for
          the rest. A pointer taken of events that were then lost is refused (PointerError) until they are back;
          with their ``last_ts``, pointers also notice other events in their place.

        The level is the handle's: a ``"sync"`` handle makes durable what others left in the shards that it writes.

        Args:
            path: its directory.
            readonly: refuse to write.
            threads: that share the decoding of each large read, the calling one included. A loader reads several
                batches at once by itself; 1 is right for it.
            durability: ``"sync"`` or ``"relaxed"``.

        Raises:
            SchemaError: for ``threads`` below 1, another durability, or a path that is none.
            StoreNotFoundError: when nothing is there.
            FormatError: when what is there is not a store, or a store of a newer format.

        """
        _check_whole("threads", threads, 1, MAX_THREADS)
        _check_durability(durability)
        target = _as_path(path)
        store = cls(target, read_manifest(target), readonly, threads, durability)
        try:
            for number in range(store.shards):
                store._shard(number)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the store and its snapshots, and make durable what it appended. Closing twice is no error."""
        lanes = self._lanes if self._pid == os.getpid() else None
        with nullcontext() if lanes is None else lanes.busy, self._lock:  # an append ends first
            if self._closed:
                return
            self._closed = True
            if self._pid == os.getpid():
                for snapshot in list(self._snapshots):
                    snapshot.close()
                for number in self._unsynced:
                    self._open_shards[number].sync()
                for shard in self._open_shards.values():
                    shard.close()
                if self._reading_threads is not None:
                    self._reading_threads.close()
                if lanes is not None:
                    lanes.close()
            self._open_shards = {}
            self._reading_threads = None
            self._lanes = None
            self._newest_listing = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._building:
            return _reopen_built, (str(self._path),)
        return _reopen, (str(self._path), self._readonly, self._threads, self._durability)

    def __repr__(self) -> str:
        return f"Store({str(self._path)!r}, shards={self.shards}{', readonly' if self._readonly else ''})"

    # -- what it is ---------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The store's directory."""
        return self._path

    @property
    def schema(self) -> Schema:
        """The columns of its events, as they are now: also when another process changed them."""
        if not self._closed:
            self._refresh_manifest()
        return self._manifest.schema

    @property
    def shards(self) -> int:
        """Number of shards."""
        return self._manifest.shards

    @property
    def readonly(self) -> bool:
        """Whether this handle refuses to write."""
        return self._readonly

    @property
    def durability(self) -> Durability:
        """What this handle promises of its appends."""
        return self._durability

    @property
    def building(self) -> bool:
        """Whether this is a store inside its :meth:`build`, which nobody else sees yet."""
        return self._building

    @property
    def fingerprint(self) -> str:
        """Identity of the store, for the state of a loader: drawn at creation, the same for ever."""
        return self._manifest.store_id

    def shard_of(self, user_ids: ArrayLike) -> NDArray[np.int64]:
        """Shard of each user: int64[B], the same on every machine."""
        from uihkv.names import numbers_of

        return keys.shard_of(numbers_of(as_user_ids(user_ids, "user_ids")), self.shards)

    # -- writing ------------------------------------------------------------------------------------

    def append(
        self,
        data: Any,
        visible_at: ArrayLike | None = None,
        *,
        backfill: bool = False,
        source: str | None = None,
        offset: int | None = None,
    ) -> AppendResult:
        """Append one batch of events: any users, any order; arrival order is the order of rows.

        The batch is refused whole, before anything is written, or durable when this returns, as far as the handle's
        durability says (:meth:`open`). It becomes visible
        shard by shard, each user's part at once. When the process dies in between, some shards have the batch
        and some have not: with ``source`` and ``offset``, the same append made again completes it.

        Args:
            data: a mapping of arrays (``user_id``, ``ts`` and the schema's columns), an Arrow table or record
                batch.
            visible_at: int64[n] in the time unit; default: ``ts`` with ``backfill=True``, else the clock. Below a
                user's latest visible time it is lifted to that.
            backfill: the events are old: they became visible at their ``ts``.
            source: who the batch comes from, with ``offset``: what came before is not stored again.
            offset: the batch's place in its source, 0 or more and rising from batch to batch.

        Raises:
            SchemaError: for data that does not fit the schema.
            ReadOnlyError: when the store was opened with ``readonly=True``.
            StoreFullError: when there is no room; nothing of the batch is then stored, or, as the message says, some
                shards have stored their part. The store stays sound.
            CorruptChunkError: when a user's tail is damaged; nothing of the batch is then stored.

        """
        from uihkv.events import parse_events

        self._check_writable()
        if backfill and visible_at is not None:
            raise SchemaError("backfill=True takes visible times from ts; give visible_at or backfill, not both")
        offset = check_source(source, offset)
        layouts = self._layouts()
        events = parse_events(layouts.schema, data, visible_at)
        if visible_at is None:
            now = time.time_ns() // (10**9 // TIME_UNITS[layouts.schema.time_unit])
            visible = events.ts.copy() if backfill else np.full(len(events), now, np.int64)
            events = replace(events, visible_at=visible)
        results = self._write(layouts, events, source, offset)
        if results is None:  # the schema changed meanwhile: once more, by the new one
            return self.append(data, visible_at, backfill=backfill, source=source, offset=offset)
        return AppendResult.of(results)

    def append_parsed(
        self, schema: Schema, events: Events, *, source: str | None = None, offset: int | None = None
    ) -> AppendResult:
        """Append events that were parsed by a schema before: for :mod:`uihkv.ingest`; others use :meth:`append`.

        With ``source`` and ``offset``, a replay is found out as ever, but the offset is not claimed: where several
        writers store a source together, none of them knows when all shards have it (:mod:`uihkv.claims`).

        Raises:
            SchemaError: when the store's schema is no longer this one; nothing is then written.
            ReadOnlyError, StoreFullError, CorruptChunkError: as :meth:`append`.

        """
        self._check_writable()
        layouts = self._layouts()
        results = None
        if layouts.schema is schema or (layouts.schema == schema and layouts.schema.ids == schema.ids):
            results = self._write(layouts, events, source, offset, claim=False)
        if results is None:
            raise SchemaError(f"the schema of {self._path} was changed meanwhile; ingest again, by the new one")
        return AppendResult.of(results)

    def _write(
        self,
        layouts: Layouts,
        events: Events,
        source: str | None,
        offset: int | None,
        *,
        claim: bool = True,
    ) -> list[ShardAppend] | None:
        """Write all parts, then commit all: a failure while writing leaves every shard as it was.

        The source's home shard commits last, once the others have, and are as durable as the handle promises. None:
        nothing was written, since the schema is no longer the one of ``layouts``. It is compared once all shards are
        held: whoever wrote to them by a newer schema had put that into the manifest before.
        """
        from uihkv.shard import AddressSpaceFullError

        try:
            return self._write_once(layouts, events, source, offset, claim)
        except AddressSpaceFullError as error:
            if error.shard is None or not self._shard(error.shard).grow():
                raise
        return self._write(layouts, events, source, offset, claim=claim)

    def _write_once(
        self, layouts: Layouts, events: Events, source: str | None, offset: int | None, claim: bool
    ) -> list[ShardAppend] | None:
        from uihkv.shard import ShardAppend, space_errors

        shard_of = keys.shard_of(events.user_id, self.shards)
        order = np.argsort(shard_of, kind="stable")
        bounds = np.searchsorted(shard_of[order], np.arange(self.shards + 1))
        parts = {
            number: order[bounds[number] : bounds[number + 1]] for number in np.flatnonzero(np.diff(bounds)).tolist()
        }
        numbers = set(parts)
        home = None if source is None or not claim else home_of(source, self.shards)
        if home is not None:
            numbers.add(home)
        results: list[ShardAppend] = []
        transactions: dict[int, Any] = {}
        committed: list[int] = []
        own: dict[int, int] = {}

        def commit(number: int) -> None:
            transactions.pop(number).commit()
            committed.append(number)
            self._settle([number])

        lanes = self._commit_lanes() if len(numbers) > 1 and not self._building else None
        with space_errors(self._path, committed), nullcontext() if lanes is None else lanes.busy:
            try:
                for number in sorted(numbers):  # one order for all writers, so that none waits in a circle
                    begin = self._shard(number).begin_write
                    transactions[number] = begin() if lanes is None else lanes.begin(number, begin)
                if self._layouts() is not layouts:
                    return None
                claimed = UNKNOWN
                if home is not None and source is not None:
                    claimed = self._shard(home).source(transactions[home], source)
                for number in sorted(numbers):
                    shard, transaction = self._shard(number), transactions[number]
                    rows = parts.get(number, np.empty(0, np.int64))
                    if source is not None and offset is not None:
                        record = shard.source(transaction, source)
                        if record.own >= offset or claimed.covers(number, record.own, offset):
                            own[number] = record.own
                            results.append(ShardAppend(0, len(rows), 0, 0))
                            continue
                        own[number] = offset
                        shard.put_source(transaction, source, replace(record, own=offset))
                    if len(rows):
                        mine = events.take(rows)
                        if mine.names is not None:
                            users = shard.names.assign(transaction, mine.names, self.shards)
                            mine = replace(mine, user_id=users, names=None)
                        results.append(
                            shard.append(
                                transaction,
                                layouts,
                                mine,
                                self._manifest.chunk_events,
                                self._manifest.compress,
                            )
                        )
                if home is not None and source is not None and offset is not None:
                    shard, transaction = self._shard(home), transactions[home]
                    record = shard.source(transaction, source).advance(offset, own, self.shards)
                    shard.put_source(transaction, source, record)
                for last in (False, True):
                    group = [number for number in sorted(numbers) if (number == home) is last]
                    if lanes is not None:
                        lanes.commit(group, commit)
                        continue
                    for number in group:
                        commit(number)
            finally:
                for number, transaction in list(transactions.items()):
                    if lanes is None:
                        transaction.abort()
                    else:
                        lanes.abort(number, transaction)
        return results

    def _commit_lanes(self) -> Lanes:
        """The lanes of this handle; after a fork, others."""
        from uihkv.lanes import Lanes

        with self._lock:
            self._shard(0)  # raises when the store is closed, and lets go of what a fork left
            if self._lanes is None:
                self._lanes = Lanes(self.shards)
            return self._lanes

    def _settle(self, numbers: Iterable[int]) -> None:
        """Make commits to these shards as durable as the handle promises; every commit is followed by this."""
        if self._building:
            return  # all of it is flushed before it is published
        if self._durability == "sync":
            for number in numbers:
                self._shard(number).sync()
        else:
            self._unsynced.update(numbers)

    def sync(self) -> None:
        """Make durable all that was appended until now, by any handle and process.

        For ``durability="relaxed"``: what an append leaves to :meth:`close`.
        """
        self._check_writable()
        for number in range(self.shards):
            self._shard(number).sync()
        self._unsynced.clear()

    def add_column(self, column: Column) -> None:
        """Give events one column more. Chunks stay as they are: older events read as the column's default.

        The change is one atomic replacement of the manifest. Other handles and processes take it up at their next
        append or snapshot; snapshots that are open keep the schema they began with.

        Args:
            column: with a default (ragged columns need none: older events hold an empty list), and a name that the
                schema does not have. A name that was dropped before is a new column: old values do not come back.

        Raises:
            SchemaError: for a column that cannot be added.
            ReadOnlyError: when the store was opened with ``readonly=True``.

        """
        self._evolve(lambda history: with_column(history, column))

    def drop_column(self, name: str) -> None:
        """Take a column away. Chunks stay as they are; its values are no longer read, and go when chunks are rewritten.

        A projection that names it is refused from the next snapshot on. How the change reaches other handles, see
        :meth:`add_column`.

        Raises:
            SchemaError: for a column that the schema does not have, or its only one.
            ReadOnlyError: when the store was opened with ``readonly=True``.

        """
        self._evolve(lambda history: without_column(history, name))

    def widen_column(self, name: str, dtype: str) -> None:
        """Give a column a wider type that holds each of its values exactly: ``widen_column("count", "int64")``.

        Integers widen to wider integers of the same sign, unsigned ones also to wider signed ones, floats to wider
        floats. Chunks stay as they are and are widened as they are read. How the change reaches other handles, see
        :meth:`add_column`.

        Raises:
            SchemaError: for a column that the schema does not have, or another type.
            ReadOnlyError: when the store was opened with ``readonly=True``.

        """
        self._evolve(lambda history: with_wider_column(history, name, dtype))

    def _evolve(self, change: Callable[[Sequence[Schema]], Schema]) -> None:
        """Put one more schema into the manifest. Shard 0's writer lock keeps out others who would do the same."""
        self._check_writable()
        transaction = self._shard(0).begin_write()
        try:
            self._refresh_manifest()
            write_manifest(self._path, self._manifest.evolve(change(self._manifest.schemas)))
            self._refresh_manifest()
        finally:
            transaction.abort()

    # -- maintenance --------------------------------------------------------------------------------

    def trim(self, user_id: ArrayLike, before_version: ArrayLike | None = None) -> TrimResult:
        """Remove the oldest events of one user or several. Versions are never reused.

        From the next snapshot on, reads that need these events raise :class:`TrimmedError`, or are cut to what is
        left, as their ``on_trimmed`` says. Snapshots that are open still see them. Trimming again removes nothing.

        Args:
            user_id: a user, or int64[n]; unknown ones have nothing to lose.
            before_version: events below it go; one version for all, or int64[n]. None: everything up to the head,
                which erases the events of these users; their ids, heads and latest visible times stay, so that an
                append goes on behind. To have the bytes gone from the disk, copy the store with
                ``compact(copy_to=…)`` and delete the old directory: LMDB does not wipe the pages that it frees.

        Raises:
            PointerError: for a version past a user's head; nothing is then removed.
            ReadOnlyError: when the store was opened with ``readonly=True``.
            CorruptChunkError: for a damaged chunk that the border cuts; what came before stays done.

        """
        from uihkv.trim import trim_users

        self._check_writable()
        users = as_user_ids(user_id, "user_id")
        before = None if before_version is None else as_int64(before_version, "before_version")
        if before is not None and len(before) == 1:
            before = np.full(len(users), before[0])
        if before is not None and len(before) != len(users):
            raise PointerError(
                f"{len(users)} user_id and {len(before)} before_version; give one a user, or one for all"
            )
        with self.snapshot() as snapshot:
            users, known = snapshot.find_users(users)
        return trim_users(self.shard_access(), users[known], None if before is None else before[known])

    def erase(self, user_id: ArrayLike) -> TrimResult:
        """Remove all events of one user or several, and of string ids the names: erasure.

        As :meth:`trim` to the heads. Of a name a salted hash stays, which does not tell it, but by which it gets its
        old place when it is given again: versions are never reused. Until then its user is unknown. An int64 id
        stays, with its head and latest visible time. Erasing again removes nothing.

        Args:
            user_id: a user, or int64[n] or strings; unknown ones have nothing to lose.

        Raises:
            PointerError: for ids that are not of the store's kind.
            ReadOnlyError: when the store was opened with ``readonly=True``.

        """
        from uihkv.trim import trim_users

        self._check_writable()
        with self.snapshot() as snapshot:
            users, known = snapshot.find_users(as_user_ids(user_id, "user_id"))
        named = self.schema.user_id == "string"
        return trim_users(self.shard_access(), users[known], None, forget_names=named)

    def trim_by_age(self, visible_before: int, *, progress: Progress | None = None) -> TrimResult:
        """Remove the events of all users that became visible before a moment: retention.

        Done in transactions of some users each. When it is interrupted, what was done stays done, and the same call
        does the rest. What it means for reads, see :meth:`trim`.

        Args:
            visible_before: in the time unit; an event of that very moment stays.
            progress: called with the shards done and all shards.

        Raises:
            SchemaError: when it is not a whole number that int64 holds.
            ReadOnlyError: when the store was opened with ``readonly=True``.
            CorruptChunkError: for a damaged chunk; what came before stays done.

        """
        from uihkv.trim import trim_by_age

        self._check_writable()
        limits = np.iinfo(np.int64)
        _check_whole("visible_before", visible_before, int(limits.min), int(limits.max))
        return trim_by_age(self.shard_access(), int(visible_before), progress)

    def seal(self, *, progress: Progress | None = None) -> SealResult:
        """Turn all tails into chunks now, however short; an append begins new tails.

        For histories that will not grow for long, and before a copy is handed out. Many short chunks make a store
        larger and reads slower until :meth:`compact` merges them. Bounded transactions; pointers stay good.

        Args:
            progress: called with the shards done and all shards.

        Raises:
            ReadOnlyError: when the store was opened with ``readonly=True``.
            CorruptChunkError: for a damaged tail; what came before stays done.

        """
        from uihkv.compact import seal_tails

        self._check_writable()
        return seal_tails(self.shard_access(), progress)

    def compact(
        self,
        policy: CompactionPolicy | None = None,
        *,
        copy_to: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> CompactionResult:
        """Merge small chunks and write those of older schemas anew, beside readers and writers.

        Pointers and versions stay as they are. Transactions are short; when it is interrupted, what was done stays
        done. A compacted store is left as it is. Freed pages serve later writes, they are not given back to the file
        system and not wiped: for that, ``copy_to``.

        Args:
            policy: what is worth it; None: ``CompactionPolicy()``.
            copy_to: where nothing is yet: then copy the store there, as :meth:`backup` does. The copy has full pages,
                no free ones, and no byte of what was trimmed or dropped. It is the same store (same ``fingerprint``):
                put it in this one's place once nobody writes here, and delete this one.
            progress: called with steps done and all steps.

        Raises:
            ReadOnlyError: when the store was opened with ``readonly=True``.
            StoreExistsError: when something is at ``copy_to``; nothing is then done.
            StoreFullError: when there is no room; the copy does then not appear.
            CorruptChunkError: for a damaged chunk that would be rewritten; what came before stays done.

        """
        from uihkv.compact import compact_shards

        self._check_writable()
        if policy is not None and not isinstance(policy, CompactionPolicy):
            raise SchemaError(f"{type(policy).__name__} given as policy; a uihkv.CompactionPolicy is expected")
        target = None if copy_to is None else _vacant(copy_to)
        before = self._file_bytes()
        result = compact_shards(self.shard_access(), CompactionPolicy() if policy is None else policy, progress)
        after = self._file_bytes() if target is None else self._copy(target, progress).bytes
        return replace(result, bytes_before=before, bytes_after=after)

    def backup(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> BackupResult:
        """Copy the store while it is used: all shards as of one moment, under the path whole or not at all.

        Writers wait for a moment at the beginning, until every shard is held, and then go on; they are not in the copy.
        Every record is written anew, in the order of keys: the copy is as small as can be and holds nothing else. It
        is the same store, to be opened in this one's place, with the offsets of its sources: consumers go on from
        there.

        Args:
            path: where nothing is yet.
            progress: called with records copied and all records.

        Raises:
            StoreExistsError: when something is there.
            StoreFullError: when there is no room; nothing then appears.

        """
        return self._copy(_vacant(path), progress)

    def verify(self, repair: bool = False, *, isolated: bool = True, progress: Progress | None = None) -> VerifyReport:
        """Read all that the store holds, and say what is wrong and where; :mod:`uihkv.verify` says what is checked.

        Beside readers and writers, one shard after the other. :func:`uihkv.verify.verify_store` does it for a store
        that does not open.

        Args:
            repair: write chunks anew whose bounds or zones are not true to their data. Nothing else is derivable.
            isolated: check in a process of its own, which damaged pages may kill; without it they may kill this one.
            progress: called with the shards done and all shards.

        Raises:
            ReadOnlyError: with ``repair``, when the store was opened with ``readonly=True``.

        """
        from uihkv.verify import repair_chunks, verify_store

        if repair:
            self._check_writable()
        report = verify_store(self._path, isolated=isolated, progress=progress)
        repaired = repair_chunks(self.shard_access(), report.problems) if repair else []
        if repaired:
            report = verify_store(self._path, isolated=isolated, progress=progress)
        return replace(report, repaired=tuple(repaired))

    def _copy(self, target: Path, progress: Progress | None) -> BackupResult:
        from uihkv.aside import built_aside
        from uihkv.copies import copy_shards
        from uihkv.shard import space_errors

        shards = [self._shard(number) for number in range(self.shards)]
        with _new_parents(target), built_aside(target) as aside, ExitStack() as reading:
            with ExitStack() as held:
                for shard in shards:
                    if shard.writable:
                        held.callback(shard.begin_write().abort)
                self._refresh_manifest()
                manifest = self._manifest
                transactions = []
                for shard in shards:
                    transaction = shard.begin_read()
                    reading.callback(transaction.abort)
                    transactions.append(transaction)
            folders = [_shard_path(aside, number) for number in range(self.shards)]
            with space_errors(aside):
                records = copy_shards(shards, transactions, folders, progress)
            write_manifest(aside, manifest)
            size = _store_bytes(aside)
        return BackupResult(target, records, size)

    def _file_bytes(self) -> int:
        return _store_bytes(self._path)

    def shard_access(self) -> ShardAccess:
        """The shards, for what rewrites their chunks."""
        from uihkv.rewrite import ShardAccess

        return ShardAccess(self.shards, self._viewing, self._writing)

    @contextmanager
    def _viewing(self, number: int) -> Iterator[ShardView]:
        with self._reading(number) as (shard, transaction):
            yield self._view(shard, transaction)

    @contextmanager
    def _writing(self, number: int) -> Iterator[ShardView]:
        """A shard to write to. Its layouts are looked up under its lock: they are those of all that it holds."""
        from uihkv.shard import space_errors

        shard = self._shard(number)
        with space_errors(self._path):
            transaction = shard.begin_write()
            try:
                yield self._view(shard, transaction)
            except BaseException:
                transaction.abort()
                raise
            transaction.commit()
            self._settle([number])

    def _view(self, shard: Shard, transaction: Any) -> ShardView:
        from uihkv.rewrite import ShardView

        layouts = self._layouts()
        return ShardView(shard, transaction, layouts, self._manifest.chunk_events, self._manifest.compress)

    # -- reading ------------------------------------------------------------------------------------

    def snapshot(self, *, verify: Verify = "once") -> Snapshot:
        """A consistent read view over all shards; close it, or use it in a ``with``.

        Args:
            verify: when checksums are checked: at a chunk's first use in the snapshot, always, or never.

        """
        from uihkv.directory import NewestListing
        from uihkv.snapshot import Snapshot

        with self._lock:
            shards = [self._shard(number) for number in range(self.shards)]
            if self._newest_listing is None:
                self._newest_listing = NewestListing()
            while True:
                layouts = self._layouts()
                snapshot = Snapshot(shards, layouts, verify, self._reading_pool(), self._newest_listing)
                if self._layouts() is layouts:  # no chunk that it sees is of a newer schema
                    self._snapshots.add(snapshot)
                    return snapshot
                snapshot.close()

    def sources(self) -> dict[str, int]:
        """Last offset of each source that every shard has: a consumer goes on behind it."""
        claims: dict[str, SourceRecord] = {}
        for number in range(self.shards):
            with self._reading(number) as (shard, transaction):
                found = shard.sources(transaction)
            claims.update({name: record for name, record in found.items() if home_of(name, self.shards) == number})
        # Own offsets only rise: read after the claims, they show no shard behind that was not.
        own = {name: np.full(self.shards, NONE, np.int64) for name in claims}
        for number in range(self.shards):
            with self._reading(number) as (shard, transaction):
                for name, record in shard.sources(transaction).items():
                    if name in own:
                        own[name][number] = record.own
        done = {name: offset_done(record, own[name]) for name, record in sorted(claims.items())}
        return {name: offset for name, offset in done.items() if offset != NONE}

    def stats(self, *, details: bool = False) -> StoreStats:
        """What the store holds.

        Args:
            details: also where every byte goes, by column, encoding and page. That reads the header of every chunk;
                without it, only keys and the headers of tails are read.

        """
        from uihkv.statistics import describe_store

        self._refresh_manifest()
        return describe_store(self.shard_access(), self._path, self._path / MANIFEST_NAME, details)

    # -- inside -------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self, number: int) -> Iterator[tuple[Shard, Any]]:
        shard = self._shard(number)
        transaction = shard.begin_read()
        try:
            yield shard, transaction
        finally:
            transaction.abort()

    def _shard(self, number: int) -> Shard:
        """The open shard; after a fork, opened again in the child."""
        from uihkv.shard import Shard

        with self._lock:
            if self._closed:
                raise StoreClosedError(f"{self._path} is closed; open it again with Store.open")
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._open_shards = {}
                self._reading_threads = None
                self._lanes = None
                self._newest_listing = None
                self._unsynced = set()
                self._snapshots = weakref.WeakSet()
            shard = self._open_shards.get(number)
            if shard is None:
                shard = Shard(_shard_path(self._path, number), number, flush=not self._building)
                self._open_shards[number] = shard
            return shard

    def _refresh_manifest(self) -> None:
        """Read the manifest again if another one was put in its place."""
        with self._lock:
            stamp = manifest_stamp(self._path)
            if stamp == self._stamp:
                return
            manifest = read_manifest(self._path)
            if manifest.store_id != self._manifest.store_id or manifest.shards != self._manifest.shards:
                raise FormatError(f"{self._path} is another store than the one that was opened; open it again")
            if manifest.schemas != self._manifest.schemas:
                self._layouts_made = None
            self._manifest, self._stamp = manifest, stamp

    def _reading_pool(self) -> Threads | None:
        from uihkv.codec import Threads

        if self._threads > 1 and self._reading_threads is None:
            self._reading_threads = Threads(self._threads)
        return self._reading_threads

    def _layouts(self) -> Layouts:
        """Layouts of every schema that the store has had until now; another object whenever the schema changed."""
        from uihkv.codec import Layouts

        with self._lock:
            self._refresh_manifest()
            if self._layouts_made is None:
                self._layouts_made = Layouts(self._manifest.schemas)
            return self._layouts_made

    def _check_writable(self) -> None:
        if self._readonly:
            raise ReadOnlyError(f"{self._path} was opened with readonly=True; open it without to append")
        if self._closed:
            raise StoreClosedError(f"{self._path} is closed; open it again with Store.open")


def _reopen(path: str, readonly: bool, threads: int, durability: Durability) -> Store:
    return Store.open(path, readonly, threads=threads, durability=durability)


def _reopen_built(path: str) -> Store:
    return Store._open_built(Path(path), read_manifest(Path(path)))


def _plan_store(
    path: str | os.PathLike[str], schema: Schema, shards: int, chunk_events: int, compression: str
) -> tuple[Path, Manifest]:
    """Where a new store goes and what it is, once both are seen to be possible."""
    if not isinstance(schema, Schema):
        raise SchemaError(f"{type(schema).__name__} given as schema; a uihkv.Schema is expected")
    _check_whole("shards", shards, 1, MAX_SHARDS)
    _check_whole("chunk_events", chunk_events, 1, MAX_CHUNK_EVENTS)
    if compression not in COMPRESSIONS:
        raise SchemaError(f"compression is {compression!r}; one of {', '.join(COMPRESSIONS)} is expected")
    return _vacant(path), Manifest(uuid.uuid4().hex, shards, chunk_events, compression == "lz4", (schema,))


def _vacant(path: str | os.PathLike[str]) -> Path:
    """A path where a store may be put."""
    target = _as_path(path)
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        what = "a store is there" if (target / MANIFEST_NAME).exists() else "something is there"
        raise StoreExistsError(f"{target}: {what}; open it with Store.open, or choose another path")
    return target


def _store_bytes(store: Path) -> int:
    """Size of a store's data files and manifest."""
    return sum(file.stat().st_size for file in (store / MANIFEST_NAME, *store.glob("shards/*/data.mdb")))


def _as_path(path: Any) -> Path:
    try:
        target = Path(path).absolute()
    except TypeError:
        raise SchemaError(f"path is {path!r}; a str or an os.PathLike is expected") from None
    if "\0" in str(target):
        raise SchemaError(f"path is {path!r}; no path holds a NUL")
    return target


def _shard_path(store: Path, number: int) -> Path:
    return store / "shards" / f"{number:04d}"


@contextmanager
def _new_parents(target: Path) -> Iterator[None]:
    """Make the directories above a path, and take away again what was made when it fails inside."""
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreExistsError(f"{target}: {error.filename} is a file; choose another path") from error
    try:
        yield
    except BaseException:
        with suppress(OSError):  # somebody else has put something there
            for parent in missing:
                parent.rmdir()
        raise


@contextmanager
def _placed_whole(target: Path) -> Iterator[Path]:
    """A new directory that takes the target's place when all went well inside, and is removed when not."""
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield aside
        aside.chmod(0o755)
        try:
            aside.rename(target)
        except OSError as error:
            raise StoreExistsError(f"{target}: something was put there meanwhile ({error})") from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _create_shards(store: Path, shards: int, *, flush: bool = True) -> None:
    from uihkv.shard import Shard

    with ExitStack() as stack:
        for number in range(shards):
            path = _shard_path(store, number)
            path.mkdir(parents=True)
            shard = Shard(path, number, create=True, flush=flush)
            stack.callback(shard.close)
            if flush:
                shard.sync()
    for number in range(shards):
        sync_directory(_shard_path(store, number))
    sync_directory(store / "shards")


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise SchemaError(f"{name} is {value!r}; a whole number from {low} to {high} is expected")


def _check_durability(durability: str) -> None:
    if durability not in get_args(Durability):
        raise SchemaError(f"durability is {durability!r}; one of {', '.join(get_args(Durability))} is expected")


def check_source(source: str | None, offset: int | None) -> int | None:
    """The offset as a plain int."""
    if (source is None) != (offset is None):
        raise SchemaError("source and offset go together; give both or neither")
    if source is None or offset is None:
        return None
    try:
        size = len(source.encode()) if isinstance(source, str) else 0
    except UnicodeEncodeError:  # half a surrogate pair
        size = 0
    if not 1 <= size <= _MAX_SOURCE_BYTES or "\0" in source:
        raise SchemaError(f"source is {source!r}; a name of 1 to {_MAX_SOURCE_BYTES} bytes is expected, and no NUL")
    _check_whole("offset", offset, 0, np.iinfo(np.int64).max)
    return int(offset)
