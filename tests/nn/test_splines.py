"""Splines: monotone, the identity where they should be, and with gradients everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark import testing
from benchmark.nn.splines import LEAST, Spline

BOUND = 3.0


def drawn(bins: int = 6, n: int = 4000, scale: float = 2.0) -> tuple[Spline, Tensor, Tensor]:
    """A spline, numbers within and beyond its bound [n, 1], and parameters for each."""
    spline = Spline(bins, BOUND)
    with testing.seeded(0):
        return spline, 2.5 * torch.randn(n, 1).double(), scale * torch.randn(n, spline.outputs).double()


def test_is_the_identity_for_parameters_0_and_beyond_its_bound() -> None:
    spline, x, parameters = drawn()
    y, log_slope = spline(x, torch.zeros_like(parameters))
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-6)
    y, log_slope = spline(x, parameters)
    beyond = x.abs() >= BOUND
    assert beyond.any()
    assert torch.equal(y[beyond], x[beyond])
    assert not log_slope[beyond].any()
    assert ((y - x).abs() > 0.05)[~beyond].any()


def test_rises_everywhere_and_meets_its_knots_and_slopes() -> None:
    spline, _, parameters = drawn(n=50)
    x = torch.linspace(-BOUND - 1, BOUND + 1, 3001).double()
    for one in parameters:
        y, log_slope = spline(x[:, None], one.expand(len(x), -1))
        assert (y.diff(dim=0) > 0).all()
        numeric = (y[2:] - y[:-2]) / (x[2:] - x[:-2])[:, None]
        apart = (numeric.log() - log_slope[1:-1]).abs()
        assert apart.median() < 1e-4
    ends, heights, slopes = spline.knots(parameters)  # [50, 7, 1] each
    for k in range(7):
        y, log_slope = spline(ends[:, k], parameters)
        torch.testing.assert_close(y, heights[:, k])
        torch.testing.assert_close(log_slope.exp(), slopes[:, k])
    assert torch.equal(ends[:, [0, -1], 0], torch.tensor([-BOUND, BOUND]).double().expand(50, 2))
    assert (ends.diff(dim=1) >= 2 * BOUND * LEAST * 0.999).all()


def test_the_inverse_inverts_in_single_precision_however_steep() -> None:
    """The discriminant of the quadratic, which rounding may send below 0, makes no number that is none."""
    spline, x, parameters = drawn(bins=16, n=100_000, scale=6.0)
    x, parameters = x.float(), parameters.float()
    y, log_slope = spline(x, parameters)
    back = spline.inverse(y, parameters)
    assert back.isfinite().all()
    flat = log_slope < -4  # there y hardly tells x
    torch.testing.assert_close(back[~flat], x[~flat], rtol=0, atol=2e-3)
    again, _ = spline(back, parameters)
    torch.testing.assert_close(again, y, rtol=0, atol=2e-3)


def test_gradients_are_finite_far_beyond_the_bound() -> None:
    spline, x, parameters = drawn()
    x, parameters = (1e6 * x).requires_grad_(), parameters.requires_grad_()
    y, log_slope = spline(x, parameters)
    (y.sum() + log_slope.sum()).backward()
    assert x.grad is not None
    assert parameters.grad is not None
    assert x.grad.isfinite().all()
    assert parameters.grad.isfinite().all()
