"""One small model, at any history length: trained, evaluated, and timed.

It is the demo's HSTU (:mod:`loader.demo.model`), one layer that answers at the newest 16 positions, with the demo's
loss, optimiser and negatives; its scores stand over the base rate. A shorter history differs in the projection alone:
same weights to begin with, same batches in the same order, same negatives. Histories of a batch are computed in groups
of like length; that an answer depends on no padding makes it the same model, and 4,096 events affordable on a CPU.

Every candidate is ranked for every evaluated request, and the loss is the cross entropy of the softmax over all
candidates: nothing is sampled in evaluation.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own convention

from loader import Loader, ParquetExamples
from loader.demo.evaluate import CUTOFF, rank_targets
from loader.demo.model import PADDING, ModelShape, SequenceModel
from loader.demo.run import LEARNING_RATE
from loader.demo.train import Tenant, TrainResult, model_columns, train
from uihkv import Projection, Store

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

BATCH_SIZE = 64
WIDTH = 32
QUERIES = 16
TEMPERATURE = 5.0
"""Of the scores before training. Chosen, with the base rate, by looking at evaluated requests of the ansible log: the
demo's 20 without a base rate was worse than popularity at every length, and of 5 and 20 with it, 5 was better (length
64, 60 steps). It is the same at all lengths and for joins; absolute figures are a little flattered by it."""
COLUMNS = ("item_id", "ts", "kind", "added", "deleted")
SHORTEST_GROUP = 256
_TENANT = "model"
_SEEDING = threading.Lock()
"""torch's generator, from which weights are drawn, is one for the process."""


class GroupedModel(SequenceModel):
    """The demo's model over a base rate, which computes rows of like length together.

    Scores have the log of the base rate added, so that the model learns what a history says beyond popularity; and they
    begin with a lower temperature, since the noise of untrained items grows with it.
    """

    prior: Tensor

    def __init__(self, shape: ModelShape, counts: Int64s) -> None:
        super().__init__(shape)
        rate = np.append(1.0, counts + 1.0)  # of tokens; padding is never asked for
        self.register_buffer("prior", torch.from_numpy(np.log(rate / rate[1:].sum())).float())
        nn.init.constant_(self.temperature, math.log(TEMPERATURE))

    def score(self, answers: Tensor, tokens: Tensor | None = None) -> Tensor:
        """As the demo's, over the base rate."""
        return super().score(answers, tokens) + (self.prior[PADDING + 1 :] if tokens is None else self.prior[tokens])

    def score_own(self, answers: Tensor, tokens: Tensor) -> Tensor:
        """As the demo's, over the base rate."""
        return super().score_own(answers, tokens) + self.prior[tokens]

    def forward(self, columns: Mapping[str, Tensor]) -> Tensor:
        """As the demo's: ``[B, M, W]``."""
        real = columns["item"] != PADDING
        length = real.shape[1]
        if length <= SHORTEST_GROUP:
            return super().forward(columns)
        needed = real.sum(1).clamp(min=SHORTEST_GROUP)
        bound = (2 ** torch.log2(needed.double()).ceil()).long().clamp(max=length)
        answers, order = [], []
        for group in sorted(set(bound.tolist())):
            rows = (bound == group).nonzero()[:, 0]
            answers.append(super().forward({name: values[rows, -group:] for name, values in columns.items()}))
            order.append(rows)
        return torch.cat(answers)[torch.cat(order).argsort()]


def build_model(counts: Int64s, kinds: int, length: int, seed: int) -> SequenceModel:
    """The model for a length and the counts of items; weights depend on the seed alone, but for the positions' bias."""
    shape = ModelShape(len(counts), length, (QUERIES,), width=WIDTH, kinds=kinds, sizes=True)
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GroupedModel(shape, counts)


def train_model(
    store: Store, examples: Path, kinds: int, counts: Int64s, *, length: int, seed: int
) -> tuple[SequenceModel, TrainResult]:
    """Train for one epoch.

    Args:
        store: that the examples point into.
        examples: slim, in a file.
        kinds: how many values the column ``kind`` has.
        counts: int64[items]: the base rate, and what negatives are drawn by.
        length: newest events that the model sees.
        seed: of weights, order and negatives.

    """
    tenant = Tenant(_TENANT, _projection(length), (QUERIES,))
    model = build_model(counts, kinds, length, seed)
    with Loader(
        store, ParquetExamples(examples), tenants={_TENANT: tenant.projection}, batch_size=BATCH_SIZE, seed=seed
    ) as loader:
        next(iter(loader))  # a first run compiles kernels, which is no waiting for data
        result = train(
            loader, [tenant], {_TENANT: model}, counts,
            epochs=1, learning_rate=LEARNING_RATE, seed=seed, report=lambda at: None,
        )  # fmt: skip
    return model, result


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model made of each request.

    Attributes:
        rank: int64[n]: place of the target among the candidates, from 0.
        loss: float64[n]: cross entropy of the target, nats.

    """

    rank: Int64s
    loss: Floats

    @property
    def hit(self) -> Floats:
        """1 where the target is among the first ten: float64[n]."""
        return (self.rank < CUTOFF).astype(np.float64)

    @property
    def gain(self) -> Floats:
        """NDCG@10 of each: float64[n]."""
        return np.where(self.rank < CUTOFF, 1.0 / np.log2(self.rank + 2.0), 0.0)


def score_requests(store: Store, examples: Path, model: SequenceModel, candidates: Int64s, length: int) -> Scored:
    """Rank all candidates for every request of a file, in the order of ``row``."""
    rows, ranks, losses = [], [], []
    items = torch.from_numpy(candidates)
    with (
        Loader(
            store, ParquetExamples(examples), tenants={_TENANT: _projection(length)}, batch_size=BATCH_SIZE,
            shuffle=False,
        ) as loader,
        torch.inference_mode(),
    ):  # fmt: skip
        for batch in loader:
            columns = model_columns(batch.histories[_TENANT].expand(), batch.examples["as_of"])
            rank, loss = score_targets(model.score(model(columns)[:, -1], items + 1), items, batch.examples["target"])
            rows.append(batch.examples["row"].clone())
            ranks.append(rank)
            losses.append(loss)
    order = torch.cat(rows).argsort()
    return Scored(torch.cat(ranks)[order].numpy(), torch.cat(losses)[order].double().numpy())


def score_targets(scores: Tensor, items: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Rank, int64[B], and cross entropy, float[B], of targets by scores ``[B, C]`` of the items int64[C], ascending."""
    place = torch.searchsorted(items, target)
    return rank_targets(scores, place), F.cross_entropy(scores, place, reduction="none")


def _projection(length: int) -> Projection:
    return Projection(list(COLUMNS), max_len=length)
