"""Points in the plane around a few known centres, on which one sees and counts which modes a sampler has dropped.

The 25 normal distributions on a grid of the literature on adversarial models (Srivastava and others, "VEEGAN: Reducing
Mode Collapse in GANs using Implicit Variational Learning", NeurIPS 2017, arXiv:1705.07761; Lin and others, "PacGAN: The
power of two samples in generative adversarial networks", NeurIPS 2018, arXiv:1712.04086), on a lattice of integers, so
that likelihoods have an entropy to be judged by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmark.data.base import SPLITS, Card, InMemory, Modes, Split, SplitName
from benchmark.data.images import check_split, visits
from benchmark.data.synthetic import truth
from benchmark.spec import Batch, DataSpec

NEAR = 3.0  # standard deviations from its centre within which a point is one of a mode (Srivastava and others)


class NormalGrid:
    """Equally likely normal distributions around all points of a square grid, on a lattice of `levels` × `levels`.

    Both coordinates are independent, and each is a mixture of normals around `centres`, in levels. A level has the mass
    of the cell of width 1 around it; the first and the last reach to infinity.
    """

    def __init__(self, centres: Sequence[int], sigma: float, levels: int) -> None:
        masses = [[cell_mass(level - centre, sigma, level, levels) for level in range(levels)] for centre in centres]
        self.p = np.array(masses).mean(0)  # [L], of either coordinate
        self.sigma = sigma
        self.centres = torch.cartesian_prod(*[torch.tensor(centres)] * 2)  # [K, 2]

    def sample(self, n: int, seed: int) -> np.ndarray:
        """`n` points `[n, 2]`, by the inverse of the cumulative distribution."""
        u = np.random.RandomState(seed).random_sample((n, 2))
        return np.searchsorted(self.p.cumsum()[:-1], u, side="right").astype(np.uint8)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """log p `[N]` in nats of points `[N, 2]`."""
        return np.log(self.p)[x].sum(1)  # type: ignore[no-any-return]

    def entropy(self) -> float:
        """In nats a point, exactly: twice that of a coordinate."""
        return -2 * float((self.p * np.log(self.p)).sum())

    def mode(self, x: Tensor) -> Tensor:
        """The nearest centre `[n]` of points `[n, 2]` in Euclidean distance; -1 where it is further than `NEAR`."""
        distance, index = torch.cdist(x.double(), self.centres.double()).min(1)
        return torch.where(distance <= NEAR * self.sigma, index, -1)


def cell_mass(distance: float, sigma: float, level: int, levels: int) -> float:
    """The mass of the cell of a level that lies `distance` levels above the mean of a normal distribution.

    Ends of cells are turned to the lower side of the mean, where small masses are precise: none is rounded to zero.
    """
    if level == 0:
        return _below((distance + 0.5) / sigma)
    if level == levels - 1:
        return _below((0.5 - distance) / sigma)
    return _below((0.5 - abs(distance)) / sigma) - _below((-0.5 - abs(distance)) / sigma)


def _below(z: float) -> float:
    """Φ(z) of the standard normal distribution."""
    return math.erfc(-z / math.sqrt(2)) / 2


class GaussianGrid(InMemory):
    """Points from a fixed `NormalGrid` of 5×5 modes on 256×256 levels; `root` goes unused.

    What lies on -4, -2, 0, 2, 4 in the literature, with a standard deviation of 0.05, is 24 times as large here.
    """

    card = Card(
        name="gaussian_grid",
        source="25 normal distributions on a grid, drawn when needed (benchmark.data.points)",
        licence="none needed",
        citation="Srivastava and others 2017, VEEGAN, arXiv:1705.07761; Lin and others 2018, PacGAN, arXiv:1712.04086",
        note="the entropy of the source is known, and no likelihood can be better; its coordinates are independent, so "
        "that a histogram of each is all there is to know",
    )
    sizes: ClassVar[dict[SplitName, int]] = {"train": 50_000, "validation": 5_000, "test": 10_000}
    split_sha256: ClassVar[str] = "ee74091a771ad5fe794cd528cf801df55128606b6468734ff85b1c815beecc97"  # of the points

    def __init__(self, root: Path) -> None:
        self.source = NormalGrid(range(32, 256, 48), sigma=1.2, levels=256)
        splits = {
            name: Split(torch.from_numpy(self.source.sample(self.sizes[name], seed)))
            for seed, name in enumerate(SPLITS, start=1)
        }
        check_split(self.card.name, self.split_sha256, *(splits[name].x for name in SPLITS))
        super().__init__(DataSpec((2,), 256, "coordinates"), splits)

    @property
    def modes(self) -> Modes:
        K = len(self.source.centres)
        weights = torch.full((K,), 1 / K, dtype=torch.float64)
        return Modes(weights, f"within {NEAR:g} standard deviations of its centre", self.source.mode)

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        x = self.split("train").x
        return Batch(x=x[visits(len(x), seed, step * batch_size, batch_size).to(x.device)].long())

    def truth(self, name: SplitName) -> dict[str, Tensor]:
        return truth(self.source, self.split(name).x.numpy())

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"entropy": self.source.entropy()}  # nats a point
