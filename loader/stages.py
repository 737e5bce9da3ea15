"""What is done to make one batch: the stages, and where an error in one of them belongs.

The stages are declared here and run by :mod:`loader.pipeline`, all of a batch's in one thread:

1. *take*: the examples' pointers, labels and features, by their indices;
2. *read*: for each tenant, plan and decode the histories that the pointers name, from one snapshot;
3. *assemble*: wrap the arrays as a batch of tensors;
4. *transfer*: on a CUDA device only, pin and start the copy (:mod:`loader.prefetch`).

An error leaves its stage as itself, with a note that names batch, epoch and rank and, where one example is at
fault, that example: it is found by reading halves again, since only the store knows why a pointer does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from loader.batch import assemble_batch
from loader.columns import Array
from loader.prefetch import Sent, Transfer
from loader.stats import Meter
from uihkv import (
    CorruptChunkError,
    Histories,
    NotVisibleYetError,
    PointerError,
    Pointers,
    Projection,
    TrimmedError,
    UihkvError,
)

if TYPE_CHECKING:
    from uihkv import Snapshot
    from uihkv.inline import InlineTail

STAGES = ("take", "read", "assemble")
TRANSFER = "transfer"

AS_OF = "as_of"
"""The examples' column of request moments, from which a projection's ``max_age`` counts."""

_OF_ONE_EXAMPLE = (PointerError, CorruptChunkError, TrimmedError, NotVisibleYetError)
"""Errors of the store that one pointer causes."""


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
        snapshot: where histories come from; the caller closes it.
        tenants: a projection each.
        transfer: how batches reach their device; None: they stay on the host.
        meter: counts the stages' times.
        on_trimmed: what becomes of an example whose events are trimmed.
        inline: of a maker of one batch, the inline tails of its rows; None: none.

    """

    def __init__(
        self,
        examples: Taken,
        snapshot: Snapshot,
        tenants: Mapping[str, Projection],
        transfer: Transfer | None,
        meter: Meter,
        on_trimmed: Literal["raise", "truncate"] = "raise",
        inline: InlineTail | None = None,
    ) -> None:
        self._inline = inline
        self._examples = examples
        self._snapshot = snapshot
        self._tenants = tenants
        self._transfer = transfer
        self._meter = meter
        self._on_trimmed = on_trimmed

    def make_batch(self, place: Place) -> Sent:
        """Carry one batch through all stages.

        Raises:
            BaseException: what a stage raised, with notes that say where.

        """
        stage = STAGES[0]
        try:
            with self._meter.timed(stage):
                pointers, features = self._examples.take(place.indices)
            stage = STAGES[1]
            with self._meter.timed(stage):
                histories = self._read_tenants(pointers, features.get(AS_OF), place)
            stage = STAGES[2]
            with self._meter.timed(stage):
                batch = assemble_batch(features, pointers, histories)
            if self._transfer is None:
                return Sent(batch)
            stage = TRANSFER
            with self._meter.timed(stage):
                return self._transfer.send(batch)
        except BaseException as error:
            error.add_note(f"in the loader's stage {stage!r}, {place}")
            raise

    def _read_tenants(self, pointers: Pointers, as_of: NDArray[Any] | None, place: Place) -> dict[str, Histories]:
        histories = {}
        for tenant, projection in self._tenants.items():
            try:
                histories[tenant] = self._snapshot.read(
                    pointers, projection, as_of=as_of, epoch=place.epoch, on_trimmed=self._on_trimmed,
                    inline=self._inline,
                )  # fmt: skip
            except _OF_ONE_EXAMPLE as error:
                row = self._find_example(pointers, as_of, projection, type(error))
                if row is not None:
                    error.add_note(
                        f"at example {int(place.indices[row])} (row {row} of the batch): user "
                        f"{int(pointers.user_id[row])}, version {int(pointers.version[row])}; tenant {tenant!r}"
                    )
                raise
        return histories

    def _find_example(
        self, pointers: Pointers, as_of: NDArray[Any] | None, projection: Projection, kind: type[UihkvError]
    ) -> int | None:
        """First row whose read raises an error of this kind."""

        def fails(rows: slice) -> bool:
            try:
                moments = None if as_of is None else as_of[rows]
                inline = None if self._inline is None else self._inline[rows]
                self._snapshot.read(
                    pointers[rows], projection, as_of=moments, on_trimmed=self._on_trimmed, inline=inline
                )
            except kind:
                return True
            return False

        return find_failing_row(len(pointers), fails)


def find_failing_row(rows: int, fails: Callable[[slice], bool]) -> int | None:
    """First row for which ``fails`` is true of that row alone, by halving; None: no row fails alone."""
    low, high = 0, rows
    while high - low > 1:
        middle = (low + high) // 2
        if fails(slice(low, middle)):
            high = middle
        else:
            low = middle
    return low if rows and fails(slice(low, high)) else None
