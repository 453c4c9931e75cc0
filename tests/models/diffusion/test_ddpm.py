"""What is special to denoising diffusion: its schedules, its bound term by term, and how its steps are drawn."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from solvable import PIXEL, P
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from benchmark import testing
from benchmark.models.diffusion.ddpm import DDPM, noise_schedule
from benchmark.spec import BadInput, Batch, DataSpec

PIXELS = DataSpec((1, 2, 2), levels=3, structure="grid")
GREY = DataSpec((1, 8, 8), levels=17, structure="grid")


def model(spec: DataSpec = PIXELS, **options: Any) -> DDPM:
    """A model whose head is drawn, so that it says something before training."""
    torch.manual_seed(0)
    net = DDPM(spec, **{"width": 8, "dropout": 0.0, **options}).eval()
    head: Any = net.network.head
    torch.nn.init.normal_(head.weight, std=0.3)
    return net


class Perfect(DDPM):
    """Knows E[x_0 | x_t] of independent pixels whose levels -1, 0 and 1 have the probabilities P."""

    def predict(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        alpha, sigma = self.at(t).sqrt().float(), (1 - self.at(t)).sqrt().float()
        values = torch.tensor([-1.0, 0.0, 1.0])
        distance = (x_t.unsqueeze(-1) - alpha.unsqueeze(-1) * values) / sigma.unsqueeze(-1)
        x_0 = ((P.log() - distance.square() / 2).softmax(-1) * values).sum(-1)
        output = (alpha * x_t - x_0) / sigma if self.output == "v" else (x_t - alpha * x_0) / sigma
        return output, torch.zeros_like(x_t) if self.variances == "learned" else None


# Schedules -----------------------------------------------------------------------------------------------------------


def test_the_linear_schedule_is_the_papers_product() -> None:
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    found = noise_schedule("linear", 1000, 0.0, 256)
    assert found[0] == 1
    torch.testing.assert_close(found[1:], (1 - beta).cumprod(0), rtol=0, atol=1.5e-3)  # the limit of many steps


def test_the_cosine_schedule_is_the_papers_formula_but_for_its_last_step() -> None:
    u = torch.arange(0, 1001, dtype=torch.float64) / 1000
    f = torch.cos((u + 0.008) / 1.008 * math.pi / 2).square()
    found = noise_schedule("cosine", 1000, 0.0, 256)
    torch.testing.assert_close(found[:-1], (f / f[0])[:-1])
    assert found[-1] / found[-2] == pytest.approx(0.001)  # β = 0.999, not 1


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_first_step_leaves_the_noise_that_the_option_says(name: str) -> None:
    for noise, levels in ((0.5, 17), (1.3, 256), (0.2, 2)):
        found = noise_schedule(name, 100, noise, levels)
        assert ((1 - found[1]) / found[1]).sqrt() == pytest.approx(noise * 2 / (levels - 1), rel=1e-6)
        assert (found.diff() < 0).all()


# The bound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "s"), [(30, 29), (2, 1), (100, 60)])
def test_the_posterior_is_bayes_rule(t: int, s: int) -> None:
    """q(x_s | x_0) times q(x_t | x_s), as precisions add."""
    net = model(diffusion_steps=100, sampler_steps=10)
    x_0, x_t = torch.randn(2, 4, 1, 2, 2)
    mean, small, large = net.posterior(x_0, x_t, torch.tensor([t] * 4), torch.tensor([s] * 4))
    a_s, ratio = net.alpha_bar[s], net.alpha_bar[t] / net.alpha_bar[s]
    precision = 1 / (1 - a_s) + ratio / (1 - ratio)
    torch.testing.assert_close(small, (1 / precision).float().expand(4, 1, 1, 1))
    torch.testing.assert_close(large, (1 - ratio).float().expand(4, 1, 1, 1))
    expected = (a_s.sqrt() * x_0 / (1 - a_s) + ratio.sqrt() * x_t / (1 - ratio)) / precision
    torch.testing.assert_close(mean, expected.float(), rtol=1e-4, atol=1e-5)


def test_variances_lie_between_both_bounds_on_a_scale_of_logarithms() -> None:
    net, small, large = model(), torch.tensor(0.01), torch.tensor(0.04)
    share = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(net.log_variance(share, small, large).exp(), torch.tensor([0.01, 0.02, 0.04]))


@pytest.mark.parametrize("output", ["v", "noise"])
def test_terms_agree_with_their_definitions(output: Any) -> None:
    net = model(GREY, output=output, diffusion_steps=50, sampler_steps=5)
    x = torch.randint(17, (6, 1, 8, 8))
    t = torch.tensor([1, 1, 2, 20, 49, 50])
    with torch.no_grad():
        x_t, right = net.diffuse(x, t)
        predicted, share = net.predict(x_t, t)
        found = net.terms(x, x_t, t, predicted, share)
        f = x.float() / 8 - 1
        if output == "v":
            torch.testing.assert_close(net.denoise(x_t, t, right), f, rtol=1e-3, atol=1e-3)
        x_0 = net.denoise(x_t, t, predicted)
        assert x_0.abs().max() <= 1
        mean, small, large = net.posterior(f, x_t, t, t - 1)
        ours = Normal(net.posterior(x_0, x_t, t, t - 1)[0], (0.5 * net.log_variance(share, small, large)).exp())
        kl = kl_divergence(Normal(mean, small.sqrt()), ours).flatten(1).sum(1)
        upper = torch.where(x == 16, torch.ones_like(f), ours.cdf(f + 1 / 16))
        lower = torch.where(x == 0, torch.zeros_like(f), ours.cdf(f - 1 / 16))
        first = -(upper.double() - lower.double()).log().flatten(1).sum(1)
    torch.testing.assert_close(found[2:], kl[2:], rtol=1e-3, atol=1e-4)
    believable = first[:2].isfinite()
    torch.testing.assert_close(found[:2][believable].double(), first[:2][believable], rtol=1e-2, atol=1e-2)
    last = Normal(net.alpha_bar[-1].sqrt() * f.double(), (1 - net.alpha_bar[-1]).sqrt())
    prior = kl_divergence(last, Normal(torch.zeros(()).double(), torch.ones(()).double())).flatten(1).sum(1)
    torch.testing.assert_close(net.prior_term(x).double(), prior, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("loss", ["bound", "simple"])
def test_a_draw_of_the_bound_is_all_steps_together_on_average(loss: Any) -> None:
    """Whatever the probabilities of the steps: one of all for each image, or all of them one after the other."""
    net = model(PIXELS, loss=loss, variances="small", diffusion_steps=20, sampler_steps=5)
    x = torch.randint(3, (1, 1, 2, 2)).expand(20_000, -1, -1, -1)
    with torch.no_grad(), testing.seeded(0):
        whole = net.step_costs(x)
        for square in (torch.zeros(20), torch.linspace(1, 9, 20)):
            net.square.copy_(square)
            net.known.fill_(float(square.any()))
            elbo = net.elbo(x)
            error = float(elbo.std()) / math.sqrt(len(x))
            assert abs(float(elbo.mean() + whole.sum())) < 4 * error + 0.02 * float(whole.sum())
    assert whole.shape == (21,)


@pytest.mark.parametrize("output", ["v", "noise"])
def test_a_perfect_denoiser_costs_little_more_than_log_p(output: Any) -> None:
    """What is lost: that each of finitely many steps is a Gaussian."""
    options: dict[str, Any] = {"variances": "small", "loss": "simple", "noise": 0.1, "width": 8}
    net = Perfect(PIXEL, output=output, diffusion_steps=800, **options).eval()
    with torch.no_grad(), testing.seeded(0):
        nats = [net.step_costs(torch.full((1000, 1, 1, 1), level)).sum() for level in range(3)]
    lost = torch.stack(nats) + P.log()
    assert lost.abs().max() < 0.04
    assert 0 < float((P * lost).sum()) < 0.015


# Samplers ------------------------------------------------------------------------------------------------------------


def test_ancestral_samples_of_a_perfect_denoiser_follow_its_distribution() -> None:
    """Few of many steps, and all of them."""
    x = testing.every_example(PIXELS)
    options: dict[str, Any] = {"noise": 0.2, "width": 8, "sampler_name": "ancestral", "sampler_steps": 200}
    for steps in (1000, 200):
        net = Perfect(PIXELS, diffusion_steps=steps, **options)
        testing.assert_frequencies_agree(testing.draw(net.eval(), 1500), P[x].flatten(1).prod(1), PIXELS)


def test_ddim_follows_the_flow_of_a_perfect_denoiser() -> None:
    net, x = Perfect(PIXELS, sampler_steps=200, width=8), testing.every_example(PIXELS)
    testing.assert_frequencies_agree(testing.draw(net.eval(), 1500), P[x].flatten(1).prod(1), PIXELS)


@pytest.mark.parametrize("name", ["ddim", "ancestral"])
def test_a_sampler_asks_at_as_many_steps_as_it_says_and_first_at_the_last(name: Any, monkeypatch: Any) -> None:
    net, asked = model(sampler_name=name, sampler_steps=7), []
    predict = net.predict
    monkeypatch.setattr(net, "predict", lambda x_t, t: (asked.append(int(t[0])), predict(x_t, t))[1])
    with torch.no_grad():
        net.sample(2)
    assert len(asked) == net.sampler.evaluations == 7
    assert asked[0] == 1000
    assert all(1 <= later < sooner for sooner, later in pairwise(asked))


# How it learns -------------------------------------------------------------------------------------------------------


def test_the_average_square_of_a_step_forgets() -> None:
    net = model(diffusion_steps=3, sampler_steps=2)
    net.remember(torch.tensor([1, 3, 3]), torch.tensor([2.0, 1.0, 3.0]))
    net.remember(torch.tensor([1]), torch.tensor([4.0]))
    torch.testing.assert_close(net.known, torch.tensor([1 - 0.9**2, 0.0, 1 - 0.9**2]))
    torch.testing.assert_close(
        net.square / net.known, torch.tensor([(0.09 * 4 + 0.1 * 16) / 0.19, math.nan, 5.0]), equal_nan=True
    )


def test_steps_are_drawn_in_proportion_to_their_root_mean_square_loss_once_all_are_known() -> None:
    net = model(diffusion_steps=4, sampler_steps=2)
    before = net.probabilities()
    assert before.sum() == pytest.approx(1)
    net.square.copy_(0.9 * torch.tensor([1.0, 4.0, 9.0, 16.0]))
    net.known.fill_(0.9)
    p = net.probabilities()
    torch.testing.assert_close(p, 0.99 * torch.tensor([0.1, 0.2, 0.3, 0.4]) + 0.01 / 4)
    net.known[2] = 0.1
    torch.testing.assert_close(net.probabilities(), before)
    counts = torch.bincount(net.draw_steps(p, 1000), minlength=5)
    assert counts[0] == 0
    assert ((counts[1:] - 1000 * p).abs() <= 1).all()  # evenly spread


def test_in_the_hybrid_loss_the_bound_teaches_variances_alone() -> None:
    x = torch.randint(3, (16, 1, 2, 2))

    def gradient(**options: Any) -> Tensor:
        net = model(**options)
        with testing.seeded(0):
            net.training_step(Batch(x), 0)["loss"].backward()
        head: Any = net.network.head
        grad: Tensor = head.bias.grad
        return grad

    hybrid, simple = gradient(loss="hybrid"), gradient(loss="simple", variances="large")
    assert hybrid[1] != 0
    net = model(loss="hybrid")
    with testing.seeded(0):
        step = net.training_step(Batch(x), 0)
    (alone,) = torch.autograd.grad(step["simple"], [net.network.head.bias])
    torch.testing.assert_close(hybrid[0], alone[0])
    assert alone[1] == 0
    assert simple.shape == (1,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "simple"}, "teaches no variances"),
        ({"sampler_steps": 11, "diffusion_steps": 10}, "sampler_steps=11 of diffusion_steps=10"),
        ({"diffusion_steps": 1, "sampler_steps": 1}, "at least two"),
        ({"scales": 3}, "ddpm: patch=1 with scales=3 needs sides divisible by 4"),
        ({"network": "dit", "heads": 3}, "ddpm: width=16 of a transformer must be divisible by heads=3"),
    ],
)
def test_refuses_options_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        DDPM(PIXELS, **options)


def test_training_steps_are_finite_in_bfloat16() -> None:
    net = model(GREY).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = net.training_step(Batch(torch.randint(17, (8, 1, 8, 8))), 0)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
