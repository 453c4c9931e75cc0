"""Whether samples are new: how near they lie to training images, beside how near held-out images lie.

A sampler that has learnt the distribution lies as near to its training images as images that it never saw do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmark.metrics.extractors.base import CPU
from benchmark.metrics.fidelity import enough, jackknife_error, over_draws, random_groups
from benchmark.metrics.pairs import nearest
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.samples import DRAWN, Draws, SampleFeatures, SampleSets, SeenFeatures
from benchmark.metrics.session import Session
from benchmark.spec import Absence, Estimate

CANDIDATES = 32
MOST = 100_000  # training images: a draw of 1,000 samples takes some seconds
SHOWN = 32  # samples in the picture that shows them beside training images
NEAR = 0.5  # of the distance from a training image to the nearest other one

PIXELS_PROTOCOL: Mapping[str, Any] = {"distance": f"L1 in data units, among the {CANDIDATES} nearest in L2"}
NEAR_PROTOCOL: Mapping[str, Any] = {**PIXELS_PROTOCOL, "near": f"{NEAR} of the training image's distance to another"}


@metric(SeenFeatures)
def nearest_neighbour_ratio(evidence: SampleFeatures) -> Estimate:
    """Median distance of samples to their nearest training image over that of held-out images, in features.

    About 1 for a sampler that has learnt the distribution, 0 for one that repeats training images, above 1 for one
    whose samples lie off the data. The error is over draws and, by a delete-group jackknife, over held-out images.
    """
    samples = enough(evidence)
    reference = samples.reference.features.to(samples.device)
    held_out = nearest(samples.held_out.features.to(samples.device), reference).cpu()  # [n]
    usual = held_out.median()
    if not usual > 0:
        raise ValueError("half of the held-out images equal training images: no distance to compare with")
    medians = [nearest(draw.features.to(samples.device), reference).median().cpu() for draw in samples.generated]
    ratios = [(median / usual).item() for median in medians]
    mean = torch.stack(medians).mean()
    everyone = torch.arange(len(held_out))
    without = [
        (mean / held_out[~torch.isin(everyone, group)].median()).item() for group in random_groups(len(held_out))
    ]
    return over_draws(ratios, len(samples.generated[0].features), jackknife_error(without))


@dataclass(frozen=True)
class Nearest:
    """Of the samples of each draw `[n]`: how far the nearest training image is, and which it is."""

    distances: tuple[Tensor, ...]
    indices: tuple[Tensor, ...]
    reference: Tensor  # [N, *shape]: the training split
    device: torch.device = CPU  # where comparisons are made; the tensors are on the CPU


class NearestImages(Probe[Nearest]):
    """The training image nearest to each sample, with a picture of the samples that lie nearest."""

    key = "images"
    says = DRAWN

    def collect(self, session: Session) -> Found[Nearest] | Absence:
        if (n := len(session.train.x)) > MOST:
            return Absence(
                "not run", f"{n:,} training images are too many to compare each sample with: {MOST:,} at most"
            )
        if isinstance(draws := session[Draws], Absence):
            return draws
        sets = draws.evidence
        nearest = nearest_images(sets)
        closest = nearest.distances[0].argsort()[:SHOWN]
        train = sets.reference[nearest.indices[0][closest]]
        picture = torch.stack([sets.generated[0][closest].long(), train.long()], 1).flatten(0, 1)  # [2k, *shape]
        return Found(nearest, draws.protocol, pictures={"neighbours": picture})


def nearest_images(sets: SampleSets) -> Nearest:
    """Of each sample of each draw, the nearest training image."""
    found = (nearest_in_pixels(draw, sets.reference, sets.device) for draw in sets.generated)
    distances, indices = zip(*found, strict=True)
    return Nearest(distances, indices, sets.reference, sets.device)


@metric(NearestImages, protocol=PIXELS_PROTOCOL)
def copies(found: Nearest) -> Estimate:
    """Share of samples that equal a training image in every pixel. The standard error is over draws."""
    return over_draws([(distance == 0).double().mean().item() for distance in found.distances], len(found.distances[0]))


@metric(NearestImages, protocol=NEAR_PROTOCOL)
def near_copies(found: Nearest) -> Estimate:
    """Share of samples nearer to a training image than half of the way from that image to the nearest other one.

    In pixels, where a change of a few of them or a little of all stays small, which in features it need not; and by
    the training image's own surroundings, since plain images (a one) lie closer together than intricate ones.
    """
    shares = []
    for distance, index in zip(found.distances, found.indices, strict=True):
        images = found.reference[index]
        usual, _ = nearest_in_pixels(images, found.reference, found.device, rank=1)  # rank 0 is the image itself
        shares.append(((distance == 0) | (distance < NEAR * usual)).double().mean().item())
    return over_draws(shares, len(found.distances[0]))


def nearest_in_pixels(x: Tensor, reference: Tensor, device: torch.device = CPU, rank: int = 0) -> tuple[Tensor, Tensor]:
    """L1 distance `[n]` of images `x` `[n, *shape]` to the nearest of `reference` `[N, *shape]`, and its index `[n]`.

    `rank=1` passes over the nearest. Both are sought among the 32 nearest in Euclidean distance, which come out of one
    product of matrices.
    """
    rows = reference.flatten(1).to(device).float()  # [N, D]
    squares = rows.square().sum(1)
    distances, indices = [], []
    for part in x.flatten(1).to(device).float().split(256):
        euclidean = squares - 2 * part @ rows.T  # [b, N], but for |x|²
        candidates = euclidean.topk(min(CANDIDATES, len(rows)), largest=False).indices  # [b, K]
        found = (rows[candidates] - part[:, None]).abs().sum(2).sort(1)  # [b, K]
        distances.append(found.values[:, rank])
        indices.append(candidates.gather(1, found.indices[:, rank : rank + 1])[:, 0])
    return torch.cat(distances).cpu(), torch.cat(indices).cpu()
