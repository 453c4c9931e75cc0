"""What is special to EDM: scales that keep the network's task alike, and densities in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from benchmark import testing
from benchmark.models.diffusion.edm import EDM
from benchmark.nn.distributions import log_normal
from benchmark.spec import BadInput, Batch, DataSpec

TINY = DataSpec((1, 2, 2), 3, "grid")
SIXTEEN = DataSpec((1, 4, 4), 5, "grid")


class Linear(EDM):
    """The exact F of independent Gaussian data, f ~ N(μ, s²): every density of the path is Gaussian too."""

    mu, s = 0.3, 0.6

    def output(self, z: Tensor, sigma: Tensor) -> Tensor:
        c_skip, c_out, c_in = self.scales(sigma)
        noise = sigma.view(-1, 1, 1, 1)
        y = z / c_in
        denoised = (self.s**2 * y + noise**2 * self.mu) / (self.s**2 + noise**2)
        return ((denoised - c_skip * y) / c_out).float()


def learned(**options: Any) -> tuple[EDM, testing.Source]:
    """A model after a brief training on a source over 81 images."""
    torch.manual_seed(0)
    source = testing.Source(TINY)
    net = EDM(TINY, width=16, dropout=0.0, learning_rate=1e-2, **options)
    optimizer = net.configure_optimizers()
    for step in range(150):
        optimizer.zero_grad()
        net.training_step(source.batch(step), step)["loss"].backward()
        optimizer.step()
    return net.eval(), source


# Preconditioning -----------------------------------------------------------------------------------------------------


def test_what_the_network_sees_and_what_it_is_to_say_have_unit_variance() -> None:
    net = EDM(TINY)
    net.sigma_data.fill_(0.7)
    sigma = torch.tensor([1e-3, 0.1, 0.7, 5.0, 80.0], dtype=torch.float64)
    c_skip, c_out, c_in = (scale.flatten().double() for scale in net.scales(sigma))
    torch.testing.assert_close(c_in.square() * (sigma.square() + 0.49), torch.ones(5).double(), rtol=1e-5, atol=0)
    target = ((1 - c_skip).square() * 0.49 + c_skip.square() * sigma.square()) / c_out.square()  # eq. 120 is made so
    torch.testing.assert_close(target, torch.ones(5).double(), rtol=1e-4, atol=0)


def test_the_spread_of_the_data_is_that_of_the_first_batch_and_travels_with_the_weights() -> None:
    net = EDM(SIXTEEN)
    first, second = torch.randint(5, (64, 1, 4, 4)), torch.full((64, 1, 4, 4), 2)
    net.training_step(Batch(first), 0)
    spread = (first.float() / 2 - 1).std()
    torch.testing.assert_close(net.sigma_data, spread)
    net.training_step(Batch(second), 1)
    torch.testing.assert_close(net.sigma_data, spread)
    other = EDM(SIXTEEN)
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other.sigma_data, spread)
    assert other.measured


def test_the_loss_weighs_the_denoiser_as_the_paper_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """λ(σ) |D - f|² with λ = (σ² + σ_d²) / (σ σ_d)², at log-normal levels of noise."""
    torch.manual_seed(0)
    net = EDM(SIXTEEN, sigma_mean=-1.0, sigma_spread=0.5).eval()
    head: Any = net.network.head
    torch.nn.init.normal_(head.weight)
    x, seen = torch.randint(5, (4000, 1, 4, 4)), []
    output = net.output
    monkeypatch.setattr(net, "output", lambda z, sigma: (seen.append((z, sigma)), output(z, sigma))[1])
    with torch.no_grad():
        loss = net.training_step(Batch(x), 0)["loss"]
    ((z, sigma),) = seen
    f, d = x.float() / 2 - 1, net.sigma_data
    y = z * (sigma.square() + d.square()).sqrt().view(-1, 1, 1, 1)
    weight = (sigma.square() + d.square()) / (sigma * d).square()
    with torch.no_grad():
        error = (net.denoise(y, sigma) - f).square().mean((1, 2, 3))
    torch.testing.assert_close(loss, (weight * error).mean(), rtol=1e-3, atol=0)
    in_units = (sigma / (2 * d)).log()
    assert float(in_units.mean()) == pytest.approx(-1.0, abs=0.03)
    assert float(in_units.std()) == pytest.approx(0.5, abs=0.03)


# The density and the samples are one model ---------------------------------------------------------------------------


@pytest.mark.parametrize("probes", [1, 16])
def test_the_density_of_a_gaussian_is_its_closed_form(probes: int) -> None:
    net = Linear(SIXTEEN, probes=probes, likelihood_steps=12)  # its Jacobian is diagonal: one probe is exact too
    x = torch.randint(5, (6, 1, 4, 4))
    with testing.seeded(0), torch.no_grad():
        elbo = net.elbo(x)
    with testing.seeded(0):
        epsilon = torch.randn(x.shape)
    y = x.float() / 2 - 1 + net.sigma_min * epsilon
    growth = math.hypot(net.s, net.sigma_max) / math.hypot(net.s, net.sigma_min)  # of distances from μ along the flow
    log_p = Normal(0.0, net.sigma_max).log_prob(net.mu + growth * (y - net.mu)) + math.log(growth)
    log_p += net.read(y).log_prob(x)
    log_q = log_normal(epsilon) - 16 * math.log(net.sigma_min)
    torch.testing.assert_close(elbo, log_p.flatten(1).sum(1) - log_q, rtol=0, atol=1e-2)


def test_samples_of_a_gaussian_have_its_moments() -> None:
    spec = DataSpec((1, 8, 8), 256, "grid")
    with testing.seeded(0):
        x = Linear(spec, steps=30).sample(150).double() / 255 * 2 - 1  # clipped to [-1, 1] as levels are
    clipped = Normal(Linear.mu, Linear.s).sample((400_000,)).clamp(-1, 1).double()
    assert x.mean().item() == pytest.approx(clipped.mean().item(), abs=0.025)
    assert x.std().item() == pytest.approx(clipped.std().item(), abs=0.02)


def test_importance_weighted_draws_sum_to_nearly_one_and_samples_follow_them() -> None:
    """exp of one draw of the bound is an unbiased estimate of p(x), where the divergence is exact; what is missing lies
    where no draw of q ever is."""
    net, source = learned(noise=0.35, probes=4)
    with torch.no_grad():
        draws = testing.elbo_draws(net, source.x, 96)  # [K, N]
    p = draws.logsumexp(0).exp() / len(draws)  # [N]
    assert 0.9 < float(p.sum()) < 1.03
    assert float((source.p * p.log()).sum()) > -4.3  # it has learnt: uniform is -4.39
    testing.assert_frequencies_agree(testing.draw(net, 1000), p / p.sum(), TINY)


# The sampler ---------------------------------------------------------------------------------------------------------


def test_the_sampler_takes_the_papers_levels_of_noise_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    net, asked = EDM(DataSpec((1, 2, 2), 256, "grid"), noise=0.255, steps=17), []

    def denoise(y: Tensor, sigma: Tensor) -> Tensor:
        assert y.dtype == sigma.dtype == torch.float64
        asked.append(float(sigma[0]))
        return torch.full_like(y, 0.5)

    monkeypatch.setattr(net, "denoise", denoise)
    assert (net.sample(2) == 191).sum() >= 6  # between 191 and 192: 0.5 is level 191.25
    assert len(asked) == net.sampler.evaluations == 34
    path = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert asked[::2] == pytest.approx(path[:-1])
    assert asked[1::2] == pytest.approx(path[1:])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": 100.0}, "choose less than sigma_max"),
        ({"scales": 3}, "edm: patch=1 with scales=3 needs sides divisible by 4"),
        ({"network": "dit", "patch": 3}, "edm: patch=3 does not divide 2x2 images"),
    ],
)
def test_refuses_options_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        EDM(TINY, **options)


def test_training_steps_are_finite_in_bfloat16() -> None:
    net = EDM(DataSpec((1, 8, 8), 17, "grid"))
    with torch.autocast("cpu", torch.bfloat16):
        loss = net.training_step(Batch(torch.randint(17, (8, 1, 8, 8))), 0)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
