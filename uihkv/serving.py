"""What does the serving side read, and what does it log? Fresh snapshots at a stated cadence, shared by its threads.

A request's history and its pointer come from ONE snapshot, so that what was served can be rebuilt. A snapshot for every
request would make each of them find its chunks anew; one for ever would be stale. So a snapshot is shared until it is
``refresh_s`` old: the read that finds it older takes a new one.

Invariants: no read begins on a snapshot older than ``refresh_s``; a read keeps its snapshot to its end; a replaced
snapshot is closed when its last read ended, by that read. There is no thread and no timer: when nobody reads, the last
snapshot stays open, and so do the pages it holds in the store's files; :meth:`FreshSnapshots.drop` lets go of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from numpy.typing import ArrayLike

from uihkv.errors import SchemaError, StoreClosedError
from uihkv.histories import Histories
from uihkv.inline import InlineTail
from uihkv.pointers import Pointers
from uihkv.projection import Projection
from uihkv.store import Store

if TYPE_CHECKING:
    from uihkv.bases import OnTrimmed
    from uihkv.codec import Verify
    from uihkv.snapshot import Snapshot

REFRESH_S = 1.0


class _Lease:
    """A snapshot, when it was taken, and how many reads are under way on it."""

    __slots__ = ("readers", "replaced", "snapshot", "taken_s")

    def __init__(self, snapshot: Snapshot, taken_s: float) -> None:
        self.snapshot = snapshot
        self.taken_s = taken_s
        self.readers = 0
        self.replaced = False


class FreshSnapshots:
    """Snapshots of a store that are never older than a cadence; safe for threads, and after a fork.

    Args:
        store: stays the caller's to close.
        refresh_s: age in seconds up to which a snapshot is shared; 0: every use takes a new one.
        verify: as ``Store.snapshot``.

    Raises:
        SchemaError: for a cadence that is not a number of 0 or more.

    """

    def __init__(self, store: Store, refresh_s: float = REFRESH_S, *, verify: Verify = "once") -> None:
        if isinstance(refresh_s, bool) or not isinstance(refresh_s, int | float) or not refresh_s >= 0:
            raise SchemaError(f"refresh_s is {refresh_s!r}; seconds of 0 or more are expected")
        self._store = store
        self._refresh_s = float(refresh_s)
        self._verify: Verify = verify
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._current: _Lease | None = None

    @property
    def store(self) -> Store:
        """Where snapshots come from."""
        return self._store

    @property
    def age_s(self) -> float | None:
        """Seconds since the current snapshot was taken; None: there is none yet."""
        current = self._current
        return None if current is None else time.monotonic() - current.taken_s

    @property
    def taken_s(self) -> float | None:
        """When, by ``time.monotonic()``, the current snapshot was taken, or earlier; None: there is none yet."""
        current = self._current
        return None if current is None else current.taken_s

    @contextmanager
    def use(self, *, newer: bool = False, any_age: bool = False) -> Iterator[Snapshot]:
        """A snapshot that stays open inside.

        Args:
            newer: take a new one now, whatever the current one's age is.
            any_age: the current one will do, if there is one: it has what was seen in any snapshot before.

        Raises:
            StoreClosedError: after :meth:`close`.

        """
        lease = self._acquire(newer, any_age)
        try:
            yield lease.snapshot
        finally:
            self._release(lease)

    def _acquire(self, newer: bool, any_age: bool) -> _Lease:
        if self._pid != os.getpid():
            self._begin()  # snapshots and locks are the parent's
        old: _Lease | None = None
        with self._lock:
            if self._closed:
                raise StoreClosedError("this reader is closed; make a new one")
            lease = self._current
            now = time.monotonic()
            if lease is None or newer or not (any_age or (self._refresh_s and now - lease.taken_s <= self._refresh_s)):
                # The time is noted before the snapshot is taken, so that an age is never understated.
                lease = _Lease(self._store.snapshot(verify=self._verify), now)
                old, self._current = self._replace(), lease
            lease.readers += 1
        if old is not None:
            old.snapshot.close()
        return lease

    def _replace(self) -> _Lease | None:
        """Retire the current lease; gives it back if nobody reads it, for the caller to close."""
        lease, self._current = self._current, None
        if lease is None:
            return None
        lease.replaced = True
        return None if lease.readers else lease

    def _release(self, lease: _Lease) -> None:
        if self._pid != os.getpid():
            return
        with self._lock:
            lease.readers -= 1
            last = lease.replaced and not lease.readers
        if last:
            lease.snapshot.close()

    def drop(self) -> None:
        """Let go of the current snapshot; the next use takes a new one. For times without requests."""
        with self._lock:
            old = self._replace()
        if old is not None:
            old.snapshot.close()

    def close(self) -> None:
        """Refuse further uses; the snapshot is closed now, or by the last read under way. Twice is no error."""
        self._closed = True
        if self._pid == os.getpid():
            self.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HistoryReader:
    """Histories for requests, with the pointers to log; safe to use from several threads at once.

    ::

        with HistoryReader(store, refresh_s=0.5) as reader:
            histories, pointers = reader.read(user_ids, Projection(max_len=1024))
            log(request, pointers.pack())              # or pointers.to_arrow()

    Args:
        store: stays the caller's to close.
        refresh_s: oldest snapshot, in seconds, that a read begins on: how stale a history may be. 0: always a new one.
        verify: as ``Store.snapshot``.

    Raises:
        SchemaError: for a cadence that is not a number of 0 or more.

    """

    def __init__(self, store: Store, refresh_s: float = REFRESH_S, *, verify: Verify = "once") -> None:
        self._snapshots = FreshSnapshots(store, refresh_s, verify=verify)

    @property
    def age_s(self) -> float | None:
        """Seconds since the current snapshot was taken; None: there is none yet."""
        return self._snapshots.age_s

    def read(
        self,
        user_ids: ArrayLike,
        projection: Projection | None = None,
        *,
        as_of: ArrayLike | None = None,
        epoch: int = 0,
        on_trimmed: OnTrimmed = "raise",
        inline: InlineTail | None = None,
    ) -> tuple[Histories, Pointers]:
        """Everything that the store has of these users, and pointers to exactly that.

        Args:
            user_ids: int64[B]; a user without a history gets version 0 and an empty sequence.
            projection: what is wanted; None: everything.
            as_of: int64[B], from when ``max_age`` counts; log it with the example. None: from each ``last_ts``.
            epoch: for ``Projection.sample``.
            on_trimmed: as ``Snapshot.read``; read the examples by the same policy.
            inline: B tails of events that the serving side has and the store may not have yet. The pointers name the
                store's part; log ``inline.after(pointers.version)`` beside them.

        Raises:
            StoreClosedError: after :meth:`close`.
            PointerError, SchemaError, TrimmedError, CorruptChunkError: as ``Snapshot.read``.

        """
        with self._snapshots.use() as snapshot:
            pointers = snapshot.head(user_ids)
            histories = snapshot.read(
                pointers, projection, as_of=as_of, epoch=epoch, on_trimmed=on_trimmed, inline=inline
            )
        return histories, pointers

    def refresh(self) -> None:
        """Let the next read take a new snapshot, and let go of the current one."""
        self._snapshots.drop()

    def close(self) -> None:
        """End; reads under way end as they would. Closing twice is no error."""
        self._snapshots.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
