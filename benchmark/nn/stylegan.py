"""Layers of StyleGAN2 (Karras and others, "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020,
arXiv:1912.04958): equalised learning rates, resampling by a small filter, modulated convolutions, and what it puts
together of them.

Shapes: x [B, I, H, W] features; w [B, Z] latents that choose a style; I channels in, O out; k side of a kernel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Equalised learning rates (Karras and others 2018, arXiv:1710.10196, section 4.1) ------------------------------------


class EqualLinear(nn.Module):
    """[B, I] to [B, O]. Weights are N(0, 1) and scaled at run time, so that Adam, whose steps do not see the scale of
    gradients, moves each layer by an equal share of what it is at first."""

    def __init__(self, inputs: int, outputs: int, multiplier: float = 1.0, bias: float = 0.0) -> None:
        """`multiplier`: of the learning rate; what the layer is at first does not depend on it. `bias` at first."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / multiplier))
        self.scale, self.multiplier = multiplier / math.sqrt(inputs), multiplier

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.multiplier)


class EqualConv(nn.Module):
    """[B, I, H, W] to [B, O, H, W], or by stride 2 without padding to [B, O, (H - k) / 2 + 1, (W - k) / 2 + 1]."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = 1 / math.sqrt(inputs * side**2)
        self.stride, self.padding = stride, side // 2 if stride == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class Activation(nn.Module):
    """Leaky ReLU, slope 0.2, times √2, which keeps the mean square of normal numbers (but for 4 %)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.2) * math.sqrt(2)


# Resampling: the filter [1, 3, 3, 1] in both directions, the paper's "bilinear" --------------------------------------


def kernel(x: Tensor) -> Tensor:
    """[I, 1, 4, 4], which sums to one: a filter for each channel of x."""
    side = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8
    return torch.outer(side, side).repeat(x.shape[1], 1, 1, 1)


def blurred(x: Tensor, padding: int) -> Tensor:
    """`[B, I, H, W]` to `[B, I, H + 2 padding - 3, W + 2 padding - 3]`, with zeros around x."""
    return F.conv2d(x, kernel(x), padding=padding, groups=x.shape[1])


def enlarged(x: Tensor) -> Tensor:
    """`[B, I, H, W]` to `[B, I, 2 H, 2 W]`: zeros between the pixels, then the filter, which keeps the mean."""
    return F.conv_transpose2d(x, 4 * kernel(x), stride=2, padding=1, groups=x.shape[1])


# Modulated convolution (section 2.2) ---------------------------------------------------------------------------------


class ModulatedConv(nn.Module):
    """x [B, I, H, W] and w [B, Z] to [B, O, H, W] by a kernel of each example's own, eqs. 1 and 3; no bias.

    The kernels are never made: scaling I input channels by s is scaling the kernel (eq. 1), and scaling O output
    channels is demodulation, as the convolution between them is linear.
    """

    def __init__(
        self, inputs: int, outputs: int, side: int, latent: int, enlarge: bool = False, demodulate: bool = True
    ) -> None:
        """`enlarge`: to [B, O, 2 H, 2 W]."""
        super().__init__()
        self.style = EqualLinear(latent, inputs, bias=1.0)  # A: at first styles are 1 on average
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.scale = 1 / math.sqrt(inputs * side**2)
        self.padding, self.enlarge, self.demodulate = side // 2, enlarge, demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        s, weight = self.style(w), self.weight * self.scale  # [B, I], [O, I, k, k]
        x = x * s[:, :, None, None]  # eq. 1
        if self.enlarge:
            x = 4 * blurred(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1)
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        if self.demodulate:
            square = s.float().square() @ weight.square().sum((2, 3)).T  # [B, O], Σ over i and k of w'²
            x = x * torch.rsqrt(square + 1e-8).to(x.dtype)[:, :, None, None]  # eq. 3
        return x


# What networks are built of (figures 2 and 7) ------------------------------------------------------------------------


class Normalised(nn.Module):
    """z [B, Z] with a mean square of 1."""

    def forward(self, z: Tensor) -> Tensor:
        return z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)


class StyledLayer(nn.Module):
    """x [B, I, H, W] and w [B, Z] to [B, O, H, W] or [B, O, 2 H, 2 W]: convolution, noise, bias, activation."""

    def __init__(self, inputs: int, outputs: int, latent: int, noise: bool, enlarge: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, latent, enlarge)
        self.strength = nn.Parameter(torch.zeros(())) if noise else None
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))
        self.activation = Activation()

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = self.conv(x, w)
        if self.strength is not None:
            x = x + self.strength * torch.randn_like(x[:, :1])
        y: Tensor = self.activation(x + self.bias.to(x.dtype))
        return y


class ToImage(nn.Module):
    """x [B, I, H, W] and w [B, Z] to colours [B, C, H, W]."""

    def __init__(self, inputs: int, colours: int, latent: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, colours, 1, latent, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(colours, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        y: Tensor = self.conv(x, w) + self.bias
        return y


class ResidualBlock(nn.Module):
    """[B, I, H, W] to [B, O, H / 2, W / 2] (figure 7c)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = EqualConv(inputs, inputs, 3), EqualConv(inputs, outputs, 3, stride=2)
        self.skip = EqualConv(inputs, outputs, 1, stride=2, bias=False)
        self.activation = Activation()

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.conv1(x))
        h = self.activation(self.conv2(blurred(h, padding=2)))
        y: Tensor = (h + self.skip(blurred(x, padding=1))) / math.sqrt(2)  # keeps the variance
        return y
