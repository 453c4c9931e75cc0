"""Transformer blocks: normalisation, rotary positions, attention with a cache, the layers of a residual stream.

Every layer normalises what it reads itself, so that on a CPU both are one kernel (`cpu_kernels`).

Shapes: B examples, T positions, D width, N heads, K = D / N.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.nn import cpu_kernels as cpu

Norm = Callable[[int], nn.Module]  # makes the normalisation of vectors of a width
Activation = Callable[[Tensor], Tensor]


def rms_norm(x: Tensor) -> Tensor:
    """x / rms(x) over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467, without gains)."""
    y: Tensor = cpu.Normalised.apply(x) if cpu.written_out(x) else F.rms_norm(x, x.shape[-1:])
    return y


class RMSNorm(nn.Module):
    """`rms_norm` as a layer; any width will do, since it learns nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x)


def relu2(x: Tensor) -> Tensor:
    """max(x, 0)² (So and others 2021, arXiv:2109.08668)."""
    return F.relu(x).square()


NORMS: dict[str, Norm] = {"rms": RMSNorm, "layer": nn.LayerNorm}
ACTIVATIONS: dict[str, Activation] = {"relu2": relu2, "gelu": F.gelu}


def check_heads(width: int, heads: int) -> None:
    """Raises `ValueError` where heads do not share the width evenly, with pairs of numbers for rotary positions."""
    if width % (2 * heads):
        raise ValueError(f"width={width} is not an even multiple of heads={heads}; choose a multiple of {2 * heads}")


def rotary_table(positions: int, width: int) -> Tensor:
    """cos and sin of position times frequency, `[T, 1, K/2, 2]` (Su and others 2021, arXiv:2104.09864, eq. 15)."""
    frequency = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.outer(torch.arange(positions).float(), frequency)
    return torch.stack([angle.cos(), angle.sin()], -1)[:, None]


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turns neighbours (a, b) of `x` `[B, T, N, K]` by the angles of `table` `[T, 1, K/2, 2]`: as a + ib (eq. 34)."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # bfloat16 has no complex numbers
    if torch.compiler.is_compiling():  # which fuses real numbers alone
        (a, b), (cos, sin) = x.unflatten(-1, (-1, 2)).unbind(-1), table.type_as(x).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.view_as_complex(table.type_as(x))
    return torch.view_as_real(turned).flatten(-2)


class Cache:
    """Keys and values of the positions so far, so that sampling computes each once."""

    def __init__(self, memory: Tensor) -> None:
        """`memory` `[2, B, N, T, K]` has room for T positions; its content does not matter."""
        self.memory, self.length = memory, 0

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds `k` and `v` `[B, N, t, K]` of the next t positions; all so far, `[B, N, length, K]` each."""
        start, self.length = self.length, self.length + k.shape[2]
        self.memory[:, :, :, start : self.length] = torch.stack([k, v])
        k, v = self.memory[:, :, :, : self.length]
        return k, v


class Read(NamedTuple):
    """Keys and values `[B, N, S, K]` of another sequence, and which of its positions are seen, `[B, 1, 1, S]` bool."""

    keys: Tensor
    values: Tensor
    seen: Tensor | None = None  # `None`: all


def attended(q: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype, mask: Tensor | None, causal: bool) -> Tensor:
    """Means of values under softmax(Q Kᵀ / √K) (Vaswani and others 2017, eq. 1), heads side by side: `[B, T, D]` of
    queries `[B, N, T, K]`. Each position sees what `mask` says, else those up to its own or all."""
    # On a CPU attention stays in float32: the backward pass of its bfloat16 kernel is several times slower.
    q, k, v = (part.to(dtype) for part in (q, k, v))
    with torch.autocast("cpu", enabled=False):
        if mask is not None:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return y.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Scaled dot-product self-attention of several heads (Vaswani and others 2017, eq. 1).

    It reads what `norm` makes of its input: at each position those up to its own, or all unless `causal`. Queries and
    keys are divided by their rms if `normalised` (Henry and others 2020, arXiv:2010.04245).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        norm: Norm = RMSNorm,
        normalised: bool = True,
        bias: bool = False,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.normalised = heads, causal, normalised
        self.projections = nn.Parameter(torch.empty(3, width, width).uniform_(-1, 1) / math.sqrt(width))  # q, k, v
        self.bias = nn.Parameter(torch.zeros(3 * width)) if bias else None
        self.mix = nn.Linear(width, width, bias=bias)
        self.norm = norm(width)
        self.fused = norm is RMSNorm and normalised and not bias  # a kernel is written for it

    def project(self, x: Tensor, rotary: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[B, N, T, K]` each; `rotary` `[T, 1, K/2, 2]` turns the first two."""
        weight = self.projections.flatten(0, 1)
        if self.fused and rotary is not None and cpu.written_out(x):
            q, k, v = cpu.Projected.apply(x, weight, rotary, self.heads)
        else:
            q, k, v = F.linear(self.norm(x), weight, self.bias).unflatten(-1, (3, self.heads, -1)).unbind(2)
            if self.normalised:
                q, k = rms_norm(q), rms_norm(k)
            if rotary is not None:
                q, k = rotate(q, rotary), rotate(k, rotary)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def cache(self, n: int, positions: int) -> Cache:
        """An empty cache for `n` examples."""
        width = self.mix.in_features
        return Cache(self.projections.new_empty(2, n, self.heads, positions, width // self.heads))

    def forward(
        self, x: Tensor, rotary: Tensor | None = None, cache: Cache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """What each position takes from the others, `[B, T, D]`.

        With a cache that holds some, `x` is the one position after them. `mask` `[B, 1, T, all]` bool says which each
        position sees, in place of those up to its own or all.
        """
        if cache is not None and cache.length and x.shape[1] != 1:
            raise ValueError(f"a cache takes one position at a time, not {x.shape[1]}")
        q, k, v = self.project(x, rotary)
        causal = self.causal and not (cache is not None and cache.length)  # a new position may see all that are known
        if cache is not None:
            k, v = cache.extended(k, v)
        mixed: Tensor = self.mix(attended(q, k, v, self.projections.dtype, mask, causal))
        return mixed


class CrossAttention(nn.Module):
    """Attention of each position over another sequence, of which it sees all that there is to see (Vaswani and others
    2017, section 3.2.3). Nothing turns with positions; queries and keys are divided by their rms."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projections = nn.Parameter(torch.empty(3, width, width).uniform_(-1, 1) / math.sqrt(width))  # q, k, v
        self.mix = nn.Linear(width, width, bias=False)

    def read(self, memory: Tensor, seen: Tensor | None = None) -> Read:
        """Keys and values of a sequence `[B, S, D]`, of which the positions `seen` `[B, S]` count."""
        k, v = F.linear(memory, self.projections[1:].flatten(0, 1)).unflatten(-1, (2, self.heads, -1)).unbind(2)
        mask = None if seen is None else seen[:, None, None]
        return Read(rms_norm(k).transpose(1, 2), v.transpose(1, 2), mask)

    def forward(self, x: Tensor, read: Read) -> Tensor:
        """What each position of `[B, T, D]` takes from what was read, `[B, T, D]`."""
        q = F.linear(rms_norm(x), self.projections[0]).unflatten(-1, (self.heads, -1))
        dtype = self.projections.dtype
        y = attended(rms_norm(q).transpose(1, 2), read.keys, read.values, dtype, read.seen, causal=False)
        mixed: Tensor = self.mix(y)
        return mixed


class FeedForward(nn.Module):
    """Two matrices with four times the width between them, at each position alone, over what `norm` makes of it."""

    def __init__(self, width: int, norm: Norm = RMSNorm, activation: Activation = relu2, bias: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=bias)
        self.down = nn.Linear(4 * width, width, bias=bias)
        self.norm, self.activation = norm(width), activation
        self.fused = norm is RMSNorm and activation is relu2 and not bias  # a kernel is written for it

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, D]` to `[B, T, D]`."""
        if self.fused and cpu.written_out(x):
            fast: Tensor = cpu.Transformed.apply(x, self.up.weight, self.down.weight)
            return fast
        y: Tensor = self.down(self.activation(self.up(self.norm(x))))
        return y


class Block(nn.Module):
    """A residual step of attention, one of attention over another sequence where it is `crossed`, and one of a
    feed-forward layer. It starts as the identity."""

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        norm: Norm = RMSNorm,
        activation: Activation = relu2,
        normalised: bool = True,
        bias: bool = False,
        causal: bool = True,
        crossed: bool = False,
    ) -> None:
        """`dropout` is of what all steps add; the rest as in `Attention` and `FeedForward`."""
        super().__init__()
        self.attention = Attention(width, heads, norm, normalised, bias, causal)
        self.cross = CrossAttention(width, heads) if crossed else None
        self.feedforward = FeedForward(width, norm, activation, bias)
        self.dropout = dropout
        for last in self.last():
            for p in last.parameters():
                nn.init.zeros_(p)

    def last(self) -> list[nn.Linear]:
        """The layers whose results are added to the residual stream."""
        crossed = [] if self.cross is None else [self.cross.mix]
        return [self.attention.mix, *crossed, self.feedforward.down]

    def forward(
        self,
        x: Tensor,
        rotary: Tensor | None = None,
        cache: Cache | None = None,
        mask: Tensor | None = None,
        read: Read | None = None,
    ) -> Tensor:
        """`[B, T, D]` to `[B, T, D]`; `rotary`, `cache` and `mask` as in `Attention`, and what a crossed one reads."""
        x = x + F.dropout(self.attention(x, rotary, cache, mask), self.dropout, self.training)
        if self.cross is not None and read is not None:
            x = x + F.dropout(self.cross(x, read), self.dropout, self.training)
        return x + F.dropout(self.feedforward(x), self.dropout, self.training)


def draw_normal(net: nn.Module, std: float = 0.02) -> None:
    """Draws the weights of a network over blocks anew, as GPT-2's: N(0, std²), and biases 0; gains stay.

    Where a block's matrices add to the residual stream, std is smaller by the square root of how many do (Radford and
    others 2019, section 2.3).
    """
    blocks = [module for module in net.modules() if isinstance(module, Block)]
    last = {id(layer.weight) for block in blocks for layer in block.last()}
    for name, p in net.named_parameters():
        if p.ndim >= 2:
            nn.init.normal_(p, std=std / math.sqrt(len(last)) if id(p) in last else std)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
