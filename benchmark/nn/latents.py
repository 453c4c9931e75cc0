"""Paths between latents."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def interpolated(first: Tensor, last: Tensor, steps: int, decode: Callable[[Tensor], Tensor]) -> Tensor:
    """What `decode` makes of the points of paths from latents `first` to `last` `[n, ...]`: `[n, steps, *shape]`.

    Both are standard normal and independent, and so is each point cos(πt/2) first + sin(πt/2) last on its own: no point
    lies where the prior has no mass, as the middle of a straight line does (White 2016). What `decode` draws at random
    is the same at each point.
    """
    seed = int(torch.randint(2**31, ()))
    points = []
    for t in torch.linspace(0, 1, steps).tolist():
        with torch.random.fork_rng([first.device] if first.is_cuda else []):
            torch.manual_seed(seed)
            points.append(decode(math.cos(math.pi / 2 * t) * first + math.sin(math.pi / 2 * t) * last))
    return torch.stack(points, 1)
