"""Distributions that torch lacks, and bounds by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution
from torch.nn import functional as F


def log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I) `[B]` for z [B, ...], in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def importance_bound(log_weights: Callable[[int], Tensor], samples: int, chunk: int) -> Tensor:
    """The log of the mean of `samples` importance weights, `[B]` in nats.

    `log_weights(k)` makes k draws of log p(x, z) / q(z | x), `[k, B]`; it is asked for `chunk` at a time at most. In
    expectation a lower bound on log p(x) (Burda and others, "Importance Weighted Autoencoders", ICLR 2016,
    arXiv:1509.00519, eq. 8).
    """
    sizes = (min(chunk, samples - start) for start in range(0, samples, chunk))
    total = reduce(torch.logaddexp, (log_weights(k).logsumexp(0) for k in sizes))
    return total - math.log(samples)


class DiscretisedLogistics(Distribution):
    """Mixture of logistics integrated over the levels' bins; pixels and channels are independent.

    Salimans and others, "PixelCNN++", ICLR 2017, arXiv:1701.05517, eq. 2. Levels lie evenly on [-1, 1]; the outer bins
    reach to infinity, so that the levels' probabilities sum to one. `outputs` is [..., 3K, C, H, W]: K mixture logits,
    K means, K logarithms of scales.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own convention)

    def __init__(self, outputs: Tensor, levels: int) -> None:
        self.logits, self.mu, log_scale = outputs.chunk(3, dim=-4)  # [..., K, C, H, W] each
        self.scale = log_scale.clamp(-7.0, 7.0).exp()  # finite, also where a level never varies
        self.levels = levels
        super().__init__(outputs.shape[:-4] + outputs.shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """`[..., C, H, W]` in nats for levels [..., C, H, W]."""
        x = value.unsqueeze(-4)  # [..., 1, C, H, W]
        bin_width = 2 / (self.levels - 1)
        lower = (x * bin_width - 1 - bin_width / 2 - self.mu) / self.scale  # [..., K, C, H, W]
        upper = lower + bin_width / self.scale
        # s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)) for the sigmoid s: no cancellation. At the ends a factor becomes 1.
        first, last = x == 0, x == self.levels - 1
        log_p = (
            F.logsigmoid(upper).masked_fill(last, 0.0)
            + F.logsigmoid(-lower).masked_fill(first, 0.0)
            + torch.log(-torch.expm1(-bin_width / self.scale)).masked_fill(first | last, 0.0)
        )
        return torch.logsumexp(self.logits.log_softmax(dim=-4) + log_p, dim=-4)  # eq. 2

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Levels `[*sample_shape, ..., C, H, W]`, as whole floating-point numbers."""
        logits = self.logits.expand(*sample_shape, *self.logits.shape).movedim(-4, -1)  # [..., C, H, W, K]
        component = Categorical(logits=logits, validate_args=False).sample().unsqueeze(-4)  # [..., 1, C, H, W]
        mu, scale = (
            t.expand_as(logits.movedim(-1, -4)).gather(-4, component).squeeze(-4) for t in (self.mu, self.scale)
        )
        u = torch.rand_like(mu).clamp(1e-7, 1 - 1e-7)
        x = mu + scale * torch.logit(u)  # [..., C, H, W]
        return ((x + 1) * (self.levels - 1) / 2).round().clamp(0, self.levels - 1)
