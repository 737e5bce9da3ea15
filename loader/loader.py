"""The front: a store and examples in, batches out.

A :class:`Loader` checks everything it is given when it is made, and starts nothing. ``iter(loader)`` takes one
snapshot, cuts the epoch into batches from the place where it stands, and starts a pipeline that makes them
ahead of the consumer. Every pass is an object of its own; the loader remembers the newest one's place and numbers.

Epochs follow torch's samplers: iterating does not advance them, ``set_epoch`` does. Two passes without it in
between give the same batches in the same order.
"""

from __future__ import annotations

import operator
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import torch
import xxhash

from loader.batch import ONLY_TENANT, Batch
from loader.epochs import BatchCuts, Plan, Uneven
from loader.errors import LoaderClosedError, SettingError, StateError
from loader.examples import Examples
from loader.iterator import LoaderIterator, Pass
from loader.live import live_line
from loader.pipeline import Pipeline
from loader.prefetch import Sent, Transfer, check_device
from loader.reading import LocalReader, Reader
from loader.schedule import Schedule, Split, build_epochs
from loader.slabs import SlabPool
from loader.stages import STAGES, TRANSFER, BatchMaker, Place, settle_after_first
from loader.state import Position, read_state, write_state
from loader.stats import LoaderStats, Meter
from loader.trace import Trace
from loader.workers.pool import REQUESTS, PoolReader, Pools, WorkerPool
from uihkv import Projection, SchemaError, Snapshot, Store

if TYPE_CHECKING:
    from loader.streamexamples import StreamExamples

_MOST_THREADS = 4
_MOST_PROCESSES = 256
_TWO_TO_64 = 1 << 64


class Loader:
    """Batches of examples with their histories, made ahead of the training step.

    The same seed, epoch, rank, world size and data give the same batches in the same order, whatever ``num_workers``
    and ``prefetch`` are.

    Args:
        store: where histories are; stays the caller's to close.
        examples: :class:`ParquetExamples`, :class:`ArrayExamples`, or any :class:`Examples`; or a
            :class:`StreamExamples`, which makes it a :class:`loader.stream.StreamLoader`.
        projection: what is read of each history; or
        tenants: several projections by name, of which each batch carries a history each.
        batch_size: examples a batch on this rank; with ``max_events`` at most.
        max_events: a batch closes before its histories, of all tenants, would exceed this many events. Their number is
            known from pointers and projections; where these select, by an upper bound. None: no limit.
        shuffle: another order in each epoch; False: as the examples stand.
        seed: of the order, 0 to 2**64 - 1.
        drop_last: leave out the last batch when it is smaller. Without it, the examples left over at the end of an
            epoch are split evenly over the ranks; fewer than ranks are left out (none on one rank).
        rank: of this process; with world_size. None: from torch.distributed when it is initialised, else 0 of 1.
        world_size: processes that share each epoch.
        balance: within each step, deal the examples to the ranks so that these get nearly equal events.
        affinity_window: put the examples of each shard and user together within windows of so many examples of the
            order: fewer chunks are read, and batches are less random (:mod:`loader.order` says how much). None: not.
        split: what ranks share out: "examples", or "shards": no rank reads another's.
        uneven: what happens when ranks cannot get equally many batches from an epoch: "drop" leaves out what is too
            much, "pad" repeats examples, "raise" refuses.
        num_workers: processes that read histories, so that this one is left alone (:mod:`loader.workers`); they live
            as long as the loader. 0: threads of this process read.
        prefetch: batches under way or ready ahead of the consumer, 1 or more.
        device: None or "cpu": batches stay on the host; "cuda", "cuda:1": they are copied there on a side stream.
        on_trimmed: what becomes of an example whose history was trimmed: an error that names it, or what is left of the
            history, maybe nothing.
        dedup: hold each event once in a batch, however many of its examples and tenants see it; columns are then
            :class:`Deduplicated`, whose ``expand()`` gives the plain form on the device.
        trace: a file that each pass writes when it ends: a Chrome trace of its stages (:mod:`loader.trace`).

    Raises:
        SettingError: for an argument that cannot be.
        SchemaError: for a projection's column that the store does not have.
        DeviceError: for a device that is not here.

    """

    def __new__(cls, store: Any = None, examples: Any = None, *_: Any, **__: Any) -> Self:
        """Of a stream a :class:`loader.stream.StreamLoader`, as ``pathlib.Path`` gives the path of its system."""
        if cls is Loader:
            from loader.stream import StreamLoader
            from loader.streamexamples import StreamExamples

            if isinstance(examples, StreamExamples):
                return object.__new__(StreamLoader)  # type: ignore[return-value]
        return object.__new__(cls)

    def __init__(
        self,
        store: Store,
        examples: Examples | StreamExamples,
        projection: Projection | None = None,
        *,
        tenants: Mapping[str, Projection] | None = None,
        batch_size: int = 256,
        max_events: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        balance: bool = False,
        affinity_window: int | None = None,
        split: Split = "examples",
        uneven: Uneven = "drop",
        num_workers: int = 0,
        prefetch: int = 4,
        device: torch.device | str | int | None = None,
        on_trimmed: Literal["raise", "truncate"] = "raise",
        dedup: bool = False,
        trace: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(store, Store):
            raise SettingError(f"{type(store).__name__} given as store; open one with Store.open(path)")
        if not isinstance(examples, Examples):
            raise SettingError(
                f"{type(examples).__name__} given as examples; wrap rows in ParquetExamples or ArrayExamples"
            )
        self._store = store
        self.dataset = examples
        self._tenants = parse_tenants(store, projection, tenants)
        rank, world_size = parse_ranks(rank, world_size)
        self._num_workers = _whole("num_workers", num_workers, 0, _MOST_PROCESSES)
        self._prefetch = _whole("prefetch", prefetch, 1)
        self._cuts = BatchCuts(
            examples=len(examples),
            batch_size=_whole("batch_size", batch_size, 1),
            rank=rank,
            world_size=world_size,
            drop_last=_flag("drop_last", drop_last),
            uneven=_choice("uneven", uneven, Uneven),
        )
        schedule = Schedule(
            self._cuts,
            seed=_whole("seed", seed, 0, _TWO_TO_64 - 1),
            shuffle=_flag("shuffle", shuffle),
            max_events=None if max_events is None else _whole("max_events", max_events, 1),
            balance=_flag("balance", balance),
            affinity_window=None if affinity_window is None else _whole("affinity_window", affinity_window, 1),
            split=_choice("split", split, Split),
        )
        self._epochs = build_epochs(schedule, store, examples, self._tenants)
        if not self._epochs.batches(0):
            raise SettingError(
                f"{len(examples)} examples make no batch of {batch_size} on {world_size} ranks"
                + (" with drop_last=True" if drop_last else "")
                + "; take a smaller batch_size or more examples"
            )
        self._device = check_device(device)
        if on_trimmed not in ("raise", "truncate"):
            raise SettingError(f"on_trimmed is {on_trimmed!r}; 'raise' or 'truncate' is expected")
        self._on_trimmed: Literal["raise", "truncate"] = on_trimmed
        self._dedup = _flag("dedup", dedup)
        self._trace = None if trace is None else Path(trace)
        self._slabs = SlabPool(self._prefetch + 2)  # for all passes: new memory costs as much as decoding into it
        self._transfer: Transfer | None = None
        self._fingerprint = {
            "examples": examples.fingerprint,
            "store": store.fingerprint,
            "tenants": _hash_tenants(self._tenants),
            **self._epochs.describe(),
            **schedule.describe(),
            "on_trimmed": on_trimmed,
        }
        self._epoch = 0
        self._resume_from: Position | None = None
        self._pass = Pass(Position(0, 0), self._new_meter())
        self._settled = False
        self._begin_life()

    def _begin_life(self) -> None:
        self._pipelines: weakref.WeakSet[Pipeline[Place, Sent]] = weakref.WeakSet()
        self._closed = False
        self._pid = os.getpid()
        if self._num_workers:
            start = (
                self._num_workers, self._store.path, self._tenants, self._dedup, self._on_trimmed, self._prefetch
            )  # fmt: skip
            self._pools = Pools(lambda lock: WorkerPool(*start, lock))

    # -- what trainers look at ----------------------------------------------------------------------

    _trace: Path | None = None
    _num_workers = 0
    _pools: Pools | None = None

    @property
    def num_workers(self) -> int:
        """Processes that read; 0: this one does."""
        return self._num_workers

    @property
    def batch_size(self) -> int:
        """Examples a batch on this rank; with ``max_events`` at most."""
        return self._cuts.batch_size

    @property
    def drop_last(self) -> bool:
        """Whether a smaller last batch is left out."""
        return self._cuts.drop_last

    @property
    def pin_memory(self) -> bool:
        """Whether batches pass through page-locked memory: for a CUDA device."""
        return self._device is not None

    batch_sampler = None
    """Some trainers look here first, as ``torch.utils.data.DataLoader`` has one."""

    @property
    def sampler(self) -> EpochSampler:
        """What some trainers look for to set the epoch."""
        return EpochSampler(self)

    def __len__(self) -> int:
        """Batches of the whole chosen epoch on this rank, also after ``load_state_dict``.

        It is the same in every epoch, but with ``max_events``, where it depends on the order.
        """
        return self._epochs.batches(self._epoch)

    # -- passes -------------------------------------------------------------------------------------

    def __iter__(self) -> LoaderIterator:
        """A new pass over the epoch, on a snapshot taken now; it starts to work at once.

        After :meth:`load_state_dict`, the first pass that hands out anything begins where the state was taken: trainers
        may make iterators that they do not use.

        Raises:
            LoaderClosedError: after :meth:`close`.

        """
        if self._closed:
            raise LoaderClosedError("this loader is closed; make a new one")
        if self._pid != os.getpid():  # threads and workers are the parent's
            self._begin_life()
        if self._device is not None and self._transfer is None:
            self._transfer = Transfer(self._device)
        if self._pass.begun:
            self._resume_from = None
        position, meter = self._resume_from or Position(self._epoch, 0), self._new_meter()
        plan = self._plan(position)
        assert plan is not None  # load_state_dict has checked it
        reader = self._begin_reading()
        try:
            maker = BatchMaker(self.dataset, reader, self._transfer, meter)
            pipeline = Pipeline(
                _places(plan, position.epoch, self._cuts.rank),
                maker.make_batch if self._settled else settle_after_first(maker.make_batch),
                reader.close,
                ahead=self._prefetch,
                workers=self._workers(),
                # New workers take long for their first reads, which open, verify and touch everything.
                first=self._prefetch if isinstance(reader, PoolReader) and reader.is_first else 1,
            )
        except BaseException:
            reader.close()
            raise
        self._settled = True
        self._pass = Pass(position, meter)
        self._pipelines.add(pipeline)
        receive = receive_on_host if self._transfer is None else self._transfer.receive
        return LoaderIterator(pipeline, plan, self._pass, receive)

    def __aiter__(self) -> LoaderIterator:
        """As :meth:`__iter__`: the same iterator serves ``async for``."""
        return iter(self)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass, 0 or more.

        Setting the epoch that a loaded state names keeps its place; setting another begins that one anew.

        Raises:
            SettingError: for something else.

        """
        epoch = _whole("epoch", epoch, 0, _TWO_TO_64 - 1)
        if epoch != self._epoch:
            self._resume_from = None
        self._epoch = epoch
        if self._pass.position.epoch != epoch:
            self._pass = Pass(Position(epoch, 0), self._pass.meter)

    # -- state --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The place after the newest batch that was handed out, as plain values that JSON can hold.

        Keys: ``version``, ``epoch``, ``consumed`` (examples over all ranks, in the epoch) and ``fingerprint`` (of the
        data and of the settings that decide the batches); with ``split="shards"`` also ``segments``: lists of world
        size, batch size, event limit and batches made. Batches made ahead and not handed out do not count. It
        starts no work.
        """
        return write_state(self._pass.position, self._fingerprint)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin the next pass where ``state`` was taken, with any world size of the same global batch.

        Where ranks own shards or ``max_events`` is set, another world size gives every remaining example exactly once,
        in batches of its own.

        A state taken after an epoch's last batch gives a pass without batches; ``set_epoch`` then begins the next.

        Raises:
            StateError: for a state of other data or settings, or none at all; the loader stays as it was.

        """
        position = read_state(state, self._fingerprint)
        if self._epochs.plan(position) is None:
            raise StateError(
                f"the state has {position.consumed} examples consumed; no batch of {self._cuts.global_batch} "
                f"over all ranks begins there, of {self._cuts.examples} examples"
            )
        self._epoch, self._resume_from = position.epoch, position
        self._pass = Pass(position, self._new_meter())

    def skip(self, batches: int) -> None:
        """Begin the next pass so many batches later, on this rank and, called alike, on all.

        It counts from a loaded state, from the newest batch handed out, or from the epoch's start.

        Raises:
            SettingError: for no whole number of 0 or more, or more than are left.

        """
        batches = _whole("batches", batches, 0)
        position = self._pass.position
        plan = self._plan(position)
        assert plan is not None  # it is a place of this loader
        left = plan.batches - plan.first
        if batches > left:
            raise SettingError(f"{batches} batches to be skipped, {left} are left in epoch {position.epoch}")
        self._resume_from = plan.position(plan.first + batches)
        self._pass = Pass(self._resume_from, self._new_meter())

    def stats(self) -> LoaderStats:
        """Times and counts of the newest pass, until now or until its end."""
        return self._pass.meter.read()

    def live(self, *, disable: bool = False) -> AbstractContextManager[None]:
        """While inside, a line on a terminal's standard error with rates, wait share and what limits."""
        return live_line(self.stats, self._prefetch, disable)

    def snapshot(self) -> Snapshot:
        """A read view of the loader's store, for looking at it beside the loader; the caller closes it."""
        return self._store.snapshot()

    # -- end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all passes; no thread, process or snapshot is left. Closing twice is no error."""
        self._closed = True
        for pipeline in list(self._pipelines):
            pipeline.close()
        if self._transfer is not None:
            self._transfer.close()
        if self._pools is not None:
            self._pools.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        cuts = self._cuts
        return (
            f"Loader({self.dataset!r}, {len(self)} batches of {cuts.batch_size}, rank {cuts.rank} of {cuts.world_size})"
        )

    # -- inside -------------------------------------------------------------------------------------

    def _plan(self, position: Position) -> Plan | None:
        """The batches of a pass that begins there; None: there is no such place."""
        return self._epochs.plan(position)

    def _begin_reading(self) -> Reader:
        """What reads for one pass: worker processes, or a snapshot in this one."""
        if self._pools is not None:
            return self._pools.begin_pass(None if self._transfer is None else self._transfer.lock_pages)
        return LocalReader(self._store.snapshot(), self._tenants, self._dedup, self._slabs, self._on_trimmed)

    def _workers(self) -> int:
        """Lanes: as many as can help. More than batches ahead, or than cores, cannot; and of those that ask
        worker processes, as many as these take requests.
        """
        if self._num_workers:
            return min(self._prefetch, REQUESTS * self._num_workers)
        return min(self._prefetch, _MOST_THREADS, os.cpu_count() or 1)

    def _new_meter(self) -> Meter:
        stages = STAGES if self._device is None else (*STAGES, TRANSFER)
        return Meter(stages, self._workers(), None if self._trace is None else Trace(self._trace))


class EpochSampler:
    """Forwards ``set_epoch`` to its loader; Lightning looks for it only on ``loader.sampler``."""

    __slots__ = ("_loader",)

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """As :meth:`Loader.set_epoch`."""
        self._loader.set_epoch(epoch)


def _places(plan: Plan, epoch: int, rank: int) -> Iterator[Place]:
    """The rank's batches to be made."""
    for batch in range(plan.first, plan.batches):
        yield Place(epoch, rank, batch, plan.rows(batch))


def receive_on_host(sent: Sent) -> Batch:
    """A batch that stays where it was made."""
    return sent.batch


def parse_tenants(
    store: Store, projection: Projection | None, tenants: Mapping[str, Projection] | None
) -> dict[str, Projection]:
    """A projection each, by name; of one projection under the name of the only tenant.

    Raises:
        SettingError, SchemaError: for what cannot be.

    """
    if (projection is None) == (tenants is None):
        given = "neither projection nor tenants" if projection is None else "both projection and tenants"
        raise SettingError(f"{given} given; give one: projection=Projection(max_len=1024)")
    if tenants is None:
        tenants = {ONLY_TENANT: projection}  # type: ignore[dict-item]
    if not isinstance(tenants, Mapping) or not tenants:
        raise SettingError(f"tenants is {tenants!r}; a mapping of at least one name to its Projection is expected")
    for name, wanted in tenants.items():
        if not isinstance(name, str) or not name:
            raise SettingError(f"tenant name {name!r} is not a name; write tenants={{'ranker': Projection(...)}}")
        if not isinstance(wanted, Projection):
            raise SettingError(f"tenant {name!r} has a {type(wanted).__name__}; a uihkv.Projection is expected")
        try:
            wanted.resolve(store.schema)
        except SchemaError as error:
            error.add_note(f"in the projection of tenant {name!r}")
            raise
    return dict(tenants)


def parse_ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """The rank and how many there are: as given, else of torch.distributed where it is initialised, else 0 of 1.

    Raises:
        SettingError: for what cannot be.

    """
    if (rank is None) != (world_size is None):
        raise SettingError(f"rank is {rank!r} and world_size {world_size!r}; give both or neither")
    if rank is None or world_size is None:
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return 0, 1
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
    world_size = _whole("world_size", world_size, 1)
    return _whole("rank", rank, 0, world_size - 1), world_size


def _whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """A whole number in its range, as an int."""
    wanted = f"a whole number of {low} or more" if high is None else f"a whole number from {low} to {high}"
    try:
        number = operator.index(value)
    except TypeError:
        raise SettingError(f"{name} is {value!r}; {wanted} is expected") from None
    if isinstance(value, bool) or number < low or (high is not None and number > high):
        raise SettingError(f"{name} is {value!r}; {wanted} is expected")
    return number


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingError(f"{name} is {value!r}; True or False is expected")
    return value


def _choice(name: str, value: Any, kind: Any) -> Any:
    choices = get_args(kind)
    if value not in choices:
        raise SettingError(f"{name} is {value!r}; one of {', '.join(map(repr, choices))} is expected")
    return value


def _hash_tenants(tenants: Mapping[str, Projection]) -> str:
    described = [(name, tenants[name]) for name in sorted(tenants)]
    return xxhash.xxh3_64_hexdigest(repr(described).encode())
