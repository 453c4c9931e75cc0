"""Distributions that torch lacks, and bounds by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.nn import functional as F

from benchmark.nn.sampling import draw


class LogSoftmaxAt(nn.Module):
    """log p(x) `[B, T]` of categories x `[B, T]` under logits `[B, T, V]`, in full precision. Over a large vocabulary
    what stands between the two weighs more than the network, unless it is one kernel."""

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        return -F.cross_entropy(logits.float().flatten(0, 1), x.flatten(), reduction="none").view_as(x)


def log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I) `[B]` for z [B, ...], in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def log_logistic(z: Tensor) -> Tensor:
    """log-density `[B]` of independent standard logistic numbers z [B, ...], in nats: σ(z) σ(-z) each."""
    log_density: Tensor = (F.logsigmoid(z) + F.logsigmoid(-z)).flatten(1).sum(1)
    return log_density


def logistic_of_normal(e: Tensor) -> Tensor:
    """Standard logistic numbers of standard normal ones, in the same order: logit Φ(e), also far from 0."""
    z: Tensor = torch.special.log_ndtr(e) - torch.special.log_ndtr(-e)
    return z


def importance_bound(log_weights: Callable[[int], Tensor], samples: int, chunk: int) -> Tensor:
    """The log of the mean of `samples` importance weights, `[B]` in nats.

    `log_weights(k)` makes k draws of log p(x, z) / q(z | x), `[k, B]`; it is asked for `chunk` at a time at most. In
    expectation a lower bound on log p(x) (Burda and others, "Importance Weighted Autoencoders", ICLR 2016,
    arXiv:1509.00519, eq. 8).
    """
    sizes = (min(chunk, samples - start) for start in range(0, samples, chunk))
    total = reduce(torch.logaddexp, (log_weights(k).logsumexp(0) for k in sizes))
    return total - math.log(samples)


def log_bin(level: Tensor, mu: Tensor, scale: Tensor, levels: int) -> Tensor:
    """log-probability in nats that a logistic variable falls into the bin of a `level`, `[...]`.

    Levels lie evenly on [-1, 1], in the middle of bins of equal width; the outer bins reach to infinity.
    """
    bin_width = 2 / (levels - 1)
    lower = (level * bin_width - 1 - bin_width / 2 - mu) / scale
    upper = lower + bin_width / scale
    # s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)) for the sigmoid s: no cancellation. At the ends a factor becomes 1.
    first, last = level == 0, level == levels - 1
    return (
        F.logsigmoid(upper).masked_fill(last, 0.0)
        + F.logsigmoid(-lower).masked_fill(first, 0.0)
        + torch.log(-torch.expm1(-bin_width / scale)).masked_fill(first | last, 0.0)
    )


def log_normal_bin(level: Tensor, mu: Tensor, sigma: Tensor, levels: int) -> Tensor:
    """log-probability in nats that a normal variable falls into the bin of a `level`, `[...]`; bins as in `log_bin`."""
    half = 1 / (levels - 1)
    centre = 2 * half * level - 1 - mu
    # Both ends are turned to the left of the mean, where a cumulative distribution has a precise logarithm.
    upper, lower = (half - centre.abs()) / sigma, (-half - centre.abs()) / sigma
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    inner = log_upper + torch.log(-torch.expm1(log_lower - log_upper))
    first, last = level == 0, level == levels - 1
    outer = torch.special.log_ndtr(torch.where(first, centre + half, half - centre) / sigma)
    return torch.where(first | last, outer, inner)


def normal_kl(mu: Tensor, log_variance: Tensor, other_mu: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL divergence of N(mu, exp(log_variance)) from another normal distribution, in nats `[...]`."""
    ratio = log_variance - other_log_variance
    return 0.5 * (ratio.exp() - 1 - ratio + (mu - other_mu).square() * (-other_log_variance).exp())


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
        log_p = log_bin(value.unsqueeze(-4), self.mu, self.scale, self.levels)  # [..., K, C, H, W]
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


def pixel_numbers(likelihood: str, levels: int, components: int) -> int:
    """How many numbers `independent_pixels` takes for each pixel and colour; `components` are of "logistics".

    >>> [pixel_numbers(name, 17, 2) for name in ("bernoulli", "categorical", "logistics")]
    [1, 17, 6]
    """
    return {"bernoulli": 1, "categorical": levels, "logistics": 3 * components}[likelihood]


def independent_pixels(outputs: Tensor, likelihood: str, levels: int) -> Distribution:
    """A distribution over levels `[..., C, H, W]`, pixels and colours independent, from `outputs` [..., P, C, H, W].

    P numbers a pixel: the logit of level 1 of two ("bernoulli"), a logit of each level ("categorical"), or what
    `DiscretisedLogistics` takes ("logistics").
    """
    if likelihood == "bernoulli":
        return Bernoulli(logits=outputs.squeeze(-4), validate_args=False)
    if likelihood == "categorical":
        return Categorical(logits=outputs.movedim(-4, -1), validate_args=False)
    return DiscretisedLogistics(outputs, levels)


def mean_level(pixels: Distribution, x: Tensor, levels: int) -> Tensor:
    """The mean of each pixel's distribution over levels, rounded to a level: of the shape and dtype of `x`."""
    probabilities = (pixels.log_prob(torch.full_like(x, level, dtype=torch.float32)).exp() for level in range(levels))
    mean = sum(level * p for level, p in enumerate(probabilities))
    return torch.as_tensor(mean).round().to(x.dtype)


class CoupledLogistics:
    """Mixture of discretised logistics over the colours of a pixel together, as PixelCNN++ has it; pixels are
    independent.

    A pixel has one mixture index. Given it, the mean of each colour is shifted in proportion to the colours before it,
    by coefficients within ±1 (Salimans and others 2017, section 2.2). `outputs` is [B, count(C, K), H, W]: for K
    components logits, and for each colour means, logarithms of scales, and coefficients of all colours before it.
    """

    def __init__(self, outputs: Tensor, colours: int, levels: int) -> None:
        parts = outputs.unflatten(1, (self.count(colours, 1), -1))  # [B, 1 + 2C + C(C-1)/2, K, H, W]
        logits, self.mu, log_scale, coefficients = parts.split([1, colours, colours, colours * (colours - 1) // 2], 1)
        self.logits = logits.squeeze(1)  # [B, K, H, W]
        self.scale = log_scale.clamp(-7.0, 7.0).exp()  # [B, C, K, H, W]
        self.coefficients = coefficients.tanh()
        self.levels = levels

    @staticmethod
    def count(colours: int, components: int) -> int:
        """How many numbers a pixel takes.

        >>> CoupledLogistics.count(3, 10), CoupledLogistics.count(1, 5)
        (100, 15)
        """
        return components * (1 + 2 * colours + colours * (colours - 1) // 2)

    def log_prob(self, x: Tensor) -> Tensor:
        """`[B, H, W]` in nats for levels `[B, C, H, W]`."""
        x = x.unsqueeze(2)  # [B, C, 1, H, W]
        y = self._centred(x)
        mu = torch.stack([self._mean(c, self.mu, self.coefficients, y) for c in range(x.shape[1])], 1)
        log_p = log_bin(x, mu, self.scale, self.levels).sum(1)  # [B, K, H, W]
        return torch.logsumexp(self.logits.log_softmax(1) + log_p, 1)

    def sample(self) -> Tensor:
        """Levels `[B, C, H, W]`, int64; each colour is rounded to a level before it shifts the next."""
        component = draw(self.logits.movedim(1, -1))[:, None, None]  # [B, 1, 1, H, W]
        mu, scale, coefficients = (
            t.take_along_dim(component, 2).squeeze(2) for t in (self.mu, self.scale, self.coefficients)
        )
        x = torch.zeros_like(mu)
        for c in range(x.shape[1]):
            u = torch.rand_like(mu[:, c]).clamp(1e-7, 1 - 1e-7)
            y = self._mean(c, mu, coefficients, self._centred(x)) + scale[:, c] * torch.logit(u)
            x[:, c] = ((y + 1) * (self.levels - 1) / 2).round().clamp(0, self.levels - 1)
        return x.long()

    def _centred(self, x: Tensor) -> Tensor:
        return x * (2 / (self.levels - 1)) - 1

    @staticmethod
    def _mean(c: int, mu: Tensor, coefficients: Tensor, y: Tensor) -> Tensor:
        """Of colour c, given the colours before it (eq. 3)."""
        first = c * (c - 1) // 2
        return mu[:, c] + (coefficients[:, first : first + c] * y[:, :c]).sum(1)


class CoupledCategorical:
    """A softmax over the levels of each colour of a pixel, whose logits depend on the colours before it by tables.

    `outputs` is [B, C L, H, W]; `tables` are one embedding of L levels as L logits for each pair of a colour and one
    before it: (1, 0), (2, 0), (2, 1), ...
    """

    def __init__(self, outputs: Tensor, tables: Sequence[nn.Module], colours: int) -> None:
        self.logits = outputs.unflatten(1, (colours, -1)).movedim(2, -1)  # [B, C, H, W, L]
        self.tables = tables

    def log_prob(self, x: Tensor) -> Tensor:
        """`[B, H, W]` in nats for levels `[B, C, H, W]`."""
        logits = torch.stack([self._logits(c, x) for c in range(x.shape[1])], 1)
        return -F.cross_entropy(logits.movedim(-1, 1), x.long(), reduction="none").sum(1)

    def sample(self) -> Tensor:
        """Levels `[B, C, H, W]`, int64, colour after colour."""
        x = torch.zeros(self.logits.shape[:-1], dtype=torch.long, device=self.logits.device)
        for c in range(x.shape[1]):
            x[:, c] = draw(self._logits(c, x))
        return x

    def _logits(self, c: int, x: Tensor) -> Tensor:
        """Of colour c, `[B, H, W, L]`, given the colours before it."""
        first = c * (c - 1) // 2
        logits: Tensor = self.logits[:, c] + sum(self.tables[first + before](x[:, before]) for before in range(c))
        return logits
