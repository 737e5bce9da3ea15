"""A small HSTU: which item comes next, given a history and the moment of the request?

After Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
Recommendations" (arXiv 2402.17152). One layer, for positions ``i`` (asking) and ``j`` (asked)::

    U, V, Q, K = SiLU(Linear(norm(X)))                        pointwise projection
    A[i, j]    = SiLU(Q[i]·K[j] + position[i-j] + time[bucket(t[i+1] - t[j])]) / n[i]
    X'[i]      = X[i] + Linear(norm(Σ_j A[i, j] V[j]) * U[i])  gated output

with ``j <= i``, ``n[i]`` the number of events that ``i`` may see, and no softmax: weights need not add up to one.
``t[i+1]`` is the time of what is to be predicted: the next event, or, at the last position, the request.

Two things differ from the paper. For the sake of a CPU, a layer answers only at its newest ``queries`` positions, so
that a history of L events costs O(queries * L), and a next layer sees only those. And for the sake of one short epoch,
values and outputs begin as identities and position as a preference for the newest events, so that the model begins by
repeating a history's items and need not first learn to. An empty history is one place of padding, whose embedding is
learned.

What is done event by event is done for events alone: histories are jagged, and padding, which was half of the places,
comes in only where attention needs a rectangle.

Shapes: B examples, L events (padded on the left, so that the newest event stands last), M answers, W width.
Invariants: an answer depends on no later event, and not on how much padding stands before its history.
What it leaves to others: the loss (:mod:`loader.demo.train`), and where histories come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own convention

PADDING = 0
"""Token that stands for no event; item ``i`` is token ``i + 1``."""

TIME_BUCKETS = 32
"""Powers of two seconds: the last one begins after 68 years."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        items: how many items there are; tokens are 0 (padding) to ``items``.
        max_len: most events of a history.
        queries: newest positions at which each layer answers, layer by layer, never growing.
        width: of an embedding.
        kinds: how many values the column ``kind`` has; 0: the model does not use it.
        sizes: whether it uses the columns ``added`` and ``deleted``.

    """

    items: int
    max_len: int
    queries: tuple[int, ...]
    width: int = 64
    kinds: int = 0
    sizes: bool = False


class RelativeBias(nn.Module):
    """What position and time add to the attention of one layer: ``[B, M, L]``."""

    def __init__(self, max_len: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(max_len))
        self.time = nn.Parameter(torch.zeros(TIME_BUCKETS))

    def forward(self, next_age: Tensor, age: Tensor) -> Tensor:
        """Bias of M queries on L keys.

        Args:
            next_age: int32[B, M], seconds from what each query predicts to the request.
            age: int32[B, L], seconds from each key's event to the request.

        """
        queries, keys = next_age.shape[1], age.shape[1]
        steps = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)[None, :]
        position = self.position[steps.clamp(0, len(self.position) - 1)]  # [M, L]
        bucket = bucket_gaps(age[:, None, :] - next_age[:, :, None])
        by_time: Tensor = SmallLookup.apply(self.time, bucket)  # type: ignore[no-untyped-call]
        return position + by_time


class SmallLookup(torch.autograd.Function):
    """``table[index]`` for a table of few numbers and a large index.

    The gradient is a histogram. torch's own, made for large tables, took 100 ms where this took 2 (2 M indices, one
    core, loaded machine).
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        """``table: [T]``, ``index: int32[...]``."""
        ctx.save_for_backward(index)
        ctx.entries = len(table)
        return table.index_select(0, index.flatten()).view(index.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Sum of the gradients of each entry."""
        (index,) = ctx.saved_tensors
        (grad,) = grads
        sums = torch.bincount(index.flatten(), weights=grad.flatten().double(), minlength=ctx.entries)
        return sums.to(grad.dtype), None


def bucket_gaps(gaps_s: Tensor) -> Tensor:
    """Bucket of each time gap: 0 below one second (or negative: clocks differ), then one for each power of two."""
    return torch.log2(gaps_s.clamp(min=0.5)).floor_().add_(1).clamp_(0, TIME_BUCKETS - 1).int()


class Layer(nn.Module):
    """One HSTU layer, of one head, that answers at the newest ``queries`` positions."""

    def __init__(self, width: int, max_len: int, queries: int) -> None:
        super().__init__()
        self.asking = queries
        self.norm_in = nn.LayerNorm(width)
        self.queries, self.gates = nn.Linear(width, width), nn.Linear(width, width)
        self.keys, self.values = nn.Linear(width, width), nn.Linear(width, width)
        self.bias = RelativeBias(max_len)
        self.norm_out = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self._start_as_average()

    def _start_as_average(self) -> None:
        """Begin as an average of what is seen, the newest weighing most: repeating old items need not be learned."""
        with torch.no_grad():
            self.bias.position.copy_(10 / (torch.arange(len(self.bias.position)) + 5))
            for identity in (self.values, self.out):
                nn.init.eye_(identity.weight)
                nn.init.zeros_(identity.bias)
            nn.init.normal_(self.gates.weight, std=0.01)
            nn.init.ones_(self.gates.bias)

    def forward(self, x: Tensor, present: Tensor, real: Tensor, age: Tensor, next_age: Tensor) -> Tensor:
        """``[B, M, W]``, zeros at places that are not ``present``.

        Args:
            x: ``[N, W]``, of the present places, row by row.
            present: bool[B, L], N of them true: the real ones, and the last of each row.
            real: bool[B, L], places that hold an event.
            age, next_age: int32[B, L].

        """
        length = present.shape[1]
        asking = min(self.asking, length)
        newest = (torch.arange(length) >= length - asking).expand_as(present)[present]  # which of the N ask
        all_places, newest_places = _Places(present), _Places(present[:, -asking:])
        normed = self.norm_in(x)
        k, v = (all_places.spread(F.silu(project(normed))) for project in (self.keys, self.values))
        x, normed = x[newest], normed[newest]
        q, u = (newest_places.spread(F.silu(project(normed))) for project in (self.queries, self.gates))
        weights = F.silu(q / math.sqrt(q.shape[2]) @ k.transpose(1, 2) + self.bias(next_age[:, -asking:], age))
        seen = real[:, None, :] & _causal(asking, length)  # [B, M, L]
        weights = weights * (seen / seen.sum(2, keepdim=True).clamp(min=1))
        answer: Tensor = newest_places.spread(x) + self.out(self.norm_out(weights @ v) * u)
        return answer


class _Places:
    """Where the N present of bool[B, L] places lie."""

    def __init__(self, present: Tensor) -> None:
        self._shape = present.shape
        self._places = present.flatten().nonzero()[:, 0]

    def spread(self, x: Tensor) -> Tensor:
        """Rows ``[N, W]`` at these places, zeros at the others: ``[B, L, W]``."""
        rectangle = x.new_zeros(self._shape.numel(), x.shape[1])
        return rectangle.index_copy_(0, self._places, x).view(*self._shape, -1)


def _causal(queries: int, keys: int) -> Tensor:
    """Which of the keys the newest queries may see: bool[M, L]."""
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


class SequenceModel(nn.Module):
    """Histories to answers, and answers to scores of items; items in and out share one table, on the unit sphere."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.items = nn.Embedding(shape.items + 1, shape.width)
        self.kinds = nn.Embedding(shape.kinds + 1, shape.width) if shape.kinds else None
        self.sizes = nn.Linear(2, shape.width, bias=False) if shape.sizes else None
        lengths = (shape.max_len, *shape.queries[:-1])
        self.layers = nn.ModuleList(
            Layer(shape.width, length, queries) for length, queries in zip(lengths, shape.queries, strict=True)
        )
        self.norm = nn.LayerNorm(shape.width)
        self.temperature = nn.Parameter(torch.tensor(math.log(20.0)))
        if self.sizes is not None:
            nn.init.zeros_(self.sizes.weight)
        for table in (self.items, self.kinds):
            if table is not None:
                nn.init.normal_(table.weight, std=0.05)

    def forward(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Answers at the newest positions: ``[B, M, W]`` of unit length; the last one is for the request.

        Args:
            columns: ``item``: int64[B, L] tokens; ``age``: int32[B, L], seconds from the event to the request; and,
                where the shape says so, ``kind``: int64[B, L], 0 for padding, and ``size``: float32[B, L, 2].

        """
        tokens, age = columns["item"], columns["age"]
        real = tokens != PADDING
        present = F.pad(real[:, :-1], (0, 1), value=True)
        next_age = F.pad(age[:, 1:], (0, 1))  # at the last position the request itself, 0 seconds old
        x = self.items(tokens[present])
        if self.kinds is not None:
            x = x + self.kinds(columns["kind"][present])
        if self.sizes is not None:
            x = x + self.sizes(columns["size"][present])
        for layer in self.layers:
            answers = layer(x, present, real, age, next_age)
            kept = answers.shape[1]
            present, real, age, next_age = (of[:, -kept:] for of in (present, real, age, next_age))
            x = answers[present]
        return F.normalize(self.norm(answers), dim=-1)

    def score(self, answers: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Scores of items: ``[N, C]`` for the tokens int64[C], or for all items, ``[N, items]``."""
        table = self.items.weight[PADDING + 1 :] if tokens is None else self.items(tokens)
        return answers @ F.normalize(table, dim=-1).T * self.temperature.exp()

    def score_own(self, answers: Tensor, tokens: Tensor) -> Tensor:
        """Score of one item for each answer: ``[N]`` for ``answers: [N, W]`` and the tokens int64[N]."""
        return (answers * F.normalize(self.items(tokens), dim=-1)).sum(-1) * self.temperature.exp()
