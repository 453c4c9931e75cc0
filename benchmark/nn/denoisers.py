"""Networks from a noisy image, and how noisy it is, to what is known of the image: which of them is an option."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from benchmark.nn.conv import Shape, UNet
from benchmark.nn.dit import DiT


def denoiser(
    network: Literal["unet", "dit"],
    shape: Shape,
    outputs: int,
    width: int,
    blocks: int,
    scales: int,  # of a U-Net
    heads: int,  # of a transformer
    patch: int,
    positions: bool,
    dropout: float,
    frequencies: Tensor,
) -> UNet | DiT:
    """[B, *shape] and times [B] to [B, outputs, H, W], zero at first: a `UNet` or a `DiT`.

    Raises `ValueError`, in one line that says what to do, for sizes that do not fit the images or each other.
    """
    if network == "dit":
        return DiT(shape, outputs, width, blocks, heads, patch, positions, dropout, frequencies)
    return UNet(shape, outputs, width, blocks, scales, patch, positions, dropout, frequencies)
