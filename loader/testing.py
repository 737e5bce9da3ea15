"""Checks that users can run on their own set-up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice

import torch
from torch import Tensor

from loader.batch import Batch
from loader.loader import Loader


def assert_same_batch(left: Batch, right: Batch) -> None:
    """Raise AssertionError unless both batches hold the same pointers, examples and histories, to the bit.

    A deduplicated batch is the same as a plain one that it expands to.
    """
    if left.pointers != right.pointers:
        raise AssertionError("the pointers of two batches differ")
    here, there = _named_tensors(left), _named_tensors(right)
    if list(here) != list(there):
        raise AssertionError(f"the batches hold {list(here)} and {list(there)}")
    for name, tensor in here.items():
        other = there[name]
        if tensor.dtype != other.dtype or tensor.shape != other.shape or not torch.equal(_bits(tensor), _bits(other)):
            raise AssertionError(f"{name} differs between two batches")


def assert_resumes_exactly(make_loader: Callable[[], Loader], steps: Iterable[int] | None = None) -> None:
    """Raise AssertionError unless a loader stopped after any batch resumes at the next, to the row, twice in a row.

    Args:
        make_loader: makes a fresh loader of the same data and settings each time; it is closed here.
        steps: numbers of batches after which to stop; None: every one from 0 to all of them.

    """
    with make_loader() as loader:
        whole = list(loader)
    for step in range(len(whole) + 1) if steps is None else steps:
        state = None
        done = 0
        for taken in (step, 1, len(whole)):
            with make_loader() as loader:
                if state is not None:
                    loader.load_state_dict(json.loads(json.dumps(state)))
                passing = iter(loader)
                batches = list(islice(passing, taken))
                passing.close()
                state = loader.state_dict()
            wanted = whole[done : done + taken]
            if len(batches) != len(wanted):
                raise AssertionError(
                    f"stopped after batch {step}: from batch {done} on came {len(batches)} batches, "
                    f"{len(wanted)} were expected"
                )
            for batch, expected in zip(batches, wanted, strict=True):
                assert_same_batch(batch, expected)
            done += len(batches)


def _named_tensors(batch: Batch) -> dict[str, Tensor]:
    named = {f"example column {name!r}": tensor for name, tensor in batch.examples.items()}
    for tenant, given in batch.histories.items():
        history = given.expand()
        named[f"offsets of {tenant!r}"] = history.offsets
        named |= {f"column {name!r} of {tenant!r}": tensor for name, tensor in history.values.items()}
        named |= {f"element offsets {name!r} of {tenant!r}": tensor for name, tensor in history.element_offsets.items()}
    return named


def _bits(tensor: Tensor) -> Tensor:
    """The tensor's bytes: NaN equals itself, and every dtype compares."""
    return (
        tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor.new_empty(0, dtype=torch.uint8)
    )
