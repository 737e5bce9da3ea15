"""TorchRec: the history as a KeyedJaggedTensor of the loader's own memory, into an EmbeddingBagCollection.

pip install --no-deps torchrec fbgemm-gpu-cpu     (fbgemm-gpu where there is CUDA)
python examples/torchrec_kjt.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from tiny_log import ITEMS, make_log
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own convention
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

from loader import Batch, Loader, ParquetExamples
from uihkv import Projection, Store


class TwoBags(nn.Module):
    """The mean of the history against the candidate, from one table."""

    def __init__(self) -> None:
        super().__init__()
        table = EmbeddingBagConfig(
            name="item_table", embedding_dim=16, num_embeddings=ITEMS, feature_names=["item_id", "candidate"]
        )
        self.bags = EmbeddingBagCollection(tables=[table])

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[B]``."""
        history = batch.history["item_id"].to_kjt("item_id")  # no copy
        one = torch.ones(len(batch), dtype=history.lengths().dtype)
        candidate = KeyedJaggedTensor(["candidate"], batch.examples["candidate"], lengths=one)
        pooled = self.bags(KeyedJaggedTensor.concat([history, candidate]))
        mean = pooled["item_id"] / history.lengths().clamp(min=1)[:, None]
        return (mean * pooled["candidate"]).sum(1)


def main(folder: Path) -> None:
    """Make the data, train two epochs."""
    torch.manual_seed(0)
    store_path, examples_path = make_log(folder)
    model = TwoBags()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    losses: list[float] = []
    projection = Projection(["item_id"], max_len=32)
    with (
        Store.open(store_path, readonly=True) as store,
        Loader(store, ParquetExamples(examples_path), projection, batch_size=64) as loader,
    ):
        for epoch in range(2):
            loader.set_epoch(epoch)
            for batch in loader:
                loss = F.binary_cross_entropy_with_logits(model(batch), batch.examples["label"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    print(f"loss {sum(losses[:5]) / 5:.3f} -> {sum(losses[-5:]) / 5:.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
