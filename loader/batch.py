"""A batch as the trainer gets it: tensors of examples and histories that move as one.

One rule for memory. A batch is born on the host as the arrays that were decoded, wrapped by torch without a
copy. What moves it, ``pin_memory``, ``to`` another device or a pickle, first packs it: all tensors become views of ONE
slab, a flat uint8 tensor with every part at a multiple of 64 bytes. So pinning is one allocation, a
transfer is one copy, and ``record_stream`` is one call.

Invariants: a batch is never changed, moving gives a new one; the pointers stay on the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loader.columns import Array
from loader.errors import DeviceError
from loader.jagged import TenantHistory
from uihkv import Histories, Pointers, SchemaError

ALIGNMENT = 64
"""Bytes at whose multiples the parts of a slab begin: a cache line, and enough for every vector load."""

ONLY_TENANT = "history"
"""Name in ``Batch.histories`` when the loader was given one projection and no tenants."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B examples with their histories.

    Attributes:
        examples: labels and features, each ``[B, *shape]`` in its own dtype.
        pointers: the B pointers, always on the host.
        histories: by tenant, see :class:`TenantHistory`.
        slab: uint8, what all tensors are views of; None for a batch that never moved.

    """

    examples: Mapping[str, Tensor]
    pointers: Pointers
    histories: Mapping[str, TenantHistory]
    slab: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pointers)

    @property
    def batch_size(self) -> int:
        """B: examples in this batch."""
        return len(self.pointers)

    @property
    def history(self) -> TenantHistory:
        """The history of the only projection.

        Raises:
            SchemaError: when the loader has several tenants.

        """
        if len(self.histories) != 1:
            raise SchemaError(
                f"this batch has the tenants {', '.join(self.histories)}; say which: batch.histories[name]"
            )
        return next(iter(self.histories.values()))

    @property
    def events(self) -> int:
        """Events of all tenants."""
        return sum(history.events for history in self.histories.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, without the slab's gaps."""
        return sum(tensor.nbytes for tensor in self._tensors())

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(self._tensors()).device

    def pin_memory(self) -> Batch:
        """Copy into one page-locked slab, from which copies to a device can run beside the host's work.

        Raises:
            DeviceError: when torch has no accelerator here.

        """
        if self.slab is not None and (self.slab.device.type != "cpu" or self.slab.is_pinned()):
            return self
        if not torch.cuda.is_available():
            raise DeviceError("pin_memory needs a CUDA device, and torch finds none here; leave it out on the CPU")
        return self._packed(pin=True)

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Batch:
        """Give this batch on another device, by one copy; itself when it is there.

        Args:
            device: as torch's.
            non_blocking: do not wait for the copy: from pinned memory to a device it runs on the current stream.

        """
        target = torch.device(device)
        if target.type == "cuda" and target.index is None:
            target = torch.device("cuda", torch.cuda.current_device())
        if target == self.device:
            return self
        slab = self.slab if self.slab is not None else self._packed().slab
        assert slab is not None  # a packed batch has one
        return self._carved(slab.to(target, non_blocking=non_blocking))

    def record_stream(self, stream: torch.Stream) -> None:
        """Say that ``stream`` uses this batch: its memory is not reused before that work is done.

        On the CPU, where memory is not tied to streams, there is nothing to say.
        """
        if self.slab is not None and self.slab.device.type != "cpu":
            self.slab.record_stream(stream)

    # -- one slab -----------------------------------------------------------------------------------

    def _tensors(self) -> Iterator[Tensor]:
        """All tensors once, in the order in which :meth:`_carved` takes them."""
        yield from self.examples.values()
        for history in self.histories.values():
            yield history.offsets
            yield from history.values.values()
            yield from history.element_offsets.values()

    def _packed(self, pin: bool = False) -> Batch:
        """Copy this host batch into one slab."""
        size = sum(_aligned(tensor.nbytes) for tensor in self._tensors())
        slab = torch.empty(size, dtype=torch.uint8, pin_memory=pin)
        memory = slab.numpy()
        start = 0
        for tensor in self._tensors():
            # numpy copies on this thread alone, without the GIL; torch would start a thread pool a reader.
            np.copyto(memory[start : start + tensor.nbytes], _as_bytes(tensor))
            start += _aligned(tensor.nbytes)
        return self._carved(slab)

    def _carved(self, slab: Tensor) -> Batch:
        """A batch of this one's shapes whose tensors are views of ``slab``."""
        return _Layout.of(self).carve(slab)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the slab once, and the shapes: views pickled one by one would each carry all of it."""
        packed = self if self.slab is not None else self._packed()
        return _Layout.carve, (_Layout.of(packed), packed.slab)


_Form = tuple[torch.dtype, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _HistoryLayout:
    offsets: _Form
    values: dict[str, _Form]
    element_offsets: dict[str, _Form]
    min_length: int
    max_length: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """Types and shapes of a batch's tensors, in the order in which they lie in a slab."""

    examples: dict[str, _Form]
    pointers: Pointers
    histories: dict[str, _HistoryLayout]

    @classmethod
    def of(cls, batch: Batch) -> _Layout:
        histories = {
            tenant: _HistoryLayout(
                _form(history.offsets),
                _forms(history.values),
                _forms(history.element_offsets),
                history.min_length,
                history.max_length,
            )
            for tenant, history in batch.histories.items()
        }
        return cls(_forms(batch.examples), batch.pointers, histories)

    def carve(self, slab: Tensor) -> Batch:
        start = 0

        def cut(form: _Form) -> Tensor:
            nonlocal start
            dtype, shape = form
            size = math.prod(shape) * dtype.itemsize
            part = slab[start : start + size].view(dtype).view(shape)
            start += _aligned(size)
            return part

        def cut_all(forms: Mapping[str, _Form]) -> dict[str, Tensor]:
            return {name: cut(form) for name, form in forms.items()}

        examples = cut_all(self.examples)
        histories = {
            tenant: TenantHistory(
                cut(layout.offsets),
                cut_all(layout.values),
                cut_all(layout.element_offsets),
                layout.min_length,
                layout.max_length,
            )
            for tenant, layout in self.histories.items()
        }
        return Batch(examples, self.pointers, histories, slab)


def assemble_batch(examples: Mapping[str, Array], pointers: Pointers, histories: Mapping[str, Histories]) -> Batch:
    """A host batch around these arrays, without copying them; it owns them from then on."""
    tenants = {}
    for tenant, history in histories.items():
        lengths = history.lengths
        inner = {name: history.element_offsets(name) for name in history}
        tenants[tenant] = TenantHistory(
            torch.from_numpy(history.offsets),
            {name: _values(history, name) for name in history},
            {name: torch.from_numpy(offsets) for name, offsets in inner.items() if offsets is not None},
            int(lengths.min()) if len(lengths) else 0,
            int(lengths.max(initial=0)),
        )
    return Batch({name: torch.from_numpy(array) for name, array in examples.items()}, pointers, tenants)


def _values(history: Histories, name: str) -> Tensor:
    """A column as a tensor, without a copy; numpy has no bfloat16, and gives its bits."""
    values = torch.from_numpy(history.values(name))
    return values.view(torch.bfloat16) if history.dtype(name) == "bfloat16" else values


def _form(tensor: Tensor) -> _Form:
    return tensor.dtype, tuple(tensor.shape)


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, _Form]:
    return {name: _form(tensor) for name, tensor in tensors.items()}


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _as_bytes(tensor: Tensor) -> Array:
    memory: Array = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memory
