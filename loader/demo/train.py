"""One epoch over the examples: how does each tenant's model learn from the same batches?

A tenant is a projection and a model. The loader reads every example's history once for each tenant, in one pass over
the examples, and each model takes its step. The loss is next-item prediction at the newest positions of a history: each
of them predicts the event after it, the last one the example's target. The targets weigh half of the loss: they come
after a request, while the next event of a history mostly is of the same commit, which is easier and not what is asked.

It is sampled softmax with logQ correction (Bengio and Senécal 2008; Yi et al. 2019): the true item against
``NEGATIVES`` items, drawn for the whole batch in proportion to ``count ** 0.75``, where ``log q(item)`` is taken off
every score, so that frequent items are not punished for being drawn often. A negative that is a row's true item is left
out.

Invariant: counts, targets and negatives come from events that became visible before the split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own convention

from loader import Batch, Loader
from loader.demo.model import PADDING, ModelShape, SequenceModel
from loader.jagged import TenantHistory
from uihkv import Projection

NEGATIVES = 512
FLATTENING = 0.75
WARM_UP_STEPS = 20


@dataclass(frozen=True, slots=True)
class Tenant:
    """A model that reads the shared histories its own way.

    Attributes:
        name: of the tenant.
        projection: what it reads.
        queries: newest positions at which its model answers, layer by layer.

    """

    name: str
    projection: Projection
    queries: tuple[int, ...]

    def build_model(self, items: int, kinds: int, seed: int) -> SequenceModel:
        """Its model, untrained; the same for the same seed."""
        columns, max_len = self.projection.columns, self.projection.max_len
        if columns is None or max_len is None:
            raise ValueError(f"tenant {self.name!r}: a model needs a projection with columns and max_len")
        shape = ModelShape(
            items, max_len, self.queries,
            kinds=kinds if "kind" in columns else 0, sizes="added" in columns and "deleted" in columns,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return SequenceModel(shape)


TENANTS = (
    Tenant("retrieval", Projection(["item_id", "ts"], max_len=64), (32,)),
    Tenant("ranker", Projection(["item_id", "ts", "kind", "added", "deleted"], max_len=1024), (16,)),
)


def model_columns(history: TenantHistory, as_of: Tensor) -> dict[str, Tensor]:
    """What a model takes, padded on the left to the batch's longest history, at least one place.

    Args:
        history: one tenant's.
        as_of: int64[B], ms: moments of the requests.

    """
    length = max(history.max_length, 1)
    item = history["item_id"].padded(length, value=PADDING - 1) + 1
    real = item != PADDING
    age_ms = (as_of[:, None] - history["ts"].padded(length)).masked_fill_(~real, 0)
    columns = {"item": item, "age": torch.div(age_ms, 1000, rounding_mode="floor").int()}
    if "kind" in history:
        columns["kind"] = (history["kind"].padded(length).long() + 1).masked_fill_(~real, 0)
    if "added" in history and "deleted" in history:
        sizes = torch.stack([history["added"].padded(length), history["deleted"].padded(length)], -1)
        columns["size"] = torch.log1p(sizes.float())
    return columns


class NegativeSampler:
    """Draws items for a batch, in proportion to ``count ** FLATTENING``.

    Args:
        counts: int64[items], of events before the split; items without any are never drawn.
        seed: of the draws.

    """

    def __init__(self, counts: NDArray[np.int64], seed: int) -> None:
        weights = np.concatenate([[0.0], np.power(counts.astype(np.float64), FLATTENING)])
        self._share = torch.from_numpy(weights / weights.sum())
        self.log_q = torch.log(self._share.clamp(min=1e-12)).float()
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, n: int) -> Tensor:
        """``n`` tokens, int64[n]; one may come twice."""
        return torch.multinomial(self._share, n, replacement=True, generator=self._generator)


def next_item_loss(
    model: SequenceModel, columns: Mapping[str, Tensor], target: Tensor, sampler: NegativeSampler
) -> Tensor:
    """Mean over the targets, and mean over the newest events' next ones, half and half.

    Args:
        model: of a tenant.
        columns: of :func:`model_columns`.
        target: int64[B]: tokens of the examples' targets.
        sampler: of negatives.

    """
    answers = model(columns)
    newest = columns["item"][:, -answers.shape[1] :]
    asked = newest != PADDING
    asked[:, -1] = True  # also with an empty history
    rows, places = asked.nonzero(as_tuple=True)
    wanted = torch.cat([newest[:, 1:], target[:, None]], 1)[rows, places]
    answers = answers[rows, places]
    negatives = sampler.draw(NEGATIVES)
    true = model.score_own(answers, wanted) - sampler.log_q[wanted]
    drawn = model.score(answers, negatives) - sampler.log_q[negatives]
    drawn = drawn.masked_fill(negatives[None, :] == wanted[:, None], -math.inf)
    losses = F.cross_entropy(torch.cat([true[:, None], drawn], 1), torch.zeros_like(wanted), reduction="none")
    at_target = places == newest.shape[1] - 1
    inside = losses[~at_target].sum() / (~at_target).sum().clamp(min=1)
    return (losses[at_target].mean() + inside) / 2


@dataclass(frozen=True, slots=True)
class StepReport:
    """Where training is.

    Attributes:
        step: steps done, of ``steps``.
        steps: in all epochs.
        losses: of this step, by tenant.
        examples_per_s: since the start.
        wait_share: of the time since the epoch's start, how much the steps waited for data.

    """

    step: int
    steps: int
    losses: Mapping[str, float]
    examples_per_s: float
    wait_share: float


@dataclass(slots=True)
class TrainResult:
    """What training left behind.

    Attributes:
        models: by tenant.
        losses: by tenant, of every step.
        examples: trained on, over all epochs.
        elapsed_s: of all epochs, waiting included.
        wait_s: of these, waiting for batches.

    """

    models: dict[str, SequenceModel]
    losses: dict[str, list[float]] = field(default_factory=dict)
    examples: int = 0
    elapsed_s: float = 0.0
    wait_s: float = 0.0

    @property
    def examples_per_s(self) -> float:
        """Examples a second, each for all tenants."""
        return self.examples / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the time that steps waited for batches."""
        return self.wait_s / self.elapsed_s if self.elapsed_s else 0.0


def train(
    loader: Loader,
    tenants: Sequence[Tenant],
    models: Mapping[str, SequenceModel],
    counts: NDArray[np.int64],
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    report: Callable[[StepReport], None],
) -> TrainResult:
    """Train every tenant's model, in one pass over the examples for each epoch."""
    optimizers = {name: torch.optim.Adam(model.parameters(), fused=True) for name, model in models.items()}
    samplers = {tenant.name: NegativeSampler(counts, seed + place) for place, tenant in enumerate(tenants)}
    result = TrainResult(dict(models), {tenant.name: [] for tenant in tenants})
    steps, step = len(loader) * epochs, 0
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        before_s, start_s = result.elapsed_s, time.perf_counter()
        for batch in loader:
            for tenant in tenants:
                optimizer = optimizers[tenant.name]
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * _schedule(step, steps)
                loss = _train_step(models[tenant.name], optimizer, samplers[tenant.name], batch, tenant.name)
                result.losses[tenant.name].append(loss)
            step += 1
            result.examples += len(batch)
            result.elapsed_s = before_s + time.perf_counter() - start_s
            newest = {name: losses[-1] for name, losses in result.losses.items()}
            waited = (result.wait_s + loader.stats().wait_s) / result.elapsed_s
            report(StepReport(step, steps, newest, result.examples_per_s, waited))
        result.wait_s += loader.stats().wait_s
    return result


def _train_step(
    model: SequenceModel, optimizer: torch.optim.Optimizer, sampler: NegativeSampler, batch: Batch, tenant: str
) -> float:
    columns = model_columns(batch.histories[tenant].expand(), batch.examples["as_of"])
    loss = next_item_loss(model, columns, batch.examples["target"] + 1, sampler)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up over the first steps, then down in a line to a tenth."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * max(0.1, 1.0 - step / steps)
