"""Notes of the comparison name every way that is better than the store, and none that is not."""

from __future__ import annotations

import numpy as np

from perf.access import STORE
from perf.cases import BY_USER, RANDOM
from perf.harness import Samples
from perf.report import Cell
from perf.throughput import _notes


def _row(way: str, time: float, cpu: float, peak: float, stored: float) -> dict[str, Cell]:
    def several(value: float) -> Samples:
        return Samples(np.array([value, value, value]))

    return {
        "events": 256, "way": way, "examples/s": several(100 / time), "x time": several(time),
        "cpu s a M examples": several(cpu), "x cpu": several(cpu), "MB peak": peak, "MB stored": stored,
    }  # fmt: skip


def test_what_is_better_is_named() -> None:
    rows = [
        _row(STORE, 1, 1, 100, 20), _row("quick", 0.5, 2, 200, 40), _row("small", 3, 3, 100, 10),
        _row("as good", 0.97, 0.97, 99, 20), _row("store, none", 0.5, 0.5, 50, 30),
    ]  # fmt: skip
    said = _notes({RANDOM: rows, BY_USER: rows[:1]})
    assert said == [
        f"faster than the store with LZ4, {RANDOM}, 256 events: quick (0.50)",
        f"smaller on disk than the store with LZ4, {RANDOM}, 256 events: small (0.50)",
    ]
