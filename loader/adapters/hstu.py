"""Batches in the layout that open HSTU trainers take: a user's history and the candidates, as two keyed jagged tensors.

Meta's ``generative_recommenders`` (``dlrm_v3``: ``Samples``) and those that follow it train on two keyed jagged tensors
of int64 values. The first has the *contextual* features, one value a row each, and then one key for each column of the
history; the second has a key for each feature of the candidates. Values lie key by key; ``lengths: int64[K * B]`` says
for each key and row how many there are.

This module needs torch alone: :class:`KeyedJagged` is that layout in plain tensors, and its ``to_kjt()`` gives
TorchRec's class where TorchRec is installed. What it leaves to others: ids. Trainers look values up in embedding
tables, so what is no integer is refused here, and mapping it to integers is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loader.batch import Batch
from loader.jagged import Jagged
from uihkv import SchemaError

Keys = Mapping[str, str] | Sequence[str]
"""Columns; or a trainer's keys, and the column of each."""

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.bool)


@dataclass(frozen=True, slots=True, eq=False)
class KeyedJagged:
    """K keys of B rows each, key by key.

    Attributes:
        keys: K names.
        values: int64[N], of the first key's rows, then of the second's.
        lengths: int64[K * B], values of each row, in the same order.

    """

    keys: tuple[str, ...]
    values: Tensor
    lengths: Tensor

    @property
    def stride(self) -> int:
        """B: rows of each key."""
        return len(self.lengths) // len(self.keys)

    @property
    def offsets(self) -> Tensor:
        """int64[K * B + 1]: where each row of each key begins."""
        return torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])

    def __getitem__(self, key: str) -> Jagged:
        """One key's rows, of the same values."""
        at = self.keys.index(key) * self.stride
        offsets = self.offsets[at : at + self.stride + 1]
        return Jagged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> KeyedJagged:
        """The same on another device."""
        moved = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.values, self.lengths))
        return KeyedJagged(self.keys, *moved)

    def to_kjt(self) -> Any:
        """TorchRec's ``KeyedJaggedTensor``, of the same memory.

        Raises:
            ImportError: where TorchRec is not installed.

        """
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        return KeyedJaggedTensor(keys=list(self.keys), values=self.values, lengths=self.lengths, stride=self.stride)


@dataclass(frozen=True, slots=True, eq=False)
class HSTUInputs:
    """What an HSTU trainer takes of a batch.

    Attributes:
        uih: contextual features and the history.
        candidates: features of the candidates.

    """

    uih: KeyedJagged
    candidates: KeyedJagged

    def to(self, device: torch.device | str, non_blocking: bool = False) -> HSTUInputs:
        """The same on another device."""
        return HSTUInputs(self.uih.to(device, non_blocking), self.candidates.to(device, non_blocking))


def hstu_inputs(
    batch: Batch,
    history: Keys,
    candidates: Keys,
    *,
    contextual: Keys = (),
    num_candidates: str | None = None,
    tenant: str | None = None,
) -> HSTUInputs:
    """A batch as history and candidates; one copy of each value, on the batch's device.

    Args:
        batch: of a loader; with ``dedup=True`` it is expanded first.
        history: columns of the history, oldest event first, or a mapping of the trainer's keys to them.
        candidates: columns of the examples, ``[B]`` for one candidate a row or ``[B, M]`` for M, likewise.
        contextual: columns of the examples, ``[B]``, that go before the history, likewise.
        num_candidates: column of the examples that says how many of the M candidates each row has, 0 to M; None: M.
        tenant: whose history; None: the only one's.

    Raises:
        SchemaError: for a column that is not there, has a shape that does not fit or is not of integers, for counts
            out of their range, and for no keys.

    """
    read = (batch.history if tenant is None else batch.histories[tenant]).expand()
    rows = len(batch)
    ones = torch.ones(rows, dtype=torch.int64, device=read.lengths.device)
    parts: list[tuple[str, Tensor, Tensor]] = []
    for key, name in _named(contextual):
        column = _example_column(batch, name)
        if column.ndim != 1:
            raise SchemaError(
                f"contextual column {name!r} has rows of shape {list(column.shape[1:])}; one value expected"
            )
        parts.append((key, column, ones))
    for key, name in _named(history):
        column_read = read[name]
        if column_read.element_offsets is not None or column_read.values.ndim != 1:
            raise SchemaError(f"column {name!r} of the history has several values an event; a key has one")
        parts.append((key, _as_int64(column_read.values, name), read.lengths))
    counts = None if num_candidates is None else _example_column(batch, num_candidates)
    offered = [_candidates(key, name, _example_column(batch, name), counts) for key, name in _named(candidates)]
    return HSTUInputs(_joined(parts, "history"), _joined(offered, "candidates"))


def _candidates(key: str, name: str, column: Tensor, counts: Tensor | None) -> tuple[str, Tensor, Tensor]:
    """One feature of the candidates: values and lengths."""
    wide = column[:, None] if column.ndim == 1 else column
    if wide.ndim != 2:
        raise SchemaError(f"candidate column {name!r} has rows of shape {list(wide.shape[1:])}; M values are expected")
    rows, most = wide.shape
    if counts is None:
        return key, wide.reshape(-1), torch.full((rows,), most, dtype=torch.int64, device=wide.device)
    if counts.ndim != 1 or (rows and not 0 <= int(counts.min()) <= int(counts.max()) <= most):
        raise SchemaError(f"counts of candidates are not one a row and 0 to {most}, as the width of {name!r} asks")
    return key, wide[torch.arange(most, device=wide.device) < counts[:, None]], counts


def _named(keys: Keys) -> Iterable[tuple[str, str]]:
    if isinstance(keys, str):
        raise SchemaError(f"columns are given as the string {keys!r}; write [{keys!r}]")
    return keys.items() if isinstance(keys, Mapping) else [(name, name) for name in keys]


def _example_column(batch: Batch, name: str) -> Tensor:
    if name not in batch.examples:
        raise SchemaError(f"examples have no column {name!r}; they have {', '.join(batch.examples) or 'none'}")
    return _as_int64(batch.examples[name], name)


def _as_int64(values: Tensor, name: str) -> Tensor:
    if values.dtype not in _INTEGERS:
        raise SchemaError(f"column {name!r} is {values.dtype}; keys hold integers: map it to ids first")
    return values.to(torch.int64)


def _joined(parts: list[tuple[str, Tensor, Tensor]], what: str) -> KeyedJagged:
    if not parts:
        raise SchemaError(f"no keys given for the {what}; name at least one column")
    keys, values, lengths = zip(*parts, strict=True)
    return KeyedJagged(keys, torch.cat(values), torch.cat(lengths))
