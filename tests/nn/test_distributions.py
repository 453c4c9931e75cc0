"""Densities by their definitions, and the importance bound where it is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from benchmark.nn.distributions import (
    CoupledCategorical,
    CoupledLogistics,
    DiscretisedLogistics,
    importance_bound,
    log_logistic,
    log_normal,
    log_normal_bin,
    logistic_of_normal,
    normal_kl,
)


def test_log_normal_is_that_of_independent_standard_normals() -> None:
    torch.manual_seed(0)
    z = 3 * torch.randn(5, 2, 3, 4, dtype=torch.float64)
    expected = Independent(Normal(torch.zeros(2, 3, 4).double(), 1.0), 3).log_prob(z)
    torch.testing.assert_close(log_normal(z), expected)


def test_logistic_numbers_have_their_density_and_come_from_normal_ones_of_the_same_rank() -> None:
    z = torch.linspace(-40, 40, 81, dtype=torch.float64)[:, None]
    torch.testing.assert_close(log_logistic(z), torch.from_numpy(stats.logistic.logpdf(z[:, 0].numpy())))
    e = torch.linspace(-12, 12, 49, dtype=torch.float64)
    logistic = logistic_of_normal(e)
    assert stats.logistic.logcdf(logistic.numpy()) == pytest.approx(stats.norm.logcdf(e.numpy()))
    torch.testing.assert_close(logistic_of_normal(-e), -logistic)
    assert logistic_of_normal(torch.tensor([9.0])).isfinite().all()  # in single precision, where Φ is 1


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


# Colours of a pixel together -----------------------------------------------------------------------------------------


def pixels(colours: int, levels: int) -> Tensor:
    """Every pixel, [levels ** colours, colours, 1, 1]."""
    every = torch.cartesian_prod(*[torch.arange(levels)] * colours)
    return every.view(-1, colours, 1, 1)


def coupled(kind: str, colours: int, levels: int, spread: float = 1.0):
    torch.manual_seed(0)
    if kind == "categorical":
        tables = [nn.Embedding(levels, levels).double() for _ in range(colours * (colours - 1) // 2)]
        outputs = spread * torch.randn(1, colours * levels, 1, 1).double()
        return lambda n: CoupledCategorical(outputs.expand(n, -1, -1, -1), tables, colours), outputs
    outputs = spread * torch.randn(1, CoupledLogistics.count(colours, 3), 1, 1).double()
    return lambda n: CoupledLogistics(outputs.expand(n, -1, -1, -1), colours, levels), outputs


@pytest.mark.parametrize("kind", ["logistics", "categorical"])
@pytest.mark.parametrize(("colours", "levels", "spread"), [(1, 2, 1), (1, 256, 10), (2, 17, 1), (3, 3, 1), (3, 5, 10)])
@torch.no_grad()
def test_colours_together_sum_to_one(kind: str, colours: int, levels: int, spread: float) -> None:
    x = pixels(colours, levels)
    distribution, _ = coupled(kind, colours, levels, spread)
    log_p = distribution(len(x)).log_prob(x)
    assert log_p.shape == (len(x), 1, 1)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("kind", ["logistics", "categorical"])
def test_colours_are_drawn_as_they_are_scored(kind: str) -> None:
    x = pixels(3, 3)
    distribution, _ = coupled(kind, 3, 3)
    p = distribution(len(x)).log_prob(x).exp().flatten().float()
    drawn = distribution(40_000).sample()
    assert drawn.shape == (40_000, 3, 1, 1)
    assert drawn.dtype == torch.int64
    frequencies = (drawn.flatten(1) @ torch.tensor([9, 3, 1])).bincount(minlength=27) / 40_000
    torch.testing.assert_close(frequencies, p, rtol=0, atol=0.0125)  # 5 standard errors


def test_one_colour_is_the_mixture_of_discretised_logistics() -> None:
    torch.manual_seed(0)
    outputs, x = torch.randn(2, 12, 3, 3), torch.randint(17, (2, 1, 3, 3))
    alone = DiscretisedLogistics(outputs.unsqueeze(2), 17).log_prob(x)[:, 0]
    torch.testing.assert_close(CoupledLogistics(outputs, 1, 17).log_prob(x), alone)


def test_a_pixel_has_one_component_and_means_that_shift() -> None:
    """By the definition (Salimans and others 2017, section 2.2), a loop over components and colours."""
    distribution, outputs = coupled("logistics", 3, 5)
    n, mu, log_scale, coefficients = outputs.flatten().view(10, 3).split([1, 3, 3, 3])
    red, green, blue = level = (3, 0, 4)
    y = [2 * v / 4 - 1 for v in level]
    a, b, c = coefficients.tanh()
    means = (mu[0], mu[1] + a * y[0], mu[2] + b * y[0] + c * y[1])

    def cumulative(edge: float, colour: int) -> Tensor:
        return torch.sigmoid((edge * 2 / 4 - 1 - means[colour]) / log_scale[colour].exp())

    bins = (cumulative(3.5, 0) - cumulative(2.5, 0), cumulative(0.5, 1), 1 - cumulative(3.5, 2))
    expected = (n[0].softmax(0) * bins[0] * bins[1] * bins[2]).sum().log()
    x = torch.tensor([red, green, blue]).view(1, 3, 1, 1)
    torch.testing.assert_close(distribution(1).log_prob(x).squeeze(), expected)


# Normal bins ---------------------------------------------------------------------------------------------------------


def test_the_bins_of_a_normal_variable_are_differences_of_its_distribution_and_sum_to_one() -> None:
    level = torch.arange(5)
    mu, sigma = torch.tensor([-1.3, 0.1, 0.9]).double()[:, None], torch.tensor([0.3, 0.05, 2.0]).double()[:, None]
    log_p = log_normal_bin(level, mu, sigma, 5)
    edges = torch.tensor([-math.inf, -0.75, -0.25, 0.25, 0.75, math.inf]).double()
    expected = Normal(mu, sigma).cdf(edges).diff(dim=1)
    torch.testing.assert_close(log_p.exp(), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(3).double())


def test_far_bins_of_a_normal_variable_have_finite_logarithms_and_gradients() -> None:
    mu = torch.tensor([-1.0, 0.0, 1.0]).repeat_interleave(3).requires_grad_()
    log_sigma = torch.full((9,), -6.0).requires_grad_()
    log_p = log_normal_bin(torch.tensor([0, 8, 16]).repeat(3), mu, log_sigma.exp(), 17)
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert mu.grad is not None
    assert log_sigma.grad is not None
    assert mu.grad.isfinite().all()
    assert log_sigma.grad.isfinite().all()
    assert mu.grad[2] > 0 > mu.grad[6]  # towards the level


def test_the_divergence_of_normals_is_torchs() -> None:
    torch.manual_seed(0)
    mu, v, other, w = torch.randn(4, 50)
    expected = kl_divergence(Normal(mu, (v / 2).exp()), Normal(other, (w / 2).exp()))
    torch.testing.assert_close(normal_kl(mu, v, other, w), expected, rtol=1e-4, atol=1e-5)
