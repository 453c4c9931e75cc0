"""Likelihoods and bounds of whole examples. Standard errors are over test examples.

Where a model gives only an evidence lower bound, `nll` and `bits_per_dim` are upper bounds; their protocol marks them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import Session, named_subset
from benchmark.metrics.units import bits_per, scaled
from benchmark.spec import Absence, Estimate, ImportanceBound, Likelihood, LikelihoodBound, SolvesLikelihood

#: Times fewer evaluations in a solution of all examples that tells how those differ that are solved in full.
COARSE = 4


@dataclass(frozen=True)
class Control:
    """A cheaper score, in nats, by which a subset of examples can be told from all of them."""

    subset: Tensor  # [n]
    everything: Tensor  # [N]


@dataclass(frozen=True)
class LogProbs:
    """log p(x) of examples, or a bound on it, and how many dimensions each example has."""

    nats: Tensor  # [N]
    dims: int
    control: Control | None = None  # of a subset


class LogProb(Probe[LogProbs]):
    """The exact log-likelihood of each example."""

    key = "log_prob"
    says = ("split", "how")
    promises = (Likelihood,)

    def collect(self, session: Session) -> Found[LogProbs]:
        x, chosen = session.examples()
        log_prob = session.batched(session.model.log_prob, x, "log_prob", draws=False)
        return found(session, log_prob, chosen, {"how": {"likelihood": "exact"}})


class Elbo(Probe[LogProbs]):
    """The mean of several draws of a bound, for each example: draws are not independent examples."""

    key = "elbo"
    says = ("split", "how")
    promises = (LikelihoodBound,)

    def collect(self, session: Session) -> Found[LogProbs]:
        model, protocol = session.model, session.protocol
        x, chosen = session.examples()
        at_most = protocol.solved_examples if isinstance(model, SolvesLikelihood) else None
        inner = session.subset(len(x), at_most, "elbo")
        draws = [session.batched(model.elbo, x[inner], "elbo", draw) for draw in range(protocol.elbo_draws)]
        how = how_bounded(model) | {"draws": protocol.elbo_draws}
        bound = found(session, torch.stack(draws).mean(0), chosen[inner], {"how": how})  # [K, N] -> [N]
        if not isinstance(model, SolvesLikelihood) or len(inner) == len(x):
            return bound
        evaluations = max(1, model.solver().evaluations // COARSE)
        coarse = session.batched(lambda chunk: model.solve(chunk, evaluations), x, "elbo", "coarse")
        return controlled(bound, Control(coarse[inner], coarse), f"{evaluations} evaluations")


class TightBound(Probe[LogProbs]):
    """The importance-weighted bound of each example."""

    key = "importance_bound"
    says = ("split", "how")
    promises = (ImportanceBound,)

    def collect(self, session: Session) -> Found[LogProbs] | Absence:
        model, k = session.model, session.protocol.importance_samples
        if not k:
            return Absence("not run", "the protocol has no importance samples")
        x, chosen = session.examples()
        inner = session.subset(len(x), session.protocol.importance_examples, "importance_bound")
        nats = session.batched(lambda chunk: model.importance_bound(chunk, k), x[inner], "importance_bound")
        conditions = {"importance_samples": k, "how": {"likelihood": "bound"}}
        bound = found(session, nats, chosen[inner], conditions)
        cheaper = session[Elbo]
        if len(inner) == len(x) or isinstance(cheaper, Absence) or len(cheaper.evidence.nats) < len(x):
            return bound
        return controlled(bound, Control(cheaper.evidence.nats[inner], cheaper.evidence.nats), "elbo")


def found(session: Session, nats: Tensor, chosen: Tensor, conditions: dict[str, Any]) -> Found[LogProbs]:
    """Log-likelihoods `[n]` of the `chosen` examples of the split, under which protocol."""
    subset = named_subset(len(chosen), len(session.split.x))
    protocol = {"split": session.protocol.split} | subset | conditions
    return Found(LogProbs(nats, session.spec.dims), protocol, (nats.float(), chosen))


def controlled(bound: Found[LogProbs], control: Control, name: str) -> Found[LogProbs]:
    """The same, and how its examples differ from all."""
    return replace(
        bound, evidence=replace(bound.evidence, control=control), protocol={**bound.protocol, "all_by": name}
    )


def how_bounded(model: LikelihoodBound) -> dict[str, Any]:
    """How a model met the protocol: by a bound, or by a solver that only approximates one."""
    if isinstance(model, SolvesLikelihood):
        solver = model.solver()
        return {"likelihood": "approximate", "solver": solver.name, "evaluations": solver.evaluations}
    return {"likelihood": "bound"}


def mean_over_examples(x: Tensor) -> Estimate:
    """Mean of `x` `[N]` and its standard error sd/√N (`None` for a single example). Raises `ValueError` for none."""
    n = x.numel()
    if n == 0:
        raise ValueError("there is no example to take a mean of")
    x = x.double()
    stderr = None if n < 2 else x.std().item() / math.sqrt(n)
    return Estimate(x.mean().item(), stderr, n)


def mean_of_all(evidence: LogProbs) -> Estimate:
    """Mean over examples. Of a subset with a control c: the mean of c over all, and that of y - c over the subset.

    In double sampling, with d = y - c, its variance is (var y - var d) / N + var d / n (after Cochran, "Sampling
    Techniques", 1977, section 12.9).
    """
    if evidence.control is None or len(evidence.nats) < 2:
        return mean_over_examples(evidence.nats)
    y, everything = evidence.nats.double(), evidence.control.everything.double()
    d = y - evidence.control.subset.double()
    variance = max(0.0, (y.var() - d.var()).item()) / len(everything) + d.var().item() / len(d)
    return Estimate((everything.mean() + d.mean()).item(), math.sqrt(variance), len(y))


@metric(LogProb, Elbo)
def nll(evidence: LogProbs) -> Estimate:
    """Negative log-likelihood in nats an example."""
    return scaled(mean_of_all(evidence), -1.0)


@metric(LogProb, Elbo)
def bits_per_dim(evidence: LogProbs) -> Estimate:
    """Negative log-likelihood in bits for each pixel and channel (Theis and others 2016)."""
    return bits_per(nll(evidence), evidence.dims)


@metric(Elbo)
def elbo(evidence: LogProbs) -> Estimate:
    """Evidence lower bound in nats an example."""
    return mean_of_all(evidence)


@metric(TightBound)
def importance_bound(evidence: LogProbs) -> Estimate:
    """Importance-weighted bound in nats an example (Burda and others 2016, eq. 8)."""
    return mean_of_all(evidence)
