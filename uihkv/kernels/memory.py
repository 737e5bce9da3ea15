"""Reading and writing memory at an address, from inside a kernel.

Addresses are int64. Single words are loaded and stored without any demand on alignment; ``bytes_at`` and its
kin give an array over ``n`` elements at an address, which the compiler can vectorise. None of them checks
anything: bounds are the caller's duty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic


def _loader(word: types.Type, bits: Any) -> Any:
    @intrinsic
    def load(typing_context: Any, address: Any) -> Any:
        """Word at an address, unaligned."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            loaded = builder.load(pointer, typ=ir.IntType(bits))
            loaded.align = 1
            return loaded if bits == 64 else builder.zext(loaded, ir.IntType(64))

        return word(types.int64), generate

    return load


def _storer(bits: Any) -> Any:
    @intrinsic
    def store(typing_context: Any, address: Any, value: Any) -> Any:
        """Low bits of a word to an address, unaligned."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            narrow = arguments[1] if bits == 64 else builder.trunc(arguments[1], ir.IntType(bits))
            stored = builder.store(narrow, pointer)
            stored.align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return store


def _ask_for_line(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address; no address is wrong."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], cgutils.voidptr_t)
        word = ir.IntType(32)
        hint = builder.module.declare_intrinsic(
            "llvm.prefetch", (cgutils.voidptr_t,), ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        )
        builder.call(hint, [pointer, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


prefetch: Any = intrinsic(_ask_for_line)


load_u8 = _loader(types.int64, 8)
load_u16 = _loader(types.int64, 16)
load_u32 = _loader(types.int64, 32)
load_i64 = _loader(types.int64, 64)
store_u8 = _storer(8)
store_u16 = _storer(16)
store_u32 = _storer(32)
store_i64 = _storer(64)


def stack_room(size: int) -> Any:
    """A function that gives the address of ``size`` bytes which last as long as the kernel that calls it.

    Not for loops: all calls of a kernel get the same bytes. An array of its own would be given back to the system after
    the last use of its name, which need not be the last use of its address.
    """

    def find_room(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            with builder.goto_entry_block():  # numba's own way would fill it with zeros at every call
                room = builder.alloca(ir.ArrayType(ir.IntType(8), size))
            room.align = 64
            return builder.ptrtoint(room, ir.IntType(64))

        return types.int64(), generate

    return intrinsic(find_room)


def _address_to_pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


_pointer: Any = intrinsic(_address_to_pointer)


@njit(nogil=True, cache=True, inline="always")
def u8_at(address: Any, n: Any) -> Any:
    """uint8[n] at an address."""
    return carray(_pointer(address), (n,), np.uint8)


@njit(nogil=True, cache=True, inline="always")
def u16_at(address: Any, n: Any) -> Any:
    """uint16[n] at an address."""
    return carray(_pointer(address), (n,), np.uint16)


@njit(nogil=True, cache=True, inline="always")
def u32_at(address: Any, n: Any) -> Any:
    """uint32[n] at an address."""
    return carray(_pointer(address), (n,), np.uint32)


@njit(nogil=True, cache=True, inline="always")
def i64_at(address: Any, n: Any) -> Any:
    """int64[n] at an address."""
    return carray(_pointer(address), (n,), np.int64)


@njit(nogil=True, cache=True, inline="always")
def i8_at(address: Any, n: Any) -> Any:
    """int8[n] at an address."""
    return carray(_pointer(address), (n,), np.int8)


@njit(nogil=True, cache=True, inline="always")
def i16_at(address: Any, n: Any) -> Any:
    """int16[n] at an address."""
    return carray(_pointer(address), (n,), np.int16)


@njit(nogil=True, cache=True, inline="always")
def i32_at(address: Any, n: Any) -> Any:
    """int32[n] at an address."""
    return carray(_pointer(address), (n,), np.int32)


@njit(nogil=True, cache=True, inline="always")
def copy_bytes(source: Any, target: Any, n: Any) -> None:
    """N bytes from one address to another that does not overlap."""
    from_bytes = u8_at(source, n)
    to_bytes = u8_at(target, n)
    for i in range(n):
        to_bytes[i] = from_bytes[i]
