"""Byte strings of all rows as one flat array: how what users have of str and bytes becomes uint8 and offsets.

Taken are lists and numpy arrays of str or bytes (also fixed-width ``U`` and ``S``, which lose NUL characters at the end
of a value before they come here, objects and ``StringDType``), Arrow strings and binaries of every layout,
dictionaries of these, and pairs ``(values, offsets)`` of numpy arrays, which is how a read gives such a column back. A
str stands for its UTF-8; what a ``string`` column takes must be valid UTF-8, however it is given.

No Python object a row, but those that a list already has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.chunk import MAX_EVENT_RAW_BYTES
from uihkv.distinct import Bytes
from uihkv.dtypes import BYTES, STRING
from uihkv.errors import SchemaError

Int64s = NDArray[np.int64]


def parse_texts(dtype: str, name: str, values: Any, n: int | None) -> tuple[Bytes, Int64s]:
    """Values of n rows: their bytes back to back, uint8, and int64[n+1], where each begins.

    Args:
        dtype: ``bytes`` or ``string``.
        name: of the column, for messages.
        values: a column as a user has it.
        n: rows that are expected; None: any number.

    Raises:
        SchemaError: for something else, nulls, bytes that are not UTF-8, or values that are too long.

    """
    if _is_pair(values):
        values = _arrow_of_pair(name, *values)
    elif type(values).__module__.split(".")[0] != "pyarrow":
        values = _arrow_of_rows(dtype, name, values)
    flat, offsets = flatten_arrow(name, values, dtype)
    if n is not None and len(offsets) - 1 != n:
        raise SchemaError(f"column {name!r} has {len(offsets) - 1} values, {n} are expected; one an event")
    longest = int(np.diff(offsets).max(initial=0))
    if longest > MAX_EVENT_RAW_BYTES:
        raise SchemaError(f"column {name!r}: a value of {longest} bytes; an event holds at most {MAX_EVENT_RAW_BYTES}")
    return flat, offsets


def _is_pair(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) == 2 and all(isinstance(part, np.ndarray) for part in values)


def _arrow_of_pair(name: str, values: NDArray[Any], offsets: NDArray[Any]) -> Any:
    import pyarrow as pa

    if values.dtype != np.uint8 or values.ndim != 1 or offsets.dtype.kind not in "iu" or offsets.ndim != 1:
        raise SchemaError(f"column {name!r}: a pair is a flat uint8 array and n + 1 offsets")
    where = offsets.astype(np.int64)
    if not len(where) or where[0] != 0 or (np.diff(where) < 0).any() or where[-1] != len(values):
        raise SchemaError(f"column {name!r}: offsets begin at 0, never fall and end at the {len(values)} bytes")
    buffers = [None, pa.py_buffer(where), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(where) - 1, buffers)


def _arrow_of_rows(dtype: str, name: str, values: Any) -> Any:
    """An Arrow array of a list or a numpy array."""
    import pyarrow as pa

    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise SchemaError(f"column {name!r}: {values!r} given; a list or array of str or bytes is expected")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise SchemaError(f"column {name!r}: some values are masked; fill or drop them")
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise SchemaError(f"column {name!r} has shape {values.shape}; one {dtype} value an event is expected")
        if values.dtype.kind not in "USOT" and len(values):
            raise SchemaError(f"column {name!r}: {values.dtype} given; str or bytes are expected")
    try:
        if isinstance(values, np.ndarray):
            values = _without_width(values)
        text = dtype == STRING or (isinstance(values, np.ndarray) and values.dtype.kind == "T")
        return pa.array(values, pa.large_string() if text else pa.large_binary())
    except (pa.ArrowException, UnicodeError, TypeError, ValueError) as error:
        raise SchemaError(f"column {name!r}: {error}; str or bytes are expected") from None


def _without_width(values: NDArray[Any]) -> NDArray[Any]:
    """Strings of fixed width in a type of any width: Arrow would cut them at a NUL character, or take their UCS-4."""
    if values.dtype.kind == "U":
        return values.astype(np.dtypes.StringDType())
    return values if values.dtype.kind in "OT" else values.astype(object)


def flatten_arrow(name: str, values: Any, dtype: str) -> tuple[Bytes, Int64s]:
    """Bytes and offsets of an Arrow column of strings or binaries without nulls.

    Args:
        name: for messages.
        values: an array or chunked array.
        dtype: ``string``: the bytes must be UTF-8.

    Raises:
        SchemaError: for other types, nulls, or bytes that are not UTF-8.

    """
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = pa.array([], values.type) if values.num_chunks == 0 else values.combine_chunks()
        if isinstance(values, pa.ChunkedArray):  # older pyarrow keeps them chunked
            values = pa.concat_arrays(values.chunks)
    if not is_text(values.type) and not pa.types.is_null(values.type):
        raise SchemaError(f"column {name!r}: Arrow type {values.type} given; strings or binaries are expected")
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if values.null_count:
        row = values.is_null().index(True).as_py()
        raise SchemaError(f"column {name!r}: row {row} is null; fill or drop nulls before appending")
    try:
        values = values.cast(pa.large_binary())
        if dtype == STRING:
            values.cast(pa.large_string())  # refuses what is not UTF-8
    except pa.ArrowException:
        raise SchemaError(
            f"column {name!r}: row {_find_broken(values)} is not valid UTF-8; encode it so, or use a {BYTES} column"
        ) from None
    if not len(values):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    _, where, data = values.buffers()
    offsets = np.frombuffer(where, np.int64)[values.offset : values.offset + len(values) + 1]
    low, high = int(offsets[0]), int(offsets[-1])
    flat = np.empty(high - low, np.uint8)
    if high > low:
        flat[:] = np.frombuffer(data, np.uint8)[low:high]
    return flat, offsets - low


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is of strings or binaries, in whatever layout."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = ("is_string", "is_large_string", "is_binary", "is_large_binary", "is_string_view", "is_binary_view")
    return bool(pa.types.is_fixed_size_binary(kind) or any(getattr(pa.types, check)(kind) for check in checks))


def _find_broken(values: Any) -> int:
    """First row that is not UTF-8."""
    for row, value in enumerate(values):
        try:
            value.as_py().decode()
        except UnicodeDecodeError:
            return row
    return -1
