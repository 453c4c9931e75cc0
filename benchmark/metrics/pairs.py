"""Comparisons of each row of one table with each row of another, a part at a time, where the rows are."""

from __future__ import annotations

import torch
from torch import Tensor

PART = 1_000  # rows at a time: their distances to 50,000 others are 200 MB


def nearest(x: Tensor, reference: Tensor) -> Tensor:
    """Euclidean distance `[n]` of each row of `x` `[n, d]` to the nearest row of `reference` `[N, d]`."""
    return torch.cat([torch.cdist(part, reference).min(1).values for part in x.split(PART)])


def radii(x: Tensor, neighbours: int) -> Tensor:
    """Euclidean distance `[n]` of each row of `x` `[n, d]` to its k-th nearest other row."""
    parts = (torch.cdist(part, x).topk(neighbours + 1, largest=False) for part in x.split(PART))
    return torch.cat([part.values[:, neighbours] for part in parts])  # the nearest is the row itself


def within(x: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Whether `[n]` each row of `x` `[n, d]` lies in a ball around a row of `centres` `[N, d]` with `radii` `[N]`."""
    return torch.cat([(torch.cdist(part, centres) <= radii).any(1) for part in x.split(PART)])


def cubic_kernel_sum(x: Tensor, y: Tensor) -> float:
    """Σ (x·y/d + 1)³ over all pairs of rows of `x` `[n, d]` and `y` `[m, d]`."""
    total = 0.0
    for part in x.split(PART):
        k = part @ y.T / x.shape[1] + 1
        total += float((k * k * k).sum(dtype=torch.float64))
    return total


def cubic_kernel_sum_of_others(x: Tensor) -> float:
    """The same over all pairs of different rows of `x`."""
    k = x.square().sum(1) / x.shape[1] + 1
    return cubic_kernel_sum(x, x) - float((k * k * k).sum(dtype=torch.float64))
