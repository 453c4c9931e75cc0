"""PixelCNN: pixel after pixel, each from a softmax over its levels, by masked convolutions that leave a blind spot.

Paper: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016, arXiv:1601.06759

Differences: AdamW; dropout as an option; a plane of ones beside the pixels tells the border from a grey pixel;
convolutions are cropped to what a mask leaves. As in the paper, an output never sees what stands in the a-th row above
more than a + 2 columns to the right (for the kernels 7 and 3): the first layer reaches up one row and three columns to
the right, every later one a row and a column. The gated PixelCNN closes this blind spot.

Shapes: B images, C colours, H rows, W columns, L levels, P channels. Unit: nats an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.masked import ColourConv2d, MaskedConv2d, Scan, colour_of
from benchmark.nn.optim import adamw
from benchmark.nn.sampling import draw
from benchmark.spec import BadInput, Batch, DataSpec, Likelihood, NonNegative, Sampler, Share, Size


class PixelCNN(GenerativeModel, Likelihood):
    """Each pixel's levels under a softmax that sees most of the rows above and the pixels to the left."""

    blocks: Sequence[Block]

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 7,  # residual blocks
        channels: Size = 64,  # P, half of them inside a block; there at least one for each colour
        first_kernel: Size = 7,  # odd; of the masked convolution over the pixels themselves
        kernel: Size = 3,  # odd; of a block's
        dropout: Share = 0.0,
        learning_rate: NonNegative = 3e-3,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(spec)
        if first_kernel % 2 == 0 or kernel % 2 == 0:
            raise BadInput(f"pixelcnn: first_kernel={first_kernel}, kernel={kernel}: use odd sizes such as 7 and 3")
        colours = spec.shape[0]
        if channels < 2 * colours:
            raise BadInput(f"pixelcnn: channels={channels} cannot hold {colours} colours; use at least {2 * colours}")
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        pixels = torch.arange(-1, colours)  # the plane of ones is known before every colour
        wide, narrow = colour_of(channels, colours), colour_of(channels // 2, colours)
        self.first = MaskedConv2d(pixels, wide, first_kernel, strict=True)
        self.blocks = nn.ModuleList(Block(wide, narrow, kernel, dropout) for _ in range(layers))  # type: ignore[assignment]
        self.head = nn.Sequential(
            nn.ReLU(),
            ColourConv2d(wide, wide),
            nn.ReLU(),
            ColourConv2d(wide, colour_of(colours * spec.levels, colours)),
        )
        self.to(memory_format=torch.channels_last)

    # The model: p(x) = Π p(x_i | x_<i), eq. 1 and 2, rows from the top, pixels from the left, colours in order --------

    def features(self, x: Tensor) -> Tensor:
        """Pixels `[B, C, h, w]` scaled to -1..1, behind a plane of ones: `[B, 1 + C, h, w]`."""
        return F.pad(x.to(self.dtype) * 2 / (self.spec.levels - 1) - 1, (0, 0, 0, 0, 1, 0), value=1.0)

    def forward(self, x: Tensor, scan: Scan | None = None) -> Tensor:
        """Logits `[B, C, L, H, W]` of every value, each from those before it; with a scan, of the pixel where it is."""
        h = self.first(self.features(x).contiguous(memory_format=torch.channels_last), scan)
        for block in self.blocks:
            h = block(h, scan)
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
        """`forward` pixel by pixel, each feature once for each colour."""
        C, H, W = self.spec.shape
        x = torch.zeros(n, C, H, W, dtype=torch.long, device=self.device)
        scan = Scan(H, W)
        for i, j in scan.places():
            pixel = x[:, :, i : i + 1, j : j + 1]
            for c in range(C):
                pixel[:, c, 0, 0] = draw(self(pixel, scan)[:, c, :, 0, 0])
            self.first(self.features(pixel), scan)  # notes the last colour
        return x

    # Learning -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.log_prob(batch.x).mean() / self.spec.dims}  # nats a dimension

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


# Private parts ------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """h + f(h) through half as many channels (figure 5, left)."""

    def __init__(self, wide: Tensor, narrow: Tensor, kernel: int, dropout: float) -> None:
        super().__init__()
        self.inward = ColourConv2d(wide, narrow)
        self.masked = MaskedConv2d(narrow, narrow, kernel)
        self.outward = ColourConv2d(narrow, wide)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, scan: Scan | None) -> Tensor:
        y = self.masked(F.relu(self.inward(F.relu(h))), scan)
        return h + self.outward(self.dropout(F.relu(y)))  # type: ignore[no-any-return]
