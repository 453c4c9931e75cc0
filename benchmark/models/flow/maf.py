"""Masked autoregressive flow: each number is scaled and shifted by those before it, layer by layer, in turning orders.

Paper: Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", NeurIPS 2017,
arXiv:1705.07057

Differences: actnorm in place of batch normalisation, so that an example's density does not depend on others; a scale is
within a learnt bound; SiLU units and dropout; noise may be learnt. Written as z = y exp(s) + t, where the paper has
z = (y - μ) exp(-α): s = -α and t = -μ exp(-α), which depend on the same numbers.

A density takes one pass through the layers, a sample D of them (section 3.4).

Shapes: x [B, C, H, W] integer levels, a few coordinates [B, D] being a grid of one row; v, y [B, C, H, W] real; z
[B, D] with D = C H W. Unit: nats an image.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.channels import ActNorm
from benchmark.nn.couplings import coupling
from benchmark.nn.dequantised import DequantisedFlow, Logit, dequantise
from benchmark.nn.flows import Affine, Autoregressive, Bijection, Chain, Reshape
from benchmark.nn.levels import as_grid
from benchmark.nn.masked import masked_mlp
from benchmark.nn.optim import adamw
from benchmark.spec import (
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


class MAF(GenerativeModel, ImportanceBound, Interpolates, Diagnosable):
    """p(x) ≥ E_q(u | x) [p(x + u) / q(u | x)]: a normal density behind autoregressive layers."""

    #: Passes through the flow held in memory at once by `importance_bound`.
    chunk = 4096

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 5,  # autoregressive ones, in raster order and from the end in turn
        width: Size = 256,  # hidden units of one
        depth: Size = 1,  # its hidden layers
        dropout: Share = 0.2,
        dequantisation: Literal["uniform", "variational"] = "variational",
        noise_couplings: Count = 2,  # of the flow that learns the noise, after a conditional normal
        noise_width: Size = 64,  # its hidden units
        alpha: Margin = 0.0,  # values lie in [alpha, 1 - alpha] before the logit; the bound loses what is beyond
        learning_rate: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        grid = as_grid(spec.shape)
        D = spec.dims
        flow: list[Bijection] = [Reshape(grid, (D,))]
        for i in range(layers):
            order = torch.arange(D).flip(0) if i % 2 else torch.arange(D)
            network = masked_mlp(order, Affine.outputs, width, depth, dropout)
            flow += [ActNorm(D), Autoregressive(order, network, Affine((D,)))]  # eq. 3 to 5
        self.flow = Chain(*flow)
        self.logit = Logit(spec.levels, alpha)
        noise = partial(coupling, network="mlp", width=noise_width, depth=2, positions=False, dropout=dropout)
        couple = partial(noise, context=grid[0])
        self.dequantise = dequantise(dequantisation, grid, spec.levels, noise_couplings, couple)
        self.density = DequantisedFlow(spec.shape, self.flow, self.logit, self.dequantise)

    # Promises --------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("inverse", evaluations=self.spec.dims)

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
