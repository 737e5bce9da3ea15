"""A consistent read view over all shards: what every pointer names, rebuilt.

A read is two steps over whole arrays. *Plan*: the pointers' windows are cut along the version ranges of chunks, and the
slices sorted by chunk. *Decode*: one kernel call writes the slices, straight from LMDB's map, into the output arrays.
The outputs are in the order of the pointers.

What is promised: a pointer rebuilds the same events whatever was appended since; no read returns an event at
or past the pointer's version; bytes that are not what was written raise and are never returned. What a read does where
``trim`` has taken events away is :mod:`uihkv.bases`'.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uihkv.bases import OnTrimmed, bases_of, check_on_trimmed, cut_prefixes, find_incomplete, trimmed_error
from uihkv.codec import (
    VERIFY_CODES,
    Layouts,
    Slices,
    Verify,
    ask_for_blocks,
    decode_fixed,
    measure_slices,
)
from uihkv.directory import Ahead, SnapshotDirectory
from uihkv.environment import page_errors
from uihkv.errors import PointerError, SchemaError, StoreClosedError, TrimmedError
from uihkv.histories import Histories, ReadCost
from uihkv.kernels import status
from uihkv.kernels.plan import are_tails_open, cut_windows, plan_by_entry
from uihkv.kernels.resolve import find_versions, group_rows, take_last
from uihkv.listing import NewestListing, Predecessor
from uihkv.lookup import UserLookup
from uihkv.names import numbers_of
from uihkv.opened import find_wrong, plan_at_once
from uihkv.pointers import Pointers, as_int64, as_user_ids
from uihkv.projection import Projection
from uihkv.schema import TS, VISIBLE_AT, Schema
from uihkv.selection import Windows, draw_sample, select_events
from uihkv.shard import Shard, read_ragged
from uihkv.slabs import Slab, SlabPool, address_of
from uihkv.threads import Threads
from uihkv.userids import INT64, UserIds, is_string

if TYPE_CHECKING:
    from uihkv.inline import InlineTail

Int64s = NDArray[np.int64]
Array = NDArray[Any]

_ALIGNMENT = 64
_RESOLVE_EVENTS = 1 << 22
"""Visible times that one step of ``resolve`` holds in memory."""
_RESOLVE_DENSE = 16
"""Events a moment up to which ``resolve`` decodes all ``ts`` of a user rather than single ones."""


class Snapshot:
    """A read view; made by ``Store.snapshot``, closed by ``with`` or :meth:`close`.

    Safe to read from several threads at once. It holds one LMDB reader a shard: while it is open, pages that
    writers replace are not reused, so the files may grow.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        layouts: Layouts,
        verify: Verify = "once",
        threads: Threads | None = None,
        newest: NewestListing | None = None,
    ) -> None:
        if not isinstance(verify, str) or verify not in VERIFY_CODES:
            raise SchemaError(f"verify is {verify!r}; one of {', '.join(VERIFY_CODES)} is expected")
        self._layouts = layouts
        self._threads = threads
        self._verify = VERIFY_CODES[verify]
        self._condition = threading.Condition(threading.RLock())
        self._reading = 0
        self._closed = False
        self._pid = os.getpid()
        self._shards = tuple(shards)
        self._path = self._shards[0].path.parent
        self._transactions: list[Any] = []
        self._newest_listing = NewestListing() if newest is None else newest
        self._directory_made: SnapshotDirectory | None = None
        self._lookup_made: UserLookup | None = None
        self._predecessor: Predecessor | None = None
        self._slabs = SlabPool()
        try:
            for shard in self._shards:
                self._transactions.append(shard.begin_read())
            self._predecessor = self._newest_listing.predecessor(self._shards, self._transactions)
        except BaseException:
            self.close()
            raise

    @property
    def schema(self) -> Schema:
        """The schema in force when the snapshot was taken."""
        return self._layouts.schema

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the view, once reads under way in other threads have ended. Closing twice is no error."""
        with self._condition:
            self._closed = True
            while self._reading:
                self._condition.wait()
            for transaction in self._transactions:
                transaction.abort()
            self._transactions = []
            self._directory_made = self._lookup_made = self._predecessor = None
            self._slabs = SlabPool()  # what is lent now goes to the system when it comes back

    @contextmanager
    def _open(self) -> Iterator[None]:
        """While inside, the map's addresses stay valid."""
        if self._pid != os.getpid():
            raise StoreClosedError("the snapshot is of a parent process; take one of your own with store.snapshot()")
        with self._condition:
            if self._closed:
                raise StoreClosedError("the snapshot is closed; take a new one with store.snapshot()")
            self._reading += 1
        try:
            with page_errors(self._path):
                yield
        finally:
            with self._condition:
                self._reading -= 1
                self._condition.notify_all()

    def _directory(self) -> SnapshotDirectory:
        with self._condition:
            if self._directory_made is None:
                listing = self._newest_listing.follow(self._shards, self._transactions, self._predecessor)
                self._predecessor = None
                self._directory_made = SnapshotDirectory(listing, self._transactions)
            return self._directory_made

    # -- versions -----------------------------------------------------------------------------------

    def users(self) -> UserIds:
        """All users that have a history, ascending: int64[users] or strings; also those who have no events left."""
        with self._open():
            return self._lookup(self._directory()).users()

    def find_users(self, user_ids: ArrayLike) -> tuple[Int64s, NDArray[np.bool_]]:
        """The numbers by which the store keeps these users, int64[B], and which of them it knows: bool[B].

        An int64 id is its own number, known or not.

        Raises:
            PointerError: for ids that are not of the store's kind.

        """
        users = as_user_ids(user_ids, "user_ids")
        with self._open():
            directory = self._directory()
            row = self._lookup(directory).rows_of(users)
            if not is_string(users):
                return users, np.ones(len(users), np.bool_)
            found = np.zeros(len(users), np.int64)
            found[row >= 0] = directory.row_user[row[row >= 0]]
            return found, row >= 0

    def _lookup(self, directory: SnapshotDirectory) -> UserLookup:
        with self._condition:
            if self._lookup_made is None:
                self._lookup_made = UserLookup(self.schema.user_id, directory, self._shards, self._transactions)
            return self._lookup_made

    def head(self, user_ids: ArrayLike) -> Pointers:
        """Pointers to everything this snapshot has of these users: the logged channel.

        Where all events of a user are trimmed, ``last_ts`` is 0 and means nothing: a read of the pointer says so.

        Args:
            user_ids: int64[B], or strings, as the store's ids are; a user without a history gets version 0.

        Raises:
            PointerError: when the ids are not of the store's kind.

        """
        users = as_user_ids(user_ids, "user_ids")
        with self._open():
            directory = self._directory()
            row = self._lookup(directory).rows_of(users)
            version = self._heads(directory, row)
            last_ts = self._last_ts(directory, row, version)
        return Pointers(users, version, last_ts)

    def resolve(
        self, user_ids: ArrayLike, as_of: ArrayLike, delay: int = 0, *, on_trimmed: OnTrimmed = "raise"
    ) -> Pointers:
        """Pointers to what was visible strictly before ``as_of - delay``: the batch channel.

        An event visible at that very moment is not in the prefix: ties are out.

        Args:
            user_ids: int64[B], or strings, as the store's ids are; a user without a history gets version 0.
            as_of: int64[B] or one moment for all, in the store's time unit.
            delay: how much later than its visible time an event reaches the serving side; 0 or more.
            on_trimmed: where trimmed events would tell the version, because none of those that are left was visible:
                an error, or the first version that is left with a ``last_ts`` of 0. The true version is that or a lower
                one; both name only events that are gone, and a read of the pointer says so.

        Raises:
            PointerError: for other types, unequal lengths or a negative delay.
            TrimmedError: for versions that are no longer known, with ``on_trimmed="raise"``.

        """
        check_on_trimmed(on_trimmed)
        users = as_user_ids(user_ids, "user_ids")
        moment = as_int64(as_of, "as_of")
        if len(moment) == 1 and len(users) != 1:
            moment = np.full(len(users), moment[0])
        if len(moment) != len(users):
            raise PointerError(f"{len(users)} user_ids and {len(moment)} as_of; give one moment a user")
        if isinstance(delay, bool) or not isinstance(delay, int | np.integer) or delay < 0:
            raise PointerError(f"delay is {delay!r}; a whole number of the time unit, 0 or more, is expected")
        floor = np.iinfo(np.int64).min
        delay = min(int(delay), -(floor + 1))  # nothing is visible before 0, so a longer one hides nothing more
        moment = np.where(moment < floor + delay, floor, moment - delay)
        with self._open():
            directory = self._directory()
            row = self._lookup(directory).rows_of(users)
            version, last_ts = self._resolve(directory, row, moment)
            base = bases_of(directory, row)
            unknown = (base > 0) & (version <= base)
            if on_trimmed == "raise" and unknown.any():
                at = int(np.argmax(unknown))
                raise TrimmedError(
                    f"row {at}: of user {users[at]} the events below version {int(base[at])} are trimmed, and "
                    f"none of the others was visible before {int(moment[at])}: how many were is no longer known; "
                    "resolve with on_trimmed='truncate', or leave the example out"
                )
        return Pointers(users, version, last_ts)

    def _resolve(self, directory: SnapshotDirectory, row: Int64s, moment: Int64s) -> tuple[Int64s, Int64s]:
        """Versions and ``last_ts``, by binary search in the users' visible times, some users at a time."""
        version = np.zeros(len(row), np.int64)
        last_ts = np.zeros(len(row), np.int64)
        bounds, order = np.empty(int(row.max(initial=-1)) + 2, np.int64), np.empty(len(row), np.int64)
        group_rows(row, bounds, order)
        rows = np.flatnonzero(np.diff(bounds))
        heads = self._heads(directory, rows)
        bases = bases_of(directory, rows)
        step = (np.cumsum(heads - bases) - 1) // _RESOLVE_EVENTS
        parts = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(step)) + 1) if len(rows) else []
        for part in parts:
            some, low, high = rows[part], bases[part], heads[part]
            offsets = np.zeros(len(part) + 1, np.int64)
            np.cumsum(high - low, out=offsets[1:])
            n = int(offsets[-1])
            # Many moments a user: its ts are decoded with its visible times. Few: each last_ts is looked up alone.
            dense = int((bounds[some + 1] - bounds[some]).sum()) * _RESOLVE_DENSE > n
            clocks = {name: np.empty(n, np.int64) for name in ((VISIBLE_AT, TS) if dense else (VISIBLE_AT,))}
            slices = self._slices(directory, Windows(some, low, high, offsets[:-1], offsets))
            decode_fixed(directory.entries, self._layouts, slices, clocks, self._verify)
            find_versions(some, bounds, order, moment, offsets, clocks[VISIBLE_AT], low, version)
            if dense:
                take_last(some, bounds, order, offsets, clocks[TS], low, version, last_ts)
            else:
                mine = order[bounds[some[0]] : bounds[some[-1] + 1]]
                last_ts[mine] = self._last_ts(directory, row[mine], version[mine])
        return version, last_ts

    # -- reading ------------------------------------------------------------------------------------

    def read(
        self,
        pointers: Pointers,
        projection: Projection | None = None,
        *,
        as_of: ArrayLike | None = None,
        epoch: int = 0,
        on_missing: Literal["raise", "empty"] = "raise",
        on_trimmed: OnTrimmed = "raise",
        since: ArrayLike | None = None,
        out: Histories | None = None,
        inline: InlineTail | None = None,
    ) -> Histories:
        """Rebuild the prefixes that pointers name, cut to a projection.

        Args:
            pointers: B pointers; those with ``last_ts`` are proved against the store.
            projection: what is wanted of each; None: everything.
            as_of: int64[B], moments of the requests, from which ``max_age`` counts; None: from ``last_ts``.
            epoch: of training, for ``sample``: another draw in each; 0 or more.
            on_missing: what becomes of a version past the head: an error, or an empty sequence.
            on_trimmed: what becomes of a read that needs trimmed events (see :mod:`uihkv.bases`): an error, or what is
                left: a shorter sequence, which is empty, and without proof, where the version names none that is left.
            since: int64[B], the first version that is wanted of each, 0 or more: older events are left out. Not where
                the projection selects or samples. None: as many as the projection wants.
            out: histories of an earlier read that are no longer needed: their memory is used again where it is large
                enough, and arrays taken from them change. None: new memory.
            inline: B tails of events behind the pointers that may not be in the store yet; see :mod:`uihkv.inline`.
                Not with ``on_missing="empty"``; ``out`` is then not used.

        Returns:
            the B sequences in the pointers' order, oldest event first.

        Raises:
            SchemaError: for a column that the store does not have.
            PointerError: for a version past the head, or a ``last_ts`` that is not that of event
                ``version - 1``: the pointer is of another store, or its history was rebuilt.
            TrimmedError: for events that are needed and gone, with ``on_trimmed="raise"``.
            CorruptChunkError: for bytes that are not what was written.

        """
        if on_missing not in ("raise", "empty"):
            raise SchemaError(f"on_missing is {on_missing!r}; 'raise' or 'empty' is expected")
        check_on_trimmed(on_trimmed)
        if not isinstance(pointers, Pointers):
            raise PointerError(f"{type(pointers).__name__} given; Pointers are expected")
        if inline is not None:
            if on_missing != "raise":
                raise SchemaError("inline tails follow what the store has; read them with on_missing='raise'")
            from uihkv.inline import read_joined

            return read_joined(self, pointers, inline, projection, as_of=as_of, epoch=epoch, on_trimmed=on_trimmed)
        projection = Projection() if projection is None else projection
        if not isinstance(projection, Projection):
            raise SchemaError(f"{type(projection).__name__} given as projection; a uihkv.Projection is expected")
        names = projection.resolve(self.schema)
        moment = self._moments(pointers, projection, as_of)
        if isinstance(epoch, bool) or not isinstance(epoch, int | np.integer) or epoch < 0:
            raise SchemaError(f"epoch is {epoch!r}; a whole number of 0 or more is expected")
        first = None if since is None else _parse_since(since, pointers, projection)
        with self._open():
            return self._read(pointers, projection, names, moment, int(epoch), on_missing, on_trimmed, first, out)

    def prefetch(self, pointers: Pointers, projection: Projection | None = None) -> int:
        """Ask the system for what a read of these pointers will touch, without waiting for its bytes or decoding them.

        For stores larger than memory, a batch or more before it is read. Each read itself asks for what it needs before
        it touches the first page, if a look at a few of them finds one that is not in memory; this overlaps that with
        what is done in between. Of a projection that selects by values or age, the pages of the newest ``max_len``
        events are asked for.

        Args:
            pointers: as for :meth:`read`; versions past the head are left out.
            projection: as for :meth:`read`.

        Returns:
            bytes asked for: whole pages, whether or not they were in memory.

        Raises:
            SchemaError: for a column that the store does not have.
            CorruptChunkError: for headers that are not what was written.

        """
        projection = Projection() if projection is None else projection
        names = projection.resolve(self.schema)
        with self._open():
            directory = self._directory()
            row = self._lookup(directory).rows_of(pointers.user_id)
            asked = self._prepare(directory, row[row >= 0] + directory.entries.first_tail, always=True)
            prefix = self._newest(directory, row, pointers, projection.max_len, "empty")
            prefix = cut_prefixes(directory, prefix, pointers, "truncate", False)
            slices = self._plan_slices(directory, prefix)
            asked += self._prepare(directory, slices.entry, self._ahead(names), always=True)
            return asked + ask_for_blocks(directory.entries, self._layouts, slices, names, always=True)

    def _ahead(self, names: Sequence[str]) -> Ahead:
        """What of a chunk to ask for before its header is known."""
        return "values" if len(names) >= len(self.schema.readable) else "headers"

    def explain(
        self, pointers: Pointers, projection: Projection | None = None, *, as_of: ArrayLike | None = None,
        on_trimmed: OnTrimmed = "raise",
    ) -> ReadCost:  # fmt: skip
        """What a read costs: chunks considered, skipped and read, bytes read and decoded. It does the read."""
        return self.read(pointers, projection, as_of=as_of, on_trimmed=on_trimmed).cost

    def _moments(self, pointers: Pointers, projection: Projection, as_of: ArrayLike | None) -> Int64s | None:
        """From when the age of each pointer's events counts; None where it does not matter."""
        moment = None if as_of is None else as_int64(as_of, "as_of")
        if moment is not None and len(moment) != len(pointers):
            raise PointerError(f"{len(pointers)} pointers and {len(moment)} as_of; give one moment a pointer")
        if projection.max_age is None:
            return None
        if moment is None and pointers.last_ts is None:
            raise PointerError("max_age counts from as_of or last_ts, and these pointers have neither; give as_of")
        return moment if moment is not None else pointers.last_ts

    def _read(
        self, pointers: Pointers, projection: Projection, names: tuple[str, ...], moment: Int64s | None, epoch: int,
        on_missing: str, on_trimmed: OnTrimmed, since: Int64s | None, out: Histories | None,
    ) -> Histories:  # fmt: skip
        directory = self._directory()
        planned = None
        if since is None and projection.sample is None and not projection.selects:
            planned = self._plan_at_once(directory, pointers, projection.max_len, names)
        if planned is None:
            row = self._lookup(directory).rows_of(pointers.user_id)
            max_len = None if projection.selects else projection.max_len
            prefix = self._newest(directory, row, pointers, max_len, on_missing)
            if since is not None:
                prefix = prefix.since(since)
            prefix = cut_prefixes(directory, prefix, pointers, on_trimmed, projection.selects)
            windows = self._choose(directory, prefix, pointers, projection, moment, epoch, on_trimmed)
            slices = self._slices(directory, windows, self._ahead(names))
            ask_for_blocks(directory.entries, self._layouts, slices, names)
        else:
            prefix, slices = planned
            windows = prefix
        n = int(windows.offsets[-1])
        fixed, address, slab = self._outputs(names, n, None if out is None else out.take_slab())
        chunks, stored = decode_fixed(
            directory.entries, self._layouts, slices, fixed, self._verify, self._threads, address
        )
        if pointers.last_ts is not None:
            whole = windows is prefix and (since is None or bool((prefix.low < prefix.high)[prefix.high > 0].all()))
            self._prove(directory, prefix, pointers, fixed.get(TS) if whole else None)
        columns: dict[str, Array] = {}
        element_offsets: dict[str, Int64s] = {}
        for name in names:
            if name in fixed:
                columns[name] = fixed[name]
            else:
                columns[name], element_offsets[name] = read_ragged(
                    [(directory.entries, slices)], self._layouts, name, n, self._verify
                )
        if element_offsets:
            stored += measure_slices(directory.entries, self._layouts, slices, list(element_offsets))[1]
        arrays = (*columns.values(), *element_offsets.values())
        cost = ReadCost(
            events=n, chunks_considered=windows.considered or len(slices.entry), chunks_skipped=windows.skipped,
            chunks_read=chunks, bytes_read=stored, bytes_decoded=sum(array.nbytes for array in arrays),
        )  # fmt: skip
        return Histories(windows.offsets, columns, element_offsets, slab, cost, self._layouts.columns(names).dtypes)

    def _plan_at_once(
        self, directory: SnapshotDirectory, pointers: Pointers, max_len: int | None, names: tuple[str, ...]
    ) -> tuple[Windows, Slices] | None:
        """Windows and slices of the newest events of each prefix; None: that takes steps."""
        user: Int64s | None = pointers.user_id
        row: Int64s | None = None
        if is_string(pointers.user_id) or self.schema.user_id != INT64:  # also ids that are not of the store's kind
            user, row = None, self._lookup(directory).rows_of(pointers.user_id)
        blocks = self._layouts.columns(names).blocks
        return plan_at_once(
            directory, self._layouts, user, row, pointers.version, max_len, blocks,
            lambda wanted: self._prepare(directory, wanted, self._ahead(names)),
        )  # fmt: skip

    def _newest(
        self, directory: SnapshotDirectory, row: Int64s, pointers: Pointers, max_len: int | None, on_missing: str
    ) -> Windows:
        """The newest events of each prefix: one window a pointer, which may be empty."""
        entries = directory.entries
        self._open_tails(directory, row)
        low, high = np.empty_like(row), np.empty_like(row)
        offsets = np.empty(len(row) + 1, np.int64)
        past = cut_windows(row, pointers.version, max_len or 0, entries.end, entries.first_tail, low, high, offsets)
        if past >= 0 and on_missing == "raise":
            head = int(entries.end[entries.first_tail + row[past]]) if row[past] >= 0 else 0
            raise PointerError(
                f"row {past}: user {pointers.user_id[past]} has {head} events in this snapshot, the pointer names "
                f"version {int(pointers.version[past])}; take a newer snapshot, or read with on_missing='empty'"
            )
        return Windows(row, low, high, offsets[:-1], offsets)

    def _choose(
        self, directory: SnapshotDirectory, prefix: Windows, pointers: Pointers, projection: Projection,
        moment: Int64s | None, epoch: int, on_trimmed: OnTrimmed,
    ) -> Windows:  # fmt: skip
        """Of each prefix, what conditions, age and sampling leave."""
        windows = prefix
        if projection.selects:
            oldest = None
            if moment is not None and projection.max_age is not None:
                floor = np.iinfo(np.int64).min + projection.max_age
                oldest = np.maximum(moment, floor) - projection.max_age
            windows = select_events(
                directory, self._layouts, lambda wanted: self._prepare(directory, wanted), prefix.row, prefix.high,
                projection.tests(self.schema), oldest, projection.max_len, self._verify,
            )  # fmt: skip
            if on_trimmed == "raise" and prefix.low.any():
                oldest_visible = self._oldest_visible(directory, prefix)
                at = find_incomplete(prefix, windows, projection.max_len, oldest, oldest_visible)
                if at >= 0:
                    raise trimmed_error(directory, prefix.row, pointers, at)
        if projection.sample is not None and projection.max_len is not None:
            windows = draw_sample(
                windows, numbers_of(pointers.user_id), pointers.version, projection.sample, projection.max_len, epoch
            )
        return windows

    def _outputs(self, names: tuple[str, ...], n: int, reused: Slab | None) -> tuple[dict[str, Array], Int64s, Slab]:
        """Arrays for the columns without lists, uninitialised, carved from one slab, and their addresses.

        One allocation keeps the allocator from giving pages back to the system, and getting them zeroed again, at
        every batch, as it does with several large arrays; and lets the system use large pages. A large slab is lent by
        :mod:`uihkv.slabs`.
        """
        columns = self._layouts.columns(names).fixed
        sizes = [n * column.event_bytes for column in columns]
        starts = list(itertools.accumulate((-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes), initial=0))
        slab = reused
        if slab is None or len(slab) < starts[-1]:
            slab = self._slabs.lend(starts[-1])
        fixed = {
            column.name: np.ndarray((n, *column.shape), column.dtype, slab, start)
            for column, start in zip(columns, starts, strict=False)
        }
        address = np.array(starts[:-1], np.int64)
        address += address_of(slab)
        return fixed, address, slab

    def _prove(self, directory: SnapshotDirectory, window: Windows, pointers: Pointers, ts: Int64s | None) -> None:
        """Compare ``last_ts`` of each pointer with the event that it names; ``ts`` of the windows, if it was read."""
        assert pointers.last_ts is not None  # the caller asked
        if ts is None:
            ts = self._one_event(directory, window.row, window.high, TS)
            window = replace(window, low=np.maximum(window.high - 1, 0), out=np.arange(len(ts)))
        wrong = find_wrong(window, ts, pointers.last_ts)
        if wrong >= 0:
            at = int(window.out[wrong] + window.high[wrong] - window.low[wrong]) - 1
            raise PointerError(
                f"row {wrong}: event {int(window.high[wrong]) - 1} of user {pointers.user_id[wrong]} has ts "
                f"{int(ts[at])}, the pointer's last_ts is {int(pointers.last_ts[wrong])}; the pointer "
                "is of another store, or of a history that was rebuilt: resolve it again"
            )

    # -- plan ---------------------------------------------------------------------------------------

    def _prepare(
        self, directory: SnapshotDirectory, wanted: Int64s, ahead: Ahead = "headers", always: bool = False
    ) -> int:
        with self._condition:
            return directory.prepare(wanted, self._layouts, self._verify, ahead, always)

    def _open_tails(self, directory: SnapshotDirectory, row: Int64s) -> None:
        """Make sure that the tails of these users are open: only then their heads are known."""
        entries = directory.entries
        if not are_tails_open(directory.opened, row, entries.first_tail):
            self._prepare(directory, row[row >= 0] + entries.first_tail)

    def _heads(self, directory: SnapshotDirectory, row: Int64s) -> Int64s:
        """Versions that name whole histories; 0 for row -1."""
        self._open_tails(directory, row)
        entries = directory.entries
        head = np.zeros(len(row), np.int64)
        known = row >= 0
        head[known] = entries.end[entries.first_tail + row[known]]
        return head

    def _last_ts(self, directory: SnapshotDirectory, row: Int64s, version: Int64s) -> Int64s:
        """``ts`` of event ``version - 1``; 0 where the version is 0, or that event is trimmed."""
        kept = np.where(version > bases_of(directory, row), version, 0)
        return self._one_event(directory, row, kept, TS)

    def _oldest_visible(self, directory: SnapshotDirectory, prefix: Windows) -> Int64s:
        """Visible time of the oldest event of each window; 0 where the window begins at 0."""
        version = np.where(prefix.low > 0, prefix.low + 1, 0)
        return self._one_event(directory, prefix.row, version, VISIBLE_AT)

    def _one_event(self, directory: SnapshotDirectory, row: Int64s, version: Int64s, clock: str) -> Int64s:
        """A clock of event ``version - 1``; 0 where the version is 0."""
        moment = np.zeros(len(version), np.int64)
        place = np.arange(len(version) + 1)
        window = Windows(row, np.maximum(version - 1, 0), version, place[:-1], place)
        slices = self._slices(directory, window)
        decode_fixed(directory.entries, self._layouts, slices, {clock: moment}, self._verify)
        return moment

    def _slices(self, directory: SnapshotDirectory, window: Windows, ahead: Ahead = "headers") -> Slices:
        """Cut windows along chunks, sorted by entry, and make sure that these are open."""
        slices = self._plan_slices(directory, window)
        self._prepare(directory, slices.entry, ahead)
        return slices

    def _plan_slices(self, directory: SnapshotDirectory, window: Windows) -> Slices:
        """Cut windows along chunks, sorted by entry."""
        entries = directory.entries
        code, at, part = plan_by_entry(
            window.row, window.low, window.high, window.out, directory.chunks_of, entries.start, entries.end,
            entries.first_tail,
        )  # fmt: skip
        if code != status.OK:
            raise entries.error(code, entries.first_tail + int(window.row[at]))
        return Slices(part[0], part[1], part[2], part[3])


def _parse_since(since: ArrayLike, pointers: Pointers, projection: Projection) -> Int64s:
    first = as_int64(since, "since")
    if len(first) != len(pointers):
        raise PointerError(f"{len(pointers)} pointers and {len(first)} since; give one version a pointer")
    if len(first) and int(first.min()) < 0:
        raise PointerError(f"since has {int(first.min())}; versions start at 0")
    if projection.selects or projection.sample is not None:
        raise SchemaError("since goes with projections by columns and max_len alone; this one selects or samples")
    return first
