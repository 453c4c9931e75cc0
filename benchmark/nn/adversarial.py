"""Parts of generative adversarial networks over images in [-1, 1]: residual blocks, augmentation, the hinge."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

# Networks ----------------------------------------------------------------------------------------------------------


def halvings(height: int, width: int) -> tuple[int, int, int]:
    """How often both sides can be halved before one is odd or at most 4, and the height and width that remain."""
    times = 0
    while height % 2 == width % 2 == 0 and min(height, width) > 4:
        height, width, times = height // 2, width // 2, times + 1
    return times, height, width


class UpBlock(nn.Module):
    """A generator's residual block (Miyato and others 2018, appendix B.4, figure 8), enlarging by `scale`."""

    def __init__(self, channels: int, scale: int, norm: Callable[[int], nn.Module]) -> None:
        """`norm` makes the normalisation of so many channels."""
        super().__init__()
        self.scale = scale
        self.norm1, self.norm2 = norm(channels), norm(channels)
        self.conv1, self.conv2 = (
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, P, H, W]` to `[B, P, scale H, scale W]`."""
        h = F.relu(self.norm1(x))
        if self.scale > 1:
            x, h = (F.interpolate(t, scale_factor=float(self.scale), mode="nearest") for t in (x, h))
        y: Tensor = x + self.conv2(F.relu(self.norm2(self.conv1(h))))
        return y


class DownBlock(nn.Module):
    """A discriminator's residual block, spectrally normalised, without other normalisation, shrinking by `scale`."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = spectral_norm(nn.Conv2d(channels, channels, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, P, H, W]` to `[B, P, H / scale, W / scale]`."""
        h = self.conv2(F.relu(self.conv1(F.relu(x))))
        return F.avg_pool2d(x + h, self.scale) if self.scale > 1 else x + h


class SumPool(nn.Module):
    """`[B, P, H, W]` to `[B, P]`: sums over positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3))


# Differentiable augmentation (Zhao and others 2020, arXiv:2006.10738) ------------------------------------------------


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
