"""Whether samples are new: how near they lie to training images, beside how near held-out images lie.

A sampler that has learnt the distribution lies as near to its training images as images that it never saw do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from benchmark.metrics.fidelity import jackknife_error, over_draws, random_groups, samples_of
from benchmark.spec import Estimate, Evidence, SampleImages

CANDIDATES = 32
NEAR = 0.5  # of the distance from a training image to the nearest other one

PIXELS_PROTOCOL: Mapping[str, Any] = {"distance": f"L1 in data units, among the {CANDIDATES} nearest in L2"}
NEAR_PROTOCOL: Mapping[str, Any] = {**PIXELS_PROTOCOL, "near": f"{NEAR} of the training image's distance to another"}


def nearest_neighbour_ratio(evidence: Evidence) -> Estimate:
    """Median distance of samples to their nearest training image over that of held-out images, in features.

    About 1 for a sampler that has learnt the distribution, 0 for one that repeats training images, above 1 for one
    whose samples lie off the data. The error is over draws and, by a delete-group jackknife, over held-out images.
    """
    samples = samples_of(evidence)
    held_out = nearest(samples.held_out.features, samples.reference.features)  # [n]
    usual = held_out.median()
    if not usual > 0:
        raise ValueError("half of the held-out images equal training images: no distance to compare with")
    medians = [nearest(draw.features, samples.reference.features).median() for draw in samples.generated]
    ratios = [(median / usual).item() for median in medians]
    mean = torch.stack(medians).mean()
    everyone = torch.arange(len(held_out))
    without = [
        (mean / held_out[~torch.isin(everyone, group)].median()).item() for group in random_groups(len(held_out))
    ]
    return over_draws(ratios, len(samples.generated[0].features), jackknife_error(without))


def copies(evidence: Evidence) -> Estimate:
    """Share of samples that equal a training image in every pixel. The standard error is over draws."""
    found = _nearest_training_images(_images(evidence))
    return over_draws([(distance == 0).double().mean().item() for distance, _ in found], len(found[0][0]))


def near_copies(evidence: Evidence) -> Estimate:
    """Share of samples nearer to a training image than half of the way from that image to the nearest other one.

    In pixels, where a change of a few of them or a little of all stays small, which in features it need not; and by
    the training image's own surroundings, since plain images (a one) lie closer together than intricate ones.
    """
    images = _images(evidence)
    shares = []
    for distance, index in _nearest_training_images(images):
        usual, _ = nearest_in_pixels(images.reference[index], images.reference, rank=1)  # rank 0 is the image itself
        shares.append(((distance == 0) | (distance < NEAR * usual)).double().mean().item())
    return over_draws(shares, len(images.generated[0]))


def nearest(x: Tensor, reference: Tensor) -> Tensor:
    """Euclidean distance `[n]` of each row of `x` `[n, d]` to the nearest row of `reference` `[N, d]`."""
    return torch.cat([torch.cdist(part, reference).min(1).values for part in x.split(256)])


def nearest_in_pixels(x: Tensor, reference: Tensor, rank: int = 0) -> tuple[Tensor, Tensor]:
    """L1 distance `[n]` of images `x` `[n, *shape]` to the nearest of `reference` `[N, *shape]`, and its index `[n]`.

    `rank=1` passes over the nearest. Both are sought among the 32 nearest in Euclidean distance, which come out of one
    product of matrices.
    """
    rows = reference.flatten(1).float()  # [N, D]
    squares = rows.square().sum(1)
    distances, indices = [], []
    for part in x.flatten(1).float().split(256):
        euclidean = squares - 2 * part @ rows.T  # [b, N], but for |x|²
        candidates = euclidean.topk(min(CANDIDATES, len(rows)), largest=False).indices  # [b, K]
        found = (rows[candidates] - part[:, None]).abs().sum(2).sort(1)  # [b, K]
        distances.append(found.values[:, rank])
        indices.append(candidates.gather(1, found.indices[:, rank : rank + 1])[:, 0])
    return torch.cat(distances), torch.cat(indices)


@lru_cache(maxsize=1)  # two metrics share it
def _nearest_training_images(images: SampleImages) -> list[tuple[Tensor, Tensor]]:
    """Of the samples of each draw: how far the nearest training image is, and which it is."""
    return [nearest_in_pixels(draw, images.reference) for draw in images.generated]


def _images(evidence: Evidence) -> SampleImages:
    if evidence.images is None or not evidence.images.generated:
        raise ValueError("the evidence has no images: compute a metric only where one of its needs is met")
    return evidence.images
