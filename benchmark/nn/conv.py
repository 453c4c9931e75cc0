"""Convolutional networks. A shape is that of one image, [C, H, W]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.nn.layers import Positions, time_network, zeroed

Shape = tuple[int, ...]


class Residual(nn.Module):
    """x + f(x), two 3x3 convolutions; [B, channels, H, W] before and after."""

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


class ModulatedResidual(nn.Module):
    """x + f(x, context), two 3x3 convolutions; the context [B, F] scales and shifts what lies between them."""

    def __init__(self, channels: int, context: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(context, 2 * channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.modulation(context)[:, :, None, None].chunk(2, dim=1)  # [B, channels, 1, 1] each
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.norm2(y) * (1 + scale) + shift
        return x + self.conv2(self.dropout(F.silu(y)))  # type: ignore[no-any-return]


class Attention2d(nn.Module):
    """x + one head of attention between all places of [B, channels, H, W]; written out in operations that `vmap` and
    forward differentiation know."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)  # [B, channels, N] each, N = H W
        weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(x.shape[1]), dim=2)  # [B, N, N]
        y = (v @ weights.transpose(1, 2)).view(x.shape)
        return x + self.out(y)  # type: ignore[no-any-return]


def encoder(shape: Shape, outputs: int, channels: int, depth: int, dropout: float) -> nn.Sequential:
    """[B, *shape] to [B, outputs]: `depth` residual blocks each at a half and, with `channels`, at a quarter of the
    sides, which must be divisible by 4. Patches of 2x2 pixels come in as channels: no layer works at full size."""
    inputs, height, width = shape
    return nn.Sequential(
        nn.PixelUnshuffle(2),  # [B, 4C, H/2, W/2]
        nn.Conv2d(4 * inputs, channels // 2, 3, padding=1),
        *(Residual(channels // 2, dropout) for _ in range(depth)),
        nn.SiLU(),
        nn.Conv2d(channels // 2, channels, 4, stride=2, padding=1),  # [B, channels, H/4, W/4]
        *(Residual(channels, dropout) for _ in range(depth)),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(channels * height * width // 16, outputs),
    ).to(memory_format=torch.channels_last)


def decoder(inputs: int, shape: Shape, channels: int, depth: int, dropout: float) -> nn.Sequential:
    """[B, inputs] to [B, *shape]: the mirror image of `encoder`."""
    outputs, height, width = shape
    return nn.Sequential(
        nn.Linear(inputs, channels * height * width // 16),
        nn.Unflatten(1, (channels, height // 4, width // 4)),
        *(Residual(channels, dropout) for _ in range(depth)),
        nn.SiLU(),
        nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1),  # [B, channels/2, H/2, W/2]
        *(Residual(channels // 2, dropout) for _ in range(depth)),
        nn.SiLU(),
        nn.Conv2d(channels // 2, 4 * outputs, 3, padding=1),
        nn.PixelShuffle(2),
    ).to(memory_format=torch.channels_last)


class UNet(nn.Module):
    """[B, *shape] and times [B] to [B, outputs, H, W] (Ronneberger and others 2015), zero at first.

    Halves the sides and doubles the channels at each scale, then undoes both; attention at the bottom. Skip connections
    are added, not concatenated. Raises `ValueError` where patch 2^(scales - 1) does not divide both sides.
    """

    down: Sequence[Sequence[ModulatedResidual]]
    up: Sequence[Sequence[ModulatedResidual]]

    def __init__(
        self,
        shape: Shape,
        outputs: int,
        channels: int,  # at the first scale
        blocks: int,  # at each scale, on either side
        scales: int,
        patch: int,  # pixels on a side of what the network sees as one place
        positions: bool,  # whether it knows where in the image it is
        dropout: float,
        frequencies: Tensor,  # [F], at which the time is seen
    ) -> None:
        super().__init__()
        inputs, height, width = shape
        if height % (multiple := patch * 2 ** (scales - 1)) or width % multiple:
            raise ValueError(
                f"patch={patch} with scales={scales} needs sides divisible by {multiple}, the data has "
                f"{height}x{width}: choose less of either"
            )
        context = 4 * channels
        sizes = [channels * 2**i for i in range(scales)]
        self.positions = Positions(channels, height // patch, width // patch) if positions else nn.Identity()
        self.fold, self.unfold = nn.PixelUnshuffle(patch), nn.PixelShuffle(patch)
        self.stem = nn.Conv2d(inputs * patch**2, channels, 3, padding=1)
        self.time = time_network(frequencies, context)

        def blocks_at_each_scale() -> Any:
            return nn.ModuleList(
                nn.ModuleList(ModulatedResidual(size, context, dropout) for _ in range(blocks)) for size in sizes
            )

        self.down, self.up = blocks_at_each_scale(), blocks_at_each_scale()
        self.attention = Attention2d(sizes[-1])
        self.shrink = nn.ModuleList(nn.Conv2d(size, 2 * size, 2, stride=2) for size in sizes[:-1])
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, stride=2) for size in sizes[:-1])
        self.norm = nn.GroupNorm(1, channels)
        self.head = zeroed(nn.Conv2d(channels, outputs * patch**2, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        context = self.time(t)
        h = self.positions(self.stem(self.fold(x)))
        skips = []
        for i, row in enumerate(self.down):
            h = self.shrink[i - 1](h) if i else h
            for block in row:
                h = block(h, context)
            skips.append(h)
        h = self.attention(h)
        for i, row in reversed(list(enumerate(self.up))):
            for block in row:
                h = block(h, context)
            h = skips[i - 1] + self.grow[i - 1](h) if i else h
        outputs: Tensor = self.unfold(self.head(F.silu(self.norm(h))))
        return outputs
