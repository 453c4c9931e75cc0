"""Gated PixelCNN: pixel after pixel, each from a softmax over its levels, with no blind spot.

Paper: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves and Kavukcuoglu, "Conditional Image Generation with
PixelCNN Decoders", NeurIPS 2016, arXiv:1606.05328

Differences: unconditional; optional dilations and dropout; a plane of ones beside the pixels tells the border from a
dark pixel; the vertical stack sees its own row and is shifted down where it enters the horizontal one, which equals the
paper's masked kernels; convolutions are cropped to what a mask would leave. Samples are drawn incrementally: every
feature is computed once, from the same weights, by the same layers over a window instead of the whole image.

Shapes: B images, C colours, H rows, W columns, L levels, P channels. Unit: nats an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.masked import ColourConv2d, colour_of
from benchmark.nn.optim import adamw
from benchmark.nn.sampling import draw
from benchmark.spec import BadInput, Batch, DataSpec, Likelihood, NonNegative, Sampler, Share, Size

Dilations = Annotated[Sequence[Size], MinLen(1)]


class GatedPixelCNN(GenerativeModel, Likelihood):
    """Each pixel's levels under a softmax that sees the rows above and the pixels to the left."""

    layers: Sequence[GatedLayer]

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 6,
        channels: Size = 48,  # P; at least one for each colour
        kernel: Size = 3,  # odd; a layer sees (kernel - 1) / 2 pixels up, left and right
        dilations: Dilations = (1,),  # of the layers, repeated: [1, 2, 4] widens the view at no cost
        dropout: Share = 0.2,
        learning_rate: NonNegative = 3e-3,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(spec)
        if kernel % 2 == 0:
            raise BadInput(f"gated_pixelcnn: kernel={kernel} is even; use an odd size such as 3 or 5")
        if channels < spec.shape[0]:
            raise BadInput(
                f"gated_pixelcnn: channels={channels} cannot hold {spec.shape[0]} colours; use more channels"
            )
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        colours = spec.shape[0]
        pixels = torch.arange(-1, colours)  # the plane of ones is known before every colour
        hidden = colour_of(channels, colours)
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            GatedLayer(hidden if i else pixels, hidden, kernel, dilations[i % len(dilations)], dropout, first=i == 0)
            for i in range(layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(),
            ColourConv2d(hidden, hidden),
            nn.ReLU(),
            ColourConv2d(hidden, colour_of(colours * spec.levels, colours)),
        )
        self.to(memory_format=torch.channels_last)

    # The model: p(x) = Π p(x_i | x_<i), eq. 1, rows from the top, pixels from the left, colours in order ---------

    def features(self, x: Tensor) -> Tensor:
        """Pixels `[B, C, h, w]` scaled to -1..1, behind a plane of ones: `[B, 1 + C, h, w]`."""
        return F.pad(x.to(self.dtype) * 2 / (self.spec.levels - 1) - 1, (0, 0, 0, 0, 1, 0), value=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, C, L, H, W]` of every value, each from those before it."""
        v = h = self.features(x).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            r = layer.reach
            y = layer.vertical(F.pad(v, (r, r, r, 0)))  # [B, 2P, H, W], row i from rows ≤ i
            above = layer.link(F.pad(y[:, :, :-1], (0, 0, 1, 0)))  # row i from rows < i
            h = layer.horizontal(F.pad(h, (r, 0)), above)
            v = layer.dropout(gate(y))
        logits: Tensor = self.head(h).unflatten(1, (self.spec.shape[0], self.spec.levels))
        return logits

    def log_prob(self, x: Tensor) -> Tensor:
        logits = self(x).float().movedim(2, 1)  # [B, L, C, H, W]
        nll: Tensor = F.cross_entropy(logits, x.long(), reduction="none").flatten(1).sum(1)
        return -nll

    # Sampling -------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", self.spec.dims)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """`forward` in the order of its dependencies, each feature once: windows of one pixel and of one row."""
        C, H, W = self.spec.shape
        x = torch.zeros(n, C, H, W, dtype=torch.long, device=self.device)
        reach = [layer.reach for layer in self.layers]
        width = [layer.left.in_channels for layer in self.layers]
        like: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        left = [torch.zeros(n, p, 1, r + W, **like) for p, r in zip(width, reach, strict=True)]
        rows = [torch.zeros(n, p, r + H, r + W + r, **like) for p, r in zip(width, reach, strict=True)]
        above = [torch.zeros(n, layer.vertical.out_channels, 1, W, **like) for layer in self.layers]
        for i in range(H):
            above = [layer.link(y) for layer, y in zip(self.layers, above, strict=True)]
            for j in range(W):
                for c in range(C):
                    left[0][..., reach[0] :] = h = self.features(x[:, :, i : i + 1])  # all that is drawn by now
                    for k, (layer, r) in enumerate(zip(self.layers, reach, strict=True)):
                        if k > 0:
                            left[k][..., r + j : r + j + 1] = h
                        h = layer.horizontal(left[k][..., j : r + j + 1], above[k][..., j : j + 1])  # [n, P, 1, 1]
                    logits = self.head(h).view(n, C, self.spec.levels)[:, c]
                    x[:, c, i, j] = draw(logits)
            v = self.features(x[:, :, i : i + 1])  # [n, 1 + C, 1, W]
            for k, (layer, r) in enumerate(zip(self.layers, reach, strict=True)):
                rows[k][:, :, r + i, r : r + W] = v.squeeze(2)
                above[k] = layer.vertical(rows[k][:, :, i : r + i + 1])
                v = gate(above[k])
        return x

    # Learning -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.log_prob(batch.x).mean() / self.spec.dims}  # nats a dimension

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


# Private parts ------------------------------------------------------------------------------------------------------


def gate(y: Tensor) -> Tensor:
    """tanh(W_f * x) ⊙ σ(W_g * x), eq. 2: `[B, 2P, ...]` to `[B, P, ...]`."""
    # Halves of a channels_last tensor are strided: made dense, the functions below run twice as fast.
    f, g = (half.contiguous(memory_format=torch.channels_last) for half in y.chunk(2, dim=1))
    return torch.tanh(f) * torch.sigmoid(g)


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2), over windows: what lies around them is the caller's to supply."""

    def __init__(self, source: Tensor, target: Tensor, kernel: int, dilation: int, dropout: float, first: bool) -> None:
        super().__init__()
        taps = kernel // 2 + 1
        gates = target.repeat(2)  # both halves of a gate follow the same order
        self.first = first
        self.reach = dilation * (kernel // 2)
        self.vertical = nn.Conv2d(len(source), len(gates), (taps, kernel), dilation=dilation)
        self.link = nn.Conv2d(len(gates), len(gates), 1)
        self.left = ColourConv2d(source, gates, taps, dilation, strict=first)
        self.mix = ColourConv2d(target, target)
        self.dropout = nn.Dropout(dropout)

    def horizontal(self, h: Tensor, above: Tensor) -> Tensor:
        """`h` with `reach` columns to the left of the window, `above` from the rows above it; a residual step."""
        y: Tensor = self.mix(self.dropout(gate(self.left(h) + above)))
        return y if self.first else h[..., self.reach :] + y
