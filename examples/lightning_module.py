"""Lightning: a data module whose loaders are saved in checkpoints to the row.

pip install 'uihkv[lightning]'
python examples/lightning_module.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from plain_pytorch import MeanOfHistory
from tiny_log import make_log
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own convention

from loader import Batch, Loader, ParquetExamples
from loader.adapters.lightning import UIHDataModule
from uihkv import Projection, Store


class Ranker(LightningModule):
    """The model of the plain loop, as Lightning wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MeanOfHistory()
        self.losses: list[float] = []

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """One loss."""
        loss = F.binary_cross_entropy_with_logits(self.model(batch), batch.examples["label"])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 0.05)


def main(folder: Path) -> None:
    """Make the data, fit two epochs."""
    torch.manual_seed(0)
    store_path, examples_path = make_log(folder)
    with Store.open(store_path, readonly=True) as store:

        def train() -> Loader:
            projection = Projection(["item_id"], max_len=32)
            return Loader(store, ParquetExamples(examples_path), projection, batch_size=64)

        ranker = Ranker()
        trainer = Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(ranker, datamodule=UIHDataModule(train))
    losses = ranker.losses
    print(f"loss {sum(losses[:5]) / 5:.3f} -> {sum(losses[-5:]) / 5:.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
