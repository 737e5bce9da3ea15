"""The loader as an iterable dataset, for ``torch.utils.data.DataLoader`` and torchdata's ``StatefulDataLoader``.

Use ``DataLoader(IterableUIHDataset(...), batch_size=None, num_workers=n)``. Each of torch's workers has a loader of its
own and makes every n-th batch; torch takes them in turn, so the batches and their order are those of a plain
:class:`~loader.Loader`, whatever n is. A plain loader does the same with fewer copies: a batch from torch's workers
is packed into one shared tensor first. This is for trainers that insist on a ``DataLoader``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from loader.batch import Batch
from loader.epochs import Int64s, Plan
from loader.errors import SettingError, StateError
from loader.examples import Examples
from loader.loader import Loader
from loader.state import Position
from uihkv import Projection, Store


class IterableUIHDataset(IterableDataset[Batch]):
    """Batches of a :class:`~loader.Loader`, to be given to torch's loaders with ``batch_size=None``.

    Args:
        store, examples, projection: as for :class:`~loader.Loader`. With worker processes they are pickled, or
            inherited by fork.
        settings: its other settings; not ``device`` (torch's loader pins) and ``num_workers`` (torch's).

    Raises:
        SettingError: for those, and as :class:`~loader.Loader`.

    ``state_dict()`` and ``load_state_dict()`` are what ``StatefulDataLoader`` calls in each of its workers; it resumes
    with the same number of them.

    """

    def __init__(self, store: Store, examples: Examples, projection: Projection | None = None, **settings: Any) -> None:
        taken = [name for name in ("device", "num_workers") if settings.get(name)]
        if taken:
            raise SettingError(f"{taken[0]} is the DataLoader's to set; leave it out here, or use loader.Loader itself")
        self._made = (store, examples, projection, settings)
        self._loader = Loader(store, examples, projection, **settings)
        self._epoch = 0
        self._begin_at = 0
        self._done = 0
        self._worker = (0, 1)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_loader"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        store, examples, projection, settings = self._made
        self._loader = Loader(store, examples, projection, **settings)
        self._loader.set_epoch(self._epoch)

    def __len__(self) -> int:
        """Batches of the whole chosen epoch, over all workers."""
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass; call it before torch starts its workers, which copy the dataset."""
        self._loader.set_epoch(epoch)
        if epoch != self._epoch:
            self._begin_at = self._done = 0
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        """Batches of this worker."""
        worker = get_worker_info()
        self._worker = (0, 1) if worker is None else (worker.id, worker.num_workers)
        self._done, self._begin_at = self._begin_at, 0
        store, examples, projection, settings = self._made
        with _WorkersLoader(store, examples, projection, **settings) as loader:
            loader.share = (*self._worker, self._done)
            loader.set_epoch(self._epoch)
            for batch in loader:
                self._done += 1
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """The place of this worker: plain values."""
        worker, workers = self._worker
        fingerprint = self._loader.state_dict()["fingerprint"]
        done = self._done or self._begin_at
        return {"epoch": self._epoch, "batches": done, "worker": worker, "workers": workers, "fingerprint": fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin the next pass of this worker there.

        Raises:
            StateError: for a state of other data or settings, or another number of workers.

        """
        worker = get_worker_info()
        mine = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if not isinstance(state, Mapping) or not {"epoch", "batches", "worker", "workers", "fingerprint"} <= set(state):
            raise StateError(f"{state!r:.80} is not this dataset's state; give what state_dict() returned")
        if (state["worker"], state["workers"]) != mine:
            theirs = f"worker {state['worker']} of {state['workers']}"
            raise StateError(f"the state is of {theirs}, this is {mine[0]} of {mine[1]}; resume with as many workers")
        whole = {"version": 1, "epoch": state["epoch"], "consumed": 0, "fingerprint": state["fingerprint"]}
        self._loader.load_state_dict(whole)  # refuses other data and settings
        self._loader.set_epoch(state["epoch"])
        self._epoch, self._begin_at, self._done = state["epoch"], state["batches"], 0
        self._worker = mine


class _WorkersLoader(Loader):
    """A loader that makes every n-th batch of the plan.

    Attributes:
        share: this worker's number, how many there are, and how many batches it has made before.

    """

    share = (0, 1, 0)

    def _plan(self, position: Position) -> Plan | None:
        plan = super()._plan(position)
        return None if plan is None else _EveryNth(plan, *self.share)


@dataclass(frozen=True, slots=True)
class _EveryNth:
    """One worker's part of a plan, its batches numbered from 0; see :class:`loader.epochs.Plan`."""

    whole: Plan
    worker: int
    workers: int
    first: int

    @property
    def batches(self) -> int:
        return max(0, -(-(self.whole.batches - self.worker) // self.workers))

    def rows(self, batch: int) -> Int64s:
        return self.whole.rows(self.worker + batch * self.workers)

    def position(self, batches: int) -> Position:
        return self.whole.position(min(self.worker + batches * self.workers, self.whole.batches))
