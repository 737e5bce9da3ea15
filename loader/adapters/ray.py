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

Ways to the same batches. :class:`RayBatches`: an actor beside the shards' owners makes a rank's batches whole, and
streams them (a streaming generator of Ray's); the trainer needs neither store nor examples on its machine, and does one
copy a batch. :class:`RayLoader`: the trainer's own process takes examples and joins what the owners read; it is a
:class:`~loader.Loader` in everything else (devices, statistics, traces). :func:`ray_dataset` gives an epoch's batches
as a dataset of Ray Data, for ``ray.train`` (:mod:`loader.adapters.raydata`). :func:`build_store` makes a store of
files, or of any dataset, with a task a shard (:mod:`loader.adapters.rayingest`).

What is bounded: each pass has at most ``prefetch`` batches asked for, and of :class:`RayBatches` as many again made and
not taken; then nothing is read until the trainer takes one. What fails: an error of a read comes as itself. An actor
that dies is started again by Ray (``restarts`` times) and asked again for the batch that it owed, which is the
same to the bit; past that, it is a :class:`~loader.WorkerError`.

What it costs: a batch is copied two or three times more than in one process, and every request goes through Ray. It
pays where trainers' machines are short of cores, or of memory for the store; on one machine it only costs, and
``Loader(num_workers=...)`` is the faster way to leave the trainer alone.

Seen with Ray 2.60 on one machine, two and four actors, actors killed in the middle of an epoch. It has not been run on
a cluster of several machines.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
import torch
from ray.exceptions import ActorDiedError, RayActorError, RayError

from loader.adapters.rayactors import ShardActors, end_actors, fetch
from loader.adapters.raydata import OneBatch, ray_dataset
from loader.adapters.rayingest import build_store
from loader.adapters.rayloader import BatchMakerActor, RayLoader
from loader.batch import Batch
from loader.errors import LoaderClosedError, SettingError, StateError, WorkerError
from loader.examples import Examples
from loader.loader import parse_ranks
from loader.stats import LoaderStats
from loader.workers.wire import hear_error, unpack
from uihkv import Projection

__all__ = ["OneBatch", "RayBatches", "RayLoader", "ShardActors", "build_store", "ray_dataset"]


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
        self._sent: list[Any] = []
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
        self._passing = RayIterator(handle, self._sent, self._passes, self._epoch, state, self._prefetch)
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
            self._maker, self._sent = None, []

    def __enter__(self) -> RayBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maker": None, "_sent": [], "_passing": None}

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
            self._maker = ray.remote(BatchMakerActor).options(**kept, **self._options).remote()
            self._sent = [ray.put((actors, examples, projection, settings))]
        return self._maker

    def _ask(self, what: str, *given: Any) -> Any:
        told, value = fetch([self._handle().ask.remote(self._sent, what, *given)])[0]
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

    def __init__(
        self, maker: Any, made: list[Any], number: int, epoch: int, state: dict[str, Any] | None, prefetch: int
    ) -> None:
        self._maker = maker
        self._made = made
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
        ).remote(self._made, self._number, self._epoch, self.state)

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
