"""Shards owned by Ray actors, and a reader that asks them: the other side of :mod:`loader.adapters.ray`.

An actor owns every n-th shard of a store: whichever trainer asks, the users of a shard are read by one process, whose
page cache and memory hold them. A batch's request is split by owner, asked of all owners at once, and their
answers are joined (:mod:`loader.joining`). Requests, answers and errors are those of worker processes
(:mod:`loader.workers.wire`), answers' arrays in one slab, which Ray's object store carries between processes
and machines without pickling it. It is copied out once, so that batches are the trainer's own memory.

A pass reads one snapshot an actor. An actor that dies is started again by Ray, which also asks it again; its new
snapshot gives the same, since pointers decide what is read. A pass whose trainer died leaves its snapshot behind: one
that nobody has used for ``IDLE_S`` is closed when another pass begins, and taken again should somebody ask.

A number in an error of a part would be the part's. So the batch is then asked whole, once, of the actor that refused:
what that raises is what the loader of one process would have raised.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from loader.errors import LoaderClosedError, SettingError, WorkerError
from loader.joining import Part, join_readings
from loader.reading import LocalReader, OnTrimmed, Reading, Request
from loader.workers.wire import (
    hear_error,
    hear_projection,
    hear_reading,
    hear_request,
    pack,
    place_reading,
    tell_error,
    tell_projection,
    tell_request,
    unpack,
)
from uihkv import Pointers, Projection, Store

Answer = tuple[bytes, NDArray[np.uint8]]
"""A message, and the slab with its arrays."""

IDLE_S = 600.0
END_WAIT_S = 10.0
_ROOM = 1.25
_NOTHING = np.empty(0, np.uint8)


class ShardOwner:
    """What runs in an actor: a store, a snapshot a pass, reads. Several threads call it at once.

    Nothing is raised here: an error is an answer, so that it comes as itself and not wrapped by Ray.

    Args:
        store: path of the store on the actor's machine.
        number: the actor's, from 0.

    """

    def __init__(self, store: str, number: int) -> None:
        self._path = store
        self._number = number
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._passes: dict[str, _Pass] = {}
        self._size = 0
        self._reads = 0
        self._shards: set[int] = set()

    def begin(self, key: str, setup: bytes) -> bytes:
        """Take a snapshot for a pass."""
        try:
            self._close_idle()
            with self._using(key, setup):
                return pack({})
        except Exception as error:
            return pack({"error": tell_error(error)})

    def read(self, key: str, setup: bytes, told: bytes) -> Answer:
        """Read for a part of a batch."""
        try:
            request = hear_request(unpack(told))
            with self._using(key, setup) as reader:
                lease = np.empty(int(self._size * _ROOM), np.uint8) if self._size else None
                reading = reader.read(request, lease)
                slab = lease if lease is not None else _NOTHING

                def make(size: int) -> NDArray[np.uint8]:
                    nonlocal slab
                    slab = np.empty(size, np.uint8)
                    return slab

                answer, used = place_reading(reading, lease, make)
                self._note(request.pointers, used)
            return pack(answer), slab[:used]
        except Exception as error:
            return pack({"error": tell_error(error)}), _NOTHING

    def end(self, key: str) -> None:
        """Close a pass's snapshot; no read of it is under way."""
        with self._lock:
            passing = self._passes.pop(key, None)
            if passing is not None:
                passing.reader.close()

    def describe(self) -> dict[str, Any]:
        """What the actor is and has done since it was started last."""
        with self._lock:
            return {
                "number": self._number, "pid": os.getpid(), "node": ray.get_runtime_context().get_node_id(),
                "shards": sorted(self._shards), "reads": self._reads, "passes": len(self._passes),
            }  # fmt: skip

    def close(self) -> None:
        """Close all snapshots and the store."""
        with self._lock:
            for passing in self._passes.values():
                passing.reader.close()
            self._passes = {}
            if self._store is not None:
                self._store.close()
                self._store = None

    @contextmanager
    def _using(self, key: str, setup: bytes) -> Iterator[LocalReader]:
        """The reader of a pass; one that this actor does not have, since it was started again, is made now."""
        with self._lock:
            if key not in self._passes:
                if self._store is None:
                    self._store = Store.open(self._path, readonly=True)
                told = unpack(setup)
                tenants = {name: hear_projection(its) for name, its in told["tenants"]}
                reader = LocalReader(self._store.snapshot(), tenants, told["dedup"], None, told["on_trimmed"])
                self._passes[key] = _Pass(reader)
            passing = self._passes[key]
            passing.readers += 1
        try:
            yield passing.reader
        finally:
            with self._lock:
                passing.readers -= 1
                passing.used_s = time.monotonic()

    def _close_idle(self) -> None:
        """Close what passes have left that never ended."""
        with self._lock:
            before = time.monotonic() - IDLE_S
            for key in [key for key, its in self._passes.items() if not its.readers and its.used_s < before]:
                self._passes.pop(key).reader.close()

    def _note(self, pointers: Pointers, used: int) -> None:
        with self._lock:
            self._size = max(self._size, used)
            self._reads += 1
            if self._store is not None:
                self._shards.update(np.unique(self._store.shard_of(pointers.user_id)).tolist())


class _Pass:
    """A reader, how many threads use it, and when one did last."""

    __slots__ = ("reader", "readers", "used_s")

    def __init__(self, reader: LocalReader) -> None:
        self.reader = reader
        self.readers = 0
        self.used_s = time.monotonic()


class ShardActors:
    """Actors that own the shards of one store: actor ``n`` those whose number leaves ``n`` when divided by how many.

    May be given to other actors and tasks, which then use the same ones; the one that made them ends them, with
    :meth:`close` or its own end.

    Args:
        store: its path, the same on every machine where an actor may run: a shared file system, or a copy on each.
        actors: how many, at most one a shard.
        threads: reads at once in each.
        restarts: how often Ray starts an actor again; -1: always.
        options: Ray's options of the actors (``num_cpus``, ``resources``, ``scheduling_strategy``), of all alike or a
            mapping each: which machine reads which shards.

    Raises:
        SettingError: for arguments that cannot be.

    """

    def __init__(
        self,
        store: str | os.PathLike[str] | Store,
        actors: int = 2,
        *,
        threads: int = 2,
        restarts: int = 3,
        options: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
    ) -> None:
        for name, value, low in (("actors", actors, 1), ("threads", threads, 1), ("restarts", restarts, -1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise SettingError(f"{name} is {value!r}; a whole number of {low} or more is expected")
        of_each = [options] * actors if isinstance(options, Mapping) else list(options) or [{}] * actors
        if len(of_each) != actors:
            raise SettingError(f"options for {len(of_each)} actors given, there are {actors}; give one mapping for all")
        self._path = str(Path(store.path if isinstance(store, Store) else store).absolute())
        self._mine = True
        self._closed = False
        kept = {"max_restarts": restarts, "max_task_retries": -1, "max_concurrency": threads + 1}  # one describes, ends
        kind = ray.remote(ShardOwner)
        self._handles = tuple(
            kind.options(**kept, **of_each[number]).remote(self._path, number) for number in range(actors)
        )

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def path(self) -> str:
        """Path of the store."""
        return self._path

    @property
    def handles(self) -> tuple[Any, ...]:
        """The actors, in order.

        Raises:
            LoaderClosedError: after :meth:`close`.

        """
        if self._closed:
            raise LoaderClosedError("these actors were ended; make new ones")
        return self._handles

    def owner_of(self, shard: NDArray[np.int64]) -> NDArray[np.int64]:
        """The actor of each shard: int64[n]."""
        return shard % len(self._handles)

    def describe(self) -> list[dict[str, Any]]:
        """Of each actor its ``number``, ``pid``, ``node``, and since its last start ``shards`` it has read, ``reads``
        and ``passes`` under way.

        Raises:
            WorkerError: when one has died for good.

        """
        found: list[dict[str, Any]] = fetch([handle.describe.remote() for handle in self.handles])
        return found

    def close(self) -> None:
        """End the actors, if they are this one's, and wait until they are gone. Closing twice is no error."""
        if self._mine and not self._closed:
            end_actors(self._handles)
        self._closed = True

    def __enter__(self) -> ShardActors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mine": False}

    def __repr__(self) -> str:
        return f"ShardActors({self._path!r}, {len(self._handles)} actors)"


class ActorReader:
    """Reads for one pass in the owners of shards; see :class:`loader.reading.Reader`.

    Args:
        actors: the owners; not closed here.
        store: tells users' shards.
        tenants: a projection each.
        dedup: give the deduplicated form.
        on_trimmed: what becomes of an example whose events are trimmed.

    """

    def __init__(
        self, actors: ShardActors, store: Store, tenants: Mapping[str, Projection], dedup: bool, on_trimmed: OnTrimmed
    ) -> None:
        self._actors = actors
        self._store = store
        self._key = uuid.uuid4().hex
        told = [(name, tell_projection(its)) for name, its in tenants.items()]
        self._setup = pack({"tenants": told, "dedup": dedup, "on_trimmed": on_trimmed})
        self._begun = [handle.begin.remote(self._key, self._setup) for handle in actors.handles]

    def read(self, request: Request) -> Reading:
        """What the tenants get for one batch.

        Raises:
            WorkerError: when an actor has died for good.
            UihkvError: what an actor's read raised.

        """
        self._await_begin()
        owner = self._actors.owner_of(self._store.shard_of(request.pointers.user_id))
        owners, of = np.unique(owner, return_inverse=True)
        rows = [np.flatnonzero(of == number) for number in range(len(owners))]
        answers = fetch([self._ask(int(o), _rows_of(request, its)) for o, its in zip(owners, rows, strict=True)])
        parts: list[Part] = []
        for number, its, (told, slab) in zip(owners, rows, answers, strict=True):
            answer = unpack(told)
            if "error" in answer:
                return self._read_whole(int(number), request)
            parts.append(Part(its, hear_reading(answer, slab if len(owners) > 1 else slab.copy())))
        return join_readings(parts)

    def _await_begin(self) -> None:
        begun = self._begun
        if not begun:
            return
        for told in fetch(begun):
            if "error" in (answer := unpack(told)):
                raise hear_error(answer["error"])
        self._begun = []  # asked once; several threads may get here, and hear the same

    def _read_whole(self, number: int, request: Request) -> Reading:
        told, slab = fetch([self._ask(number, request)])[0]
        answer = unpack(told)
        if "error" in answer:
            raise hear_error(answer["error"])
        return hear_reading(answer, slab.copy())

    def _ask(self, number: int, request: Request) -> Any:
        return self._actors.handles[number].read.remote(self._key, self._setup, pack(tell_request(request)))

    def close(self) -> None:
        """Close the actors' snapshots of this pass."""
        try:
            for handle in self._actors.handles:
                handle.end.options(max_task_retries=0).remote(
                    self._key
                )  # of an actor that is gone there is nothing to end
        except LoaderClosedError:
            pass  # and with the actors their snapshots


def _rows_of(request: Request, rows: NDArray[np.int64]) -> Request:
    as_of = None if request.as_of is None else request.as_of[rows]
    return Request(request.pointers[rows], as_of, request.epoch, request.indices[rows])


def fetch(references: Sequence[Any]) -> Any:
    """The answers of actors and tasks.

    Raises:
        WorkerError: when one of them has died, or Ray has lost its answer.

    """
    try:
        return ray.get(list(references))
    except RayError as error:
        said = str(error).strip().splitlines() or ["no word"]
        raise WorkerError(
            f"a Ray actor or task is gone, or its answer is ({type(error).__name__}: {said[0]} {said[-1]}); begin what "
            "was under way again, with more restarts or memory"
        ) from error


def end_actors(handles: Sequence[Any]) -> None:
    """Let actors close what they hold, kill them, and wait until they are gone."""
    closing = [handle.close.options(max_task_retries=0).remote() for handle in handles]
    ray.wait(closing, num_returns=len(closing), timeout=END_WAIT_S)
    for handle in handles:
        ray.kill(handle)
    until = time.monotonic() + END_WAIT_S
    for handle in handles:
        while time.monotonic() < until:
            try:
                ray.get(handle.describe.options(max_task_retries=0).remote(), timeout=END_WAIT_S)
            except RayError:
                break
            time.sleep(0.02)
