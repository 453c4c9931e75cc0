"""Likelihood of a token stream.

Neighbouring tokens are correlated, so the standard error of their mean comes from batch means (Flegal and Jones 2010):
the stream is cut into consecutive blocks of at least max(1000, √N) tokens, long against the correlation of a
character's surprise, and the means of blocks are treated as independent. It is not defined for fewer than two blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from benchmark.data.base import Split
from benchmark.metrics.likelihood import LogProbs, how_bounded, mean_over_examples
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import LIKELIHOOD_CHUNK, Session, chunk_size, named_subset
from benchmark.metrics.units import bits_per, exponential, scaled
from benchmark.spec import Absence, Estimate, Likelihood, LikelihoodBound, Stateful, TokenLikelihood

MIN_BLOCK = 1_000  # tokens
#: In one call of a recurrent model on a GPU, at most; so many logits are a quarter of a gigabyte.
TOKENS, LOGITS = 8_192, 2**26

STREAM = {"stderr": f"batch means, blocks of max({MIN_BLOCK}, sqrt(n)) tokens"}


@dataclass(frozen=True)
class TokenLogProbs:
    """log p of each token of a stream, in order, and how long the same stream is in characters and in UTF-8 bytes."""

    nats: Tensor  # [N]
    characters: int | None = None
    bytes: int | None = None
    tokens: int | None = None  # that the stream has, where `nats` is of all together: [1]
    new: Tensor | None = None  # [N] bool: of a work that training has nothing of; `None`: there is none


class TokenLogProb(Probe[TokenLogProbs]):
    """Token by token over a stream: a recurrent model carries its state, others see a sliding window."""

    key = "token_log_prob"
    says = ("split", "how")
    promises = (TokenLikelihood,)

    def collect(self, session: Session) -> Found[TokenLogProbs]:
        walk = _carried if isinstance(session.model, Stateful) else _sliding
        log_prob, places, conditions = walk(session)
        split = session.split
        scale = len(log_prob) / len(split.x)
        new = None if split.unseen is None else places >= split.unseen
        evidence = TokenLogProbs(log_prob, _scaled(split.characters, scale), _scaled(split.bytes, scale), new=new)
        conditions |= session.data.said_of_tokens
        protocol = {"split": session.protocol.split} | conditions | {"how": {"likelihood": "exact"}}
        return Found(evidence, protocol, (log_prob.float(), places))


class WholeStream(Probe[TokenLogProbs]):
    """The same log-probabilities, to be divided by what no choice of tokens changes: they compare whatever it was."""

    key = "whole_stream"
    says = ("split", "how")
    promises = (TokenLikelihood,)

    @classmethod
    def asks(cls, model: object) -> bool:
        return model is None or super().asks(model)  # of what needs no model, the same are known

    def collect(self, session: Session) -> Found[TokenLogProbs] | Absence:
        if isinstance(found := session[TokenLogProb], Absence):
            return found
        protocol = dict(found.protocol)
        if "tokens" in protocol:
            protocol["how"] = {**protocol.get("how", {}), "tokens": protocol.pop("tokens")}
        return Found(found.evidence, protocol)


class Windows(Probe[LogProbs]):
    """Window by window of the model's context, each by itself and from its beginning: what a model gives that knows of
    no tokens before a window, such as a bound of one, and another under the same conditions."""

    key = "window_log_prob"
    says = ("split", "context", "how")
    promises = (Likelihood, LikelihoodBound)

    def collect(self, session: Session) -> Found[LogProbs]:
        model, protocol = session.model, session.protocol
        (context,) = session.spec.shape
        windows = session.split.examples(session.spec.shape)
        kept = session.subset(len(windows), protocol.examples, "windows")
        x = windows[kept]
        if isinstance(model, Likelihood):
            nats = session.batched(model.log_prob, x, "window_log_prob", draws=False)
            how: dict[str, Any] = {"likelihood": "exact"}
        else:
            draws = [session.batched(model.elbo, x, "window_log_prob", draw) for draw in range(protocol.elbo_draws)]
            nats, how = torch.stack(draws).mean(0), how_bounded(model) | {"draws": protocol.elbo_draws}
        conditions = {"context": context} | named_subset(len(kept), len(windows)) | session.data.said_of_tokens
        return Found(LogProbs(nats, context), {"split": protocol.split} | conditions | {"how": how})


def _carried(session: Session) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Log-probabilities `[N]`, the places `[N]` of these tokens in the stream, and a part of the protocol."""
    model, at_most, stream = session.model, session.protocol.examples, session.split.x
    (context,) = session.spec.shape
    groups, of = _lanes(session.split, at_most and at_most * context)
    log_probs = []
    for places in groups:
        state = model.initial_state(len(places))
        at_once = _tokens_at_once(session, len(places))
        pieces = [
            model.token_log_prob(piece.long(), state).double()
            for piece in stream[places].to(session.device).split(at_once, dim=1)
        ]
        log_probs.append(torch.cat(pieces, 1).cpu().flatten())
    return torch.cat(log_probs), torch.cat([places.flatten() for places in groups]), {"context": "carried"} | of


def _tokens_at_once(session: Session, lanes: int) -> int:
    """Of each lane in one call: a window of training on the CPU; on a GPU thousands in all, or as many as there is room
    for the logits of."""
    (context,) = session.spec.shape
    if session.device.type == "cpu":
        return context
    return max(context, min(TOKENS, LOGITS // session.spec.levels) // lanes)


def _sliding(session: Session) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The same under windows of the model's context, each of which scores `stride` new tokens."""
    model, protocol, stream = session.model, session.protocol, session.split.x
    (context,) = session.spec.shape
    stride = min(protocol.stride or context, context)
    start, gained = _windows(session.split, context, stride, whole=protocol.examples is None)
    step = torch.arange(context)  # [T]
    of: dict[str, Any] = {}
    if protocol.examples is not None:
        kept = session.subset(len(start), protocol.examples, "windows")
        of = named_subset(len(kept), len(start))
        start, gained = start[kept], torch.full((len(kept),), context)
    stream = stream.to(session.device)

    def scored(places: Tensor) -> Tensor:
        found: Tensor = model.token_log_prob(stream[places.to(session.device)].long())
        return found

    size = chunk_size(session.device, len(start), lambda: scored(start[:LIKELIHOOD_CHUNK, None] + step))
    log_probs, places = [], []
    for begin, count in zip(start.split(size), gained.split(size), strict=True):
        place = begin[:, None] + step  # [B, T]
        new = step >= context - count[:, None]
        places.append(place[new])
        index = new.flatten().nonzero()[:, 0].to(session.device)  # the CPU knows it: no one waits for the device
        log_probs.append(scored(place).flatten()[index].double())
    return torch.cat(log_probs).cpu(), torch.cat(places), {"context": context, "stride": stride} | of


def _windows(split: Split, context: int, stride: int, whole: bool) -> tuple[Tensor, Tensor]:
    """Where windows begin `[W]`, none of which lies in two parts of the stream, and how many tokens are new in each
    `[W]`; `whole`: one more for the rest of each part."""
    starts, gained = [], []
    for begin, end in _parts(split):
        of = list(range(begin, end - context + 1, stride))
        if whole and of and of[-1] + context < end:
            of.append(end - context)
        start = torch.tensor(of, dtype=torch.long)
        starts.append(start)
        gained.append(start.diff(prepend=start[:1] - context))
    return torch.cat(starts), torch.cat(gained)


def _lanes(split: Split, at_most: int | None) -> tuple[list[Tensor], dict[str, Any]]:
    """Places `[lanes, tokens]` that are walked side by side, group after group: each part of the stream by itself, or
    at most so many tokens as excerpts that lie evenly over all; and a part of the protocol."""
    parts = _parts(split)
    if at_most is None:
        return [torch.arange(begin, end)[None] for begin, end in parts], {}
    shortest = min(end - begin for begin, end in parts)
    length = min(shortest, max(1, min(at_most, len(split.x)) // LIKELIHOOD_CHUNK))
    possible = torch.cat([torch.arange(begin, end - length + 1) for begin, end in parts])
    starts = possible[torch.linspace(0, len(possible) - 1, LIKELIHOOD_CHUNK).long()]
    of = {"subset": f"{len(starts)} excerpts of {length} of {len(split.x)} tokens"}
    return [starts[:, None] + torch.arange(length)], of


def _parts(split: Split) -> list[tuple[int, int]]:
    """Where each part of a stream begins and ends."""
    return list(pairwise((0, *split.cuts, len(split.x))))


def _scaled(count: int | None, scale: float) -> int | None:
    return None if count is None else round(count * scale)


def block_means(x: Tensor) -> Tensor | None:
    """The means `[blocks]` of consecutive blocks of a stream `[N]`; `None` where it is too short for two."""
    n = x.numel()
    blocks = n // max(MIN_BLOCK, math.isqrt(n))
    return torch.stack([block.mean() for block in x.tensor_split(blocks)]) if blocks >= 2 else None


@metric(TokenLogProb, protocol=STREAM)
def nats_per_token(evidence: TokenLogProbs) -> Estimate:
    """Mean negative log-likelihood of a token in nats."""
    if evidence.tokens is not None:
        return Estimate(-evidence.nats.sum().item() / evidence.tokens, None, evidence.tokens)
    return _mean(evidence.nats)


def _mean(nats: Tensor) -> Estimate:
    surprise = -nats.flatten().double()  # [N]
    if not len(surprise):
        raise ValueError("there is no token to take a mean of")
    means = block_means(surprise)
    stderr = None if means is None else means.std().item() / math.sqrt(len(means))
    return Estimate(surprise.mean().item(), stderr, surprise.numel())


@metric(TokenLogProb, protocol=STREAM)
def nats_of_known_works(evidence: TokenLogProbs) -> Estimate:
    """`nats_per_token` over the tokens of works that training has parts of."""
    return _mean(evidence.nats[~_new(evidence)])


@metric(TokenLogProb, protocol=STREAM)
def nats_of_new_works(evidence: TokenLogProbs) -> Estimate:
    """`nats_per_token` over the tokens of works that training has nothing of."""
    return _mean(evidence.nats[_new(evidence)])


def _new(evidence: TokenLogProbs) -> Tensor:
    if evidence.new is None:
        raise ValueError("it is not known of this text which of its works training has parts of")
    return evidence.new


@metric(Windows)
def window_nats(evidence: LogProbs) -> Estimate:
    """Mean negative log-likelihood of a token in nats, or a bound on it, where windows know nothing of each other."""
    return scaled(mean_over_examples(evidence.nats), -1 / evidence.dims)


@metric(TokenLogProb, protocol=STREAM)
def perplexity(evidence: TokenLogProbs) -> Estimate:
    """exp of the nats per token; standard error by the delta method."""
    return exponential(nats_per_token(evidence))


@metric(WholeStream, protocol=STREAM)
def bits_per_char(evidence: TokenLogProbs) -> Estimate:
    """Bits of the whole stream for each of its characters, whatever the tokens are."""
    return _bits_per_part(evidence, evidence.characters, "characters")


@metric(WholeStream, protocol=STREAM)
def bits_per_byte(evidence: TokenLogProbs) -> Estimate:
    """Bits of the whole stream for each of its UTF-8 bytes, whatever the tokens are."""
    return _bits_per_part(evidence, evidence.bytes, "bytes")


def _bits_per_part(evidence: TokenLogProbs, parts: int | None, what: str) -> Estimate:
    per_token = nats_per_token(evidence)
    if not parts:
        raise ValueError(f"nothing says how many {what} the stream has: set {what} of the split")
    return bits_per(scaled(per_token, per_token.n), parts)
