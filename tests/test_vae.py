"""What is special to the VAE: its decoders are distributions over levels, and its bounds agree with quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from benchmark.models.vae.vae import VAE, DiscretisedLogistics
from benchmark.spec import BadInput, Batch, DataSpec

SPEC = DataSpec((1, 2, 2), levels=3, structure="grid")
DIGITS = DataSpec((1, 8, 8), levels=17, structure="grid")


def trained(spec: DataSpec, steps: int = 100, **options: object) -> tuple[VAE, torch.Tensor]:
    """A model after a few steps on eight images."""
    torch.manual_seed(0)
    x = torch.randint(spec.levels, (8, *spec.shape))
    model = VAE(spec, dropout=0.0, learning_rate=1e-2, **options)  # type: ignore[arg-type]
    optimizer = model.configure_optimizers()
    for step in range(steps):
        optimizer.zero_grad()
        model.training_step(Batch(x), step)["loss"].backward()
        optimizer.step()
    return model.eval(), x


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_discretised_logistics_sum_to_one_over_levels_even_when_extreme(levels):
    torch.manual_seed(0)
    outputs = torch.randn(5, 6, 1, 3, 3, dtype=torch.float64) * torch.logspace(-1, 1.5, 5)[:, None, None, None, None]
    pixel = DiscretisedLogistics(outputs, levels)
    total = sum(pixel.log_prob(torch.full((5, 1, 3, 3), level, dtype=torch.float64)).exp() for level in range(levels))
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


def log_prob_by_quadrature(model: VAE, x: torch.Tensor) -> torch.Tensor:
    """log ∫ p(x | z) p(z) dz `[B]` over a latent of two dimensions, on a grid."""
    axis = torch.linspace(-6, 6, 301)
    z = torch.cartesian_prod(axis, axis)  # [N, 2]
    log_cell = 2 * math.log(12 / 300)
    with torch.no_grad():
        log_prior = Normal(0.0, 1.0).log_prob(z).sum(1)
        joint = model.log_likelihood(x, z[:, None].expand(-1, len(x), -1)) + log_prior[:, None]
    return joint.logsumexp(0) + log_cell


@pytest.mark.parametrize("likelihood", ["categorical", "logistics"])
def test_bounds_agree_with_quadrature_over_a_two_dimensional_latent(likelihood):
    model, x = trained(SPEC, latent=2, width=16, depth=1, likelihood=likelihood)
    exact = log_prob_by_quadrature(model, x)
    with torch.no_grad():
        elbo = torch.stack([model.elbo(x) for _ in range(2000)]).mean(0)
        bound = model.importance_bound(x, 20_000)
    torch.testing.assert_close(bound, exact, rtol=0, atol=0.05)
    assert (elbo < exact + 0.02).all()


def test_importance_bound_does_not_depend_on_its_chunks():
    model, x = trained(SPEC, steps=5, latent=2, width=16)
    with torch.no_grad():
        torch.manual_seed(1)
        whole = model.importance_bound(x, 4000)
        model.chunk = 8 * 64
        pieces = model.importance_bound(x, 4000)
    torch.testing.assert_close(whole, pieces, rtol=0, atol=0.1)


def test_beta_and_importance_samples_touch_training_only():
    torch.manual_seed(0)
    x = torch.randint(17, (4, 1, 8, 8))
    scores = []
    for options in ({}, {"beta": 5.0}, {"importance_samples": 5}):
        torch.manual_seed(1)
        model = VAE(DIGITS, **options).eval()
        torch.manual_seed(2)
        scores.append(model.elbo(x))
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])


def test_importance_weighted_training_minimises_the_importance_bound():
    torch.manual_seed(0)
    model = VAE(DIGITS, importance_samples=50, dropout=0.0)
    x = torch.randint(17, (4, 1, 8, 8))
    torch.manual_seed(1)
    loss = model.training_step(Batch(x), 0)["loss"]
    torch.manual_seed(1)
    torch.testing.assert_close(loss, -model.importance_bound(x, 50).mean())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 12)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical", "logistics"])
def test_convolutional_network_serves_every_likelihood(shape, likelihood):
    torch.manual_seed(0)
    model = VAE(DataSpec(shape, 2, "grid"), network="conv", width=16, depth=1, likelihood=likelihood).eval()
    x = torch.randint(2, (3, *shape))
    with torch.no_grad():
        assert model.sample(2).shape == (2, *shape)
        assert model.reconstruct(x).dtype == torch.int64
        at_start = -model.elbo(x).mean() / math.prod(shape)
    assert math.log(2) * 0.9 < at_start < math.log(2) * 1.3  # near uniform before training


def test_options_that_do_not_fit_the_data_are_refused_in_one_line():
    with pytest.raises(BadInput, match="needs 2 levels, the data has 17"):
        VAE(DIGITS, likelihood="bernoulli")
    with pytest.raises(BadInput, match="divisible by 4"):
        VAE(DataSpec((1, 6, 6), 2, "grid"), network="conv")
