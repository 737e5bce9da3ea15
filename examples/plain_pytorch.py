"""A plain PyTorch loop: histories by projection, a model, a loss, two epochs, and a checkpoint in the midst of one.

python examples/plain_pytorch.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from tiny_log import ITEMS, make_log
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own convention

from loader import Batch, Loader, ParquetExamples
from uihkv import Projection, Store


class MeanOfHistory(nn.Module):
    """Scores a candidate by the mean embedding of the newest items; 0 is no item."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS + 1, 16, padding_idx=0)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[B]``."""
        seen = batch.history["item_id"].padded(32, value=-1) + 1  # [B, 32], newest event last
        mean = self.items(seen).sum(1) / (seen > 0).sum(1, keepdim=True).clamp(min=1)
        return (mean * self.items(batch.examples["candidate"] + 1)).sum(1) + self.bias


def main(folder: Path) -> None:
    """Make the data, train, stop, resume."""
    torch.manual_seed(0)
    store_path, examples_path = make_log(folder)
    model = MeanOfHistory()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    losses: list[float] = []
    with (
        Store.open(store_path, readonly=True) as store,
        Loader(
            store,
            ParquetExamples(examples_path),
            projection=Projection(["item_id"], max_len=32),
            batch_size=64,
        ) as loader,
    ):
        for epoch in range(2):
            loader.set_epoch(epoch)
            for batch in loader:
                loss = F.binary_cross_entropy_with_logits(model(batch), batch.examples["label"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                if epoch == 1 and len(losses) == len(loader) + 5:
                    break  # as if the job were stopped here
        torch.save({"model": model.state_dict(), "loader": loader.state_dict()}, folder / "checkpoint.pt")

        checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)  # plain values
        loader.load_state_dict(checkpoint["loader"])
        rest = sum(len(batch) for batch in loader)  # begins at the row after those that were trained on
    print(f"resumed after 5 batches of the second epoch: {rest} examples were left")
    print(f"loss {sum(losses[:5]) / 5:.3f} -> {sum(losses[-5:]) / 5:.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
