"""Solvers against scipy's, and the orders of their errors."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from benchmark.nn.diffusion import divergence, heun, random_directions, runge_kutta

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


# The divergence ------------------------------------------------------------------------------------------------------


def mixing(y: Tensor) -> Tensor:
    """Every pixel depends on its neighbours: [B, 2, 3, 4]."""
    return (y + y.roll(1, 3) * y.roll(1, 2).sin() + 0.5 * y.roll(1, 1) * y).tanh()


@pytest.mark.parametrize("groups", [24, 100])
def test_with_a_group_for_each_pixel_the_divergence_is_the_trace_of_the_jacobian(groups: int) -> None:
    torch.manual_seed(0)
    y = torch.randn(3, 2, 3, 4)
    directions = random_directions(y, groups)
    assert directions.shape == (24, 3, 2, 3, 4)
    value, found = divergence(mixing, y, directions)
    torch.testing.assert_close(value, mixing(y))
    assert not value.requires_grad
    for example, trace in zip(y, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: mixing(v[None])[0], example)
        torch.testing.assert_close(trace, jacobian.reshape(24, 24).trace(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 5, 8])
def test_with_fewer_groups_it_is_the_trace_on_average(groups: int) -> None:
    torch.manual_seed(0)
    y = torch.randn(1, 2, 3, 4)
    many = y.expand(4000, -1, -1, -1)
    directions = random_directions(many, groups)
    assert directions.shape[0] == groups
    assert torch.equal(directions.abs().sum(0), torch.ones(4000, 2, 3, 4))  # each pixel is in one group
    _, exact = divergence(mixing, y, random_directions(y, 24))
    _, estimates = divergence(mixing, many, directions)
    assert estimates.std() > 0
    assert abs(float(estimates.mean() - exact)) < 5 * float(estimates.std()) / math.sqrt(4000)
