"""One thread and two: of :mod:`perf.read`, and of the machine that it runs on."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from perf import rivals
from perf.harness import Samples, Settings, interleave
from perf.readcases import ALL, COMPRESSIONS, Bench, open_view
from perf.report import Cell
from uihkv import Projection


def compare_threads(bench: Bench, order: str, settings: Settings) -> list[dict[str, Cell]]:
    pointers, windows = bench.draw(order, settings.seed)
    wanted = Projection(ALL, max_len=bench.length)
    rows: list[dict[str, Cell]] = []
    for name in COMPRESSIONS:
        with open_view(bench, name) as one, open_view(bench, name, threads=2) as two:
            ways: dict[str, Callable[[], object]] = {
                "arrays": rivals.slices_of_arrays(windows, ALL, reuse=False),
                "one": partial(one.read, pointers, wanted), "two": partial(two.read, pointers, wanted),
            }  # fmt: skip
            compared = interleave(ways, repeats=settings.pick(11, 61), warmup=2)
        rows.append(
            {
                "order": order, "events": bench.length, "compression": name,
                "one thread": compared.speedup("one"), "two threads": compared.speedup("two"),
                "two over one": compared.speedup("two", "one"),
            }
        )  # fmt: skip
    return rows


def two_over_one(settings: Settings) -> dict[str, Cell]:
    """How much more two threads do than one, where neither waits for the other."""
    source, target = np.ones((2, 2, 1 << 24), np.uint8)

    def copy(part: int) -> None:
        ctypes.memmove(target[part].ctypes.data, source[part].ctypes.data, target[part].nbytes)

    def write(part: int) -> None:
        ctypes.memset(target[part].ctypes.data, 1, target[part].nbytes)

    def count(part: int) -> None:
        _spin(4_000_000)

    with ThreadPoolExecutor(1) as other:

        def at_once(work: Callable[[int], None]) -> None:
            waited_for = other.submit(work, 1)
            work(0)
            waited_for.result()

        row: dict[str, Cell] = {}
        for name, work in (("a copy of 16 MiB", copy), ("writing 16 MiB", write), ("arithmetic alone", count)):
            compared = interleave(
                {"one": partial(work, 0), "two": partial(at_once, work)}, repeats=settings.pick(21, 61), warmup=3
            )
            row[name] = Samples(2 * compared.speedup("two").values)
    return row


@njit(nogil=True)
def _spin(steps: Any) -> Any:
    state = np.uint64(1)
    for _ in range(steps):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
    return state
