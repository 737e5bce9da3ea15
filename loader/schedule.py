"""From a loader's settings to how its epochs are cut: which settings go together, and what they need to know.

Only settings that ask for it make the loader look at all examples' pointers: lengths for ``max_events`` and
``balance``, users and shards for ``affinity_window`` and ``split="shards"``. They are looked at once, when the loader
is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loader.budget import bound_events
from loader.epochs import BatchCuts, BudgetEpochs, Epochs, FixedEpochs
from loader.errors import SettingError
from loader.examples import Examples
from loader.order import group_examples, permute_examples
from loader.ownership import ShardEpochs
from uihkv import Pointers, Projection, Store

Int64s = NDArray[np.int64]
Split = Literal["examples", "shards"]

_ROWS_A_LOOK = 1 << 16


@dataclass(frozen=True, slots=True)
class Schedule:
    """Settings that decide which examples make which batch.

    Attributes:
        cuts: sizes, ranks, and what becomes of the last examples.
        seed: of the order.
        shuffle: another order in each epoch.
        max_events: most events a batch; None: no limit.
        balance: deal each step's examples to the ranks by length.
        affinity_window: examples put together by shard and user; None: none.
        split: what ranks share out.

    """

    cuts: BatchCuts
    seed: int
    shuffle: bool
    max_events: int | None = None
    balance: bool = False
    affinity_window: int | None = None
    split: Split = "examples"

    def describe(self) -> dict[str, Any]:
        """The settings that a state must share, as plain values."""
        return {
            "shuffle": self.shuffle, "seed": self.seed, "drop_last": self.cuts.drop_last, "uneven": self.cuts.uneven,
            "balance": self.balance, "affinity_window": self.affinity_window, "split": self.split,
        }  # fmt: skip


def build_epochs(schedule: Schedule, store: Store, examples: Examples, tenants: Mapping[str, Projection]) -> Epochs:
    """How the epochs of these examples are cut.

    Raises:
        SettingError: for settings that do not go together, an example that alone exceeds ``max_events``, more ranks
            than shards, and with ``uneven="raise"`` for an epoch that leaves examples over.

    """
    cuts, by_length = schedule.cuts, schedule.balance or schedule.max_events is not None
    owned = schedule.split == "shards"
    if owned and schedule.balance:
        raise SettingError(
            "balance=True with split='shards': ranks that own shards cannot share examples; leave one out"
        )
    shard: Int64s | None = None
    user: Int64s | None = None
    events: Int64s | None = None
    if by_length or owned or schedule.affinity_window is not None:
        pointers = all_pointers(examples)
        if by_length:
            events = bound_events(tenants.values(), pointers.version)
            _check_budget(schedule.max_events, events)
        if owned or schedule.affinity_window is not None:
            shard = store.shard_of(pointers.user_id)
        if schedule.affinity_window is not None:
            user = np.unique(pointers.user_id, return_inverse=True)[1].astype(np.int64, copy=False)

    def order(epoch: int, remaining: NDArray[np.bool_] | None = None) -> Int64s:
        drawn = permute_examples(cuts.examples, schedule.seed, epoch, schedule.shuffle)
        if remaining is not None:
            drawn = drawn[remaining[drawn]]
        if schedule.affinity_window is not None and shard is not None and user is not None:
            drawn = group_examples(drawn, shard, user, schedule.affinity_window)
        return drawn

    if owned and shard is not None:
        return ShardEpochs(cuts, order, shard, store.shards, events, schedule.max_events)
    if schedule.max_events is not None and events is not None:
        return BudgetEpochs(cuts, order, events, schedule.max_events, schedule.balance)
    return FixedEpochs(cuts, order, events if cuts.world_size > 1 else None)


def all_pointers(examples: Examples) -> Pointers:
    """Pointers of all examples, in their order."""
    known = getattr(examples, "pointers", None)
    if isinstance(known, Pointers):
        return known
    rows = np.arange(len(examples))
    steps = range(0, len(rows), _ROWS_A_LOOK)
    return Pointers.concat(examples.take(rows[step : step + _ROWS_A_LOOK])[0] for step in steps)


def _check_budget(max_events: int | None, events: Int64s) -> None:
    if max_events is not None and int(events.max(initial=0)) > max_events:
        example = int(np.argmax(events > max_events))
        raise SettingError(
            f"example {example} alone has up to {int(events[example])} events, max_events is {max_events}; raise it, "
            "or give the projections a smaller max_len"
        )
