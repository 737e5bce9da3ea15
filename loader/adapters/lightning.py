"""Loaders in Lightning: a ``LightningDataModule`` that puts their places into checkpoints and sets their epochs.

Needs Lightning (``pip install uihkv[lightning]``). A :class:`~loader.Loader` also works as a plain dataloader:
Lightning sets its epochs through ``loader.sampler``, moves a batch by its ``to``, and keeps its state in the fit
loop's part of a checkpoint. But whoever asks for ``trainer.estimated_stepping_batches`` in ``configure_optimizers``, as
schedulers need it, makes Lightning (2.6) set its loaders up before it restores its loops, and then it does not load
their states: the epoch begins anew, without a word. The data module resumes in either case, makes loaders when ranks
are known, and closes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from loader.batch import Batch
from loader.loader import Loader


class UIHDataModule(LightningDataModule):
    """Loaders for fitting, validation and test.

    Args:
        train: makes the loader for fitting, once ``torch.distributed`` is initialised, so that it takes its rank there.
        validate: likewise; None: there is none.
        test: likewise.

    The loaders are made at first use and closed in ``teardown``.

    """

    def __init__(
        self,
        train: Callable[[], Loader],
        validate: Callable[[], Loader] | None = None,
        test: Callable[[], Loader] | None = None,
    ) -> None:
        super().__init__()
        self._makers = {"train": train, "validate": validate, "test": test}
        self._loaders: dict[str, Loader] = {}

    def loader(self, name: str) -> Loader:
        """The loader for ``"train"``, ``"validate"`` or ``"test"``."""
        if name not in self._loaders:
            make = self._makers[name]
            if make is None:
                raise LookupError(f"this data module was given no loader to {name} with")
            self._loaders[name] = make()
        return self._loaders[name]

    def train_dataloader(self) -> Loader:
        """The loader for fitting."""
        return self.loader("train")

    def val_dataloader(self) -> Loader | list[Any]:
        """The loader for validation, or nothing."""
        return [] if self._makers["validate"] is None else self.loader("validate")

    def test_dataloader(self) -> Loader:
        """The loader for test."""
        return self.loader("test")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """One copy a batch; nothing where the loader has brought it there."""
        if isinstance(batch, Batch):
            return batch.to(device, non_blocking=True)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def state_dict(self) -> dict[str, Any]:
        """The place of the loader for fitting, for a checkpoint."""
        return {"train": self._loaders["train"].state_dict()} if "train" in self._loaders else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin the next fit there."""
        if "train" in state_dict:
            self.loader("train").load_state_dict(state_dict["train"])

    def teardown(self, stage: str) -> None:
        """Close the loaders."""
        for loader in self._loaders.values():
            loader.close()
        self._loaders = {}
