"""A batch as the trainer gets it: tensors of examples and histories that move as one.

One rule for memory. A batch is born on the host as the arrays that were decoded, wrapped by torch without a
copy. What moves it, ``pin_memory``, ``to`` another device or a pickle, first packs it: all tensors become views of ONE
slab, a flat uint8 tensor with every part at a multiple of 64 bytes. So pinning is one allocation, a
transfer is one copy, and ``record_stream`` is one call. A batch whose arrays lie in one slab of a worker process
already is packed where it lies (:func:`pack_in_place`), and moves without that copy.

A tensor that several tenants share, as in the deduplicated form, is there once, and moves once.

Invariants: a batch is never changed, moving gives a new one; the pointers stay on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loader.columns import Array
from loader.dedup import DedupHistory, Deduplicated
from loader.errors import DeviceError
from loader.jagged import TenantHistory
from loader.reading import Reading, SpanColumn
from uihkv import Histories, Pointers, SchemaError
from uihkv.slabs import address_of

ALIGNMENT = 64
"""Bytes at whose multiples the parts of a slab begin: a cache line, and enough for every vector load."""

History = TenantHistory | DedupHistory
"""What a tenant gets: plain, or with ``dedup=True`` each event once. ``expand()`` of both is the plain form."""

ONLY_TENANT = "history"
"""Name in ``Batch.histories`` when the loader was given one projection and no tenants."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B examples with their histories.

    Attributes:
        examples: labels and features, each ``[B, *shape]`` in its own dtype.
        pointers: the B pointers, always on the host.
        histories: by tenant, see :class:`TenantHistory` and, with ``dedup=True``, :class:`DedupHistory`.
        slab: uint8, what all tensors are views of; None for a batch that never moved.
        places: where each of them begins in the slab; None: one behind the other.

    """

    examples: Mapping[str, Tensor]
    pointers: Pointers
    histories: Mapping[str, History]
    slab: Tensor | None = None
    places: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.pointers)

    @property
    def batch_size(self) -> int:
        """B: examples in this batch."""
        return len(self.pointers)

    @property
    def history(self) -> History:
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
        """Bytes of all tensors, each once, without the slab's gaps."""
        tensors = [*self.examples.values()]
        for history in self.histories.values():
            tensors += history.tensors()
        return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())

    @property
    def expanded_nbytes(self) -> int:
        """Bytes that this batch would have in the plain form, with nothing shared."""
        examples = sum(tensor.nbytes for tensor in self.examples.values())
        return examples + sum(history.expanded_nbytes for history in self.histories.values())

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self._tensors()[0].device

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

    def _tensors(self) -> list[Tensor]:
        """All tensors, each once, in the order in which they lie in a slab."""
        found: list[Tensor] = []
        self._mapped(lambda tensor: found.append(tensor) or tensor, self.slab)  # type: ignore[func-returns-value]
        return found

    def _mapped(
        self, change: Callable[[Tensor], Any], slab: Tensor | None, places: tuple[int, ...] | None = None
    ) -> Batch:
        """The same batch with other tensors; ``change`` is called once for each, in the slab's order."""
        changed: dict[int, Any] = {}

        def once(tensor: Tensor) -> Any:
            if id(tensor) not in changed:
                changed[id(tensor)] = change(tensor)
            return changed[id(tensor)]

        examples = {name: once(tensor) for name, tensor in self.examples.items()}
        histories = {tenant: history.mapped(once) for tenant, history in self.histories.items()}
        return Batch(examples, self.pointers, histories, slab, places)

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
        return replace(self, places=None)._carved(slab)

    def _carved(self, slab: Tensor) -> Batch:
        """A batch of this one's shapes whose tensors are views of ``slab``, at this one's places."""
        return self._mapped(_Carver(slab, self.places), slab, self.places)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the slab once, and the shapes: views pickled one by one would each carry all of it."""
        packed = self if self.slab is not None else self._packed()
        forms = packed._mapped(_Form.of, None)
        return _restore, (forms.examples, forms.pointers, forms.histories, packed.places, packed.slab)


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """A tensor's type and shape, in its place."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> _Form:
        return cls(tensor.dtype, tuple(tensor.shape))


class _Carver:
    """Cuts tensors out of a slab, at their places or one behind the other."""

    def __init__(self, slab: Tensor, places: tuple[int, ...] | None) -> None:
        self._slab = slab
        self._places = None if places is None else iter(places)
        self._start = 0

    def __call__(self, form: Tensor | _Form) -> Tensor:
        size = math.prod(form.shape) * form.dtype.itemsize
        start = self._start if self._places is None else next(self._places)
        self._start = start + _aligned(size)
        return self._slab[start : start + size].view(form.dtype).view(tuple(form.shape))


def _restore(examples: Any, pointers: Pointers, histories: Any, places: Any, slab: Tensor) -> Batch:
    return Batch(examples, pointers, histories, None, places)._carved(slab)


def pack_in_place(batch: Batch, memory: Array) -> Batch:
    """The batch with the slab that most of its tensors lie in already: the others are copied behind them.

    Args:
        batch: on the host, without a slab.
        memory: uint8, which is the batch's alone, and begins at a multiple of 64 bytes.

    Returns:
        the batch itself, when the others find no room, or a tensor lies across the memory's edge.

    """
    base = address_of(memory)
    tensors = batch._tensors()
    at = [tensor.data_ptr() - base for tensor in tensors]
    inside = [
        bool(tensor.nbytes) and start >= 0 and start + tensor.nbytes <= memory.nbytes and start % ALIGNMENT == 0
        for tensor, start in zip(tensors, at, strict=True)
    ]
    end = max((_aligned(at[i] + tensors[i].nbytes) for i in range(len(at)) if inside[i]), default=0)
    places = []
    for tensor, start, there in zip(tensors, at, inside, strict=True):
        places.append(start if there else end)
        end += 0 if there else _aligned(tensor.nbytes)
    if end > memory.nbytes:
        return batch
    for tensor, start, there in zip(tensors, places, inside, strict=True):
        if not there:
            np.copyto(memory[start : start + tensor.nbytes], _as_bytes(tensor))
    return replace(batch, places=tuple(places))._carved(torch.from_numpy(memory[:end]))


def assemble_batch(examples: Mapping[str, Array], pointers: Pointers, reading: Reading) -> Batch:
    """A host batch around these arrays, without copying them; it owns them from then on."""
    made: dict[int, Tensor] = {}

    def wrap(array: Array, dtype: str = "") -> Tensor:
        """The array as a tensor of a column's type, the same one for the same array; numpy gives bfloat16 as bits."""
        if id(array) not in made:
            tensor = torch.from_numpy(array)
            made[id(array)] = tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
        return made[id(array)]

    tenants: dict[str, History] = {}
    for tenant, history in reading.plain.items():
        tenants[tenant] = _wrap_plain(history, wrap)
    for tenant, columns in reading.spans.items():
        tenants[tenant] = DedupHistory({name: _wrap_spans(column, wrap) for name, column in columns.items()})
    return Batch({name: torch.from_numpy(array) for name, array in examples.items()}, pointers, tenants)


def _wrap_plain(history: Histories, wrap: Callable[..., Tensor]) -> TenantHistory:
    lengths = history.lengths
    inner = {name: history.element_offsets(name) for name in history}
    return TenantHistory(
        wrap(history.offsets),
        {name: wrap(history.values(name), history.dtype(name)) for name in history},
        {name: wrap(offsets) for name, offsets in inner.items() if offsets is not None},
        int(lengths.min()) if len(lengths) else 0,
        int(lengths.max(initial=0)),
    )


def _wrap_spans(column: SpanColumn, wrap: Callable[..., Tensor]) -> Deduplicated:
    lengths, inner = column.end - column.start, column.element_offsets
    return Deduplicated(
        wrap(column.values, column.dtype), wrap(column.start), wrap(column.end), None if inner is None else wrap(inner),
        int(lengths.sum()), 0 if inner is None else int((inner[column.end] - inner[column.start]).sum()),
        int(lengths.min()) if len(lengths) else 0, int(lengths.max(initial=0)),
    )  # fmt: skip


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _as_bytes(tensor: Tensor) -> Array:
    if not tensor.numel():  # torch views no empty tensor of odd strides as bytes
        return np.empty(0, np.uint8)
    memory: Array = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memory
