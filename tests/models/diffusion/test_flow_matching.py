"""What is special to flow matching: its density is that of its samples, exactly where one can integrate."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import carry_out
from solvable import SIXTEEN, Linear, gaussian_log_prob
from torch.distributions import Normal

from benchmark import testing
from benchmark.build import build_examination
from benchmark.data.images import Digits
from benchmark.evaluate import Experts, Protocol, evaluate
from benchmark.models.diffusion.flow_matching import FlowMatching
from benchmark.nn.diffusion import divergence, random_directions
from benchmark.spec import BadInput, Batch, DataSpec

TINY = DataSpec((1, 2, 2), 3, "grid")


def model(spec: DataSpec, **options: Any) -> FlowMatching:
    """A model whose head is drawn, so that it says something before training."""
    torch.manual_seed(0)
    net = FlowMatching(spec, **options).eval()
    torch.nn.init.normal_(net.network.head.weight, std=0.5)
    return net


# Closed forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probes", [1, 16])
def test_the_density_of_a_gaussian_is_its_closed_form(probes: int) -> None:
    net = Linear(SIXTEEN, probes=probes)  # its Jacobian is diagonal, so that one probe is exact too
    x = torch.randint(5, (6, 1, 4, 4))
    with testing.seeded(0), torch.no_grad():
        elbo = net.elbo(x)
    with testing.seeded(0), torch.no_grad():
        expected = gaussian_log_prob(net, x)
    torch.testing.assert_close(elbo, expected, rtol=0, atol=2e-3)


def test_samples_of_a_gaussian_have_its_moments() -> None:
    spec = DataSpec((1, 8, 8), 256, "grid")
    with testing.seeded(0):
        x = Linear(spec, steps=20).sample(150).double() / 255 * 2 - 1  # clipped to [-1, 1] as levels are
    clipped = Normal(Linear.mu, Linear.sigma).sample((400_000,)).clamp(-1, 1).double()
    assert x.mean().item() == pytest.approx(clipped.mean().item(), abs=0.025)
    assert x.std().item() == pytest.approx(clipped.std().item(), abs=0.02)


# The density and the samples are one model ---------------------------------------------------------------------------


def learned(**options: Any) -> tuple[FlowMatching, testing.Source]:
    """A model after a brief training on a source over 81 images."""
    torch.manual_seed(0)
    source = testing.Source(TINY)
    net = FlowMatching(TINY, probes=4, dropout=0.0, learning_rate=1e-2, **options)
    optimizer = net.configure_optimizers()
    for step in range(100):
        optimizer.zero_grad()
        net.training_step(source.batch(step), step)["loss"].backward()
        optimizer.step()
    return net.eval(), source


def test_importance_weighted_draws_sum_to_one_and_samples_follow_them() -> None:
    """exp of one draw of the bound is an unbiased estimate of p(x), where the divergence is exact."""
    net, source = learned(likelihood_steps=5)
    with torch.no_grad():
        draws = testing.elbo_draws(net, source.x, 48)  # [K, N]
    p = draws.logsumexp(0).exp() / len(draws)  # [N]
    assert float(p.sum()) == pytest.approx(1, abs=0.01)
    assert float((source.p * p.log()).sum()) > -4.25  # it has learnt: uniform is -4.39
    testing.assert_frequencies_agree(testing.draw(net, 2000), p, TINY)


def test_draws_sum_to_nearly_one_where_the_network_predicts_velocities() -> None:
    """What is missing lies far outside of the levels, where a velocity may lead but no draw of q ever is."""
    net, source = learned(output="velocity")
    with torch.no_grad():
        draws = testing.elbo_draws(net, source.x, 48)  # [K, N]
    p = draws.exp()
    error = float((p.var(0) / len(p)).sum().sqrt())
    assert 0.85 < float(p.mean(0).sum()) < 1 + 5 * error


# The divergence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["levels", "velocity"])
def test_the_divergence_is_the_trace_of_the_jacobian(output: Any) -> None:
    net = model(SIXTEEN, output=output, probes=16)
    y, s = torch.randn(3, 1, 4, 4), 0.8
    denoised, trace = divergence(partial(net.denoised, s=s), y, random_directions(y, net.probes))
    torch.testing.assert_close(denoised - y, net.slope(y, s))
    for example, found in zip(y, trace, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: net.slope(v[None], s)[0] + v, example)
        torch.testing.assert_close(found, jacobian.reshape(16, 16).trace(), rtol=1e-4, atol=1e-4)


def test_hutchinsons_estimate_is_the_exact_divergence_on_average() -> None:
    net, few = model(SIXTEEN, probes=16), model(SIXTEEN, probes=4)
    y = torch.randn(1, 1, 4, 4)
    _, exact = divergence(partial(net.denoised, s=0.8), y, random_directions(y, net.probes))
    many = y.expand(1000, -1, -1, -1)
    _, estimates = divergence(partial(few.denoised, s=0.8), many, random_directions(many, few.probes))
    assert estimates.std() > 0
    assert abs(float(estimates.mean() - exact)) < 5 * float(estimates.std()) / math.sqrt(1000)


# Velocity ------------------------------------------------------------------------------------------------------------


def test_lines_are_straight_where_the_data_are_known() -> None:
    """One level in the data: every velocity is f - ε, whatever the time, and one step of the sampler is exact."""
    net = FlowMatching(DataSpec((1, 4, 4), 3, "grid"), steps=1)
    torch.nn.init.zeros_(net.network.head.weight)
    net.network.head.bias.data = torch.tensor([0.0, 0.0, 1e3])  # the highest level is certain
    epsilon, t = torch.randn(5, 1, 4, 4), torch.tensor([0.0, 0.1, 0.5, 0.6, net.last])
    y = (1 - t.view(-1, 1, 1, 1)) * epsilon + t.view(-1, 1, 1, 1)
    torch.testing.assert_close(net.velocity(y, t), 1 - epsilon)
    assert (net.sample(3) == 2).all()


@pytest.mark.parametrize(("times", "quartiles"), [("uniform", (0.25, 0.75)), ("logit_normal", (0.3375, 0.6625))])
def test_training_times_are_drawn_as_the_option_says(
    times: Any, quartiles: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As shares of T; a quartile of the logit-normal is the sigmoid of ±0.6745."""
    net, seen = FlowMatching(TINY, times=times), []
    monkeypatch.setattr(net, "velocity", lambda y, t: (seen.append(t), torch.zeros_like(y))[1])
    with testing.seeded(0):
        net.training_step(Batch(torch.zeros(20_000, 1, 2, 2, dtype=torch.long)), 0)
    share = seen[0] / net.last
    found = torch.quantile(share, torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(found, torch.tensor(quartiles), rtol=0, atol=0.015)
    assert 0 <= float(share.min()) < float(share.max()) <= 1


def test_levels_near_the_data_are_read_without_a_network() -> None:
    net = FlowMatching(DataSpec((1, 8, 8), 17, "grid"), noise=0.1)
    x = torch.randint(17, (4, 1, 8, 8))
    y = net.last * net.values[x] + (1 - net.last) * torch.randn(x.shape).clamp(-3, 3)
    assert torch.equal(net.read(y).probs.argmax(-1), x)


def test_refuses_scales_that_the_sides_do_not_allow() -> None:
    with pytest.raises(BadInput, match="patch=2 with scales=3 needs sides divisible by 8, the data has 28x28"):
        FlowMatching(DataSpec((1, 28, 28), 256, "grid"), patch=2, scales=3)


# In the harness ------------------------------------------------------------------------------------------------------


def test_twice_the_evaluations_change_the_likelihood_of_digits_by_less_than_its_standard_error() -> None:
    data = Digits(Path("unused"))
    torch.manual_seed(0)
    net = FlowMatching(data.spec, width=8)
    optimizer = net.configure_optimizers()
    for step in range(60):
        optimizer.zero_grad()
        net.training_step(data.batch(0, step, 64), step)["loss"].backward()
        optimizer.step()
    scores = []
    for likelihood_steps in (net.likelihood_steps, 2 * net.likelihood_steps):
        net.likelihood_steps = likelihood_steps
        protocol = Protocol("test", 0, elbo_draws=2, examples=60)
        result = evaluate(net, data, protocol, build_examination("image"), Experts(), ["bits_per_dim"])
        scores.append(result.scores["bits_per_dim"])
    usual, finer = scores
    assert usual.protocol["how"] == {
        "likelihood": "approximate",
        "solver": "runge-kutta 4, gauss-legendre",
        "evaluations": 33,
        "draws": 2,
    }
    assert finer.protocol["how"]["evaluations"] == 61
    assert usual.value is not None
    assert usual.stderr is not None
    assert finer.value is not None
    assert usual.value < 3.5  # it has learnt: uniform is 4.09
    assert abs(usual.value - finer.value) < usual.stderr


@pytest.mark.usefixtures("unscored")
def test_the_checkpoint_is_chosen_by_the_score_that_the_configuration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    small = ["model.width=8", "model.blocks=1", "model.probes=1", "model.steps=2"]
    folder = carry_out(tmp_path, "flow_matching", *small)
    names = {row.split(",")[1] for row in (folder / "curves.csv").read_text().splitlines()[1:]}
    assert {name for name in names if name.startswith("val/")} == {"val/fid"}
    folder = carry_out(tmp_path, "flow_matching", *small, "training.selection=nll")
    assert "val/nll" in (folder / "curves.csv").read_text()


def test_training_steps_are_finite_in_bfloat16() -> None:
    net = model(DataSpec((1, 8, 8), 17, "grid"))
    with torch.autocast("cpu", torch.bfloat16):
        loss = net.training_step(Batch(torch.randint(17, (8, 1, 8, 8))), 0)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
