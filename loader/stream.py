"""Examples as they are logged: a stream into the same batches, with histories as of each request.

A stream has no epochs, no length and no order but its own. ``Loader(store, StreamExamples(feed), ...)`` is a
:class:`StreamLoader`: a loader whose one pass takes batches of examples from the feed (:mod:`loader.feeds`), lets in
those that the store has caught up with (:mod:`loader.admission`), and reads them from snapshots that are as fresh as
they need. The stages and what comes out of them are those of every loader.

Who runs what: admission runs in the loop of the loader's thread. A feed that belongs to another loop, as an
``asyncio.Queue`` does, is awaited there: by default in the loop that was running when the ``StreamExamples`` was made.
That loop must then be free to run, so its own thread consumes with ``async for``.
"""

from __future__ import annotations

import asyncio
import operator
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from loader.admission import Admission, AdmissionRules, Bools, Late
from loader.batch import Batch
from loader.errors import LoaderClosedError, SettingError, StateError
from loader.feeds import queue_batches
from loader.freshness import FreshnessMeter
from loader.iterator import LoaderIterator, Pass
from loader.loader import Loader, parse_tenants, receive_on_host
from loader.pipeline import THREAD_NAME, Pipeline
from loader.prefetch import Sent, Transfer, check_device
from loader.reading import LocalReader
from loader.rows import ExampleRows, RowParser
from loader.stages import STAGES, TRANSFER, BatchMaker, Place
from loader.state import Position
from loader.stats import LoaderStats, Meter
from uihkv import Pointers, Projection, Store
from uihkv.schema import TIME_UNITS
from uihkv.serving import FreshSnapshots

_HOLD_MAX = 1 << 16


class StreamExamples:
    """Examples from a feed, for ``Loader(store, StreamExamples(feed), ...)``; for one pass.

    Args:
        feed: an async iterator of batches of examples: mappings of arrays ``[n, *shape]``, Arrow tables or record
            batches, with ``user_id``, ``version``, maybe ``last_ts``, labels and features, and maybe ``inline`` and
            ``inline_start`` (:mod:`uihkv.inline`). Or an ``asyncio.Queue`` of such; None in it ends the stream.
        deadline_s: how long an example waits, from its arrival, for the store to have its version.
        late: what becomes of it then: "raise" :class:`NotVisibleYetError`, "skip" it (counted), or "hold" it back,
            while others go on, until the store has it.
        hold_max: most examples held back. Where more would be, the stream waits, ``deadline_s`` at most.
        poll_s: how often the store is looked at while examples wait, and how old a snapshot gets.
        linger_s: how long a batch waits to be full; None: until it is, or the stream ends.
        columns: labels and features to take; None: all.
        requested_at: column of the requests' moments, in the store's time unit since 1970, for the freshness that
            ``loader.stats()`` tells; None, or a column that is not there: it tells none since the request.
        loop: where the feed is awaited; None: in the loop that runs now, if one does, else in the loader's own.

    Raises:
        SettingError: for arguments that cannot be.

    """

    def __init__(
        self,
        feed: AsyncIterator[Any] | asyncio.Queue[Any],
        *,
        deadline_s: float = 10.0,
        late: Late = "raise",
        hold_max: int = _HOLD_MAX,
        poll_s: float = 0.02,
        linger_s: float | None = None,
        columns: Iterable[str] | None = None,
        requested_at: str | None = "as_of",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not (isinstance(feed, asyncio.Queue) or hasattr(feed, "__aiter__")):
            raise SettingError(
                f"{type(feed).__name__} given as feed; an async iterator or an asyncio.Queue is expected"
            )
        if isinstance(columns, str):
            raise SettingError(f"columns is the string {columns!r}; write columns=[{columns!r}]")
        if late not in ("raise", "skip", "hold"):
            raise SettingError(f"late is {late!r}; 'raise', 'skip' or 'hold' is expected")
        self.deadline_s = _seconds("deadline_s", deadline_s)
        self.poll_s = _seconds("poll_s", poll_s)
        self.linger_s = None if linger_s is None else _seconds("linger_s", linger_s)
        self.late: Late = late
        self.hold_max = _count("hold_max", hold_max)
        self.columns = None if columns is None else tuple(columns)
        self.requested_at = requested_at
        if loop is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                loop = None
        self._feed: AsyncIterator[Any] | None = queue_batches(feed) if isinstance(feed, asyncio.Queue) else aiter(feed)
        self._loop = loop

    def take_feed(self) -> AsyncIterator[Any]:
        """The feed, once, to be awaited in any loop.

        Raises:
            LoaderClosedError: the second time.

        """
        feed, self._feed = self._feed, None
        if feed is None:
            raise LoaderClosedError("this stream has been read; a stream is read once, make a new StreamExamples")
        return feed if self._loop is None else _OtherLoop(feed, self._loop)

    def __repr__(self) -> str:
        return f"StreamExamples(deadline_s={self.deadline_s:g}, late={self.late!r})"


class _OtherLoop(AsyncIterator[Any]):
    """A feed that is awaited in the loop where it belongs."""

    def __init__(self, feed: AsyncIterator[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._feed = feed
        self._loop = loop

    async def __anext__(self) -> Any:
        if self._loop is asyncio.get_running_loop():
            return await anext(self._feed)
        # An end is handed over as a value: a future cannot carry StopAsyncIteration.
        found = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_next_or_end(self._feed), self._loop))
        if found is _END:
            raise StopAsyncIteration
        return found

    async def aclose(self) -> None:
        close = getattr(self._feed, "aclose", None)
        if close is None or self._loop.is_closed() or not self._loop.is_running():
            return
        # Not waited for: that loop may be the one that waits for this pass to end.
        asyncio.run_coroutine_threadsafe(_close(close), self._loop)


_END = object()


async def _next_or_end(feed: AsyncIterator[Any]) -> Any:
    return await anext(feed, _END)


async def _close(close: Any) -> None:
    with suppress(RuntimeError):  # its last step is being cancelled at this moment, which ends it as well
        await close()


@dataclass(frozen=True, slots=True)
class StreamPlace(Place):
    """A batch of a stream to be made; its examples travel with it."""

    rows: ExampleRows

    def __str__(self) -> str:
        return f"batch {self.batch} of the stream"


class _StreamPlan:
    """How far a stream has come: a :class:`loader.epochs.Plan` without an end in sight."""

    first = 0

    def __init__(self) -> None:
        self.sizes: list[int] = [0]
        self.ended = False

    @property
    def batches(self) -> int:
        """Batches of the whole stream, known at its end."""
        return len(self.sizes) - 1 if self.ended else sys.maxsize

    def rows(self, batch: int) -> NDArray[np.int64]:
        """Not asked of a stream: its places bring their rows."""
        raise NotImplementedError

    def position(self, batches: int) -> Position:
        """Examples of the first so many batches."""
        return Position(0, self.sizes[batches])


class _StreamMeter(Meter):
    """Adds freshness to what a pass counts."""

    def __init__(self, stages: tuple[str, ...], workers: int) -> None:
        super().__init__(stages, workers)
        self.freshness = FreshnessMeter()

    def read(self) -> LoaderStats:
        return replace(super().read(), freshness=self.freshness.read())


class StreamLoader(Loader):
    """What ``Loader(store, StreamExamples(...), ...)`` makes: a loader of one pass over a stream.

    It has no ``len``, no epochs and no ranks: each rank reads a stream of its own. Its state says how many examples
    were handed out; going on is the feed's business, which knows its own offsets.

    Args:
        store, projection, tenants, batch_size, drop_last, prefetch, device, on_trimmed: as :class:`Loader`.
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
        if on_trimmed not in ("raise", "truncate"):
            raise SettingError(f"on_trimmed is {on_trimmed!r}; 'raise' or 'truncate' is expected")
        self._store = store
        self.dataset = examples  # type: ignore[assignment]
        self._stream = examples
        self._tenants = parse_tenants(store, projection, tenants)
        self._prefetch = _count("prefetch", prefetch)
        self._rules = AdmissionRules(
            _count("batch_size", batch_size), drop_last, examples.deadline_s, examples.late, examples.hold_max,
            examples.poll_s, examples.linger_s,
        )  # fmt: skip
        self._on_trimmed: Literal["raise", "truncate"] = on_trimmed
        self._device = check_device(device)
        self._transfer: Transfer | None = None
        self._fingerprint = {"examples": "stream", "store": store.fingerprint}
        self._epoch = 0
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
        feed = self._stream.take_feed()
        meter = self._new_meter()
        reading = _Reading(self, feed, meter)
        pipeline: Pipeline[Place, Sent] = Pipeline(
            reading.places(), reading.make_batch, reading.release, ahead=self._prefetch, workers=self._workers()
        )
        self._pass = Pass(Position(0, 0), meter)
        self._pipelines.add(pipeline)
        receive = receive_on_host if self._transfer is None else self._transfer.receive
        return _StreamIterator(pipeline, reading.plan, self._pass, receive, reading.under_way)

    def set_epoch(self, epoch: int) -> None:
        """A stream has none; 0 is taken for trainers that always set it."""
        if epoch != 0:
            raise SettingError(f"epoch {epoch!r} set for a stream, which has none")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refused: a stream goes on where its feed does."""
        raise StateError("a stream cannot be wound back; start its feed behind the examples that were consumed")

    def __repr__(self) -> str:
        return f"StreamLoader({self.dataset!r}, batches of {self.batch_size})"

    def _new_meter(self) -> _StreamMeter:
        stages = STAGES if self._device is None else (*STAGES, TRANSFER)
        return _StreamMeter(stages, self._workers())

    def reading(self) -> tuple[Store, StreamExamples, AdmissionRules]:
        """What its pass reads, by which rules."""
        return self._store, self._stream, self._rules

    def maker(self, rows: ExampleRows, snapshot: Any, meter: Meter) -> BatchMaker:
        """Makes the batch of these rows."""
        reader = LocalReader(snapshot, self._tenants, False, None, self._on_trimmed)
        return BatchMaker(rows, reader, self._transfer, meter, rows.inline)


_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "shuffle": (False, None), "seed": (0, None), "rank": (None,), "world_size": (None,), "max_events": (None,),
    "balance": (False,), "affinity_window": (None,), "split": ("examples",), "uneven": ("drop",),
    "num_workers": (0,), "dedup": (False,), "trace": (None,),
}  # fmt: skip
"""Values of a loader's other settings that ask nothing of a stream."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """What the iterator tells of a batch when it hands it over."""

    arrived_s: NDArray[np.float64]
    requested_s: NDArray[np.float64] | None


class _Reading:
    """One pass: owns the feed, the snapshots and the thread that looks into the store, until :meth:`release`."""

    def __init__(self, owner: StreamLoader, feed: AsyncIterator[Any], meter: _StreamMeter) -> None:
        store, self._examples, self._rules = owner.reading()
        self._owner = owner
        self._feed = feed
        self._meter = meter
        self._schema = store.schema
        self._snapshots = FreshSnapshots(store, self._examples.poll_s)
        self._pool = ThreadPoolExecutor(1, f"{THREAD_NAME}-look")
        self.plan = _StreamPlan()
        self.under_way: deque[_UnderWay] = deque()

    async def places(self) -> AsyncGenerator[Place]:
        """Batches to be made, as their examples are let in."""
        parser = RowParser(self._schema, self._examples.columns)
        admission = Admission(self._feed, parser, self._look, self._rules, self._meter.freshness)
        async with aclosing(admission.batches()) as batches:
            async for rows in batches:
                self.plan.sizes.append(self.plan.sizes[-1] + len(rows))
                self.under_way.append(_UnderWay(rows.arrived_s, self._requested(rows)))
                yield StreamPlace(0, 0, len(self.plan.sizes) - 2, np.arange(len(rows)), rows)
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
        """Carry one batch through all stages, in an executor thread; its snapshot has what admission saw, or more."""
        assert isinstance(place, StreamPlace)  # `places` gives no others
        with self._snapshots.use(any_age=True) as snapshot:
            return self._owner.maker(place.rows, snapshot, self._meter).make_batch(place)

    def release(self) -> None:
        """Let go of everything; nothing runs any more."""
        self._pool.shutdown()
        self._snapshots.close()


class _StreamIterator(LoaderIterator):
    """Also tells the meter how fresh the batch is."""

    def __init__(self, pipeline: Any, plan: Any, passed: Pass, receive: Any, under_way: deque[_UnderWay]) -> None:
        super().__init__(pipeline, plan, passed, receive)
        self._under_way = under_way

    def _hand_over(self, sent: Sent, ready: int, start: float) -> Batch:
        batch = super()._hand_over(sent, ready, start)
        told = self._under_way.popleft()
        meter = self._passed.meter
        assert isinstance(meter, _StreamMeter)  # the loader made it
        meter.freshness.handed_over(told.arrived_s, told.requested_s)
        return batch


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise SettingError(f"{name} is {value!r}; seconds of 0 or more are expected")
    return float(value)


def _count(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise SettingError(f"{name} is {value!r}; a whole number of 1 or more is expected")
    return number
