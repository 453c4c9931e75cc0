"""PED-ANOVA: how far the best trials' values of one hyperparameter are from evenly spread over its range.

Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces",
IJCAI 2023. A range is cut into at most `CELLS` cells. The density of the best trials is a Parzen estimate over the
cells, with a uniform-like prior that weighs as much as one trial, and a bandwidth by Scott's rule (Scott, "Multivariate
Density Estimation", 1992). The importance is the Pearson divergence of this density from the uniform one. Numbers are
those of Optuna's `PedAnovaImportanceEvaluator(target_quantile=share, evaluate_on_local=False)`.

Many sets of best trials are evaluated at once, such as those of resampled trials. Arrays have R sets of the best, N
trials and G cells. Equal sets have equal divergences, to the bit: whoever compares them may ask for `<=`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.sweep.space import Option, Value

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CELLS = 50
NARROWEST = 0.5 / 1.64  # bandwidth, in cells: 90 % of such a kernel lie in its own cell
LEAST = 1e-12  # added to every cell's density


@dataclass(frozen=True)
class Grid:
    """Where the trials' values of one hyperparameter lie."""

    cells: Integers  # [N], 0 to size - 1
    size: int  # G
    ordered: bool  # whether neighbouring cells hold similar values


def grid(option: Option, values: Sequence[Value]) -> Grid:
    """The cells of `values`, which `option` holds. On a logarithmic scale cells are equally wide there."""
    if option.choices is not None:
        return Grid(np.array([option.choices.index(value) for value in values]), len(option.choices), ordered=False)
    assert option.low is not None
    assert option.high is not None
    low, high, size = option.low, option.high, CELLS
    if option.integer:
        low = int(low)
        high = int(high) - (int(high) - low) % option.step
        several = math.ceil(math.log2(high - low + 1)) if option.scale == "log" else (high - low) // option.step
        size = min(int(several) + 1, CELLS)
    x: Any = np.asarray(values, dtype=float)
    if option.scale == "log":
        low, high, x = math.log(low), math.log(high), np.log(x)
    if size == 1:
        return Grid(np.zeros(len(x), dtype=np.int64), 1, ordered=True)
    cells = np.ceil((x - low) / ((high - low) / (size - 1)) - 0.5)  # the nearest; of two, the lower
    return Grid(np.clip(cells.astype(np.int64), 0, size - 1), size, ordered=True)


def best(scores: Floats, share: float) -> NDArray[np.bool_]:
    """`[R, N]`, whether a score is among the lowest `share` of its row's; equal ones all are. Scores are finite."""
    last = math.ceil(share * scores.shape[1]) - 1
    return scores <= np.partition(scores, last, axis=1)[:, last, None]


def divergences(grid: Grid, chosen: Integers) -> Floats:
    """`[R]`, the divergences of sets of the best: `chosen` says how often each trial stands in each, `[R, N]`."""
    if grid.size == 1:
        return np.zeros(len(chosen))
    counts = chosen @ (grid.cells[:, None] == np.arange(grid.size)).astype(np.int64)  # [R, G]
    counts, back = np.unique(counts, axis=0, return_inverse=True)
    density = (_smoothed if grid.ordered else _mixed)(counts) + LEAST
    divergence = ((density * grid.size - 1) ** 2).mean(1)
    divergence *= (counts.sum(1) / len(grid.cells)) ** 2
    return np.asarray(divergence[back.reshape(-1)])


def _mixed(counts: Integers) -> Floats:
    """`[R, G]`, the density over choices: each kernel shares its weight with all choices, less so where more differ."""
    size, total = counts.shape[1], counts.sum(1, keepdims=True)
    shared = 1 / (1 + (counts > 0).sum(1, keepdims=True))
    return np.asarray(((counts + total * shared) / (1 + size * shared) + 1 / size) / (total + 1))


def _smoothed(counts: Integers) -> Floats:
    """`[R, G]`, the density over ordered cells: normal kernels, cut off at the ends of the range."""
    from scipy.special import ndtr  # the normal distribution function

    size, total = counts.shape[1], counts.sum(1, keepdims=True)
    cells = np.arange(size)
    # The mass of a kernel by distance from its middle; of two tails, since they are exact where they are small.
    width = _bandwidth(counts)[:, None]  # [R, 1]
    mass = ndtr((0.5 - cells) / width) - ndtr((-0.5 - cells) / width)  # [R, G]
    kernels = mass[:, np.abs(cells[:, None] - cells)]  # [R, G, G], middles before cells
    kernels = kernels / kernels.sum(2, keepdims=True)
    prior = np.diff(ndtr((np.arange(size + 1) - size / 2) / size))  # around the middle, as wide as the range
    return np.asarray(((counts[:, :, None] * kernels).sum(1) + prior / prior.sum()) / (total + 1))


def _bandwidth(counts: Integers) -> Floats:
    """`[R]`, Scott's rule, in cells."""
    cells, total = np.arange(counts.shape[1]), counts.sum(1)
    mean = (counts * cells).sum(1) / total
    variance = (counts * (cells - mean[:, None]) ** 2).sum(1) / np.maximum(1, total - 1)
    below = counts.cumsum(1)
    first = (below < np.maximum(1, total // 4)[:, None]).sum(1)  # the cells of the quartiles
    third = (below <= (total * 3 // 4)[:, None]).sum(1)
    spread = np.minimum((third - first) / 1.34, np.sqrt(variance))
    return np.asarray(np.maximum(1.059 * spread * total**-0.2, NARROWEST))
