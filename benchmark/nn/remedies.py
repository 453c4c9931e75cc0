"""Remedies against collapse of a generator G: what a discriminator D sees beside one example, and what holds D back.

Each is off by default, and then changes neither a network nor a draw of random numbers. Shapes: y [B, C, H, W] or
[B, D] in [-1, 1]; P features of an example; K kernels.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

Network = TypeVar("Network", bound=nn.Module)

# Layers of D: what one example cannot show ---------------------------------------------------------------------------


class Pack(nn.Module):
    """[B, C, ...] to [B / m, m C, ...]: D judges m consecutive examples at once (Lin and others, "PacGAN", NeurIPS
    2018, arXiv:1712.04086). They must be of one source."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, y: Tensor) -> Tensor:
        packs: Tensor = y.unflatten(0, (-1, self.size))  # [B / m, m, C, ...]
        return packs.flatten(1, 2)


class BatchDeviation(nn.Module):
    """Features [B, P] to [B, P + 1]: the last one is the standard deviation (divided by n, not n - 1) over a group of
    `size` consecutive examples, averaged over features (Karras and others, "Progressive Growing of GANs", ICLR 2018,
    arXiv:1710.10196, section 3)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, h: Tensor) -> Tensor:
        groups = h.float().unflatten(0, (-1, self.size))  # [B / size, size, P]
        variance = (groups - groups.mean(1, keepdim=True)).square().mean(1)  # [B / size, P]; `var` is far slower here
        deviation = (variance + 1e-8).sqrt().mean(1)  # [B / size]; √ has a slope at 0
        return torch.cat([h, deviation.to(h).repeat_interleave(self.size)[:, None]], 1)


class BatchDiscrimination(nn.Module):
    """Features [B, P] to [B, P + K]: how near an example is to all others of its batch, in K projections (Salimans and
    others, "Improved Techniques for Training GANs", NeurIPS 2016, arXiv:1606.03498, section 3.2).

    The paper's sum has a term for the example itself, which is always 1; here it has not.
    """

    #: Dimensions of each projection.
    dims = 5

    def __init__(self, features: int, kernels: int) -> None:
        super().__init__()
        self.T = nn.Parameter(torch.randn(features, kernels * self.dims) / math.sqrt(features))

    def forward(self, h: Tensor) -> Tensor:
        M = (h @ self.T).float().unflatten(1, (-1, self.dims))  # [B, K, dims]
        distance = (M[:, None] - M).abs().sum(3)  # [B, B, K]
        near = torch.exp(-distance).sum(1) - 1  # [B, K]; exp(-0) = 1 is the example itself
        return torch.cat([h, near.to(h)], 1)


@dataclass(frozen=True)
class Remedies:
    """Which of them are built into a discriminator; by default none."""

    spectral: bool = False  # each layer has spectral norm 1 (Miyato and others 2018, arXiv:1802.05957)
    kernels: int = 0  # of mini-batch discrimination; 0: none
    deviation: int = 0  # examples in a group whose standard deviation is a feature; 0: none
    packing: int = 1  # examples that D judges at once

    @property
    def multiple(self) -> int:
        """What divides the number of examples that D can judge."""
        return self.packing * max(1, self.deviation)

    def whole(self, y: Tensor) -> Tensor:
        """The first examples of y [B, ...], as many as D can judge."""
        return y[: len(y) // self.multiple * self.multiple]

    def check(self, n: int) -> None:
        """Raises `ValueError` where D cannot judge a batch of n, or sees nothing beside one example."""
        least = 2 * self.packing
        if n % self.multiple or n < least:
            raise ValueError(
                f"a batch of {n} with packing={self.packing} and minibatch_deviation={self.deviation}: let "
                f"training.batch_size be a multiple of {self.multiple}, at least {least}"
            )

    def layer(self, layer: nn.Module) -> nn.Module:
        """A layer with a weight, as these remedies want it."""
        return spectral_norm(layer) if self.spectral else layer

    def first(self) -> list[nn.Module]:
        """What stands before D's first layer, whose channels are `packing` times those of the data."""
        return [Pack(self.packing)] if self.packing > 1 else []

    def last(self, features: int) -> tuple[list[nn.Module], int]:
        """What stands between `features` [B, P] and D's last layer, and how many features that one sees."""
        layers: list[nn.Module] = []
        if self.kernels:
            layers.append(BatchDiscrimination(features, self.kernels))
        if self.deviation:
            layers.append(BatchDeviation(self.deviation))
        return layers, features + self.kernels + (self.deviation > 0)


def parameters(network: nn.Module) -> int:
    """How many numbers are learnt."""
    return sum(p.numel() for p in network.parameters())


def matched(build: Callable[[int, Remedies], Network], width: int, remedies: Remedies) -> Network:
    """`build(width, remedies)`, as large as `build(width, Remedies())`: remedies with parameters of their own make the
    network narrower, so that a discriminator is not better for being larger. The whole width that comes nearest is
    within 5 % from about 24 channels on.

    Raises `ValueError` where remedies alone have more parameters than the network without.
    """

    def size(width: int, remedies: Remedies) -> int:
        with torch.device("meta"):  # neither memory nor random numbers
            return parameters(build(width, replace(remedies, spectral=False)))  # which has no parameters, and is slow

    goal = size(width, Remedies())
    if size(width, remedies) == goal:
        return build(width, remedies)
    if (least := size(1, remedies)) > goal:
        raise ValueError(
            f"minibatch_kernels={remedies.kernels} and packing={remedies.packing} have {least} parameters, more than "
            f"the {goal} of a whole discriminator without them: give less of either, or more discriminator_width"
        )
    widths = range(1, width + 1)  # with more parameters of their own, no wider
    above = bisect_left(widths, goal, key=lambda w: size(w, remedies))
    nearest = min(widths[max(0, above - 1) : above + 1], key=lambda w: abs(size(w, remedies) - goal))
    return build(nearest, remedies)


# Terms of a loss -----------------------------------------------------------------------------------------------------


def gradient_penalty(score: Tensor, y: Tensor) -> Tensor:
    """E ‖∇D(y)‖², summed over the pixels of what D judges, a mean over its judgements `score`: times γ/2 it is R1 where
    y are real (Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", ICML 2018,
    arXiv:1801.04406, eq. 9).

    Where D sees a batch together (batch normalisation, remedies above), this is the gradient of the sum of its scores.
    """
    (gradient,) = torch.autograd.grad(score.float().sum(), y, create_graph=True)
    return gradient.square().sum() / len(score)


def between(real: Tensor, fake: Tensor, packing: int = 1) -> Tensor:
    """α y + (1 - α) G(z) for one α ~ U(0, 1) an example, or a pack of consecutive ones, as a leaf that wants a gradient
    (Gulrajani and others, "Improved Training of Wasserstein GANs", NeurIPS 2017, arXiv:1704.00028, algorithm 1)."""
    alpha = torch.rand(len(real) // packing, device=real.device).repeat_interleave(packing)
    alpha = alpha.view(-1, *(1 for _ in real.shape[1:]))
    return (alpha * real + (1 - alpha) * fake).detach().requires_grad_()


def gradient_norms(score: Tensor, y: Tensor) -> Tensor:
    """‖∇D(y)‖₂ for each judgement of `score`, over all dimensions of what D judges there: an example, or a pack. D must
    judge each by itself."""
    (gradient,) = torch.autograd.grad(score.float().sum(), y, create_graph=True)
    return (gradient.reshape(len(score), -1).square().sum(1) + 1e-12).sqrt()  # √ has a slope at 0


def lipschitz_penalty(score: Tensor, y: Tensor) -> Tensor:
    """E (‖∇D(y)‖₂ - 1)² for y that are `between` (Gulrajani and others 2017, eq. 3)."""
    return (gradient_norms(score, y) - 1).square().mean()


def feature_matching(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """‖E f(x) - E f(G(z))‖² for features [B, P] of an intermediate layer f of D: a loss of G alone (Salimans and others
    2016, section 3.1)."""
    return (on_real.float().mean(0) - on_fake.float().mean(0)).square().sum()
