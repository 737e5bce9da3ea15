"""The loader on Ray: shards owned by actors, ready batches streamed to trainers, stores built by tasks.

Needs Ray (``pip install uihkv[ray]``). Reading and decoding leave the trainers' machines: actors own the shards of a
store, every user's histories are read by one of them, and what trainers get is the batches, in the order and to the
bit, that a :class:`~loader.Loader` of the same settings makes in one process::

    import ray
    from loader import ParquetExamples
    from loader.adapters.ray import RayBatches, ShardActors
    from uihkv import Projection

    ray.init()
    actors = ShardActors("/shared/store", actors=8, options={"resources": {"reader": 1}})

    @ray.remote(num_gpus=1)
    def train(actors: ShardActors, rank: int) -> None:
        examples = lambda: ParquetExamples("/shared/examples.parquet")
        with RayBatches(actors, examples, Projection(max_len=1024), batch_size=256, rank=rank, world_size=2) as batches:
            for epoch in range(3):
                batches.set_epoch(epoch)
                for batch in batches:
                    loss = step(batch.to("cuda", non_blocking=True))
                    save(batches.state_dict())        # plain values; load_state_dict goes on after this batch

    ray.get([train.remote(actors, rank) for rank in range(2)])
    actors.close()

Two ways to the same batches. :class:`RayBatches`: an actor beside the shards' owners makes a rank's batches whole, and
streams them (a streaming generator of Ray's); the trainer needs neither store nor examples on its machine, and does one
copy a batch. :class:`RayLoader`: the trainer's own process takes examples and joins what the owners read; it is a
:class:`~loader.Loader` in everything else (devices, statistics, traces). :func:`build_store` ingests with a task a
shard (:mod:`loader.adapters.rayingest`).

What is bounded: each pass has at most ``prefetch`` batches asked for, and of :class:`RayBatches` as many again made and
not taken; then nothing is read until the trainer takes one. What fails: an error of a read comes as itself. An actor
that dies is started again by Ray (``restarts`` times) and asked again for the batch that it owed, which is the
same to the bit; past that, it is a :class:`~loader.WorkerError`.

Seen with Ray 2.60 on one machine, two and four actors, actors killed in the middle of an epoch. It has not been run on
a cluster of several machines.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
import torch
from ray.exceptions import ActorDiedError, RayActorError, RayError

from loader.adapters.rayactors import ActorReader, ShardActors, end_actors, fetch
from loader.adapters.rayingest import build_store
from loader.batch import Batch
from loader.errors import LoaderClosedError, SettingError, StateError, WorkerError
from loader.examples import Examples
from loader.loader import Loader, parse_ranks
from loader.reading import Reader
from loader.stats import LoaderStats
from loader.workers.wire import hear_error, pack, tell_error, unpack
from uihkv import Projection, Store

__all__ = ["RayBatches", "RayLoader", "ShardActors", "build_store"]

_MOST_THREADS = 8


class RayLoader(Loader):
    """A loader whose histories are read by the actors that own their shards.

    Args:
        store, examples, projection: as for :class:`~loader.Loader`.
        actors: the owners, which stay the caller's to close; or how many to start, and to end with the loader.
        settings: the loader's other settings, but ``num_workers``.

    Raises:
        SettingError: also for more actors than shards, or what is none.

    """

    def __init__(
        self,
        store: Store,
        examples: Examples,
        projection: Projection | None = None,
        *,
        actors: ShardActors | int = 2,
        **settings: Any,
    ) -> None:
        if settings.get("num_workers"):
            raise SettingError("num_workers given with actors, which read in their place; leave it out")
        if not isinstance(actors, ShardActors | int):
            raise SettingError(f"{type(actors).__name__} given as actors; ShardActors, or how many, are expected")
        self._actors_count = actors if isinstance(actors, int) else len(actors)
        super().__init__(store, examples, projection, **settings)
        if self._actors_count > store.shards:
            raise SettingError(
                f"{self._actors_count} actors cannot own {store.shards} shards; take fewer, or a store of more shards"
            )
        self._owned = not isinstance(actors, ShardActors)
        self._actors = actors if isinstance(actors, ShardActors) else ShardActors(store, actors)

    @property
    def actors(self) -> ShardActors:
        """The owners of the shards."""
        return self._actors

    def close(self) -> None:
        """End all passes, and the actors that the loader has started. Closing twice is no error."""
        super().close()
        if self._owned:
            self._actors.close()

    def _begin_reading(self) -> Reader:
        return ActorReader(self._actors, self._store, self._tenants, self._dedup, self._on_trimmed)

    def _workers(self) -> int:
        """Threads mostly wait for actors: as many as keep these busy."""
        return min(self._prefetch, 2 * self._actors_count + 1, _MOST_THREADS)


class BatchMakerActor:
    """What runs in the actor that makes a rank's batches: a :class:`RayLoader`, made at first use.

    Args:
        actors: owners of the shards.
        examples: or what makes them.
        projection, settings: of the loader.

    """

    def __init__(
        self,
        actors: ShardActors,
        examples: Examples | Callable[[], Examples],
        projection: Projection | None,
        settings: Mapping[str, Any],
    ) -> None:
        self._made = (actors, examples, projection, dict(settings))
        self._lock = threading.Lock()
        self._loader: RayLoader | None = None
        self._start: dict[str, Any] = {}
        self._store: Store | None = None
        self._newest = 0
        self._stopped = 0

    def ask(self, what: str, *given: Any) -> tuple[bytes, Any]:
        """What the loader says to ``what``, or an error."""
        try:
            loader = self._open()
            if what == "length":
                loader.set_epoch(given[0])
                return pack({}), len(loader)
            if what == "check":
                loader.load_state_dict(given[0])
                return pack({}), None
            return pack({}), loader.stats() if what == "stats" else self._start
        except Exception as error:
            return pack({"error": tell_error(error)}), None

    def stop(self, number: int) -> None:
        """End all passes up to this one after the batch that they are at."""
        self._stopped = max(self._stopped, number)

    def batches(self, number: int, epoch: int, state: Mapping[str, Any] | None) -> Iterator[tuple[Any, ...]]:
        """Batches of a pass: each as what restores it and its slab, with the state after it; last maybe an error."""
        try:
            loader = self._open()
            loader.load_state_dict(state or {**self._start, "epoch": epoch})
            passing = iter(loader)
            try:
                for batch in passing:
                    restore, (*forms, slab) = batch.__reduce__()
                    # As numpy's the slab travels beside the pickled rest, and is not copied into it.
                    yield restore, forms, slab.numpy(), loader.state_dict()
                    if number <= self._stopped:
                        return
            finally:
                passing.close()
        except Exception as error:
            yield (pack({"error": tell_error(error)}),)

    def describe(self) -> int:
        """Its process."""
        return os.getpid()

    def close(self) -> None:
        """Close the loader and the store."""
        with self._lock:
            if self._loader is not None:
                self._loader.close()
            if self._store is not None:
                self._store.close()
            self._loader = self._store = None

    def _open(self) -> RayLoader:
        with self._lock:
            if self._loader is None:
                actors, examples, projection, settings = self._made
                self._store = self._store or Store.open(actors.path, readonly=True)
                made = examples() if callable(examples) else examples
                self._loader = RayLoader(self._store, made, projection, actors=actors, **settings)
                self._start = self._loader.state_dict()
            return self._loader


class RayBatches:
    """A rank's batches, made by an actor and streamed to this process; one pass at a time.

    It starts its actor at first use, in the process that uses it: it may be given to a task or actor before.

    Args:
        actors: owners of the shards.
        examples: examples, which travel to the actor, or a function that makes them there.
        projection: or ``tenants=``, as for :class:`~loader.Loader`.
        prefetch: batches made ahead: so many by the actor's loader, and as many waiting for this process.
        restarts: how often Ray starts the actor again; -1: always.
        options: Ray's options of the actor.
        settings: the loader's other settings; ``rank`` and ``world_size`` are those of this process, as for
            :class:`~loader.Loader`. Not ``device`` (``batch.to``), ``trace`` and ``num_workers``.

    Raises:
        SettingError: for what cannot be; where the loader says so, at first use.

    """

    def __init__(
        self,
        actors: ShardActors,
        examples: Examples | Callable[[], Examples],
        projection: Projection | None = None,
        *,
        prefetch: int = 4,
        restarts: int = 3,
        options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        taken = [name for name in ("device", "trace", "num_workers") if settings.get(name) is not None]
        if taken:
            raise SettingError(f"{taken[0]} is nothing for the actor that makes the batches; move them by batch.to")
        if not isinstance(actors, ShardActors):
            raise SettingError(f"{type(actors).__name__} given as actors; start them with ShardActors(store)")
        self._made = (actors, examples, projection, {**settings, "prefetch": prefetch})
        self._options = {**(options or {}), "max_restarts": restarts}
        self._prefetch = prefetch
        self._maker: Any = None
        self._passes = 0
        self._epoch = 0
        self._state: dict[str, Any] | None = None
        self._passing: RayIterator | None = None
        self._closed = False

    def __iter__(self) -> RayIterator:
        """A new pass over the epoch, or over what a loaded state leaves of it; a pass that is under way ends.

        Raises:
            LoaderClosedError: after :meth:`close`.

        """
        if self._passing is not None:
            self._passing.close()
        handle = self._handle()
        state = self._state
        if self._passing is not None and self._passing.begun:
            state = None  # a state is for the first pass that hands out anything
        self._state = None
        self._passes += 1
        self._passing = RayIterator(handle, self._passes, self._epoch, state, self._prefetch)
        return self._passing

    def __len__(self) -> int:
        """Batches of the whole chosen epoch on this rank."""
        length: int = self._ask("length", self._epoch)
        return length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass, 0 or more; another one than until now ends the pass that is under way.

        The one that a loaded state names keeps its place.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise SettingError(f"epoch is {epoch!r}; a whole number of 0 or more is expected")
        if epoch != self._epoch:
            self._state = None
            self._drop_pass()
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """The place after the newest batch that was handed out: plain values, those of :meth:`Loader.state_dict`."""
        passing = self._passing
        if self._state is not None:
            return self._state
        if passing is not None and passing.state is not None:
            return passing.state
        return {**self._ask("start"), "epoch": self._epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin the next pass there, whether the state is of these or of a :class:`~loader.Loader`.

        Raises:
            StateError: for a state of other data or settings, or none at all.

        """
        if not isinstance(state, Mapping):
            raise StateError(f"{state!r:.80} is not a loader's state; give what state_dict() returned")
        self._drop_pass()
        self._ask("check", dict(state))
        self._state, self._epoch = dict(state), state["epoch"]

    def stats(self) -> LoaderStats:
        """Times and counts of the newest pass in the actor, where the trainer is who waits or lets wait."""
        stats: LoaderStats = self._ask("stats")
        return stats

    @property
    def pid(self) -> int:
        """Process id of the actor, on its machine."""
        pid: int = fetch([self._handle().describe.remote()])[0]
        return pid

    def close(self) -> None:
        """End the pass and the actor; owners of shards live on. Closing twice is no error."""
        self._closed = True
        self._drop_pass()
        if self._maker is not None:
            end_actors([self._maker])
            self._maker = None

    def __enter__(self) -> RayBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maker": None, "_passing": None}

    def _drop_pass(self) -> None:
        if self._passing is not None:
            self._passing.close()
            self._passing = None

    def _handle(self) -> Any:
        if self._closed:
            raise LoaderClosedError("these batches were closed; make new ones")
        if self._maker is None:
            actors, examples, projection, settings = self._made
            rank, world_size = parse_ranks(settings.get("rank"), settings.get("world_size"))
            settings = {**settings, "rank": rank, "world_size": world_size}
            kept = {"max_task_retries": -1, "max_concurrency": 3}  # a pass, one that ends, and a question
            self._maker = (
                ray.remote(BatchMakerActor)
                .options(**kept, **self._options)
                .remote(actors, examples, projection, settings)
            )
        return self._maker

    def _ask(self, what: str, *given: Any) -> Any:
        told, value = fetch([self._handle().ask.remote(what, *given)])[0]
        answer = unpack(told)
        if "error" in answer:
            raise hear_error(answer["error"])
        return value


class RayIterator(Iterator[Batch]):
    """One pass over :class:`RayBatches`; for one consumer.

    Attributes:
        state: after the newest batch that was handed out, or where the pass began; None: at the epoch's begin.
        begun: whether a batch or the end was handed out.

    """

    def __init__(self, maker: Any, number: int, epoch: int, state: dict[str, Any] | None, prefetch: int) -> None:
        self._maker = maker
        self._number = number
        self._epoch = epoch
        self._prefetch = prefetch
        self.state = state
        self.begun = False
        self._items: Any = None
        self._over = False
        # A stream that is dropped would be made to its end, for nobody.
        self._finalizer = weakref.finalize(self, _stop, maker, number)
        self._finalizer.atexit = False
        self._stream()

    def __iter__(self) -> RayIterator:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            StopIteration: after the last, or when the pass was closed.
            WorkerError: when the actor has died for good.
            BaseException: what a stage raised, as itself.

        """
        while not self._over:
            try:
                item = ray.get(next(self._items))
            except StopIteration:
                self._over, self._items = True, None
                break
            except RayActorError as error:
                self._await_restart(error)
                self._stream()
                continue
            except RayError as error:
                self.close()
                raise WorkerError(f"Ray has lost a batch ({type(error).__name__}); start the pass again") from error
            if len(item) == 1:
                self.close()
                raise hear_error(unpack(item[0])["error"])
            restore, forms, slab, self.state = item
            self.begun = True
            # The copy is the trainer's to write to, as any batch, and lets the object store have its room back.
            batch: Batch = restore(*forms, torch.from_numpy(slab.copy()))
            return batch
        self.begun = True
        raise StopIteration

    def close(self) -> None:
        """End the pass; the actor stops at the batch that it is at. Closing twice, or after the end, is no error."""
        if not self._over:
            self._finalizer()  # before the stream is dropped, which lets the actor go on
            self._over, self._items = True, None

    def _stream(self) -> None:
        """Ask for the batches after the newest that was handed out."""
        self._items = self._maker.batches.options(
            num_returns="streaming", _generator_backpressure_num_objects=self._prefetch, max_task_retries=0
        ).remote(self._number, self._epoch, self.state)

    def _await_restart(self, error: Exception) -> None:
        """Wait until Ray has started the actor again."""
        try:
            ray.get(self._maker.describe.remote())
        except ActorDiedError as death:
            self._over, self._items = True, None
            raise WorkerError(
                "the Ray actor that makes the batches died, and was not started again; what it printed says why. "
                "Start the pass again, with more restarts or memory"
            ) from death
        except RayError:
            raise error from None


def _stop(maker: Any, number: int) -> None:
    maker.stop.remote(number)
