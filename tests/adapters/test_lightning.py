"""Lightning trains from loaders, counts their steps, sets their epochs and resumes them in the midst of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loader import Batch, Loader
from tests.loader.conftest import World, no_thread_left, world
from uihkv import Projection

__all__ = ["no_thread_left", "world"]
lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")


def make(world: World, **options: Any) -> Loader:
    return Loader(world.store, world.examples, Projection(["vec"], max_len=4), batch_size=6, **options)


def module(stop_after: int | None = None, asks_steps: bool = True) -> Any:
    class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)
            self.seen: list[list[int]] = []
            self.validated = 0

        def training_step(self, batch: Batch, number: int) -> torch.Tensor:
            self.seen.append(batch.examples["row"].tolist())
            if stop_after is not None and len(self.seen) == stop_after:
                self.trainer.should_stop = True
            return self.layer(batch.history["vec"].expand().padded(4)).mean()

        def validation_step(self, batch: Batch, number: int) -> None:
            self.validated += len(batch)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), 0.01)
            if not asks_steps:
                return optimizer
            steps = self.trainer.estimated_stepping_batches
            return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=int(steps) + 1)]

    return Model()


def trainer(path: Path, **options: Any) -> Any:
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=path,
        num_sanity_val_steps=0, **options,
    )  # fmt: skip


def epochs(world: World, number: int) -> list[list[int]]:
    found = []
    loader = make(world)
    for epoch in range(number):
        loader.set_epoch(epoch)
        found += [batch.examples["row"].tolist() for batch in loader]
    return found


@pytest.mark.parametrize("how", ["module", "loader"])
def test_lightning_trains_and_resumes_in_the_midst_of_an_epoch(world: World, tmp_path: Path, how: str) -> None:
    from loader.adapters.lightning import UIHDataModule

    def data() -> dict[str, Any]:
        if how == "loader":
            return {"train_dataloaders": make(world), "val_dataloaders": make(world, shuffle=False, dedup=True)}
        return {"datamodule": UIHDataModule(lambda: make(world), lambda: make(world, shuffle=False, dedup=True))}

    class Saver(lightning.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 13:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    whole = epochs(world, 3)
    first = module()
    trainer(tmp_path, max_epochs=3, callbacks=[Saver()], enable_checkpointing=False).fit(first, **data())
    assert first.seen == whole
    assert first.validated == 3 * 53
    if how == "loader":
        # Lightning stores a plain loader's place, and loads it only where nobody asked for estimated_stepping_batches:
        # that makes it set its loaders up before it restores its loops. The data module resumes in either case.
        stored = torch.load(tmp_path / "mid.ckpt", weights_only=False)["loops"]["fit_loop"]["state_dict"]
        assert stored["combined_loader"][0]["consumed"] == 24
        trainer(tmp_path, max_epochs=3, callbacks=[Saver()], enable_checkpointing=False).fit(
            module(asks_steps=False), **data()
        )
    second = module(asks_steps=how == "module")
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
        second, **data(), ckpt_path=str(tmp_path / "mid.ckpt"), weights_only=False
    )
    assert second.seen == whole[13:]
