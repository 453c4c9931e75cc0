"""Neural spline flow: couplings that bend each number by a monotonic rational-quadratic spline.

Paper: Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019, arXiv:1906.04032

Both of the paper's forms: for images (section 5.2) a multi-scale flow of convolutions, as Glow; for tables (section
5.1) a flow over all numbers as one vector, here `network: mlp`, which for tiny images is quicker. Before each coupling
an invertible linear layer by its LU decomposition mixes the channels, or all numbers.

Differences: actnorm also in the flow over vectors; convolutions may know where in the image they are; a logit comes
before the flow, and noise may be learnt; what a scale lets go of is transformed once more, given what it keeps.

Shapes: x [B, C, H, W] integer levels, a few coordinates [B, D] being a grid of one row; v, y [B, C, H, W] real; z
[B, D] with D = C H W. Unit: nats an image.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.channels import ActNorm, Mix
from benchmark.nn.couplings import Network, conv, coupling, dense
from benchmark.nn.dequantised import DequantisedFlow, Logit, dequantise
from benchmark.nn.flows import Bijection, Chain, HalfCoupling, Multiscale, Reshape, Shape, Squeeze
from benchmark.nn.levels import as_grid
from benchmark.nn.optim import adamw
from benchmark.nn.splines import Spline
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
    Positive,
    Sampler,
    Share,
    Size,
)


class SplineFlow(GenerativeModel, ImportanceBound, Interpolates, Diagnosable):
    """p(x) ≥ E_q(u | x) [p(x + u) / q(u | x)]: a normal density behind splines."""

    #: Passes through the flow held in memory at once by `importance_bound`.
    chunk = 4096

    def __init__(
        self,
        spec: DataSpec,
        network: Network = "mlp",  # over all numbers as one vector; conv: at several scales
        scales: Size = 1,  # of conv: each squeezes first, and all but the last let go of half of the channels
        steps: Size = 6,  # at each scale
        bins: Annotated[int, Ge(2), Le(256)] = 8,  # K
        bound: Positive = 4.0,  # B, beyond which a spline is the identity; actnorm keeps most numbers within
        width: Size = 128,  # hidden units or channels of a coupling
        depth: Size = 2,  # hidden layers or residual blocks of one
        positions: bool = True,  # convolutions know where in the image they are
        dropout: Share = 0.2,
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
        if network == "conv" and any(side % 2**scales for side in sides):
            raise BadInput(
                f"spline_flow: scales={scales} halves {'x'.join(map(str, sides))} images {scales} times, to less than "
                "whole pixels: use fewer scales, or network=mlp"
            )

        def spline(shape: Shape) -> HalfCoupling:
            """A coupling of [B, *shape] (section 3.2), the identity at first."""
            transform = Spline(bins, bound)
            inputs, outputs = shape[0] // 2, transform.outputs * (shape[0] - shape[0] // 2)
            if network == "mlp":
                inside = dense(inputs, outputs, shape[1:], width, depth, dropout)
            else:
                inside = conv(inputs, outputs, shape[1:], width, depth, positions, dropout)
            return HalfCoupling(inside, transform)

        def linear(shape: Shape) -> list[Bijection]:
            return [ActNorm(shape[0]), Mix(shape[0], start="permutation")]

        def steps_over(shape: Shape) -> list[Bijection]:
            return [layer for _ in range(steps) for layer in (*linear(shape), spline(shape))]

        def scale(i: int) -> Chain:
            shape = (channels * 2 ** (i + 2), *(side // 2 ** (i + 1) for side in sides))
            last = [] if i == scales - 1 else [spline(shape)]
            return Chain(Squeeze(), *steps_over(shape), *last)

        if network == "mlp":
            D = math.prod(grid)
            vector = (D, 1, 1)
            ends = Reshape(grid, vector), Reshape(vector, (D,))
            self.flow: Bijection = Chain(ends[0], *steps_over(vector), *linear(vector), ends[1])
        else:
            self.flow = Multiscale(grid, [scale(i) for i in range(scales)], all_squeeze=True)
        self.logit = Logit(spec.levels, alpha)
        noise = partial(coupling, network=network, width=noise_width, depth=depth, positions=positions, dropout=dropout)
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
