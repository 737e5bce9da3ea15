"""Deduplicated columns: each event of a batch once, and per example the span of events that it sees.

Examples of the same user share a prefix, and their windows overlap. In the plain form of a batch the shared events are
there once for each of them; here they are there once, and go to the device once. ``expand`` gives the plain form
back, on whichever device the tensors are, to the bit. After RecD's inverse keyed jagged tensors (Zhao et al., "RecD:
Deduplication for End-to-End Deep Learning Recommendation Model Training Infrastructure", arXiv 2211.05239), with spans
in place of inverse indices, since windows overlap without being equal.

All sizes are known on the host since the batch was assembled: no view waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from loader.jagged import SIGNED, Jagged, TenantHistory, pad_spans
from uihkv import SchemaError


@dataclass(frozen=True, slots=True, eq=False)
class Deduplicated:
    """B sequences of one column that share events.

    Args:
        values: ``[N, *shape]``, each event once; of a ragged column the elements of all lists.
        start, end: int64[B]; row ``b`` holds the events ``[start[b], end[b])``.
        element_offsets: of a ragged column, int64[N+1]; else None.
        events: of all rows together, shared ones counted each time.
        elements: of a ragged column, likewise; else 0.
        min_length: events of the shortest row.
        max_length: events of the longest row.

    """

    values: Tensor
    start: Tensor
    end: Tensor
    element_offsets: Tensor | None
    events: int
    elements: int
    min_length: int
    max_length: int

    def __len__(self) -> int:
        return len(self.start)

    @property
    def lengths(self) -> Tensor:
        """Events of each row: int64[B]."""
        return self.end - self.start

    @property
    def expanded_nbytes(self) -> int:
        """Bytes of the plain form's values, and element offsets if it is ragged."""
        if self.element_offsets is not None:
            return self.elements * self.values.itemsize + 8 * (self.events + 1)
        return self.events * self.values[:0].new_empty((1, *self.values.shape[1:]), device="meta").nbytes

    def expand(self) -> Jagged:
        """The plain form: every row with events of its own, back to back."""
        offsets = _running(self.lengths)
        index = _indices(self.start, offsets, self.events)
        element_offsets = None
        if self.element_offsets is not None:
            first, last = self.element_offsets[:-1][index], self.element_offsets[1:][index]
            element_offsets = _running(last - first)
            index = _indices(first, element_offsets, self.elements)
        signed = SIGNED.get(self.values.dtype)
        values = self.values if signed is None else self.values.view(signed)
        taken = values.index_select(0, index)
        return Jagged(
            taken if signed is None else taken.view(self.values.dtype), offsets, element_offsets,
            min_length=self.min_length, max_length=self.max_length,
        )  # fmt: skip

    def padded(self, length: int, value: Any = 0, side: Literal["left", "right"] = "left") -> Tensor:
        """As :meth:`Jagged.padded`, without expanding."""
        if self.element_offsets is not None:
            raise SchemaError("this column is ragged; pad its lists yourself from element_offsets")
        return pad_spans(self.values, self.start, self.end, length, value, side)

    def nested(self) -> Tensor:
        """The plain form as a nested tensor of jagged layout; see :meth:`Jagged.nested`."""
        return self.expand().nested()

    def to_kjt(self, key: str) -> Any:
        """The plain form as a TorchRec ``KeyedJaggedTensor``; see :meth:`Jagged.to_kjt`."""
        return self.expand().to_kjt(key)


@dataclass(frozen=True, slots=True, eq=False)
class DedupHistory:
    """What one projection gave for a batch, deduplicated: ``history["item_id"]`` is a :class:`Deduplicated`.

    Attributes:
        columns_by_name: the columns; their spans may differ, their lengths do not.

    """

    columns_by_name: Mapping[str, Deduplicated]

    def __len__(self) -> int:
        return len(self._any)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns_by_name)

    def __contains__(self, name: object) -> bool:
        return name in self.columns_by_name

    def __getitem__(self, name: str) -> Deduplicated:
        """One column.

        Raises:
            SchemaError: for a column that the projection does not name.

        """
        if name not in self.columns_by_name:
            raise SchemaError(f"column {name!r} was not read; this projection has {', '.join(self.columns_by_name)}")
        return self.columns_by_name[name]

    @property
    def _any(self) -> Deduplicated:
        return next(iter(self.columns_by_name.values()))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that were read."""
        return tuple(self.columns_by_name)

    @property
    def lengths(self) -> Tensor:
        """Events of each row: int64[B]."""
        return self._any.lengths

    @property
    def events(self) -> int:
        """Events of all rows, shared ones counted each time."""
        return self._any.events

    @property
    def expanded_nbytes(self) -> int:
        """Bytes of the plain form."""
        return 8 * (len(self) + 1) + sum(column.expanded_nbytes for column in self.columns_by_name.values())

    def to_kjt(self, keys: Iterable[str] | None = None) -> Any:
        """Columns of the plain form as a TorchRec ``KeyedJaggedTensor``; see :meth:`TenantHistory.to_kjt`."""
        return self.expand().to_kjt(keys)

    def expand(self) -> TenantHistory:
        """The plain form of all columns."""
        plain = {name: column.expand() for name, column in self.columns_by_name.items()}
        some = next(iter(plain.values()))
        return TenantHistory(
            some.offsets,
            {name: column.values for name, column in plain.items()},
            {name: column.element_offsets for name, column in plain.items() if column.element_offsets is not None},
            some.min_length,
            some.max_length,
        )

    def tensors(self) -> list[Tensor]:
        """All of them; columns may share some."""
        found: list[Tensor] = []
        for column in self.columns_by_name.values():
            found += (column.values, column.start, column.end)
            if column.element_offsets is not None:
                found.append(column.element_offsets)
        return found

    def mapped(self, change: Callable[[Tensor], Any]) -> DedupHistory:
        """The same with other tensors."""
        return DedupHistory(
            {
                name: Deduplicated(
                    change(column.values), change(column.start), change(column.end),
                    None if column.element_offsets is None else change(column.element_offsets),
                    column.events, column.elements, column.min_length, column.max_length,
                )
                for name, column in self.columns_by_name.items()
            }
        )  # fmt: skip


def _running(lengths: Tensor) -> Tensor:
    offsets = lengths.new_zeros(len(lengths) + 1)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return offsets


def _indices(start: Tensor, offsets: Tensor, total: int) -> Tensor:
    """Of the items at ``[offsets[b], offsets[b+1])``, where they come from: from ``start[b]`` on."""
    shift = torch.repeat_interleave(start - offsets[:-1], torch.diff(offsets), output_size=total)
    return torch.arange(total, device=start.device) + shift
