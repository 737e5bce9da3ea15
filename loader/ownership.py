"""Ranks that own shards: no rank reads another's, so that each needs only its shards' pages in memory.

Shards are given out by number of examples, the fullest first, each to the rank with the fewest so far: a function of
the data and the world size alone. An epoch's order is split by owner, and every rank cuts its own part into batches.

Ranks then have different numbers of examples, and what makes their numbers of batches equal is ``uneven``: all stop
with the shortest (``"drop"``), the shorter ones begin their part again (``"pad"``), or the loader refuses
(``"raise"``).

A place in the epoch cannot be one count of examples. It is a list of :class:`~loader.state.Segment`: so many
batches were made by so many ranks of such a size. From it follows which examples are done, since every order is a
function of seed and epoch; another world size splits what remains, every example exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loader.budget import cut_by_events
from loader.epochs import BatchCuts
from loader.errors import SettingError
from loader.state import Position, Segment

Int64s = NDArray[np.int64]


def assign_shards(examples: Int64s, ranks: int) -> Int64s:
    """Owner of each shard: int64[shards].

    Args:
        examples: int64[shards], how many examples each has.
        ranks: how many there are.

    """
    owner = np.empty(len(examples), np.int64)
    held = np.zeros(ranks, np.int64)
    shards = np.zeros(ranks, np.int64)
    for shard in np.argsort(-examples, kind="stable").tolist():
        rank = int(np.lexsort((np.arange(ranks), shards, held))[0])
        owner[shard] = rank
        held[rank] += examples[shard]
        shards[rank] += 1
    return owner


class ShardEpochs:
    """Epochs of ranks that own shards.

    Args:
        cuts: sizes and ranks.
        order: the order of the examples that a mask leaves, in an epoch.
        shard: int64[examples], of each example's user.
        shards: how many the store has.
        events: int64[examples], most events of each; None: batches are cut by size alone.
        max_events: most events a batch; None: no limit.

    Raises:
        SettingError: for more ranks than shards.

    """

    def __init__(
        self,
        cuts: BatchCuts,
        order: Callable[[int, NDArray[np.bool_]], Int64s],
        shard: Int64s,
        shards: int,
        events: Int64s | None,
        max_events: int | None,
    ) -> None:
        if cuts.world_size > shards:
            raise SettingError(
                f"{cuts.world_size} ranks cannot own {shards} shards; take fewer ranks, split='examples', or a store "
                "of more shards"
            )
        self._cuts = cuts
        self._order = order
        self._shard = shard
        self._per_shard = np.bincount(shard, minlength=shards)
        self._events = np.zeros(len(shard), np.int64) if events is None else events
        self._max_events = max_events
        self._counted: dict[int, int] = {}

    def batches(self, epoch: int) -> int:
        """Batches of a whole epoch on each rank; cuts the epoch."""
        if epoch not in self._counted:
            plan = self.plan(Position(epoch, 0))
            self._counted = {epoch: 0 if plan is None else plan.batches}
        return self._counted[epoch]

    def plan(self, position: Position) -> ShardPlan | None:
        """The rest of an epoch; None: such batches cannot have been made."""
        cuts = self._cuts
        done, remaining = list(position.segments), np.ones(len(self._shard), bool)
        now = Segment(cuts.world_size, cuts.batch_size, self._max_events or 0, 0)
        batches_now = 0
        if done and done[-1].same_ranks(now):
            batches_now = done.pop().batches
        for segment in done:
            if segment.world_size > len(self._per_shard):
                return None
            parts = self._split(position.epoch, remaining, segment)
            if segment.batches > _equal_batches(parts, "pad"):
                return None
            for part in parts:
                remaining[part.first_batches(segment.batches)] = False
        parts = self._split(position.epoch, remaining, now)
        before = sum(segment.batches for segment in done)
        equal = self._equal_batches(parts)
        if batches_now > equal:
            return None
        plan = ShardPlan(
            parts, cuts.rank, position.epoch, before, before + batches_now, before + equal, tuple(done), now,
            int(len(remaining) - remaining.sum()),
        )  # fmt: skip
        return plan if plan.position(plan.first).consumed == position.consumed else None

    def _split(self, epoch: int, remaining: NDArray[np.bool_], ranks: Segment) -> list[_Part]:
        """What remains, split by owner and cut into each rank's batches."""
        order = self._order(epoch, remaining)
        owner = assign_shards(self._per_shard, ranks.world_size)[self._shard[order]]
        parts = []
        for rank in range(ranks.world_size):
            mine = order[owner == rank]
            cuts = cut_by_events(self._events[mine], ranks.batch_size, ranks.max_events or None)
            parts.append(_Part(mine, cuts))
        return parts

    def _equal_batches(self, parts: Sequence[_Part]) -> int:
        """The number of batches that every rank makes."""
        cuts = self._cuts
        if cuts.drop_last:
            parts = [part.without_last(cuts.batch_size) for part in parts]
        counts = [part.batches for part in parts]
        if cuts.uneven == "raise" and len(set(counts)) > 1:
            raise SettingError(
                f"uneven='raise', and the ranks' shards make {min(counts)} to {max(counts)} batches; take 'drop' to "
                "stop with the shortest, 'pad' to repeat, or split='examples'"
            )
        return _equal_batches(parts, cuts.uneven)

    def describe(self) -> dict[str, Any]:
        """The settings that decide which examples share a batch; sizes stand in the state's segments."""
        return {}


@dataclass(frozen=True, slots=True)
class _Part:
    """One rank's examples, in order, and where they are cut."""

    order: Int64s
    cuts: Int64s

    @property
    def batches(self) -> int:
        return len(self.cuts) - 1

    def first_batches(self, batches: int) -> Int64s:
        """The examples of this many batches."""
        return self.order[: self.cuts[min(batches, self.batches)]]

    def without_last(self, batch_size: int) -> _Part:
        """Without the last batch if it is smaller."""
        small = self.batches and self.cuts[-1] - self.cuts[-2] < batch_size
        return _Part(self.order, self.cuts[:-1]) if small else self


def _equal_batches(parts: Sequence[_Part], uneven: str) -> int:
    counts = [part.batches for part in parts]
    if min(counts) == 0:
        return 0  # a rank without examples has nothing to repeat
    return max(counts) if uneven == "pad" else min(counts)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The rest of an epoch of ranks that own shards; see :class:`loader.epochs.Plan`."""

    parts: list[_Part]
    rank: int
    epoch: int
    before: int
    first: int
    batches: int
    done: tuple[Segment, ...]
    now: Segment
    done_examples: int

    def rows(self, batch: int) -> Int64s:
        """Indices of the batch's examples; past the rank's own last batch, its first come again."""
        part = self.parts[self.rank]
        number = (batch - self.before) % part.batches
        return part.order[part.cuts[number] : part.cuts[number + 1]]

    def position(self, batches: int) -> Position:
        """The place after this many batches of the epoch."""
        made = batches - self.before
        consumed = self.done_examples + sum(len(part.first_batches(made)) for part in self.parts)
        segments = (*self.done, self.now.made(made)) if made else self.done
        return Position(self.epoch, consumed, segments)
