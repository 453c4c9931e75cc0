"""Networks inside couplings, and affine couplings with them; all start as the identity.

Shapes: [B, C, H, W]. `positions`: convolutions know where in the image they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from benchmark.nn.conv import Residual
from benchmark.nn.flows import Affine, Coupling
from benchmark.nn.layers import Positions, mlp, zeroed

Network = Literal["mlp", "conv"]


def coupling(
    mask: Tensor, network: Network, width: int, depth: int, positions: bool, dropout: float, context: int = 0
) -> Coupling:
    """An affine coupling of [B, *mask.shape], the identity at first; `context` counts further channels that it sees."""
    channels, *sides = mask.shape
    inputs, outputs = channels + context, Affine.outputs * channels
    if network == "mlp":
        inside = dense(inputs, outputs, sides, width, depth, dropout)
    else:
        inside = conv(inputs, outputs, sides, width, depth, positions, dropout)
    return Coupling(mask, inside, Affine(mask.shape))


def dense(inputs: int, outputs: int, sides: Sequence[int], width: int, depth: int, dropout: float) -> nn.Sequential:
    """[B, inputs, H, W] to [B, outputs, H, W] through `depth` hidden layers; zero at first."""
    *hidden, last = mlp(inputs * math.prod(sides), outputs * math.prod(sides), width, depth, dropout)
    return nn.Sequential(*hidden, zeroed(last), nn.Unflatten(1, (outputs, *sides)))


def conv(
    inputs: int, outputs: int, sides: Sequence[int], width: int, depth: int, positions: bool, dropout: float
) -> nn.Sequential:
    """[B, inputs, H, W] to [B, outputs, H, W] through `depth` residual blocks; zero at first."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),
        Positions(width, *sides) if positions else nn.Identity(),
        *(Residual(width, dropout) for _ in range(depth)),
        nn.SiLU(),
        zeroed(nn.Conv2d(width, outputs, 3, padding=1)),
        Positions(outputs, *sides) if positions else nn.Identity(),
    ).to(memory_format=torch.channels_last)
