"""User ids as columns: int64, or strings of 1 to 480 bytes of UTF-8, as the store's schema says.

A column of string ids is a numpy array of ``StringDType``: 16 bytes a row, and the bytes of what is longer than 15.
What becomes of strings in a store is :mod:`uihkv.names`'.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.errors import PointerError

UserIds = NDArray[Any]
"""int64[n], or strings: StringDType[n]."""

INT64, STRING = "int64", "string"
KINDS = (INT64, STRING)
"""What a schema's ``user_id`` may be."""

_STRINGS = np.dtypes.StringDType()
_STRICT = np.dtypes.StringDType(coerce=False)


def is_string(ids: UserIds) -> bool:
    """Whether a column of ids holds strings."""
    return bool(ids.dtype.kind == "T")


def parse_strings(values: Any, name: str) -> UserIds | None:
    """Flat column of string ids from a str, a list, tuple or numpy array of str, or an Arrow column; None: of no str.

    Raises:
        PointerError: for nulls, another shape, str with other things between them, or str that have no UTF-8 form.

    """
    if type(values).__module__.split(".")[0] == "pyarrow":
        return _parse_arrow(values, name)
    if isinstance(values, str):
        values = [values]
    first = values[0] if isinstance(values, list | tuple) and len(values) else None
    if isinstance(first, str) or (isinstance(values, np.ndarray) and values.dtype.kind in "UT"):
        given = values
    elif not isinstance(values, list | tuple) and hasattr(values, "__array__"):
        given = np.asarray(values)
        if given.dtype.kind != "O" or not given.size or not isinstance(given.reshape(-1)[0], str):
            return None
    else:
        return None
    try:
        array: UserIds = given if getattr(given, "dtype", None) == _STRINGS else np.array(given, object).astype(_STRICT)
        array = array.astype(_STRINGS, copy=False)
    except (ValueError, TypeError) as error:  # also UnicodeEncodeError: half a surrogate pair
        raise PointerError(f"{name}: not all of the ids are str ({error}); give str only, or integers only") from None
    if array.ndim == 0:
        array = array.reshape(1)
    if array.ndim != 1:
        raise PointerError(f"{name} has shape {array.shape}; a flat array of str is expected")
    return np.ascontiguousarray(array)


def _parse_arrow(values: Any, name: str) -> UserIds | None:
    import pyarrow as pa

    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return None
    if values.null_count:
        raise PointerError(f"{name} has {values.null_count} nulls; ids have none")
    strings: UserIds = values.cast(pa.large_string()).to_numpy(zero_copy_only=False).astype(_STRINGS)
    return strings


def concat_ids(parts: list[UserIds]) -> UserIds:
    """All ids, in order; parts without rows go with either kind.

    Raises:
        PointerError: when some are int64 and some are strings.

    """
    filled = [part for part in parts if len(part)] or parts[:1]
    if len({is_string(part) for part in filled}) > 1:
        raise PointerError("some pointers have int64 user ids and some have strings; they are of different stores")
    return np.concatenate(filled)


def equal_ids(left: UserIds, right: UserIds) -> bool:
    """Whether two columns of ids hold the same."""
    if is_string(left) != is_string(right):
        return len(left) == len(right) == 0
    return bool(np.array_equal(left, right))


def to_arrow(ids: UserIds) -> Any:
    """A column of ids as an Arrow array: int64, or large_string."""
    import pyarrow as pa

    if not is_string(ids):
        return pa.array(ids)
    try:
        return pa.array(ids, pa.large_string())
    except pa.ArrowException:  # a pyarrow that does not know StringDType
        return pa.array(ids.astype(object), pa.large_string())
