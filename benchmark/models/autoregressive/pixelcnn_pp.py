"""PixelCNN++: pixels from mixtures of discretised logistics, by two streams of causal convolutions at several scales.

Paper: Salimans, Karpathy, Chen and Kingma, "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture
Likelihood and Other Modifications", ICLR 2017, arXiv:1701.05517

Differences: AdamW; no data-dependent start (the last convolution of each block starts small instead); short cuts lead
from each block on the way down to its mirror image on the way up; on that way a place becomes 2x2 places, each by a
linear map of its own; sides may be odd, and small images are halved less often. All bins are exact, without the
reference code's approximation of narrow ones by a density, so that levels sum to one; samples are rounded to levels
before they become context. Sampling goes row by row in the vertical stream and pixel by pixel in the other; each
feature is computed once.

Shapes: B images, C colours, H rows, W columns, L levels, P channels, K components. Unit: nats an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm as with_weight_norm
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.distributions import CoupledLogistics
from benchmark.nn.masked import CausalConv2d, GatedResidual, Scan
from benchmark.nn.optim import adamw
from benchmark.spec import Batch, Count, DataSpec, Likelihood, NonNegative, Sampler, Share, Size

Features = dict[tuple[int, int], Tensor]  # of each block of a stream, by halvings that are left and its number


class PixelCNNpp(GenerativeModel, Likelihood):
    """Each pixel under a mixture of logistics, its colours coupled, that sees the rows above and the pixels before."""

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 3,  # blocks at each scale, on the way down and on the way up
        channels: Size = 64,  # P, at every scale
        halvings: Count = 2,  # of the sides, as far as they go
        components: Size = 10,  # K
        dropout: Share = 0.5,
        weight_norm: bool = True,
        learning_rate: NonNegative = 3e-3,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(spec)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        C, *sides = spec.shape
        halvings = min(halvings, min(sides).bit_length() - 1)

        def down(inputs: int, outputs: int, stride: int = 1) -> CausalConv2d:
            return CausalConv2d(inputs, outputs, 2, 3, right=1, stride=stride)

        def down_right(inputs: int, outputs: int, stride: int = 1) -> CausalConv2d:
            return CausalConv2d(inputs, outputs, 2, 2, stride=stride)

        self.first_down = down(1 + C, channels)
        self.first_above, self.first_left = CausalConv2d(1 + C, channels, 1, 3, 1), CausalConv2d(1 + C, channels, 2, 1)
        self.vertical = Stream(down, channels, layers, halvings, dropout, leads=True)
        self.horizontal = Stream(down_right, channels, layers, halvings, dropout, leads=False)
        self.head = nn.Conv2d(channels, CoupledLogistics.count(C, components), 1)
        if weight_norm:
            for layer in [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]:
                with_weight_norm(layer, dim=int(isinstance(layer, nn.ConvTranspose2d)))  # the axis of outputs
        self.to(memory_format=torch.channels_last)

    # The model: p(x) = Π p(pixel | pixels before it) ------------------------------------------------------------------

    def features(self, x: Tensor) -> Tensor:
        """Pixels `[B, C, h, w]` scaled to -1..1, behind a plane of ones: `[B, 1 + C, h, w]`."""
        y = F.pad(x.to(self.dtype) * 2 / (self.spec.levels - 1) - 1, (0, 0, 0, 0, 1, 0), value=1.0)
        return y.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Parameters `[B, K (1 + 2C + C(C-1)/2), H, W]` of every pixel's mixture, each from the pixels before it."""
        x = self.features(x)
        above, left = F.pad(x[:, :, :-1], (0, 0, 1, 0)), F.pad(x[..., :-1], (1, 0))  # what a pixel may know
        features: Features = {}
        self.vertical(self.first_down(above), features)
        h = self.horizontal(self.first_above(above) + self.first_left(left), features)
        return self.head(F.elu(h))  # type: ignore[no-any-return]

    def distribution(self, outputs: Tensor) -> CoupledLogistics:
        return CoupledLogistics(outputs.float(), self.spec.shape[0], self.spec.levels)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.distribution(self(x)).log_prob(x).flatten(1).sum(1)

    # Sampling -------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", self.spec.shape[1] * self.spec.shape[2])

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """`forward` in the order of its dependencies: a row of the vertical stream, then the pixels of that row."""
        C, H, W = self.spec.shape
        x = torch.zeros(n, C, H, W, dtype=torch.long, device=self.device)
        nothing = self.features(x[:, :, :1]).zero_()  # beyond the border [n, 1 + C, 1, W]
        rows, pixels, above = Scan(H, W), Scan(H, W), nothing
        features: Features = {}
        with parametrize.cached():
            for i, j in pixels.places():
                if j == 0:
                    rows.row = i
                    above = self.features(x[:, :, i - 1 : i]) if i else nothing
                    self.vertical(self.first_down(above, rows), features, rows)
                    seen_above = self.first_above(above)  # [n, P, 1, W]
                left = self.features(x[:, :, i : i + 1, j - 1 : j]) if j else nothing[..., :1]
                h = seen_above[..., j : j + 1] + self.first_left(left, pixels)
                h = self.horizontal(h, features, pixels)
                x[:, :, i, j] = self.distribution(self.head(F.elu(h))).sample()[..., 0, 0]
        return x

    # Learning -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.log_prob(batch.x).mean() / self.spec.dims}  # nats a dimension

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


# Private parts ------------------------------------------------------------------------------------------------------


class Stream(nn.Module):
    """One of the two streams at one scale (figure 2), and inside it the same at half the size.

    The vertical one `leads`: the other sees, block by block, what it has made of the rows above.
    """

    down: Sequence[GatedResidual]
    up: Sequence[GatedResidual]

    def __init__(
        self, conv: Callable[..., CausalConv2d], channels: int, layers: int, halvings: int, dropout: float, leads: bool
    ) -> None:
        super().__init__()
        self.halvings, self.leads = halvings, leads
        lead = 0 if leads else channels
        self.down = nn.ModuleList(GatedResidual(conv, channels, lead, dropout) for _ in range(layers))  # type: ignore[assignment]
        self.up = nn.ModuleList(GatedResidual(conv, channels, channels + lead, dropout) for _ in range(layers))  # type: ignore[assignment]
        self.inner = Stream(conv, channels, layers, halvings - 1, dropout, leads) if halvings else None
        if halvings:
            self.shrink = conv(channels, channels, stride=2)
            self.grow = nn.ConvTranspose2d(channels, channels, 2, stride=2)

    def forward(self, h: Tensor, features: Features, scan: Scan | None = None) -> Tensor:
        """`[B, P, H, W]` before and after, or one row or one pixel of it where a scan is."""
        skips: list[Tensor] = []
        for k, block in enumerate([*self.down, *self.up]):
            if k == len(self.down) and self.inner is not None:
                h = self.at_half_size(h, features, scan)
            context = [skips.pop()] if k >= len(self.down) else []
            if not self.leads:
                j = 0 if scan is None else scan.column
                context.append(features[self.halvings, k][..., j : j + h.shape[3]])
            h = block(h, torch.cat(context, 1) if context else None, scan)
            if self.leads:
                features[self.halvings, k] = h
            if k < len(self.down):
                skips.append(h)
        return h

    def at_half_size(self, h: Tensor, features: Features, scan: Scan | None) -> Tensor:
        """Through the inner stream, `[B, P, H, W]`. What a scan finds at an even place also serves the odd ones."""
        assert self.inner is not None
        low = self.shrink(h, scan)  # whatever the place, the scan notes h
        if scan is None:
            return self.grow(self.inner(low, features))[..., : h.shape[2], : h.shape[3]]  # type: ignore[no-any-return]
        i, j = scan.row, scan.column
        if i % 2 == 0 and j % 2 == 0:
            scan.keep(self.grow, self.grow(self.inner(low, features, scan.half())))
        return scan.kept(self.grow, h.shape[3])
