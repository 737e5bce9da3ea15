"""How a column of an example file or mapping becomes one flat numpy array.

Examples live in memory as a few flat arrays: no Python object per row. This module takes what people
have (numpy arrays, sequences, Arrow columns) and gives contiguous arrays in native byte order, or refuses with the
column's name and what to do. Lists of equal length become a second dimension.

What it leaves to others: which columns are pointers (:mod:`loader.examples`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uihkv import SchemaError

Array = NDArray[Any]

_DTYPES = frozenset(
    {
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64",
    }
)  # fmt: skip
"""The types that numpy and torch both have, by their numpy names."""

_ADVICE = "tensors hold numbers: encode it, or leave it out by naming the columns you want"


def parse_array(name: str, values: ArrayLike) -> Array:
    """Contiguous array ``[n, *shape]`` of a numeric column; a view of ``values`` where that is possible.

    Raises:
        SchemaError: for a type that torch does not have, masked values, or a scalar.

    """
    if hasattr(values, "null_count") and hasattr(values, "type"):  # Arrow: numpy would turn its nulls into NaN
        return parse_arrow(name, values)
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):
            raise SchemaError(f"column {name!r} has masked values; fill them first, examples have no nulls")
        values = values.data
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise SchemaError(f"column {name!r} is not rectangular ({error}); pad its lists to one length") from error
    except (TypeError, RuntimeError) as error:  # of a tensor that has a gradient, or a type that numpy lacks
        raise SchemaError(f"column {name!r} is a {type(values).__name__} that is no array here ({error})") from error
    if array.ndim == 0:
        raise SchemaError(f"column {name!r} is a single value; an array with one row an example is expected")
    if array.dtype.newbyteorder("=").name not in _DTYPES:
        raise SchemaError(f"column {name!r} has dtype {array.dtype}; {_ADVICE}")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def parse_arrow(name: str, column: Any) -> Array:
    """Contiguous array ``[n]`` or, of lists of equal length, ``[n, k]`` from an Arrow array or chunked array.

    Raises:
        SchemaError: for nulls, lists of different lengths, lists of lists, and types that are not numbers.

    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        raise SchemaError(f"column {name!r} has {column.null_count} nulls; fill them first, examples have no nulls")
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if pa.types.is_struct(kind.value_type):
            raise SchemaError(
                f"column {name!r} holds lists of structs; inline tails are read from streams, and from files once "
                "uihkv slim has moved their pointers behind them; leave out others by naming the columns you want"
            )
        n = len(column)
        lengths = pc.min_max(pc.list_value_length(column)).as_py() if n else {"min": 0, "max": 0}
        if lengths["min"] != lengths["max"]:
            raise SchemaError(
                f"column {name!r} holds lists of {lengths['min']} to {lengths['max']} elements; pad them to one "
                "length, or keep them in the store as a ragged column"
            )
        elements = pc.list_flatten(column)
        if elements.null_count:
            raise SchemaError(f"column {name!r} has nulls in its lists; fill them first, examples have no nulls")
        width = lengths["max"] if n or not pa.types.is_fixed_size_list(kind) else kind.list_size
        return _flat(name, elements).reshape(n, width)
    return _flat(name, column)


def _flat(name: str, column: Any) -> Array:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        time = pa.types.is_temporal(kind)
        advice = "cast it to int64 in the store's time unit, or leave it out" if time else _ADVICE
        raise SchemaError(f"column {name!r} has Arrow type {kind}; {advice}")
    if len(column) == 0:
        return np.empty(0, kind.to_pandas_dtype())
    return np.ascontiguousarray(column.to_numpy(zero_copy_only=False))
