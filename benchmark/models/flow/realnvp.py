"""RealNVP: invertible affine couplings over the logits of dequantised pixels.

Paper: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017, arXiv:1605.08803

Differences: no batch normalisation, so that an example's likelihood does not depend on others; couplings start as the
identity, and their networks know where in the image they are; the last scale alternates no more masks than the others;
an `mlp` in place of the convolutions for tiny images. Noise may be learnt by a second, conditional flow (Ho and others,
"Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture Design", ICML 2019,
arXiv:1902.00275, section 3.1). Either way the density over a cell of noise bounds the probability of the level inside.

Shapes: x [B, C, H, W] integer levels; v, y [B, C, H, W] real; z [B, D] with D = C H W. Unit: nats an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, adamw, interpolated
from benchmark.spec import (
    BadInput,
    Batch,
    Count,
    DataSpec,
    ImportanceBound,
    Interpolates,
    NonNegative,
    Sampler,
    Share,
    Size,
    Watched,
)

Network = Literal["mlp", "conv"]


class RealNVP(GenerativeModel, ImportanceBound, Interpolates, Watched):
    """p(x) ≥ E_q(u | x) [p(x + u) / q(u | x)] for noise u in [0, 1): a normal density behind an invertible network."""

    scales: Sequence[Scale]

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
        dropout: Share = 0.2,
        dequantisation: Literal["uniform", "variational"] = "variational",
        noise_couplings: Count = 2,  # of the flow that learns the noise, after a conditional normal
        noise_width: Size = 64,  # its hidden units or channels
        alpha: float = 0.0,  # values lie in [alpha, 1 - alpha] before the logit; the bound loses what is beyond
        learning_rate: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        channels, height, side = spec.shape
        factor = 2 ** (scales - 1)
        if height % factor or side % factor or (height // factor) * (side // factor) < 2:
            raise BadInput(
                f"realnvp: scales={scales} halves {height}x{side} images {scales - 1} times, to less than two whole "
                "pixels: use fewer scales"
            )
        if not 0 <= alpha < 0.5:
            raise BadInput(f"realnvp: alpha={alpha} is outside [0, 0.5): use 0, or a small number such as 0.05")
        self.alpha = alpha
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.scales = nn.ModuleList()  # type: ignore[assignment]
        for i in range(scales):
            shape = (channels * 2**i, height // 2**i, side // 2**i)
            self.scales.append(  # type: ignore[attr-defined]
                Scale(shape, couplings, i == scales - 1, network, width * 2**i, depth, dropout)
            )
        self.noise: nn.ModuleList | None = None
        if dequantisation == "variational":
            masks = [torch.zeros(spec.shape)] + [checkerboard(spec.shape, i) for i in range(noise_couplings)]
            self.noise = nn.ModuleList(
                Coupling(mask, network, noise_width, depth, dropout, context=channels) for mask in masks
            )

    # The model: a standard normal z, couplings, and a logit ----------------------------------------------------------

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z `[B, D]` and log|det dz/dy| `[B]` for y [B, C, H, W]."""
        log_det = y.new_zeros(len(y))
        parts = []
        for scale in self.scales:
            y, part, change = scale(y)
            parts.append(part)  # eq. 14
            log_det = log_det + change
        return torch.cat(parts, 1), log_det  # eq. 16

    def inverse(self, z: Tensor) -> Tensor:
        """y `[B, C, H, W]` for z [B, D]."""
        y = z.new_zeros(len(z), 0)
        parts = z.split([scale.released for scale in self.scales], 1)
        for scale, part in zip(reversed(self.scales), reversed(parts), strict=True):
            y = scale.inverse(y, part)
        return y

    def dequantise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v, the logit of noise u ~ q(u | x), `[B, C, H, W]`, and log q(u | x) `[B]`."""
        if self.noise is None:
            u = torch.rand(x.shape, device=x.device)
            return torch.logit(u, eps=1e-6), torch.zeros(len(x), device=x.device)
        v = torch.randn(x.shape, device=x.device)
        log_q = log_normal(v)
        context = x.float() * (2 / (self.spec.levels - 1)) - 1
        for coupling in self.noise:
            v, log_det = coupling(v, context)
            log_q = log_q - log_det
        return v, log_q - (F.logsigmoid(v) + F.logsigmoid(-v)).flatten(1).sum(1)  # du/dv = u (1 - u)

    def logit(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """logit(α + (1 - 2α) (x + u) / L) `[B, C, H, W]`, section 4.1, and its log-Jacobian in u `[B]`.

        Both distances, `below` from 0 and `above` from 1, come from sigmoids, so that neither is rounded to nothing.
        """
        levels, inside = self.spec.levels, 1 - 2 * self.alpha
        below = self.alpha * levels + inside * (x + torch.sigmoid(v))
        above = self.alpha * levels + inside * (levels - 1 - x + torch.sigmoid(-v))  # below + above = L
        log_below, log_above = below.log(), above.log()
        log_jacobian = math.log(levels * inside) - log_below - log_above
        return log_below - log_above, log_jacobian.flatten(1).sum(1)

    # Promises --------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("inverse", evaluations=1)

    def sample(self, n: int) -> Tensor:
        return self.generate(torch.randn(n, self.spec.dims, device=self.device))

    def interpolate(self, n: int, steps: int) -> Tensor:
        first, last = torch.randn(2, n, self.spec.dims, device=self.device)
        return interpolated(first, last, steps, self.generate)

    def generate(self, z: Tensor) -> Tensor:
        """x `[B, C, H, W]` for z [B, D]."""
        y = self.inverse(z)
        value = (torch.sigmoid(y) - self.alpha) / (1 - 2 * self.alpha)  # (x + u) / L
        return (value * self.spec.levels).floor().long().clamp(0, self.spec.levels - 1)

    def signs(self, x: Tensor) -> dict[str, float]:
        """Where the inverse no longer inverts: Behrmann and others, "Exploding Inverses", AISTATS 2021."""
        y, _ = self.logit(x, self.dequantise(x)[0])
        return {"inverse_error": float((self.inverse(self(y)[0]) - y).abs().max())}

    def elbo(self, x: Tensor) -> Tensor:
        v, log_q = self.dequantise(x)
        y, log_jacobian = self.logit(x, v)
        z, log_det = self(y)
        log_weight: Tensor = log_normal(z) + log_det + log_jacobian - log_q  # eq. 3, and Ho and others, eq. 6
        return log_weight

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        """Noise drawn often enough fills the cell: Ho and others, section 3.1, with the weights of Burda and others."""
        total = torch.full((len(x),), -math.inf, device=x.device)
        chunk = max(1, self.chunk // len(x))
        for start in range(0, importance_samples, chunk):
            k = min(chunk, importance_samples - start)
            log_weights = self.elbo(x.repeat(k, 1, 1, 1)).reshape(k, len(x))
            total = torch.logaddexp(total, log_weights.logsumexp(0))
        return total - math.log(importance_samples)

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:  # type: ignore[override]
        return {"loss": -self.elbo(batch.x).mean() / self.spec.dims}  # nats a dimension

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


def log_normal(z: Tensor) -> Tensor:
    """The standard normal's log-density, `[B]` for z [B, ...]."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


# Couplings -----------------------------------------------------------------------------------------------------------


def checkerboard(shape: tuple[int, ...], parity: int) -> Tensor:
    """1 where row + column + `parity` is odd, `[C, H, W]` (figure 3, left)."""
    _, height, side = shape
    place = torch.arange(height)[:, None] + torch.arange(side)
    return ((place + parity) % 2).float().expand(shape)


def halves(shape: tuple[int, ...], parity: int) -> Tensor:
    """1 in the first half of the channels, or in the second, `[C, H, W]` (figure 3, right)."""
    second = torch.arange(shape[0])[:, None, None] >= shape[0] // 2
    return (second if parity % 2 else ~second).float().expand(shape)


class Scale(nn.Module):
    """Couplings at one size; all but the last then squeeze 2x2 pixels into channels and release half of them."""

    before: Sequence[Coupling]
    after: Sequence[Coupling]

    def __init__(
        self, shape: tuple[int, int, int], couplings: int, last: bool, network: Network, *options: int | float
    ) -> None:
        super().__init__()
        channels, height, side = shape
        self.shape, self.last = shape, last
        self.released = channels * height * side // (1 if last else 2)
        squeezed = (4 * channels, height // 2, side // 2)
        width, depth, dropout = options
        self.before = nn.ModuleList(  # type: ignore[assignment]
            Coupling(checkerboard(shape, i), network, int(width), int(depth), dropout) for i in range(couplings)
        )
        self.after = nn.ModuleList(  # type: ignore[assignment]
            Coupling(halves(squeezed, i), network, 2 * int(width), int(depth), dropout)
            for i in range(0 if last else couplings)
        )

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What continues `[B, 2C, H/2, W/2]`, what is released `[B, released]`, and the log-determinant `[B]`."""
        total = y.new_zeros(len(y))
        for coupling in self.before:
            y, log_det = coupling(y)
            total = total + log_det
        if self.last:
            return y[:, :0], y.flatten(1), total
        y = F.pixel_unshuffle(y, 2)  # [B, 4C, H/2, W/2]
        for coupling in self.after:
            y, log_det = coupling(y)
            total = total + log_det
        y, released = y.chunk(2, 1)
        return y, released.flatten(1), total

    def inverse(self, y: Tensor, released: Tensor) -> Tensor:
        """`[B, C, H, W]` from what `forward` returns."""
        if self.last:
            y = released.reshape(-1, *self.shape)
        else:
            y = torch.cat([y, released.reshape_as(y)], 1)
            for coupling in reversed(self.after):
                y = coupling.inverse(y)
            y = F.pixel_shuffle(y, 2)
        for coupling in reversed(self.before):
            y = coupling.inverse(y)
        return y


class Coupling(nn.Module):
    """Scales and shifts what the mask b leaves out, by what it lets through (and by a context, if there is one)."""

    mask: Tensor

    def __init__(
        self, mask: Tensor, network: Network, width: int, depth: int, dropout: float, context: int = 0
    ) -> None:
        super().__init__()
        shape = tuple(mask.shape)
        build = {"mlp": mlp, "conv": conv}[network]
        self.register_buffer("mask", mask, persistent=False)
        self.network = build(shape, shape[0] + context, 2 * shape[0], width, depth, dropout)
        self.bound = nn.Parameter(torch.ones(shape))  # of the logarithm of the scale

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y [B, C, H, W] and log|det dy/dx| [B]."""
        s, t = self.scale_and_shift(x, context)
        return x * s.exp() + t, s.flatten(1).sum(1)  # eq. 9 and 6

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        s, t = self.scale_and_shift(y, context)
        return (y - t) * (-s).exp()  # eq. 8

    def scale_and_shift(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = self.mask * x
        outputs = self.network(seen if context is None else torch.cat([seen, context], 1))
        s, t = outputs.to(x.dtype).chunk(2, 1)  # [B, C, H, W] each, not in bfloat16
        free = 1 - self.mask
        return free * self.bound * torch.tanh(s), free * t


# Networks ------------------------------------------------------------------------------------------------------------


def mlp(shape: tuple[int, ...], inputs: int, outputs: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    """[B, inputs, H, W] to [B, outputs, H, W] through `depth` hidden layers; zero at first."""
    _, height, side = shape
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(inputs * height * side if i == 0 else width, width), nn.SiLU(), nn.Dropout(dropout)]
    last = nn.Linear(width, outputs * height * side)
    return nn.Sequential(*layers, zero(last), nn.Unflatten(1, (outputs, height, side)))


def conv(shape: tuple[int, ...], inputs: int, outputs: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    """[B, inputs, H, W] to [B, outputs, H, W] through `depth` residual blocks; zero at first."""
    _, height, side = shape
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),
        Position(width, height, side),
        *(Residual(width, dropout) for _ in range(depth)),
        nn.SiLU(),
        zero(nn.Conv2d(width, outputs, 3, padding=1)),
        Position(outputs, height, side),
    ).to(memory_format=torch.channels_last)


def zero(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Position(nn.Module):
    """Adds a learnt value at each place: digits, unlike photographs, look different at the border."""

    def __init__(self, channels: int, height: int, side: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(channels, height, side))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value


class Residual(nn.Module):
    """x + f(x), two 3x3 convolutions."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)  # type: ignore[no-any-return]
