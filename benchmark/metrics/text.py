"""Likelihood of a token stream.

Neighbouring tokens are correlated, so the standard error of their mean comes from batch means (Flegal and Jones 2010):
the stream is cut into consecutive blocks of at least max(1000, √N) tokens, long against the correlation of a
character's surprise, and the means of blocks are treated as independent. It is not defined for fewer than two blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmark.metrics.units import bits_per, exponential, scaled
from benchmark.spec import Estimate, Evidence

MIN_BLOCK = 1_000  # tokens


def nats_per_token(evidence: Evidence) -> Estimate:
    """Mean negative log-likelihood of a token in nats."""
    if evidence.token_log_prob is None or evidence.token_log_prob.numel() == 0:
        raise ValueError("the evidence has no token_log_prob: compute a metric only where one of its needs is met")
    surprise = -evidence.token_log_prob.flatten().double()  # [N]
    means = block_means(surprise)
    stderr = None if means is None else means.std().item() / math.sqrt(len(means))
    return Estimate(surprise.mean().item(), stderr, surprise.numel())


def block_means(x: Tensor) -> Tensor | None:
    """The means `[blocks]` of consecutive blocks of a stream `[N]`; `None` where it is too short for two."""
    n = x.numel()
    blocks = n // max(MIN_BLOCK, math.isqrt(n))
    return torch.stack([block.mean() for block in x.tensor_split(blocks)]) if blocks >= 2 else None


def perplexity(evidence: Evidence) -> Estimate:
    """exp of the nats per token; standard error by the delta method."""
    return exponential(nats_per_token(evidence))


def bits_per_char(evidence: Evidence) -> Estimate:
    """Bits of the whole stream for each of its characters, whatever the tokens are."""
    return _bits_per_part(evidence, evidence.characters, "characters")


def bits_per_byte(evidence: Evidence) -> Estimate:
    """Bits of the whole stream for each of its UTF-8 bytes, whatever the tokens are."""
    return _bits_per_part(evidence, evidence.bytes, "bytes")


def _bits_per_part(evidence: Evidence, parts: int | None, what: str) -> Estimate:
    per_token = nats_per_token(evidence)
    if not parts:
        raise ValueError(f"the evidence does not say how many {what} its stream has: set Evidence.{what}")
    return bits_per(scaled(per_token, per_token.n), parts)
