"""An open store from inside: its shards, the manifest as it is now, and transactions.

This is what the front's parts work on: :mod:`uihkv.store` is its face, :mod:`uihkv.appending` writes through it,
maintenance reaches shards by its :meth:`OpenStore.access`.

Invariants: a shard is opened once a process; a child of fork opens its own, and lets go of all that was its parent's;
layouts are those of every schema that anything in the store can be of when they are asked for.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from uihkv.errors import FormatError, ReadOnlyError, SchemaError, StoreClosedError
from uihkv.manifest import Manifest, manifest_stamp, read_manifest, write_manifest
from uihkv.newstore import shard_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uihkv.codec import Layouts, Verify
    from uihkv.lanes import Lanes
    from uihkv.listing import NewestListing
    from uihkv.rewrite import ShardAccess, ShardView
    from uihkv.schema import Schema
    from uihkv.shard import Shard
    from uihkv.snapshot import Snapshot
    from uihkv.threads import Threads

Durability = Literal["sync", "relaxed"]
"""What a handle promises of its appends: ``Store.open`` says what each loses."""


def check_durability(durability: str) -> None:
    """Refuse what is no level.

    Raises:
        SchemaError: for it.

    """
    if durability not in get_args(Durability):
        raise SchemaError(f"durability is {durability!r}; one of {', '.join(get_args(Durability))} is expected")


class OpenStore:
    """What a handle holds.

    Args:
        path: the store's directory.
        manifest: as it was read.
        readonly: refuse to write.
        threads: that share the decoding of each large read.
        durability: what commits promise.
        building: nobody else sees the store yet: nothing is flushed.

    """

    __slots__ = (
        "_closed", "_closing", "_ended", "_lanes", "_layouts_made", "_newest_listing", "_open_shards", "_pid",
        "_reading_threads", "_snapshots", "_stamp", "_under_way", "_unsynced", "building", "durability", "lock",
        "manifest", "path", "readonly", "threads",
    )  # fmt: skip

    def __init__(
        self, path: Path, manifest: Manifest, readonly: bool, threads: int, durability: Durability, building: bool
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.readonly = readonly
        self.threads = threads
        self.durability: Durability = durability
        self.building = building
        self.lock = threading.RLock()
        self._ended = threading.Condition(self.lock)
        self._closing = self._closed = False
        self._layouts_made: Layouts | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._begin_in_process()

    def _begin_in_process(self) -> None:
        self._pid = os.getpid()
        self._open_shards: dict[int, Shard] = {}
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._unsynced: set[int] = set()
        self._reading_threads: Threads | None = None
        self._lanes: Lanes | None = None
        self._newest_listing: NewestListing | None = None
        self._under_way: Counter[int] = Counter()

    @property
    def shards(self) -> int:
        """Number of shards."""
        return self.manifest.shards

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Close snapshots and shards, and make durable what was left to that. Closing twice is no error.

        Transactions of other threads end first, and begin no more: LMDB would wait for them while this holds the lock
        that they need, or take the map away under them.
        """
        with self.lock:
            self._closing = True
            while self._pid == os.getpid() and self._under_way.keys() - {threading.get_ident()}:
                self._ended.wait()
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
                if self._lanes is not None:
                    self._lanes.close()
            self._begin_in_process()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """While inside, this thread works with transactions, and the store is not closed by others.

        Raises:
            StoreClosedError: when the store is closed, or somebody waits to close it.

        """
        thread = threading.get_ident()
        with self.lock:
            if self._pid != os.getpid():
                self._begin_in_process()
            if self._closing and thread not in self._under_way:
                raise self._closed_error()
            self._under_way[thread] += 1
        try:
            yield
        finally:
            with self.lock:
                self._under_way[thread] -= 1
                if not self._under_way[thread]:
                    del self._under_way[thread]
                    self._ended.notify_all()

    def _closed_error(self) -> StoreClosedError:
        return StoreClosedError(f"{self.path} is closed; open it again with Store.open")

    def check_writable(self) -> None:
        """Refuse to write where that is not wanted, or no longer possible.

        Raises:
            ReadOnlyError, StoreClosedError: then.

        """
        if self.readonly:
            raise ReadOnlyError(f"{self.path} was opened with readonly=True; open it without to append")
        if self._closed:
            raise self._closed_error()

    # -- what it is ---------------------------------------------------------------------------------

    def refresh_manifest(self) -> None:
        """Read the manifest again if another one was put in its place.

        Raises:
            FormatError: when it is of another store.

        """
        with self.lock:
            stamp = manifest_stamp(self.path)
            if stamp == self._stamp:
                return
            manifest = read_manifest(self.path)
            if manifest.store_id != self.manifest.store_id or manifest.shards != self.manifest.shards:
                raise FormatError(f"{self.path} is another store than the one that was opened; open it again")
            if manifest.schemas != self.manifest.schemas:
                self._layouts_made = None
            self.manifest, self._stamp = manifest, stamp

    def layouts(self) -> Layouts:
        """Layouts of every schema that the store has had until now; another object whenever the schema changed."""
        from uihkv.codec import Layouts

        with self.lock:
            self.refresh_manifest()
            if self._layouts_made is None:
                self._layouts_made = Layouts(self.manifest.schemas)
            return self._layouts_made

    def evolve(self, change: Callable[[Sequence[Schema]], Schema]) -> None:
        """Put one more schema into the manifest. Shard 0's writer lock keeps out others who would do the same."""
        self.check_writable()
        with self.under_way():
            transaction = self.shard(0).begin_write()
            try:
                self.refresh_manifest()
                write_manifest(self.path, self.manifest.evolve(change(self.manifest.schemas)))
                self.refresh_manifest()
            finally:
                transaction.abort()

    # -- its shards ---------------------------------------------------------------------------------

    def shard(self, number: int) -> Shard:
        """The open shard; after a fork, opened again in the child.

        Raises:
            StoreClosedError: when the store is closed.

        """
        from uihkv.shard import Shard

        with self.lock:
            if self._closed:
                raise self._closed_error()
            if self._pid != os.getpid():
                self._begin_in_process()
            shard = self._open_shards.get(number)
            if shard is None:
                path = shard_path(self.path, number)
                shard = Shard(path, number, flush=not self.building, shards=self.shards)
                self._open_shards[number] = shard
            return shard

    @contextmanager
    def reading(self, number: int) -> Iterator[tuple[Shard, Any]]:
        """A shard and a read transaction."""
        from uihkv.environment import page_errors

        with self.under_way():
            shard = self.shard(number)
            transaction = shard.begin_read()
            try:
                with page_errors(shard.path):
                    yield shard, transaction
            finally:
                transaction.abort()

    def access(self) -> ShardAccess:
        """The shards, for what rewrites their chunks."""
        from uihkv.rewrite import ShardAccess

        return ShardAccess(self.shards, self._viewing, self._writing)

    @contextmanager
    def _viewing(self, number: int) -> Iterator[ShardView]:
        with self.reading(number) as (shard, transaction):
            yield self._view(shard, transaction)

    @contextmanager
    def _writing(self, number: int) -> Iterator[ShardView]:
        """A shard to write to. Its layouts are looked up under its lock: they are those of all that it holds."""
        from uihkv.shard import space_errors

        with self.under_way(), space_errors(self.path):
            shard = self.shard(number)
            transaction = shard.begin_write()
            try:
                yield self._view(shard, transaction)
            except BaseException:
                transaction.abort()
                raise
            transaction.commit()
            self.settle([number])

    def _view(self, shard: Shard, transaction: Any) -> ShardView:
        from uihkv.rewrite import ShardView

        layouts = self.layouts()
        return ShardView(shard, transaction, layouts, self.manifest.chunk_events, self.manifest.compress)

    def settle(self, numbers: Iterable[int]) -> None:
        """Make commits to these shards as durable as the handle promises; every commit is followed by this."""
        if self.building:
            return  # all of it is flushed before it is published
        if self.durability == "sync":
            for number in numbers:
                self.shard(number).sync()
        else:
            self._unsynced.update(numbers)

    def sync(self) -> None:
        """Make durable all that was committed until now, by any handle and process."""
        with self.under_way():
            for number in range(self.shards):
                self.shard(number).sync()
            self._unsynced.clear()

    # -- what its shards share ----------------------------------------------------------------------

    def snapshot(self, verify: Verify) -> Snapshot:
        """A read view over all shards; closed with the store at the latest."""
        from uihkv.listing import NewestListing
        from uihkv.snapshot import Snapshot

        with self.lock:
            shards = [self.shard(number) for number in range(self.shards)]
            if self._newest_listing is None:
                self._newest_listing = NewestListing()
            while True:
                layouts = self.layouts()
                snapshot = Snapshot(shards, layouts, verify, self._reading_pool(), self._newest_listing)
                if self.layouts() is layouts:  # no chunk that it sees is of a newer schema
                    self._snapshots.add(snapshot)
                    return snapshot
                snapshot.close()

    def _reading_pool(self) -> Threads | None:
        from uihkv.threads import Threads

        if self.threads > 1 and self._reading_threads is None:
            self._reading_threads = Threads(self.threads)
        return self._reading_threads

    def commit_lanes(self) -> Lanes:
        """The lanes of this handle; after a fork, others."""
        from uihkv.lanes import Lanes

        with self.lock:
            self.shard(0)  # raises when the store is closed, and lets go of what a fork left
            if self._lanes is None:
                self._lanes = Lanes(self.shards)
            return self._lanes
