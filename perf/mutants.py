"""Chunks with damage of every kind, and what the decoder makes of them: the process that :mod:`perf.fuzz` watches.

Each case takes a chunk of a small corpus (every encoding, with and without LZ4, lists, zones, short and long), changes
it (bits flipped, fields set to extremes, parts cut off, or taken from another chunk), and in most cases makes its
checksums right again, so that the checks behind them are reached. Then all columns of a window are decoded.

- The chunk's bytes, every output and every scratch array end where memory ends: the page behind them may not be
  touched, and touching it kills the process. Before each output stand bytes that must not change.
- Where checksums were left as they were and are verified, the outcome must be an error or the sequence as written.

The number of each case is written down before it runs; one seed and number make the same case again.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from uihkv import Column, Schema, UihkvError, codec
from uihkv.chunk import (
    BLOCKS_AT,
    DESCRIPTOR_BYTES,
    FORM_AT,
    FORM_SHORT,
    FORM_ZONES,
    HEADER_BYTES,
    SHORT_HEADER_BYTES,
    ZONE_BYTES,
)
from uihkv.codec import Entries, Layouts, Slices, decode_fixed, decode_list_elements, decode_list_lengths
from uihkv.coded import read_coded
from uihkv.events import Events
from uihkv.evolution import with_column, with_wider_column, without_column
from uihkv.kernels import decode as kernels
from uihkv.readcolumns import column_type

USER = -7
START = 40
MOST_EVENTS = 2048
"""A lying count of a tail can promise four milliards of constant events; a window is never longer than this."""

_GUARD = 0xA5
_GUARD_BYTES = 64
_EXTREMES = (0, 1, 2, 3, 4, 5, 7, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1,
             2**63, 2**64 - 1)  # fmt: skip

FIXED = Schema(
    [
        Column("a", "int64"), Column("b", "uint8"), Column("c", "int16"), Column("f", "float32"),
        Column("d", "float64"), Column("flag", "bool"), Column("vec", "float16", shape=(4,)), Column("same", "int64"),
    ]
)  # fmt: skip
TEXTS = Schema([Column("a", "int32"), Column("name", "string"), Column("raw", "bytes")])
LISTS = Schema([Column("a", "int32"), Column("tags", "int16", ragged=True), Column("far", "int64", ragged=True)])


@dataclass(frozen=True, slots=True)
class Sample:
    """A sound chunk: the schemas of the store it is of, its bytes, and how many events it has."""

    schemas: tuple[Schema, ...]
    data: bytes
    events: int


def make_corpus(seed: int) -> list[Sample]:
    """Chunks of every kind."""
    rng = np.random.default_rng(seed)
    history = [FIXED]
    history.append(with_wider_column(history, "c", "int64"))
    history.append(without_column(history, "b"))
    history.append(with_wider_column(history, "f", "float64"))
    history.append(with_column(history, Column("more", "int32", default=3)))
    corpus = []
    for schema in (FIXED, LISTS, TEXTS):
        newer = tuple(history[1:]) if schema is FIXED else ()
        for count in (1, 3, 40, 300, 1024):
            for even in (True, False):
                events = _draw_events(schema, count, even, rng)
                corpus += [Sample((schema,), _encode(schema, events, compress), count) for compress in (True, False)]
                if even and count == 300:
                    corpus.append(Sample((schema, *newer), _encode(schema, events, True), count))
    return corpus


def _draw_events(schema: Schema, n: int, even: bool, rng: np.random.Generator) -> Events:
    """Few values and steady clocks, which encode well, or anything."""
    ts = 10**12 + np.cumsum(rng.integers(0, 3 if even else 10**7, n)) * (1000 if even else 1)
    columns: dict[str, NDArray[Any]] = {}
    lists: dict[str, NDArray[np.int64]] = {}
    for column in schema.columns:
        count = n
        if column.coded:
            values = [b"value %d" % number for number in rng.integers(0, 5 if even else n, n)]
            lists[column.name] = np.append(0, np.cumsum([len(value) for value in values]))
            columns[column.name] = np.frombuffer(b"".join(values), np.uint8).copy()
            continue
        if column.ragged:
            lists[column.name] = np.append(0, np.cumsum(rng.integers(0, 4, n)))
            count = int(lists[column.name][-1])
        shape, dtype = (count, *column.shape), column.numpy_dtype
        if dtype.kind == "f":
            columns[column.name] = (rng.integers(0, 5, shape) if even else rng.random(shape)).astype(dtype)
        elif dtype.kind == "b":
            columns[column.name] = rng.random(shape) < 0.2
        else:
            high = 6 if even else min(np.iinfo(dtype).max, 10**12)
            columns[column.name] = rng.integers(0, high, shape).astype(dtype)
    if "same" in columns:
        columns["same"] = columns["a"].copy()
    return Events(np.full(n, USER), ts, ts + 1, columns, lists)


def _encode(schema: Schema, events: Events, compress: bool) -> bytes:
    one = np.ones(1, np.int64)
    chunks = codec.encode(
        Layouts([schema]), events, 0 * one, len(events) * one, START * one, USER * one, 0 * one, len(events), compress
    )
    return chunks.buffer.tobytes()


# -- damage ---------------------------------------------------------------------------------------------


def damage(sample: Sample, corpus: Sequence[Sample], rng: np.random.Generator) -> bytes:
    """The bytes of a chunk after one to four changes."""
    data = bytearray(sample.data)
    for _ in range(int(rng.integers(1, 5))):
        change = _CHANGES[int(rng.integers(len(_CHANGES)))]
        data = change(data, corpus, rng)
    return bytes(data)


def _flip_bit(data: bytearray, corpus: Sequence[Sample], rng: np.random.Generator) -> bytearray:
    if data:
        at = int(rng.integers(8 * len(data)))
        data[at // 8] ^= 1 << (at % 8)
    return data


def _set_field(data: bytearray, corpus: Sequence[Sample], rng: np.random.Generator) -> bytearray:
    """A word of the header or a descriptor gets an extreme value, or one near to what it had."""
    width = int(rng.choice([1, 1, 2, 4, 8]))
    blocks = _blocks_of(data)
    head = min(len(data), max(40, HEADER_BYTES + DESCRIPTOR_BYTES * min(blocks, 64)))
    at = width * int(rng.integers(1, max(2, head // width)))
    if at + width <= len(data):
        old = int.from_bytes(data[at : at + width], "little")
        value = old + int(rng.integers(-2, 3)) if rng.random() < 0.4 else _EXTREMES[int(rng.integers(len(_EXTREMES)))]
        data[at : at + width] = (value % 256**width).to_bytes(width, "little")
    return data


def _set_descriptor(data: bytearray, corpus: Sequence[Sample], rng: np.random.Generator) -> bytearray:
    """A block gets another encoding, width, codec or scale."""
    blocks = _blocks_of(data)
    if blocks:
        at = HEADER_BYTES + DESCRIPTOR_BYTES * int(rng.integers(blocks)) + int(rng.integers(4))
        if at < len(data):
            data[at] = int(rng.choice([0, 1, 2, 3, 4, 5, 8, 20, 65, 75, 120]))
    return data


def _cut(data: bytearray, corpus: Sequence[Sample], rng: np.random.Generator) -> bytearray:
    return data[: int(rng.integers(len(data) + 1))]


def _grow(data: bytearray, corpus: Sequence[Sample], rng: np.random.Generator) -> bytearray:
    return data + rng.integers(0, 256, int(rng.integers(1, 40)), np.uint8).tobytes()


def _splice(data: bytearray, corpus: Sequence[Sample], rng: np.random.Generator) -> bytearray:
    """A part is replaced by a part of another chunk, as long or not."""
    other = corpus[int(rng.integers(len(corpus)))].data
    size = int(rng.integers(1, 1 + min(len(other), 400)))
    source = int(rng.integers(len(other) - size + 1))
    at = int(rng.integers(len(data) + 1))
    gone = size if rng.random() < 0.8 else int(rng.integers(400))
    return data[:at] + other[source : source + size] + data[at + gone :]


def _swap_descriptors(data: bytearray, corpus: Sequence[Sample], rng: np.random.Generator) -> bytearray:
    blocks = _blocks_of(data)
    if blocks > 1:
        a, b = (HEADER_BYTES + DESCRIPTOR_BYTES * int(rng.integers(blocks)) for _ in range(2))
        if max(a, b) + DESCRIPTOR_BYTES <= len(data):
            first, second = data[a : a + DESCRIPTOR_BYTES], data[b : b + DESCRIPTOR_BYTES]
            data[a : a + DESCRIPTOR_BYTES], data[b : b + DESCRIPTOR_BYTES] = second, first
    return data


_CHANGES: tuple[Callable[[bytearray, Sequence[Sample], np.random.Generator], bytearray], ...] = (
    _flip_bit, _flip_bit, _set_field, _set_field, _set_field, _set_descriptor, _cut, _grow, _splice, _swap_descriptors,
)  # fmt: skip


def sign(data: bytes, settle: bool = False) -> bytes:
    """Make all checksums right, as far as the header can be followed; ``settle``: and the last block end at the end."""
    if len(data) < SHORT_HEADER_BYTES:
        return data
    chunk = bytearray(data)
    form, blocks, seed = chunk[FORM_AT], _blocks_of(chunk), USER % 2**64
    head = HEADER_BYTES + blocks * (DESCRIPTOR_BYTES + (ZONE_BYTES if form == FORM_ZONES else 0))
    if blocks and head <= len(chunk):
        if settle:
            struct.pack_into("<I", chunk, HEADER_BYTES + (blocks - 1) * DESCRIPTOR_BYTES + 4, len(chunk))
        begin = head
        for at in range(HEADER_BYTES, HEADER_BYTES + blocks * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES):
            end = struct.unpack_from("<I", chunk, at + 4)[0]
            found = xxhash.xxh3_64_intdigest(bytes(chunk[begin:end]), seed) if begin <= end else 0
            struct.pack_into("<I", chunk, at + 12, found & 0xFFFFFFFF)
            begin = end
    covered = len(chunk) if form == FORM_SHORT else min(head, len(chunk))
    struct.pack_into("<I", chunk, 0, xxhash.xxh3_64_intdigest(bytes(chunk[4:covered]), seed) & 0xFFFFFFFF)
    return bytes(chunk)


def _blocks_of(data: bytes | bytearray) -> int:
    """Blocks that a long chunk says it has; 0 for a short one, which has no descriptors."""
    if len(data) < HEADER_BYTES or data[FORM_AT] == FORM_SHORT:
        return 0
    return int(struct.unpack_from("<H", data, BLOCKS_AT)[0])


# -- guarded memory -------------------------------------------------------------------------------------


class Guarded:
    """Memory whose end is the end of what may be touched."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        self._room = -(-size // page) * page
        self._map = mmap.mmap(-1, self._room + page)
        self._bytes = np.frombuffer(self._map, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        address = self._bytes.ctypes.data + self._room
        if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def take(self, size: int) -> NDArray[np.uint8]:
        """The last bytes, guard bytes before them."""
        if size + _GUARD_BYTES > self._room:
            raise MemoryError(f"{size} bytes asked for, {self._room} are guarded")
        begin = self._room - size
        self._bytes[begin - _GUARD_BYTES : begin] = _GUARD
        return self._bytes[begin : self._room]

    def check(self, size: int) -> None:
        """Fail when the bytes before the last ``size`` were changed."""
        begin = self._room - size
        if (self._bytes[begin - _GUARD_BYTES : begin] != _GUARD).any():
            raise AssertionError("an output was written before its begin")


class Decoder:
    """Opens and decodes one damaged chunk after another, everything in guarded memory."""

    def __init__(self) -> None:
        self._source = Guarded(1 << 16)
        self._output = Guarded(1 << 20)
        self._scratch = Guarded(1 << 24)

    def contents(
        self, sample: Sample, layouts: Layouts, data: bytes, verify: int, as_tail: bool, window: tuple[float, float]
    ) -> list[bytes]:
        """The bytes of every column in a window, given as fractions of the chunk; raises what the codec raises."""
        source = self._source.take(len(data))
        source[:] = np.frombuffer(data, np.uint8)
        one, nothing = np.ones(1, np.int64), np.empty(0, np.int64)
        chunks = (nothing, nothing, nothing) if as_tail else (USER * one, START * one, (START + sample.events) * one)
        entries = Entries(3, chunks, USER * one if as_tail else nothing)
        entries.address[0] = source.ctypes.data
        entries.size[0] = len(data)
        entries.open(0 * one, layouts, verify)
        count = int(entries.end[0] - entries.start[0])
        first, last = sorted(round(part * count) for part in window)
        first = max(first, last - MOST_EVENTS)
        slices = Slices(0 * one, first * one, last * one, 0 * one)
        with self._guarded_scratch():
            return [
                part
                for name in layouts.schema.readable
                for part in self._column(entries, layouts, slices, name, last - first, verify)
            ]

    def _column(
        self, entries: Entries, layouts: Layouts, slices: Slices, name: str, n: int, verify: int
    ) -> Iterator[bytes]:
        dtype, shape = column_type(layouts.schema, name)
        if name in layouts.schema and layouts.schema[name].coded:
            yield from (part.tobytes() for part in read_coded(entries, layouts, slices, name, n, verify)[::-1])
            return
        if not layouts.is_ragged(name):
            size = n * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            out = self._output.take(size).view(dtype).reshape(n, *shape)
            decode_fixed(entries, layouts, slices, {name: out}, verify)
            self._output.check(size)
            yield out.tobytes()
            return
        lengths = self._output.take(8 * n).view(np.int64)
        decode_list_lengths(entries, layouts, slices, name, lengths, verify)
        self._output.check(8 * n)
        offsets = np.append(0, np.cumsum(lengths))
        yield offsets.tobytes()
        size = int(offsets[-1]) * dtype.itemsize
        if size > 1 << 19:  # constant elements, as many as a lying header wants
            yield b"many"
            return
        values = self._output.take(size).view(dtype)
        decode_list_elements(entries, layouts, slices, name, offsets, values, verify)
        self._output.check(size)
        yield values.tobytes()

    @contextmanager
    def _guarded_scratch(self) -> Iterator[None]:
        """Let the kernels write what they decompress into guarded memory."""
        kept = {name: getattr(kernels, name) for name in ("read_blocks", "read_lists")}

        def guard(kernel: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any) -> Any:
                scratches = [
                    i for i, given in enumerate(arguments) if isinstance(given, np.ndarray) and given.dtype == np.uint8
                ]
                given = list(arguments)
                for i in scratches:
                    given[i] = self._scratch.take(len(arguments[i]))
                result = kernel(*given)
                for i in scratches:
                    self._scratch.check(len(arguments[i]))
                return result

            return run

        try:
            for name, kernel in kept.items():
                setattr(kernels, name, guard(kernel))
            yield
        finally:
            for name, kernel in kept.items():
                setattr(kernels, name, kernel)


# -- cases ----------------------------------------------------------------------------------------------


class Cases:
    """The cases of a seed, by number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._corpus = make_corpus(0)
        self._layouts = [Layouts(sample.schemas) for sample in self._corpus]
        self._decoder = Decoder()

    def run(self, number: int) -> str:
        """Do one case; what came of it, in words."""
        rng = np.random.default_rng([self._seed, number])
        which = int(rng.integers(len(self._corpus)))
        sample, layouts = self._corpus[which], self._layouts[which]
        data = damage(sample, self._corpus, rng)
        signed = bool(rng.random() < 0.75)
        data = sign(data, settle=bool(rng.random() < 0.5)) if signed else data
        verify = int(rng.integers(3))
        as_tail = bool(rng.random() < 0.3)
        window = (0.0, 1.0) if rng.random() < 0.5 else (float(rng.random()), float(rng.random()))
        try:
            found = self._decoder.contents(sample, layouts, data, verify, as_tail, window)
        except UihkvError as error:
            what = str(error).rsplit(": ", 1)[-1].split(";")[0]
            return f"refused: {what}"
        expected = self._decoder.contents(sample, layouts, sample.data, 1, as_tail, window)
        if found == expected:
            return "read: as written"
        if not signed and verify:
            raise AssertionError("a damaged chunk was read as another sequence although it was verified")
        return "read: other values, checksums made right" if signed else "read: other values, checksums not verified"


def main() -> int:
    """Run cases ``[first, first + count)`` of a seed; the number of each into a file, counts by outcome to stdout."""
    parser = argparse.ArgumentParser(prog="python -m perf.mutants", description="Decode damaged chunks.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--progress", type=Path, help="file that gets the number of the case under way")
    given = parser.parse_args()
    cases = Cases(given.seed)
    counts: Counter[str] = Counter()
    with (given.progress or Path("/dev/null")).open("wb", buffering=0) as file:
        for number in range(given.first, given.first + given.count):
            if given.progress:
                file.seek(0)
                file.write(struct.pack("<q", number))
            try:
                counts[cases.run(number)] += 1
            except UihkvError:
                raise
            except Exception as error:
                print(f"case {number} of seed {given.seed}: {type(error).__name__}: {error}", file=sys.stderr)
                return 1
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
