"""Densities by their definitions, and the importance bound where it is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from benchmark.nn.distributions import DiscretisedLogistics, importance_bound, log_normal


def test_log_normal_is_that_of_independent_standard_normals() -> None:
    torch.manual_seed(0)
    z = 3 * torch.randn(5, 2, 3, 4, dtype=torch.float64)
    expected = Independent(Normal(torch.zeros(2, 3, 4).double(), 1.0), 3).log_prob(z)
    torch.testing.assert_close(log_normal(z), expected)


# The importance bound ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "chunk", "asked"), [(25, 10, [10, 10, 5]), (4, 9, [4]), (3, 1, [1, 1, 1])])
def test_importance_bound_is_the_log_mean_of_all_weights(samples: int, chunk: int, asked: list[int]) -> None:
    """Whatever the chunks, and where exp would overflow and underflow."""
    torch.manual_seed(0)
    log_weights = 5 * torch.randn(samples, 3, dtype=torch.float64) + torch.tensor([0.0, 2000.0, -2000.0])
    rest, sizes = list(log_weights), []

    def draw(k: int) -> Tensor:
        sizes.append(k)
        return torch.stack([rest.pop(0) for _ in range(k)])

    bound = importance_bound(draw, samples, chunk)
    assert sizes == asked
    shift = log_weights.max(0).values
    torch.testing.assert_close(bound, (log_weights - shift).exp().mean(0).log() + shift)


def test_importance_bound_tightens_to_the_evidence_of_a_gaussian() -> None:
    """z ~ N(0, 1), x | z ~ N(z, 1): p(x) is N(0, 2), and the prior proposes z."""
    x = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)

    def draw(k: int) -> Tensor:
        z = torch.randn(k, 3, generator=generator, dtype=torch.float64)
        return Normal(z, 1.0).log_prob(x)

    evidence = Normal(0.0, math.sqrt(2)).log_prob(x)
    torch.testing.assert_close(importance_bound(draw, 200_000, 7000), evidence, rtol=0, atol=0.02)
    one = torch.stack([importance_bound(draw, 1, 1) for _ in range(2000)]).mean(0)
    assert (one < evidence - 0.1).all()


# Discretised logistics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_discretised_logistics_sum_to_one_over_levels_even_when_extreme(levels):
    torch.manual_seed(0)
    outputs = torch.randn(5, 6, 1, 3, 3, dtype=torch.float64) * torch.logspace(-1, 1.5, 5)[:, None, None, None, None]
    pixel = DiscretisedLogistics(outputs, levels)
    every = [torch.full((5, 1, 3, 3), level, dtype=torch.float64) for level in range(levels)]
    total = torch.stack([pixel.log_prob(x).exp() for x in every]).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-9)


def test_discretised_logistics_are_differences_of_the_cumulative_distribution():
    torch.manual_seed(0)
    outputs = torch.randn(4, 6, 1, 2, 2, dtype=torch.float64)
    logits, mu, log_scale = outputs.chunk(3, dim=1)
    x = torch.randint(17, (4, 1, 2, 2))

    def cumulative(edge: torch.Tensor) -> torch.Tensor:  # of the mixture, at an edge between levels
        position = (edge * 2 / 16 - 1).unsqueeze(1)
        return (logits.softmax(1) * torch.sigmoid((position - mu) / log_scale.exp())).sum(1)

    upper = torch.where(x == 16, 1.0, cumulative(x + 0.5))
    lower = torch.where(x == 0, 0.0, cumulative(x - 0.5))
    torch.testing.assert_close(DiscretisedLogistics(outputs, 17).log_prob(x.double()).exp(), upper - lower)


def test_discretised_logistics_keep_finite_gradients_far_from_the_data():
    outputs = (torch.randn(2, 6, 1, 4, 4) * 100).requires_grad_()
    log_p = DiscretisedLogistics(outputs, 256).log_prob(torch.randint(256, (2, 1, 4, 4)).float())
    log_p.sum().backward()
    assert torch.isfinite(log_p).all()
    assert torch.isfinite(outputs.grad).all()


def test_discretised_logistics_sample_what_they_score():
    torch.manual_seed(0)
    pixel = DiscretisedLogistics(torch.randn(1, 6, 1, 2, 2), 4)
    drawn = pixel.sample((40_000,))
    for level in range(4):
        p = pixel.log_prob(torch.full((1, 1, 2, 2), float(level))).exp()
        torch.testing.assert_close((drawn == level).float().mean(0), p, rtol=0, atol=0.012)  # 5 standard errors
