"""The loader as a source node of ``torchdata.nodes``: ``torchdata.nodes.Loader(UIHNode(loader))``.

Needs torchdata (``pip install uihkv[torchdata]``).
"""

from __future__ import annotations

from typing import Any

from torchdata.nodes import BaseNode

from loader.batch import Batch
from loader.iterator import LoaderIterator
from loader.loader import Loader


class UIHNode(BaseNode[Batch]):
    """The batches of one loader; its state is the loader's.

    Args:
        loader: stays the caller's to close. Each reset begins its chosen epoch, or the place of the given state.

    """

    def __init__(self, loader: Loader) -> None:
        super().__init__()
        self._loader = loader
        self._passing: LoaderIterator | None = None

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        """Begin a pass."""
        super().reset(initial_state)
        if self._passing is not None:
            self._passing.close()
        if initial_state is not None:
            self._loader.load_state_dict(initial_state)
        self._passing = iter(self._loader)

    def next(self) -> Batch:
        """The next batch; StopIteration after the last."""
        assert self._passing is not None  # BaseNode resets first
        return next(self._passing)

    def get_state(self) -> dict[str, Any]:
        """The loader's state."""
        return self._loader.state_dict()
