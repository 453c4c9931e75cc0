"""Flows: every layer inverts and knows its Jacobian, couplings agree with zuko's, noise has the density it reports."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import zuko
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution

from benchmark import testing
from benchmark.nn.dequantised import Logit, UniformDequantisation, VariationalDequantisation
from benchmark.nn.flows import (
    Affine,
    Bijection,
    Chain,
    Coupling,
    Multiscale,
    Squeeze,
    checkerboard,
    halves,
)

SHAPE = (2, 4, 2)


def couple(mask: Tensor, context: int = 0) -> Coupling:
    """A coupling with weights far from the identity, in double precision."""
    channels = len(mask)
    network = nn.Sequential(
        nn.Conv2d(channels + context, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 2 * channels, 3, padding=1)
    )
    coupling = Coupling(mask, network, Affine(mask.shape)).double()
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return coupling


def chain(shape: tuple[int, ...] = SHAPE, squeeze: bool = True) -> Chain:
    channels, height, width = shape
    before = [couple(checkerboard(shape, i)) for i in range(2)]
    squeezed = (4 * channels, height // 2, width // 2)
    return Chain(*before, Squeeze(), couple(halves(squeezed, 0))) if squeeze else Chain(*before)


LAYERS: dict[str, tuple[Callable[[], Bijection], tuple[int, ...]]] = {
    "coupling": (lambda: couple(checkerboard(SHAPE, 0)), SHAPE),
    "coupling of channels": (lambda: couple(halves(SHAPE, 1)), SHAPE),
    "squeeze": (Squeeze, SHAPE),
    "chain": (chain, SHAPE),
    "one scale": (lambda: Multiscale(SHAPE, [chain(squeeze=False)]), SHAPE),
    "three scales": (
        lambda: Multiscale((1, 4, 8), [chain((1, 4, 8)), chain((2, 2, 4)), chain((4, 1, 2), squeeze=False)]),
        (1, 4, 8),
    ),
}


@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS.keys())
def test_a_layer_inverts_and_its_log_det_is_that_of_autograds_jacobian(
    make: Callable[[], Bijection], shape: tuple[int, ...]
) -> None:
    with testing.seeded(0):
        layer, x = make(), torch.randn(3, *shape, dtype=torch.float64)
    testing.assert_inverse_inverts(layer, layer.inverse, x)
    testing.assert_log_det_agrees(layer, x)


def test_a_context_reaches_every_coupling_of_a_chain_and_of_a_scale() -> None:
    with testing.seeded(0):
        flow = Multiscale(SHAPE, [Chain(*(couple(checkerboard(SHAPE, i), context=1) for i in range(2)))])
        x, context = torch.randn(3, *SHAPE).double(), torch.randn(3, 1, 4, 2).double()
    z, log_det = flow(x, context)
    torch.testing.assert_close(flow.inverse(z, context), x)
    for part in (z, log_det):
        assert not torch.allclose(part, flow(x, context + 1)[z is not part])


# Couplings -----------------------------------------------------------------------------------------------------------


def test_what_the_mask_lets_through_is_unchanged_and_is_all_that_the_rest_depends_on() -> None:
    """The Jacobian: the identity where the mask is true, diagonal where it is not."""
    with testing.seeded(0):
        mask = checkerboard(SHAPE, 0)
        coupling, x = couple(mask), torch.randn(SHAPE, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: coupling(v[None])[0][0], x).reshape(16, 16)
    kept = mask.flatten()
    torch.testing.assert_close(jacobian[kept], torch.eye(16).double()[kept])
    moved = jacobian[~kept][:, ~kept]
    torch.testing.assert_close(moved, moved.diagonal().diag())
    assert (moved.diagonal() != 1).all()
    assert (jacobian[~kept][:, kept] != 0).any()


def test_an_affine_coupling_scales_by_less_than_its_bound() -> None:
    affine = Affine((1, 2, 2))
    y, log_slope = affine(torch.ones(1, 1, 2, 2), torch.tensor([1e3, 0.5]).view(1, 2, 1, 1).expand(1, 2, 2, 2))
    torch.testing.assert_close(log_slope, torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(y, torch.full((1, 1, 2, 2), math.e + 0.5))


def as_zuko(coupling: Coupling) -> zuko.transforms.CouplingTransform:
    """The same coupling, by zuko's own transforms: the network's weights are all that is copied."""
    mask = coupling.mask.flatten()
    assert isinstance(coupling.transform, Affine)
    bound = coupling.transform.bound

    def meta(seen: Tensor) -> zuko.transforms.DependentTransform:
        whole = seen.new_zeros(*seen.shape[:-1], len(mask))
        whole[..., mask] = seen
        outputs = coupling.network(whole.reshape(-1, *coupling.mask.shape))
        s, t = (half.flatten(1)[:, ~mask] for half in outputs.chunk(2, 1))
        log_scale = bound.flatten()[~mask] * s.tanh()
        # zuko squashes a to a / (1 + |a / log slope|): undone, with room below the least slope
        slope = 1e-6
        a = log_scale / (1 - (log_scale / math.log(slope)).abs())
        affine = zuko.transforms.MonotonicAffineTransform(t, a, slope=slope)
        return zuko.transforms.DependentTransform(affine, 1)

    return zuko.transforms.CouplingTransform(meta, mask)


def test_a_chain_of_affine_couplings_agrees_with_zuko() -> None:
    with testing.seeded(0):
        couplings = [couple(checkerboard(SHAPE, i)) for i in range(4)]
        y = torch.randn(20, *SHAPE, dtype=torch.float64)
    ours = Chain(*couplings)
    theirs = zuko.transforms.ComposedTransform(*map(as_zuko, couplings))
    with torch.no_grad():
        z, log_det = ours(y)
        expected, their_log_det = theirs.call_and_ladj(y.flatten(1))
        torch.testing.assert_close(z.flatten(1), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(log_det, their_log_det, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours.inverse(z).flatten(1), theirs.inv(expected), rtol=1e-9, atol=1e-9)


def test_masks_take_turns() -> None:
    assert checkerboard((1, 2, 2), 0).int().tolist() == [[[0, 1], [1, 0]]]
    assert halves((2, 1, 1), 0).int().flatten().tolist() == [1, 0]
    for mask in (checkerboard, halves):
        assert torch.equal(mask((4, 2, 2), 0), ~mask((4, 2, 2), 1))
        assert torch.equal(mask((4, 2, 2), 0), mask((4, 2, 2), 2))


# Scales --------------------------------------------------------------------------------------------------------------


def test_squeeze_makes_channels_of_the_pixels_of_a_square() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    y, _ = Squeeze()(x)
    assert y.shape == (1, 4, 2, 2)
    assert y[0, :, 0, 1].tolist() == [2, 3, 6, 7]


def test_scales_let_go_of_the_second_half_of_the_channels_first() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    flow = Multiscale((1, 4, 4), [Chain(Squeeze()), Chain()])
    z, log_det = flow(x)
    lower_rows = [4, 6, 12, 14, 5, 7, 13, 15]  # of each square: channels 2 and 3
    assert z[0].tolist() == [*lower_rows, 0, 2, 8, 10, 1, 3, 9, 11]
    assert log_det.tolist() == [0]


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
        layers = [couple(mask, context=1) for mask in masks]
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
