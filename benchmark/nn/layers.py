"""Layers that networks of any shape are made of."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


def mlp(
    inputs: int, outputs: int, width: int, depth: int, dropout: float, activation: type[nn.Module] = nn.SiLU
) -> nn.Sequential:
    """[B, ...] of `inputs` numbers to [B, outputs] through `depth` hidden layers of `width` units."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), activation(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def zeroed(layer: Layer) -> Layer:
    """The same layer, its parameters set to zero: what it ends starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def glorot(network: nn.Module) -> None:
    """Draws the matrices of linear layers anew, uniform with the variance 2 / (inputs + outputs), and sets biases to 0
    (Glorot and Bengio 2010, eq. 16)."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class Positions(nn.Module):
    """Adds a learnt value, zero at first, at each place of [B, *shape]: digits, unlike photographs, look different at
    the border."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value


class Fourier(nn.Module):
    """Sines, then cosines, of numbers [B, ...] times each of F frequencies (in radians): [B, 2F, ...]."""

    frequencies: Tensor

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        angles = x.unsqueeze(1) * self.frequencies.view(-1, *[1] * (x.ndim - 1))
        return torch.cat([angles.sin(), angles.cos()], 1)


def time_network(frequencies: Tensor, width: int) -> nn.Sequential:
    """Times [B], or other numbers that say how noisy an example is, to features [B, width] by way of `Fourier`."""
    inputs = 2 * len(frequencies)
    return nn.Sequential(Fourier(frequencies), nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
