"""Floats in wider types, bit by bit: numba has no float16 on the CPU.

float32 and float64 hold every float16, and float64 every float32, exactly; NaNs keep what they carry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from uihkv.kernels.memory import i32_at, i64_at, u16_at, u32_at


@njit(nogil=True, cache=True)
def double_bits(half: Any) -> Any:
    """The float64 bits of a float16's."""
    sign = (half & 0x8000) << 48
    exponent = (half >> 10) & 31
    fraction = half & 0x3FF
    if exponent == 31:  # infinities and NaNs
        return sign | (np.int64(2047) << 52) | (fraction << 42)
    if exponent > 0:
        return sign | ((exponent + 1008) << 52) | (fraction << 42)
    if fraction == 0:
        return sign
    exponent = np.int64(1009)  # a subnormal, which float64 holds as a normal number
    while fraction & 0x400 == 0:
        fraction <<= 1
        exponent -= 1
    return sign | (exponent << 52) | ((fraction & 0x3FF) << 42)


@njit(nogil=True, cache=True)
def single_bits(half: Any) -> Any:
    """The float32 bits of a float16's."""
    wide = double_bits(half)
    sign = (wide >> 32) & 0x80000000
    exponent = (wide >> 52) & 2047
    fraction = (wide >> 29) & 0x7FFFFF
    if exponent == 2047:
        return sign | 0x7F800000 | fraction
    if exponent == 0:
        return sign
    return sign | ((exponent - 896) << 23) | fraction


@njit(nogil=True, cache=True)
def widen_floats(source: Any, width: Any, target: Any, target_width: Any, n: Any) -> None:
    """N floats of ``width`` bytes at one address in a wider type at another."""
    if width == 4:
        singles = u32_at(source, n).view(np.float32)
        doubles = i64_at(target, n).view(np.float64)
        for i in range(n):
            doubles[i] = singles[i]
    elif target_width == 8:
        halves = u16_at(source, n)
        wide = i64_at(target, n)
        for i in range(n):
            wide[i] = double_bits(np.int64(halves[i]))
    else:
        short = u16_at(source, n)
        near = i32_at(target, n)
        for i in range(n):
            near[i] = single_bits(np.int64(short[i]))
