"""Likelihoods and bounds of whole examples. Standard errors are over test examples.

Where a model gives only an evidence lower bound, `nll` and `bits_per_dim` are upper bounds; evaluation marks them so.
"""

from __future__ import annotations

import math

from torch import Tensor

from benchmark.metrics.units import bits_per, scaled
from benchmark.spec import Estimate, Evidence


def mean_over_examples(x: Tensor) -> Estimate:
    """Mean of `x` `[N]` and its standard error sd/√N (`None` for a single example)."""
    n = x.numel()
    x = x.double()
    stderr = None if n < 2 else x.std().item() / math.sqrt(n)
    return Estimate(x.mean().item(), stderr, n)


def _given(x: Tensor | None, field: str) -> Tensor:
    if x is None or x.numel() == 0:
        raise ValueError(f"the evidence has no {field}: compute a metric only where one of its needs is met")
    return x


def log_likelihood(evidence: Evidence) -> Tensor:
    """log p(x) of each example `[N]` in nats: exact where the model gives it, else the mean draw of its ELBO."""
    if evidence.log_prob is not None:
        return _given(evidence.log_prob, "log_prob")
    return _given(evidence.elbo, "log_prob or elbo").double().mean(0)  # [K, N] -> [N]


def nll(evidence: Evidence) -> Estimate:
    """Negative log-likelihood in nats an example."""
    return scaled(mean_over_examples(log_likelihood(evidence)), -1.0)


def bits_per_dim(evidence: Evidence) -> Estimate:
    """Negative log-likelihood in bits for each pixel and channel (Theis and others 2016)."""
    return bits_per(nll(evidence), evidence.spec.dims)


def elbo(evidence: Evidence) -> Estimate:
    """Evidence lower bound in nats an example.

    Draws are averaged for each example first: they are not independent examples.
    """
    return mean_over_examples(_given(evidence.elbo, "elbo").double().mean(0))  # [K, N] -> [N]


def importance_bound(evidence: Evidence) -> Estimate:
    """Importance-weighted bound in nats an example (Burda and others 2016, eq. 8)."""
    return mean_over_examples(_given(evidence.importance_bound, "importance_bound"))
