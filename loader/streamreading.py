"""How batches of a stream are read: by a snapshot that is as fresh as they need, in the form that is asked for.

Rows with inline tails are read in the loader's own process, whatever the number of workers: a tail is no larger than
what a worker would send back, and each example has one of its own. In the deduplicated form they share nothing: each
example's events are a span of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loader.reading import LocalReader, OnTrimmed, Reading, Request, SpanColumn
from loader.workers.following import FollowingWorkers
from uihkv import Projection
from uihkv.serving import FreshSnapshots


@dataclass(frozen=True, slots=True)
class StreamReader:
    """Reads one batch; see :class:`loader.reading.Reader`.

    Attributes:
        snapshots: of the loader's process; the current one has what admission saw.
        tenants: a projection each.
        dedup: give the deduplicated form.
        on_trimmed: what becomes of an example whose events are trimmed.
        workers: read instead of this process; None: there are none.
        needs_s: moment of the snapshot by which the batch was let in.

    """

    snapshots: FreshSnapshots
    tenants: Mapping[str, Projection]
    dedup: bool
    on_trimmed: OnTrimmed
    workers: FollowingWorkers | None
    needs_s: float

    def read(self, request: Request) -> Reading:
        """What the tenants get for the batch."""
        if self.workers is not None and request.inline is None:
            return self.workers.read(request, self.needs_s)
        joined = request.inline is not None
        with self.snapshots.use(any_age=True) as snapshot:
            reader = LocalReader(snapshot, self.tenants, self.dedup and not joined, None, self.on_trimmed)
            reading = reader.read(request)
        return _as_spans(reading) if self.dedup and joined else reading

    def close(self) -> None:
        """Nothing: the pass owns snapshots and workers."""


def _as_spans(reading: Reading) -> Reading:
    """The deduplicated form of what shares nothing."""
    spans = {
        tenant: {
            name: SpanColumn(its.values(name), its.dtype(name), its.element_offsets(name), start, end) for name in its
        }
        for tenant, its in reading.plain.items()
        for start, end in [(its.offsets[:-1], its.offsets[1:])]
    }
    return Reading({}, spans, reading.costs, reading.took_s)
