"""Normalizing flows: invertible layers with the logarithm of their Jacobian's determinant.

Shapes: x, y [B, *shape] real; log-determinants [B] in nats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    [B, 4C, H/2, W/2], and then let go of half of the channels (Dinh and others 2017, section 3.6). The last may
    squeeze too, as Glow's does (`all_squeeze`)."""

    scales: Sequence[Bijection]

    def __init__(self, shape: Shape, scales: Sequence[Bijection], all_squeeze: bool = False) -> None:
        super().__init__()
        channels, height, width = shape
        halvings = len(scales) - 1
        self.scales = nn.ModuleList(scales)  # type: ignore[assignment]
        last = (channels * 2**halvings, height // 2**halvings, width // 2**halvings)
        self.last = (4 * last[0], last[1] // 2, last[2] // 2) if all_squeeze else last
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


class Reshape(Bijection):
    """[B, *before] to [B, *after]."""

    def __init__(self, before: Shape, after: Shape) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.reshape(-1, *self.after), x.new_zeros(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return y.reshape(-1, *self.before)


# Transforms of single numbers ----------------------------------------------------------------------------------------


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


class Additive(Transform):
    """y = x + t."""

    outputs = 1

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return x + parameters, torch.zeros_like(x)

    def inverse(self, y: Tensor, parameters: Tensor) -> Tensor:
        return y - parameters


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


# Layers that let a network choose the transform ----------------------------------------------------------------------


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


class HalfCoupling(Bijection):
    """Transforms the second half of the channels by the first: Kingma and Dhariwal 2018, section 3.3. What lies between
    two such layers must mix the channels.

    `network` maps the first floor(C / 2) channels to the transform's parameters for the others.
    """

    def __init__(self, network: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.transform, self.network = transform, network

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, second = x.tensor_split([x.shape[1] // 2], 1)
        second, log_slope = self.transform(second, self.network(first).to(x.dtype))
        return torch.cat([first, second], 1), log_slope.flatten(1).sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        first, second = y.tensor_split([y.shape[1] // 2], 1)
        return torch.cat([first, self.transform.inverse(second, self.network(first).to(y.dtype))], 1)


class Autoregressive(Bijection):
    """Transforms each number of [B, D] by those before it in `order` (Papamakarios and others 2017, section 3.1).

    `order` [D] says at which turn, 0 to D - 1, each number is read. `network` maps [B, D] to the transform's
    parameters, and must be masked to the same order. The inverse asks it D times.
    """

    order: Tensor

    def __init__(self, order: Tensor, network: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.register_buffer("order", order, persistent=False)
        self.transform, self.network = transform, network

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_slope = self.transform(x, self.network(x).to(x.dtype))
        return y, log_slope.sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        x = torch.zeros_like(y)
        for turn in range(len(self.order)):  # what is not known yet is read by nobody whose turn has come
            now = self.transform.inverse(y, self.network(x).to(y.dtype))
            x = torch.where(self.order == turn, now, x)
        return x


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
