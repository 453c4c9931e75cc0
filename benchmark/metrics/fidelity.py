"""Distances between generated and real images in the features of one extractor.

The numbers are torch-fidelity's, whose functions take the generated set first and the real one second. Comparisons of
all pairs of images are our own: they run on a GPU too, and none is made twice.

The value is the mean over independent draws of samples. Its standard error combines the spread of the draws with, for
distances, a delete-group jackknife over the reference (a bootstrap would repeat images, which doubles a Fréchet
distance at small n). Real images are put in random groups: files come in an order that may follow the classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.metrics.pairs import cubic_kernel_sum, cubic_kernel_sum_of_others
from benchmark.metrics.probe import metric
from benchmark.metrics.samples import SampleFeatures, SeenFeatures
from benchmark.spec import Estimate

GROUPS = 10  # of the jackknife
REFERENCE_AT_MOST = 10_000  # images that pairwise comparisons see: they cost the square
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1_000  # or as many as there are: the expectation does not depend on it

KID_PROTOCOL: Mapping[str, Any] = {
    "kernel": "polynomial, degree 3",
    "subsets": KID_SUBSETS,
    "subset_size": f"min({KID_SUBSET_SIZE}, n)",
    "reference_at_most": REFERENCE_AT_MOST,
}
INCEPTION_SCORE_PROTOCOL: Mapping[str, Any] = {"splits": 1}

Statistics = dict[str, Any]  # mu [d], sigma [d, d]: numpy, as torch-fidelity has them


@metric(SeenFeatures)
def fid(evidence: SampleFeatures) -> Estimate:
    """Fréchet distance between Gaussians fitted to features (Heusel and others 2017, eq. 6)."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    samples = enough(evidence)
    draws = [fid_features_to_statistics(draw.features) for draw in samples.generated]

    def distances(reference: Statistics) -> list[float]:
        found = [fid_statistics_to_metric(draw, reference, verbose=False) for draw in draws]
        return [distance["frechet_inception_distance"] for distance in found]

    values = distances(fid_features_to_statistics(samples.reference.features))
    if len(draws) < 2:
        return over_draws(values, len(samples.generated[0].features))
    without = [float(np.mean(distances(rest))) for rest in statistics_without_groups(samples.reference.features)]
    return over_draws(values, len(samples.generated[0].features), jackknife_error(without))


@metric(SeenFeatures)
def fid_infinity(evidence: SampleFeatures) -> Estimate:
    """The Fréchet distance that infinitely many samples would score (Chong and Forsyth 2020).

    At n samples it is too large by about c/n, so a line in 1/n is drawn through the distances of all draws together, of
    their halves, thirds, and so on down to one draw's size; the value is where it meets 1/n = 0. The error is a
    jackknife over draws and, for the distance of all samples, over the reference.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    samples = enough(evidence)
    draws = [draw.features for draw in samples.generated]
    if len(draws) < 3:
        raise ValueError(f"{len(draws)} draws of samples are too few to extrapolate from: at least 3")

    def distance(generated: Tensor, real: Statistics) -> float:
        found = fid_statistics_to_metric(fid_features_to_statistics(generated), real, verbose=False)
        return float(found["frechet_inception_distance"])

    def intercept(draws: list[Tensor]) -> float:
        pool = torch.cat(draws)
        pool = pool[torch.from_numpy(np.random.RandomState(0).permutation(len(pool)))]
        parts = range(1, len(draws) + 1)  # so that 1/n = parts / len(pool) is evenly spaced
        values = [np.mean([distance(part, reference) for part in pool.tensor_split(m)]) for m in parts]
        return float(np.polyfit(parts, values, deg=1)[1])

    reference = fid_features_to_statistics(samples.reference.features)
    pool = torch.cat(draws)
    of_draws = [intercept(draws[:i] + draws[i + 1 :]) for i in range(len(draws))]
    of_reference = [distance(pool, rest) for rest in statistics_without_groups(samples.reference.features)]
    return Estimate(intercept(draws), math.hypot(jackknife_error(of_draws), jackknife_error(of_reference)), len(pool))


def statistics_without_groups(features: Tensor) -> Iterator[Statistics]:
    """Mean and covariance of `features` `[N, d]` without each group in turn, from sums and outer products by group."""
    centre = features.mean(0)  # [d]: subtracted for precision
    groups = [features[index] - centre for index in random_groups(len(features))]
    total, product = sum(x.sum(0) for x in groups), sum(x.T @ x for x in groups)  # [d], [d, d]
    for x in groups:
        n = len(features) - len(x)
        mean = (total - x.sum(0)) / n
        covariance = (product - x.T @ x - n * torch.outer(mean, mean)) / (n - 1)
        yield {"mu": (mean + centre).numpy(), "sigma": covariance.numpy()}


@metric(SeenFeatures, protocol=KID_PROTOCOL)
def kid(evidence: SampleFeatures) -> Estimate:
    """Squared maximum mean discrepancy under the kernel (x·y/d + 1)³ (Bińkowski and others 2018, §4), unbiased:
    a value below zero is a good one.

    The value is the mean over random subsets, those of torch-fidelity; the jackknife is of the same statistic without
    subsets, whose replicates carry no noise of their own.
    """
    samples = enough(evidence)
    reference = at_most(samples.reference.features, REFERENCE_AT_MOST).to(samples.device)
    generated = [draw.features.to(samples.device) for draw in samples.generated]
    values, n = discrepancies(generated, reference), len(generated[0])
    if len(values) < 2:
        return over_draws(values, n)
    return over_draws(values, n, jackknife_error(discrepancies_without_groups(generated, reference)))


def discrepancies(generated: list[Tensor], reference: Tensor) -> list[float]:
    """Of each draw `[n, d]`, the mean over `KID_SUBSETS` pairs of subsets, the same pairs for each."""
    n, N = len(generated[0]), len(reference)
    m = min(KID_SUBSET_SIZE, n, N)
    random = np.random.RandomState(2020)  # torch-fidelity's
    subsets = [
        [torch.from_numpy(random.choice(among, m, replace=False)) for among in (n, N)] for _ in range(KID_SUBSETS)
    ]
    of_reference = sum(cubic_kernel_sum_of_others(reference[y]) for _, y in subsets)

    def mean(draw: Tensor) -> float:
        if m == n:  # every subset is the whole draw
            of_draw = KID_SUBSETS * cubic_kernel_sum_of_others(draw)
        else:
            of_draw = sum(cubic_kernel_sum_of_others(draw[x]) for x, _ in subsets)
        across = sum(cubic_kernel_sum(draw[x], reference[y]) for x, y in subsets)
        return ((of_draw + of_reference) / (m * (m - 1)) - 2 * across / m**2) / KID_SUBSETS

    return [mean(draw) for draw in generated]


def discrepancies_without_groups(generated: list[Tensor], reference: Tensor) -> list[float]:
    """The part of the discrepancy that depends on the reference, mean over draws, without each group in turn:
    E k(y, y') − 2 E k(x, y), from sums of kernel values by pair of groups."""
    groups = [reference[index] for index in random_groups(len(reference))]
    sizes = np.array([len(group) for group in groups])
    within = np.zeros((len(groups), len(groups)))  # Σ k(y, y') over pairs of groups, y ≠ y'
    for i, group in enumerate(groups):
        within[i, i] = cubic_kernel_sum_of_others(group)
        for j in range(i):
            within[i, j] = within[j, i] = cubic_kernel_sum(group, groups[j])
    x = torch.cat(generated)
    across = np.array([cubic_kernel_sum(x, group) for group in groups]) / len(x)  # Σ over y of the mean over x
    replicates = []
    for g in range(len(groups)):
        m = sizes.sum() - sizes[g]
        pairs = within.sum() - 2 * within[g].sum() + within[g, g]
        replicates.append(float(pairs / (m * (m - 1)) - 2 * (across.sum() - across[g]) / m))
    return replicates


@metric(SeenFeatures, protocol=INCEPTION_SCORE_PROTOCOL)
def inception_score(evidence: SampleFeatures) -> Estimate:
    """exp of the mean KL divergence from a sample's class distribution to that of all samples (Salimans and others
    2016), over a whole draw at once: splitting it into ten biases it (Barratt and Sharma 2018)."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    samples = enough(evidence)
    values = [
        isc_features_to_metric(draw.logits, splits=1, shuffle=False)["inception_score_mean"]
        for draw in samples.generated
    ]
    return over_draws(values, len(samples.generated[0].logits))


# What metrics of samples share -----------------------------------------------------------------------------------


def enough(samples: SampleFeatures) -> SampleFeatures:
    """The same samples. Raises `ValueError` where they are too few to fit anything to."""
    if not samples.generated:
        raise ValueError("there is no draw of samples")
    n, reference = len(samples.generated[0].features), len(samples.reference.features)
    if min(n, reference) < 2 * GROUPS:
        raise ValueError(f"{n} generated and {reference} reference images are too few: at least {2 * GROUPS} of each")
    return samples


def over_draws(values: list[float], n: int, reference_error: float = 0.0) -> Estimate:
    """Mean over draws of `n` samples each; the spread of the draws and the error from the reference add in squares."""
    if len(values) < 2:
        return Estimate(values[0], None, n)
    draws_error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(float(np.mean(values)), math.hypot(draws_error, reference_error), n)


def jackknife_error(replicates: list[float]) -> float:
    """Standard error from the statistic without each of G groups (Efron and Tibshirani 1993, eq. 11.5, by groups)."""
    return math.sqrt((len(replicates) - 1) * float(np.var(replicates)))


def random_groups(n: int) -> list[Tensor]:
    """The same random partition of `n` images into `GROUPS` every time, from numpy's frozen legacy generator."""
    order = torch.from_numpy(np.random.RandomState(0).permutation(n))
    return list(order.tensor_split(GROUPS))


def at_most(features: Tensor, n: int) -> Tensor:
    """All rows, or the same random `n` of them every time."""
    if len(features) <= n:
        return features
    return features[torch.from_numpy(np.random.RandomState(0).permutation(len(features))[:n])]
