"""A transformer over patches of images, which how noisy they are modulates.

Peebles and Xie, "Scalable Diffusion Models with Transformers", ICCV 2023, arXiv:2212.09748 [P].

Shapes: B images [B, C, H, W] in N patches, D width.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.nn.layers import Fourier, time_network, zeroed
from benchmark.nn.transformer import Attention, FeedForward

Shape = tuple[int, ...]


class DiT(nn.Module):
    """[B, *shape] and times [B] to [B, outputs, H, W], zero at first. Raises `ValueError` for sizes that do not fit."""

    positions: Tensor

    def __init__(
        self,
        shape: Shape,
        outputs: int,
        width: int,
        blocks: int,
        heads: int,
        patch: int,
        positions: bool,  # whether it knows where in the image a patch is
        dropout: float,  # of what attention and feed-forward layers add
        frequencies: Tensor,  # [F], at which the time is seen
    ) -> None:
        super().__init__()
        inputs, height, width_of_image = shape
        if height % patch or width_of_image % patch:
            raise ValueError(
                f"patch={patch} does not divide {height}x{width_of_image} images: use a divisor of both sides"
            )
        if width % heads or width % 4:
            raise ValueError(
                f"width={width} of a transformer must be divisible by heads={heads} and by 4: use such a width"
            )
        self.patch, self.sides = patch, (height // patch, width_of_image // patch)
        places = position_table(*self.sides, width) if positions else torch.zeros(1, 1)
        self.register_buffer("positions", places, persistent=False)  # [N, D]
        self.stem = nn.Linear(inputs * patch**2, width)
        self.time = time_network(frequencies, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads, dropout) for _ in range(blocks))
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.head = zeroed(nn.Linear(width, outputs * patch**2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        context = self.time(t)  # [B, D], after its nonlinearity
        h = self.stem(F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)) + self.positions  # [B, N, D]
        for block in self.blocks:
            h = block(h, context)
        shift, scale = self.modulation(context).unsqueeze(1).chunk(2, 2)
        outputs: Tensor = self.head(modulated(h, shift, scale))  # [B, N, outputs p²]
        return F.pixel_shuffle(outputs.transpose(1, 2).unflatten(2, self.sides), self.patch)


class DiTBlock(nn.Module):
    """A residual step of attention and one of a feed-forward layer: the context shifts and scales what each reads, and
    scales what it adds, by nothing at first (adaLN-zero, [P] section 3.2)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.attention = Attention(width, heads, norm=as_it_is, normalised=False, bias=True, causal=False)
        self.feedforward = FeedForward(width, norm=as_it_is, activation=partial(F.gelu, approximate="tanh"), bias=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """`[B, N, D]` to `[B, N, D]`, under a context `[B, D]`."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(context).unsqueeze(1).chunk(6, 2)  # [B, 1, D]
        x = x + gate1 * self.dropout(self.attention(modulated(x, shift1, scale1)))
        y: Tensor = x + gate2 * self.dropout(self.feedforward(modulated(x, shift2, scale2)))
        return y


class OfPixels(nn.Module):
    """A `DiT` asked as `Isotropic` is: x [B, C, H, W] and times [B] to [B, C, H, W, outputs].

    It sees the pixels and their sines and cosines at the frequencies `waves`.
    """

    def __init__(
        self,
        shape: Shape,
        outputs: int,
        width: int,
        blocks: int,
        heads: int,
        patch: int,
        positions: bool,
        waves: Tensor,
        times: Tensor,
        dropout: float,
    ) -> None:
        super().__init__()
        channels, *sides = shape
        self.channels, self.waves = channels, Fourier(waves)
        seen = (channels * (1 + 2 * len(waves)), *sides)
        self.network = DiT(seen, channels * outputs, width, blocks, heads, patch, positions, dropout, times)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        seen = torch.cat([x, self.waves(x).flatten(1, 2)], 1)
        outputs: Tensor = self.network(seen, t).unflatten(1, (self.channels, -1))
        return outputs.movedim(2, -1)


def as_it_is(width: int) -> nn.Module:
    """No normalisation: what a layer reads is normalised and modulated before."""
    return nn.Identity()


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x `[B, N, D]` normalised at each place, scaled by 1 + `scale` and shifted, `[B, 1, D]` each."""
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def position_table(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of each place's row, then of its column, at a quarter of `width` frequencies each, as for words
    (Vaswani and others, "Attention Is All You Need", NeurIPS 2017): `[rows columns, width]`, row by row."""
    frequencies = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    places = torch.cartesian_prod(torch.arange(rows).float(), torch.arange(columns).float())  # [N, 2]
    angles = places.unsqueeze(2) * frequencies  # [N, 2, D / 4]
    return torch.cat([angles.sin(), angles.cos()], 2).flatten(1)
