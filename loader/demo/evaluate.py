"""How good are the models on what came after the split?

For each later example every item is ranked, those that the history already has included: repeating an item is a
right answer here. Hit rate@10 is the share of examples whose target is among the first ten; NDCG@10 gives a target at
place r (from 0) ``1 / log2(r + 2)``, and nothing past the tenth. Equal scores rank by item id, for models and baseline
alike.

The baseline gives everybody the most popular items, by events that became visible before the split. Targets that never
came before the split stay in, as a real system meets them; a model may still find one that a history has by now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loader import Loader
from loader.demo.eventlog import EventLog
from loader.demo.model import SequenceModel
from loader.demo.train import model_columns

CUTOFF = 10


@dataclass(frozen=True, slots=True)
class Metrics:
    """Of one ranking over all later examples.

    Attributes:
        hit_rate: hit rate@10.
        ndcg: NDCG@10.

    """

    hit_rate: float
    ndcg: float


def measure_ranks(ranks: NDArray[np.int64]) -> Metrics:
    """Metrics of the targets' places, int64[n] from 0."""
    if not len(ranks):
        raise ValueError("no examples to evaluate on; take more events, or every fewer-th")
    hit = ranks < CUTOFF
    gain = np.where(hit, 1.0 / np.log2(ranks + 2.0), 0.0)
    return Metrics(float(hit.mean()), float(gain.mean()))


def rank_targets(scores: Tensor, target: Tensor) -> Tensor:
    """Place of each target among all items: int64[B], from 0.

    Args:
        scores: ``[B, items]``.
        target: int64[B], item ids.

    """
    own = scores.gather(1, target[:, None])
    earlier = torch.arange(scores.shape[1])[None, :] < target[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)


def count_items(log: EventLog, before: int) -> NDArray[np.int64]:
    """Events of each item that became visible before a moment: int64[items]."""
    return np.bincount(log.item_id[log.visible_at < before], minlength=log.items).astype(np.int64)


def rank_by_popularity(counts: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each target when everybody gets the items by count: int64[n], from 0."""
    place = np.empty(len(counts), np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return place[target]


def rank_by_models(
    loader: Loader, models: Mapping[str, SequenceModel], report: Callable[[int], None]
) -> dict[str, NDArray[np.int64]]:
    """Places of the targets by each tenant's model, in one pass over the later examples.

    Args:
        loader: of the later examples, with the models' tenants.
        models: by tenant.
        report: called with the number of batches done.

    """
    ranks: dict[str, list[Tensor]] = {name: [] for name in models}
    with torch.inference_mode():
        for done, batch in enumerate(loader, 1):
            for name, model in models.items():
                columns = model_columns(batch.histories[name].expand(), batch.examples["as_of"])
                scores = model.score(model(columns)[:, -1])
                ranks[name].append(rank_targets(scores, batch.examples["target"]))
            report(done)
    return {name: torch.cat(parts).numpy() for name, parts in ranks.items()}
