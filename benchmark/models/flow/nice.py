"""NICE: additive couplings over the logits of dequantised pixels, which move probability but never squeeze it.

Paper: Dinh, Krueger and Bengio, "NICE: Non-linear Independent Components Estimation", ICLR 2015 workshop,
arXiv:1410.8516

Differences: theirs is a density of noisy pixels on [0, 1], which spends probability beyond the ends; here a logit comes
first, as in RealNVP. Noise may be learnt. Smaller networks, of SiLU units, with dropout.

Every coupling has the log-determinant 0: the only one is that of the scales at the end (section 3.3), which say how
much of an image each z_d holds.

Shapes: x [B, C, H, W] integer levels, a few coordinates [B, D] being a grid of one row; v, y [B, C, H, W] real; z
[B, D] with D = C H W. Unit: nats an image.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.couplings import coupling
from benchmark.nn.dequantised import NORMAL, DequantisedFlow, Logit, Prior, dequantise
from benchmark.nn.distributions import log_logistic, logistic_of_normal
from benchmark.nn.flows import Additive, Bijection, Chain, Coupling, Reshape
from benchmark.nn.layers import mlp, zeroed
from benchmark.nn.levels import as_grid
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

PRIORS = {"logistic": Prior(log_logistic, logistic_of_normal), "normal": NORMAL}


class NICE(GenerativeModel, ImportanceBound, Interpolates, Diagnosable):
    """p(x) ≥ E_q(u | x) [p(x + u) / q(u | x)]: independent logistic numbers behind additive couplings and scales."""

    #: Passes through the flow held in memory at once by `importance_bound`.
    chunk = 4096

    def __init__(
        self,
        spec: DataSpec,
        couplings: Size = 4,  # three are the least that let every number depend on every other
        width: Size = 256,  # hidden units of a coupling
        depth: Size = 2,  # hidden layers of one
        prior: Literal["logistic", "normal"] = "logistic",
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
        layers = [additive((torch.arange(D) + i) % 2 == 0, width, depth, dropout) for i in range(couplings)]
        self.flow = Chain(Reshape(grid, (D,)), *layers, Scale(D))
        self.logit = Logit(spec.levels, alpha)
        noise = partial(coupling, network="mlp", width=noise_width, depth=depth, positions=False, dropout=dropout)
        couple = partial(noise, context=grid[0])
        self.dequantise = dequantise(dequantisation, grid, spec.levels, noise_couplings, couple)
        self.density = DequantisedFlow(spec.shape, self.flow, self.logit, self.dequantise, PRIORS[prior])

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


class Scale(Bijection):
    """z_d = exp(s_d) h_d (section 3.3)."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(dims))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self.s.exp(), self.s.sum().expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return y * (-self.s).exp()


def additive(mask: Tensor, width: int, depth: int, dropout: float) -> Coupling:
    """A coupling h_2 + m(h_1) of [B, D] (eq. 4 and 5), the identity at first."""
    *hidden, last = mlp(len(mask), Additive.outputs * len(mask), width, depth, dropout)
    return Coupling(mask, nn.Sequential(*hidden, zeroed(last)), Additive())
