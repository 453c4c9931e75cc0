"""What flows over pixels have in common, and what is special to NICE, Glow, spline flows and MAF."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from solvable import PAIR, SMALL_FLOWS, log_prob_by_cells, shaken, trained_flow
from solvable import small_flow as small

from benchmark import testing
from benchmark.models.base import GenerativeModel
from benchmark.models.flow.glow import Glow
from benchmark.models.flow.maf import MAF
from benchmark.models.flow.nice import NICE
from benchmark.models.flow.spline_flow import SplineFlow
from benchmark.nn.channels import ActNorm
from benchmark.spec import BadInput, Batch, DataSpec

IMAGES = DataSpec((1, 4, 4), 5, "grid")

FLOWS = [
    pytest.param(NICE, (3, 2, 3), {}, id="nice"),
    pytest.param(Glow, (1, 4, 4), {"scales": 2}, id="glow, two scales"),
    pytest.param(Glow, (3, 4, 2), {"positions": False}, id="glow, colours, without positions"),
    pytest.param(Glow, (1, 8, 8), {"scales": 3, "steps": 1, "widening": 2}, id="glow, three scales"),
    pytest.param(SplineFlow, (1, 3, 4), {}, id="splines over vectors"),
    pytest.param(SplineFlow, (1, 4, 4), {"network": "conv", "scales": 2, "width": 8}, id="splines of convolutions"),
    pytest.param(MAF, (2, 2, 3), {"layers": 3, "depth": 2}, id="maf"),
]


@pytest.mark.parametrize(("kind", "shape", "options"), FLOWS)
def test_inverse_and_log_det(kind: type[GenerativeModel], shape: tuple[int, ...], options: dict[str, Any]) -> None:
    model = shaken(small(kind, DataSpec(shape, 5, "grid"), **options), 0.1).double()
    with testing.seeded(0):
        y = torch.randn(3, *shape, dtype=torch.float64)
    testing.assert_inverse_inverts(model.flow, model.flow.inverse, y)
    testing.assert_log_det_agrees(model.flow, y[:2])
    assert model.flow(y)[0].shape == (3, math.prod(shape))


@pytest.mark.parametrize("dequantisation", ["uniform", "variational"])
@pytest.mark.parametrize("kind", [NICE, SplineFlow, MAF])  # Glow squeezes, and two pixels are no square
def test_bounds_agree_with_the_density_integrated_over_cells(kind: type[GenerativeModel], dequantisation: str) -> None:
    model = trained_flow(kind, dequantisation=dequantisation)
    x = testing.every_example(PAIR)
    truth = log_prob_by_cells(model, x)
    assert truth.exp().sum().item() == pytest.approx(1, abs=0.003)
    with torch.no_grad(), testing.seeded(0):
        elbo = model.elbo(x.repeat(2000, 1, 1, 1)).reshape(2000, 9).mean(0)
        bound = model.importance_bound(x, 20_000)
    torch.testing.assert_close(bound, truth, rtol=0, atol=0.05)
    assert (elbo < truth + 0.02).all()
    testing.assert_frequencies_agree(testing.draw(model, 4000), truth.exp(), PAIR)


def batch(seed: int = 0) -> Batch:
    with testing.seeded(seed):
        return Batch(torch.randint(5, (32, 1, 4, 4)))


@pytest.mark.parametrize("kind", [Glow, SplineFlow, MAF])
def test_the_first_training_step_starts_actnorm_and_a_file_of_weights_knows_it(kind: type[GenerativeModel]) -> None:
    model, again = small(kind, IMAGES).train(), small(kind, IMAGES).train()
    assert not any(norm.initialized for norm in model.modules() if isinstance(norm, ActNorm))
    model.training_step(batch(), 0)
    assert all(norm.initialized for norm in model.modules() if isinstance(norm, ActNorm))
    again.load_state_dict(model.state_dict())
    with testing.seeded(1):
        expected = model.training_step(batch(1), 1)["loss"]
    with testing.seeded(1):
        assert torch.equal(again.training_step(batch(1), 1)["loss"], expected)


@pytest.mark.parametrize("kind", SMALL_FLOWS)
def test_an_examples_bound_does_not_depend_on_who_else_is_scored(kind: type[GenerativeModel]) -> None:
    model = shaken(small(kind, IMAGES, dequantisation="uniform"), 0.1)
    x = batch().x
    with torch.no_grad():
        with testing.seeded(1):
            whole = model.elbo(x)
        with testing.seeded(1):
            changed = model.elbo(torch.cat([x[:16], 4 - x[16:]]))
    torch.testing.assert_close(whole[:16], changed[:16], rtol=1e-4, atol=1e-3)
    assert ((whole - changed)[16:].abs() > 0.1).any()


# NICE ----------------------------------------------------------------------------------------------------------------


def test_couplings_of_nice_move_probability_without_squeezing_it() -> None:
    model = shaken(small(NICE, IMAGES)).double()
    y = torch.randn(6, 1, 4, 4).double()
    _, log_det = model.flow(y)
    *_, scale = model.flow.layers
    assert torch.equal(log_det, scale.s.sum().expand(6))


def test_nice_has_a_logistic_prior_or_a_normal_one() -> None:
    z = torch.tensor([[0.0, 0.0, 3.0]])
    logistic, normal = (small(NICE, IMAGES, prior=prior).density.prior for prior in ("logistic", "normal"))
    assert logistic.log_prob(z).item() == pytest.approx(-2 * math.log(4) - 3 - 2 * math.log1p(math.exp(-3)), rel=1e-6)
    assert normal.log_prob(z).item() == pytest.approx(-1.5 * math.log(2 * math.pi) - 4.5, rel=1e-6)
    assert (logistic.of_normal(z) > normal.of_normal(z))[0, 2]  # its tails are longer


# Glow ----------------------------------------------------------------------------------------------------------------


def test_what_a_scale_of_glow_lets_go_of_is_judged_by_what_it_keeps_alone() -> None:
    """Its prior sees the half that goes on, and never itself: then it would be no density."""
    model = shaken(small(Glow, IMAGES, scales=2)).double()
    split = model.flow.scales[0].layers[-1]
    h = torch.randn(4, 2, 2).double()
    jacobian = torch.autograd.functional.jacobian(lambda h: split(h[None])[0][0], h).reshape(16, 16)
    torch.testing.assert_close(jacobian[:8], torch.eye(16).double()[:8])
    own = jacobian[8:, 8:]
    torch.testing.assert_close(own, own.diagonal().diag())
    assert (jacobian[8:, :8] != 0).any()


@pytest.mark.parametrize(
    ("kind", "side", "options", "words"),
    [
        (Glow, 28, {"scales": 3}, "glow: scales=3 halves 28x28"),
        (Glow, 5, {}, "glow: scales=1 halves 5x5"),
        (SplineFlow, 28, {"scales": 3, "network": "conv"}, "spline_flow: scales=3 halves 28x28"),
    ],
)
def test_refuses_sides_that_cannot_be_halved(
    kind: type[GenerativeModel], side: int, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        small(kind, DataSpec((1, side, side), 3, "grid"), **options)
    small(SplineFlow, DataSpec((1, 5, 5), 3, "grid"), scales=3)  # over vectors there is nothing to halve


# MAF -----------------------------------------------------------------------------------------------------------------


def test_layers_of_maf_read_in_turning_orders_and_a_sample_takes_a_pass_for_each_number() -> None:
    model = shaken(small(MAF, IMAGES)).double()
    assert model.sampler.evaluations == 16
    first, second = (layer for layer in model.flow.layers if type(layer).__name__ == "Autoregressive")
    for layer, before in ((first, torch.ones(16, 16).tril()), (second, torch.ones(16, 16).triu())):
        jacobian = torch.autograd.functional.jacobian(
            lambda y, layer=layer: layer(y[None])[0][0], torch.randn(16).double()
        )
        assert torch.equal(jacobian != 0, before.bool())
