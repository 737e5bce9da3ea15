"""What bounds a read, and where its time goes: the part of :mod:`perf.read` that knows how a store reads."""

from __future__ import annotations

import ctypes
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perf import rivals
from perf.harness import Samples, Settings, interleave
from perf.readcases import ALL, COMPRESSIONS, Bench, open_view, read_again
from perf.report import Cell
from uihkv import Histories, Pointers, Projection, Snapshot, snapshot
from uihkv.chunk import CODEC_LZ4, SCHEMA_AT
from uihkv.codec import Entries, Layouts, Slices
from uihkv.kernels.decode import _find_block, _stored_bytes
from uihkv.kernels.memory import i64_at, load_u16, u8_at
from uihkv.native import lz4_decompress


def measure_bandwidth() -> float:
    """Bytes a second of a large copy, those read and those written; the best of several."""
    source, target = np.ones(1 << 27, np.uint8), np.ones(1 << 27, np.uint8)
    best = min(interleave({"copy": lambda: np.copyto(target, source)}, repeats=9, warmup=2).seconds["copy"].values)
    return float(2 * len(source) / best)


class Stopwatch:
    """Time of the steps inside of a read: methods and functions of the snapshot's module, wrapped while it runs."""

    STEPS: tuple[tuple[Any, str, str], ...] = (
        (Snapshot, "_plan_at_once", "plan"), (Snapshot, "_outputs", "outputs"), (snapshot, "decode_fixed", "decode"),
        (Snapshot, "_prove", "prove"),
    )  # fmt: skip

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.decoded: tuple[Entries, Layouts, Slices] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """While inside, steps are timed."""
        kept = [(owner, name, getattr(owner, name)) for owner, name, _ in self.STEPS]
        try:
            for (owner, name, function), (_, _, step) in zip(kept, self.STEPS, strict=True):
                setattr(owner, name, self._timed(function, step))
            yield
        finally:
            for owner, name, function in kept:
                setattr(owner, name, function)

    def _timed(self, function: Callable[..., Any], step: str) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*given, **named)
            finally:
                self.seconds[step] += time.thread_time() - begin
                if step == "decode":
                    self.decoded = given[:3]

        return run


def _decompress_alone(watch: Stopwatch) -> None:
    """LZ4 on the blocks of the last read that are compressed, and nothing else."""
    assert watch.decoded is not None  # something was read
    entries, layouts, slices = watch.decoded
    room = np.empty(max(entries.scratch_bytes, 1), np.uint8)
    _decompress_blocks(
        entries.address, np.unique(slices.entry), layouts.width, layouts.elements, layouts.kind,
        layouts.first_blocks(ALL), room,
    )  # fmt: skip


@njit(nogil=True)
def _decompress_blocks(
    address: Any, entry: Any, lay_width: Any, lay_elements: Any, lay_kind: Any, want_block: Any, room: Any
) -> None:
    for i in range(len(entry)):
        chunk = address[entry[i]]
        version = load_u16(chunk + SCHEMA_AT)
        for want in range(want_block.shape[1]):
            _, encoding, width, codec, _, begin, end, items, _ = _find_block(
                chunk, want_block[version, want], lay_width, lay_elements, lay_kind
            )
            if codec == CODEC_LZ4:
                raw = np.int32(_stored_bytes(encoding, width, items))
                lz4_decompress(chunk + begin, np.int64(room.ctypes.data), np.int32(end - begin), raw)


def profile_row(bench: Bench, compression: str, bandwidth: float, settings: Settings) -> dict[str, Cell]:
    """Shares of the steps; and of a read into reused outputs, and of the same bytes at the speed of a copy."""
    pointers, _ = bench.draw("random", settings.seed)
    wanted = Projection(ALL, max_len=bench.length)
    repeats = settings.pick(11, 41)
    with open_view(bench, compression) as view:
        cost = view.read(pointers, wanted).cost
        again = read_again(view, pointers, wanted)
        watch = Stopwatch()
        with watch.running():
            begin = time.thread_time()
            for _ in range(repeats):
                view.read(pointers, wanted)
            took = time.thread_time() - begin
        compared = interleave(
            {"new": partial(view.read, pointers, wanted), "reused": again, "LZ4": partial(_decompress_alone, watch)},
            repeats=repeats, baseline="new", clock=time.thread_time,
        )  # fmt: skip
    row: dict[str, Cell] = {"events": bench.length, "compression": compression}
    for _, _, step in Stopwatch.STEPS:
        row[step] = watch.seconds[step] / took
    row["rest"] = 1 - sum(watch.seconds.values()) / took
    row["LZ4 alone"] = Samples(1 / compared.speedup("LZ4").values)
    row["reused outputs"] = Samples(1 / compared.speedup("reused").values)
    row["copy of its bytes"] = (cost.bytes_read + cost.bytes_decoded) / bandwidth / compared.seconds["new"].median
    return row


def bound_row(bench: Bench, order: str, settings: Settings) -> dict[str, Cell]:
    """Outputs that are only written; those written while what is stored of them is read; windows that share a read."""
    pointers, windows = bench.draw(order, settings.seed)
    wanted = Projection(ALL, max_len=bench.length)
    outputs = [windows.gather(name) for name in ALL]
    with open_view(bench, "none") as plain, open_view(bench, "lz4") as packed:
        ways: dict[str, Callable[[], object]] = {
            "arrays": rivals.slices_of_arrays(windows, ALL, reuse=True), "write": partial(_write, outputs)
        }  # fmt: skip
        for name, view in (("none", plain), ("lz4", packed)):
            watch = Stopwatch()
            with watch.running():
                view.read(pointers, wanted)
            ways[name] = read_again(view, pointers, wanted)
            ways[f"{name}, moved"] = partial(_read_and_write, watch, outputs)
            if order == "clustered":
                ways[f"{name}, shared"] = partial(_read_shared, view, pointers, bench.length)
                _check_shared(bench, windows, *_read_shared(view, pointers, bench.length))
        compared = interleave(ways, repeats=settings.pick(11, 41), warmup=2, clock=time.thread_time)
    row: dict[str, Cell] = {"events": bench.length, "outputs written, no more": compared.speedup("write")}
    for name in COMPRESSIONS:
        row[f"{name}: stored bytes read, outputs written, no more"] = compared.speedup(f"{name}, moved")
        row[name] = compared.speedup(name)
        if order == "clustered":
            row[f"{name}, shared windows"] = compared.speedup(f"{name}, shared")
    return row


def _write(outputs: list[NDArray[Any]]) -> None:
    for array in outputs:
        ctypes.memset(array.ctypes.data, 1, array.nbytes)


def _read_and_write(watch: Stopwatch, outputs: list[NDArray[Any]]) -> None:
    """What a read has to move, chunk by chunk: nothing is decoded, and nothing verified."""
    assert watch.decoded is not None  # something was read
    entries, layouts, slices = watch.decoded
    _move(
        entries.address, slices.entry, slices.last - slices.first, slices.out, layouts.width, layouts.elements,
        layouts.kind, layouts.first_blocks(ALL), np.array([array.ctypes.data for array in outputs]),
        np.array([array.itemsize for array in outputs]),
    )  # fmt: skip


@njit(nogil=True)
def _move(
    address: Any, entry: Any, count: Any, out: Any, lay_width: Any, lay_elements: Any, lay_kind: Any, want_block: Any,
    target: Any, width: Any,
) -> Any:  # fmt: skip
    total = 0
    for i in range(len(entry)):
        chunk = address[entry[i]]
        version = load_u16(chunk + SCHEMA_AT)
        for want in range(len(target)):
            if i == 0 or entry[i] != entry[i - 1]:
                _, _, _, _, _, begin, end, _, _ = _find_block(
                    chunk, want_block[version, want], lay_width, lay_elements, lay_kind
                )
                words = i64_at(chunk + begin, (end - begin) >> 3)
                for at in range(len(words)):
                    total += words[at]
            room = u8_at(target[want] + out[i] * width[want], count[i] * width[want])
            room[:] = 1
    return total


def _check_shared(bench: Bench, windows: rivals.Windows, found: Histories, start: NDArray[np.int64]) -> None:
    for place in (0, len(start) - 1):
        span = slice(int(start[place]), int(start[place]) + bench.length)
        if not np.array_equal(found.values("ts")[span], bench.log.ts[slice(*windows.bounds[place])]):
            raise RuntimeError(f"the window of row {place}, read with others, differs from the log")


def _read_shared(view: Snapshot, pointers: Pointers, length: int) -> tuple[Histories, NDArray[np.int64]]:
    """Each user's events once, from the first that any window has to the last, and where each window begins in them."""
    order = np.lexsort((pointers.version, pointers.user_id))
    user, version = pointers.user_id[order], pointers.version[order]
    first = np.flatnonzero(np.append(True, user[1:] != user[:-1]))
    last = np.append(first[1:], len(user)) - 1
    low = version[first] - length
    found = view.read(pointers[order[last]], Projection(ALL), since=low)
    start = np.empty(len(user), np.int64)
    start[order] = version - length - np.repeat(low - found.offsets[:-1], last - first + 1)
    return found, start
