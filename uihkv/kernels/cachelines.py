"""Columns written a cache line at a time.

What limits a large read is how fast its outputs are written. A core stores into its own cache alone: each line has to
come there first, from a cache further away or from memory, and only so many are on their way at a time. Two things help
(``python -m perf.read`` shows how near to a machine's speed they come): whole lines are stored by one instruction where
the machine has one, because then nobody waits for what the line held; and lines are asked for, to be written to, some
time before. Stores past the caches would be as fast, and leave the outputs where the one who reads them next has to
wait.

Each loop here makes a line's elements from those at a source. Its steps begin at lines' begins, but for the first and
the last, which begin and end where the output does and write some elements twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 64
"""Bytes of a cache line; of those loops that need so many elements at least, see each."""

ASKED_AHEAD = 2048
"""Bytes between what is stored and what is asked for: about what is on its way at a time."""

_WORD, _INDEX, _SINGLE = ir.IntType(64), ir.IntType(32), ir.FloatType()

Compute = Callable[[Any, Any, list[Any]], Any]


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _everywhere(builder: Any, number: Any, count: int) -> Any:
    kind = ir.VectorType(number.type, count)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, _INDEX(0))
    return builder.shuffle_vector(
        one, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_INDEX, count), [_INDEX(0)] * count)
    )


def ask_to_write(builder: Any, address: Any) -> None:
    """Emit a hint: the line at an address will be written to; no address is wrong."""
    hint = builder.module.declare_intrinsic(
        "llvm.prefetch", (cgutils.voidptr_t,), ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t] + [_INDEX] * 3)
    )
    builder.call(hint, [builder.inttoptr(address, cgutils.voidptr_t), _INDEX(1), _INDEX(3), _INDEX(1)])


def _lines_of(source_width: int, target_width: int, compute: Compute) -> Any:
    """A loop that makes ``n`` elements, a line's at least, of those at a source, by way of two numbers."""

    def loop(typing_context: Any, source: Any, target: Any, n: Any, first: Any, second: Any) -> Any:
        """Elements of a source as those of a target."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            begin, out, count, *numbers = arguments
            group = LINE // target_width
            kind = ir.VectorType(ir.IntType(8 * source_width), group)
            last = builder.sub(count, _WORD(group))
            # Elements to the next line's begin, a line's where the output begins at one.
            into_line = builder.udiv(builder.and_(out, _WORD(LINE - 1)), _WORD(target_width))
            to_line = builder.sub(_WORD(group), into_line)
            held = [_everywhere(builder, number, group) for number in numbers]
            before = builder.block
            body, done = builder.append_basic_block("line"), builder.append_basic_block("lines")
            builder.branch(body)
            builder.position_at_end(body)
            place, following = builder.phi(_WORD), builder.phi(_WORD)
            ended = builder.icmp_signed(">=", place, last)
            here = builder.select(ended, last, place)
            at = builder.add(out, builder.mul(here, _WORD(target_width)))
            loaded = builder.load(
                _at(builder, builder.add(begin, builder.mul(here, _WORD(source_width))), kind), typ=kind
            )
            loaded.align = 1
            made = compute(builder, loaded, held)
            ask_to_write(builder, builder.add(at, _WORD(ASKED_AHEAD)))
            builder.store(made, _at(builder, at, made.type)).align = 1
            place.add_incoming(_WORD(0), before)
            place.add_incoming(following, body)
            following.add_incoming(to_line, before)
            following.add_incoming(builder.add(following, _WORD(group)), body)
            builder.cbranch(ended, done, body)
            builder.position_at_end(done)
            return context.get_dummy_value()

        word = types.int64
        return types.void(word, word, word, word, word), generate

    return intrinsic(loop)


def _cast(builder: Any, numbers: Any, width: int) -> Any:
    """Unsigned numbers in another width, or their low bytes."""
    kind = ir.VectorType(ir.IntType(8 * width), numbers.type.count)
    now = numbers.type.element.width
    if now == 8 * width:
        return numbers
    return builder.zext(numbers, kind) if now < 8 * width else builder.trunc(numbers, kind)


def _adding(source_width: int, target_width: int) -> Any:
    def compute(builder: Any, loaded: Any, held: list[Any]) -> Any:
        return builder.add(_cast(builder, loaded, target_width), _cast(builder, held[0], target_width))

    return _lines_of(source_width, target_width, compute)


def _dividing(source_width: int) -> Any:
    def compute(builder: Any, loaded: Any, held: list[Any]) -> Any:
        singles = ir.VectorType(_SINGLE, loaded.type.count)
        numerators = builder.add(_cast(builder, loaded, 4), _cast(builder, held[0], 4))
        divisors = builder.sitofp(_cast(builder, held[1], 4), singles)
        return builder.fdiv(builder.sitofp(numerators, singles), divisors)

    return _lines_of(source_width, 4, compute)


_add11, _add12, _add14, _add18 = (_adding(1, width) for width in (1, 2, 4, 8))
_add21, _add22, _add24, _add28 = (_adding(2, width) for width in (1, 2, 4, 8))
_add41, _add42, _add44, _add48 = (_adding(4, width) for width in (1, 2, 4, 8))
_add81, _add82, _add84, _add88 = (_adding(8, width) for width in (1, 2, 4, 8))
_divide1, _divide2, _divide4 = (_dividing(width) for width in (1, 2, 4))


@njit(nogil=True, cache=True)
def add_lines(source: Any, width: Any, base: Any, target: Any, target_width: Any, n: Any) -> None:
    """``base + x`` of n unsigned elements, at least ``LINE`` bytes of the target.

    Args:
        source, width: address and bytes of the elements x.
        base: what is added, modulo the target's width.
        target, target_width: address and bytes of the sums.
        n: how many.

    """
    if target_width == 8:
        if width == 1:
            _add18(source, target, n, base, base)
        elif width == 2:
            _add28(source, target, n, base, base)
        elif width == 4:
            _add48(source, target, n, base, base)
        else:
            _add88(source, target, n, base, base)
    elif target_width == 4:
        if width == 1:
            _add14(source, target, n, base, base)
        elif width == 2:
            _add24(source, target, n, base, base)
        elif width == 4:
            _add44(source, target, n, base, base)
        else:
            _add84(source, target, n, base, base)
    elif target_width == 2:
        if width == 1:
            _add12(source, target, n, base, base)
        elif width == 2:
            _add22(source, target, n, base, base)
        elif width == 4:
            _add42(source, target, n, base, base)
        else:
            _add82(source, target, n, base, base)
    elif width == 1:
        _add11(source, target, n, base, base)
    elif width == 2:
        _add21(source, target, n, base, base)
    elif width == 4:
        _add41(source, target, n, base, base)
    else:
        _add81(source, target, n, base, base)


@njit(nogil=True, cache=True)
def copy_lines(source: Any, target: Any, size: Any) -> None:
    """Bytes, at least ``LINE`` of them, from one address to another that does not overlap."""
    nothing = np.int64(0)
    _add11(source, target, size, nothing, nothing)


@njit(nogil=True, cache=True)
def divide_lines(source: Any, width: Any, base: Any, divisor: Any, target: Any, n: Any) -> None:
    """``(base + x) / divisor`` as float32 of n unsigned elements of 1, 2 or 4 bytes, at least ``LINE`` bytes of these.

    The numerators, and the divisor, are int32 that float32 has.
    """
    if width == 1:
        _divide1(source, target, n, base, divisor)
    elif width == 2:
        _divide2(source, target, n, base, divisor)
    else:
        _divide4(source, target, n, base, divisor)
