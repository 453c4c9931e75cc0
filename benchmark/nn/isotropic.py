"""A network that works at one size throughout, for images with little noise, which a smaller size would lose.

Kingma and others, "Variational Diffusion Models", NeurIPS 2021, arXiv:2107.00630, appendix B and C.

Shapes: B images [B, C, H, W]; P features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.nn.layers import Fourier, Positions, time_network, zeroed


class Isotropic(nn.Module):
    """x [B, C, H, W] and times [B] to [B, C, H, W, outputs], zero at first.

    Residual blocks with one layer of attention between their halves. A place is `patch` x `patch` pixels, of which the
    network sees the values and their sines and cosines at the frequencies `waves`; those of the times are `times`.
    """

    blocks: Sequence[Block]

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        width: int,
        depth: int,
        patch: int,
        places: bool,
        waves: Tensor,
        times: Tensor,
        dropout: float,
    ) -> None:
        super().__init__()
        channels, *sides = shape
        self.patch, self.outputs = patch, (patch, patch, channels, outputs)
        self.positions = Positions(width, *(side // patch for side in sides)) if places else nn.Identity()
        self.waves = Fourier(waves)
        self.time = time_network(times, width)
        self.enter = nn.Conv2d(channels * (1 + 2 * len(waves)) * patch**2, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))  # type: ignore[assignment]
        self.attention = Attention(width)
        last = zeroed(nn.Conv2d(width, math.prod(self.outputs), 3, padding=1))
        self.leave = nn.Sequential(nn.GroupNorm(1, width), nn.SiLU(), last)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(t)  # [B, P]
        features = torch.cat([x, self.waves(x).flatten(1, 2)], 1)
        h = F.pixel_unshuffle(features, self.patch).contiguous(memory_format=torch.channels_last)
        h = self.positions(self.enter(h))
        for i, block in enumerate(self.blocks):
            if i == len(self.blocks) // 2:
                h = self.attention(h)
            h = block(h, time)
        outputs: Tensor = self.leave(h).movedim(1, -1).unflatten(-1, self.outputs)  # [B, H/p, W/p, p, p, C, L]
        return outputs.permute(0, 5, 1, 3, 2, 4, 6).flatten(4, 5).flatten(2, 3)


class Block(nn.Module):
    """h + f(h, time), two 3x3 convolutions; the time scales and shifts between them. Drops whole channels."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(1, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.time = nn.Linear(width, 2 * width)
        self.norm = nn.GroupNorm(1, width)
        self.second = nn.Sequential(nn.SiLU(), nn.Dropout2d(dropout), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time)[:, :, None, None].chunk(2, 1)  # [B, P, 1, 1] each
        return h + self.second(self.norm(self.first(h)) * (1 + scale) + shift)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Every place attends to every place, with one head; in full precision."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(h)).float().flatten(2).transpose(1, 2).chunk(3, 2)  # [B, HW, P] each
        weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[2])).softmax(2)  # [B, HW, HW]
        mixed = (weights @ v).transpose(1, 2).reshape(h.shape)
        return h + self.out(mixed)  # type: ignore[no-any-return]
