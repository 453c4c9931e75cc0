"""Integer levels as real numbers."""

from __future__ import annotations

from torch import Tensor


def centred(x: Tensor, levels: int) -> Tensor:
    """Levels 0 to `levels` - 1 on [-1, 1], the ends included, as float32 of the same shape."""
    return x.float() * (2 / (levels - 1)) - 1
