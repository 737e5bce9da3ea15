"""What is said between the loader and its workers: one message each way for a batch.

A message is msgpack. Arrays of a request travel inside it as bytes. Arrays of an answer lie in a slab of shared memory,
and the message says for each its type, shape and place. An array that several tenants share is there once.

An error travels as its class's name, its arguments and its notes. The classes of :mod:`uihkv.errors`, of
:mod:`loader.errors` and Python's own come back as themselves; any other as a :class:`WorkerError` that carries the
worker's traceback.
"""

from __future__ import annotations

import builtins
import math
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from loader import errors as own_errors
from loader.errors import WorkerError
from loader.reading import Reading, Request, SpanColumn
from loader.slabs import end_in
from uihkv import Histories, Pointers, Projection, ReadCost, StochasticLength, errors
from uihkv.slabs import address_of

Array = NDArray[Any]
Slab = NDArray[np.uint8]
Place = Callable[[Array], int]
"""Puts an array into the slab and says where its bytes begin."""

ALIGNMENT = 64

_PATHS = "surrogateescape"
"""How Python holds bytes of a path that are no UTF-8; they stand in errors too."""


def pack(message: Any) -> bytes:
    """A message's bytes."""
    packed: bytes = msgpack.packb(message, default=_plain, unicode_errors=_PATHS)
    return packed


def unpack(data: bytes) -> Any:
    """The message in some bytes; lists come as tuples."""
    return msgpack.unpackb(data, use_list=False, strict_map_key=False, unicode_errors=_PATHS)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no place in a message")


_STRINGS = "strings"


# -- projections ----------------------------------------------------------------------------------


def tell_projection(projection: Projection) -> dict[str, Any]:
    """A projection as plain values."""
    sample = projection.sample
    return {
        "columns": projection.columns,
        "max_len": projection.max_len,
        "where": [(test.column, test.accepted, test.low, test.high) for test in projection.where],
        "max_age": projection.max_age,
        "sample": None if sample is None else [sample.alpha, sample.seed],
    }


def hear_projection(told: Mapping[str, Any]) -> Projection:
    """The projection that was told."""
    where = {
        column: (low, high) if accepted is None else set(accepted) for column, accepted, low, high in told["where"]
    }
    sample = None if told["sample"] is None else StochasticLength(*told["sample"])
    return Projection(told["columns"], told["max_len"], where, told["max_age"], sample)


# -- requests -------------------------------------------------------------------------------------


def tell_request(request: Request) -> dict[str, Any]:
    """A request as plain values."""
    pointers = request.pointers
    arrays = (pointers.user_id, pointers.version, pointers.last_ts, request.as_of, request.indices)
    return {"arrays": [None if array is None else tell_array(array) for array in arrays], "epoch": request.epoch}


def hear_request(told: Mapping[str, Any]) -> Request:
    """The request that was told."""
    user_id, version, last_ts, as_of, indices = (None if its is None else hear_array(its) for its in told["arrays"])
    assert user_id is not None and version is not None and indices is not None  # never left out
    return Request(Pointers(user_id, version, last_ts), as_of, told["epoch"], indices)


def tell_array(array: Array) -> tuple[Any, ...]:
    """A small array, with its bytes in the message; of string user ids, the strings."""
    if array.dtype.kind == "T":
        return (_STRINGS, array.shape, array.tolist())
    if array.dtype.hasobject:
        raise WorkerError(f"an array of {array.dtype} objects cannot go to a worker process; use num_workers=0")
    return (array.dtype.str, array.shape, array.tobytes())


def hear_array(told: tuple[Any, ...]) -> Array:
    """The array that was told; read-only."""
    dtype, shape, data = told
    if dtype == _STRINGS:
        return np.array(data, np.dtypes.StringDType())
    return np.frombuffer(data, dtype).reshape(shape)


# -- answers --------------------------------------------------------------------------------------


def tell_reading(reading: Reading, place: Place) -> dict[str, Any]:
    """A reading as plain values, with its arrays placed in the slab."""
    placed: dict[int, int] = {}
    arrays: list[tuple[Any, ...]] = []

    def put(array: Array | None) -> int | None:
        if array is None:
            return None
        if id(array) not in placed:
            placed[id(array)] = len(arrays)
            arrays.append((array.dtype.str, array.shape, place(array)))
        return placed[id(array)]

    plain = {}
    for tenant, its in reading.plain.items():
        columns = [(name, its.dtype(name), put(its.values(name)), put(its.element_offsets(name))) for name in its]
        plain[tenant] = (put(its.offsets), columns)
    spans = {
        tenant: [
            (name, its.dtype, put(its.values), put(its.element_offsets), put(its.start), put(its.end))
            for name, its in span_columns.items()
        ]
        for tenant, span_columns in reading.spans.items()
    }
    costs = [
        (c.events, c.chunks_considered, c.chunks_skipped, c.chunks_read, c.bytes_read, c.bytes_decoded)
        for c in reading.costs
    ]
    return {"arrays": arrays, "plain": plain, "spans": spans, "costs": costs, "took_s": reading.took_s}


def place_reading(reading: Reading, slab: Slab | None, make: Callable[[int], Slab]) -> tuple[dict[str, Any], int]:
    """A reading as plain values, its arrays in one slab, and how many bytes of that they take.

    Args:
        reading: whose read may have filled the slab from its start.
        slab: where the arrays shall lie if there is room; None: there is none yet.
        make: gives a slab of so many bytes or more, which is used where the other has no room.

    """
    arrays: dict[int, Array] = {}
    tell_reading(reading, lambda array: arrays.setdefault(id(array), array).nbytes)  # which arrays there are
    inside, outside = [], 0
    for array in arrays.values():
        if slab is not None and array.nbytes and end_in(slab, [array]) is not None:
            inside.append(array)
        else:
            outside += _aligned(array.nbytes)
    used = 0 if slab is None else _aligned(end_in(slab, inside) or 0)
    if slab is None or used + outside > slab.nbytes:
        slab, used = make(sum(_aligned(array.nbytes) for array in arrays.values())), 0
    filling = _Filling(slab, used)
    return tell_reading(reading, filling), filling.end


class _Filling:
    """Places arrays in one slab.

    Attributes:
        end: bytes that are taken.

    """

    def __init__(self, slab: Slab, used: int) -> None:
        self._slab = slab
        self._base = address_of(slab)
        self.end = used

    def __call__(self, array: Array) -> int:
        at = address_of(array) - self._base
        if array.nbytes and 0 <= at < self._slab.nbytes:
            return at  # the read has put it there
        start = _aligned(self.end)
        self.end = start + array.nbytes
        if array.nbytes:
            self._slab[start : self.end] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return start


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def hear_reading(told: Mapping[str, Any], slab: NDArray[np.uint8], locked: bool = False) -> Reading:
    """The reading that was told, over the slab's memory, which may be page-locked."""
    arrays = []
    for dtype, shape, start in told["arrays"]:
        kind = np.dtype(dtype)
        arrays.append(slab[start : start + math.prod(shape) * kind.itemsize].view(kind).reshape(shape))

    def get(number: int | None) -> Any:
        return None if number is None else arrays[number]

    plain = {}
    for tenant, (offsets, columns) in told["plain"].items():
        inner = {name: get(its) for name, _, _, its in columns if its is not None}
        dtypes = {name: dtype for name, dtype, _, _ in columns}
        plain[tenant] = Histories(
            get(offsets), {name: get(values) for name, _, values, _ in columns}, inner, dtypes=dtypes
        )
    spans = {
        tenant: {
            name: SpanColumn(get(values), dtype, get(inner), get(start), get(end))
            for name, dtype, values, inner, start, end in columns
        }
        for tenant, columns in told["spans"].items()
    }
    costs = [ReadCost(*cost) for cost in told["costs"]]
    return Reading(plain, spans, costs, told["took_s"], slab if locked else None)


# -- errors ---------------------------------------------------------------------------------------


_HOMES = (errors, own_errors, builtins)


def tell_error(error: BaseException) -> dict[str, Any]:
    """An error as plain values."""
    simple = all(isinstance(value, str | int | float | bool | None) for value in error.args)
    return {
        "kind": type(error).__name__ if simple else "",
        "args": error.args if simple else (),
        "notes": getattr(error, "__notes__", []),
        "traceback": "".join(traceback.format_exception(error)),
    }


def hear_error(told: Mapping[str, Any]) -> BaseException:
    """The error that was told."""
    kind = next((getattr(home, told["kind"]) for home in _HOMES if hasattr(home, told["kind"])), None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        error: BaseException = kind(*told["args"])
    else:
        error = WorkerError(f"a worker process failed:\n{told['traceback']}")
    for note in told["notes"]:
        error.add_note(note)
    return error
