"""Fidelity and diversity of samples apart: precision and recall, density and coverage, and the share of each class."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.metrics.fidelity import REFERENCE_AT_MOST, at_most, enough, over_draws
from benchmark.metrics.pairs import radii, within
from benchmark.metrics.probe import metric
from benchmark.metrics.samples import JudgedClasses, SampleClasses, SampleFeatures, SeenFeatures
from benchmark.spec import Estimate

NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5

PROTOCOL: Mapping[str, Any] = {"neighbours": NEIGHBOURS, "reference_at_most": REFERENCE_AT_MOST}
DENSITY_PROTOCOL: Mapping[str, Any] = {
    "neighbours": DENSITY_NEIGHBOURS,
    "real": "groups of n reference images",
    "reference_at_most": REFERENCE_AT_MOST,
}


@metric(SeenFeatures, protocol=PROTOCOL)
def precision(evidence: SampleFeatures) -> Estimate:
    """Share of samples within the manifold of real images: the union of balls that reach to each image's k-th
    neighbour (Kynkäänniemi and others 2019, eq. 2). The standard error is over draws of samples only."""
    return _precision_and_recall(enough(evidence))[0]


@metric(SeenFeatures, protocol=PROTOCOL)
def recall(evidence: SampleFeatures) -> Estimate:
    """Share of real images within the manifold of samples (Kynkäänniemi and others 2019, eq. 3)."""
    return _precision_and_recall(enough(evidence))[1]


@lru_cache(maxsize=1)  # both come from the same distances, which are most of the work
def _precision_and_recall(samples: SampleFeatures) -> tuple[Estimate, Estimate]:
    real = at_most(samples.reference.features, REFERENCE_AT_MOST).to(samples.device)
    draws = [draw.features.to(samples.device) for draw in samples.generated]
    of_real = radii(real, NEIGHBOURS)
    realistic = [within(draw, real, of_real).double().mean().item() for draw in draws]
    reached = [within(real, draw, radii(draw, NEIGHBOURS)).double().mean().item() for draw in draws]
    return over_draws(realistic, len(draws[0])), over_draws(reached, len(draws[0]))


@metric(SeenFeatures, protocol=DENSITY_PROTOCOL)
def density(evidence: SampleFeatures) -> Estimate:
    """How many balls around real images, reaching to their fifth neighbours, a sample lies in, over five (Naeem and
    others 2020, §3). About 1 for a perfect sampler; more where samples crowd where data is dense."""
    return _density_and_coverage(enough(evidence))[0]


@metric(SeenFeatures, protocol=DENSITY_PROTOCOL)
def coverage(evidence: SampleFeatures) -> Estimate:
    """Share of real images whose ball, reaching to the fifth neighbour, holds a sample (Naeem and others 2020, §3).

    Real images and samples are as many, which makes 0.97 of a perfect sampler (1 − 2⁻⁵): the reference is cut into
    random groups of that number. The error is over draws and over groups.
    """
    return _density_and_coverage(enough(evidence))[1]


@lru_cache(maxsize=1)
def _density_and_coverage(samples: SampleFeatures) -> tuple[Estimate, Estimate]:
    n = len(samples.generated[0].features)
    reference = at_most(samples.reference.features, REFERENCE_AT_MOST).to(samples.device)
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(reference)))
    groups = [reference[index] for index in order[: max(1, len(reference) // n) * n].split(n)]
    table = torch.tensor(
        [[_within_balls(draw.features.to(samples.device), real) for real in groups] for draw in samples.generated],
        dtype=torch.float64,
    )  # [draws, groups, 2]
    spread = table.mean(0).std(0) / len(groups) ** 0.5 if len(groups) > 1 else torch.zeros(2)  # over groups
    density, coverage = (
        over_draws(values.tolist(), n, error.item()) for values, error in zip(table.mean(1).T, spread, strict=True)
    )
    return density, coverage


def _within_balls(samples: Tensor, real: Tensor) -> tuple[float, float]:
    """Density and coverage of `samples` `[M, d]` by balls around `real` `[N, d]`."""
    inside = torch.cdist(real, samples) < radii(real, DENSITY_NEIGHBOURS)[:, None]  # [N, M]
    return inside.sum(0).double().mean().item() / DENSITY_NEIGHBOURS, inside.any(1).double().mean().item()


@metric(JudgedClasses)
def class_histogram(classes: SampleClasses) -> Estimate:
    """Total variation distance, ½ Σ |p − q|, between the shares of classes among samples and among held-out images.

    One judge names the class of both, so that its mistakes on real images cancel. The standard error is over draws.
    """
    told = [verdicts.classes for verdicts in (classes.held_out, *classes.generated)]
    size = int(torch.cat(told).max()) + 1
    q, *shares = (torch.bincount(x, minlength=size).double() / len(x) for x in told)
    return over_draws([0.5 * (p - q).abs().sum().item() for p in shares], len(told[1]))
