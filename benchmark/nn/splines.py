"""Monotonic rational-quadratic splines as transforms of single numbers.

Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019, arXiv:1906.04032, section 3.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.nn.flows import Transform

LEAST = 1e-3  # width and height of a bin, as shares of all, and slope at a knot


class Spline(Transform):
    """`bins` pieces from -bound to bound, the identity beyond, where the slope is 1; and everywhere for parameters 0.

    Of the 3 bins - 1 parameters of each number, as many as bins are logits of widths and of heights; the others are
    slopes at the knots inside, before a softplus.
    """

    def __init__(self, bins: int, bound: float) -> None:
        super().__init__()
        self.bins, self.bound = bins, bound
        self.outputs = 3 * bins - 1

    def knots(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and slope at the bins' ends, [B, bins + 1, C, ...] each, for parameters [B, outputs C, ...]."""
        parts = parameters.unflatten(1, (self.outputs, -1))
        widths, heights, slopes = parts.split([self.bins, self.bins, self.bins - 1], 1)
        one = math.log(math.expm1(1 - LEAST))  # what the softplus sends to 1 - LEAST
        slopes = F.pad(F.softplus(slopes + one) + LEAST, self._around(slopes, 1), value=1.0)
        return self._ends(widths), self._ends(heights), slopes

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.abs() < self.bound
        at = x.masked_fill(~inside, 0.0)  # before the arithmetic of bins, so that no gradient is lost beyond them
        knots = self.knots(parameters)
        x0, y0, w, h, d0, d1 = self._bin(at, knots[0], knots)
        s, xi = h / w, (at - x0) / w
        across = xi * (1 - xi)
        below = s + (d0 + d1 - 2 * s) * across
        y = y0 + h * (s * xi.square() + d0 * across) / below  # eq. 4
        above = d1 * xi.square() + 2 * s * across + d0 * (1 - xi).square()
        log_slope = 2 * s.log() + above.log() - 2 * below.log()  # eq. 5
        return torch.where(inside, y, x), log_slope.masked_fill(~inside, 0.0)

    def inverse(self, y: Tensor, parameters: Tensor) -> Tensor:
        inside = y.abs() < self.bound
        at = y.masked_fill(~inside, 0.0)
        knots = self.knots(parameters)
        x0, y0, w, h, d0, d1 = self._bin(at, knots[1], knots)
        s = h / w
        bend = (at - y0) * (d0 + d1 - 2 * s)
        a, b, c = h * (s - d0) + bend, h * d0 - bend, -s * (at - y0)  # eq. 6 to 8
        root = (b.square() - 4 * a * c).clamp(min=0.0).sqrt()  # rounding may leave less than nothing,
        xi = (2 * c / (-b - root)).clamp(0.0, 1.0)  # or what lies beyond the bin
        return torch.where(inside, x0 + w * xi, y)

    def _ends(self, logits: Tensor) -> Tensor:
        """-bound to bound in bins of shares by a softmax; the last end is exact."""
        shares = LEAST + (1 - LEAST * self.bins) * logits.softmax(1)
        within = 2 * self.bound * shares[:, :-1].cumsum(1) - self.bound
        around = self._around(within, 1)
        return F.pad(F.pad(within, (*around[:-2], 1, 0), value=-self.bound), (*around[:-2], 0, 1), value=self.bound)

    @staticmethod
    def _around(x: Tensor, n: int) -> tuple[int, ...]:
        """`n` entries on both sides of dimension 1, in the order of `pad`."""
        return (*[0] * 2 * (x.ndim - 2), n, n)

    @staticmethod
    def _bin(at: Tensor, ends: Tensor, knots: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Of the bin in which each number lies among `ends`: left x and y, width, height, slopes left and right."""
        i = (at.unsqueeze(1) >= ends[:, 1:-1]).sum(1, keepdim=True)
        left, right = ([knot.gather(1, i + j).squeeze(1) for knot in knots] for j in (0, 1))
        return left[0], left[1], right[0] - left[0], right[1] - left[1], left[2], right[2]
