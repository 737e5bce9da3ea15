"""The layout of open HSTU trainers: history and candidates as two keyed jagged tensors, with or without TorchRec.

python examples/hstu_layout.py
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

from tiny_log import make_log

from loader import Loader, ParquetExamples
from loader.adapters.hstu import hstu_inputs
from uihkv import Projection, Store


def main(folder: Path) -> None:
    """Make the data, and show one batch."""
    store_path, examples_path = make_log(folder)
    projection = Projection(["item_id", "action", "ts"], max_len=32)
    with (
        Store.open(store_path, readonly=True) as store,
        Loader(store, ParquetExamples(examples_path), projection, batch_size=64) as loader,
    ):
        batch = next(iter(loader))
        inputs = hstu_inputs(
            batch,
            history={"video_id": "item_id", "action_weight": "action", "action_timestamp": "ts"},
            candidates={"item_video_id": "candidate", "item_query_time": "as_of"},
        )
        for name, part in (("uih", inputs.uih), ("candidates", inputs.candidates)):
            print(f"{name}: {len(part.values)} values, lengths [{len(part.keys)} keys x {part.stride} rows]")
            for key in part.keys:
                print(f"  {key}: {part[key].values[:4].tolist()} ...")
        if find_spec("torchrec"):
            uih, candidates = inputs.uih.to_kjt(), inputs.candidates.to_kjt()  # what the trainers' Samples hold
            print(f"as TorchRec's: {uih.keys()}, {candidates.keys()}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
