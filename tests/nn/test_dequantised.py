"""Noise has the density it reports, the logit its Jacobian, and the whole is a bound whose samples follow it."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution

from benchmark import testing
from benchmark.nn.dequantised import (
    DequantisedFlow,
    Logit,
    Prior,
    UniformDequantisation,
    VariationalDequantisation,
    dequantise,
)
from benchmark.nn.distributions import log_logistic, logistic_of_normal
from benchmark.nn.flows import Affine, Coupling, Reshape, checkerboard


def couple(mask: Tensor) -> Coupling:
    """A coupling that sees one more channel, with weights far from the identity, in double precision."""
    network = nn.Sequential(nn.Conv2d(len(mask) + 1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 2, 3, padding=1))
    coupling = Coupling(mask, network, Affine(mask.shape)).double()
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return coupling


# Dequantisation ------------------------------------------------------------------------------------------------------


def test_uniform_noise_is_uniform_and_has_density_one() -> None:
    with testing.seeded(0):
        v, log_q = UniformDequantisation()(torch.zeros(5000, 1, 2, 2, dtype=torch.long))
    assert log_q.tolist() == [0] * 5000
    assert v.shape == (5000, 1, 2, 2)
    assert stats.kstest(torch.sigmoid(v.double()).flatten().numpy(), "uniform").pvalue > 0.01


def test_learnt_noise_without_layers_is_logistic_normal() -> None:
    with testing.seeded(0):
        v, log_q = VariationalDequantisation(3, [])(torch.zeros(100, 1, 1, 2, dtype=torch.long))
    logistic_normal = TransformedDistribution(Normal(0.0, 1.0), SigmoidTransform())
    expected = logistic_normal.log_prob(torch.sigmoid(v.double())).sum((1, 2, 3))
    torch.testing.assert_close(log_q.double(), expected, rtol=1e-3, atol=1e-3)


def test_learnt_noise_has_the_density_it_reports_and_depends_on_the_level() -> None:
    """By a change of variables from the normal draw to u, with autograd's Jacobian."""
    shape = (1, 1, 3)
    masks = [torch.zeros(shape, dtype=torch.bool), *(checkerboard(shape, i) for i in range(2))]
    with testing.seeded(0):
        layers = [couple(mask) for mask in masks]
    noise_of = VariationalDequantisation(3, [copy.deepcopy(layer).float() for layer in layers])
    x = torch.tensor([0, 1, 2]).expand(6, *shape)
    context = x[:1].double() - 1  # three levels on [-1, 1]

    def noise(normal: Tensor) -> Tensor:
        v = normal[None]
        for layer in layers:
            v, _ = layer(v, context)
        return torch.sigmoid(v[0])

    with testing.seeded(1):
        normal = torch.randn(x.shape).double()
    with testing.seeded(1), torch.no_grad():
        v, log_q = noise_of(x)
        other, _ = noise_of(2 - x)
    for one, found, log_density in zip(normal, v, log_q, strict=True):
        torch.testing.assert_close(torch.sigmoid(found.double()), noise(one), rtol=1e-4, atol=1e-5)
        jacobian = torch.autograd.functional.jacobian(noise, one).reshape(3, 3)
        expected = Normal(0.0, 1.0).log_prob(one).sum() - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_density.double(), expected, rtol=1e-4, atol=1e-4)
    assert (v - other).abs().max() > 0.05


# The logit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_logit_is_that_of_the_squeezed_cell_with_its_jacobian(alpha: float) -> None:
    logit = Logit(3, alpha)
    x = torch.tensor([[[[0, 1]]], [[[2, 2]]]])
    with testing.seeded(0):
        u = torch.rand(x.shape, dtype=torch.float64)
    squeezed = alpha + (1 - 2 * alpha) * (x + u) / 3
    y, log_jacobian = logit(x, torch.logit(u))
    torch.testing.assert_close(y, torch.logit(squeezed))
    testing.assert_log_det_agrees(lambda u: logit(x[:1], torch.logit(u)), u[:1])
    slope = (1 - 2 * alpha) / (3 * squeezed * (1 - squeezed))
    torch.testing.assert_close(log_jacobian, slope.log().sum((1, 2, 3)))
    assert torch.equal(logit.inverse(y), x)


def test_extreme_noise_is_not_rounded_to_nothing() -> None:
    v = torch.full((2, 1, 1, 2), 60.0) * torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    x = torch.tensor([0, 2]).view(2, 1, 1, 1).expand(2, 1, 1, 2)
    y, log_jacobian = Logit(3, 0.0)(x, v)
    assert torch.isfinite(y).all()
    assert torch.isfinite(log_jacobian).all()
    torch.testing.assert_close(y[0], -y[1])


def test_the_nearest_level_takes_what_lies_beyond_the_ends() -> None:
    assert Logit(3, 0.1).inverse(torch.tensor([-50.0, -2.0, 0.0, 2.0, 50.0])).tolist() == [0, 0, 1, 2, 2]


# The whole -----------------------------------------------------------------------------------------------------------


class Identity(Reshape):
    """z is y; a parameter says on which device."""

    def __init__(self, *shape: int) -> None:
        super().__init__(shape, (math.prod(shape),))
        self.nothing = nn.Parameter(torch.zeros(()))


LOGISTIC = Prior(log_logistic, logistic_of_normal)


def plain(levels: int = 4) -> DequantisedFlow:
    """Two coordinates: the logit of a uniform number is logistic, so that all levels are equally likely."""
    return DequantisedFlow((2,), Identity(1, 1, 2), Logit(levels, 0.0), UniformDequantisation(), LOGISTIC)


def test_a_logistic_prior_behind_no_flow_makes_all_levels_equally_likely() -> None:
    """Whatever the noise: the bound is exact."""
    x = torch.tensor([[0, 3], [2, 2], [1, 0]])
    with testing.seeded(0):
        elbo, tight = plain().elbo(x), plain().importance_bound(x, 7, chunk=6)
        samples = plain().sample(20_000)
    torch.testing.assert_close(elbo, torch.full((3,), -2 * math.log(4)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tight, elbo, rtol=1e-5, atol=1e-5)
    assert samples.shape == (20_000, 2)
    share = samples.flatten().bincount() / samples.numel()
    torch.testing.assert_close(share, torch.full((4,), 0.25), rtol=0, atol=0.01)


def test_a_walk_goes_through_the_prior_in_small_steps() -> None:
    with testing.seeded(0):
        paths = plain(levels=100).interpolate(500, 21)
    assert paths.shape == (500, 21, 2)
    spread = paths.double().std((0, 2))  # every point is a sample: uniform over 100 levels
    torch.testing.assert_close(spread, torch.full((21,), 28.9).double(), rtol=0.06, atol=0)
    steps = [float((after - before).abs().double().mean()) for before, after in pairwise(paths.unbind(1))]
    assert max(steps) < 6


def test_what_the_inverse_misses_is_reported() -> None:
    class Wrong(Identity):
        def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
            return super().inverse(y, context) + 0.25

    wrong = DequantisedFlow((2,), Wrong(1, 1, 2), Logit(4, 0.0), UniformDequantisation())
    x = torch.tensor([[0, 3], [2, 2]])
    assert wrong.diagnostics(x)["inverse_error"] == pytest.approx(0.25, abs=1e-5)
    assert plain().diagnostics(x) == {"inverse_error": 0.0}


def test_learnt_noise_is_a_conditional_normal_and_couplings_that_take_turns() -> None:
    grid = (1, 2, 3)
    assert isinstance(dequantise("uniform", grid, 4, 2, couple), UniformDequantisation)
    learnt = dequantise("variational", grid, 4, 2, couple)
    assert isinstance(learnt, VariationalDequantisation)
    masks = [layer.mask for layer in learnt.layers if isinstance(layer, Coupling)]
    expected = [torch.zeros(grid).bool(), checkerboard(grid, 0), checkerboard(grid, 1)]
    assert all(torch.equal(mask, other) for mask, other in zip(masks, expected, strict=True))
