"""Densities of integer levels by flows over real numbers: noise, a logit, a flow, a prior.

Shapes: x [B, *shape] integer levels; u, v, y [B, C, H, W] real, a few coordinates being a grid of one row; z [B, D].
Unit: nats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.nn.distributions import importance_bound, log_normal
from benchmark.nn.flows import Bijection, Coupling, Shape, checkerboard
from benchmark.nn.latents import interpolated
from benchmark.nn.levels import as_grid, centred

# Noise ---------------------------------------------------------------------------------------------------------------


class Dequantisation(nn.Module, ABC):
    """Noise u in (0, 1) for each pixel, whose density over a cell bounds the probability of the level inside."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v, the logit of u, of the shape of x [B, ...] in levels, and log q(u | x) `[B]`."""


class UniformDequantisation(Dequantisation):
    """Noise u ~ U[0, 1) for each pixel."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.rand(x.shape, device=x.device)
        return torch.logit(u, eps=1e-6), torch.zeros(len(x), device=x.device)


class VariationalDequantisation(Dequantisation):
    """Noise u ~ q(u | x) on (0, 1), by a flow from a normal to the logit of u whose context is x.

    Ho and others, "Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture
    Design", ICML 2019, arXiv:1902.00275, section 3.1. The layers' context is x on [-1, 1].
    """

    layers: Sequence[Bijection]

    def __init__(self, levels: int, layers: Iterable[Bijection]) -> None:
        super().__init__()
        self.levels = levels
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v = torch.randn(x.shape, device=x.device)
        log_q = log_normal(v)
        context = centred(x, self.levels)
        for layer in self.layers:
            v, log_det = layer(v, context)
            log_q = log_q - log_det
        return v, log_q - (F.logsigmoid(v) + F.logsigmoid(-v)).flatten(1).sum(1)  # du/dv = u (1 - u)


class Logit(nn.Module):
    """y = logit(α + (1 - 2α) (x + u) / L), so that a flow on [0, 1] has the whole line (Dinh and others 2017, section
    4.1). With α = 0 nothing lies beyond the ends; with more, y is bounded, and what a flow puts beyond is lost."""

    def __init__(self, levels: int, alpha: float) -> None:
        super().__init__()
        self.levels, self.alpha = levels, alpha

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """y, of the shape of levels x [B, ...] and of v, the logit of u, and log|det dy/du| `[B]`.

        Both distances, `below` from 0 and `above` from 1, come from sigmoids, so that neither is rounded to nothing.
        """
        inside = 1 - 2 * self.alpha
        below = self.alpha * self.levels + inside * (x + torch.sigmoid(v))
        above = self.alpha * self.levels + inside * (self.levels - 1 - x + torch.sigmoid(-v))  # below + above = L
        log_below, log_above = below.log(), above.log()
        log_jacobian = math.log(self.levels * inside) - log_below - log_above
        return log_below - log_above, log_jacobian.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """The level x in whose cell y lies; the nearest where it lies in none."""
        value = (torch.sigmoid(y) - self.alpha) / (1 - 2 * self.alpha)  # (x + u) / L
        return (value * self.levels).floor().long().clamp(0, self.levels - 1)


def dequantise(
    kind: Literal["uniform", "variational"],
    grid: Shape,
    levels: int,
    couplings: int,
    couple: Callable[[Tensor], Coupling],
) -> Dequantisation:
    """Uniform noise, or learnt noise: a conditional normal, then `couplings` with checkerboard masks.

    `couple` makes one for a mask [C, H, W]; as many channels of context, the image itself, enter its network.
    """
    if kind == "uniform":
        return UniformDequantisation()
    nothing = torch.zeros(grid, dtype=torch.bool)
    masks = [nothing, *(checkerboard(grid, i) for i in range(couplings))]
    return VariationalDequantisation(levels, [couple(mask) for mask in masks])


# The whole -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prior:
    """What z [B, D] is drawn from: its density `[B]` in nats, and how it is made of standard normal numbers."""

    log_prob: Callable[[Tensor], Tensor]
    of_normal: Callable[[Tensor], Tensor]


def _same(e: Tensor) -> Tensor:
    return e


NORMAL = Prior(log_normal, _same)


@dataclass(frozen=True)
class DequantisedFlow:
    """p(x) ≥ E_q(u | x) [p(x + u) / q(u | x)] for noise u in (0, 1), where p(x + u) is a flow's from `prior`.

    It has no parameters of its own: the parts are modules of the model that puts them together.
    """

    shape: Shape  # of x
    flow: Bijection  # y [B, C, H, W] to z [B, D]
    logit: Logit
    dequantise: Dequantisation
    prior: Prior = NORMAL

    def elbo(self, x: Tensor) -> Tensor:
        """One draw of the bound `[B]`."""
        x = x.reshape(-1, *as_grid(self.shape))
        v, log_q = self.dequantise(x)
        y, log_jacobian = self.logit(x, v)
        z, log_det = self.flow(y)
        log_weight: Tensor = self.prior.log_prob(z) + log_det + log_jacobian - log_q  # Ho and others 2019, eq. 6
        return log_weight

    def importance_bound(self, x: Tensor, samples: int, chunk: int) -> Tensor:
        """By `samples` draws of noise, of which `chunk` images at most are held in memory, `[B]`. Often enough drawn,
        it fills the cell: Ho and others 2019, section 3.1, with the weights of Burda and others 2016."""

        def log_weights(k: int) -> Tensor:
            return self.elbo(x.repeat(k, *[1] * (x.ndim - 1))).reshape(k, len(x))

        return importance_bound(log_weights, samples, max(1, chunk // len(x)))

    def noise(self, *n: int) -> Tensor:
        """Standard normal numbers [*n, D], on the flow's device."""
        return torch.randn(*n, math.prod(self.shape), device=next(self.flow.parameters()).device)

    def sample(self, n: int) -> Tensor:
        """x `[n, *shape]`."""
        return self.generate(self.noise(n))

    def interpolate(self, n: int, steps: int) -> Tensor:
        """`n` paths of `steps` images `[n, steps, *shape]`."""
        first, last = self.noise(2, n)
        return interpolated(first, last, steps, self.generate)

    def generate(self, e: Tensor) -> Tensor:
        """x `[B, *shape]` for standard normal e [B, D]."""
        return self.logit.inverse(self.flow.inverse(self.prior.of_normal(e))).reshape(-1, *self.shape)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Where the inverse no longer inverts: Behrmann and others, "Exploding Inverses", AISTATS 2021."""
        x = x.reshape(-1, *as_grid(self.shape))
        y, _ = self.logit(x, self.dequantise(x)[0])
        return {"inverse_error": float((self.flow.inverse(self.flow(y)[0]) - y).abs().max())}
