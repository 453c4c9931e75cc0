"""Numbers that cannot be: a likelihood that beats the known source of its data.

For any model p and data from a source q, the mean over q of log p(x) - log q(x) is -KL(q, p), at most 0 (Cover and
Thomas 2006, theorem 2.6.3). So a mean difference above 0 by more than luck explains convicts `log_prob`, or the bound
that stands for it: a sum over half of the dimensions, a forgotten constant, a look at what is to be predicted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmark.facts import IMPOSSIBLE_SIGMAS, ROUNDING
from benchmark.metrics.text import TokenLogProb, block_means
from benchmark.metrics.units import bits_per, scaled
from benchmark.spec import Estimate


def impossible(ours: Tensor, source: Tensor, dims: int, promise: str) -> str | None:
    """Why the log-probabilities `ours` cannot be right, beside those of the `source` on the very same examples, both
    `[N]` nats an example of so many `dims` (a stream's tokens in their order); `None` where they can.

    `promise` is the method that gave them: `token_log_prob` speaks of a stream, whose neighbouring tokens are not
    independent, so blocks of them are what counts. The threshold is that quantile of Student's t which
    `IMPOSSIBLE_SIGMAS` is of the normal distribution: few examples convict no one.
    """
    from scipy.special import ndtr, stdtrit

    difference = ours.double() - source.double()  # [N]
    stream = promise == TokenLogProb.key
    terms = block_means(difference) if stream else difference
    n = 0 if terms is None else len(terms)
    if terms is None or n < 2 or not torch.isfinite(difference).all():
        return None
    gain, stderr = difference.mean().item(), terms.std().item() / math.sqrt(n)
    if (
        gain <= float(stdtrit(n - 1, ndtr(IMPOSSIBLE_SIGMAS))) * stderr
        or gain <= ROUNDING * source.double().mean().abs().item()
    ):
        return None
    nats = [scaled(Estimate(x.double().mean().item(), None, len(x)), -1.0) for x in (ours, source)]
    reported, best = (one.value if stream else bits_per(one, dims).value for one in nats)
    name = "nats_per_token" if stream else "bits_per_dim"
    errors = gain / stderr if stderr > 0 else math.inf
    luck = f"{errors:,.0f} standard errors of the paired difference"
    return f"{name} {reported:.3g} beats the source's own {best:.3g} by {luck}: {promise} cannot be right"
