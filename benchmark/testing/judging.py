"""Samples and probabilities, bounds and noise: whether numbers agree, as far as chance lets one say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from benchmark.spec import DataSpec
from benchmark.testing.universe import index_of

P_VALUE = 1e-4  # below which samples and probabilities disagree
SIGMAS = 4.5  # standard errors that a Monte-Carlo comparison is allowed


def elbo_draws(model: Any, x: Tensor, draws: int) -> Tensor:
    """Independent draws of the bound `[draws, N]` in double precision."""
    return _draws(model.elbo, x, draws)


def importance_draws(model: Any, x: Tensor, importance_samples: int, draws: int) -> Tensor:
    """Independent draws of the tightened bound `[draws, N]` in double precision."""
    return _draws(lambda chunk: model.importance_bound(chunk, importance_samples), x, draws)


def _draws(bound: Callable[[Tensor], Tensor], x: Tensor, draws: int) -> Tensor:
    """16 at a time, in one batch."""
    values = []
    for chunk in x.repeat(draws, *[1] * (x.ndim - 1)).split(16 * len(x)):
        values.append(bound(chunk).detach())  # a bound may compute gradients for itself
        assert values[-1].shape == (len(chunk),), f"a bound has shape {tuple(values[-1].shape)}, not ({len(chunk)},)"
    return torch.cat(values).view(draws, len(x)).double()


def until_precise(draw: Callable[[], Tensor], error: Callable[[Tensor], float], goal: float, most: int) -> Tensor:
    """Draws `[K, N]`, as many as bring `error` down to `goal`, `most` at most. Only their precision is looked at."""
    draws = draw()
    while len(draws) < most and error(draws) > goal:
        draws = torch.cat([draws, draw()])
    return draws


def excess(elbo: Tensor) -> tuple[float, float]:
    """By how much Σₓ exp E[elbo(x)] is too large when E is the mean of K draws `[K, N]`: the bias, and what noise adds.

    exp of a mean is too large by about sd²/2K (relative).
    """
    q, variance = elbo.mean(0).exp(), elbo.var(0) / len(elbo)  # [N], the variance that of the mean
    return float((q * (variance / 2).expm1()).sum()), SIGMAS * float((q**2 * variance).sum().sqrt())


def weighted_mean(draws: Tensor, p: Tensor) -> tuple[float, float]:
    """Mean of `draws` `[K, N]` over draws and, weighted by `p` `[N]`, over examples; and its standard error."""
    mean, variance = draws.mean(0), draws.var(0) / len(draws)  # [N]
    return float((p * mean).sum()), float((p**2 * variance).sum().sqrt())


def assert_in_data_units(x: Tensor, n: int, spec: DataSpec) -> None:
    assert x.shape == (n, *spec.shape), f"shape {tuple(x.shape)}, expected {(n, *spec.shape)}"
    assert x.dtype == torch.int64, f"dtype {x.dtype}, expected torch.int64"
    low, high = int(x.min()), int(x.max())
    assert 0 <= low <= high < spec.levels, f"values {low}..{high}, expected 0..{spec.levels - 1}"


def assert_frequencies_agree(samples: Tensor, p: Tensor, spec: DataSpec) -> None:
    """Chi-square test of `samples` `[n, *shape]` against `p` `[N]` over every example; rare ones are pooled.

    Where nearly all are expected to be one and the same, an exact test of how many are.
    """
    n = len(samples)
    assert_in_data_units(samples, n, spec)
    observed = index_of(samples, spec).bincount(minlength=len(p)).double()  # [N]
    expected = n * p.double() / p.double().sum()  # [N]
    order = expected.argsort()
    rare = int((expected[order].cumsum(0) < 5).sum()) + 1  # the fewest that are expected five times together ...
    rare = max(rare, int((expected < 5).sum()))  # ... and all that are expected less often each
    if rare < len(p):
        observed, expected = (torch.cat([v[order[:rare]].sum()[None], v[order[rare:]]]) for v in (observed, expected))
        p_value = float(stats.chisquare(observed.numpy(), expected.numpy()).pvalue)
    else:
        likeliest = int(order[-1])
        chance = min(1.0, float(expected[likeliest] / n))
        p_value = float(stats.binomtest(int(observed[likeliest]), n, chance).pvalue)
    assert p_value > P_VALUE, f"frequencies of samples disagree with the model's probabilities (p = {p_value:.1e})"


def same_source(a: Tensor, b: Tensor, spec: DataSpec) -> float:
    """p-value of a chi-square test that `a` and `b` `[n, *shape]` come from one source; rare examples are pooled."""
    counts = torch.stack([index_of(x, spec).bincount(minlength=spec.levels**spec.dims) for x in (a, b)])  # [2, N]
    rare = counts.sum(0) < 20
    table = torch.cat([counts[:, ~rare], counts[:, rare].sum(1, keepdim=True)], 1)
    return float(stats.chi2_contingency(table[:, table.sum(0) > 0].numpy()).pvalue)
