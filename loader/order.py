"""Which examples make which batch, in which order: pure functions of seed, epoch and rank.

The idea:

1. An epoch is a permutation of all examples, drawn by a counter-based generator keyed with (seed, epoch): the
   stable argsort of its raw 64-bit words. Raw words are fixed by numpy's promise for bit generators, so a state
   saved today resumes to the row with another release; ``Generator.permutation`` has no such promise.
2. The permutation is cut into global batches of ``batch_size * world_size`` examples, and each rank takes its
   ``batch_size`` consecutive ones of each. So examples consumed over all ranks name a place in the epoch,
   for any world size with the same global batch.
3. What is left at the end makes one smaller global batch, split as evenly as possible (the first ranks get one more),
   so that all ranks have the same number of batches. Fewer leftovers than ranks cannot do that: they are
   left out of that epoch, as is every leftover with ``drop_last``.

The order of examples is never changed for the store's sake: a snapshot's read groups a batch by shard and key
itself, and gives the histories back in the batch's order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def permute_examples(examples: int, seed: int, epoch: int, shuffle: bool = True) -> NDArray[np.int64]:
    """Order of all examples in one epoch: int64[examples].

    Args:
        examples: how many there are.
        seed: 0 to 2**64 - 1.
        epoch: 0 to 2**64 - 1.
        shuffle: False: the order in which they stand, in every epoch.

    """
    if not shuffle:
        return np.arange(examples, dtype=np.int64)
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(examples)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)


@dataclass(frozen=True, slots=True)
class BatchCuts:
    """Where an epoch of ``examples`` is cut into batches, for one rank.

    Attributes:
        examples: in the epoch, over all ranks.
        batch_size: examples a batch on this rank.
        rank: 0 to ``world_size - 1``.
        world_size: ranks that share the epoch.
        drop_last: leave the last, smaller global batch out.

    """

    examples: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False

    @property
    def global_batch(self) -> int:
        """Examples of one full batch over all ranks."""
        return self.batch_size * self.world_size

    @property
    def batches(self) -> int:
        """Batches in the epoch: the same on every rank."""
        full, left = divmod(self.examples, self.global_batch)
        return full + (not self.drop_last and left >= self.world_size)

    def rows(self, batch: int) -> slice:
        """Places in the epoch's permutation that this rank reads as its ``batch``-th."""
        start = batch * self.global_batch
        size = min(self.global_batch, self.examples - start)
        share, more = divmod(size, self.world_size)
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
