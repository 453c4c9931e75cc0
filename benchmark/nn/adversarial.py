"""Parts of generative adversarial networks over images in [-1, 1]: blocks, normalisation, augmentation, losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam, Optimizer

WrapsConv = Callable[[nn.Conv2d], nn.Module]

# Networks ----------------------------------------------------------------------------------------------------------


def halvings(height: int, width: int) -> tuple[int, int, int]:
    """How often both sides can be halved before one is odd or at most 4, and the height and width that remain."""
    times = 0
    while height % 2 == width % 2 == 0 and min(height, width) > 4:
        height, width, times = height // 2, width // 2, times + 1
    return times, height, width


class UpBlock(nn.Module):
    """A generator's residual block (Miyato and others 2018, appendix B.4, figure 8), enlarging by `scale`."""

    def __init__(
        self, channels: int, scale: int, norm: Callable[[int], nn.Module], layer: WrapsConv = lambda conv: conv
    ) -> None:
        """`norm` makes the normalisation of so many channels; `layer` makes of a convolution what stands here."""
        super().__init__()
        self.scale = scale
        self.norm1, self.norm2 = norm(channels), norm(channels)
        self.conv1, self.conv2 = (
            layer(nn.Conv2d(channels, channels, 3, padding=1)),
            layer(nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        """`[B, P, H, W]` to `[B, P, scale H, scale W]`; the normalisation sees what is `given`."""
        h = F.relu(self.norm1(x, *given))
        if self.scale > 1:
            x, h = (F.interpolate(t, scale_factor=float(self.scale), mode="nearest") for t in (x, h))
        y: Tensor = x + self.conv2(F.relu(self.norm2(self.conv1(h), *given)))
        return y


class DownBlock(nn.Module):
    """A discriminator's residual block, shrinking by `scale`; by itself spectrally normalised, and not otherwise."""

    def __init__(
        self,
        channels: int,
        scale: int,
        layer: WrapsConv = spectral_norm,
        norm: Callable[[int], nn.Module] = nn.Identity,
    ) -> None:
        """`layer` makes of a convolution what stands here; `norm` makes the normalisation of so many channels."""
        super().__init__()
        self.scale = scale
        self.norm1, self.norm2 = norm(channels), norm(channels)
        self.conv1 = layer(nn.Conv2d(channels, channels, 3, padding=1))
        self.conv2 = layer(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, P, H, W]` to `[B, P, H / scale, W / scale]`."""
        h = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return F.avg_pool2d(x + h, self.scale) if self.scale > 1 else x + h


class SumPool(nn.Module):
    """`[B, P, H, W]` to `[B, P]`: sums over positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3))


# Batch normalisation -------------------------------------------------------------------------------------------------

REFERENCE = 256  # latents whose statistics a generator has in evaluation


class ReferenceNorm(nn.Module):
    """Batch normalisation of [B, P, ...] (Ioffe and Szegedy 2015); in evaluation by the statistics of the batch that it
    sees first, so that examples do not depend on each other. `Referenced` says when they are forgotten."""

    weight: Tensor
    bias: Tensor
    statistics: tuple[Tensor, Tensor] | None = None  # variance and mean of that batch, [P] each

    def __init__(self, channels: int, affine: bool = True) -> None:
        """`affine`: gain and bias are learnt; otherwise they are 1 and 0."""
        super().__init__()
        for name, value in (("weight", torch.ones(channels)), ("bias", torch.zeros(channels))):
            if affine:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True)
        places = range(2, x.ndim)
        if self.statistics is None:
            self.statistics = torch.var_mean(x.detach(), (0, *places), correction=0)
        variance, mean = self.statistics
        scale = self.weight * torch.rsqrt(variance + 1e-5)
        scale, shift = (t.view(-1, *(1 for _ in places)) for t in (scale, self.bias - mean * scale))  # [P, 1, ...]
        return x * scale + shift


class Referenced(nn.Module):
    """A generator [B, Z] to [B, ...] with `ReferenceNorm`, which in evaluation takes its statistics from latents that
    never change. They are those of the weights at hand, a moving average as well; running ones would be of others.

    Of a network that sees labels too, all `classes` take turns beside these latents, evenly spread where they are more.
    """

    def __init__(self, network: nn.Module, latent: int, classes: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("reference", torch.randn(REFERENCE, latent))
        if classes is not None:
            in_turn = torch.arange(REFERENCE) * max(REFERENCE, classes) // REFERENCE % classes
            self.register_buffer("labels", in_turn, persistent=False)
        self.known: list[Tensor] = []  # the weights of which statistics are known

    def forward(self, *given: Tensor) -> Tensor:
        """`[B, ...]` for latents [B, Z], and labels [B] if the network sees them."""
        if not self.training:
            self._refer()
        y: Tensor = self.network(*given)
        return y

    def _refer(self) -> None:
        """Take the statistics of the reference, unless they are of these very weights already."""
        weights = [*self.network.parameters(), *self.network.buffers()]
        if len(self.known) == len(weights) and all(
            w.type() == known.type() and torch.equal(w, known) for w, known in zip(weights, self.known, strict=True)
        ):
            return
        for module in self.network.modules():
            if isinstance(module, ReferenceNorm):
                module.statistics = None
        with torch.no_grad():
            self.network(*self.buffers(recurse=False))
        self.known = [w.detach().clone() for w in weights]


# Differentiable augmentation (Zhao and others 2020, arXiv:2006.10738) ------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """What D sees of real and of generated images `[B, C, H, W]` alike; -1 stands where nothing is left."""

    translation: int  # shifts by up to this many pixels
    cutout: int  # side of a square that is painted over, in pixels

    def check(self, shape: Sequence[int]) -> None:
        """Raises `ValueError` where examples of that shape are no images, or nothing of them would be left."""
        given, sides = f"translation={self.translation} and cutout={self.cutout}", shape[1:]
        if (self.translation or self.cutout) and not sides:
            raise ValueError(f"{given} are for images: give 0 for points")
        if sides and max(self.translation, self.cutout) >= min(sides):
            raise ValueError(f"{given} leave nothing of {sides[0]}x{sides[1]} images: give less than {min(sides)}")

    def __call__(self, y: Tensor) -> Tensor:
        if self.translation:
            y = translated(y, self.translation)
        if self.cutout:
            y = cut_out(y, self.cutout)
        return y


def translated(y: Tensor, most: int) -> Tensor:
    """Each image `[B, C, H, W]` shifted by up to `most` pixels down or up, right or left; -1 comes in from outside."""
    n, _, height, width = y.shape
    row, column = torch.arange(height, device=y.device), torch.arange(width, device=y.device)
    down, right = torch.randint(2 * most + 1, (2, n, 1), device=y.device)
    padded = F.pad(y, (most, most, most, most), value=-1.0).movedim(1, -1)  # [B, H + 2 most, W + 2 most, C]
    example = torch.arange(n, device=y.device)[:, None, None]
    return padded[example, (row + down)[:, :, None], (column + right)[:, None, :]].movedim(-1, 1)


def cut_out(y: Tensor, side: int) -> Tensor:
    """Each image `[B, C, H, W]` with a square of that side painted over with -1; a part of it may lie outside."""
    n, _, height, width = y.shape
    row, column = torch.arange(height, device=y.device), torch.arange(width, device=y.device)
    top = torch.randint(1 - side, height, (n, 1), device=y.device)
    left = torch.randint(1 - side, width, (n, 1), device=y.device)
    rows, columns = ((i >= start) & (i < start + side) for i, start in ((row, top), (column, left)))
    return y.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], -1.0)  # [B, 1, H, W]


# The hinge (Lim and Ye 2017; Miyato and others 2018, eqs. 16 and 17) -------------------------------------------------


def hinge_discriminator(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """E max(1 - D(x), 0) + E max(1 + D(G(z)), 0), a scalar; below the margin of 1 an example costs nothing."""
    return F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()


def hinge_generator(on_fake: Tensor) -> Tensor:
    """-E D(G(z)), a scalar."""
    return -on_fake.mean()


# Cross-entropy (Goodfellow and others 2014, arXiv:1406.2661, eq. 1; D's scores are logits of "real") ------------------


def logistic_discriminator(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """-E log σ(D(x)) - E log(1 - σ(D(G(z)))), a scalar in nats."""
    return F.softplus(-on_real.float()).mean() + F.softplus(on_fake.float()).mean()


def logistic_generator(on_fake: Tensor) -> Tensor:
    """-E log σ(D(G(z))), a scalar in nats: the loss that does not saturate (their section 3)."""
    return F.softplus(-on_fake.float()).mean()


# The Wasserstein distance (Arjovsky and others 2017, arXiv:1701.07875, eq. 2) -----------------------------------------


def wasserstein(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """E D(x) - E D(G(z)), a scalar: of all D with slopes of at most 1, the largest is the distance."""
    return on_real.float().mean() - on_fake.float().mean()


# Two players ---------------------------------------------------------------------------------------------------------


@contextmanager
def fixed(network: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through the network and stay at none of its parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def adam_each(
    generator: nn.Module, discriminator: nn.Module, learning_rates: tuple[float, float], betas: tuple[float, float]
) -> list[Optimizer]:
    """Adam for either player, with its own learning rate."""
    players = zip((generator, discriminator), learning_rates, strict=True)
    return [Adam(network.parameters(), lr=rate, betas=betas, fused=True) for network, rate in players]
