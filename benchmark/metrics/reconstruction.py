"""How well an image is reconstructed from its code. The numbers are torchmetrics'."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmark.metrics.likelihood import mean_over_examples
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import LIKELIHOOD_CHUNK, Session, named_subset
from benchmark.spec import Estimate, Reconstructs

EXAMPLES = 1_000  # held-out images, at most
WINDOW = 7  # pixels on a side
SHOWN = 32  # images in the picture, each before its reconstruction

SSIM_PROTOCOL: Mapping[str, Any] = {"window": f"{WINDOW}x{WINDOW}, uniform, reflected at the border"}


@dataclass(frozen=True)
class Reconstructions:
    """Held-out images, and what the model gives back of them."""

    x: Tensor  # [N, C, H, W]
    again: Tensor  # [N, C, H, W]
    levels: int


class Pairs(Probe[Reconstructions]):
    """Some held-out images beside their reconstructions."""

    key = "reconstructions"
    promises = (Reconstructs,)

    def collect(self, session: Session) -> Found[Reconstructions]:
        model, device = session.model, session.device
        x, _ = session.examples()
        images = x[session.subset(len(x), EXAMPLES, "reconstructions")].long()
        again = torch.cat([model.reconstruct(chunk.to(device)) for chunk in images.split(LIKELIHOOD_CHUNK)]).cpu()
        protocol = {"split": session.protocol.split} | named_subset(len(images), len(session.split.x))
        picture = torch.stack([images[:SHOWN], again[:SHOWN].long()], 1).flatten(0, 1)  # [2k, C, H, W]
        return Found(
            Reconstructions(images, again, session.spec.levels), protocol, pictures={"reconstructions": picture}
        )


@metric(Pairs)
def psnr(found: Reconstructions) -> Estimate:
    """Peak signal-to-noise ratio 10 log₁₀(range² / MSE) in decibels, of the squared error over all images.

    The error is that of the mean over images, to first order.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    x, again = found.x.double(), found.again.double()
    value = peak_signal_noise_ratio(again, x, data_range=float(found.levels - 1)).item()
    mse = mean_over_examples((x - again).square().flatten(1).mean(1))  # over [N]
    stderr = None if mse.stderr is None or not mse.value else 10 / math.log(10) * mse.stderr / mse.value
    return Estimate(value, stderr, mse.n)


@metric(Pairs, protocol=SSIM_PROTOCOL)
def ssim(found: Reconstructions) -> Estimate:
    """Structural similarity (Wang and others 2004, eq. 13), mean over images; 1 for equal images."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    each = structural_similarity_index_measure(
        found.again.double(),
        found.x.double(),
        gaussian_kernel=False,
        kernel_size=WINDOW,
        reduction="none",
        data_range=float(found.levels - 1),
    )  # [N]
    return mean_over_examples(torch.as_tensor(each))
