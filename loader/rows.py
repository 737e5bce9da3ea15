"""Rows of a stream on their way: pointers, features and inline tails of some examples, and when they arrived.

Batches of a feed are parsed once, here, and cut and joined as rows: whole arrays, no object a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loader.columns import Array
from loader.examples import ArrayExamples
from uihkv import Pointers, Schema, SchemaError
from uihkv.eventcolumns import EventColumns
from uihkv.inline import INLINE, INLINE_START, InlineTail


@dataclass(frozen=True, slots=True, eq=False)
class ExampleRows:
    """n examples.

    Attributes:
        pointers: n.
        features: labels and features by name, ``[n, *shape]``.
        inline: n inline tails; None: the stream has none.
        arrived_s: float64[n], ``time.monotonic()`` of their arrival.
        number: int64[n], their numbers in the stream, from 0.

    """

    pointers: Pointers
    features: Mapping[str, Array]
    inline: InlineTail | None
    arrived_s: NDArray[np.float64]
    number: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pointers)

    def __getitem__(self, rows: Any) -> ExampleRows:
        """These rows: a slice, or an array of indices or booleans."""
        return ExampleRows(
            self.pointers[rows],
            {name: array[rows] for name, array in self.features.items()},
            None if self.inline is None else self.inline[rows],
            self.arrived_s[rows],
            self.number[rows],
        )

    def take(self, indices: NDArray[np.int64]) -> tuple[Pointers, dict[str, Array]]:
        """As :meth:`loader.Examples.take`."""
        return self.pointers[indices], {name: array[indices] for name, array in self.features.items()}

    @classmethod
    def concat(cls, parts: Iterable[ExampleRows]) -> ExampleRows:
        """All rows of all parts, in order; at least one part."""
        some = list(parts)
        if len(some) == 1:
            return some[0]
        return cls(
            Pointers.concat([part.pointers for part in some]),
            {name: np.concatenate([part.features[name] for part in some]) for name in some[0].features},
            _concat_tails([part.inline for part in some if part.inline is not None]),
            np.concatenate([part.arrived_s for part in some]),
            np.concatenate([part.number for part in some]),
        )


class RowParser:
    """Parses the batches of one feed; all of them have the columns of the first.

    Args:
        schema: of the store, for inline tails.
        columns: labels and features to take; None: all.

    """

    def __init__(self, schema: Schema, columns: tuple[str, ...] | None) -> None:
        self._schema = schema
        self._columns = columns
        self._form: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] | None = None
        self._tails: tuple[str, ...] | None = None
        self.parsed = 0
        """Rows so far."""

    def parse(self, batch: Any, arrived_s: float) -> ExampleRows | None:
        """Rows of a mapping of arrays, an Arrow table or a record batch; None: it has none.

        Raises:
            SchemaError: for anything else, and for columns of other names, types or shapes than before.
            PointerError: for pointers that cannot be.

        """
        if isinstance(batch, Mapping):
            names, column = tuple(batch), batch.__getitem__
        elif hasattr(batch, "schema") and hasattr(batch, "column"):
            names, column = tuple(batch.schema.names), batch.column
        else:
            raise SchemaError(f"{type(batch).__name__} in the stream; mappings of arrays or Arrow tables are expected")
        has_tails = INLINE in names
        taken = [name for name in names if name not in (INLINE, INLINE_START)]
        if self._columns is not None:
            pointer = ("user_id", "version", "last_ts")
            absent = [name for name in self._columns if name not in names]
            if absent:
                raise SchemaError(f"the stream has no columns {absent}; it has {', '.join(names)}")
            taken = [name for name in taken if name in pointer or name in self._columns]
        if not names or not len(column(names[0])):
            return None
        examples = ArrayExamples({name: column(name) for name in taken})
        pointers, features = examples.take(np.arange(len(examples)))
        inline = None
        if has_tails:
            if isinstance(batch, Mapping):
                raise SchemaError(f"inline tails come in Arrow tables; {INLINE!r} stands in a mapping of arrays")
            inline = InlineTail.from_arrow(self._schema, batch)
        self._check_form(features, inline)
        first, self.parsed = self.parsed, self.parsed + len(pointers)
        return ExampleRows(pointers, features, inline, np.full(len(pointers), arrived_s), np.arange(first, self.parsed))

    def _check_form(self, features: Mapping[str, Array], inline: InlineTail | None) -> None:
        form = {name: (array.dtype, array.shape[1:]) for name, array in features.items()}
        tails = None if inline is None else inline.columns
        if self._form is None:
            self._form, self._tails = form, tails
        if form != self._form or tails != self._tails:
            raise SchemaError(
                f"the stream's columns changed: {_describe(form, tails)} after {_describe(self._form, self._tails)}; "
                "all its batches have the same names, types and shapes"
            )


def _describe(form: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], tails: tuple[str, ...] | None) -> str:
    columns = [f"{name} {dtype}{list(shape) if shape else ''}" for name, (dtype, shape) in sorted(form.items())]
    return ", ".join(columns) + ("" if tails is None else f", inline tails of {', '.join(tails)}")


def _concat_tails(tails: list[InlineTail]) -> InlineTail | None:
    if not tails:
        return None
    events = tails[0].events
    for tail in tails[1:]:
        events = EventColumns.concat(events, tail.events)
    lengths = np.concatenate([tail.lengths for tail in tails])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return InlineTail(np.concatenate([tail.start for tail in tails]), offsets, events)
