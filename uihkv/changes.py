"""Whose keys changed since? An endless list of user ids beside a shard's chunks.

Every transaction that writes or takes away a chunk or a tail adds the users it touched. A place in the list is a count
of ids, so that whoever knows all keys as of one place needs to look again only at the users behind it.

- *Next to nothing to write.* The newest ids stand in one small value of LMDB's main database, whose page every commit
  writes anyway; when it is full, its ids become a record of the ``changes`` sub-database, a page for many commits.
- *Bounded.* Only the newest ids are kept. Whoever comes from further back lists all keys anew, which then costs less.

Invariant: the records and the value follow each other without a gap. Ids may occur more than once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

NEWEST = b"newest changes"
"""Key in the main database: the place of the first id, 8 bytes little-endian, then the ids, 8 bytes each."""
NEWEST_IDS = 128
"""Fewer bytes than move a value out of its page."""


def note_users(transaction: Any, records: Any, users: Int64s, kept: int) -> None:
    """Add users to the list.

    Args:
        transaction: a write transaction.
        records: the ``changes`` sub-database: place of the first id, 8 bytes big-endian → ids, 8 bytes little-endian.
        users: int64[n].
        kept: how many ids the records hold at most.

    """
    place, ids = _newest(transaction)
    ids += users.astype("<i8").tobytes()
    count = len(ids) // 8
    if count <= NEWEST_IDS:
        transaction.put(NEWEST, place.to_bytes(8, "little") + ids)
        return
    end = place + count
    transaction.put(NEWEST, end.to_bytes(8, "little"))
    if count <= kept:
        transaction.put(place.to_bytes(8, "big"), ids, db=records, append=True)
    with transaction.cursor(db=records) as cursor:
        while cursor.first() and end - int.from_bytes(cursor.key(), "big") > kept:
            cursor.delete()


def place_of(transaction: Any) -> int:
    """How many ids the list has had until now."""
    place, ids = _newest(transaction)
    return place + len(ids) // 8


def users_since(transaction: Any, records: Any, place: int) -> Int64s | None:
    """Users behind a place, ascending: int64[n]; None when some of them are no longer known."""
    newest, ids = _newest(transaction)
    parts: list[bytes] = []
    upto = place
    if place < newest:
        with transaction.cursor(db=records) as cursor:
            found = cursor.set_range(place.to_bytes(8, "big"))
            if not found or int.from_bytes(cursor.key(), "big") > place:
                found = cursor.prev() if found else cursor.last()
            while found:
                first, value = int.from_bytes(cursor.key(), "big"), bytes(cursor.value())
                if first > upto:
                    return None
                parts.append(value[8 * (upto - first) :])
                upto = first + len(value) // 8
                found = cursor.next()
        if upto != newest:
            return None
    if upto > newest + len(ids) // 8:
        return None
    parts.append(ids[8 * (upto - newest) :])
    return np.unique(np.frombuffer(b"".join(parts), "<i8").astype(np.int64))


def _newest(transaction: Any) -> tuple[int, bytes]:
    value = transaction.get(NEWEST)
    return (0, b"") if value is None else (int.from_bytes(value[:8], "little"), bytes(value[8:]))
