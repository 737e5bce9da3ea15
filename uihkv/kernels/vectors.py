"""Loops that the compiler does not turn into vector instructions by itself, written as vectors.

Two of them: elements packed in bits become words, and increments become running sums. Each is a loop over whole groups
of elements in LLVM's own terms (load, shuffle, shift), from which it makes what the machine has; a group's elements
beyond the last whole group are the caller's, as is every check of bounds.

*Bits.* Eight elements of ``b`` bits fill ``b`` bytes, so that in a group of 8, 16 or 32 each element lies at the same
place in every group: one load brings all of the group's bytes, one shuffle puts before each element the few bytes that
it lies in, and one shift by each element's own distance, known when this is compiled, puts it right. There is a loop
for each ``b``.

*Sums.* Eight increments are added up in three steps (each to its neighbour, to the one after, to the fourth), not one
after the other, and the sum of what went before is added to all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from uihkv.chunk import MAX_BITS
from uihkv.kernels.cachelines import ASKED_AHEAD, ask_to_write

_BYTE, _WORD, _INDEX = ir.IntType(8), ir.IntType(64), ir.IntType(32)

SUM_GROUP = 8
"""Increments that :func:`sum_groups` takes at a time."""

MOST_AT_ONCE = 32
"""Elements of the largest group of bits: what is written may pass the last wanted one by fewer than this."""


class _Form:
    """How elements of so many bits are unpacked.

    Attributes:
        bits: of an element.
        window: bytes of the window in which any element lies.
        group: elements of a group.
        word: bytes of an element when it is unpacked.
        loaded: bytes that are read for a group, all of which must exist.

    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.window = 2 if bits <= 8 else 4 if bits <= 25 else 8
        self.group = 64 // self.window
        self.word = 1 if bits <= 8 else 4 if bits <= 32 else 8
        needed = ((self.group - 1) * bits >> 3) + self.window
        self.loaded = next(size for size in (16, 32, 64) if size >= needed)


_FORMS = [_Form(bits) for bits in range(1, MAX_BITS + 1)]
WORD_BYTES = np.array([0] + [form.word for form in _FORMS], np.int64)
GROUP_ELEMENTS = np.array([1] + [form.group for form in _FORMS], np.int64)
LOADED_BYTES = np.array([0] + [form.loaded for form in _FORMS], np.int64)
"""By bits: bytes of an unpacked element, elements of a group, and bytes that are read for one."""


def _vector(values: Any, kind: ir.IntType) -> ir.Constant:
    values = list(values)
    return ir.Constant(ir.VectorType(kind, len(values)), [ir.Constant(kind, value) for value in values])


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, address: Any, kind: Any) -> Any:
    loaded = builder.load(_at(builder, address, kind), typ=kind)
    loaded.align = 1
    return loaded


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, _at(builder, address, value.type)).align = 1


def _unpack_group(builder: Any, form: _Form, source: Any, target: Any) -> None:
    held = _load(builder, source, ir.VectorType(_BYTE, form.loaded))
    places = [(k * form.bits >> 3) + byte for k in range(form.group) for byte in range(form.window)]
    undefined = ir.Constant(held.type, ir.Undefined)
    spread = builder.shuffle_vector(held, undefined, _vector(places, _INDEX))
    element = ir.IntType(8 * form.window)
    words = builder.bitcast(spread, ir.VectorType(element, form.group))
    words = builder.lshr(words, _vector([k * form.bits & 7 for k in range(form.group)], element))
    words = builder.and_(words, _vector([(1 << form.bits) - 1] * form.group, element))
    if form.word < form.window:
        words = builder.trunc(words, ir.VectorType(ir.IntType(8 * form.word), form.group))
    _store(builder, words, target)


def _unpack_groups(typing_context: Any, source: Any, bits: Any, groups: Any, target: Any) -> Any:
    """Whole groups of elements of so many bits, into words."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin, width, count, out = arguments
        done = builder.append_basic_block("unpacked")
        choose = builder.append_basic_block("by_bits")
        builder.cbranch(builder.icmp_signed(">", count, _WORD(0)), choose, done)
        builder.position_at_end(choose)
        choice = builder.switch(width, done)
        for form in _FORMS:
            loop = builder.append_basic_block(f"bits{form.bits}")
            choice.add_case(_WORD(form.bits), loop)
            builder.position_at_end(loop)
            index = builder.phi(_WORD)
            at = builder.add(begin, builder.mul(index, _WORD(form.group * form.bits >> 3)))
            _unpack_group(builder, form, at, builder.add(out, builder.mul(index, _WORD(form.group * form.word))))
            following = builder.add(index, _WORD(1))
            index.add_incoming(_WORD(0), choose)
            index.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


_unpack_all: Any = intrinsic(_unpack_groups)


@njit(nogil=True, cache=True, inline="always")
def unpack_groups(source: Any, bits: Any, groups: Any, target: Any) -> None:
    """Unpack whole groups of elements of 1 to ``MAX_BITS`` bits.

    Args:
        source: address of the first group.
        bits: of an element.
        groups: how many; of the last one ``LOADED_BYTES[bits]`` bytes are read.
        target: address of ``GROUP_ELEMENTS[bits]`` unsigned words of ``WORD_BYTES[bits]`` bytes a group.

    """
    _unpack_all(source, bits, groups, target)


def _summing(width: int, scaled: bool) -> Any:
    """A loop over increments of ``width`` bytes, which are multiplied first or not."""

    def sums(
        typing_context: Any, source: Any, groups: Any, value: Any, scale: Any, stride: Any, target: Any
    ) -> Any:  # fmt: skip
        """Running sums of groups of increments; the last one."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            begin, count, first, factor, step, out = arguments
            eight = ir.VectorType(_WORD, SUM_GROUP)

            def everywhere(number: Any) -> Any:
                one = builder.insert_element(ir.Constant(eight, ir.Undefined), number, _INDEX(0))
                return builder.shuffle_vector(
                    one, ir.Constant(eight, ir.Undefined), _vector([0] * SUM_GROUP, _INDEX)
                )  # fmt: skip

            carried, factors, steps = everywhere(first), everywhere(factor), everywhere(step)
            before = builder.block
            loop, done = builder.append_basic_block("sum"), builder.append_basic_block("summed")
            builder.cbranch(builder.icmp_signed(">", count, _WORD(0)), loop, done)
            builder.position_at_end(loop)
            index, carry = builder.phi(_WORD), builder.phi(eight)
            at = builder.add(begin, builder.mul(index, _WORD(SUM_GROUP * width)))
            sums = _load(builder, at, ir.VectorType(ir.IntType(8 * width), SUM_GROUP))
            if width < 8:
                sums = builder.zext(sums, eight)
            if scaled:
                sums = builder.mul(sums, factors)
            sums = builder.add(sums, steps)
            nothing = _vector([0] * SUM_GROUP, _WORD)
            for distance in (1, 2, 4):
                moved = [SUM_GROUP] * distance + list(range(SUM_GROUP - distance))
                sums = builder.add(sums, builder.shuffle_vector(sums, nothing, _vector(moved, _INDEX)))
            sums = builder.add(sums, carry)
            to = builder.add(out, builder.mul(index, _WORD(8 * SUM_GROUP)))
            ask_to_write(builder, builder.add(to, _WORD(ASKED_AHEAD)))
            _store(builder, sums, to)
            last = builder.shuffle_vector(sums, nothing, _vector([SUM_GROUP - 1] * SUM_GROUP, _INDEX))
            following = builder.add(index, _WORD(1))
            index.add_incoming(_WORD(0), before)
            index.add_incoming(following, loop)
            carry.add_incoming(carried, before)
            carry.add_incoming(last, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
            builder.position_at_end(done)
            ended = builder.phi(eight)
            ended.add_incoming(carried, before)
            ended.add_incoming(last, loop)
            return builder.extract_element(ended, _INDEX(0))

        word = types.int64
        return word(word, word, word, word, word, word), generate

    return intrinsic(sums)


_sum8, _sum16, _sum32, _sum64 = (_summing(width, False) for width in (1, 2, 4, 8))
_scaled8, _scaled16, _scaled32, _scaled64 = (_summing(width, True) for width in (1, 2, 4, 8))


@njit(nogil=True, cache=True)
def sum_groups(source: Any, width: Any, groups: Any, value: Any, scale: Any, stride: Any, target: Any) -> Any:
    """Running sums of ``stride + scale * x`` from a value on, for whole groups of ``SUM_GROUP`` increments x.

    Args:
        source: address of unsigned increments of ``width`` bytes.
        groups: how many.
        value: what stands before the first sum.
        scale, stride: of each increment.
        target: address of int64, a sum for each increment.

    Returns:
        the last sum.

    """
    if scale == 1:
        if width == 1:
            return _sum8(source, groups, value, scale, stride, target)
        if width == 2:
            return _sum16(source, groups, value, scale, stride, target)
        if width == 4:
            return _sum32(source, groups, value, scale, stride, target)
        return _sum64(source, groups, value, scale, stride, target)
    if width == 1:
        return _scaled8(source, groups, value, scale, stride, target)
    if width == 2:
        return _scaled16(source, groups, value, scale, stride, target)
    if width == 4:
        return _scaled32(source, groups, value, scale, stride, target)
    return _scaled64(source, groups, value, scale, stride, target)
