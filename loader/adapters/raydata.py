"""Batches of the loader as a dataset of Ray Data: for ``ray.train`` and whatever else takes ``ray.data`` iterators.

A row of the dataset is a *batch*, since a batch is what cannot be cut or joined without making another of it: Ray Data
may merge, split and deal rows as it likes. Its columns are flat arrays, of other lengths in every row::

    number                      int64: which batch of the epoch
    user_id, version, last_ts   [B]: the pointers; last_ts where the examples have it
    label, ...                  [B, *shape]: the columns of the examples
    history.offsets             int64[B + 1]: example b has the events offsets[b] to offsets[b + 1]
    history.item_id, ...        [N, *shape]: the events' columns
    history.tags.offsets        int64[N + 1]: of a ragged column, where each event's elements are

With tenants, each tenant's name stands for ``history``. :class:`OneBatch` makes a dict of tensors of a row.

Read tasks make a stretch of the epoch's batches each, with a loader whose histories are read by the owners of shards
(:mod:`loader.adapters.rayactors`), so that who reads a shard does not change. Rows come in the order of the epoch
(the dataset's ``preserve_order``), and they are to the bit what a :class:`~loader.Loader` makes in one process. A task
that dies is run again by Ray and makes the same; so is an actor. To go on in the middle of an epoch is to ask for it
from a batch on.

Consumers of ``streaming_split`` get whole batches, each one of them once, whoever is free first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data.block import BlockMetadata
from ray.data.collate_fn import NumpyBatchCollateFn
from ray.data.extensions import ArrowVariableShapedTensorArray

from loader.adapters.rayactors import ShardActors, fetch
from loader.adapters.rayloader import RayLoader
from loader.batch import Batch
from loader.epochs import Int64s, Plan
from loader.errors import SettingError
from loader.examples import Examples
from loader.state import Position
from loader.workers.wire import hear_error, pack, tell_error, unpack
from uihkv import Projection, Store

NUMBER = "number"
"""The column that counts an epoch's batches."""

POINTERS = ("user_id", "version", "last_ts")

Made = TypeVar("Made", bound=RayLoader)


def ray_dataset(
    actors: ShardActors,
    examples: Examples | Callable[[], Examples],
    projection: Projection | None = None,
    *,
    epoch: int = 0,
    first: int = 0,
    tasks: int | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """An epoch's batches as a ``ray.data.Dataset`` whose rows are batches; nothing is read before it is consumed.

    Args:
        actors: owners of the shards.
        examples: which travel to the read tasks, or a function that makes them there.
        projection: or ``tenants=``, as for :class:`~loader.Loader`.
        epoch: which epoch.
        first: number of the first batch wanted: 1 more than that of the last one trained on.
        tasks: read tasks, each of which makes a stretch of the batches; None: as many as actors.
        options: Ray's options of the tasks (``num_cpus``, ``memory``, ``resources``).
        settings: the loader's other settings. ``rank`` and ``world_size`` are for a dataset a rank; leave them out
            where one dataset is dealt to all. Not ``device``, ``trace``, ``num_workers`` and ``dedup``.

    Raises:
        SettingError: for what cannot be.
        UihkvError: what the loader says to its examples and settings.

    """
    taken = [name for name in ("device", "trace", "num_workers", "dedup") if settings.get(name)]
    if taken:
        raise SettingError(f"{taken[0]} is nothing for batches that travel as plain arrays; leave it out")
    if not isinstance(actors, ShardActors):
        raise SettingError(f"{type(actors).__name__} given as actors; start them with ShardActors(store)")
    count = len(actors) if tasks is None else tasks
    for name, value, low in (("epoch", epoch, 0), ("first", first, 0), ("tasks", count, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise SettingError(f"{name} is {value!r}; a whole number of {low} or more is expected")
    given = {"rank": 0, "world_size": 1, **settings}
    made = ray.put((actors, examples, projection, given))
    of_task = {"num_cpus": 1, **(options or {})}
    answer = unpack(fetch([ray.remote(_count).options(**of_task).remote([made], epoch)])[0])
    if "error" in answer:
        raise hear_error(answer["error"])
    batches: int = answer["batches"]
    if first > batches:
        raise SettingError(f"first is {first}, the epoch has {batches} batches; a number up to that is expected")
    stretches = [_Stretch([made], epoch, *its) for its in _cut(first, batches, count)]
    source = _BatchSource(stretches)
    dataset = ray.data.read_datasource(source, override_num_blocks=max(len(stretches), 1), **of_task)
    dataset.context.execution_options.preserve_order = True
    dataset.context.target_max_block_size = 1  # each batch goes on when it is made, and does not wait for 128 MiB
    return dataset


class OneBatch(NumpyBatchCollateFn):  # type: ignore[misc]
    """A row as a dict of tensors: ``dataset.iter_torch_batches(batch_size=1, collate_fn=OneBatch())``.

    Tensors are the trainer's own memory, on the CPU; Ray Data moves them to its ``device``. Texts (user ids that are
    strings) are no tensors, and left out; ``iter_rows`` has them.
    """

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The only row of these columns.

        Raises:
            SettingError: for more rows than one.

        """
        rows = len(batch[NUMBER])
        if rows != 1:
            raise SettingError(f"{rows} batches were asked for at once; iterate with batch_size=1: a row is a batch")
        arrays = {name: np.array(column[0]) for name, column in batch.items()}
        return {name: torch.from_numpy(its) for name, its in arrays.items() if its.dtype.kind not in "OUST"}


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What a read task makes: the batches from ``first`` to before ``last`` of an epoch."""

    made: list[Any]
    epoch: int
    first: int
    last: int

    def __call__(self) -> Iterator[Any]:
        with _open(self.made, _StretchLoader) as loader:
            loader.stretch = (self.first, self.last)
            loader.set_epoch(self.epoch)
            passing = iter(loader)
            try:
                for number, batch in enumerate(passing, self.first):
                    yield as_row(number, batch)
            finally:
                passing.close()


class _BatchSource(ray.data.Datasource):  # type: ignore[misc]
    """Read tasks of stretches."""

    def __init__(self, stretches: list[_Stretch]) -> None:
        super().__init__()
        self._stretches = stretches

    def get_name(self) -> str:
        return "Batches"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
        """A task a stretch, however many Ray would have."""
        tasks = []
        for its in self._stretches:
            known = BlockMetadata(num_rows=its.last - its.first, size_bytes=None, exec_stats=None, input_files=None)
            tasks.append(ray.data.ReadTask(its, known))
        return tasks


class _StretchLoader(RayLoader):
    """A loader of a stretch of the epoch's batches.

    Attributes:
        stretch: number of the first batch, and of the one after the last.

    """

    stretch = (0, 0)

    def _plan(self, position: Position) -> Plan | None:
        plan = super()._plan(position)
        return None if plan is None else _Part(plan, *self.stretch)


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a plan; see :class:`loader.epochs.Plan`."""

    whole: Plan
    first: int
    batches: int

    def rows(self, batch: int) -> Int64s:
        return self.whole.rows(batch)

    def position(self, batches: int) -> Position:
        return self.whole.position(batches)


def as_row(number: int, batch: Batch) -> Any:
    """A batch as an Arrow table of one row: see the module."""
    pointers = batch.pointers.to_arrow()
    arrays: dict[str, Any] = {name: pointers.column(name) for name in POINTERS if name in pointers.column_names}
    arrays |= batch.examples
    for tenant, history in batch.histories.items():
        plain = history.expand()
        arrays[f"{tenant}.offsets"] = plain.offsets
        for name, values in plain.values.items():
            arrays[f"{tenant}.{name}"] = values
        for name, offsets in plain.element_offsets.items():
            arrays[f"{tenant}.{name}.offsets"] = offsets
    return pa.table({NUMBER: pa.array([number], pa.int64()), **{name: _as_cell(its) for name, its in arrays.items()}})


def _as_cell(array: Any) -> Any:
    """A column of one value, which is an array; texts are a list."""
    if isinstance(array, pa.ChunkedArray):
        if not pa.types.is_integer(array.type):
            return pa.array([array.to_pylist()], pa.list_(array.type))
        array = array.to_numpy()
    elif isinstance(array, torch.Tensor):
        array = (array.view(torch.uint16) if array.dtype == torch.bfloat16 else array).numpy()
    cell = np.empty(1, object)
    cell[0] = np.ascontiguousarray(array)
    return ArrowVariableShapedTensorArray.from_numpy(cell)


def _cut(first: int, batches: int, tasks: int) -> list[tuple[int, int]]:
    """Stretches of nearly equal length; none is empty."""
    edges = np.linspace(first, batches, min(tasks, batches - first) + 1).astype(int).tolist()
    return list(pairwise(edges))


def _count(made: list[Any], epoch: int) -> bytes:
    """Batches of an epoch, found where the store is."""
    try:
        with _open(made, RayLoader) as loader:
            loader.set_epoch(epoch)
            return pack({"batches": len(loader)})
    except Exception as error:
        return pack({"error": tell_error(error)})


@contextmanager
def _open(made: list[Any], kind: type[Made]) -> Iterator[Made]:
    """A loader of what was given, in a task's process."""
    actors, examples, projection, settings = ray.get(made[0])
    with (
        Store.open(actors.path, readonly=True) as store,
        kind(store, examples() if callable(examples) else examples, projection, actors=actors, **settings) as loader,
    ):
        yield loader
