"""RealNVP: invertible affine couplings over the logits of dequantised pixels.

Paper: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017, arXiv:1605.08803

Differences: no batch normalisation, so that an example's likelihood does not depend on others; couplings start as the
identity, and with `positions` their networks know where in the image they are; the last scale alternates no more masks
than the others; an `mlp` in place of the convolutions for tiny images. With `dequantisation: variational` noise is
learnt by a second, conditional flow (Ho and others, "Flow++: Improving Flow-Based Generative Models with Variational
Dequantization and Architecture Design", ICML 2019, arXiv:1902.00275, section 3.1). Either way the density over a cell
of noise bounds the probability of the level inside.

Shapes: x [B, C, H, W] integer levels, a few coordinates [B, D] being a grid of one row; v, y [B, C, H, W] real; z
[B, D] with D = C H W. Unit: nats an image.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.couplings import Network, coupling
from benchmark.nn.dequantised import DequantisedFlow, Logit, dequantise
from benchmark.nn.flows import Chain, Multiscale, Squeeze, checkerboard, halves
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
    NonNegative,
    Sampler,
    Share,
    Size,
)


class RealNVP(GenerativeModel, ImportanceBound, Interpolates, Diagnosable):
    """p(x) ≥ E_q(u | x) [p(x + u) / q(u | x)] for noise u in [0, 1): a normal density behind an invertible network."""

    #: Passes through the flow held in memory at once by `importance_bound`.
    chunk = 4096

    def __init__(
        self,
        spec: DataSpec,
        network: Network = "mlp",  # inside a coupling; conv: residual blocks of 3x3 convolutions
        scales: Size = 1,  # each halves the sides and lets go of half of the dimensions
        couplings: Size = 6,  # at each scale with checkerboard masks; as many with channel masks, but for the last
        width: Size = 128,  # hidden units, or channels of the first scale, doubled at each further one
        depth: Size = 2,  # hidden layers, or residual blocks, of a coupling
        positions: bool = True,  # convolutions know where in the image they are
        dropout: Share = 0.2,
        dequantisation: Literal["uniform", "variational"] = "variational",
        noise_couplings: Count = 2,  # of the flow that learns the noise, after a conditional normal
        noise_width: Size = 64,  # its hidden units or channels
        alpha: float = 0.0,  # values lie in [alpha, 1 - alpha] before the logit; the bound loses what is beyond
        learning_rate: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        grid = as_grid(spec.shape)
        channels, *sides = grid
        factor = 2 ** (scales - 1)
        if any(side % factor for side in sides) or math.prod(side // factor for side in sides) < 2:
            raise BadInput(
                f"realnvp: scales={scales} halves {'x'.join(map(str, sides))} images {scales - 1} times, to less than "
                "two whole pixels: use fewer scales"
            )
        if not 0 <= alpha < 0.5:
            raise BadInput(f"realnvp: alpha={alpha} is outside [0, 0.5): use 0, or a small number such as 0.05")
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

        couple = partial(coupling, network=network, depth=depth, positions=positions, dropout=dropout)

        def scale(i: int) -> Chain:
            """Figure 3: couplings with checkerboard masks, a squeeze, couplings with channel masks."""
            hidden = width * 2**i
            shape = (channels * 2**i, *(side // 2**i for side in sides))
            before = [couple(checkerboard(shape, j), width=hidden) for j in range(couplings)]
            if i == scales - 1:
                return Chain(*before)
            squeezed = (4 * shape[0], *(side // 2 for side in shape[1:]))
            after = [couple(halves(squeezed, j), width=2 * hidden) for j in range(couplings)]
            return Chain(*before, Squeeze(), *after)

        self.flow = Multiscale(grid, [scale(i) for i in range(scales)])
        self.logit = Logit(spec.levels, alpha)  # section 4.1
        noise = partial(couple, width=noise_width, context=channels)
        self.dequantise = dequantise(dequantisation, grid, spec.levels, noise_couplings, noise)
        self.density = DequantisedFlow(spec.shape, self.flow, self.logit, self.dequantise)

    # The model: a standard normal z, couplings, and a logit ----------------------------------------------------------

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z `[B, D]` and log|det dz/dy| `[B]` for y [B, C, H, W]."""
        z, log_det = self.flow(y)  # eq. 6 to 9, 14 and 16
        return z, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """y `[B, C, H, W]` for z [B, D]."""
        return self.flow.inverse(z)

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
        return self.density.elbo(x)  # eq. 3

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        return self.density.importance_bound(x, importance_samples, self.chunk)

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.elbo(batch.x).mean() / self.spec.dims}  # nats a dimension

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)
