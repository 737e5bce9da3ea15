"""Which events go, and what is left of their chunks: retention and erasure.

A trim takes events off the beginning of histories; versions are never reused. Chunks that lie wholly below the border
are deleted. The chunk or tail that the border cuts is written anew from the border on, so that no live value holds what
was removed. A user who loses everything keeps an empty tail, which knows his head and his greatest visible time.

LMDB does not wipe pages that it frees, and uses them again when it pleases: the bytes are gone from the disk once
the store has been copied (``compact(copy_to=…)``) and the old directory deleted.

- *Bounded transactions*, some users each; what was done stays done when it is interrupted, and running it again does
  the rest.
- *By age*: visible times ascend along a history, so that the events that were visible before a moment are its
  beginning.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from uihkv import keys
from uihkv.codec import Slices, decode_fixed
from uihkv.errors import PointerError
from uihkv.kernels.decode import VERIFY_ONCE
from uihkv.kernels.plan import count_before
from uihkv.maintenance import Progress, TrimResult
from uihkv.rewrite import ShardAccess, ShardView, UserParts
from uihkv.schema import VISIBLE_AT

Int64s = NDArray[np.int64]


def trim_users(access: ShardAccess, users: Int64s, before: Int64s | None, *, forget_names: bool = False) -> TrimResult:
    """Remove the events of these users below a version each.

    Args:
        access: to the store's shards.
        users: int64[n]; unknown ones are left out, of one named twice the higher version counts.
        before: int64[n]; None: their heads.
        forget_names: erase the names of string ids, in the transactions that take their users' events.

    Raises:
        PointerError: for a version past the head or below 0; nothing is then removed.
        CorruptChunkError: for a damaged chunk that would have to be cut.

    """
    some, place = np.unique(users, return_inverse=True)
    border = np.full(len(some), np.iinfo(np.int64).max if before is None else 0)
    if before is not None:
        if len(before) and int(before.min()) < 0:
            raise PointerError(f"before_version is {int(before.min())}; versions start at 0")
        np.maximum.at(border, place, before)
    shard = keys.shard_of(some, access.shards)
    if before is not None:
        for number in np.unique(shard).tolist():
            with access.reading(number) as view:
                _check_borders(view, some[shard == number], border[shard == number])
    result = TrimResult()
    for number in np.unique(shard).tolist():
        mine = shard == number
        result += _trim_shard(access, number, some[mine], border[mine], forget_names=forget_names)
    return result


def trim_by_age(access: ShardAccess, visible_before: int, progress: Progress | None = None) -> TrimResult:
    """Remove the events of all users that became visible before a moment.

    Args:
        access: to the store's shards.
        visible_before: in the time unit; events of that very moment stay.
        progress: called with shards done and all shards.

    Raises:
        CorruptChunkError: for a damaged chunk that would have to be looked into.

    """
    result = TrimResult()
    for number in range(access.shards):
        with access.reading(number) as view:
            users, border = _find_borders(view, visible_before)
        result += _trim_shard(access, number, users, border)
        if progress is not None:
            progress(number + 1, access.shards)
    return result


def _check_borders(view: ShardView, users: Int64s, border: Int64s) -> None:
    """Refuse versions past the head; those of unknown users are above 0."""
    parts = UserParts(view, users)
    parts.open(parts.tails)
    head = np.zeros(len(users), np.int64)
    head[np.searchsorted(users, parts.users)] = parts.heads()
    known = np.isin(users, parts.users)
    past = np.flatnonzero(known & (border > head))
    if len(past):
        at = int(past[0])
        user = view.shard.names.name_of(view.transaction, int(users[at]))
        raise PointerError(
            f"user {user} has {int(head[at])} events, before_version is {int(border[at])}; nothing was "
            "trimmed: give a version up to the head, or None for all of them"
        )


def _find_borders(view: ShardView, moment: int) -> tuple[Int64s, Int64s]:
    """Users with events visible before a moment, ascending, and the version behind the last such event."""
    parts = UserParts(view)
    entries, tails = parts.entries, parts.tails
    parts.open(tails)
    # Walk on from each base over what is wholly older: as many rounds as the most chunks that a user loses.
    chunks = np.diff(parts.first_chunk)
    passed = np.zeros(len(parts.users), np.int64)
    border = parts.bases()
    before = border.copy()
    active = np.arange(len(parts.users))
    cut_row, cut_entry = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    while len(active):
        at_tail = passed[active] == chunks[active]
        entry = np.where(at_tail, tails[active], parts.first_chunk[active] + passed[active])
        parts.open(entry)
        older = parts.greatest_visible(entry) < moment
        border[active[older]] = entries.end[entry[older]]
        cut_row.append(active[~older])
        cut_entry.append(entry[~older])
        passed[active] += 1
        active = active[older & ~at_tail]
    row, entry = np.concatenate(cut_row), np.concatenate(cut_entry)
    count = (entries.end - entries.start)[entry]
    offsets = np.append(0, np.cumsum(count))
    visible = np.empty(int(offsets[-1]), np.int64)
    full = count > 0
    slices = Slices(entry[full], np.zeros_like(entry)[full], count[full], offsets[:-1][full]).by_entry()
    decode_fixed(entries, view.layouts, slices, {VISIBLE_AT: visible}, VERIFY_ONCE)
    found = np.empty(len(entry), np.int64)
    count_before(np.arange(len(entry)), np.full(len(entry), moment), offsets, visible, entries.start[entry], found)
    border[row] = found
    loses = border > before
    return parts.users[loses], border[loses]


def _trim_shard(
    access: ShardAccess, number: int, users: Int64s, border: Int64s, *, forget_names: bool = False
) -> TrimResult:
    """Trim users of one shard, who ascend, some in a transaction."""
    result = TrimResult()
    done = 0
    while done < len(users):
        with access.writing(number) as view:
            some = slice(done, done + view.part_users)
            result += _trim_part(view, users[some], border[some])
            if forget_names:
                view.shard.names.erase(view.transaction, users[some])
        done = some.stop
    return result


def _trim_part(view: ShardView, users: Int64s, border: Int64s) -> TrimResult:
    parts = UserParts(view, users)
    entries, tails = parts.entries, parts.tails
    parts.open(tails)
    head, base = parts.heads(), parts.bases()
    cut = np.minimum(border[np.searchsorted(users, parts.users)], head)
    loses = cut > base
    if not loses.any():
        return TrimResult()
    chunk = np.flatnonzero(entries.start[: entries.first_tail] < cut[parts.row])
    chunk_cut = cut[parts.row[chunk]]
    split = entries.end[chunk] > chunk_cut
    bordering, at = chunk[split], chunk_cut[split]
    short = np.flatnonzero(entries.start[tails] < cut)
    parts.open(bordering)
    kept = entries.end[bordering] - at
    sealed_events = parts.decode(bordering, at - entries.start[bordering])
    sealed = parts.encode(sealed_events, kept, at, entries.user[bordering], np.zeros_like(kept))
    tail = tails[short]
    tail_events = parts.decode(tail, cut[short] - entries.start[tail])
    opened = parts.encode(
        tail_events, entries.end[tail] - cut[short], cut[short], parts.users[short], parts.greatest_visible(tail)
    )
    view.shard.rewrite(
        view.transaction,
        parts.users[loses],
        (entries.user[chunk], entries.start[chunk], entries.end[chunk]),
        [(entries.user[bordering][sealed.group], sealed)],
        [(parts.users[short], opened)],
    )
    return TrimResult(int(loses.sum()), int((cut - base)[loses].sum()), len(chunk) + len(short))
