"""How far has a source been stored: the records behind exactly-once appends.

Every shard keeps, for each source that brought it rows, its *own* offset: the last one whose rows it holds, written in
the transaction that stored them. What it covers is not stored again.

An own offset does not say that other shards are done. The source's *home* shard does: it commits after all others and
adds the *claim*, the offset up to which every shard is done, and what that rests on, the own offset that each shard
had then. What a claim covers is not stored again by any shard, also not by one that had no rows of it.

Where commits can be lost (``durability="relaxed"`` and a power cut), or shards were copied at different moments, a
shard may stand below what the claim rests on. For that, home keeps one step back of each shard: the own offset before,
and the claim that rested on it. A shard that lost its last commit takes the source back to that claim, one that lost
more to its own offset. A claim is thus never believed against the shards.

A record is int64s, little-endian: the own offset; at home also the claim, and three words a shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from uihkv.errors import FormatError

Int64s = NDArray[np.int64]

NONE = -1
"""Below every offset: nothing of the source is there."""


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """What a shard knows of a source.

    Attributes:
        own: last offset whose rows the shard holds; ``NONE`` for none.
        claim: at home, the offset up to which every shard is done; elsewhere, and before the first, ``NONE``.
        rests_on: int64[shards], at home: the own offsets that the claim rests on; elsewhere empty.
        rested_on: int64[shards], at home: what these were before they last rose.
        claim_before: int64[shards], at home: the claim before each last rose.

    """

    own: int
    claim: int
    rests_on: Int64s
    rested_on: Int64s
    claim_before: Int64s

    def pack(self) -> bytes:
        """The record's bytes."""
        if not len(self.rests_on):
            return np.array([self.own], "<i8").tobytes()
        words = ([self.own, self.claim], self.rests_on, self.rested_on, self.claim_before)
        return np.concatenate(words).astype("<i8").tobytes()

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> SourceRecord:
        """Read a record's bytes."""
        words = np.frombuffer(data, "<i8").astype(np.int64)
        claim = int(words[1]) if len(words) > 1 else NONE
        rests_on, rested_on, claim_before = words[2:].reshape(3, -1)
        return cls(int(words[0]), claim, rests_on, rested_on, claim_before)

    def check(self, source: str, shards: int) -> SourceRecord:
        """The record, once it is seen to be one of a store of so many shards.

        Raises:
            FormatError: when it is not.

        """
        if len(self.rests_on) not in (0, shards):
            raise FormatError(
                f"the record of source {source!r} is of {len(self.rests_on)} shards, the store has {shards}; restore "
                "its shards from a backup"
            )
        return self

    def covers(self, number: int, own: int, offset: int) -> bool:
        """Whether home's claim says that a shard, whose own offset is given, is done up to an offset.

        It says so of a shard without rows of the source, too; of one that lost what the claim rests on it does not.
        """
        return self.claim >= offset and len(self.rests_on) > 0 and own >= int(self.rests_on[number])

    def advance(self, offset: int, own: Mapping[int, int], shards: int) -> SourceRecord:
        """The record at home once every shard is done up to an offset.

        Args:
            offset: the new claim, unless an older one is further.
            own: own offsets, by shard, of those that may have risen.
            shards: how many there are.

        """
        fresh = np.full(shards, NONE, np.int64)
        known = len(self.rests_on) > 0
        rests_on, rested_on, claim_before = (
            words.copy() if known else fresh.copy() for words in (self.rests_on, self.rested_on, self.claim_before)
        )
        for number, reached in own.items():
            if reached > rests_on[number]:
                rested_on[number], rests_on[number] = rests_on[number], reached
                claim_before[number] = self.claim
        return SourceRecord(self.own, max(self.claim, offset), rests_on, rested_on, claim_before)


_NO_WORDS = np.empty(0, np.int64)

UNKNOWN = SourceRecord(NONE, NONE, _NO_WORDS, _NO_WORDS, _NO_WORDS)
"""The record of a source that a shard has never met."""


def home_of(source: str, shards: int) -> int:
    """The shard that commits a source's offsets last."""
    return xxhash.xxh3_64_intdigest(source.encode()) % shards


def offset_done(home: SourceRecord, own: Int64s) -> int:
    """Last offset that every shard has, ``NONE`` for none.

    Args:
        home: the record of the home shard.
        own: int64[shards], the own offset of each, not read before ``home``.

    """
    if home.claim == NONE:  # rows came to it, by writers that leave the claim to somebody else
        return NONE
    behind = own < home.rests_on
    if not behind.any():
        return home.claim
    reached = np.where(own >= home.rested_on, home.claim_before, own)
    return int(reached[behind].min())
