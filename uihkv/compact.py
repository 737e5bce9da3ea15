"""Which chunks are worth writing anew, and how, while readers read and writers write?

Sealing turns tails into chunks before they are full. Compacting merges what is small: of each user, every run of
consecutive chunks that are small or of an older schema, with the few full ones between two of them, is decoded and cut
again at the store's chunk size; where that gives fewer chunks, or chunks of the newest schema, it takes their place.
Versions do not change, so that pointers and the sequences they name stay as they are, and readers of older snapshots
keep what they see.

- *Bounded transactions.* A run is read and encoded in a read transaction; the write transaction only puts it in its
  place, after a look whether it is still there: a trim may have come first, and then the part is done again.
- *Ends.* A run that would not become fewer chunks is left alone; what has been compacted is not touched again.
- What goes with it: values of dropped columns, defaults that older chunks left out are written in, and the old
  pages become free for later writes. Giving pages back to the file system is :mod:`uihkv.copies`'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uihkv.chunk import MAX_CHUNK_RAW_BYTES
from uihkv.codec import EncodedChunks
from uihkv.maintenance import CompactionPolicy, CompactionResult, Progress, SealResult
from uihkv.rewrite import ShardAccess, ShardView, UserParts

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]

_NONE = np.empty(0, np.int64)

_REACH = 4
"""Full chunks between two small ones that are rewritten with them, so that these can meet."""


# -- sealing ----------------------------------------------------------------------------------------


def seal_tails(access: ShardAccess, progress: Progress | None = None) -> SealResult:
    """Turn all tails that hold events into chunks; the tails stay, empty.

    Raises:
        CorruptChunkError: for a damaged tail; what came before stays done.

    """
    result = SealResult()
    for number in range(access.shards):
        with access.reading(number) as view:
            parts = UserParts(view)
            parts.open(parts.tails)
            users = parts.users[(parts.entries.end > parts.entries.start)[parts.tails]]
        done = 0
        while done < len(users):
            with access.writing(number) as view:
                some = slice(done, done + view.part_users)
                result += _seal_part(view, users[some])
            done = some.stop
        if progress is not None:
            progress(number + 1, access.shards)
    return result


def _seal_part(view: ShardView, users: Int64s) -> SealResult:
    parts = UserParts(view, users)
    entries = parts.entries
    parts.open(parts.tails)
    row = np.flatnonzero((entries.end > entries.start)[parts.tails])
    if not len(row):
        return SealResult()
    tail, owner = parts.tails[row], parts.users[row]
    count, head = (entries.end - entries.start)[tail], entries.end[tail]
    latest = parts.greatest_visible(tail)
    events = parts.decode(tail, np.zeros_like(tail))
    sealed = parts.encode(events, count, entries.start[tail], owner, latest)
    emptied = parts.encode(events, np.zeros_like(count), head, owner, latest)
    view.shard.rewrite(
        view.transaction, owner, (_NONE, _NONE, _NONE), [(owner[sealed.group], sealed)], [(owner, emptied)]
    )
    return SealResult(len(row), int(count.sum()), len(sealed))


# -- compacting -------------------------------------------------------------------------------------


def compact_shards(access: ShardAccess, policy: CompactionPolicy, progress: Progress | None = None) -> CompactionResult:
    """Compact all shards, one after the other.

    Raises:
        CorruptChunkError: for a damaged chunk that would be rewritten; what came before stays done.

    """
    result = CompactionResult()
    for number in range(access.shards):
        while True:
            done = _compact_shard(access, number, policy)
            result += done
            if not done.runs:
                break
        if progress is not None:
            progress(number + 1, access.shards)
    return result


def _compact_shard(access: ShardAccess, number: int, policy: CompactionPolicy) -> CompactionResult:
    """Once over the shard: some users at a time, and of these some runs at a time."""
    with access.reading(number) as view:
        parts = UserParts(view)
        plan = _plan(view, parts, policy)
        users = parts.users[np.union1d(parts.row[plan.first], plan.tails)]
        most = view.part_users
    result = CompactionResult()
    for at in range(0, len(users), most):
        some = users[at : at + most]
        floor = np.zeros(len(some), np.int64)
        tails_too = True
        while True:
            part = _encode_part(access, number, some, floor, tails_too, policy)
            if part is None:
                break
            if not part.touched.size or _put_part(access, number, part):
                result += part.result
                floor, tails_too = part.floor, False
    return result


@dataclass(frozen=True, slots=True)
class _Plan:
    """Runs of chunks ``[first, last)`` among the entries, and rows of users whose tails are old."""

    first: Int64s
    last: Int64s
    tails: Int64s


def _plan(view: ShardView, parts: UserParts, policy: CompactionPolicy) -> _Plan:
    entries, layouts = parts.entries, view.layouts
    chunks = np.arange(entries.first_tail)
    size = (entries.end - entries.start)[chunks]
    old, old_tails = np.zeros(len(chunks), np.bool_), _NONE
    newest = len(layouts.schemas) - 1
    if policy.old_schemas and newest:
        parts.open(np.arange(len(entries.user)))
        version = parts.schema_versions(np.arange(len(entries.user)))
        old, old_tails = version[chunks] < newest, np.flatnonzero(version[parts.tails] < newest)
    # Where events are wide, a chunk is full before it has the store's chunk size.
    target = max(1, min(view.chunk_events, MAX_CHUNK_RAW_BYTES // int(layouts.layouts[-1].event_bytes)))
    most = max(policy.transaction_events, 4 * target)
    first, last = find_runs(parts.row, size, old, target, policy.min_fill, most)
    return _Plan(first, last, old_tails)


def find_runs(
    row: Int64s, size: Int64s, old: Bools, target: int, min_fill: float, most_events: int
) -> tuple[Int64s, Int64s]:
    """Runs of consecutive chunks of one user that are worth rewriting: ``[first, last)``, int64[runs] each.

    Args:
        row: int64[chunks], whose each of them is; ascends.
        size: int64[chunks], its events.
        old: bool[chunks], whether it is to be rewritten in any case.
        target: events of a full chunk.
        min_fill: share of it below which a chunk is small.
        most_events: a run is cut behind so many.

    """
    wanted = old | (size < min_fill * target)
    found = np.flatnonzero(wanted)
    near = (np.diff(found) <= _REACH + 1) & (row[found[1:]] == row[found[:-1]])
    between = np.zeros(len(row) + 1, np.int64)
    between[found[:-1][near]] += 1
    between[found[1:][near]] -= 1
    wanted |= np.cumsum(between)[: len(row)] > 0
    joined = wanted[1:] & wanted[:-1] & (row[1:] == row[:-1])
    begins, ends = wanted.copy(), wanted.copy()
    begins[1:] &= ~joined
    before = np.cumsum(size) - size
    portion = (before - np.maximum.accumulate(np.where(begins, before, 0))) // most_events
    joined &= portion[1:] == portion[:-1]
    begins[1:] |= wanted[1:] & ~joined
    ends[:-1] &= ~joined
    first, last = np.flatnonzero(begins), np.flatnonzero(ends) + 1
    fewer = -(-_sums(size, first, last) // target) < last - first
    worth = fewer | (_sums(old.astype(np.int64), first, last) > 0)
    return first[worth], last[worth]


def _sums(values: Int64s, first: Int64s, last: Int64s) -> Int64s:
    total = np.append(0, np.cumsum(values))
    sums: Int64s = total[last] - total[first]
    return sums


@dataclass(frozen=True, slots=True)
class _Part:
    """Runs in their new form, to be put in their place.

    Attributes:
        touched: int64[n], users whose chunks or tails change; none where nothing is gained.
        gone: users, starts and ends of the chunks that go.
        sealed, sealed_user: what takes their place.
        tail_users, tail_values, tails: old tails, and what takes their place.
        floor: int64[users], the versions up to which users have been looked at.
        result: what it comes to.

    """

    touched: Int64s
    gone: tuple[Int64s, Int64s, Int64s]
    sealed: EncodedChunks
    sealed_user: Int64s
    tail_users: Int64s
    tail_values: list[bytes]
    tails: EncodedChunks
    floor: Int64s
    result: CompactionResult


def _encode_part(
    access: ShardAccess, number: int, users: Int64s, floor: Int64s, tails_too: bool, policy: CompactionPolicy
) -> _Part | None:
    """The next runs of some users, from a version of each on; None: there are no more."""
    with access.reading(number) as view:
        parts = UserParts(view, users)
        entries = parts.entries
        plan = _plan(view, parts, policy)
        place = np.searchsorted(users, parts.users)
        ahead = entries.start[plan.first] >= floor[place[parts.row[plan.first]]]
        first, last = plan.first[ahead], plan.last[ahead]
        size = (entries.end - entries.start)[: entries.first_tail]
        events = _sums(size, first, last)
        some = max(1, int(np.searchsorted(np.cumsum(events), policy.transaction_events, "right")))
        first, last, events = first[:some], last[:some], events[:some]
        row = plan.tails if tails_too else _NONE
        if not len(first) and not len(row):
            return None
        before = last - first
        run = np.repeat(np.arange(len(first)), before)
        chunk = first[run] + np.arange(len(run)) - (np.cumsum(before) - before)[run]
        tail, owner, tail_users = parts.tails[row], entries.user[first], parts.users[row]
        parts.open(np.concatenate([chunk, tail]))
        held = parts.decode(chunk, np.zeros_like(chunk))
        sealed = parts.encode(held, events, entries.start[first], owner, np.zeros_like(owner), fill_pages=True)
        after = np.bincount(sealed.group, minlength=len(first))
        old = parts.schema_versions(chunk) < len(view.layouts.schemas) - 1
        gains = (after < before) | (np.bincount(run, old, len(first)) > 0)
        count = (entries.end - entries.start)[tail]
        opened = parts.decode(tail, np.zeros_like(tail))
        tails = parts.encode(opened, count, entries.start[tail], tail_users, parts.greatest_visible(tail))
        looked_at = floor.copy()
        np.maximum.at(looked_at, place[parts.row[first]], entries.end[last - 1])
        chunk, kept = chunk[gains[run]], sealed.choose(gains[sealed.group])
        result = CompactionResult(
            runs=int(gains.sum()) + len(tail),
            events=int(events[gains].sum() + count.sum()),
            chunks_before=len(chunk),
            chunks_after=len(kept),
        )
        return _Part(
            touched=np.union1d(owner[gains], tail_users),
            gone=(entries.user[chunk], entries.start[chunk], entries.end[chunk]),
            sealed=kept, sealed_user=owner[kept.group],
            tail_users=tail_users, tail_values=parts.values(tail), tails=tails,
            floor=looked_at, result=result,
        )  # fmt: skip


def _put_part(access: ShardAccess, number: int, part: _Part) -> bool:
    """Put runs in their place; False: another writer has changed one of them, and nothing was done."""
    with access.writing(number) as view:
        if not view.shard.holds(view.transaction, part.gone, part.tail_users, part.tail_values):
            return False
        view.shard.rewrite(
            view.transaction, part.touched, part.gone, [(part.sealed_user, part.sealed)],
            [(part.tail_users, part.tails)],
        )  # fmt: skip
        return True
