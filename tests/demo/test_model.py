"""The model's laws: no answer sees later events, padding changes nothing, and everything learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from loader.demo.model import PADDING, TIME_BUCKETS, ModelShape, RelativeBias, SequenceModel, SmallLookup, bucket_gaps

ITEMS = 50


def build_model(queries: tuple[int, ...] = (12,), seed: int = 0) -> SequenceModel:
    torch.manual_seed(seed)
    model = SequenceModel(ModelShape(ITEMS, max_len=12, queries=queries, width=16, kinds=5, sizes=True))
    with torch.no_grad():  # away from the identities that it starts with
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.double()


def draw_columns(examples: int, length: int, seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    age = torch.randint(0, 10**8, (examples, length)).sort(1, descending=True).values
    return {
        "item": torch.randint(1, ITEMS + 1, (examples, length)),
        "age": age.int(),
        "kind": torch.randint(1, 6, (examples, length)),
        "size": torch.rand(examples, length, 2, dtype=torch.float64),
    }


def pad_left(columns: dict[str, Tensor], places: int) -> dict[str, Tensor]:
    rest = {name: F.pad(values, (places, 0)) for name, values in columns.items() if name != "size"}
    return {**rest, "size": F.pad(columns["size"], (0, 0, places, 0))}


@pytest.mark.parametrize("queries", [(12,), (12, 12), (9, 6)])
@pytest.mark.parametrize("changed", [4, 8, 11])
def test_later_events_do_not_change_an_answer(queries: tuple[int, ...], changed: int) -> None:
    model, columns = build_model(queries), draw_columns(3, 12)
    before = model(columns)
    for name, other in draw_columns(3, 12, seed=2).items():
        columns[name] = columns[name].clone()
        if name == "age":  # the time of the next event is known when it is predicted: one place more stays
            columns[name][:, changed + 1 :] = other[:, changed + 1 :].clamp(max=int(columns[name][:, changed].min()))
        else:
            columns[name][:, changed:] = other[:, changed:]
    after = model(columns)
    answers = before.shape[1]
    earlier = changed - (12 - answers)  # answers before the place that changed
    torch.testing.assert_close(after[:, : max(earlier, 0)], before[:, : max(earlier, 0)], rtol=0, atol=0)
    assert not torch.allclose(after[:, -1], before[:, -1])


@pytest.mark.parametrize("queries", [(12,), (3, 2)])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_padding_does_not_change_an_answer(queries: tuple[int, ...], length: int) -> None:
    model, columns = build_model(queries), draw_columns(4, length)
    plain = model(columns)
    padded = model(pad_left(columns, 5))
    torch.testing.assert_close(padded[:, -plain.shape[1] :], plain, rtol=1e-9, atol=1e-12)


def test_an_answer_does_not_depend_on_the_rest_of_its_batch() -> None:
    model = build_model()
    short, long = draw_columns(1, 3), draw_columns(1, 10, seed=5)
    padded = pad_left(short, 7)
    both = {name: torch.cat([padded[name], long[name]]) for name in short}
    together = model(both)
    torch.testing.assert_close(together[:1, -3:], model(short), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(together[1:], model(long), rtol=1e-9, atol=1e-12)


def test_an_empty_history_has_a_finite_answer() -> None:
    nothing = {name: torch.zeros_like(values) for name, values in draw_columns(2, 1).items()}
    answers = build_model()(nothing)
    assert torch.isfinite(answers).all()
    torch.testing.assert_close(answers.norm(dim=-1), torch.ones(2, 1, dtype=torch.float64))


def test_every_parameter_gets_a_gradient() -> None:
    model = build_model((12, 6))
    scores = model.score(model(draw_columns(8, 12)).flatten(0, 1))
    F.cross_entropy(scores, torch.randint(0, ITEMS, (len(scores),))).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_bias_is_one_number_for_each_query_and_key() -> None:
    bias = RelativeBias(max_len=12)
    with torch.no_grad():
        bias.position.copy_(torch.arange(12.0))
    age = draw_columns(2, 7)["age"]
    table = bias(F.pad(age[:, 1:], (0, 1))[:, -3:], age)
    assert table.shape == (2, 3, 7)
    assert table[0, 2].tolist() == [6, 5, 4, 3, 2, 1, 0]  # the newest query: steps back to each key
    assert table[0, 0, :5].tolist() == [4, 3, 2, 1, 0]


def test_buckets_are_powers_of_two_of_seconds() -> None:
    gaps = torch.tensor([-5, 0, 1, 2, 3, 4, 1023, 1024, 2**31 - 1], dtype=torch.int32)
    assert bucket_gaps(gaps).tolist() == [0, 0, 1, 2, 2, 3, 10, 11, TIME_BUCKETS - 1]


def test_small_lookup_has_the_gradient_of_indexing() -> None:
    table = torch.randn(6, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 6, (4, 5), dtype=torch.int32)
    weights = torch.randn(4, 5, dtype=torch.float64)
    (SmallLookup.apply(table, index) * weights).sum().backward()  # type: ignore[no-untyped-call]
    twin = table.detach().clone().requires_grad_()
    (twin[index.long()] * weights).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(table.grad, twin.grad)


def test_scores_of_some_items_are_those_among_all() -> None:
    model = build_model()
    answers = model(draw_columns(3, 4))[:, -1]
    everything = model.score(answers)
    tokens = torch.tensor([7, 1, ITEMS])
    assert everything.shape == (3, ITEMS)
    torch.testing.assert_close(model.score(answers, tokens), everything[:, tokens - PADDING - 1])
    torch.testing.assert_close(model.score_own(answers, tokens), model.score(answers, tokens).diagonal())
