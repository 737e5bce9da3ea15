"""Which examples come in which order: pure functions of seed and epoch.

The idea:

1. An epoch is a permutation of all examples, drawn by a counter-based generator keyed with (seed, epoch): the
   stable argsort of its raw 64-bit words. Raw words are fixed by numpy's promise for bit generators, so a state
   saved today resumes to the row with another release; ``Generator.permutation`` has no such promise.
2. With an affinity window of ``w``, each ``w`` consecutive examples of the permutation are put together by shard, and
   in a shard by user; shards and users come in the order in which the permutation first names them. An example
   so leaves its drawn place by less than ``w`` places, and which examples share a window stays drawn uniformly.
   What is given up: within a window, the examples of a user stand side by side.

A read groups a batch's lookups by shard and key anyway and gives the histories back in the batch's order; the window
changes which examples share a batch. How batches are cut is :mod:`loader.epochs`'.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]


def permute_examples(examples: int, seed: int, epoch: int, shuffle: bool = True) -> Int64s:
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
    # Different words have one order, which any sort finds; numpy's quickest takes a quarter of the stable one's time.
    order = np.argsort(words)
    ascending = words[order]
    if (ascending[1:] == ascending[:-1]).any():  # of 64 random bits: in one of 10**7 epochs of a million examples
        order = np.argsort(words, kind="stable")
    return order.astype(np.int64, copy=False)


def group_examples(order: Int64s, shard: Int64s, user: Int64s, window: int) -> Int64s:
    """The same examples, put together by shard and user within each ``window`` of them: int64[n].

    Args:
        order: int64[n], the examples in their drawn order.
        shard: int64[examples], of each example's user; 0 or more.
        user: int64[examples], a number for each example's user; 0 or more.
        window: examples that are put together, 1 or more.

    """
    block = np.arange(len(order)) // window
    by_shard = _first_places(block, shard[order])
    by_user = _first_places(block, user[order])
    return order[np.lexsort((by_user, by_shard, block))]  # stable: a user's examples keep their order


def _first_places(block: Int64s, key: Int64s) -> Int64s:
    """Of each place, the first one in its block with the same key."""
    code = block * (int(key.max(initial=0)) + 1) + key
    _, first, group = np.unique(code, return_index=True, return_inverse=True)
    return np.asarray(first[group], np.int64)
