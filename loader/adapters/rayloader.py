"""A loader whose histories Ray actors read, and the actor that makes a rank's batches with one.

See :mod:`loader.adapters.ray`, which is what users import. Nothing of a loader is done differently here but the reading
(:mod:`loader.adapters.rayactors`); so batches, their order, their state and their errors are a loader's. The actor
hands out each batch with the state after it, from which the trainer asks another life of the actor to go on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import ray

from loader.adapters.rayactors import ActorReader, ShardActors
from loader.errors import SettingError
from loader.examples import Examples
from loader.loader import Loader
from loader.reading import Reader
from loader.workers.wire import pack, tell_error
from uihkv import Projection, Store

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

    What it is made of comes with every call, as a reference that the trainer keeps: an actor that was started again
    would not find what it was constructed with, had that been large.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loader: RayLoader | None = None
        self._start: dict[str, Any] = {}
        self._store: Store | None = None
        self._newest = 0
        self._stopped = 0

    def ask(self, made: list[Any], what: str, *given: Any) -> tuple[bytes, Any]:
        """What the loader says to ``what``, or an error."""
        try:
            loader = self._open(made)
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

    def batches(
        self, made: list[Any], number: int, epoch: int, state: Mapping[str, Any] | None
    ) -> Iterator[tuple[Any, ...]]:
        """Batches of a pass: each as what restores it and its slab, with the state after it; last maybe an error."""
        try:
            loader = self._open(made)
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

    def _open(self, made: list[Any]) -> RayLoader:
        with self._lock:
            if self._loader is None:
                actors, examples, projection, settings = ray.get(made[0])
                self._store = self._store or Store.open(actors.path, readonly=True)
                rows = examples() if callable(examples) else examples
                self._loader = RayLoader(self._store, rows, projection, actors=actors, **settings)
                self._start = self._loader.state_dict()
            return self._loader
