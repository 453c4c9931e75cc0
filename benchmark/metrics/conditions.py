"""Whether samples under a label are of that class: what a judge takes them for, and how far each class is from its own.

The same conditioned draws as those that a classifier learns from (`benchmark/metrics/downstream.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.metrics.extractors.base import Features
from benchmark.metrics.fidelity import GROUPS, jackknife_error, over_draws
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.samples import DRAWN, Conditioned, train_features
from benchmark.metrics.session import Session
from benchmark.spec import Absence, Estimate


class Obeyed(Probe[tuple[Tensor, ...]]):
    """Of the conditioned samples of each draw, whether the judge takes them for their condition: `[n]` bool each."""

    key = "obeyed"
    says = (*DRAWN, "judge")

    def collect(self, session: Session) -> Found[tuple[Tensor, ...]] | Absence:
        judge = session.experts.judge
        if isinstance(judge, Absence):
            return judge
        if isinstance(conditioned := session[Conditioned], Absence):
            return conditioned
        obeyed = tuple(judge.classify(draw.x).classes == draw.labels for draw in conditioned.evidence.generated)
        return Found(obeyed, {**conditioned.protocol, "judge": judge.name})


@metric(Obeyed)
def agreement(obeyed: tuple[Tensor, ...]) -> Estimate:
    """Share of conditioned samples that the judge takes for their condition. The error is over draws."""
    return over_draws([float(draw.double().mean()) for draw in obeyed], len(obeyed[0]))


@dataclass(frozen=True)
class ClassFeatures:
    """What an extractor sees in images with a class each."""

    generated: tuple[tuple[Features, Tensor], ...]  # features and labels [n], draw by draw
    reference: tuple[Features, Tensor]  # of the training split


class FeaturesOfClasses(Probe[ClassFeatures]):
    """What the extractor sees in conditioned samples, and in the training split, with their labels."""

    key = "features_of_classes"
    says = (*DRAWN, "extractor")

    def collect(self, session: Session) -> Found[ClassFeatures] | Absence:
        extractor = session.experts.extractor
        if isinstance(extractor, Absence):
            return extractor
        if isinstance(conditioned := session[Conditioned], Absence):
            return conditioned
        labelled = conditioned.evidence
        generated = tuple((extractor(draw.x), draw.labels) for draw in labelled.generated)
        seen = ClassFeatures(generated, (train_features(extractor, session.data), labelled.reference.labels))
        return Found(seen, {**conditioned.protocol, "draws_together": len(generated), "extractor": extractor.name})


@metric(FeaturesOfClasses)
def fid_within_classes(found: ClassFeatures) -> Estimate:
    """Mean over classes of the Fréchet distance between samples under a label and training images with it.

    A class has few samples, and a distance is the larger the fewer there are: those of all draws are taken together.
    The error is a jackknife over draws. Raises `ValueError` where a class has too few images to fit anything to.
    """
    value, n = _mean_distance(found.generated, found.reference), sum(len(labels) for _, labels in found.generated)
    draws = len(found.generated)
    if draws < 2:
        return Estimate(value, None, n)
    without = [_mean_distance([*found.generated[:i], *found.generated[i + 1 :]], found.reference) for i in range(draws)]
    return Estimate(value, jackknife_error(without), n)


def _mean_distance(draws: Sequence[tuple[Features, Tensor]], real: tuple[Features, Tensor]) -> float:
    """Over the classes of the draws taken together."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    features, labels = torch.cat([seen.features for seen, _ in draws]), torch.cat([of for _, of in draws])
    distances = []
    for label in labels.unique():
        generated, reference = features[labels == label], real[0].features[real[1] == label]
        if min(len(generated), len(reference)) < 2 * GROUPS:
            raise ValueError(
                f"class {int(label)} has {len(generated)} samples and {len(reference)} reference images, too few: at "
                f"least {2 * GROUPS} of each"
            )
        statistics = (fid_features_to_statistics(x) for x in (generated, reference))
        distances.append(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])
    return float(sum(distances) / len(distances))
