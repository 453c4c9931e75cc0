"""Images: pictures in a grid, and baselines that know histograms of pixels."""

from __future__ import annotations

import lzma
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmark.metrics.session import Session
from benchmark.modalities.base import (
    Given,
    Modality,
    Universe,
    baselines,
    draw_independent,
    independent_log_frequencies,
    log_frequencies,
)
from benchmark.modalities.mixture import fit
from benchmark.spec import DataSpec


class Images(Modality):
    universe = Universe(
        ordinary=DataSpec((1, 8, 8), 17, "grid", DataSpec.label(10)),
        enumerable=DataSpec((1, 2, 2), 3, "grid"),
        build_only=DataSpec((1, 28, 28), 2, "grid", DataSpec.label(10)),
    )

    def show(self, x: Tensor, spec: DataSpec, decode: Callable[[Tensor], str], stem: Path) -> Path:
        """One picture of all samples in rows and columns; small ones are enlarged by whole pixels."""
        from torchvision.utils import save_image

        file = stem.with_suffix(".png")
        scale = max(1, 32 // spec.shape[-1])
        pixels = (x.float() / (spec.levels - 1)).repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        columns = max(1, round(len(x) ** 0.5))
        save_image(pixels, file, nrow=columns, padding=2, pad_value=0.5)
        return file

    def references(self, session: Session) -> Mapping[str, Given]:
        train, test, levels = session.train.x, session.split.x, session.spec.levels
        known = {fn.__name__: fn(train, test, levels) for fn in (uniform, histogram, pixel_histogram)}
        mixture = fit(train, session.data.split("validation").x, levels, session.protocol.seed)
        known |= {"categorical_mixture": mixture.log_prob(test), "lzma": compressed(test)}
        samplers: dict[str, Callable[[int], Tensor]] = {
            "pixel_histogram": lambda n: draw_independent(train, n, levels),
            "categorical_mixture": lambda n: mixture.draw(n, tuple(train.shape[1:])),
        }
        return baselines(session, known, samplers)


class Stacks(Images):
    """Images whose modes are counted on many samples, beside which histograms of pixels are no baseline worth their
    time: noise is."""

    def references(self, session: Session) -> Mapping[str, Given]:
        shape, levels = session.spec.shape, session.spec.levels
        test = session.split.x
        known = {"uniform": uniform(session.train.x, test, levels)}
        return baselines(session, known, {"uniform": lambda n: torch.randint(levels, (n, *shape), dtype=test.dtype)})


def uniform(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every level of every pixel is equally likely: `[N]` nats an example. `train` is not looked at."""
    return torch.full((len(test),), -math.log(levels) * test[0].numel(), dtype=torch.float64)


def histogram(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every pixel is an independent draw from one histogram of all pixels: `[N]` nats an example."""
    log_p = log_frequencies(torch.bincount(train.flatten().long(), minlength=levels))  # [L]
    return log_p[test.long()].flatten(1).sum(1)  # [N]


def pixel_histogram(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every pixel is an independent draw from a histogram of its own: `[N]` nats an example."""
    log_p = independent_log_frequencies(train, levels)
    return log_p[torch.arange(len(log_p)), test.flatten(1).long()].sum(1)  # [N]


def compressed(test: Tensor) -> Tensor:
    """Nats an example, `[1]`, of all images as one stream of bytes behind each other, in the format of xz: one number,
    for what an image takes depends on those before it. No model was trained: the codec learns as it goes."""
    stream = test.numpy().astype(np.uint8).tobytes()
    code = lzma.compress(
        stream, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    )
    return torch.tensor([-len(code) * 8 * math.log(2) / len(test)], dtype=torch.float64)
