"""GPT: a decoder-only transformer over tokens, or over the pixels of an image in raster order.

Paper: Radford, Wu, Child, Luan, Amodei and Sutskever, "Language Models are Unsupervised Multitask Learners",
OpenAI 2019, https://openai.com/index/better-language-models

Over pixels: Chen and others, "Generative Pretraining from Pixels", ICML 2020. Differences, each from the paper that
brought it: rotary positions (Su and others 2021, arXiv:2104.09864), RMSNorm without gains before every layer (Zhang and
Sennrich 2019, arXiv:1910.07467), normalised queries and keys (Henry and others 2020, arXiv:2010.04245), squared ReLU
(So and others 2021, arXiv:2109.08668), projections back to the residual stream that start at zero, and Muon (Jordan and
others 2024) for the blocks' matrices beside AdamW for the rest. Over images, every position also gets embeddings of its
place and of the three nearest pixels in the row above the pixel that it predicts, and close levels start with similar
embeddings. Samples are drawn with cached keys and values.

Shapes: B examples, T tokens, V levels, D width, N heads, K = D / N. An image `[C, H, W]` is read row by row, pixel by
pixel, its colours together: T = H W C. Unit: nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim import AdamW, Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.optim import Muon, Together
from benchmark.spec import (
    BadInput,
    Batch,
    DataSpec,
    Likelihood,
    NonNegative,
    Sampler,
    Share,
    Size,
    State,
    TokenLikelihood,
    Watched,
)


def norm(x: Tensor) -> Tensor:
    """x / rms(x) over the last axis."""
    y: Tensor = Normalised.apply(x) if written_out(x) else F.rms_norm(x, x.shape[-1:])
    return y


def rotary_table(positions: int, width: int) -> Tensor:
    """cos and sin of position times frequency, `[T, 1, K/2, 2]` (Su and others 2021, eq. 15)."""
    frequency = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.outer(torch.arange(positions).float(), frequency)
    return torch.stack([angle.cos(), angle.sin()], -1)[:, None]


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turns neighbours (a, b) of `x` `[B, T, N, K]` by the angles of `table` `[T, 1, K/2, 2]`: as a + ib (eq. 34)."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # bfloat16 has no complex numbers
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.view_as_complex(table.type_as(x))
    return torch.view_as_real(turned).flatten(-2)


# The same on a CPU in full precision ------------------------------------------------------------------------------
#
# Time goes into memory there. What lies between two products is computed in place, and for so many rows at a time that
# they stay in the cache; gradients are written out, so that they can be too.

ROWS = 768  # positions at a time


def written_out(x: Tensor) -> bool:
    """Whether the functions below stand in for torch's own operations."""
    return x.is_cpu and not torch.is_autocast_enabled("cpu")


def inverse_rms(x: Tensor) -> Tensor:
    """1 / rms(x) over the last axis, `[..., 1]`."""
    square: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    return square.div_(x.shape[-1]).add_(torch.finfo(x.dtype).eps).rsqrt_()


def through_norm_(dy: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Makes the gradient of x from that of y = x scale, scale = 1 / rms(x): (dy - y mean(y dy)) scale, in place."""
    mean: Tensor = torch.linalg.vecdot(y, dy.mul_(scale)).unsqueeze(-1)
    return dy.addcmul_(y, mean, value=-1 / y.shape[-1])


def turn_(x: Tensor, by: Tensor) -> None:
    """Multiplies neighbours (a, b) of `x` `[b, T, 2, N, K]`, as numbers a + ib, by `by` `[T, 1, 1, K/2]`, in place."""
    torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)).mul_(by)


class Normalised(torch.autograd.Function):
    """y = x / rms(x) for `x` `[..., D]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = inverse_rms(x)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return through_norm_(dy.clone(), *ctx.saved_tensors)


class Projected(torch.autograd.Function):
    """Queries and keys of norm(x), normalised and turned, and values: `[B, T, N, K]` each, for `weight` `[3 D, D]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, table: Tensor, heads: int) -> tuple[Tensor, ...]:
        B, T, D = x.shape
        turn = torch.view_as_complex(table.type_as(x))[:, None]
        y, scales = x.new_empty(B, T, 3, heads, D // heads), []
        examples = max(1, ROWS // T)
        for x_, y_ in zip(x.split(examples), y.split(examples), strict=True):
            scale = inverse_rms(x_)
            torch.mm((x_ * scale).view(-1, D), weight.T, out=y_.view(-1, 3 * D))
            qk = y_[:, :, :2]
            scale_qk = inverse_rms(qk)
            turn_(qk.mul_(scale_qk), turn)
            scales += [scale, scale_qk]
        ctx.save_for_backward(x, y, weight, turn, *scales)
        return y.unbind(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, turn, *scales = ctx.saved_tensors
        D, back = x.shape[2], turn.conj().resolve_conj()
        dx, dweight = torch.empty_like(x), torch.zeros_like(weight.T)
        examples = max(1, ROWS // x.shape[1])
        parts = (each.split(examples) for each in (x, y, dx, *gradients))
        for x_, y_, dx_, *dy_ in zip(*parts, strict=True):
            scale, scale_qk, *scales = scales
            dy = torch.stack(dy_, 2)
            turn_(through_norm_(dy[:, :, :2], y_[:, :, :2], scale_qk), back)
            rows, x_ = dy.view(-1, 3 * D), x_ * scale
            dweight.addmm_(x_.view(-1, D).T, rows)
            torch.mm(rows, weight, out=dx_.view(-1, D))
            through_norm_(dx_, x_, scale)
        return dx, dweight.T, None, None


class Transformed(torch.autograd.Function):
    """max(norm(x) Uᵀ, 0)² Dᵀ for matrices U = `up` `[4 D, D]` and D = `down` `[D, 4 D]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        y, saved = torch.empty_like(x), []
        for x_, y_ in zip(x.view(-1, len(down)).split(ROWS), y.view(-1, len(down)).split(ROWS), strict=True):
            scale = inverse_rms(x_)
            h = torch.mm(x_ * scale, up.T).relu_()
            torch.mm(h.square(), down.T, out=y_)
            saved += [scale, h]
        ctx.save_for_backward(x, up, down, *saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, up, down, *saved = ctx.saved_tensors
        dx, dup, ddown = torch.empty_like(x), torch.zeros_like(down), torch.zeros_like(down)
        parts = (each.reshape(-1, len(down)).split(ROWS) for each in (x, dx, dy))
        for x_, dx_, dy_ in zip(*parts, strict=True):
            scale, h, *saved = saved
            ddown.addmm_(dy_.T, h.square())
            dh, x_ = torch.mm(2 * dy_, down).mul_(h), x_ * scale
            dup.addmm_(x_.T, dh)
            torch.mm(dh, up, out=dx_)
            through_norm_(dx_, x_, scale)
        return dx, dup.T, ddown


def smooth_embedding(levels: int, width: int) -> nn.Embedding:
    """Random Fourier features of the level (Rahimi and Recht 2007): close levels start with similar vectors.

    The last row, of the begin token, is apart.
    """
    table = nn.Embedding(levels + 1, width)
    angle = torch.outer(torch.linspace(0, 2 * math.pi, levels), torch.randn(width)) + 2 * math.pi * torch.rand(width)
    table.weight.data[:levels] = math.sqrt(2) * angle.cos()  # [V, D], of unit variance
    return table


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.projections = nn.Parameter(torch.empty(3, width, width).uniform_(-1, 1) / math.sqrt(width))  # q, k, v
        self.mix = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.dropout = dropout
        nn.init.zeros_(self.mix.weight)  # a block starts as the identity
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, table: Tensor, cache: Tensor | None, start: int) -> Tensor:
        x = x + F.dropout(self.attend(x, table, cache, start), self.dropout, self.training)
        return x + F.dropout(self.transform(x), self.dropout, self.training)

    def transform(self, x: Tensor) -> Tensor:
        """What each position makes of itself, `[B, T, D]`."""
        if written_out(x):
            fast: Tensor = Transformed.apply(x, self.up.weight, self.down.weight)
            return fast
        y: Tensor = self.down(F.relu(self.up(norm(x))).square())
        return y

    def project(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[B, N, T, K]` each."""
        weight = self.projections.flatten(0, 1)
        if written_out(x):
            q, k, v = Projected.apply(x, weight, table, self.heads)
        else:
            q, k, v = F.linear(norm(x), weight).unflatten(-1, (3, self.heads, -1)).unbind(2)
            q, k = rotate(norm(q), table), rotate(norm(k), table)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def attend(self, x: Tensor, table: Tensor, cache: Tensor | None, start: int) -> Tensor:
        """What each position takes from those up to its own, `[B, T, D]`."""
        q, k, v = self.project(x, table)
        if cache is not None:  # one new position, all before it are known
            cache[:, :, :, start : start + 1] = torch.stack([k, v])
            k, v = cache[:, :, :, : start + 1]
        # On a CPU attention stays in float32: the backward pass of its bfloat16 kernel is several times slower.
        q, k, v = (part.to(self.projections.dtype) for part in (q, k, v))
        with torch.autocast("cpu", enabled=False):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        mixed: Tensor = self.mix(y.transpose(1, 2).flatten(2))
        return mixed


class GPT(GenerativeModel, Likelihood, TokenLikelihood, Watched):
    """Each token's levels under a softmax that sees every token before it; the first follows a begin token."""

    blocks: Sequence[Block]
    table: Tensor

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 4,
        heads: Size = 4,
        width: Size = 192,  # D, an even multiple of heads
        dropout: Share = 0.0,  # on what blocks and embeddings add to the residual stream
        muon_learning_rate: NonNegative = 0.02,  # of the blocks' matrices
        learning_rate: NonNegative = 3e-3,  # of embeddings and head
        weight_decay: NonNegative = 0.0,  # of the blocks' matrices
    ) -> None:
        super().__init__(spec)
        if width % (2 * heads):
            raise BadInput(
                f"gpt: width={width} is not an even multiple of heads={heads}; choose a multiple of {2 * heads}"
            )
        self.muon_learning_rate, self.learning_rate, self.weight_decay = muon_learning_rate, learning_rate, weight_decay
        self.begin = spec.levels  # the token before the first
        if spec.structure == "grid":
            colours, _, columns = spec.shape
            row = columns * colours
            self.lags = [lag for lag in (row + colours, row, row - colours) if lag > 0]  # back to the row above
            self.token = smooth_embedding(spec.levels, width)
            self.above = nn.ModuleList(smooth_embedding(spec.levels, width) for _ in self.lags)
            self.place = nn.Embedding(spec.dims, width)
        else:
            self.token = nn.Embedding(spec.levels + 1, width)
            self.lags = []
        self.lag = max(self.lags, default=1)  # how far back the furthest token lies that a position is given
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
            Block(width, heads, dropout) for _ in range(layers)
        )
        self.dropout = dropout
        self.head = nn.Linear(width, spec.levels)
        self.register_buffer("table", rotary_table(spec.dims, width // heads), persistent=False)

    # The model: p(x) = Π p(x_t | x_<t) ------------------------------------------------------------------------------

    def embed(self, stream: Tensor, start: int) -> Tensor:
        """What T positions from `start` on are given, `[B, T, D]`.

        `stream` `[B, lag + T - 1]` begins `lag` tokens before the first that they predict and ends before the last, so
        that nothing at a position can know its own token. At an edge of the image the raster's neighbours stand in.
        """
        x: Tensor = self.token(stream[:, self.lag - 1 :])
        if self.spec.structure == "grid":
            T = x.shape[1]
            x = x + self.place.weight[start : start + T]
            for above, lag in zip(self.above, self.lags, strict=True):
                x = x + above(stream[:, self.lag - lag : self.lag - lag + T])
        return F.dropout(norm(x), self.dropout, self.training)

    def forward(self, stream: Tensor, start: int = 0, caches: list[Tensor] | None = None) -> Tensor:
        """Logits `[B, T, V]` of the tokens from `start` on, each from those before it."""
        x = self.embed(stream, start)
        table = self.table[start : start + x.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, table, caches[i] if caches else None, start)
        logits: Tensor = self.head(norm(x))
        return logits

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        if self.spec.structure == "grid":
            x = x.movedim(1, -1).flatten(1)  # [B, C, H, W] → [B, H W C]
        if x.shape[1] > self.spec.dims:
            raise BadInput(
                f"gpt: {x.shape[1]} tokens given, context is {self.spec.dims}; score windows or raise context"
            )
        x = x.long()
        stream = F.pad(x, (self.lag, 0), value=self.begin)[:, :-1]
        logits = self(stream).float()  # [B, T, V]
        return -F.cross_entropy(logits.flatten(0, 1), x.flatten(), reduction="none").view_as(x)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.token_log_prob(x).sum(1)

    def signs(self, x: Tensor) -> dict[str, float]:
        """The largest logits of attention and of the softmax over levels: both grow before a transformer diverges
        (Wortsman and others, "Small-scale proxies for large-scale Transformer training instabilities", 2023)."""
        x = x.movedim(1, -1).flatten(1) if self.spec.structure == "grid" else x
        y = self.embed(F.pad(x, (self.lag, 0), value=self.begin)[:, :-1], 0)
        table, largest = self.table[: y.shape[1]], 0.0
        for block in self.blocks:
            q, k, _ = block.project(y, table)
            largest = max(largest, float((q @ k.transpose(2, 3)).abs().max()) / math.sqrt(q.shape[3]))
            y = block(y, table, None, 0)
        return {"attention_logit": largest, "output_logit": float(self.head(norm(y)).abs().max())}

    # Sampling -------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", self.spec.dims)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Token after token, keys and values of earlier positions kept: one position a step."""
        T, D = self.spec.dims, self.token.embedding_dim
        stream = torch.full((n, self.lag + T), self.begin, device=self.device)
        caches = [self.head.weight.new_empty(2, n, block.heads, T, D // block.heads) for block in self.blocks]
        for t in range(T):
            logits = self(stream[:, t : t + self.lag], t, caches)[:, -1].float()
            stream[:, t + self.lag] = torch.multinomial(logits.softmax(1), 1).squeeze(1)
        x = stream[:, self.lag :]
        if self.spec.structure == "grid":
            C, H, W = self.spec.shape
            x = x.view(n, H, W, C).movedim(-1, 1)
        return x.contiguous()

    # Learning -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:  # type: ignore[override]
        return {"loss": -self.token_log_prob(batch.x).mean()}  # nats a token

    def configure_optimizers(self) -> Optimizer:
        matrices = [p for block in self.blocks for p in block.parameters()]
        rest = [p for name, p in self.named_parameters() if not name.startswith("blocks.")]
        return Together(
            Muon(matrices, lr=self.muon_learning_rate, weight_decay=self.weight_decay),
            AdamW(rest, lr=self.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        )
