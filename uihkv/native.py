"""LZ4 and xxh3, made callable from compiled kernels.

The kernels call C functions by name. The python-lz4 and xxhash packages carry those functions in their extension
modules; this module finds their addresses and tells LLVM about them under names of our own, so that nothing
depends on what else the process has loaded. Where a wheel hides its symbols, a callback into the Python package
takes the function's place: the same format, only slower, and it warns once.

Import this module before any kernel that is compiled or loaded from numba's cache.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import lz4.block
import xxhash
from numba import types

_INT = ctypes.c_int
_POINTER = ctypes.c_void_p
_SIZE = ctypes.c_size_t
_HASH = ctypes.c_uint64

CALLBACKS_VARIABLE = "UIHKV_NATIVE"
"""Set to ``callback`` in the environment to take the slow way on purpose (used by the tests)."""


def _decompress(source: int, target: int, size: int, capacity: int) -> int:
    try:
        data = lz4.block.decompress(ctypes.string_at(source, size), uncompressed_size=capacity)
    except (lz4.block.LZ4BlockError, ValueError, MemoryError):
        return -1
    ctypes.memmove(target, data, len(data))
    return len(data)


def _decompress_part(source: int, target: int, size: int, wanted: int, capacity: int) -> int:
    try:
        data = lz4.block.decompress(ctypes.string_at(source, size), uncompressed_size=capacity)
    except (lz4.block.LZ4BlockError, ValueError, MemoryError):
        return -1
    ctypes.memmove(target, data, min(wanted, len(data)))
    return min(wanted, len(data))


def _compress(source: int, target: int, size: int, capacity: int) -> int:
    data = lz4.block.compress(ctypes.string_at(source, size), store_size=False)
    if len(data) > capacity:
        return 0
    ctypes.memmove(target, data, len(data))
    return len(data)


def _hash(source: int, size: int, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(ctypes.string_at(source, size), seed)


_keep_alive: list[Any] = []
"""Libraries and callbacks whose addresses LLVM holds: they must live as long as the process."""


def _register(name: str, module: Any, symbol: str, prototype: Any, callback: Callable[..., int]) -> bool:
    """Tell LLVM where ``name`` is; True when it is the C function itself."""
    function: Any = None
    if os.environ.get(CALLBACKS_VARIABLE) != "callback":
        try:
            library = ctypes.CDLL(module.__file__)
            function = getattr(library, symbol)
            _keep_alive.append(library)
        except (AttributeError, OSError):
            function = None
    found = function is not None
    if function is None:
        function = prototype(callback)
    _keep_alive.append(function)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None  # a function that exists has an address
    llvm.add_symbol(name, address)
    return found


def _extension_modules() -> tuple[Any, Any]:
    import lz4.block._block as lz4_extension
    import xxhash._xxhash as xxhash_extension

    return lz4_extension, xxhash_extension


def _register_all() -> bool:
    lz4_extension, xxhash_extension = _extension_modules()
    buffers = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT, _INT)
    parts = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT, _INT, _INT)
    hashes = ctypes.CFUNCTYPE(_HASH, _POINTER, _SIZE, _HASH)
    found = [
        _register("uihkv_lz4_decompress", lz4_extension, "LZ4_decompress_safe", buffers, _decompress),
        _register("uihkv_lz4_decompress_part", lz4_extension, "LZ4_decompress_safe_partial", parts, _decompress_part),
        _register("uihkv_lz4_compress", lz4_extension, "LZ4_compress_default", buffers, _compress),
        _register("uihkv_xxh3", xxhash_extension, "XXH3_64bits_withSeed", hashes, _hash),
    ]
    return all(found)


def _register_paging() -> None:
    """``madvise`` and ``mincore``, where the system has them; elsewhere nothing happens, which is no error."""
    for name, symbol, last in (("uihkv_advise", "madvise", _INT), ("uihkv_residence", "mincore", _POINTER)):
        prototype = ctypes.CFUNCTYPE(_INT, _POINTER, _SIZE, last)
        try:
            function: Any = getattr(ctypes.CDLL(None), symbol)
        except (AttributeError, OSError, TypeError):
            function = prototype(lambda address, size, other: -1)
        _keep_alive.append(function)
        llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)


_register_paging()
NATIVE = _register_all()
"""Whether the kernels call the C functions themselves."""

if not NATIVE:
    warnings.warn(
        "the installed lz4 or xxhash package hides its C functions; reads and writes are correct but slower "
        "(install the packages' own wheels to get full speed)",
        RuntimeWarning,
        stacklevel=2,
    )

lz4_decompress: Any = types.ExternalFunction(
    "uihkv_lz4_decompress", types.int32(types.intp, types.intp, types.int32, types.int32)
)
"""``(source, target, size, capacity)`` → bytes written, negative for bad input. Addresses as integers."""

lz4_decompress_part: Any = types.ExternalFunction(
    "uihkv_lz4_decompress_part", types.int32(types.intp, types.intp, types.int32, types.int32, types.int32)
)
"""``(source, target, size, wanted, capacity)`` → bytes written: the first ``wanted`` of a block of ``capacity``."""

lz4_compress: Any = types.ExternalFunction(
    "uihkv_lz4_compress", types.int32(types.intp, types.intp, types.int32, types.int32)
)
"""``(source, target, size, capacity)`` → bytes written, 0 when they do not fit in ``capacity``."""

xxh3: Any = types.ExternalFunction("uihkv_xxh3", types.uint64(types.intp, types.uintp, types.uint64))
"""``(source, size, seed)`` → xxh3 hash of 64 bits."""

advise: Any = types.ExternalFunction("uihkv_advise", types.int32(types.intp, types.uintp, types.int32))
"""``madvise(address, size, advice)`` → 0, or -1 where the system refuses."""

residence: Any = types.ExternalFunction("uihkv_residence", types.int32(types.intp, types.uintp, types.intp))
"""``mincore(address, size, target)`` → 0 and a byte a page, bit 0 of which says that it is in memory; or -1."""
