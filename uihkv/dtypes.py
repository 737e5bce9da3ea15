"""The types that a column may have: what an element of each is in memory, and which single values they hold.

Numbers are numpy's. Beside them stand three that numpy lacks:

- ``bfloat16``: the upper half of a float32. In memory it is its 16 bits as uint16: who has a library for it views
  them as that library's type, without a copy.
- ``bytes`` and ``string``: each event holds a byte string of any length, a ``string`` valid UTF-8. In memory they are
  uint8 elements with offsets, as ragged columns are; chunks hold each distinct value once (*coded* columns).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
)  # fmt: skip
"""The types that numpy has, by their numpy names."""

BFLOAT16 = "bfloat16"
BYTES, STRING = "bytes", "string"
CODED = (BYTES, STRING)
"""Types that are dictionary-coded in chunks."""

DTYPES = (*NUMBERS, BFLOAT16, *CODED)
"""Every type that a column may have."""

_QUIET = 0x0040
"""Bit that makes a NaN of bfloat16 quiet; set where cutting off a NaN's low half would leave an infinity."""


def element_type(dtype: str) -> np.dtype[Any]:
    """The numpy type of one element in memory."""
    return np.dtype({BFLOAT16: "uint16", BYTES: "uint8", STRING: "uint8"}.get(dtype, dtype))


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The numbers that bit patterns of bfloat16 stand for, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float32_to_bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bit patterns of bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    nan = np.isnan(numbers)
    quiet = bits | np.uint32(_QUIET << 16)
    return (np.where(nan, quiet, rounded) >> np.uint32(16)).astype(np.uint16)


def parse_default(dtype: str, value: Any) -> Any:
    """One value of a type as a plain Python value; of floats the nearest that the type holds.

    Raises:
        ValueError: saying what is wrong with it, for a message to go on from.

    """
    if dtype in CODED:
        return _parse_text(dtype, value)
    not_one = ValueError(f"{value!r} is not a single {dtype}")
    try:
        given = np.asarray(value)
    except ValueError:
        raise not_one from None
    kind, wanted = given.dtype.kind, element_type("float32" if dtype == BFLOAT16 else dtype)
    fits = given.ndim == 0 and (
        (wanted.kind == "b" and kind == "b")
        or (wanted.kind in "iu" and kind in "iu" and _fits(given, wanted))
        or (wanted.kind == "f" and kind in "iuf")
    )
    if not fits:
        raise not_one
    with np.errstate(over="ignore"):
        number = wanted.type(value)
        if dtype == BFLOAT16:
            number = bfloat16_to_float32(float32_to_bfloat16(np.array([number], np.float32)))[0]
    plain = number.item()
    if wanted.kind == "f" and np.isfinite(given) and (np.isinf(plain) or (kind in "iu" and plain != value)):
        raise ValueError(f"{dtype} cannot hold {value!r}")
    return plain


def _fits(value: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    info = np.iinfo(dtype)
    return bool(int(info.min) <= int(value) <= int(info.max))


def _parse_text(dtype: str, value: Any) -> str | bytes:
    if isinstance(value, str if dtype == STRING else bytes):
        try:
            default_bytes(value)
        except UnicodeEncodeError as error:
            raise ValueError(f"{value!r} has no UTF-8 form ({error.reason})") from None
        return str(value) if isinstance(value, str) else bytes(value)
    raise ValueError(f"{value!r} is not a {'str' if dtype == STRING else 'bytes'}")


def default_bytes(value: str | bytes | None) -> bytes:
    """The bytes of a coded column's default; None: no bytes."""
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) else value
