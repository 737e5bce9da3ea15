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
    user_id: int | None = None
    start: int | None = None
    end: int | None = None
    repairable: bool = False

    @property
    def place(self) -> tuple[int | None, int | None, int | None, int | None]:
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
