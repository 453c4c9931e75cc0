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

import torch
import torch.nn.functional as F
from torch import Tensor, nn
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
    return F.rms_norm(x, x.shape[-1:])


def rotary_table(positions: int, width: int) -> Tensor:
    """cos and sin of position times frequency, `[2, T, K/2]` (Su and others 2021, eq. 15)."""
    frequency = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.outer(torch.arange(positions).float(), frequency)
    return torch.stack([angle.cos(), angle.sin()])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turns pairs of coordinates of `x` `[B, N, T, K]` by the angles of `table` `[2, T, K/2]` (eq. 34)."""
    cos, sin = table.type_as(x)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


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
        y = self.down(F.relu(self.up(norm(x))).square())
        return x + F.dropout(y, self.dropout, self.training)

    def project(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[B, N, T, K]` each."""
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        return rotate(norm(q), table), rotate(norm(k), table), v

    def attend(self, x: Tensor, table: Tensor, cache: Tensor | None, start: int) -> Tensor:
        q, k, v = self.project(x, table)
        if cache is not None:  # one new position, all before it are known
            cache[:, :, :, start : start + 1] = torch.stack([k, v])
            k, v = cache[:, :, :, : start + 1]
        # On a CPU attention stays in float32: the backward pass of its bfloat16 kernel is several times slower.
        q, k, v = (part.to(self.value.weight.dtype) for part in (q, k, v))
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
        table = self.table[:, start : start + x.shape[1]]
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
        return -F.cross_entropy(logits.transpose(1, 2), x, reduction="none")

    def log_prob(self, x: Tensor) -> Tensor:
        return self.token_log_prob(x).sum(1)

    def signs(self, x: Tensor) -> dict[str, float]:
        """The largest logits of attention and of the softmax over levels: both grow before a transformer diverges
        (Wortsman and others, "Small-scale proxies for large-scale Transformer training instabilities", 2023)."""
        x = x.movedim(1, -1).flatten(1) if self.spec.modality == "image" else x
        y = self.embed(F.pad(x, (self.lag, 0), value=self.begin)[:, :-1], 0)
        table, largest = self.table[:, : y.shape[1]], 0.0
        for block in self.blocks:
            q, k, _ = block.project(norm(y), table)
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
