"""What is special to variational diffusion: a perfect denoiser loses nothing, and the schedule learns its path."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from solvable import PIXEL, SMALL_VDM, P, perfect

from benchmark import testing
from benchmark.models.diffusion.vdm import VDM, Schedule
from benchmark.spec import BadInput, DataSpec
from benchmark.testing import behaviour, likelihoods

PIXELS = DataSpec((1, 2, 2), levels=3, structure="grid")


def test_a_perfect_denoiser_costs_log_p_and_no_more():
    """In continuous time the bound is tight but for its ends: E[elbo(x)] = log p(x) for every x, not on average."""
    model, draws = perfect(), 40_000
    with torch.no_grad(), testing.seeded(0):
        elbo = model.elbo(testing.every_example(PIXEL).repeat(draws, 1, 1, 1)).view(draws, 3)
    error = elbo.std(0) / math.sqrt(draws)
    assert error.max() < 0.05
    assert (elbo.mean(0) < P.log() + 4 * error).all()
    torch.testing.assert_close(elbo.mean(0), P.log(), rtol=0, atol=0.05)


def test_an_ignorant_denoiser_is_uniform():
    """At the start the logits are zero: every level costs log 3."""
    torch.manual_seed(0)
    model, draws = VDM(PIXEL, **SMALL_VDM).eval(), 40_000
    with torch.no_grad():
        elbo = model.elbo(testing.every_example(PIXEL).repeat(draws, 1, 1, 1)).view(draws, 3)
    torch.testing.assert_close(-elbo.mean(0), torch.full((3,), math.log(3)), rtol=0, atol=0.05)


def test_samples_of_a_perfect_denoiser_follow_its_distribution():
    model, x = perfect(PIXELS, steps=100), testing.every_example(PIXELS)
    testing.assert_frequencies_agree(testing.draw(model, 2000), P[x].flatten(1).prod(1), PIXELS)


def test_prior_and_reconstruction_terms_agree_with_their_definitions():
    model = perfect(PIXELS)
    x = testing.every_example(PIXELS)[:40]
    f = (2 * x.double() + 1) / 3 - 1
    first, last = model.schedule.first.detach().double(), model.schedule.last.detach().double()
    with torch.no_grad():
        terms = model.losses(x)
        log_p = model.log_likelihood(torch.full((1, 1, 2, 2), 0.1), first.float()[None]).log_softmax(-1)
    normal, posterior = (
        torch.distributions.Normal(a * f, s.sqrt())
        for a, s in ((0.0, torch.ones(())), (torch.sigmoid(-last).sqrt(), torch.sigmoid(last)))
    )
    kl = torch.distributions.kl_divergence(posterior, normal).sum((1, 2, 3))
    torch.testing.assert_close(terms["prior"].double(), kl, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(1, 1, 2, 2))
    likelihood = torch.distributions.Normal(torch.sigmoid(-first).sqrt() * model.values, torch.sigmoid(first).sqrt())
    expected = likelihood.log_prob(torch.tensor(0.1)).log_softmax(0).float()
    torch.testing.assert_close(log_p[0, 0, 0, 0], expected, rtol=1e-3, atol=1e-3)


def test_schedule_runs_from_end_to_end_and_its_slope_is_the_derivative():
    torch.manual_seed(0)
    schedule = Schedule(-8.0, 5.0).double()
    with torch.no_grad():
        for parameter in (schedule.line, schedule.height, schedule.steepness, schedule.centre):
            parameter.add_(0.5 * torch.randn_like(parameter))
    t = torch.linspace(0, 1, 101, dtype=torch.float64, requires_grad=True)
    gamma, slope = schedule(t)
    (expected,) = torch.autograd.grad(gamma.sum(), t)
    torch.testing.assert_close(slope, expected)
    assert (slope > 0).all()
    assert gamma[0].item() == pytest.approx(-8.0)
    assert gamma[-1].item() == pytest.approx(5.0)


def test_path_of_the_schedule_learns_to_make_the_loss_even():
    """Its gradient is that of the loss's variance: following it alone evens out the loss and leaves the mean."""
    model, x = perfect(), testing.every_example(PIXEL).repeat(100, 1, 1, 1)
    path = [model.schedule.line, model.schedule.height, model.schedule.steepness, model.schedule.centre]
    optimizer = torch.optim.Adam(path, lr=0.05)

    def spread() -> tuple[float, float]:
        with torch.no_grad(), testing.seeded(1):
            losses = torch.cat([model.losses(x)["diffusion"] for _ in range(30)])
        return float(losses.mean()), float(losses.std())

    (mean_before, before), gradient = spread(), None
    for _ in range(60):
        optimizer.zero_grad()
        model.losses(x)["diffusion"].mean().backward()
        gradient = gradient or model.schedule.height.grad.abs().sum()
        optimizer.step()
    mean_after, after = spread()
    assert gradient > 0
    assert after < 0.8 * before
    assert mean_after == pytest.approx(mean_before, abs=0.1)


def test_times_of_a_batch_are_spread_evenly(monkeypatch):
    """Every time is uniform on [0, 1], and one batch has as many early as late: equally spaced, from anywhere."""
    model, seen, interior = perfect(), [], Schedule.interior
    monkeypatch.setattr(Schedule, "interior", lambda self, t: (seen.append(t), interior(self, t))[1])
    with torch.no_grad():
        for _ in range(200):
            model.elbo(torch.zeros(16, 1, 1, 1, dtype=torch.long))
    times = torch.stack(seen)  # [200, 16]
    assert times.min() >= 0
    assert times.max() < 1
    gaps = times.sort(1).values.diff(dim=1)
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 16))
    assert (times.mean(0) - 0.5).abs().max() < 4 * math.sqrt(1 / 12 / 200)


def test_refuses_patches_that_do_not_fit():
    with pytest.raises(BadInput, match="patch=3 does not divide 28x28"):
        VDM(DataSpec((1, 28, 28), 256, "grid"), patch=3)


# The network predicts noise ------------------------------------------------------------------------------------------


def test_predicted_noise_gives_the_loss_of_the_paper() -> None:
    """Equation 17 as the paper trains it: γ'(t) / 2 times the squared error of the noise (section 4)."""
    torch.manual_seed(0)
    model: Any = VDM(PIXELS, output="noise", **SMALL_VDM).eval()
    torch.nn.init.normal_(model.network.leave[-1].weight)
    x = testing.every_example(PIXELS)[:5]
    found: dict[str, torch.Tensor] = {}

    def remembered(z: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        found.update(z=z, gamma=gamma, epsilon=z + network(z, gamma).squeeze(-1))
        return network(z, gamma)

    network, model.network = model.network, torch.nn.Module()
    model.network.forward = remembered
    with torch.no_grad(), testing.seeded(0):
        diffusion = model.losses(x)["diffusion"]
    with torch.no_grad(), testing.seeded(0):
        torch.randn(x.shape)  # of the reconstruction
        t = (torch.rand(()) + torch.arange(5) / 5) % 1
        epsilon = torch.randn(x.shape)
        gamma, slope = model.schedule(t)
    torch.testing.assert_close(found["gamma"], gamma)
    error = (epsilon - found["epsilon"]).square().sum((1, 2, 3))
    torch.testing.assert_close(diffusion, 0.5 * slope * error, rtol=1e-3, atol=1e-3)


def test_samples_of_predicted_noise_follow_the_posterior_of_a_known_pixel() -> None:
    """All data are one level v: the noise is (z - α v) / σ, and every sample is that level."""
    model: Any = VDM(PIXEL, output="noise", steps=20, **SMALL_VDM).eval()

    class Known(torch.nn.Module):
        def forward(self, z: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
            alpha, sigma = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
            epsilon = (z - alpha.view(-1, 1, 1, 1) * model.values[2]) / sigma.view(-1, 1, 1, 1)
            return (epsilon - z).unsqueeze(-1)

    model.network = Known()
    with torch.no_grad(), testing.seeded(0):
        assert (model.sample(50) == 2).all()
        bound = model.elbo(torch.full((50, 1, 1, 1), 2))
    assert bound.mean().item() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("law", [behaviour.assert_trains_every_parameter, likelihoods.assert_is_a_bound])
def test_a_network_that_predicts_noise_without_positions_keeps_the_laws(law: Callable[[testing.Subject], None]) -> None:
    law(testing.Subject(partial(VDM, output="noise", positions=False, **SMALL_VDM), "grid"))
