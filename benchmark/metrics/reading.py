"""How likely samples of text are to a model that reads them, and how varied their tokens are: neither says much alone.

A sampler that repeats one frequent phrase pleases every reader, so the entropy of its tokens stands beside (Zheng and
others, "Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate Categorical Sampling",
ICLR 2025, arXiv:2409.02908). The reader is trained on the same text from another seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmark.metrics.fidelity import over_draws
from benchmark.metrics.probe import Found, Metric, Probe, metric
from benchmark.metrics.session import LIKELIHOOD_CHUNK, Session, draw_samples, how_drawn
from benchmark.metrics.writing import windows
from benchmark.spec import Absence, Estimate, SamplesWithin, State, Stateful

EVALUATIONS = (8, 16, 32, 64, 128)  # of the network, at most so many for one sample
NO_READER = Absence("not run", "nobody reads the samples: give runtime.reader=RUN, a GPT of another seed")


@dataclass(frozen=True)
class Reading:
    """What a reader makes of the samples of one draw: nats a token `[n]`; and the samples `[n, T]`."""

    nats: Tensor
    tokens: Tensor


class Read(Probe[Sequence[Reading]]):
    """A few independent draws of samples, read by the reader."""

    key = "read"
    says = ("split", "generated", "length", "reader", "how")

    def collect(self, session: Session) -> Found[Sequence[Reading]] | Absence:
        model = session.model
        if model is None:
            return Absence("does not apply", f"{session.name} has no samples")
        if session.experts.reader is None:
            return NO_READER
        n, protocol = len(windows(session, session.split)), session.protocol
        draws = [read(session, draw_samples(model, n, protocol.seed, draw)) for draw in range(protocol.sample_draws)]
        return Found(draws, said(session, n) | {"how": how_drawn(model, len(draws))})


class ReadWithin(Probe[Mapping[int, Reading]]):
    """One draw of samples within each number of `EVALUATIONS`, from the same noise as the first draw of all."""

    key = "read_within"
    says = Read.says
    promises = (SamplesWithin,)

    def collect(self, session: Session) -> Found[Mapping[int, Reading]] | Absence:
        model, n, seed = session.model, len(windows(session, session.split)), session.protocol.seed
        if session.experts.reader is None:
            return NO_READER
        found = {
            most: read(session, draw_samples(model, n, seed, how=partial(model.sample_within, evaluations=most)))
            for most in EVALUATIONS
        }
        return Found(found, said(session, n) | {"how": {"sampler": model.sampler.name, "draws": 1}})


def of_windows(session: Session, x: Tensor) -> Found[Sequence[Reading]] | Absence:
    """Windows of real text `[n, T]` in the place of samples."""
    if session.experts.reader is None:
        return NO_READER
    return Found([read(session, x)], said(session, len(x)) | {"how": {}})


def read(session: Session, x: Tensor) -> Reading:
    """What the reader makes of texts `[n, T]`."""
    assert session.experts.reader is not None
    reader = session.experts.reader.model
    with torch.no_grad():
        parts = (some.to(reader.device).long() for some in x.split(LIKELIHOOD_CHUNK))
        nats = [reader.token_log_prob(some, _state(reader, len(some))) for some in parts]
    return Reading(torch.cat(nats).double().mean(1).cpu(), x.long().cpu())


def _state(reader: Any, n: int) -> State | None:
    return reader.initial_state(n) if isinstance(reader, Stateful) else None


def said(session: Session, n: int) -> dict[str, Any]:
    """Under which conditions samples are read."""
    reader = session.experts.reader
    assert reader is not None
    (length,) = session.spec.shape
    by = {"reader": f"{reader.name} {reader.sha256[:8]}"}
    return {"split": session.protocol.split, "generated": n, "length": length, **by, **session.data.said_of_tokens}


@metric(Read)
def sample_perplexity(draws: Sequence[Reading]) -> Estimate:
    """exp of the reader's nats a token of samples. The error is over draws."""
    return over_draws([_perplexity(one) for one in draws], len(draws[0].nats))


@metric(Read)
def sample_entropy(draws: Sequence[Reading]) -> Estimate:
    """Entropy in nats of the tokens of a sample, as it uses them, on average. The error is over draws."""
    return over_draws([_entropy(one) for one in draws], len(draws[0].nats))


def _perplexity(one: Reading) -> float:
    return math.exp(-one.nats.mean().item())


def _entropy(one: Reading) -> float:
    counts = torch.stack([torch.bincount(x, minlength=int(one.tokens.max()) + 1) for x in one.tokens]).double()
    share = counts / counts.sum(1, keepdim=True)
    return -torch.xlogy(share, share).sum(1).mean().item()


def _within(name: str, of: Callable[[Reading], float], evaluations: int) -> Metric[Mapping[int, Reading]]:
    def within(evidence: Mapping[int, Reading]) -> Estimate:
        return over_draws([of(evidence[evaluations])], len(evidence[evaluations].nats))

    within.__name__ = f"{name}_within_{evaluations}"
    return metric(ReadWithin, protocol={"evaluations_at_most": evaluations})(within)


_perplexities = [_within("sample_perplexity", _perplexity, n) for n in EVALUATIONS]
_entropies = [_within("sample_entropy", _entropy, n) for n in EVALUATIONS]
(
    sample_perplexity_within_8,
    sample_perplexity_within_16,
    sample_perplexity_within_32,
    sample_perplexity_within_64,
    sample_perplexity_within_128,
) = _perplexities
(
    sample_entropy_within_8,
    sample_entropy_within_16,
    sample_entropy_within_32,
    sample_entropy_within_64,
    sample_entropy_within_128,
) = _entropies
