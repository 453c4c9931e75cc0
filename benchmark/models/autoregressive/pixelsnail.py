"""PixelSNAIL: causal convolutions, and between them attention to every earlier pixel.

Paper: Chen, Mishra, Rohaninejad and Abbeel, "PixelSNAIL: An Improved Autoregressive Generative Model", ICML 2018,
arXiv:1712.09763

Differences: AdamW; a softmax over levels is an option beside the paper's mixture of discretised logistics; convolutions
are masked squares of 3x3 instead of rectangles of 2x2; keys and values have the same size, and are made by two layers
instead of a residual block. As in the paper, the image enters the convolutions once, by one that hides the pixel
itself, and attention's keys and values see the pixel at their own place, too: so a place attends to those strictly
before it, and the first to none and gets zeros. Sampling keeps all features, keys and values.

Shapes: B images, C colours, H rows, W columns, L levels, P channels, T = H W places, Q numbers of a query, a key or a
value. Unit: nats an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.distributions import CoupledCategorical, CoupledLogistics
from benchmark.nn.masked import CausalConv2d, GatedResidual, MaskedConv2d, Scan
from benchmark.nn.optim import adamw
from benchmark.spec import Batch, DataSpec, Likelihood, NonNegative, Sampler, Share, Size


class PixelSNAIL(GenerativeModel, Likelihood):
    """Each pixel under a mixture of logistics or a softmax that sees all pixels before it."""

    layers: Sequence[Layer]

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 4,  # each of some blocks and an attention
        blocks: Size = 2,  # gated residual ones in a layer
        channels: Size = 64,  # P
        attention: Size = 32,  # Q, in one head
        outputs: Literal["logistics", "softmax"] = "logistics",
        components: Size = 10,  # of the mixture of logistics
        dropout: Share = 0.5,
        learning_rate: NonNegative = 3e-3,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(spec)
        self.outputs, self.learning_rate, self.weight_decay = outputs, learning_rate, weight_decay
        C, L = spec.shape[0], spec.levels
        self.first = MaskedConv2d(torch.zeros(1 + C), torch.zeros(channels), 5, strict=True)
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            Layer(spec.shape, channels, blocks, attention, dropout) for _ in range(layers)
        )
        pairs = C * (C - 1) // 2 if outputs == "softmax" else 0
        self.tables = nn.ModuleList(nn.Embedding(L, L) for _ in range(pairs))
        numbers = C * L if outputs == "softmax" else CoupledLogistics.count(C, components)
        self.head = nn.Conv2d(channels, numbers, 1)
        self.to(memory_format=torch.channels_last)

    # The model: p(x) = Π p(pixel | pixels before it), eq. 1 -----------------------------------------------------------

    def features(self, x: Tensor) -> Tensor:
        """Pixels `[B, C, h, w]` scaled to -1..1, behind a plane of ones: `[B, 1 + C, h, w]`."""
        y = F.pad(x.to(self.dtype) * 2 / (self.spec.levels - 1) - 1, (0, 0, 0, 0, 1, 0), value=1.0)
        return y.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor, scan: Scan | None = None) -> Tensor:
        """Parameters `[B, ..., H, W]` of every pixel's distribution; with a scan, of the pixel where it stands."""
        pixels = self.features(x)
        h = self.first(pixels, scan)
        for layer in self.layers:
            h = layer(h, pixels, scan)
        return self.head(F.elu(h))  # type: ignore[no-any-return]

    def distribution(self, outputs: Tensor) -> CoupledLogistics | CoupledCategorical:
        """Of the pixels whose parameters these are."""
        if self.outputs == "softmax":
            return CoupledCategorical(outputs.float(), self.tables, self.spec.shape[0])  # type: ignore[arg-type]
        return CoupledLogistics(outputs.float(), self.spec.shape[0], self.spec.levels)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.distribution(self(x)).log_prob(x).flatten(1).sum(1)

    # Sampling -------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", self.spec.shape[1] * self.spec.shape[2])

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """`forward` pixel by pixel, each feature once."""
        C, H, W = self.spec.shape
        x = torch.zeros(n, C, H, W, dtype=torch.long, device=self.device)
        scan = Scan(H, W)
        for i, j in scan.places():
            pixel = x[:, :, i : i + 1, j : j + 1]
            pixel.copy_(self.distribution(self(pixel, scan)).sample())
            self.first(self.features(pixel), scan)  # what was drawn is seen from now on
            for layer in self.layers:
                layer.attention.note(self.features(pixel), scan)
        return x

    # Learning -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.log_prob(batch.x).mean() / self.spec.dims}  # nats a dimension

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


# Private parts ------------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """Residual blocks, attention over what they make, and a block that takes it in (figure 4)."""

    def __init__(self, shape: tuple[int, ...], channels: int, blocks: int, attention: int, dropout: float) -> None:
        super().__init__()

        def masked(inputs: int, outputs: int) -> CausalConv2d:
            return MaskedConv2d(torch.zeros(inputs), torch.zeros(outputs), 3)

        def alone(inputs: int, outputs: int) -> CausalConv2d:
            return CausalConv2d(inputs, outputs, 1, 1)

        self.blocks = nn.ModuleList(GatedResidual(masked, channels, 0, dropout) for _ in range(blocks))
        self.attention = Attention(shape, channels, attention)
        self.mix = GatedResidual(alone, channels, attention, dropout)

    def forward(self, h: Tensor, pixels: Tensor, scan: Scan | None) -> Tensor:
        for block in self.blocks:
            h = block(h, None, scan)
        return self.mix(h, self.attention(h, pixels, scan), scan)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Each place takes from all that come strictly before it, pixels included; the first gets zeros."""

    place: Tensor  # [1, 2, H, W], row and column within ±1/2

    def __init__(self, shape: tuple[int, ...], channels: int, size: int) -> None:
        super().__init__()
        C, H, W = shape
        rows, columns = torch.linspace(-0.5, 0.5, H), torch.linspace(-0.5, 0.5, W)
        self.register_buffer("place", torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None], persistent=False)
        self.query = nn.Sequential(nn.Conv2d(channels + 2, channels, 1), nn.ELU(), nn.Conv2d(channels, size, 1))
        self.content = nn.Sequential(
            nn.Conv2d(1 + C + channels + 2, channels, 1), nn.ELU(), nn.Conv2d(channels, 2 * size, 1)
        )

    def forward(self, h: Tensor, pixels: Tensor, scan: Scan | None) -> Tensor:
        """`[B, Q, H, W]` from `h` `[B, P, H, W]` and `pixels` `[B, 1 + C, H, W]`; with a scan, of one place."""
        place = self.places(len(h), scan)
        q = self.query(torch.cat([h, place], 1))  # [B, Q, H, W]
        if scan is not None:
            scan.seen[self.content] = h
            past = scan.seen.get(self)
            return torch.zeros_like(q) if past is None else attend(q.flatten(2), past, causal=False).view_as(q)
        content = self.content(torch.cat([h, pixels, place], 1)).flatten(2)  # [B, 2Q, T]
        # Strictly before: the second place is asked first, and may see the first; the last place serves none.
        y = attend(q.flatten(2)[..., 1:], content[..., :-1], causal=True)
        return F.pad(y, (1, 0)).view_as(q)

    def note(self, pixels: Tensor, scan: Scan) -> None:
        """The pixel at the scan's place is known: later ones attend to it."""
        content = self.content(torch.cat([scan.seen[self.content], pixels, self.places(len(pixels), scan)], 1))
        past = [scan.seen[self]] if self in scan.seen else []
        scan.seen[self] = torch.cat([*past, content.flatten(2)], 2)

    def places(self, n: int, scan: Scan | None) -> Tensor:
        here = self.place if scan is None else self.place[..., scan.row, scan.column, None, None]
        return here.expand(n, -1, -1, -1)


def attend(q: Tensor, content: Tensor, causal: bool) -> Tensor:
    """Attention `[B, Q, T]` of queries `[B, Q, T]` to keys and values `[B, 2Q, S]`, by one head."""
    # On a CPU attention stays in float32: the backward pass of its bfloat16 kernel is several times slower.
    parts = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (q, *content.chunk(2, dim=1)))
    q, k, v = (part.mT.contiguous().unsqueeze(1) for part in parts)  # a GPU has kernels for aligned rows alone
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)[:, 0].mT
