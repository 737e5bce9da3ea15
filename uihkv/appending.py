"""How a batch of events goes into several shards: all of it, or nothing, or what a replay completes.

All parts are written before the first is committed, so that a failure while writing leaves every shard as it was. The
home shard of the batch's source commits last, once the others have (:mod:`uihkv.sources`); commits of several
shards wait for the disk together (:mod:`uihkv.lanes`).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from uihkv import keys
from uihkv.errors import SchemaError
from uihkv.newstore import check_whole
from uihkv.openstore import OpenStore
from uihkv.sources import UNKNOWN, home_of

if TYPE_CHECKING:
    from uihkv.codec import Layouts
    from uihkv.events import Events
    from uihkv.shard import ShardAppend

_MAX_SOURCE_BYTES = 400


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


def append_events(
    store: OpenStore,
    layouts: Layouts,
    events: Events,
    source: str | None,
    offset: int | None,
    *,
    claim: bool = True,
    ended: tuple[str, int] | None = None,
) -> list[ShardAppend] | None:
    """Write all parts, then commit all: a failure while writing leaves every shard as it was.

    The source's home shard commits last, once the others have, and are as durable as the handle promises. None:
    nothing was written, since the schema is no longer the one of ``layouts``. It is compared once all shards are
    held: whoever wrote to them by a newer schema had put that into the manifest before.

    ``ended`` is another source and an offset: a shard that has that one so far stores nothing.
    """
    from uihkv.shard import AddressSpaceFullError

    while True:
        try:
            return _append_once(store, layouts, events, source, offset, claim, ended)
        except AddressSpaceFullError as error:
            if error.shard is None or not store.shard(error.shard).grow():
                raise


def _append_once(
    store: OpenStore,
    layouts: Layouts,
    events: Events,
    source: str | None,
    offset: int | None,
    claim: bool,
    ended: tuple[str, int] | None,
) -> list[ShardAppend] | None:
    from uihkv.shard import ShardAppend, space_errors

    shard_of = keys.shard_of(events.user_id, store.shards)
    order = np.argsort(shard_of, kind="stable")
    bounds = np.searchsorted(shard_of[order], np.arange(store.shards + 1))
    parts = {number: order[bounds[number] : bounds[number + 1]] for number in np.flatnonzero(np.diff(bounds)).tolist()}
    numbers = set(parts)
    home = None if source is None or not claim else home_of(source, store.shards)
    if home is not None:
        numbers.add(home)
    results: list[ShardAppend] = []
    transactions: dict[int, Any] = {}
    committed: list[int] = []
    own: dict[int, int] = {}

    def commit(number: int) -> None:
        transactions.pop(number).commit()
        committed.append(number)
        store.settle([number])

    with ExitStack() as held:
        held.enter_context(store.under_way())
        held.enter_context(space_errors(store.path, committed))
        lanes = store.commit_lanes() if len(numbers) > 1 and not store.building else None
        if lanes is not None:
            held.enter_context(lanes.busy)
        try:
            for number in sorted(numbers):  # one order for all writers, so that none waits in a circle
                begin = store.shard(number).begin_write
                transactions[number] = begin() if lanes is None else lanes.begin(number, begin)
            if store.layouts() is not layouts:
                return None
            claimed = UNKNOWN
            if home is not None and source is not None:
                claimed = store.shard(home).source(transactions[home], source).check(source, store.shards)
            for number in sorted(numbers):
                shard, transaction = store.shard(number), transactions[number]
                rows = parts.get(number, np.empty(0, np.int64))
                if source is not None and offset is not None:
                    record = shard.source(transaction, source)
                    over = ended is not None and shard.source(transaction, ended[0]).own >= ended[1]
                    if over or record.own >= offset or claimed.covers(number, record.own, offset):
                        own[number] = record.own
                        results.append(ShardAppend(0, len(rows), 0, 0))
                        continue
                    own[number] = offset
                    shard.put_source(transaction, source, replace(record, own=offset))
                if len(rows):
                    mine = events.take(rows)
                    if mine.names is not None:
                        users = shard.names.assign(transaction, mine.names, store.shards)
                        mine = replace(mine, user_id=users, names=None)
                    results.append(
                        shard.append(
                            transaction,
                            layouts,
                            mine,
                            store.manifest.chunk_events,
                            store.manifest.compress,
                        )
                    )
            if home is not None and source is not None and offset is not None:
                shard, transaction = store.shard(home), transactions[home]
                record = shard.source(transaction, source).advance(offset, own, store.shards)
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


def check_source(source: str | None, offset: int | None) -> int | None:
    """The offset as a plain int.

    Raises:
        SchemaError: for a name or an offset that cannot be, or one without the other.

    """
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
    check_whole("offset", offset, 0, np.iinfo(np.int64).max)
    return int(offset)
