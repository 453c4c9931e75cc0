"""Flows against zuko's, where both describe the same transformation: density, inverse and log-determinant.

Only numbers are handed over: outputs of our networks, and our matrices. All of the arithmetic of a layer is zuko's own.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark import testing
from benchmark.models.flow.glow import Glow
from benchmark.models.flow.maf import MAF
from benchmark.models.flow.nice import NICE, Scale
from benchmark.models.flow.realnvp import RealNVP
from benchmark.models.flow.spline_flow import SplineFlow
from benchmark.nn.channels import ActNorm, Mix
from benchmark.nn.dequantised import DequantisedFlow
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
)
from benchmark.nn.splines import LEAST, Spline
from benchmark.spec import DataSpec

zuko = pytest.importorskip("zuko")
SLOPE = 1e-6  # least slope that zuko allows: room enough for ours


def soft(a: Tensor, times: float) -> Tensor:
    """What zuko's squashing a / (1 + |times a / log SLOPE|) sends to `a`."""
    return a / (1 - (times * a / math.log(SLOPE)).abs())


# Transforms of single numbers, [B, n] with parameters [B, outputs, n] -----------------------------------------------


@singledispatch
def theirs(transform: Transform, parameters: Tensor, places: Tensor) -> Any:
    raise NotImplementedError(type(transform))


@theirs.register
def _(transform: Additive, parameters: Tensor, places: Tensor) -> Any:
    return zuko.transforms.AdditiveTransform(parameters[:, 0])


@theirs.register
def _(transform: Affine, parameters: Tensor, places: Tensor) -> Any:
    s, t = parameters.unbind(1)
    a = soft(transform.bound.flatten()[places] * s.tanh(), 1)
    return zuko.transforms.MonotonicAffineTransform(t, a, slope=SLOPE)


@theirs.register
def _(transform: Spline, parameters: Tensor, places: Tensor) -> Any:
    K = transform.bins
    widths, heights, slopes = parameters.movedim(1, -1).split([K, K, K - 1], -1)
    logits = [(LEAST + (1 - LEAST * K) * part.softmax(-1)).log() for part in (widths, heights)]
    logits = [soft(part - part.mean(-1, keepdim=True), 2) for part in logits]
    log_slopes = soft((F.softplus(slopes + math.log(math.expm1(1 - LEAST))) + LEAST).log(), 1)
    return zuko.transforms.MonotonicRQSTransform(*logits, log_slopes, transform.bound, SLOPE)


# Layers of flattened [B, D] ------------------------------------------------------------------------------------------


@singledispatch
def as_zuko(layer: Bijection, shape: tuple[int, ...]) -> list[Any]:
    """zuko's layers that do what `layer` does to [B, *shape]."""
    raise NotImplementedError(type(layer))


def shape_behind(layer: Bijection, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(layer(torch.zeros(1, *shape, dtype=torch.float64))[0].shape[1:])


@as_zuko.register
def _(layer: Chain, shape: tuple[int, ...]) -> list[Any]:
    found = []
    for part in layer.layers:
        found += as_zuko(part, shape)
        shape = shape_behind(part, shape)
    return found


@as_zuko.register
def _(layer: Reshape, shape: tuple[int, ...]) -> list[Any]:
    return []


@as_zuko.register(Squeeze)
def _(layer: Squeeze, shape: tuple[int, ...]) -> list[Any]:
    places = torch.arange(math.prod(shape), dtype=torch.float64).view(1, *shape)
    return [zuko.transforms.PermutationTransform(layer(places)[0].flatten().long())]


@as_zuko.register
def _(layer: Scale, shape: tuple[int, ...]) -> list[Any]:
    a = soft(layer.s, 1)
    return [zuko.transforms.DependentTransform(zuko.transforms.MonotonicAffineTransform(0 * a, a, slope=SLOPE), 1)]


@as_zuko.register
def _(layer: ActNorm, shape: tuple[int, ...]) -> list[Any]:
    channel = torch.arange(shape[0]).repeat_interleave(math.prod(shape[1:]))
    shift, a = layer.bias[channel], soft(layer.log_scale[channel], 1)
    scale = zuko.transforms.MonotonicAffineTransform(0 * a, a, slope=SLOPE)
    return [zuko.transforms.DependentTransform(part, 1) for part in (zuko.transforms.AdditiveTransform(shift), scale)]


@as_zuko.register
def _(layer: Mix, shape: tuple[int, ...]) -> list[Any]:
    """zuko's L has a free diagonal and its U ones, ours the other way round: L' = L S, U' = S⁻¹ U; at every place."""
    L, U = layer.factors()
    S = U.diagonal().diag()
    LU = (L @ S).tril() + (S.inverse() @ U).triu(1)
    places = torch.eye(math.prod(shape[1:]), dtype=LU.dtype)
    lower, upper = torch.kron((L @ S), places), torch.kron(S.inverse() @ U, places)
    assert torch.allclose(torch.kron(LU, places), lower.tril() + upper.triu(1))
    order = layer.P.argmax(1)[:, None] * len(places) + torch.arange(len(places))
    return [
        zuko.transforms.LULinearTransform(torch.kron(LU, places)),
        zuko.transforms.PermutationTransform(order.flatten()),
    ]


@as_zuko.register
def _(layer: Coupling, shape: tuple[int, ...]) -> list[Any]:
    return [coupled(layer, shape, layer.mask.flatten(), layer.mask.flatten())]


@as_zuko.register
def _(layer: HalfCoupling, shape: tuple[int, ...]) -> list[Any]:
    channel = torch.arange(shape[0]).repeat_interleave(math.prod(shape[1:]))
    kept = channel < shape[0] // 2
    return [coupled(layer, (shape[0] // 2, *shape[1:]), kept, kept[kept.logical_not()])]


def coupled(layer: Coupling | HalfCoupling, seen: tuple[int, ...], kept: Tensor, unread: Tensor) -> Any:
    """A coupling that keeps `kept` [D], whose network sees [B, *seen]; of its outputs, those at `unread` are none."""

    def meta(x: Tensor) -> Any:
        whole = x.new_zeros(*x.shape[:-1], len(kept))
        whole[..., kept] = x
        given = whole if isinstance(layer, Coupling) else x
        outputs = layer.network(given.reshape(-1, *seen)).reshape(len(x), layer.transform.outputs, -1)
        places = (~unread).nonzero().flatten()
        return zuko.transforms.DependentTransform(theirs(layer.transform, outputs[:, :, places], places), 1)

    return zuko.transforms.CouplingTransform(meta, kept)


@as_zuko.register
def _(layer: Autoregressive, shape: tuple[int, ...]) -> list[Any]:
    places = torch.arange(len(layer.order))

    def meta(x: Tensor) -> Any:
        outputs = layer.network(x).reshape(len(x), layer.transform.outputs, -1)
        return zuko.transforms.DependentTransform(theirs(layer.transform, outputs, places), 1)

    return [zuko.transforms.AutoregressiveTransform(meta, passes=len(places))]


@as_zuko.register
def _(layer: Multiscale, shape: tuple[int, ...]) -> list[Any]:
    """Scales work on what is left: the first part of the vector, until it is put behind what was let go of before."""
    found: list[Any] = []
    sizes: list[int] = []
    for i, scale in enumerate(layer.scales):
        parts, whole = as_zuko(scale, shape), sum(sizes) + math.prod(shape)
        found += [Leading(part, math.prod(shape), whole) for part in parts]
        shape = shape_behind(scale, shape)
        if i < len(layer.scales) - 1:
            shape = (shape[0] // 2, *shape[1:])
            sizes.insert(0, math.prod(shape))
    # now: what is left, then what was let go of, the latest first; z wants the latest last
    pieces = torch.arange(math.prod(shape) + sum(sizes)).split([math.prod(shape), *sizes])
    return [*found, zuko.transforms.PermutationTransform(torch.cat([*reversed(pieces[1:]), pieces[0]]))]


class Leading(torch.distributions.Transform):
    """`part` on the first `n` numbers of `whole`."""

    bijective = True
    domain = codomain = torch.distributions.constraints.real_vector

    def __init__(self, part: Any, n: int, whole: int) -> None:
        super().__init__()
        self.part, self.n, self.whole = part, n, whole

    def _call(self, x: Tensor) -> Tensor:
        return torch.cat([self.part(x[:, : self.n]), x[:, self.n :]], 1)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.cat([self.part.inv(y[:, : self.n]), y[:, self.n :]], 1)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.part.call_and_ladj(x[:, : self.n])
        return torch.cat([y, x[:, self.n :]], 1), log_det

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.call_and_ladj(x)[1]


CASES: dict[str, tuple[type[Any], tuple[int, ...], dict[str, Any]]] = {
    "nice": (NICE, (1, 4, 4), {"width": 16}),
    "realnvp": (RealNVP, (1, 4, 4), {"network": "conv", "scales": 2, "couplings": 2, "width": 8}),
    "glow, one scale": (Glow, (1, 4, 4), {"steps": 2, "width": 8}),
    "glow, two scales": (Glow, (2, 4, 8), {"steps": 2, "width": 8, "scales": 2}),
    "spline_flow over vectors": (SplineFlow, (1, 3, 4), {"steps": 2, "width": 16}),
    "spline_flow of convolutions": (SplineFlow, (1, 4, 8), {"network": "conv", "scales": 2, "steps": 2, "width": 8}),
    "maf": (MAF, (2, 2, 3), {"layers": 3, "width": 32}),
}


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_zuko(case: str) -> None:
    cls, shape, options = CASES[case]
    with testing.seeded(0):
        model = cls(DataSpec(shape, 5, "grid"), **options, dropout=0.0).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        y = 1.5 * torch.randn(20, *shape, dtype=torch.float64)
    density: DequantisedFlow = model.density
    peer = zuko.transforms.ComposedTransform(*as_zuko(model.flow, shape))
    with torch.no_grad():
        z, log_det = model.flow(y)
        expected, their_log_det = peer.call_and_ladj(y.flatten(1))
        torch.testing.assert_close(z, expected, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(log_det, their_log_det, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(model.flow.inverse(z).flatten(1), y.flatten(1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(model.flow.inverse(z).flatten(1), peer.inv(expected), rtol=1e-6, atol=1e-6)
        base: Any = torch.distributions.Normal(torch.zeros(z.shape[1]).double(), 1.0)
        if cls is NICE:  # the logit of a uniform number is logistic
            uniform = torch.distributions.Uniform(torch.zeros(z.shape[1]).double(), 1.0)
            base = torch.distributions.TransformedDistribution(uniform, [torch.distributions.SigmoidTransform().inv])
        flow = zuko.distributions.NormalizingFlow(peer, torch.distributions.Independent(base, 1))
        torch.testing.assert_close(
            density.prior.log_prob(z) + log_det, flow.log_prob(y.flatten(1)), rtol=1e-6, atol=1e-6
        )
