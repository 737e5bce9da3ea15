"""How an epoch is cut into each rank's batches, and what names a place in it.

Three ways, behind one face (:class:`Epochs`): the loader asks for the number of batches, for the :class:`Plan` of one
pass from a place on, and whether a place is one.

- :class:`FixedEpochs`: global batches of ``batch_size * world_size`` examples, of which each rank takes its consecutive
  ``batch_size``, or is dealt them by length with ``balance``. A place is a count of examples over all ranks: it
  means the same for any world size with the same global batch.
- :class:`BudgetEpochs`: the order is cut greedily, so that no batch exceeds ``max_events``; each ``world_size``
  consecutive cuts are one step. A place is again a count of examples, and since a cut depends on nothing before it,
  any world size goes on from it.
- :class:`loader.ownership.ShardEpochs`: ranks own shards.

In all of them every rank has the same number of batches, and each batch at least one example. Examples left at the end
of an epoch that are too few for that are left out (``uneven="drop"``), filled up with the epoch's first examples
(``"pad"``), or refused (``"raise"``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from loader.budget import cut_by_events, deal_evenly, split_evenly
from loader.errors import SettingError
from loader.state import Position

Int64s = NDArray[np.int64]
Uneven = Literal["drop", "pad", "raise"]


class Bounds(Protocol):
    """Where a pass begins and ends, and the places between."""

    @property
    def first(self) -> int:
        """Number of the pass's first batch in the epoch."""

    @property
    def batches(self) -> int:
        """One past the number of the epoch's last batch: the same on every rank."""

    def position(self, batches: int) -> Position:
        """The place in the epoch when this many of its batches are done."""


class Plan(Bounds, Protocol):
    """One rank's batches of one pass."""

    def rows(self, batch: int) -> Int64s:
        """Indices of the batch's examples: int64[B]. The first call may take long: it may draw the order."""


class Epochs(Protocol):
    """How every epoch of one loader is cut."""

    def batches(self, epoch: int) -> int:
        """Batches of a whole epoch on each rank."""

    def plan(self, position: Position) -> Plan | None:
        """The rest of an epoch; None: the position is no place where a batch begins or the epoch ends."""

    def describe(self) -> dict[str, Any]:
        """The settings that decide which examples share a batch, as plain values, for a loader's state."""


@dataclass(frozen=True, slots=True)
class BatchCuts:
    """Where an epoch of ``examples`` is cut into global batches of one size, and which part is one rank's.

    Attributes:
        examples: in the epoch, over all ranks.
        batch_size: examples a batch on this rank.
        rank: 0 to ``world_size - 1``.
        world_size: ranks that share the epoch.
        drop_last: leave the last, smaller global batch out.
        uneven: what becomes of a last global batch with fewer examples than ranks.

    """

    examples: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False
    uneven: Uneven = "drop"

    @property
    def global_batch(self) -> int:
        """Examples of one full batch over all ranks."""
        return self.batch_size * self.world_size

    @property
    def batches(self) -> int:
        """Batches in the epoch: the same on every rank."""
        full, left = divmod(self.examples, self.global_batch)
        enough = 1 if self.uneven == "pad" else self.world_size
        return full + (not self.drop_last and left >= enough)

    @property
    def left_out(self) -> int:
        """Examples at the end of the epoch that are too few for a batch on every rank."""
        left = self.examples % self.global_batch
        return left if left < self.world_size and not self.drop_last else 0

    def span(self, batch: int) -> tuple[int, int]:
        """Places ``[start, stop)`` of a global batch in the order; past the examples they go on with its first."""
        start = batch * self.global_batch
        return start, max(min(start + self.global_batch, self.examples), min(start, self.examples) + self.world_size)

    def rows(self, batch: int) -> slice:
        """Places in the order that this rank reads as its ``batch``-th; as :meth:`span`."""
        start, stop = self.span(batch)
        share, more = divmod(stop - start, self.world_size)
        low = start + self.rank * share + min(self.rank, more)
        return slice(low, low + share + (self.rank < more))

    def consumed(self, batches: int) -> int:
        """Examples that all ranks have seen after this many batches."""
        return min(batches * self.global_batch, self.examples)

    def batch_after(self, consumed: int) -> int | None:
        """The batch that comes after this many examples over all ranks; None: no batch begins there."""
        if consumed in (self.examples, self.consumed(self.batches)):
            return self.batches
        batch, within = divmod(consumed, self.global_batch)
        return batch if within == 0 and 0 <= batch < self.batches else None


class FixedEpochs:
    """Epochs in batches of one size.

    Args:
        cuts: the sizes.
        order: the order of all examples in an epoch.
        events: int64[examples], by which each global batch is dealt to the ranks; None: in order.

    Raises:
        SettingError: with ``uneven="raise"``, when examples would be left out.

    """

    def __init__(self, cuts: BatchCuts, order: Callable[[int], Int64s], events: Int64s | None = None) -> None:
        self._cuts = cuts
        self._order = order
        self._events = events
        if cuts.uneven == "raise" and cuts.left_out:
            raise uneven_error(cuts.left_out, cuts.world_size)

    def batches(self, epoch: int) -> int:
        """Batches of a whole epoch on each rank."""
        return self._cuts.batches

    def plan(self, position: Position) -> FixedPlan | None:
        """The rest of an epoch; None: no batch begins there."""
        first = self._cuts.batch_after(position.consumed)
        if first is None or position.segments:
            return None
        return FixedPlan(self._cuts, self._order, self._events, position.epoch, first)

    def describe(self) -> dict[str, Any]:
        """The settings that decide which examples share a batch."""
        return {"global_batch": self._cuts.global_batch}


@dataclass(frozen=True)
class FixedPlan:
    """The rest of an epoch in batches of one size; see :class:`Plan`."""

    cuts: BatchCuts
    order_of: Callable[[int], Int64s]
    events: Int64s | None
    epoch: int
    first: int

    @property
    def batches(self) -> int:
        """One past the number of the epoch's last batch."""
        return self.cuts.batches

    @cached_property
    def _order(self) -> Int64s:
        return self.order_of(self.epoch)

    def rows(self, batch: int) -> Int64s:
        """Indices of the batch's examples."""
        cuts = self.cuts
        if self.events is None:
            part = cuts.rows(batch)
            return self._order.take(np.arange(part.start, part.stop), mode="wrap")
        whole = self._order.take(np.arange(*cuts.span(batch)), mode="wrap")
        mine: Int64s = whole[deal_evenly(self.events[whole], cuts.world_size) == cuts.rank]
        return mine

    def position(self, batches: int) -> Position:
        """The place after this many batches."""
        return Position(self.epoch, self.cuts.consumed(batches))


class BudgetEpochs:
    """Epochs in batches of at most ``max_events`` events.

    Args:
        cuts: sizes and ranks; ``batch_size`` is the most examples a batch has.
        order: the order of all examples in an epoch.
        events: int64[examples], most events of each; none above ``max_events``.
        max_events: most events a batch.
        balance: deal the examples of a step by length.

    """

    def __init__(
        self, cuts: BatchCuts, order: Callable[[int], Int64s], events: Int64s, max_events: int, balance: bool
    ) -> None:
        self._cuts = cuts
        self._order = order
        self._events = events
        self._max_events = max_events
        self._balance = balance
        self._counted: dict[int, int] = {}

    def batches(self, epoch: int) -> int:
        """Batches of a whole epoch on each rank; cuts the epoch."""
        if epoch not in self._counted:
            self._counted = {epoch: len(self._steps(self._order(epoch), 0))}
        return self._counted[epoch]

    def plan(self, position: Position) -> BudgetPlan | None:
        """The rest of an epoch: every count of its examples is a place."""
        if position.segments or position.consumed > self._cuts.examples:
            return None
        cuts, order = self._cuts, self._order(position.epoch)
        steps = self._steps(order, 0)
        starts = np.array([step[0] for step in steps] + [steps[-1][-1] if steps else 0])
        first = int(np.searchsorted(starts, position.consumed))
        if position.consumed == cuts.examples:
            first = len(steps)
        elif first == len(starts) or starts[first] != position.consumed:  # a place of another world size
            first = max(0, first - 1)
            steps = steps[:first] + self._steps(order, position.consumed)
        deal = self._events if self._balance and cuts.world_size > 1 else None
        return BudgetPlan(cuts, order, deal, self._max_events, position.epoch, first, steps, position.consumed)

    def _steps(self, order: Int64s, start: int) -> list[list[int]]:
        """The cuts of each step from a place on: ``world_size + 1`` places of the order."""
        cuts, ranks = self._cuts, self._cuts.world_size
        events = self._events[order[start:]]
        places: list[int] = (start + cut_by_events(events, cuts.batch_size, self._max_events)).tolist()
        full = (len(places) - 1) // ranks
        if cuts.drop_last and full and (len(places) - 1) % ranks == 0:  # a last batch that could have held more
            full -= places[-1] - places[-2] < cuts.batch_size
        steps = [places[step * ranks : (step + 1) * ranks + 1] for step in range(full)]
        rest = places[full * ranks :]
        left = rest[-1] - rest[0]
        if not left or cuts.drop_last:
            return steps
        if left >= ranks:
            steps.append(split_evenly(rest, ranks))
        elif cuts.uneven == "pad":
            steps.append(list(range(rest[0], rest[0] + ranks + 1)))
        elif cuts.uneven == "raise":
            raise uneven_error(left, ranks)
        return steps

    def describe(self) -> dict[str, Any]:
        """The settings that decide which examples share a step."""
        ranks = self._cuts.world_size
        return {"global_batch": self._cuts.global_batch, "global_events": self._max_events * ranks}


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """The rest of an epoch in batches of limited events; see :class:`Plan`."""

    cuts: BatchCuts
    order: Int64s
    events: Int64s | None
    max_events: int
    epoch: int
    first: int
    steps: list[list[int]]
    begun: int

    @property
    def batches(self) -> int:
        """One past the number of the epoch's last batch."""
        return len(self.steps)

    def rows(self, batch: int) -> Int64s:
        """Indices of the batch's examples."""
        places, rank = self.steps[batch], self.cuts.rank
        if self.events is not None:
            whole = self.order.take(np.arange(places[0], places[-1]), mode="wrap")
            dealt = deal_evenly(self.events[whole], self.cuts.world_size)
            held = np.bincount(dealt, self.events[whole], self.cuts.world_size)
            if held.max() <= self.max_events:  # dealing keeps the budget, but for rare sets of long examples
                mine: Int64s = whole[dealt == rank]
                return mine
        return self.order.take(np.arange(places[rank], places[rank + 1]), mode="wrap")

    def position(self, batches: int) -> Position:
        """The place after this many batches."""
        last = self.steps[-1][-1] if self.steps else 0
        place = self.steps[batches][0] if batches < len(self.steps) else last
        # Where the pass began is no end of a step when other ranks had come so far and too few examples are left.
        return Position(self.epoch, max(self.begun, min(place, self.cuts.examples)))


def uneven_error(left: int, ranks: int) -> SettingError:
    """The refusal of an epoch that leaves examples over."""
    return SettingError(
        f"uneven='raise', and {left} examples at the end of the epoch are too few for {ranks} ranks; take 'drop' to "
        "leave them out, 'pad' to fill up with the epoch's first, or another batch_size"
    )
