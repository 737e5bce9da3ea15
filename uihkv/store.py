"""A store: a directory of shards, and the manifest that says what they hold.

This is the store's face: every method checks what it is given and calls the module whose work it is. What an open store
consists of is :mod:`uihkv.openstore`'s, how events get in :mod:`uihkv.appending`'s, how a snapshot reads
:mod:`uihkv.snapshot`'s.

Invariants: arrival order is the order of appends, and of rows within one; versions are never reused; an append
that returned is durable, as far as the handle's durability says; an offset that :meth:`Store.sources` lists is one that
every shard has (:mod:`uihkv.sources`).
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uihkv import keys
from uihkv.appending import AppendResult, append_events, check_source
from uihkv.aside import built_aside
from uihkv.errors import PointerError, SchemaError
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
from uihkv.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest
from uihkv.newstore import (
    as_path,
    check_whole,
    found_store,
    new_parents,
    plan_store,
    shard_path,
    store_bytes,
    vacant_path,
)
from uihkv.openstore import Durability, OpenStore, check_durability
from uihkv.place import warn_of_network
from uihkv.pointers import as_int64, as_user_ids
from uihkv.schema import TIME_UNITS, Column, Schema
from uihkv.sources import NONE, home_of, offset_done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uihkv.codec import Verify
    from uihkv.events import Events
    from uihkv.rewrite import ShardAccess
    from uihkv.snapshot import Snapshot
    from uihkv.sources import SourceRecord

MAX_THREADS = 256


class Store:
    """Histories on disk. Make one with :meth:`create`, open one with :meth:`open`, end with :meth:`close`.

    A store may be pickled, and used after ``fork`` or in a spawned process: it opens itself again there. Snapshots
    do not travel. Several processes may read and write the same store at once; each shard has one writer at
    a time, and the others wait.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        readonly: bool,
        threads: int = 1,
        durability: Durability = "sync",
        building: bool = False,
    ) -> None:
        self._open = OpenStore(path, manifest, readonly, threads, durability, building)

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
            chunk_events: most events of a chunk. A tail is sealed when it has so many, or fills a page of LMDB; fewer
                make short reads cheaper and the store larger.
            compression: ``"lz4"``, or ``"none"``.
            durability: of the handle that is returned, as in :meth:`open`.

        Raises:
            StoreExistsError: when something is there.
            SchemaError: for arguments that cannot be.

        """
        check_durability(durability)
        target, manifest = plan_store(path, schema, shards, chunk_events, compression)
        with new_parents(target), built_aside(target) as aside:
            found_store(aside, manifest)
        warn_of_network(target)
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
            chunk_events: most events of a chunk.
            compression: ``"lz4"``, or ``"none"``.

        Raises:
            StoreExistsError: when something is there, at the beginning or the end.
            SchemaError: for arguments that cannot be.

        """
        target, manifest = plan_store(path, schema, shards, chunk_events, compression)
        with new_parents(target), built_aside(target) as aside:
            found_store(aside, manifest)
            with cls(aside, manifest, False, building=True) as store:
                yield store

    @classmethod
    @contextmanager
    def assemble(
        cls,
        path: str | os.PathLike[str],
        schema: Schema,
        shards: int = 16,
        *,
        chunk_events: int = 1024,
        compression: str = "lz4",
    ) -> Iterator[Path]:
        """As :meth:`build`, of shards that :meth:`build_shard` builds each by itself, in processes of any machine.

        Inside the block it is the directory that is filled aside, for :meth:`build_shard`. At the block's end
        the store appears under its path, if every shard is there.

        Raises:
            IngestError: when a shard was not built.
            StoreExistsError, SchemaError: as :meth:`build`.

        """
        from uihkv.assembly import begin_assembly, end_assembly

        target, manifest = plan_store(path, schema, shards, chunk_events, compression)
        with new_parents(target), built_aside(target) as aside:
            begin_assembly(aside, manifest)
            yield aside
            end_assembly(aside, manifest)

    @classmethod
    @contextmanager
    def build_shard(
        cls, assembly: str | os.PathLike[str], number: int, scratch: str | os.PathLike[str] | None = None
    ) -> Iterator[Store]:
        """One shard of a store that is assembled: inside the block a store that takes this shard's users alone.

        At the block's end the shard is put in its place, whole; where the block was left by an error, or its process
        died, nothing is. So it may be tried again, also while an attempt that was given up still runs: the first
        that ends is the one that counts.

        Args:
            assembly: the directory that :meth:`assemble` gives, as this machine sees it.
            number: of the shard.
            scratch: folder on a disk of this machine where it is built; None: in the assembly's own file system.

        Raises:
            FormatError, StoreNotFoundError: when no store is assembled there.
            SchemaError: when it has no such shard, or for a scratch folder that is not there.

        """
        from uihkv.assembly import attempt, begin_shard, place_shard

        home = as_path(assembly)
        manifest = read_manifest(home)
        check_whole("number", number, 0, manifest.shards - 1)
        with attempt(home, scratch) as folder:
            begin_shard(folder, manifest, number)
            with cls(folder, manifest, False, building=True) as store:
                yield store
            place_shard(folder, home, number)

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
            FormatError: when what is there is not a store, a store of a newer format, or one whose parts are links.

        A store on a network file system is warned of (StoreWarning).

        """
        check_whole("threads", threads, 1, MAX_THREADS)
        check_durability(durability)
        target = as_path(path)
        warn_of_network(target)
        store = cls(target, read_manifest(target), readonly, threads, durability)
        try:
            for number in range(store.shards):
                store._open.shard(number)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the store and its snapshots, and make durable what it appended. Closing twice is no error."""
        self._open.close()

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
        if self._open.building:
            return _reopen_built, (str(self._open.path),)
        return _reopen, (str(self._open.path), self._open.readonly, self._open.threads, self._open.durability)

    def __repr__(self) -> str:
        return f"Store({str(self._open.path)!r}, shards={self.shards}{', readonly' if self._open.readonly else ''})"

    # -- what it is ---------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The store's directory."""
        return self._open.path

    @property
    def schema(self) -> Schema:
        """The columns of its events, as they are now: also when another process changed them."""
        if not self._open.closed:
            self._open.refresh_manifest()
        return self._open.manifest.schema

    @property
    def shards(self) -> int:
        """Number of shards."""
        return self._open.manifest.shards

    @property
    def readonly(self) -> bool:
        """Whether this handle refuses to write."""
        return self._open.readonly

    @property
    def durability(self) -> Durability:
        """What this handle promises of its appends."""
        return self._open.durability

    @property
    def building(self) -> bool:
        """Whether this is a store inside its :meth:`build`, which nobody else sees yet."""
        return self._open.building

    @property
    def fingerprint(self) -> str:
        """Identity of the store, for the state of a loader: drawn at creation, the same for ever."""
        return self._open.manifest.store_id

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
        durability says (:meth:`open`). It becomes visible shard by shard, each user's part at once. When the process
        dies in between, some shards have the batch and some have not: with ``source`` and ``offset``, the same append
        made again completes it.

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
            CorruptChunkError, FormatError: when a user's tail, or a page that leads to it, is damaged; nothing of the
                batch is then stored.

        """
        from uihkv.events import parse_events

        self._open.check_writable()
        if backfill and visible_at is not None:
            raise SchemaError("backfill=True takes visible times from ts; give visible_at or backfill, not both")
        offset = check_source(source, offset)
        layouts = self._open.layouts()
        events = parse_events(layouts.schema, data, visible_at)
        if visible_at is None:
            now = time.time_ns() // (10**9 // TIME_UNITS[layouts.schema.time_unit])
            visible = events.ts.copy() if backfill else np.full(len(events), now, np.int64)
            events = replace(events, visible_at=visible)
        results = append_events(self._open, layouts, events, source, offset)
        if results is None:  # the schema changed meanwhile: once more, by the new one
            return self.append(data, visible_at, backfill=backfill, source=source, offset=offset)
        return AppendResult.of(results)

    def append_parsed(
        self,
        schema: Schema,
        events: Events,
        *,
        source: str | None = None,
        offset: int | None = None,
        ended: tuple[str, int] | None = None,
    ) -> AppendResult:
        """Append events that were parsed by a schema before: for :mod:`uihkv.ingest`; others use :meth:`append`.

        With ``source`` and ``offset``, a replay is found out as ever, but the offset is not claimed: where several
        writers store a source together, none of them knows when all shards have it (:mod:`uihkv.claims`). For a job,
        ``ended`` is its source and the offset that finishing it gives that: a shard where that has come about stores
        nothing, though it no longer knows the job.

        Raises:
            SchemaError: when the store's schema is no longer this one; nothing is then written.
            ReadOnlyError, StoreFullError, CorruptChunkError: as :meth:`append`.

        """
        self._open.check_writable()
        layouts = self._open.layouts()
        results = None
        if layouts.schema is schema or (layouts.schema == schema and layouts.schema.ids == schema.ids):
            results = append_events(self._open, layouts, events, source, offset, claim=False, ended=ended)
        if results is None:
            raise SchemaError(f"the schema of {self._open.path} was changed meanwhile; ingest again, by the new one")
        return AppendResult.of(results)

    def sync(self) -> None:
        """Make durable all that was appended until now, by any handle and process.

        For ``durability="relaxed"``: what an append leaves to :meth:`close`.
        """
        self._open.check_writable()
        self._open.sync()

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
        self._open.evolve(lambda history: with_column(history, column))

    def drop_column(self, name: str) -> None:
        """Take a column away. Chunks stay as they are; its values are no longer read, and go when chunks are rewritten.

        A projection that names it is refused from the next snapshot on. How the change reaches other handles, see
        :meth:`add_column`.

        Raises:
            SchemaError: for a column that the schema does not have, or its only one.
            ReadOnlyError: when the store was opened with ``readonly=True``.

        """
        self._open.evolve(lambda history: without_column(history, name))

    def widen_column(self, name: str, dtype: str) -> None:
        """Give a column a wider type that holds each of its values exactly: ``widen_column("count", "int64")``.

        Integers widen to wider integers of the same sign, unsigned ones also to wider signed ones, floats to wider
        floats. Chunks stay as they are and are widened as they are read. How the change reaches other handles, see
        :meth:`add_column`.

        Raises:
            SchemaError: for a column that the schema does not have, or another type.
            ReadOnlyError: when the store was opened with ``readonly=True``.

        """
        self._open.evolve(lambda history: with_wider_column(history, name, dtype))

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

        self._open.check_writable()
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

        self._open.check_writable()
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

        self._open.check_writable()
        limits = np.iinfo(np.int64)
        check_whole("visible_before", visible_before, int(limits.min), int(limits.max))
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

        self._open.check_writable()
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

        self._open.check_writable()
        if policy is not None and not isinstance(policy, CompactionPolicy):
            raise SchemaError(f"{type(policy).__name__} given as policy; a uihkv.CompactionPolicy is expected")
        target = None if copy_to is None else vacant_path(copy_to)
        before = store_bytes(self._open.path)
        result = compact_shards(self.shard_access(), CompactionPolicy() if policy is None else policy, progress)
        after = store_bytes(self._open.path) if target is None else self._copy(target, progress).bytes
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
        return self._copy(vacant_path(path), progress)

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
            self._open.check_writable()
        report = verify_store(self._open.path, isolated=isolated, progress=progress)
        repaired = repair_chunks(self.shard_access(), report.problems) if repair else []
        if repaired:
            report = verify_store(self._open.path, isolated=isolated, progress=progress)
        return replace(report, repaired=tuple(repaired))

    def _copy(self, target: Path, progress: Progress | None) -> BackupResult:
        from uihkv.copies import copy_shards
        from uihkv.shard import space_errors

        with self._open.under_way(), new_parents(target), built_aside(target) as aside, ExitStack() as reading:
            shards = [self._open.shard(number) for number in range(self.shards)]
            with ExitStack() as held:
                for shard in shards:
                    if shard.writable:
                        held.callback(shard.begin_write().abort)
                self._open.refresh_manifest()
                manifest = self._open.manifest
                transactions = []
                for shard in shards:
                    transaction = shard.begin_read()
                    reading.callback(transaction.abort)
                    transactions.append(transaction)
            folders = [shard_path(aside, number) for number in range(self.shards)]
            with space_errors(aside):
                records = copy_shards(shards, transactions, folders, progress)
            write_manifest(aside, manifest)
            size = store_bytes(aside)
        return BackupResult(target, records, size)

    def shard_access(self) -> ShardAccess:
        """The shards, for what rewrites their chunks."""
        return self._open.access()

    # -- reading ------------------------------------------------------------------------------------

    def snapshot(self, *, verify: Verify = "once") -> Snapshot:
        """A consistent read view over all shards; close it, or use it in a ``with``.

        Its first use lists what has changed since the handle's last listing: pages of keys, if a snapshot as old as
        that was still open when this one was taken, else whole shards. So take the next one before you close the last.

        Args:
            verify: when checksums are checked: at a chunk's first use in the snapshot, always, or never.

        """
        return self._open.snapshot(verify)

    def sources(self) -> dict[str, int]:
        """Last offset of each source that every shard has: a consumer goes on behind it."""
        claims: dict[str, SourceRecord] = {}
        for number in range(self.shards):
            with self._open.reading(number) as (shard, transaction):
                found = shard.sources(transaction)
            claims.update(
                {
                    name: record.check(name, self.shards)
                    for name, record in found.items()
                    if home_of(name, self.shards) == number
                }
            )
        # Own offsets only rise: read after the claims, they show no shard behind that was not.
        own = {name: np.full(self.shards, NONE, np.int64) for name in claims}
        for number in range(self.shards):
            with self._open.reading(number) as (shard, transaction):
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

        self._open.refresh_manifest()
        return describe_store(self.shard_access(), self._open.path, self._open.path / MANIFEST_NAME, details)


def _reopen(path: str, readonly: bool, threads: int, durability: Durability) -> Store:
    return Store.open(path, readonly, threads=threads, durability=durability)


def _reopen_built(path: str) -> Store:
    return Store(Path(path), read_manifest(Path(path)), False, building=True)
