"""Masked convolutions: networks in which an output reads only what comes before it in a fixed order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def colour_of(channels: int, colours: int) -> Tensor:
    """The colour that each of `channels` feature maps may know at its own pixel, `[channels]`, in equal shares."""
    return torch.arange(channels) * colours // channels


class ColourConv2d(nn.Conv2d):
    """A valid convolution over pixels to the left whose last column is the pixel itself, where colours are ordered.

    There, output channel o reads input channel i only if colour i < colour o (mask A, `strict`) or colour i ≤ colour o
    (mask B), as in van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016, figure 4.
    """

    mask: Tensor

    def __init__(self, source: Tensor, target: Tensor, taps: int = 1, dilation: int = 1, strict: bool = False) -> None:
        """Colours of the channels read, `source` `[in]`, and made, `target` `[out]`; `taps` pixels in a row."""
        super().__init__(len(source), len(target), (1, taps), dilation=dilation)
        mask = torch.ones_like(self.weight)  # [out, in, 1, taps]
        mask[:, :, 0, -1] = (source < target[:, None] if strict else source <= target[:, None]).float()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, in, H, W]` to `[B, out, H, W - dilation (taps - 1)]`."""
        return F.conv2d(x, self.weight * self.mask, self.bias, dilation=self.dilation)
