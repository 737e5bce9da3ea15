"""Histories as KeyedJaggedTensors of the same memory, and batches through TorchRec's train pipeline."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loader import Batch, Loader
from tests.loader.conftest import World, no_thread_left, world
from uihkv import Projection, SchemaError

__all__ = ["no_thread_left", "world"]
torchrec = pytest.importorskip("torchrec", reason="torchrec is not installed")


def make(world: World, **options: Any) -> Loader:
    return Loader(world.store, world.examples, Projection(max_len=4), batch_size=6, **options)


def test_a_column_is_a_key_of_the_same_memory(world: World) -> None:
    for batch in make(world):
        column = batch.history["item_id"]
        kjt = column.to_kjt("item_id")
        assert isinstance(kjt, torchrec.KeyedJaggedTensor)
        assert kjt.keys() == ["item_id"]
        assert kjt.stride() == len(batch)
        assert kjt.values().data_ptr() == column.expand().values.data_ptr()
        assert (
            kjt["item_id"].to_dense()[0].tolist()
            == column.expand().padded(9, side="right")[0, : int(column.lengths[0])].tolist()
        )


@pytest.mark.parametrize("dedup", [False, True])
def test_columns_are_keys_one_behind_the_other(world: World, dedup: bool) -> None:
    for batch, plain in zip(make(world, dedup=dedup), make(world), strict=True):
        kjt = batch.history.to_kjt(["ts", "item_id"])
        expected = torchrec.KeyedJaggedTensor.from_jt_dict(
            {
                name: torchrec.JaggedTensor(plain.history[name].expand().values, lengths=plain.history.lengths)
                for name in ("ts", "item_id")
            }
        )
        assert kjt.keys() == expected.keys()
        for name in ("values", "lengths", "offsets"):
            assert torch.equal(getattr(kjt, name)(), getattr(expected, name)()), name
        assert kjt.length_per_key() == expected.length_per_key()
        assert kjt.offset_per_key() == expected.offset_per_key()


def test_columns_that_are_no_keys_are_refused(world: World) -> None:
    history = next(iter(make(world))).history
    for keys, message in ((["tags"], "ragged"), (["vec"], "shape"), (["ts", "surface"], "has one"), ([], "no keys")):
        with pytest.raises(SchemaError, match=message):
            history.to_kjt(keys)


def test_batches_run_through_torchrecs_train_pipeline_two_epochs(world: World) -> None:
    from torchrec.distributed.train_pipeline import TrainPipelineBase
    from torchrec.streamable import Pipelineable

    import loader.adapters.torchrec  # noqa: F401 - makes batches Pipelineable

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = torchrec.EmbeddingBagCollection(
                tables=[
                    torchrec.EmbeddingBagConfig(
                        name="item_table", embedding_dim=4, num_embeddings=64, feature_names=["item_id"]
                    )
                ]
            )
            self.seen: list[list[int]] = []

        def forward(self, batch: Batch) -> Any:
            self.seen.append(batch.examples["row"].tolist())
            kjt = batch.history["item_id"].to_kjt("item_id")
            small = torchrec.KeyedJaggedTensor(["item_id"], kjt.values() % 64, lengths=kjt.lengths())
            loss = self.bag(small)["item_id"].pow(2).sum()
            return loss, loss.detach()

    source = make(world)
    assert isinstance(next(iter(source)), Pipelineable)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    whole = []
    for epoch in range(2):
        source.set_epoch(epoch)
        passing = iter(source)
        pipeline = TrainPipelineBase(model, optimizer, torch.device("cpu"))
        with pytest.raises(StopIteration):
            while True:
                pipeline.progress(passing)
        whole += [batch.examples["row"].tolist() for batch in source]
    assert model.seen == whole
