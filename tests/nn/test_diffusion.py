"""Solvers against scipy's, and the orders of their errors."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from benchmark.nn.diffusion import heun, runge_kutta

START = torch.tensor([[0.5, -1.0], [1.5, 0.2]], dtype=torch.float64)


def field(y: Tensor, t: Tensor) -> Tensor:
    """Depends on time, and is no polynomial: [B, 2], at times [B]."""
    return torch.stack([y[:, 1] * t, -torch.sin(y[:, 0]) + t.square()], 1)


def by_scipy(last: float) -> Tensor:
    def rate(t: float, y: object) -> Tensor:
        return field(torch.as_tensor(y).view(2, 2), torch.full((2,), t)).flatten()

    found = solve_ivp(rate, (0.0, last), START.flatten(), rtol=1e-11, atol=1e-11).y[:, -1]
    return torch.as_tensor(found).view(2, 2)


def by_heun(steps: int) -> Tensor:
    return heun(field, START, torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 2)  # uneven steps


def by_runge_kutta(steps: int) -> Tensor:
    def velocity(y: Tensor, t: float) -> Tensor:
        return field(y, torch.full((len(y),), t, dtype=torch.float64))

    y, times = START, [(i / steps) ** 2 for i in range(steps + 1)]
    for t, u in pairwise(times):
        y = runge_kutta(velocity, y, t, u, velocity(y, t))
    return y


@pytest.mark.parametrize(("solve", "order"), [(by_heun, 2), (by_runge_kutta, 4)])
def test_a_solver_agrees_with_scipy_and_its_error_falls_by_its_order(solve: object, order: int) -> None:
    exact = by_scipy(1.0)
    coarse, fine = (float((solve(steps) - exact).abs().max()) for steps in (16, 32))  # type: ignore[operator]
    assert fine < 1e-3
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


def test_heun_goes_backward_too_and_asks_twice_a_step() -> None:
    asked: list[float] = []

    def counted(y: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (2,)
        asked.append(float(t[0]))
        return field(y, t)

    there = heun(field, START, torch.linspace(0, 1, 201, dtype=torch.float64))
    back = heun(counted, there, torch.linspace(1, 0, 201, dtype=torch.float64))
    torch.testing.assert_close(back, START, rtol=0, atol=1e-4)
    assert len(asked) == 400
    assert (asked[0], asked[-1]) == (1.0, 0.0)
