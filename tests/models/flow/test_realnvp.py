"""What is special to RealNVP: an inverse, a log-determinant, and a bound that agrees with the density over cells."""

from __future__ import annotations

import math

import pytest
import torch
from solvable import PAIR, log_prob_by_cells, shaken, small_flow, trained_flow
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution

from benchmark import testing
from benchmark.models.flow.realnvp import RealNVP
from benchmark.spec import BadInput, DataSpec

FLOWS = [
    pytest.param((1, 4, 4), {"network": "mlp"}, id="mlp"),
    pytest.param((1, 4, 4), {"network": "conv"}, id="conv"),
    pytest.param((1, 4, 4), {"network": "conv", "positions": False}, id="conv without positions"),
    pytest.param((1, 4, 4), {"network": "mlp", "scales": 2}, id="two scales"),
    pytest.param((3, 8, 4), {"network": "conv", "scales": 2}, id="colours, not square"),
    pytest.param((1, 8, 8), {"network": "conv", "scales": 3, "couplings": 1}, id="three scales"),
]


@pytest.mark.parametrize(("shape", "options"), FLOWS)
def test_inverse_and_log_det(shape, options):
    model = shaken(small_flow(RealNVP, DataSpec(shape, 5, "grid"), **options)).double()
    y = torch.randn(3, *shape, dtype=torch.float64)
    testing.assert_inverse_inverts(model, model.inverse, y)
    testing.assert_log_det_agrees(model, y[:2])
    z, _ = model(y)
    assert z.shape == (3, math.prod(shape))


def test_learnt_noise_has_the_density_it_reports():
    """A Monte-Carlo integral over uniform u of q(u | x) is one, and without couplings q is a logistic-normal."""
    model = shaken(small_flow(RealNVP, PAIR, noise_couplings=1))
    x = torch.tensor([[[[0, 2]]]]).expand(20_000, 1, 1, 2)
    torch.manual_seed(0)
    with torch.no_grad():
        _, log_q = model.dequantise(x)
    assert (-log_q).exp().mean().item() == pytest.approx(1, abs=0.05)  # E_q[1 / q] is the volume of the unit square

    plain = small_flow(RealNVP, PAIR, noise_couplings=0).eval()  # at the start its one conditional normal is standard
    with torch.no_grad():
        v, log_q = plain.dequantise(x)
    logistic_normal = TransformedDistribution(Normal(0.0, 1.0), SigmoidTransform())
    expected = logistic_normal.log_prob(torch.sigmoid(v.double())).sum((1, 2, 3))
    torch.testing.assert_close(log_q.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dequantisation", ["uniform", "variational"])
def test_bounds_agree_with_the_density_integrated_over_cells(dequantisation):
    model, x = trained_flow(RealNVP, dequantisation=dequantisation), testing.every_example(PAIR)
    truth = log_prob_by_cells(model, x)
    assert truth.exp().sum().item() == pytest.approx(1, abs=0.002)
    with torch.no_grad(), testing.seeded(0):
        elbo = model.elbo(x.repeat(2000, 1, 1, 1)).reshape(2000, 9).mean(0)
        bound = model.importance_bound(x, 20_000)
    torch.testing.assert_close(bound, truth, rtol=0, atol=0.05)
    assert (elbo < truth + 0.02).all()
    testing.assert_frequencies_agree(testing.draw(model, 4000), truth.exp(), PAIR)


def test_squeezing_before_the_logit_loses_only_what_lies_beyond_the_ends():
    model, x = trained_flow(RealNVP, dequantisation="uniform", alpha=0.1), testing.every_example(PAIR)
    truth = log_prob_by_cells(model, x).exp()
    assert truth.sum() < 1
    samples = testing.draw(model, 20_000)
    frequency = testing.index_of(samples, PAIR).bincount(minlength=9) / 20_000
    assert (truth < frequency + 0.015).all()
    assert truth[4].item() == pytest.approx(frequency[4].item(), abs=0.015)  # the cell in the middle has no end


def test_importance_bound_is_the_mean_of_weights_whatever_its_chunks():
    model, x = shaken(small_flow(RealNVP, PAIR)), testing.every_example(PAIR)  # 9 images
    model.chunk = 90
    with torch.no_grad():
        with testing.seeded(0):
            bound = model.importance_bound(x, 25)
        with testing.seeded(0):
            weights = torch.cat([model.elbo(x.repeat(k, 1, 1, 1)).reshape(k, 9) for k in (10, 10, 5)])
    torch.testing.assert_close(bound, weights.logsumexp(0) - math.log(25))


def test_odd_sides_are_no_obstacle_to_the_last_scale():
    small_flow(RealNVP, DataSpec((1, 28, 28), 256, "grid"), scales=3)  # 28, 14, 7


@pytest.mark.parametrize(
    ("side", "options", "words"),
    [(28, {"scales": 4}, "scales=4 halves 28x28"), (2, {"scales": 2}, "scales=2"), (28, {"alpha": 0.5}, r"alpha=0\.5")],
)
def test_refuses_what_cannot_be_built(side, options, words):
    with pytest.raises(BadInput, match=words):
        small_flow(RealNVP, DataSpec((1, side, side), 3, "grid"), **options)
