"""Normalizing flows: invertible layers with the logarithm of their Jacobian's determinant, and dequantisation.

Shapes: x, y [B, *shape] real; log-determinants [B] in nats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.nn.distributions import log_normal
from benchmark.nn.levels import centred

Shape = tuple[int, ...]


class Bijection(nn.Module, ABC):
    """An invertible layer from x to y, which may depend on a context [B, ...]."""

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y and log|det dy/dx| `[B]`."""

    @abstractmethod
    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """x."""


class Chain(Bijection):
    """One layer after another."""

    layers: Sequence[Bijection]

    def __init__(self, *layers: Bijection) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x, context)
            total = total + log_det
        return x, total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        for layer in reversed(self.layers):
            y = layer.inverse(y, context)
        return y


class Multiscale(Bijection):
    """x [B, C, H, W] to z [B, C H W] by `scales`, of which all but the last squeeze once, from [B, C, H, W] to
    [B, 4C, H/2, W/2], and then let go of half of the channels (Dinh and others 2017, section 3.6)."""

    scales: Sequence[Bijection]

    def __init__(self, shape: Shape, scales: Sequence[Bijection]) -> None:
        super().__init__()
        channels, height, width = shape
        halvings = len(scales) - 1
        self.scales = nn.ModuleList(scales)  # type: ignore[assignment]
        self.last = (channels * 2**halvings, height // 2**halvings, width // 2**halvings)
        self.released = [math.prod(shape) // 2 ** (i + 1) for i in range(halvings)] + [math.prod(self.last)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        parts = []
        for i, scale in enumerate(self.scales):
            x, log_det = scale(x, context)
            total = total + log_det
            if i < len(self.scales) - 1:
                x, released = x.chunk(2, 1)
                parts.append(released.flatten(1))
        return torch.cat([*parts, x.flatten(1)], 1), total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        *parts, last = y.split(self.released, 1)
        *earlier, coarsest = self.scales
        x = coarsest.inverse(last.reshape(-1, *self.last), context)
        for scale, released in zip(reversed(earlier), reversed(parts), strict=True):
            x = scale.inverse(torch.cat([x, released.reshape_as(x)], 1), context)
        return x


class Squeeze(Bijection):
    """[B, C, H, W] to [B, 4C, H/2, W/2]: each 2x2 pixels become channels."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return F.pixel_shuffle(y, 2)


# Couplings -----------------------------------------------------------------------------------------------------------


class Transform(nn.Module, ABC):
    """An invertible function of each number in x [B, C, ...], given `outputs` further numbers for each of them, which
    come as parameters [B, outputs C, ...]."""

    outputs: int

    @abstractmethod
    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """y and log dy/dx, of the shape of x."""

    @abstractmethod
    def inverse(self, y: Tensor, parameters: Tensor) -> Tensor:
        """x."""


class Affine(Transform):
    """y = x exp(s) + t, where |s| is below a learnt bound, 1 at first, for each place of [*shape]."""

    outputs = 2

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.bound = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.scale_and_shift(parameters)
        return x * s.exp() + t, s

    def inverse(self, y: Tensor, parameters: Tensor) -> Tensor:
        s, t = self.scale_and_shift(parameters)
        return (y - t) * (-s).exp()

    def scale_and_shift(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        s, t = parameters.chunk(2, 1)
        return self.bound * torch.tanh(s), t


class Coupling(Bijection):
    """Transforms what the mask leaves out, by what it lets through: Dinh and others 2017, section 3.4.

    `mask` [*shape] is true where x passes unchanged. `network` maps [B, C + context channels, ...], of which it sees
    what the mask lets through, to the transform's parameters.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, network: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.transform, self.network = transform, network

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_slope = self.transform(x, self.parameters_for(x, context))
        return torch.where(self.mask, x, y), log_slope.masked_fill(self.mask, 0.0).flatten(1).sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.where(self.mask, y, self.transform.inverse(y, self.parameters_for(y, context)))

    def parameters_for(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Those of the transform; in the precision of x, whatever the network's is."""
        seen = self.mask * x
        outputs: Tensor = self.network(seen if context is None else torch.cat([seen, context], 1))
        return outputs.to(x.dtype)


def checkerboard(shape: Shape, parity: int) -> Tensor:
    """A mask [C, H, W], true where row + column + `parity` is odd (Dinh and others 2017, figure 3, left)."""
    _, height, width = shape
    place = torch.arange(height)[:, None] + torch.arange(width)
    return ((place + parity) % 2).bool().expand(shape)


def halves(shape: Shape, parity: int) -> Tensor:
    """A mask [C, H, W], true in the first half of the channels if `parity` is even, in the second if it is odd
    (Dinh and others 2017, figure 3, right)."""
    second = torch.arange(shape[0])[:, None, None] >= shape[0] // 2
    return (second if parity % 2 else ~second).expand(shape)


# Dequantisation ------------------------------------------------------------------------------------------------------


class UniformDequantisation(nn.Module):
    """Noise u ~ U[0, 1) for each pixel."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v, the logit of u, of the shape of x, and log q(u | x) = 0 `[B]`."""
        u = torch.rand(x.shape, device=x.device)
        return torch.logit(u, eps=1e-6), torch.zeros(len(x), device=x.device)


class VariationalDequantisation(nn.Module):
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
        """v, the logit of u, of the shape of x [B, ...] in levels, and log q(u | x) `[B]`."""
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
