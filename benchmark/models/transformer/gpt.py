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
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim import AdamW, Muon, Optimizer

from benchmark.models.base import GenerativeModel
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


def inverse_rms(x: Tensor) -> Tensor:
    """1 / rms(x) over the last axis, `[..., 1]`."""
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
    return mean_square.add_(torch.finfo(x.dtype).eps).rsqrt_()


class RMSNorm(torch.autograd.Function):
    """y = x / rms(x) over the last axis, in fewer passes over memory than torch takes on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = inverse_rms(x)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        """(dy - y mean(y dy)) / rms(x)"""
        y, scale = ctx.saved_tensors
        dx = dy * scale
        return dx.addcmul_(y, torch.linalg.vecdot(y, dx).unsqueeze(-1), value=-1 / y.shape[-1])


class NormalisedAndTurned(torch.autograd.Function):
    """The first `heads` of `x` `[B, T, H, K]` divided by their rms and turned by the angles of `table`, in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, heads: int) -> Tensor:
        y = x.unflatten(-1, (3 * heads, -1))[:, :, : 2 * heads]
        scale = inverse_rms(y)
        rotate_(y.mul_(scale), table)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x, table, scale)
        ctx.heads = heads
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        """As for `RMSNorm`, then turned back: y, turned, has the same product with dy, turned."""
        x, table, scale = ctx.saved_tensors
        dx = dy.clone()
        y, turned = (part.unflatten(-1, (3 * ctx.heads, -1))[:, :, : 2 * ctx.heads] for part in (x, dx))
        turned.mul_(scale)
        turned.addcmul_(y, torch.linalg.vecdot(y, turned).unsqueeze(-1), value=-1 / y.shape[-1])
        rotate_(turned, table, back=True)
        return dx, None, None


class SquaredReLU(torch.autograd.Function):
    """y = max(x, 0)² in place: x is the largest tensor of a block."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x.relu_().square_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        """2 max(x, 0) dy"""
        (y,) = ctx.saved_tensors
        return y.sqrt().mul_(dy).mul_(2)


def norm(x: Tensor) -> Tensor:
    """x / rms(x) over the last axis."""
    y: Tensor = F.rms_norm(x, x.shape[-1:]) if x.is_cuda else RMSNorm.apply(x)
    return y


def rotary_table(positions: int, width: int) -> Tensor:
    """cos and sin of position times frequency, `[T, 1, K/2, 2]` (Su and others 2021, eq. 15)."""
    frequency = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.outer(torch.arange(positions).float(), frequency)
    return torch.stack([angle.cos(), angle.sin()], -1).unsqueeze(1)


def rotate_(x: Tensor, table: Tensor, back: bool = False) -> Tensor:
    """Turns neighbouring coordinates of `x` `[B, T, N, K]`, in place, by the angles of `table` `[T, 1, K/2, 2]`.

    A rotation of the plane is a product of complex numbers (eq. 34).
    """
    turn = torch.view_as_complex(table.type_as(x))
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(turn.conj() if back else turn)
    return x


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
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.dropout = dropout
        nn.init.zeros_(self.mix.weight)  # a block starts as the identity
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, table: Tensor, cache: Tensor | None, start: int) -> Tensor:
        x = x + F.dropout(self.attend(norm(x), table, cache, start), self.dropout, self.training)
        y = self.down(SquaredReLU.apply(self.up(norm(x))))
        return x + F.dropout(y, self.dropout, self.training)

    def project(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[B, T, N, K]` each, by one product.

        Coordinate i of a head turns with coordinate i + K/2: the rows of their matrices are put side by side.
        """
        q, k = (f.weight.unflatten(0, (self.heads, 2, -1)).transpose(1, 2) for f in (self.query, self.key))
        v = self.value.weight.unflatten(0, (self.heads, -1, 2))
        y = F.linear(x, torch.cat([q, k, v]).flatten(0, 2)).to(v.dtype)  # [B, T, 3 D]
        y = NormalisedAndTurned.apply(y, table, self.heads)
        q, k, v = y.unflatten(-1, (3, self.heads, -1)).unbind(2)
        return q, k, v

    def attend(self, x: Tensor, table: Tensor, cache: Tensor | None, start: int) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in self.project(x, table))  # [B, N, T, K]
        if cache is not None:  # one new position, all before it are known
            cache[:, :, :, start : start + 1] = torch.stack([k, v])
            k, v = cache[:, :, :, : start + 1]
        # On a CPU attention stays in float32: the backward pass of its bfloat16 kernel is several times slower.
        dtype = q.dtype if x.is_cpu or not torch.is_autocast_enabled(x.device.type) else torch.get_autocast_dtype(x.device.type)
        with torch.autocast(x.device.type, enabled=False):
            y = F.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype), is_causal=cache is None)
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
        if spec.modality == "image":
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
        if self.spec.modality == "image":
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
        if self.spec.modality == "image":
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
        x = x.movedim(1, -1).flatten(1) if self.spec.modality == "image" else x
        y = self.embed(F.pad(x, (self.lag, 0), value=self.begin)[:, :-1], 0)
        table, largest = self.table[: y.shape[1]], 0.0
        for block in self.blocks:
            q, k, _ = block.project(norm(y), table)
            largest = max(largest, float((q.transpose(1, 2) @ k.permute(0, 2, 3, 1)).abs().max()) / math.sqrt(q.shape[3]))
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
        if self.spec.modality == "image":
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


class Together(Optimizer):
    """Several optimisers as one: their groups and their state are its own, so schedules and checkpoints just work."""

    def __init__(self, *parts: Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.state = self.state
            part.param_groups = list(islice(groups, len(part.param_groups)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss
