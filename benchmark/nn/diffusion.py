"""Solvers of the ordinary differential equations dy/dt = f(y, t) of flows in continuous time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor


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
