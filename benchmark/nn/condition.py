"""Conditions as vectors: one encoder for each structure that a condition may have.

Shapes: B conditions, D width of a vector, V levels of a condition, T its tokens, [C, H, W] its pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmark.nn.levels import centred


def condition_encoder(shape: tuple[int, ...], levels: int, width: int) -> nn.Module:
    """The encoder of conditions of this shape: `[B, *shape]` integers below `levels` to `[B, width]`.

    A label has the shape (), a short text (T,), an image (C, H, W). Raises `ValueError` for any other.
    """
    match len(shape):
        case 0:
            return LabelEncoder(levels, width)
        case 1:
            return SequenceEncoder(shape[0], levels, width)
        case 3:
            return ImageEncoder(shape[0], levels, width)
        case _:
            raise ValueError(f"a condition has the shape {shape}: (), (T,) and (C, H, W) have encoders")


class LabelEncoder(nn.Module):
    """A vector for each label."""

    def __init__(self, labels: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(labels, width)

    def forward(self, condition: Tensor) -> Tensor:
        """`[B]` to `[B, D]`."""
        vector: Tensor = self.embedding(condition)
        return vector


class SequenceEncoder(nn.Module):
    """One layer of attention over tokens and their places, then the mean over tokens."""

    def __init__(self, length: int, levels: int, width: int) -> None:
        super().__init__()
        heads = math.gcd(width, 4)
        self.token = nn.Embedding(levels, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        self.layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, condition: Tensor) -> Tensor:
        """`[B, T]` to `[B, D]`."""
        mixed: Tensor = self.layer(self.token(condition) + self.place)  # [B, T, D]
        return mixed.mean(1)


class ImageEncoder(nn.Module):
    """Convolutions that halve the sides twice, then the mean over places and a layer."""

    def __init__(self, channels: int, levels: int, width: int) -> None:
        super().__init__()
        self.levels = levels
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.last = nn.Linear(width, width)

    def forward(self, condition: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, D]`."""
        y: Tensor = self.last(self.body(centred(condition, self.levels)).mean((2, 3)))
        return y
