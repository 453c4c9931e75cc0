"""Draws have the probabilities of the softmax that temperature, top-k and top-p leave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.nn.sampling import draw

N = 20_000
P = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15])


def assert_frequencies(expected: Tensor, **options: Any) -> None:
    """Of `N` draws from `P`: within five standard errors, and never what cannot be."""
    torch.manual_seed(0)
    counts = draw(P.log().expand(N, -1), **options).bincount(minlength=len(P))
    assert (counts - N * expected).abs().le(5 * (N * expected * (1 - expected)).sqrt()).all(), counts / N


def test_by_default_draws_as_torch_does_from_the_softmax() -> None:
    logits = torch.randn(50, 7)
    torch.manual_seed(1)
    ours = draw(logits)
    torch.manual_seed(1)
    assert torch.equal(ours, torch.multinomial(logits.softmax(1), 1).squeeze(1))


def test_each_distribution_of_any_shape_gives_one_value() -> None:
    wanted = torch.randint(4, (2, 3, 5))
    logits = torch.full((2, 3, 5, 4), -1e4).scatter(-1, wanted[..., None], 0.0)
    assert torch.equal(draw(logits), wanted)
    assert draw(logits[0, 0, 0]).shape == ()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_temperature_is_a_power_of_the_probabilities(temperature: float) -> None:
    p = P ** (1 / temperature)
    assert_frequencies(p / p.sum(), temperature=temperature)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 3, 4]),
        ({"top_k": 9}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.0}, [1]),
        ({"top_p": 0.39}, [1]),
        ({"top_p": 0.41}, [1, 3]),
        ({"top_p": 0.8}, [1, 3, 4]),
        ({"top_p": 1.0}, [0, 1, 2, 3, 4]),
        ({"top_k": 2, "top_p": 0.55}, [1]),  # which has 4 / 7 of what top_k leaves
    ],
    ids=str,
)
def test_only_the_likeliest_are_drawn_in_their_proportions(options: dict[str, Any], kept: list[int]) -> None:
    p = torch.zeros(5).index_copy(0, torch.tensor(kept), P[kept])
    assert_frequencies(p / p.sum(), **options)


def test_rows_have_nuclei_of_their_own() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.45, 0.45]]).log()
    drawn = torch.stack([draw(logits, top_p=0.85) for _ in range(100)])
    assert set(drawn[:, 0].tolist()) == {0}
    assert set(drawn[:, 1].tolist()) == {1, 2}
