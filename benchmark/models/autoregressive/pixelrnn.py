"""PixelRNN, the diagonal BiLSTM: pixel after pixel, each from two recurrent networks that run along diagonals.

Paper: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016, arXiv:1601.06759

Differences: AdamW; dropout as an option; a plane of ones beside the pixels tells the border from a grey pixel. Maps
have an empty column on the right: in its own row, only what stands to the right of a pixel knows it (mask A), so that
without this column most of a row would not see the last pixel of the row above. Sampling keeps all features: the
network from the left moves with the pixel, the one from the right runs over a row once it is drawn.

Shapes: B images, C colours, H rows, W columns, L levels, P channels, N = P / 2 units of an LSTM, S = W + H - 1 columns
of a skewed map, in which every row stands one column further to the right than the row above. Unit: nats an image.
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


class PixelRNN(GenerativeModel, Likelihood):
    """Each pixel's levels under a softmax that sees all that comes before it, in every layer."""

    layers: Sequence[DiagonalBiLSTM]

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 7,
        channels: Size = 32,  # P; half of them in an LSTM, there at least one for each colour
        first_kernel: Size = 7,  # odd; of the masked convolution over the pixels themselves
        dropout: Share = 0.0,
        learning_rate: NonNegative = 3e-3,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(spec)
        if first_kernel % 2 == 0:
            raise BadInput(f"pixelrnn: first_kernel={first_kernel} is even; use an odd size such as 7")
        colours = spec.shape[0]
        if channels < 2 * colours:
            raise BadInput(f"pixelrnn: channels={channels} cannot hold {colours} colours; use at least {2 * colours}")
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        pixels = torch.arange(-1, colours)  # the plane of ones is known before every colour
        wide, narrow = colour_of(channels, colours), colour_of(channels // 2, colours)
        self.first = MaskedConv2d(pixels, wide, first_kernel, strict=True)
        self.layers = nn.ModuleList(DiagonalBiLSTM(wide, narrow, dropout) for _ in range(layers))  # type: ignore[assignment]
        self.head = nn.Sequential(
            nn.ReLU(),
            ColourConv2d(wide, wide),
            nn.ReLU(),
            ColourConv2d(wide, colour_of(colours * spec.levels, colours)),
        )

    # The model: p(x) = Π p(x_i | x_<i), eq. 1 and 2, rows from the top, pixels from the left, colours in order --------

    def features(self, x: Tensor) -> Tensor:
        """Pixels `[B, C, h, w]` scaled to -1..1, behind a plane of ones: `[B, 1 + C, h, w]`."""
        return F.pad(x.to(self.dtype) * 2 / (self.spec.levels - 1) - 1, (0, 0, 0, 0, 1, 0), value=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, C, L, H, W]` of every value, each from those before it."""
        h = self.first(F.pad(self.features(x), (0, 1)))
        for layer in self.layers:
            h = layer(h)
        return self.logits(h[..., :-1])

    def logits(self, h: Tensor) -> Tensor:
        """`[B, P, H, W]` to `[B, C, L, H, W]`."""
        return self.head(h).unflatten(1, (self.spec.shape[0], self.spec.levels))  # type: ignore[no-any-return]

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
        """`forward` in the order of its dependencies: pixel by pixel from the left, then the row from the right."""
        C, H, W = self.spec.shape
        x = torch.zeros(n, C, H, W, dtype=torch.long, device=self.device)
        nothing = torch.zeros_like(self.features(x[:, :, :1, :1]))  # of the empty column
        scan = Scan(H, W + 1)
        rows = [Row(layer, n, W + 1) for layer in self.layers]

        def look(pixel: Tensor) -> Tensor:
            """Features `[n, P, 1, 1]` of the scan's place, whose pixel is given as far as it is known."""
            h: Tensor = self.first(pixel, scan)
            for row in rows:
                h = row.pixel(h, scan.column)
            return h

        for i, j in scan.places():
            if j < W:
                pixel = x[:, :, i : i + 1, j : j + 1]
                for c in range(C):
                    pixel[:, c, 0, 0] = draw(self.logits(look(self.features(pixel)))[:, c, :, 0, 0])
                self.first(self.features(pixel), scan)  # notes the last colour
            else:
                look(nothing)
                for row in rows:
                    row.end()
        return x

    # Learning -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.log_prob(batch.x).mean() / self.spec.dims}  # nats a dimension

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


# Private parts ------------------------------------------------------------------------------------------------------


class DiagonalBiLSTM(nn.Module):
    """h + f(h), two LSTMs over skewed maps: one step computes a diagonal of both at once (section 3.2, figure 3).

    The one from the right sees its own row's future, so its map is shifted down by a row before it is added.
    """

    def __init__(self, wide: Tensor, narrow: Tensor, dropout: float) -> None:
        super().__init__()
        N = self.units = len(narrow)
        gates = narrow.repeat(4)  # output, forget, input, content: each in the order of colours
        self.inputs = nn.ModuleList(ColourConv2d(wide, gates) for _ in range(2))  # input to state, 1x1, mask B
        self.state = nn.Parameter(torch.empty(2, 2 * N, 4 * N).uniform_(-1, 1) / (2 * N) ** 0.5)  # state to state, 2x1
        self.outward = ColourConv2d(narrow, wide)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, P, H, W]` before and after."""
        B, _, H, W = x.shape
        left, right = self.inputs
        inputs = torch.stack([skewed(left(x)), skewed(right(x).flip(3))])  # [2, B, 4N, H, S]
        inputs = inputs.permute(4, 0, 1, 3, 2).contiguous()  # [S, 2, B, H, 4N]
        h = c = self.state.new_zeros(2, B, H, self.units)
        columns = []
        for diagonal in inputs:
            h, c = self.step(diagonal, h, F.pad(h[:, :, :-1], (0, 0, 1, 0)), c, self.state)
            columns.append(h)
        left_map, right_map = unskewed(torch.stack(columns, 4).transpose(2, 3), W)  # [B, N, H, W] each
        return self.merged(x, left_map, F.pad(right_map.flip(3)[:, :, :-1], (0, 0, 1, 0)))

    @staticmethod
    def step(inputs: Tensor, h: Tensor, above: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """h and c of one diagonal `[2, B, H, N]` from those of the diagonal before it, in the same row and in the row
        `above` (eq. 3). `inputs` `[2, B, H, 4N]` are K^is * x, `state` `[2, 2N, 4N]` is K^ss; 2: of both directions."""
        read = torch.cat([h, above], 3).flatten(1, 2)  # [2, B H, 2N]
        o, f, i, g = (inputs + (read @ state).view_as(inputs)).chunk(4, dim=3)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def merged(self, x: Tensor, left: Tensor, above: Tensor) -> Tensor:
        """The residual step, from the map of the left and the shifted one of the right."""
        return x + self.outward(self.dropout(left + above))  # type: ignore[no-any-return]


def skewed(x: Tensor) -> Tensor:
    """Row i moved i columns to the right: `[..., H, W]` to `[..., H, W + H - 1]`, zeros around (figure 3, left)."""
    H, W = x.shape[-2:]
    # H zeros behind each row make it one longer than a row of the result: each then starts one column later.
    return F.pad(x, (0, H)).flatten(-2)[..., : H * (W + H - 1)].view(*x.shape[:-1], W + H - 1)


def unskewed(x: Tensor, width: int) -> Tensor:
    """The inverse of `skewed`: `[..., H, S]` to `[..., H, width]`."""
    H = x.shape[-2]
    return F.pad(x.flatten(-2), (0, H)).view(*x.shape[:-1], width + H)[..., :width]


class Row:
    """What sampling keeps of a layer: h `[1, n, W + 1, N]` of the row that is drawn and of the row above.

    A column of zeros stands where each direction begins.
    """

    def __init__(self, layer: DiagonalBiLSTM, n: int, width: int) -> None:
        self.layer = layer
        self.x = layer.state.new_zeros(n, layer.outward.out_channels, 1, width)  # what the layer reads
        self.left, self.left_above, self.cells, self.right_above = layer.state.new_zeros(
            4, 1, n, width + 1, layer.units
        )

    def pixel(self, x: Tensor, j: int) -> Tensor:
        """The layer's features `[n, P, 1, 1]` of column j, from its inputs there; asked again, it forgets the first."""
        layer, before, here = self.layer, slice(j, j + 1), slice(j + 1, j + 2)
        self.x[..., before] = x
        inputs = layer.inputs[0](x).permute(2, 0, 3, 1)  # [1, n, 1, 4N]
        state = self.left[:, :, before], self.left_above[:, :, here], self.cells[:, :, before]
        self.left[:, :, here], self.cells[:, :, here] = layer.step(inputs, *state, layer.state[:1])
        maps = (h.permute(1, 3, 0, 2) for h in (self.left[:, :, here], self.right_above[:, :, before]))
        return layer.merged(x, *maps)

    def end(self) -> None:
        """The row is drawn: runs over it from the right, and goes to the next."""
        inputs = self.layer.inputs[1](self.x).permute(2, 0, 3, 1)  # [1, n, W, 4N]
        h = c = torch.zeros_like(self.right_above[:, :, :1])
        for j in reversed(range(inputs.shape[2])):
            above = self.right_above[:, :, j : j + 1]
            h, c = self.layer.step(inputs[:, :, j : j + 1], h, above, c, self.layer.state[1:])
            self.right_above[:, :, j : j + 1] = h
        self.left, self.left_above = self.left_above, self.left
