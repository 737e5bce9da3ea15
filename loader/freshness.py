"""How old is what a trainer steps on, and what became of examples that came before their events?

Lags are of the newest examples only, so that a stream without an end needs bounded memory.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEWEST = 1 << 16
"""Examples whose lags count."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Seconds from some moment of an example until its batch was handed to the trainer; None: of no example.

    Attributes:
        p50, p90, p99, max: the smallest lag that this share of the newest examples does not exceed.

    """

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class Freshness:
    """One pass over a stream, until now.

    Attributes:
        request: lag since the request, by the examples' column of request moments and this machine's clock; its
            numbers are None where the examples have no such column.
        arrival: lag since the example arrived at the loader.
        waited: examples that arrived before their events were visible here.
        skipped: of these, examples that were left out.
        held: of these, examples that others were let past.

    """

    request: Lag
    arrival: Lag
    waited: int
    skipped: int
    held: int


class _Ring:
    """The newest values."""

    def __init__(self) -> None:
        self._values = np.empty(NEWEST)
        self._count = 0

    def add(self, values: Floats) -> None:
        values = values[-NEWEST:]
        at = (self._count + np.arange(len(values))) % NEWEST
        self._values[at] = values
        self._count += len(values)

    def read(self) -> Lag:
        values = np.sort(self._values[: min(self._count, NEWEST)])
        if not len(values):
            return Lag(None, None, None, None)
        p50, p90, p99 = (float(values[-(-len(values) * share // 100) - 1]) for share in (50, 90, 99))
        return Lag(p50, p90, p99, float(values[-1]))


class FreshnessMeter:
    """Counts of one pass; filled by the loader's thread and by the consumer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._request, self._arrival = _Ring(), _Ring()
        self._waited = self._skipped = self._held = 0

    def add(self, *, waited: int = 0, skipped: int = 0, held: int = 0) -> None:
        """Count examples that came too early."""
        with self._lock:
            self._waited += waited
            self._skipped += skipped
            self._held += held

    def handed_over(self, arrived_s: Floats, requested_s: Floats | None) -> None:
        """Count a batch that the consumer got.

        Args:
            arrived_s: float64[B], ``time.monotonic()``.
            requested_s: float64[B], seconds since 1970.

        """
        with self._lock:
            self._arrival.add(time.monotonic() - arrived_s)
            if requested_s is not None:
                self._request.add(time.time() - requested_s)

    def read(self) -> Freshness:
        """What was counted so far."""
        with self._lock:
            return Freshness(self._request.read(), self._arrival.read(), self._waited, self._skipped, self._held)
