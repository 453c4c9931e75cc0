"""How well an image is reconstructed from its code. The numbers are torchmetrics'."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from benchmark.metrics.likelihood import mean_over_examples
from benchmark.spec import Estimate, Evidence, Reconstructions

EXAMPLES = 1_000  # held-out images, at most
WINDOW = 7  # pixels on a side

SSIM_PROTOCOL: Mapping[str, Any] = {"window": f"{WINDOW}x{WINDOW}, uniform, reflected at the border"}


def psnr(evidence: Evidence) -> Estimate:
    """Peak signal-to-noise ratio 10 log₁₀(range² / MSE) in decibels, of the squared error over all images.

    The error is that of the mean over images, to first order.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    found = _reconstructions(evidence)
    x, again = found.x.double(), found.again.double()
    value = peak_signal_noise_ratio(again, x, data_range=float(evidence.spec.levels - 1)).item()
    mse = mean_over_examples((x - again).square().flatten(1).mean(1))  # over [N]
    stderr = None if mse.stderr is None or not mse.value else 10 / math.log(10) * mse.stderr / mse.value
    return Estimate(value, stderr, mse.n)


def ssim(evidence: Evidence) -> Estimate:
    """Structural similarity (Wang and others 2004, eq. 13), mean over images; 1 for equal images."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = _reconstructions(evidence)
    each = structural_similarity_index_measure(
        found.again.double(),
        found.x.double(),
        gaussian_kernel=False,
        kernel_size=WINDOW,
        reduction="none",
        data_range=float(evidence.spec.levels - 1),
    )  # [N]
    return mean_over_examples(torch.as_tensor(each))


def _reconstructions(evidence: Evidence) -> Reconstructions:
    if evidence.reconstructions is None:
        raise ValueError("the evidence has no reconstructions: compute a metric only where one of its needs is met")
    return evidence.reconstructions
