"""Integer levels to real numbers and back, and images to sequences of tokens and back. Nothing here is learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def centred(x: Tensor, levels: int) -> Tensor:
    """Levels 0 to `levels` - 1 to [-1, 1] by end points: the lowest is -1, the highest 1. Needs two levels."""
    return x.float() * (2 / (levels - 1)) - 1


def binned(x: Tensor, levels: int) -> Tensor:
    """Levels to [-1, 1], each drawn uniformly from its bin of width 2 / `levels`: no grid that a network could see."""
    return (x + torch.rand_like(x, dtype=torch.float32)) * (2 / levels) - 1


def unbinned(y: Tensor, levels: int) -> Tensor:
    """The level in whose bin each number lies, int64: the inverse of `binned`. What is outside [-1, 1] is clamped."""
    return ((y + 1) * (levels / 2)).floor().long().clamp(0, levels - 1)


def as_grid(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape (C, H, W) of a grid as it is; a few coordinates (D,) as a grid of one row, (1, 1, D)."""
    return tuple(shape) if len(shape) == 3 else (1, 1, *shape)


def raster(x: Tensor) -> Tensor:
    """Images `[B, C, H, W]` row by row, pixel by pixel, the colours of a pixel together: `[B, H W C]`."""
    return x.movedim(1, -1).flatten(1)


def unraster(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The images `[B, *shape]`, shape = (C, H, W), that `raster` reads as `x` `[B, H W C]`."""
    colours, rows, columns = shape
    return x.reshape(-1, rows, columns, colours).movedim(-1, 1).contiguous()
