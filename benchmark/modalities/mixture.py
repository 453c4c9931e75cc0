"""A mixture of categoricals: what a model must beat that claims to know more of images than which of a few they are.

Given its component, each pixel is an independent draw from a histogram of its own: p(x) = Σ_k π_k Π_d p_kd(x_d). Fitted
by expectation and maximisation (Dempster, Laird and Rubin 1977); the number of components is chosen on validation.

Shapes: x `[N, ...]` levels; K components, D pixels, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.metrics.keyed import keyed_randomness
from benchmark.modalities.base import log_frequencies

COMPONENTS = (10, 40, 160)
EXAMPLES = 20_000  # of the training split that a mixture learns from, at most
ROUNDS = 15  # of expectation and maximisation
PRIOR = 0.5  # pseudo-examples a level of each component's pixel, distributed as that pixel is over all components
PART = 2_000  # examples at a time


@dataclass(frozen=True)
class Mixture:
    log_weights: Tensor  # [K]
    table: Tensor  # [D L, K]: log p_kd(l)
    levels: int

    def log_prob(self, x: Tensor) -> Tensor:
        """`[N]` nats an example, float64."""
        return torch.cat([self.joint(part).logsumexp(1).double() for part in x.split(PART)])

    def joint(self, x: Tensor) -> Tensor:
        """log π_k p_k(x), `[N, K]`."""
        return F.embedding_bag(cells(x, self.levels), self.table, mode="sum") + self.log_weights

    def draw(self, n: int, shape: tuple[int, ...]) -> Tensor:
        """`n` images `[n, *shape]`, by torch's global generator."""
        k = torch.multinomial(self.log_weights.exp(), n, replacement=True)
        p = self.table.exp().view(-1, self.levels, len(self.log_weights))[..., k]  # [D, L, n]
        return torch.multinomial(p.permute(2, 0, 1).flatten(0, 1), 1).view(n, *shape)


def cells(x: Tensor, levels: int) -> Tensor:
    """Where each pixel's level stands in a table `[D L, ...]`: `[N, D]`."""
    flat = x.flatten(1).long()
    return flat + torch.arange(flat.shape[1]) * levels


def fit(train: Tensor, validation: Tensor, levels: int, seed: int) -> Mixture:
    """The mixture that makes `validation` likeliest; more components are tried as long as they help."""
    with keyed_randomness(torch.device("cpu"), seed, "categorical mixture"):
        x = train[torch.randperm(len(train))[:EXAMPLES]]
        best, score = None, -torch.inf
        for components in COMPONENTS:
            mixture = maximised(x, min(components, len(x)), levels)
            new = mixture.log_prob(validation).mean().item()
            if best is not None and new <= score:
                break
            best, score = mixture, new
    assert best is not None
    return best


def maximised(x: Tensor, components: int, levels: int) -> Mixture:
    """A mixture of so many components, from random examples as their first centres."""
    dims = x[0].numel()
    pooled = log_frequencies(_counts(x, torch.ones(len(x), 1), levels).view(dims, levels)).exp().view(-1, 1)
    flat = x.flatten(1).float()
    nearest = torch.cdist(flat, flat[torch.randperm(len(x))[:components]]).argmin(1)
    weights = F.one_hot(nearest, components).float()  # [N, K]
    mixture = _from_weights(x, weights, pooled, levels)
    for _ in range(ROUNDS):
        weights = torch.cat([mixture.joint(part).softmax(1) for part in x.split(PART)])
        mixture = _from_weights(x, weights, pooled, levels)
    return mixture


def _from_weights(x: Tensor, weights: Tensor, pooled: Tensor, levels: int) -> Mixture:
    """The likeliest mixture when each example belongs to each component by so much, under the prior."""
    sizes = weights.sum(0)  # [K]
    prior = PRIOR * levels
    table = (_counts(x, weights, levels) + prior * pooled) / (sizes + prior)
    return Mixture(((sizes + 1) / (sizes + 1).sum()).log().float(), table.log().float(), levels)


def _counts(x: Tensor, weights: Tensor, levels: int) -> Tensor:
    """How much of each component has which level in which pixel: `[D L, K]` float64."""
    counts = torch.zeros(x[0].numel() * levels, weights.shape[1], dtype=torch.float64)
    for part, weight in zip(x.split(PART), weights.double().split(PART), strict=True):
        for column in cells(part, levels).T:  # of one pixel: few cells, which stay in the cache
            counts.index_add_(0, column, weight)
    return counts
