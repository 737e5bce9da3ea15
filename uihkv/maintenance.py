"""What maintenance is told, and what it tells: plain data.

The work is done by :mod:`uihkv.trim`, :mod:`uihkv.compact`, :mod:`uihkv.copies` and :mod:`uihkv.verify`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uihkv.errors import SchemaError

Progress = Callable[[int, int], None]
"""Called with the steps done and all steps."""


@dataclass(frozen=True, slots=True)
class TrimResult:
    """What a trim removed.

    Attributes:
        users: users who lost events.
        events: events removed.
        chunks: chunks and tails that are gone or were cut.

    """

    users: int = 0
    events: int = 0
    chunks: int = 0

    def __add__(self, other: TrimResult) -> TrimResult:
        return TrimResult(self.users + other.users, self.events + other.events, self.chunks + other.chunks)

    def describe(self) -> dict[str, int]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """What is worth rewriting, and in which portions.

    Args:
        min_fill: a chunk of fewer than this share of the store's chunk size is small; 0 to 1.
        old_schemas: write chunks and tails of older schemas anew: the bytes of dropped columns go.
        transaction_events: about how many events are rewritten at a time; bounds memory, and how long writers wait.

    Raises:
        SchemaError: for values that cannot be.

    """

    min_fill: float = 0.5
    old_schemas: bool = True
    transaction_events: int = 1 << 18

    def __post_init__(self) -> None:
        fill, events = self.min_fill, self.transaction_events
        if isinstance(fill, bool) or not isinstance(fill, int | float) or not 0 <= fill <= 1:
            raise SchemaError(f"min_fill is {fill!r}; a share from 0 to 1 is expected")
        if not isinstance(self.old_schemas, bool):
            raise SchemaError(f"old_schemas is {self.old_schemas!r}; True or False is expected")
        if isinstance(events, bool) or not isinstance(events, int) or events < 1:
            raise SchemaError(f"transaction_events is {events!r}; 1 or more are expected")


@dataclass(frozen=True, slots=True)
class SealResult:
    """What sealing did.

    Attributes:
        users: users whose tails were sealed.
        events: events in them.
        chunks: chunks that they became.

    """

    users: int = 0
    events: int = 0
    chunks: int = 0

    def __add__(self, other: SealResult) -> SealResult:
        return SealResult(self.users + other.users, self.events + other.events, self.chunks + other.chunks)

    def describe(self) -> dict[str, int]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CompactionResult:
    """What compacting did.

    Attributes:
        runs: runs of chunks, and tails of older schemas, that were written anew.
        events: events in them.
        chunks_before: chunks that they were; tails do not count.
        chunks_after: chunks that they are.
        bytes_before: size of the store's files.
        bytes_after: size of the copy's files; without a copy, of the store's.

    """

    runs: int = 0
    events: int = 0
    chunks_before: int = 0
    chunks_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def __add__(self, other: CompactionResult) -> CompactionResult:
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return CompactionResult(*(mine + theirs for mine, theirs in pairs))

    def describe(self) -> dict[str, int]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class BackupResult:
    """What was copied.

    Attributes:
        path: where the copy is.
        records: chunks, tails and other records of all shards.
        bytes: size of its files.

    """

    path: Path
    records: int
    bytes: int

    def describe(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        what: is wrong.
        shard: where; None: the manifest.
        user_id: whose chunk or tail; None: of no one user.
        start, end: the events of that chunk or tail, ``[start, end)``, where they are known.
        repairable: whether it can be made right from what is there.

    """

    what: str
    shard: int | None = None
    user_id: int | str | None = None
    start: int | None = None
    end: int | None = None
    repairable: bool = False

    @property
    def place(self) -> tuple[int | None, int | str | None, int | None, int | None]:
        """Shard, user, start and end."""
        return self.shard, self.user_id, self.start, self.end

    def __str__(self) -> str:
        where = [] if self.shard is None else [f"shard {self.shard:04d}"]
        if self.user_id is not None:
            where.append(f"user {self.user_id}")
        if self.start is not None:
            where.append(f"versions [{self.start}, {self.end})")
        return f"{', '.join(where)}: {self.what}" if where else self.what


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification has read, and what is wrong.

    Attributes:
        shards, users, events, chunks, sources: what was looked at; of what cannot be read, nothing.
        problems: that are there.
        repaired: that were there before.

    """

    shards: int
    users: int
    events: int
    chunks: int
    sources: int
    problems: tuple[Problem, ...] = ()
    repaired: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def describe(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ShardStats:
    """One shard's share.

    Attributes:
        users, events: that it holds.
        bytes: size of its file.

    """

    users: int
    events: int
    bytes: int


@dataclass(frozen=True, slots=True)
class StorageDetails:
    """Where the bytes of a store's files go; the accounts add up to them.

    Attributes:
        columns: stored bytes of the blocks of each column, ``(dropped)`` of those that the schema no longer has.
        encodings: of each encoding, its blocks and their stored bytes.
        lz4_bytes: of all blocks' bytes, those that are compressed with LZ4.
        header_bytes: headers, descriptors and zones of chunks.
        key_bytes: keys of chunks and tails.
        node_bytes: what LMDB keeps beside each key and value.
        branch_bytes: pages that lead to others.
        gap_bytes: what is left over in pages.
        free_bytes: pages that wait for the next writes.
        other_bytes: LMDB's own pages, sources and the manifest.
        by_shard: each shard's share.

    """

    columns: dict[str, int]
    encodings: dict[str, dict[str, int]]
    lz4_bytes: int
    header_bytes: int
    key_bytes: int
    node_bytes: int
    branch_bytes: int
    gap_bytes: int
    free_bytes: int
    other_bytes: int
    by_shard: tuple[ShardStats, ...]

    @property
    def total_bytes(self) -> int:
        """All accounts together: the size of the store's files."""
        named = (self.header_bytes, self.key_bytes, self.node_bytes, self.branch_bytes, self.gap_bytes)
        return sum(self.columns.values()) + sum(named) + self.free_bytes + self.other_bytes


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds. Lengths are of the events that are left, over all users.

    Attributes:
        shards: number of shards.
        users: users with a history, also those of whose events none is left.
        events: events in all histories, without those that were trimmed.
        chunks: sealed chunks.
        tail_events: events in tails, not yet sealed.
        bytes: size of all data files and the manifest; LMDB's lock files, which hold no data, do not count.
        used_bytes: of these, pages in use.
        longest: events of the longest history.
        length_p50, length_p90, length_p99: the smallest length that this share of the users does not exceed.
        trimmed_users: users who have lost events to ``trim``.
        tail_share: share of the events that are in tails.
        free_bytes: of ``bytes``, pages that wait for the next writes.
        shard_skew: events of the fullest shard over those of a shard on average; 1: all hold as many.
        readers: read transactions that are open, in all processes, of the shard that has most.
        reader_lag: transactions committed to a shard since its oldest open snapshot was taken, of the shard where these
            are most: the pages that they freed are in ``free_bytes``, and wait until that snapshot is closed.
        kept_bytes: of ``free_bytes``, pages that open snapshots keep from being used again: by so much the files are
            larger for their sake. None: that could not be told, with another version of LMDB.
        oldest_reader: the process that holds the oldest snapshot of the shard where ``reader_lag`` is; None: there is
            no lag.
        details: where the bytes go, if that was asked for.

    """

    shards: int
    users: int
    events: int
    chunks: int
    tail_events: int
    bytes: int
    used_bytes: int
    longest: int
    length_p50: int
    length_p90: int
    length_p99: int
    trimmed_users: int
    tail_share: float
    free_bytes: int
    shard_skew: float
    readers: int
    reader_lag: int
    kept_bytes: int | None = 0
    oldest_reader: int | None = None
    details: StorageDetails | None = None

    def describe(self) -> dict[str, Any]:
        """The fields by name; without ``details`` where they were not asked for."""
        fields = asdict(self)
        if self.details is None:
            del fields["details"]
        return fields
