"""Likelihood of replies, given what was said before them.

A mean is over tokens: the nats of all replies over their number of tokens, ends included and what fills a reply up left
out. Replies differ in length, so its standard error is that of a ratio over examples (the delta method: Cochran,
"Sampling Techniques", 1977, section 6.4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import Session, named_subset
from benchmark.metrics.units import bits_per, exponential
from benchmark.spec import Absence, ConditionalTokenLikelihood, Estimate

RATIO = {"stderr": "ratio over examples"}


@dataclass(frozen=True)
class Replies:
    """log p of each reply, how many of its tokens were scored, and how many bytes of UTF-8 they stand for."""

    nats: Tensor  # [N]
    tokens: Tensor  # [N], the end included
    bytes: Tensor  # [N]; an end has none


class ReplyLogProb(Probe[Replies]):
    """Each reply after what was really said before it."""

    key = "reply_log_prob"
    says = ("split", "context", "how")
    promises = (ConditionalTokenLikelihood,)

    def collect(self, session: Session) -> Found[Replies] | Absence:
        return _scored(session, 0)


class WrongReplies(Probe[Replies]):
    """The same replies, each after what was said before another one: half a split further on, in another scene."""

    key = "wrong_replies"
    says = ("split", "context", "given", "how")
    promises = (ConditionalTokenLikelihood,)

    def collect(self, session: Session) -> Found[Replies] | Absence:
        n = len(session.split.x)
        if n < 2:
            return Absence("does not apply", "there is no other example")
        return _scored(session, n // 2, {"given": "what precedes the reply half a split further on"})


def _scored(session: Session, shift: int, given: Mapping[str, str] | None = None) -> Found[Replies] | Absence:
    """Replies, each given the condition of the example `shift` further on, round and round the split."""
    model, split, device = session.model, session.split, session.device
    if split.condition is None:
        return Absence("does not apply", f"{session.data.describe()['name']} has no condition")
    x, chosen = session.examples()
    said = split.condition[(chosen + shift) % len(split.x)]

    def nats(index: Tensor) -> Tensor:
        i = index.cpu()
        log_p: Tensor = model.token_log_prob_given(x[i].long().to(device), said[i].long().to(device))
        return log_p.sum(1)

    scored = session.batched(nats, torch.arange(len(x)), "reply_log_prob", draws=False)
    protocol = protocol_of(session) | named_subset(len(chosen), len(split.x)) | dict(given or {})
    return Found(of(session, scored, chosen), protocol | {"how": {"likelihood": "exact"}}, (scored.float(), chosen))


def of(session: Session, nats: Tensor, chosen: Tensor) -> Replies:
    """Log-probabilities `[n]` of the `chosen` replies of the split, with what they are of. Raises `ValueError` where
    nothing says how many bytes a reply has."""
    split = session.split
    if split.sizes is None:
        raise ValueError("nothing says how many bytes each reply has: set sizes of the split")
    return Replies(nats, session.spec.counted(split.x[chosen]).sum(1), split.sizes[chosen])


def protocol_of(session: Session) -> dict[str, Any]:
    """What holds of all scores of replies: of them `context` tokens count."""
    (context,) = session.spec.shape
    return {"split": session.protocol.split, "context": context} | session.data.said_of_tokens


@metric(ReplyLogProb, protocol=RATIO)
def reply_nats(evidence: Replies) -> Estimate:
    """Mean negative log-likelihood of a reply's token in nats."""
    return _per(-evidence.nats, evidence.tokens)


@metric(ReplyLogProb, protocol=RATIO)
def reply_perplexity(evidence: Replies) -> Estimate:
    """exp of the nats per token; standard error by the delta method."""
    return exponential(reply_nats(evidence))


@metric(ReplyLogProb, protocol=RATIO)
def reply_bits_per_byte(evidence: Replies) -> Estimate:
    """Bits of all replies, their ends included, for each byte of their texts."""
    return bits_per(_per(-evidence.nats, evidence.bytes), 1)


@metric(WrongReplies, protocol=RATIO)
def reply_nats_wrong(evidence: Replies) -> Estimate:
    """`reply_nats` where each reply stands after what was said before another one."""
    return reply_nats(evidence)


def _per(y: Tensor, parts: Tensor) -> Estimate:
    """R = Σ y / Σ parts over examples `[N]`, and its standard error √(N Σ (y - R parts)² / (N - 1)) / Σ parts. Raises
    `ValueError` where there is nothing to divide by."""
    y, parts, n = y.double(), parts.double(), len(y)
    total = parts.sum().item()
    if not total:
        raise ValueError("the replies are empty")
    ratio = y.sum().item() / total
    stderr = None if n < 2 else math.sqrt(n / (n - 1) * (y - ratio * parts).square().sum().item()) / total
    return Estimate(ratio, stderr, n)
