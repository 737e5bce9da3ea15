"""Epochs are permutations, ranks share them out, and a count of examples names a place."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.epochs import BatchCuts
from loader.order import permute_examples

cuts = st.builds(
    lambda examples, batch_size, world_size, drop_last: [
        BatchCuts(examples, batch_size, rank, world_size, drop_last) for rank in range(world_size)
    ],
    st.integers(1, 80),
    st.integers(1, 9),
    st.integers(1, 5),
    st.booleans(),
)


def test_epoch_is_a_permutation_that_seed_and_epoch_decide() -> None:
    first = permute_examples(100, seed=3, epoch=0)
    assert sorted(first) == list(range(100))
    assert np.array_equal(first, permute_examples(100, seed=3, epoch=0))
    assert not np.array_equal(first, permute_examples(100, seed=3, epoch=1))
    assert not np.array_equal(first, permute_examples(100, seed=4, epoch=0))
    assert np.array_equal(permute_examples(5, seed=3, epoch=9, shuffle=False), np.arange(5))


def test_order_of_an_epoch_is_the_same_for_ever() -> None:
    """A saved state resumes to the row only if no release changes this."""
    assert permute_examples(10, seed=7, epoch=2).tolist() == [6, 7, 8, 4, 0, 1, 5, 3, 9, 2]


@settings(deadline=None)
@given(cuts)
def test_ranks_partition_the_epoch(ranks: list[BatchCuts]) -> None:
    assert len({rank.batches for rank in ranks}) == 1
    seen = []
    for batch in range(ranks[0].batches):
        sizes = [len(range(80)[rank.rows(batch)]) for rank in ranks]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
        seen += [row for rank in ranks for row in range(1000)[rank.rows(batch)]]
    assert seen == list(range(len(seen)))
    assert len(seen) == ranks[0].consumed(ranks[0].batches) or ranks[0].batches * ranks[0].global_batch > len(seen)
    left = ranks[0].examples - len(seen)
    assert left < (ranks[0].global_batch if ranks[0].drop_last else len(ranks))


@settings(deadline=None)
@given(cuts)
def test_consumed_examples_name_the_next_batch(ranks: list[BatchCuts]) -> None:
    rank = ranks[0]
    for batch in range(rank.batches + 1):
        assert rank.batch_after(rank.consumed(batch)) == batch
    assert rank.batch_after(rank.examples) == rank.batches
    assert rank.batch_after(rank.examples + 1) is None
    if rank.global_batch > 1 and rank.examples > 1:
        assert rank.batch_after(1) is None


def test_place_is_the_same_for_other_world_sizes_of_one_global_batch() -> None:
    alone, four = BatchCuts(100, 12), BatchCuts(100, 3, 0, 4)
    assert [alone.consumed(batch) for batch in range(9)] == [four.consumed(batch) for batch in range(9)]
