"""Flows: every layer inverts and knows its Jacobian; what a coupling reads and moves."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmark import testing
from benchmark.nn.channels import ActNorm, Mix
from benchmark.nn.flows import (
    Additive,
    Affine,
    Autoregressive,
    Bijection,
    Chain,
    Coupling,
    HalfCoupling,
    Multiscale,
    Reshape,
    Squeeze,
    Transform,
    checkerboard,
    halves,
)
from benchmark.nn.masked import masked_mlp
from benchmark.nn.splines import Spline

SHAPE = (2, 4, 2)


def shaken(layer: Bijection) -> Bijection:
    """The same layer with weights far from the identity, in double precision."""
    layer = layer.double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, outputs, 3, padding=1))


def couple(mask: Tensor, context: int = 0, transform: Transform | None = None) -> Bijection:
    channels, transform = len(mask), transform or Affine(mask.shape)
    return shaken(Coupling(mask, network(channels + context, transform.outputs * channels), transform))


def half(channels: int, transform: Transform) -> Bijection:
    kept = channels // 2
    return shaken(HalfCoupling(network(kept, transform.outputs * (channels - kept)), transform))


def autoregressive(transform: Transform, order: Tensor) -> Bijection:
    return shaken(Autoregressive(order, masked_mlp(order, transform.outputs, 32, 2, 0.0), transform))


def chain(shape: tuple[int, ...] = SHAPE, squeeze: bool = True) -> Chain:
    channels, height, width = shape
    before = [couple(checkerboard(shape, i)) for i in range(2)]
    squeezed = (4 * channels, height // 2, width // 2)
    return Chain(*before, Squeeze(), couple(halves(squeezed, 0))) if squeeze else Chain(*before)


LAYERS: dict[str, tuple[Callable[[], Bijection], tuple[int, ...]]] = {
    "coupling": (lambda: couple(checkerboard(SHAPE, 0)), SHAPE),
    "coupling of channels": (lambda: couple(halves(SHAPE, 1)), SHAPE),
    "additive coupling": (lambda: couple(checkerboard(SHAPE, 0), transform=Additive()), SHAPE),
    "spline coupling": (lambda: couple(checkerboard(SHAPE, 0), transform=Spline(4, 1.5)), SHAPE),
    "half a coupling": (lambda: half(2, Affine((1, 4, 2))), SHAPE),
    "half a coupling of odd channels": (lambda: half(3, Affine((2, 2, 2))), (3, 2, 2)),
    "half a coupling, splines": (lambda: half(2, Spline(5, 2.0)), SHAPE),
    "autoregressive": (lambda: autoregressive(Affine((6,)), torch.arange(6)), (6,)),
    "autoregressive, in another order": (lambda: autoregressive(Affine((6,)), torch.tensor([3, 0, 5, 1, 2, 4])), (6,)),
    "autoregressive splines": (lambda: autoregressive(Spline(4, 2.0), torch.arange(6).flip(0)), (6,)),
    "actnorm": (lambda: shaken(ActNorm(2)), SHAPE),
    "mixed channels": (lambda: shaken(Mix(4)), (4, 2, 3)),
    "squeeze": (Squeeze, SHAPE),
    "reshape": (lambda: Reshape(SHAPE, (16,)), SHAPE),
    "chain": (chain, SHAPE),
    "one scale": (lambda: Multiscale(SHAPE, [chain(squeeze=False)]), SHAPE),
    "three scales": (
        lambda: Multiscale((1, 4, 8), [chain((1, 4, 8)), chain((2, 2, 4)), chain((4, 1, 2), squeeze=False)]),
        (1, 4, 8),
    ),
    "two scales that both squeeze": (
        lambda: Multiscale((1, 4, 8), [chain((1, 4, 8)), chain((2, 2, 4))], all_squeeze=True),
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
