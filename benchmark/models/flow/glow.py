"""Glow: steps of actnorm, an invertible 1x1 convolution and an affine coupling, at several scales.

Paper: Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018, arXiv:1807.03039

Differences: a coupling's scale is within a learnt bound, where theirs is a sigmoid (in their code) or free (in their
text); its network may know where in the image it is, and has dropout; a logit comes before the flow, and noise may be
learnt. As in their code, what a scale lets go of has a normal prior whose mean and deviation depend on what it keeps;
written here as one more affine coupling, which is the same density.

Shapes: x [B, C, H, W] integer levels; v, y [B, C, H, W] real; z [B, D] with D = C H W; at scale i, counted from 0, a
step sees [B, 2^(i + 2) C, H / 2^(i + 1), W / 2^(i + 1)]. Unit: nats an image.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.channels import ActNorm, Mix
from benchmark.nn.couplings import coupling
from benchmark.nn.dequantised import DequantisedFlow, Logit, dequantise
from benchmark.nn.flows import Affine, Bijection, Chain, HalfCoupling, Multiscale, Shape, Squeeze
from benchmark.nn.layers import Positions, zeroed
from benchmark.nn.levels import as_grid
from benchmark.nn.optim import adamw
from benchmark.spec import (
    BadInput,
    Batch,
    Count,
    DataSpec,
    Diagnosable,
    ImportanceBound,
    Interpolates,
    Margin,
    NonNegative,
    Sampler,
    Share,
    Size,
)


class Glow(GenerativeModel, ImportanceBound, Interpolates, Diagnosable):
    """p(x) ≥ E_q(u | x) [p(x + u) / q(u | x)]: a normal density behind steps of flow (figure 2)."""

    #: Passes through the flow held in memory at once by `importance_bound`.
    chunk = 4096

    def __init__(
        self,
        spec: DataSpec,
        scales: Size = 1,  # L: each squeezes first, and all but the last let go of half of the channels
        steps: Size = 4,  # K: at each scale
        width: Size = 64,  # channels of a coupling's network at the first scale
        widening: Size = 1,  # times as many at each further one
        positions: bool = True,  # the networks know where in the image they are
        dropout: Share = 0.1,
        dequantisation: Literal["uniform", "variational"] = "variational",
        noise_couplings: Count = 2,  # of the flow that learns the noise, after a conditional normal
        noise_width: Size = 64,  # its hidden units or channels
        alpha: Margin = 0.0,  # values lie in [alpha, 1 - alpha] before the logit; the bound loses what is beyond
        learning_rate: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        grid = as_grid(spec.shape)
        channels, *sides = grid
        if any(side % 2**scales for side in sides):
            raise BadInput(
                f"glow: scales={scales} halves {'x'.join(map(str, sides))} images {scales} times, to less than whole "
                "pixels: use fewer scales, or images of even sides"
            )

        def scale(i: int) -> Chain:
            """A squeeze and steps of flow; then what is let go of is told what to expect."""
            shape = (channels * 2 ** (i + 2), *(side // 2 ** (i + 1) for side in sides))
            couple = partial(affine, shape, width=width * widening**i, positions=positions, dropout=dropout)
            layers: list[Bijection] = [Squeeze()]
            for _ in range(steps):
                layers += [ActNorm(shape[0]), Mix(shape[0]), couple()]  # table 1
            return Chain(*layers) if i == scales - 1 else Chain(*layers, couple())

        self.flow = Multiscale(grid, [scale(i) for i in range(scales)], all_squeeze=True)
        self.logit = Logit(spec.levels, alpha)
        noise = partial(coupling, network="conv", width=noise_width, depth=1, positions=positions, dropout=dropout)
        couple = partial(noise, context=grid[0])
        self.dequantise = dequantise(dequantisation, grid, spec.levels, noise_couplings, couple)
        self.density = DequantisedFlow(spec.shape, self.flow, self.logit, self.dequantise)

    # Promises --------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("inverse", evaluations=1)

    def sample(self, n: int) -> Tensor:
        return self.density.sample(n)

    def interpolate(self, n: int, steps: int) -> Tensor:
        return self.density.interpolate(n, steps)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        return self.density.diagnostics(x)

    def elbo(self, x: Tensor) -> Tensor:
        return self.density.elbo(x)

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        return self.density.importance_bound(x, importance_samples, self.chunk)

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.elbo(batch.x).mean() / self.spec.dims}  # nats a dimension

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


def affine(shape: Shape, width: int, positions: bool, dropout: float) -> HalfCoupling:
    """An affine coupling of [B, *shape] with the network of section 3.3, the identity at first."""
    channels, *sides = shape
    inputs, changed = channels // 2, channels - channels // 2
    network = nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),
        Positions(width, *sides) if positions else nn.Identity(),
        nn.SiLU(),
        nn.Conv2d(width, width, 1),
        nn.SiLU(),
        nn.Dropout(dropout),
        zeroed(nn.Conv2d(width, Affine.outputs * changed, 3, padding=1)),
        Positions(Affine.outputs * changed, *sides) if positions else nn.Identity(),
    ).to(memory_format=torch.channels_last)
    return HalfCoupling(network, Affine((changed, *sides)))
