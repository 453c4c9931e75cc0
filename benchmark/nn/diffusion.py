"""Flows in continuous time: solvers of dy/dt = f(y, t), and the divergence of f."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


def heun(velocity: Callable[[Tensor, Tensor], Tensor], y: Tensor, times: Tensor) -> Tensor:
    """y [B, ...] carried from times[0] to times[-1] by Heun's method of order two, two evaluations a step.

    `velocity(y, t)` is asked for t [B].
    """
    for t, u in pairwise(times):
        here = velocity(y, t.expand(len(y)))
        there = velocity(y + (u - t) * here, u.expand(len(y)))
        y = y + (u - t) * (here + there) / 2
    return y


def runge_kutta(velocity: Callable[[Tensor, float], Tensor], y: Tensor, t: float, u: float, k1: Tensor) -> Tensor:
    """y [B, ...] after one step of the classical method of order four from t to u; `k1` is the velocity at t."""
    h = u - t
    k2 = velocity(y + h / 2 * k1, t + h / 2)
    k3 = velocity(y + h / 2 * k2, t + h / 2)
    k4 = velocity(y + h * k3, u)
    return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def random_directions(y: Tensor, groups: int) -> Tensor:
    """Along which a divergence at y [B, C, H, W] is estimated, `[K, B, C, H, W]`: K is `groups`, or D if less.

    Random signs (Hutchinson 1990), each time on another of `groups` groups of pixels, far from each other: only the
    entries of the Jacobian within a group add noise, and with a group for each pixel and channel there is none.
    """
    _, C, height, width = y.shape
    D = C * height * width
    K = min(groups, D)
    stride = max(1, round(math.sqrt(K / C)))  # of a row: pixels of one group lie about √(K / C) apart
    pixel = stride * torch.arange(height)[:, None] + torch.arange(width)
    group = (C * pixel + torch.arange(C)[:, None, None]) % K  # [C, H, W]
    if K == D:
        group = torch.arange(D).view(C, height, width)
    chosen = F.one_hot(group, K).permute(3, 0, 1, 2).unsqueeze(1).to(y.device)  # [K, 1, C, H, W]
    signs = torch.randint(2, y.shape, device=y.device).float() * 2 - 1
    return chosen * signs


def divergence(field: Callable[[Tensor], Tensor], y: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """field(y) `[B, C, H, W]`, and its divergence `[B]` as the sum of eᵀ J e over `directions` e [K, B, C, H, W].

    One backward pass for each: as quick as all in a batch, and a GPU has no such batches of convolutions whose channels
    come last.
    """
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        value = field(y)
        total = torch.zeros(len(y), device=y.device)
        for i, e in enumerate(directions, 1):
            (product,) = torch.autograd.grad(value, y, e, retain_graph=i < len(directions))  # eᵀ J
            total = total + (e * product).flatten(1).sum(1)
    return value.detach(), total
