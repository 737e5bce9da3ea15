"""What is done to make one batch: the stages, and where an error in one of them belongs.

The stages are declared here and run by :mod:`loader.pipeline`, all of a batch's in one thread:

1. *take*: the examples' pointers, labels and features, by their indices;
2. *read*: plan and decode the histories that the pointers name, for all tenants (:mod:`loader.reading`);
3. *assemble*: wrap the arrays as a batch of tensors;
4. *transfer*: on a CUDA device only, pin and start the copy (:mod:`loader.prefetch`).

An error leaves its stage as itself, with a note that names batch, epoch and rank and, where one example is at
fault, that example (:mod:`loader.faults`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from loader.batch import assemble_batch, pack_in_place
from loader.columns import Array
from loader.prefetch import Sent, Transfer, sizes_of
from loader.reading import Reader, Request
from loader.stats import Meter
from uihkv import Pointers

if TYPE_CHECKING:
    from uihkv.inline import InlineTail

STAGES = ("take", "read", "assemble")
TRANSFER = "transfer"

AS_OF = "as_of"
"""The examples' column of request moments, from which a projection's ``max_age`` counts."""


@dataclass(frozen=True, slots=True)
class Place:
    """A batch to be made.

    Attributes:
        epoch: of the pass.
        rank: that reads it.
        batch: its number in the epoch, from 0.
        indices: int64[B], of its examples.

    """

    epoch: int
    rank: int
    batch: int
    indices: NDArray[np.int64]

    def __str__(self) -> str:
        return f"batch {self.batch} of epoch {self.epoch}, rank {self.rank}"


class Taken(Protocol):
    """What the first stage asks of examples."""

    def take(self, indices: NDArray[np.int64]) -> tuple[Pointers, dict[str, Array]]:
        """Rows ``indices: int64[B]``: their pointers, and each column as a new array."""


class BatchMaker:
    """Makes batches of examples; safe to call from several threads at once.

    Args:
        examples: where rows come from.
        reader: where histories come from; the caller closes it.
        transfer: how batches reach their device; None: they stay on the host.
        meter: counts the stages' times.
        inline: of a maker of one batch, the inline tails of its rows; None: none.

    """

    def __init__(
        self,
        examples: Taken,
        reader: Reader,
        transfer: Transfer | None,
        meter: Meter,
        inline: InlineTail | None = None,
    ) -> None:
        self._inline = inline
        self._examples = examples
        self._reader = reader
        self._transfer = transfer
        self._meter = meter

    def make_batch(self, place: Place) -> Sent:
        """Carry one batch through all stages.

        Raises:
            BaseException: what a stage raised, with notes that say where.

        """
        stage = STAGES[0]
        try:
            with self._meter.timed(stage, place.batch):
                pointers, features = self._examples.take(place.indices)
            stage = STAGES[1]
            reading = self._reader.read(
                Request(pointers, features.get(AS_OF), place.epoch, place.indices, self._inline)
            )
            self._meter.count_read(stage, place.batch, reading)
            stage = STAGES[2]
            with self._meter.timed(stage, place.batch):
                batch = assemble_batch(features, pointers, reading)
            if self._transfer is None:
                return Sent(batch, sizes_of(batch))
            stage = TRANSFER
            with self._meter.timed(stage, place.batch):
                if reading.slab is not None:
                    batch = pack_in_place(batch, reading.slab)
                return self._transfer.send(batch)
        except BaseException as error:
            error.add_note(f"in the loader's stage {stage!r}, {place}")
            raise


def settle_after_first(make: Callable[[Place], Sent]) -> Callable[[Place], Sent]:
    """A maker that has young objects collected once, before its first batch is handed over.

    What loading kernels leaves are some hundred thousand objects that are there to stay. Their first collection (50 ms
    were seen) would else come in the midst of one of the first steps.
    """
    first = iter((True,))

    def make_and_settle(place: Place) -> Sent:
        sent = make(place)
        if gc.isenabled() and next(first, False):
            gc.collect(1)
        return sent

    return make_and_settle
