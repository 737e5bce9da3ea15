"""Examples as they are logged: a stream into the same batches, with histories as of each request.

A stream has no epochs, no length and no order but its own. ``Loader(store, StreamExamples(feed), ...)`` is a
:class:`StreamLoader`: a loader whose one pass takes batches of examples from the feed (:mod:`loader.feeds`), lets in
those that the store has caught up with (:mod:`loader.admission`), and reads them from snapshots that are as fresh as
they need. The stages and what comes out of them are those of every loader; with ``num_workers``
processes read, whose snapshots follow the store (:mod:`loader.workers.following`).

A stream is where its feed is. A feed with ``state_dict()`` and ``load_state_dict()`` makes it resumable: the loader's
state then says where the feed stood and what has been handed out behind that place, and nothing that was only made
ahead (:mod:`loader.progress`).

Who runs what: admission runs in the loop of the loader's thread. A feed that belongs to another loop, as an
``asyncio.Queue`` does, is awaited there: by default in the loop that was running when the ``StreamExamples`` was made.
That loop must then be free to run, so its own thread consumes with ``async for``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from loader.admission import Admission, AdmissionRules, Bools
from loader.batch import Batch
from loader.errors import LoaderClosedError, SettingError, StateError
from loader.freshness import FreshnessMeter
from loader.iterator import LoaderIterator, Pass
from loader.loader import Loader, parse_tenants, receive_on_host
from loader.pipeline import THREAD_NAME, Pipeline
from loader.prefetch import Sent, Transfer, check_device
from loader.progress import Progress, read_progress
from loader.rows import ExampleRows, RowParser
from loader.stages import STAGES, TRANSFER, BatchMaker, Place
from loader.state import Position, read_state
from loader.stats import LoaderStats, Meter
from loader.streamexamples import StreamExamples, whole_number
from loader.streamreading import StreamReader
from loader.trace import Trace
from loader.workers.following import FollowingWorkers
from loader.workers.pool import WorkerPool
from uihkv import Pointers, Projection, Store
from uihkv.schema import TIME_UNITS
from uihkv.serving import FreshSnapshots

_PLACES_KEPT = 64
"""Batches behind the newest whose places are known: another thread may ask for the state meanwhile."""


@dataclass(frozen=True, slots=True)
class StreamPlace(Place):
    """A batch of a stream to be made; its examples travel with it.

    Attributes:
        rows: its examples.
        needs_s: moment, by ``time.monotonic()``, of the snapshot that let them in.

    """

    rows: ExampleRows
    needs_s: float

    def __str__(self) -> str:
        return f"batch {self.batch} of the stream"


class _StreamPlan:
    """How far a stream has come: :class:`loader.epochs.Bounds` without an end in sight; its places bring their rows."""

    first = 0

    def __init__(self, consumed: int) -> None:
        self._consumed = {0: consumed}
        self._made = 0
        self.ended = False

    @property
    def batches(self) -> int:
        """Batches of the whole stream, known at its end."""
        return self._made if self.ended else sys.maxsize

    def add(self, examples: int) -> int:
        """One batch more, of so many examples; its number."""
        number = self._made
        self._consumed[number + 1] = self._consumed[number] + examples
        self._made += 1
        return number

    def forget(self, batches: int) -> None:
        """Places long before the one after this many batches are not asked for any more: a stream may have no end."""
        self._consumed.pop(batches - _PLACES_KEPT, None)

    def position(self, batches: int) -> Position:
        """Examples of the first so many batches, the newest that were handed over."""
        return Position(0, self._consumed[batches])


class _StreamMeter(Meter):
    """Adds freshness to what a pass counts."""

    def __init__(self, stages: tuple[str, ...], workers: int, trace: Trace | None) -> None:
        super().__init__(stages, workers, trace)
        self.freshness = FreshnessMeter()

    def read(self) -> LoaderStats:
        return replace(super().read(), freshness=self.freshness.read())


class StreamLoader(Loader):
    """What ``Loader(store, StreamExamples(...), ...)`` makes: a loader of one pass over a stream.

    It has no ``len``, no epochs and no ranks: each rank reads a stream of its own. Its state says how many examples
    were handed out, and where the feed stood, if the feed can say so; else going on is the feed's business.

    Args:
        store, projection, tenants, batch_size, drop_last, prefetch, device, on_trimmed, dedup, trace: as
            :class:`Loader`. With ``dedup``, examples with inline tails share nothing.
        num_workers: as :class:`Loader`. Each worker takes a new snapshot before a batch that needs one. Batches with
            inline tails are read by this process.
        examples: the stream.
        others: settings of order and ranks; what a stream cannot have is refused.

    Raises:
        SettingError: for an argument that cannot be.
        SchemaError: for a projection's column that the store does not have.
        DeviceError: for a device that is not here.

    """

    def __init__(
        self,
        store: Store,
        examples: StreamExamples,
        projection: Projection | None = None,
        *,
        tenants: Mapping[str, Projection] | None = None,
        batch_size: int = 256,
        drop_last: bool = False,
        prefetch: int = 4,
        device: torch.device | str | int | None = None,
        on_trimmed: Literal["raise", "truncate"] = "raise",
        num_workers: int = 0,
        dedup: bool = False,
        trace: str | os.PathLike[str] | None = None,
        **others: Any,
    ) -> None:
        refused = {name: value for name, value in others.items() if value not in _NEUTRAL.get(name, ())}
        if refused:
            given = ", ".join(f"{name}={value!r}" for name, value in sorted(refused.items()))
            raise SettingError(f"{given} given for a stream, which has no epochs to order or share out; leave it out")
        if not isinstance(store, Store):
            raise SettingError(f"{type(store).__name__} given as store; open one with Store.open(path)")
        if not isinstance(drop_last, bool):
            raise SettingError(f"drop_last is {drop_last!r}; True or False is expected")
        if not isinstance(dedup, bool):
            raise SettingError(f"dedup is {dedup!r}; True or False is expected")
        if on_trimmed not in ("raise", "truncate"):
            raise SettingError(f"on_trimmed is {on_trimmed!r}; 'raise' or 'truncate' is expected")
        self._store = store
        self.dataset = examples  # type: ignore[assignment]
        self._stream = examples
        self._tenants = parse_tenants(store, projection, tenants)
        self._prefetch = whole_number("prefetch", prefetch)
        self._rules = AdmissionRules(
            whole_number("batch_size", batch_size), drop_last, examples.deadline_s, examples.late, examples.hold_max,
            examples.poll_s, examples.linger_s,
        )  # fmt: skip
        self._on_trimmed: Literal["raise", "truncate"] = on_trimmed
        self._num_workers = whole_number("num_workers", num_workers, 0)
        self._dedup = dedup
        self._trace = None if trace is None else Path(trace)
        self._device = check_device(device)
        self._transfer: Transfer | None = None
        self._fingerprint = {"examples": "stream", "store": store.fingerprint}
        self._epoch = 0
        self._begun_at = 0
        self._progress = Progress(examples.feed)
        self._pass = Pass(Position(0, 0), self._new_meter())
        self._begin_life()

    @property
    def batch_size(self) -> int:
        """Examples a batch; the last, and those that lingered, may be smaller."""
        return self._rules.batch_size

    @property
    def drop_last(self) -> bool:
        """Whether a smaller last batch is left out."""
        return self._rules.drop_last

    def __len__(self) -> int:
        raise TypeError("a stream has no length; count its batches")

    def __iter__(self) -> LoaderIterator:
        """The pass over the stream; it starts to work at once.

        Raises:
            LoaderClosedError: after :meth:`close`, and the second time: a stream is read once.

        """
        if self._closed:
            raise LoaderClosedError("this loader is closed; make a new one")
        if self._device is not None and self._transfer is None:
            self._transfer = Transfer(self._device)
        feed = self._stream.take_feed(self._progress)
        meter = self._new_meter()
        reading = _Reading(self, feed, meter, _StreamPlan(self._begun_at))
        try:
            pipeline: Pipeline[Place, Sent] = Pipeline(
                reading.places(), reading.make_batch, reading.release, ahead=self._prefetch, workers=self._workers()
            )
        except BaseException:
            reading.release()
            raise
        self._pass = Pass(Position(0, self._begun_at), meter)
        self._pipelines.add(pipeline)
        receive = receive_on_host if self._transfer is None else self._transfer.receive
        return _StreamIterator(pipeline, reading.plan, self._pass, receive, reading.under_way, self._progress)

    def set_epoch(self, epoch: int) -> None:
        """A stream has none; 0 is taken for trainers that always set it."""
        if epoch != 0:
            raise SettingError(f"epoch {epoch!r} set for a stream, which has none")

    def skip(self, batches: int) -> None:
        """A stream goes on where its feed is started; 0 is taken."""
        if batches != 0:
            raise SettingError(f"{batches!r} batches to be skipped of a stream; start its feed behind them")

    def state_dict(self) -> dict[str, Any]:
        """How many examples were handed out, and, of a feed with ``state_dict``, where to go on, as plain values.

        Keys as :meth:`Loader.state_dict`; of such a feed also ``feed``, its place, and ``done``, ranges of examples
        behind that place that were handed out or skipped. Examples made ahead, waiting or held back are in neither.
        """
        state = super().state_dict()
        return state | self._progress.state() if self._progress.known else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin where ``state`` was taken: the feed is wound to its place, and what was done behind it is left out.

        Every other example comes, none twice; in the same batches, unless some were held back or lingered.

        Raises:
            StateError: for a state of another store, or none at all; when the feed has no ``load_state_dict``, or had
                no ``state_dict`` when the state was taken: such a stream goes on where its feed is started; when this
                stream is being read.

        """
        position = read_state(state, self._fingerprint)
        if self._stream.taken:
            raise StateError("this stream is being read already; load its state into a new loader, before its pass")
        self._progress = Progress(self._stream.feed, read_progress(state, self._stream.feed))
        self._begun_at = position.consumed
        self._pass = Pass(position, self._new_meter())

    def __repr__(self) -> str:
        return f"StreamLoader({self.dataset!r}, batches of {self.batch_size})"

    def _new_meter(self) -> _StreamMeter:
        stages = STAGES if self._device is None else (*STAGES, TRANSFER)
        return _StreamMeter(stages, self._workers(), None if self._trace is None else Trace(self._trace))

    def reading(self) -> tuple[Store, StreamExamples, AdmissionRules, Progress]:
        """What its pass reads, by which rules, and what keeps how far it has come."""
        return self._store, self._stream, self._rules, self._progress

    def start_workers(self) -> FollowingWorkers | None:
        """Processes that read for its pass; None: this one does."""
        if not self._num_workers:
            return None
        lock = None if self._transfer is None else self._transfer.lock_pages
        start = (1, self._store.path, self._tenants, self._dedup, self._on_trimmed, self._prefetch, lock)
        return FollowingWorkers(self._num_workers, lambda: WorkerPool(*start))

    def maker(
        self, place: StreamPlace, snapshots: FreshSnapshots, workers: FollowingWorkers | None, meter: Meter
    ) -> BatchMaker:
        """Makes the batch of a place."""
        reader = StreamReader(snapshots, self._tenants, self._dedup, self._on_trimmed, workers, place.needs_s)
        return BatchMaker(place.rows, reader, self._transfer, meter, place.rows.inline)


_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "shuffle": (False, None), "seed": (0, None), "rank": (None,), "world_size": (None,), "max_events": (None,),
    "balance": (False,), "affinity_window": (None,), "split": ("examples",), "uneven": ("drop",),
}  # fmt: skip
"""Values of a loader's other settings that ask nothing of a stream."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """What the iterator tells of a batch when it hands it over."""

    arrived_s: NDArray[np.float64]
    requested_s: NDArray[np.float64] | None
    number: NDArray[np.int64]


class _Reading:
    """One pass: owns the feed, the snapshots and the thread that looks into the store, until :meth:`release`."""

    def __init__(self, owner: StreamLoader, feed: AsyncIterator[Any], meter: _StreamMeter, plan: _StreamPlan) -> None:
        store, self._examples, self._rules, self._progress = owner.reading()
        self._owner = owner
        self._feed = feed
        self._meter = meter
        self._schema = store.schema
        self._workers = owner.start_workers()
        self._snapshots = FreshSnapshots(store, self._examples.poll_s)
        self._pool = ThreadPoolExecutor(1, f"{THREAD_NAME}-look")
        self.plan = plan
        self.under_way: deque[_UnderWay] = deque()

    async def places(self) -> AsyncGenerator[Place]:
        """Batches to be made, as their examples are let in."""
        parser = RowParser(self._schema, self._examples.columns)
        admission = Admission(self._feed, parser, self._look, self._rules, self._meter.freshness, self._progress)
        async with aclosing(admission.batches()) as batches:
            async for rows in batches:
                number = self.plan.add(len(rows))
                self.under_way.append(_UnderWay(rows.arrived_s, self._requested(rows), rows.number))
                needs_s = self._snapshots.taken_s or 0.0  # of the newest: it has what any before it had
                yield StreamPlace(0, 0, number, np.arange(len(rows)), rows, needs_s)
        self.plan.ended = True

    def _requested(self, rows: ExampleRows) -> NDArray[np.float64] | None:
        name = self._examples.requested_at
        moment = None if name is None else rows.features.get(name)
        if moment is None or moment.ndim != 1 or moment.dtype.kind not in "iuf":
            return None
        return np.asarray(moment / TIME_UNITS[self._schema.time_unit], np.float64)

    async def _look(self, pointers: Pointers) -> Bools:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._is_visible, pointers)

    def _is_visible(self, pointers: Pointers) -> Bools:
        """In the current snapshot, or else in one taken now."""
        with self._snapshots.use() as snapshot:
            seen: Bools = np.asarray(snapshot.head(pointers.user_id).version >= pointers.version)
        if not seen.all():
            late = np.flatnonzero(~seen)
            with self._snapshots.use(newer=True) as snapshot:
                seen[late] = snapshot.head(pointers.user_id[late]).version >= pointers.version[late]
        return seen

    def make_batch(self, place: Place) -> Sent:
        """Carry one batch through all stages, in a lane; its snapshot has what admission saw, or more."""
        assert isinstance(place, StreamPlace)  # `places` gives no others
        return self._owner.maker(place, self._snapshots, self._workers, self._meter).make_batch(place)

    def release(self) -> None:
        """Let go of everything; nothing runs any more."""
        self._pool.shutdown()
        self._snapshots.close()
        if self._workers is not None:
            self._workers.close()


class _StreamIterator(LoaderIterator):
    """Also tells the meter how fresh the batch is, and notes its examples as done."""

    def __init__(
        self,
        pipeline: Any,
        plan: _StreamPlan,
        passed: Pass,
        receive: Any,
        under_way: deque[_UnderWay],
        progress: Progress,
    ) -> None:
        super().__init__(pipeline, plan, passed, receive)
        self._stream_plan = plan
        self._under_way = under_way
        self._progress = progress

    def _hand_over(self, sent: Sent, ready: int, start: float) -> Batch:
        batch = super()._hand_over(sent, ready, start)
        self._stream_plan.forget(self._next)
        told = self._under_way.popleft()
        meter = self._passed.meter
        assert isinstance(meter, _StreamMeter)  # the loader made it
        meter.freshness.handed_over(told.arrived_s, told.requested_s)
        self._progress.done(told.number)
        return batch
