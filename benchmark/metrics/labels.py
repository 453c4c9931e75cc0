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
    """Every label is tried in front of each example: a masked model says how likely it is there, a likelihood says how
    likely the whole is, and Bayes the rest."""

    key = "labels"
    says = ("split", "labels", "how")
    promises = (PseudoLikelihood, Likelihood)

    def collect(self, session: Session) -> Found[LabelScores] | Absence:
        model, count = session.model, session.data.labels_in_front
        if not count:
            return Absence("does not apply", "no label stands in front of the examples")
        x, _ = session.examples()
        front = torch.tensor([0])
        masked = isinstance(model, PseudoLikelihood)
        columns = []
        for label in range(count):
            tried = x.clone()
            tried[:, 0] = label
            score = (lambda some: model.pseudo_log_prob(some, front)[:, 0]) if masked else model.log_prob
            columns.append(session.batched(score, tried, self.key, draws=False))
        log_p = torch.stack(columns, 1).log_softmax(1)  # among the labels that there are
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
