"""How well a model of sequences tells the label that stands in front of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.metrics.likelihood import mean_over_examples
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import Session
from benchmark.metrics.units import scaled
from benchmark.spec import Absence, Estimate, Likelihood, PseudoLikelihood


@dataclass(frozen=True)
class LabelScores:
    """log p `[N, K]` of each label given all that follows it, and which it is `[N]`."""

    log_p: Tensor
    labels: Tensor


class Labels(Probe[LabelScores]):
    """A masked model says how likely each label is in front of an example; a likelihood says how likely the whole is
    with each of them there, and Bayes the rest."""

    key = "labels"
    says = ("split", "labels", "how")
    promises = (PseudoLikelihood, Likelihood)

    def collect(self, session: Session) -> Found[LabelScores] | Absence:
        model, count = session.model, session.data.labels_in_front
        if not count:
            return Absence("does not apply", "no label stands in front of the examples")
        x, _ = session.examples()
        masked, front = isinstance(model, PseudoLikelihood), torch.tensor([0])

        def hidden(some: Tensor) -> Tensor:
            scores: Tensor = model.pseudo_log_probs(some, front)[:, 0, :count]
            return scores

        def whole(some: Tensor) -> Tensor:
            columns = [torch.cat([torch.full_like(some[:, :1], k), some[:, 1:]], 1) for k in range(count)]
            return torch.stack([model.log_prob(one) for one in columns], 1)

        log_p = session.batched(hidden if masked else whole, x, self.key, draws=False).log_softmax(1)
        how = {"by": "what is hidden" if masked else "the likelihood of the whole"}
        return Found(LabelScores(log_p, x[:, 0].long()), {"split": session.protocol.split, "labels": count, "how": how})


@metric(Labels)
def label_nats(scores: LabelScores) -> Estimate:
    """Mean surprise in nats at the label."""
    return scaled(mean_over_examples(scores.log_p.gather(1, scores.labels[:, None])[:, 0]), -1)


@metric(Labels)
def label_accuracy(scores: LabelScores) -> Estimate:
    """Share of examples whose label is the likeliest. The error is that of a share of independent examples."""
    right = (scores.log_p.argmax(1) == scores.labels).double()
    share, n = right.mean().item(), len(right)
    return Estimate(share, math.sqrt(share * (1 - share) / n), n)
