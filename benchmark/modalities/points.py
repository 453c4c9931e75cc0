"""Points of a few coordinates: scatter plots, and baselines that know a histogram of each coordinate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.metrics.session import Session
from benchmark.modalities.base import (
    Given,
    Modality,
    Universe,
    baselines,
    draw_independent,
    independent_log_frequencies,
)
from benchmark.spec import DataSpec

SIDE = 512  # pixels of a plot, or one for each level where there are more
FRAME = 2  # pixels around it
THROUGH = 0.3  # of the light that one sample lets through: darker where there are many


class Points(Modality):
    universe = Universe(
        ordinary=DataSpec((6,), 17, "coordinates"),
        enumerable=DataSpec((2,), 5, "coordinates"),
        build_only=DataSpec((2,), 256, "coordinates"),
    )

    def show(self, x: Tensor, spec: DataSpec, decode: Callable[[Tensor], str], stem: Path) -> Path:
        """A scatter plot of the first coordinate (to the right) and the last (upwards), in one row of its own."""
        from PIL import Image, PngImagePlugin

        file = stem.with_suffix(".png")
        plot = F.pad(scattered(x, spec.levels), (FRAME,) * 4, value=0.5)
        rows = PngImagePlugin.PngInfo()
        rows.add_text("rows", "1")  # for `benchmark/traces.py`, which cuts pictures into rows
        Image.fromarray(plot.mul(255).round().byte().numpy()).save(file, pnginfo=rows)
        return file

    def references(self, session: Session) -> Mapping[str, Given]:
        train, test, levels = session.train.x, session.split.x, session.spec.levels
        known = {fn.__name__: fn(train, test, levels) for fn in (uniform, histogram)}
        samplers: dict[str, Callable[[int], Tensor]] = {
            "uniform": lambda n: torch.randint(levels, (n, *session.spec.shape)),
            "histogram": lambda n: draw_independent(train, n, levels),
        }
        return baselines(session, known, samplers)


def scattered(x: Tensor, levels: int) -> Tensor:
    """How light each pixel of a scatter plot of points `[n, D]` is, `[S, S]` from 0 to 1, the highest levels on top."""
    right, up = x[:, 0].long().cpu(), x[:, -1].long().cpu()
    counts = torch.bincount((levels - 1 - up) * levels + right, minlength=levels**2).view(levels, levels)
    scale = max(1, SIDE // levels)
    light: Tensor = THROUGH ** counts.double()
    return light.repeat_interleave(scale, 0).repeat_interleave(scale, 1)


def uniform(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every level of every coordinate is equally likely: `[N]` nats a point. `train` is not looked at."""
    return torch.full((len(test),), -math.log(levels) * test[0].numel(), dtype=torch.float64)


def histogram(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every coordinate is an independent draw from a histogram of its own: `[N]` nats a point."""
    log_p = independent_log_frequencies(train, levels)  # [D, L]
    return log_p[torch.arange(len(log_p)), test.long()].sum(1)  # [N]
