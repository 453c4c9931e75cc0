"""Masked layers: networks in which an output reads only what comes before it in a fixed order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.nn.layers import zeroed


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


def even_degrees(units: int, inputs: int) -> Tensor:
    """Degrees `[units]` of hidden units in a masked network over D ordered inputs, spread evenly over 1 to D - 1.

    A unit of degree m reads the first m inputs. No unit is dead (degree 0 reads nothing, degree D feeds nothing), and
    the last is D - 1, so that an input is lost to nobody, however few the units.
    """
    return torch.linspace(max(inputs - 1, 1), 1, units).round().long().flip(0)


class MaskedLinear(nn.Linear):
    """A linear layer in which an output of degree m reads inputs of degrees up to m, or below m if `strict`."""

    mask: Tensor

    def __init__(self, source: Tensor, target: Tensor, strict: bool = False) -> None:
        """Degrees of what is read, `source` `[in]`, and made, `target` `[out]`."""
        super().__init__(len(source), len(target))
        mask = source < target[:, None] if strict else source <= target[:, None]
        self.register_buffer("mask", mask.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def masked_mlp(order: Tensor, outputs: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    """[B, D] to [B, outputs D], `outputs` numbers for each of D in turn, from those before it; zero at first.

    `order` [D] says at which turn, 0 to D - 1, each is read. Germain and others, "MADE: Masked Autoencoder for
    Distribution Estimation", ICML 2015, arXiv:1502.03509, with `depth` hidden layers of `width` units.
    """
    turns = order + 1
    degrees = [turns, *[even_degrees(width, len(order))] * depth]
    layers: list[nn.Module] = []
    for source, target in itertools.pairwise(degrees):
        layers += [MaskedLinear(source, target), nn.SiLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, zeroed(MaskedLinear(degrees[-1], turns.repeat(outputs), strict=True)))


class Scan:
    """A raster scan under way: the place where it stands, and what each layer has been given so far.

    With it, a network over whole images runs pixel by pixel, or row by row, and computes each feature once.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.row = self.column = 0
        self.seen: dict[nn.Module, Tensor] = {}
        self._half: Scan | None = None

    def places(self) -> Iterator[tuple[int, int]]:
        """Every row and column in raster order; the scan stands there meanwhile."""
        for place in itertools.product(range(self.height), range(self.width)):
            self.row, self.column = place
            yield place

    def window(self, layer: nn.Module, x: Tensor, above: int, left: int, right: int) -> Tensor:
        """`x` `[n, P, 1, w]`, which stands at the present place, with so many rows and columns around it.

        `[n, P, above + 1, left + w + right]`: what `layer` was given before, and zeros beyond the border or where
        nothing is known yet. A row as a whole (w = width) stands at column 0.
        """
        n, channels, _, w = x.shape
        if layer not in self.seen:
            self.seen[layer] = x.new_zeros(n, channels, above + self.height, left + self.width + right)
        canvas, i, j = self.seen[layer], self.row, self.column
        canvas[:, :, above + i : above + i + 1, left + j : left + j + w] = x
        return canvas[:, :, i : above + i + 1, j : left + j + w + right]

    def keep(self, layer: nn.Module, patch: Tensor) -> None:
        """Notes what `layer` made from the present place on, `[n, P, 2, w]`: for this row and the next."""
        n, channels, rows, w = patch.shape
        if layer not in self.seen:
            self.seen[layer] = patch.new_zeros(n, channels, self.height + 1, self.width + 1)
        self.seen[layer][:, :, self.row : self.row + rows, self.column : self.column + w] = patch

    def kept(self, layer: nn.Module, w: int) -> Tensor:
        """What `keep` noted of `w` columns from the present place on, `[n, P, 1, w]`."""
        return self.seen[layer][:, :, self.row : self.row + 1, self.column : self.column + w]

    def half(self) -> Scan:
        """The scan of the image at half the size, at the place that holds this one's; always the same object."""
        if self._half is None:
            self._half = Scan(-(-self.height // 2), -(-self.width // 2))
        self._half.row, self._half.column = self.row // 2, self.column // 2
        return self._half


class CausalConv2d(nn.Conv2d):
    """A convolution over a rectangle that ends at the pixel's own row, `right` columns to the right of it.

    The image keeps its size, or is halved by `stride` 2: then outputs stand at even rows and columns.
    """

    def __init__(self, inputs: int, outputs: int, rows: int, columns: int, right: int = 0, stride: int = 1) -> None:
        super().__init__(inputs, outputs, (rows, columns), stride)
        self.above, self.left, self.right = rows - 1, columns - 1 - right, right

    def kernel(self) -> Tensor:
        return self.weight

    def forward(self, x: Tensor, scan: Scan | None = None) -> Tensor:
        """`[B, in, H, W]` to `[B, out, H, W]`; with a scan, of one pixel or one row at its place."""
        if scan is None:
            x = F.pad(x, (self.left, self.right, self.above, 0))
        else:
            x = scan.window(self, x, self.above, self.left, self.right)
        return F.conv2d(x, self.kernel(), self.bias, self.stride)


class MaskedConv2d(CausalConv2d):
    """The masked convolution of PixelRNN and PixelCNN, cropped to the rows that its mask leaves.

    An output reads what comes before its pixel in raster order within a square of `size` (odd) pixels, and at the pixel
    itself colours as in `ColourConv2d`: mask A if `strict`, else mask B.
    """

    mask: Tensor

    def __init__(self, source: Tensor, target: Tensor, size: int, strict: bool = False) -> None:
        """Colours of the channels read, `source` `[in]`, and made, `target` `[out]`."""
        reach = size // 2
        super().__init__(len(source), len(target), reach + 1, size, right=reach)
        mask = torch.ones_like(self.weight)  # [out, in, reach + 1, size]
        mask[:, :, -1, reach + 1 :] = 0.0
        mask[:, :, -1, reach] = (source < target[:, None] if strict else source <= target[:, None]).float()
        self.register_buffer("mask", mask, persistent=False)

    def kernel(self) -> Tensor:
        return self.weight * self.mask


def concat_elu(x: Tensor) -> Tensor:
    """elu of x and of -x (Shang and others 2016 have ReLU): `[B, P, ...]` to `[B, 2P, ...]`."""
    return F.elu(torch.cat([x, -x], 1))


class GatedResidual(nn.Module):
    """h + a ⊙ σ(b), two causal convolutions with dropout between them, as in PixelCNN++ (Salimans and others 2017).

    Where it has a `context`, that many further channels enter after the first of them. `conv(inputs, outputs)` makes
    both. It starts near the identity.
    """

    def __init__(self, conv: Callable[[int, int], CausalConv2d], channels: int, context: int, dropout: float) -> None:
        super().__init__()
        self.first = conv(2 * channels, channels)
        self.context = nn.Conv2d(2 * context, channels, 1) if context else None
        self.dropout = nn.Dropout(dropout)
        self.second = conv(2 * channels, 2 * channels)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, h: Tensor, context: Tensor | None = None, scan: Scan | None = None) -> Tensor:
        """`[B, P, H, W]` before and after; with a scan, of one pixel or one row at its place."""
        y = self.first(concat_elu(h), scan)
        if self.context is not None and context is not None:
            y = y + self.context(concat_elu(context))
        a, b = self.second(self.dropout(concat_elu(y)), scan).chunk(2, dim=1)
        return h + a * b.sigmoid()  # type: ignore[no-any-return]
