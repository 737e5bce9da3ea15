"""History and candidates in the layout of open HSTU trainers: key by key, with lengths a key and row."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch

from loader import ArrayExamples, Batch, Loader
from loader.adapters.hstu import hstu_inputs
from tests.loader.conftest import World, no_thread_left, world
from uihkv import Projection, SchemaError

__all__ = ["no_thread_left", "world"]


def batches(world: World, **options: Any) -> list[Batch]:
    columns = {name: world.columns[name] for name in ("user_id", "version", "last_ts", "row", "label")}
    columns["offers"] = columns["row"][:, None] * 10 + [[0, 1, 2]]
    columns["offered"] = columns["row"] % 4
    examples = ArrayExamples(columns)
    projection = Projection(["item_id", "surface", "vec", "tags"], max_len=4)
    return list(Loader(world.store, examples, projection, batch_size=7, shuffle=False, **options))


@pytest.mark.parametrize("dedup", [False, True])
def test_keys_lie_one_behind_the_other_with_lengths_of_each_row(world: World, dedup: bool) -> None:
    row = 0
    for batch in batches(world, dedup=dedup):
        inputs = hstu_inputs(
            batch, {"item": "item_id", "where": "surface"}, ["offers"], contextual=["row"], num_candidates="offered"
        )
        size = len(batch)
        assert inputs.uih.keys == ("row", "item", "where") and inputs.uih.stride == size
        rows = range(row, row + size)
        histories = {
            key: [world.window(number, column, 4) for number in rows]
            for key, column in (("item", "item_id"), ("where", "surface"))
        }
        expected = [[[number] for number in rows], histories["item"], histories["where"]]
        assert inputs.uih.lengths.tolist() == [len(values) for key in expected for values in key]
        assert inputs.uih.values.tolist() == [value for key in expected for values in key for value in values]
        assert inputs.uih.values.dtype == inputs.uih.lengths.dtype == torch.int64
        offers = [[10 * number + place for place in range(number % 4)] for number in rows]
        assert inputs.candidates.lengths.tolist() == [len(values) for values in offers]
        assert inputs.candidates.values.tolist() == list(chain(*offers))
        where = inputs.uih["where"]
        assert where.values.tolist() == list(chain(*histories["where"]))
        assert where.lengths.tolist() == [len(values) for values in histories["where"]]
        row += size
    assert row == len(world.columns["row"])


def test_without_counts_every_candidate_is_offered(world: World) -> None:
    batch = batches(world)[0]
    candidates = hstu_inputs(batch, ["item_id"], ["row", "offers"]).candidates
    assert candidates.lengths.tolist() == [1] * 7 + [3] * 7
    assert candidates["offers"].values.tolist() == batch.examples["offers"].flatten().tolist()


def test_what_is_no_id_is_refused(world: World) -> None:
    batch = batches(world)[0]
    for history, candidates, options, message in (
        (["tags"], ["row"], {}, "several values"),
        (["vec"], ["row"], {}, "several values"),
        (["item_id"], ["label"], {}, "map it to ids"),
        (["item_id"], ["nothing"], {}, "no column 'nothing'"),
        (["item_id"], [], {}, "no keys"),
        ([], ["row"], {}, "no keys"),
        ("item_id", ["row"], {}, "string"),
        (["item_id"], ["row"], {"contextual": ["offers"]}, "one value"),
        (["item_id"], ["offers"], {"num_candidates": "row"}, "0 to 3"),
    ):
        with pytest.raises(SchemaError, match=message):
            hstu_inputs(batch, history, candidates, **options)  # type: ignore[arg-type]


def test_it_is_what_torchrec_calls_keyed_jagged(world: World) -> None:
    torchrec = pytest.importorskip("torchrec", reason="torchrec is not installed")
    for batch in batches(world):
        inputs = hstu_inputs(batch, ["item_id", "surface"], ["row"], contextual=["row"])
        kjt = inputs.uih.to_kjt()
        assert isinstance(kjt, torchrec.KeyedJaggedTensor)
        for key in inputs.uih.keys:
            assert kjt[key].values().tolist() == inputs.uih[key].values.tolist()
            assert kjt[key].lengths().tolist() == inputs.uih[key].lengths.tolist()
