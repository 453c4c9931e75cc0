"""Flows over vectors beside zuko's: couplings and autoregressive layers, affine and of splines.

Shapes: x, z [B, D] real.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.nn.dequantised import NORMAL
from benchmark.nn.flows import Affine, Autoregressive, Bijection, Chain, HalfCoupling, Transform
from benchmark.nn.layers import mlp
from benchmark.nn.masked import masked_mlp
from benchmark.nn.splines import Spline
from benchmark.peers.pair import Pair, Side

BOUND = 5.0  # beyond which a spline is the identity: zuko's is fixed


class Swap(Bijection):
    """The second half of [B, D] before the first, so that the next coupling changes the other half."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.roll(x.shape[1] // 2, 1), x.new_zeros(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return y.roll(-(y.shape[1] // 2), 1)


def pairs(D: int = 64, batch: int = 64, layers: int = 5, width: int = 128, depth: int = 2, bins: int = 8) -> list[Pair]:
    """`layers` layers of flow over [batch, D], each with a network of `depth` hidden layers of `width` SiLU units."""

    def affine(n: int) -> Affine:
        return Affine((n,))

    def spline(n: int) -> Spline:
        return Spline(bins, BOUND)

    def couplings(transform: Callable[[int], Transform]) -> Bijection:
        parts: list[Bijection] = []
        for _ in range(layers):
            network = mlp(D // 2, transform(D // 2).outputs * D // 2, width, depth, dropout=0.0)
            parts += [HalfCoupling(network, transform(D // 2)), Swap()]
        return Chain(*parts)

    def autoregressive(transform: Callable[[int], Transform]) -> Bijection:
        parts = []
        for i in range(layers):
            order = torch.arange(D).flip(0) if i % 2 else torch.arange(D)
            network = masked_mlp(order, transform(D).outputs, width, depth, dropout=0.0)
            parts.append(Autoregressive(order, network, transform(D)))
        return Chain(*parts)

    def ours(make: Callable[[], Bijection]) -> Side:
        x = torch.randn(batch, D)
        flow = make()
        for part in flow.modules():
            if isinstance(part, nn.Linear):
                part.reset_parameters()  # as zuko's, where some of ours are zero at first

        def log_prob() -> Tensor:
            z, log_det = flow(x)
            found: Tensor = NORMAL.log_prob(z) + log_det
            return found

        return Side(flow, lambda: -log_prob().mean(), log_prob, lambda: flow.inverse(torch.randn_like(x)))

    def theirs(kind: str, splines: bool = False) -> Side:
        import zuko

        x = torch.randn(batch, D)
        options: dict[str, Any] = {"transforms": layers, "hidden_features": [width] * depth, "activation": nn.SiLU}
        if splines:  # of couplings, which `NSF` has in a slower way: as autoregressive layers of two passes
            options |= {"univariate": zuko.transforms.MonotonicRQSTransform, "shapes": [(bins,), (bins,), (bins - 1,)]}
        flow = getattr(zuko.flows, kind)(D, **options, **({"bins": bins} if kind == "NSF" else {}))
        return Side(
            flow, lambda: -flow().log_prob(x).mean(), lambda: flow().log_prob(x), lambda: flow().sample((batch,))
        )

    sizes = f"{layers} layers over {D} numbers, {depth} hidden layers of {width} SiLU units in each, batches of {batch}"
    knots = f"{sizes}; splines of {bins} bins"
    half = "ours has the halves of a vector where zuko has its even and odd numbers"
    squash = "a scale is within a learnt bound of ours, within a fixed one of zuko's"
    return [
        Pair(
            "zuko-affine-coupling",
            "zuko",
            f"RealNVP's couplings: {sizes}; {half}; {squash}",
            partial(ours, partial(couplings, affine)),
            partial(theirs, "RealNVP"),
        ),
        Pair(
            "zuko-affine-autoregressive",
            "zuko",
            f"a masked autoregressive flow: {sizes}; {squash}",
            partial(ours, partial(autoregressive, affine)),
            partial(theirs, "MAF"),
        ),
        Pair(
            "zuko-spline-coupling",
            "zuko",
            f"a neural spline flow of couplings: {knots}; {half}",
            partial(ours, partial(couplings, spline)),
            partial(theirs, "NICE", splines=True),
        ),
        Pair(
            "zuko-spline-autoregressive",
            "zuko",
            f"an autoregressive neural spline flow: {knots}",
            partial(ours, partial(autoregressive, spline)),
            partial(theirs, "NSF"),
        ),
    ]
