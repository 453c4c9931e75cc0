"""Image GPT: a decoder-only transformer over the pixels of an image in raster order, or over small patches of them.

Paper: Chen and others, "Generative Pretraining from Pixels", ICML 2020

Differences: every level is a token, where the paper clusters colours into 512; no second training for classification.
Blocks are those of `gpt`: rotary positions, RMSNorm without gains before every layer, normalised queries and keys,
squared ReLU, projections back to the residual stream that start at zero, and Muon for the blocks' matrices beside AdamW
for the rest. Every position also gets embeddings of its place and of the three nearest tokens in the row above the one
that it predicts, and close levels start with similar embeddings. Samples are drawn with cached keys and values.

An image is read patch by patch, row after row. A token is as many of the patch's numbers as divide it evenly and have
at most 4,096 values together, read as the digits of one number: four binary pixels make a token of 16 values. The
likelihood is exact with any patch.

Shapes: B examples [B, C, H, W] of L levels, patches of P x P pixels, G tokens of S numbers in each, G S = C P²;
T = G H W / P² tokens of V = L^S values; D width. Unit: nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.distributions import LogSoftmaxAt
from benchmark.nn.optim import muon_in_blocks
from benchmark.nn.sampling import draw
from benchmark.nn.transformer import ACTIVATIONS, NORMS, Block, Cache, RMSNorm, check_heads, rotary_table
from benchmark.spec import BadInput, Batch, DataSpec, Diagnosable, Likelihood, NonNegative, Sampler, Share, Size

MOST_VALUES = 4096  # of a token


class ImageGPT(GenerativeModel, Likelihood, Diagnosable):
    """Each token's values under a softmax that sees every token before it; the first follows a begin token."""

    blocks: Sequence[Block]
    table: Tensor
    digits: Tensor

    fused = ("log_softmax_at",)

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 4,
        heads: Size = 4,
        width: Size = 192,  # D, an even multiple of heads
        patch: Size = 1,  # P, pixels on a side of what is read together
        dropout: Share = 0.0,  # on what blocks and embeddings add to the residual stream
        muon_learning_rate: NonNegative = 0.02,  # of the blocks' matrices
        learning_rate: NonNegative = 3e-3,  # of all else
        weight_decay: NonNegative = 0.0,  # of the blocks' matrices
    ) -> None:
        super().__init__(spec)
        with refusing("image_gpt"):
            check_heads(width, heads)
        colours, rows, columns = spec.shape
        if rows % patch or columns % patch:
            raise BadInput(f"image_gpt: patches of {patch} x {patch} do not tile {rows} x {columns} pixels")
        self.patch, self.dropout = patch, dropout
        self.muon_learning_rate, self.learning_rate, self.weight_decay = muon_learning_rate, learning_rate, weight_decay
        numbers = colours * patch * patch  # C P²
        size = max(s for s in range(1, numbers + 1) if numbers % s == 0 and (s == 1 or spec.levels**s <= MOST_VALUES))
        self.register_buffer("digits", spec.levels ** torch.arange(size - 1, -1, -1), persistent=False)  # [S]
        self.values = spec.levels**size
        self.grid = (rows // patch, columns // patch, numbers // size)  # [H / P, W / P, G], in the order of tokens
        self.length = math.prod(self.grid)
        self.begin = self.values  # the token before the first
        beside, row = self.grid[2], self.grid[1] * self.grid[2]  # how many tokens back these lie
        self.lags = [lag for lag in (row + beside, row, row - beside) if lag > 0]  # the nearest three in the row above
        self.lag = max(self.lags)  # how far back the furthest token lies that a position is given
        embedding = smooth_embedding if size == 1 else plain_embedding
        self.token = embedding(self.values, width)
        self.above = nn.ModuleList(embedding(self.values, width) for _ in self.lags)
        self.place = nn.Embedding(self.length, width)
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
            Block(width, heads, dropout, NORMS["rms"], ACTIVATIONS["relu2"], True, False) for _ in range(layers)
        )
        self.norm_in, self.norm_out = RMSNorm(width), RMSNorm(width)
        self.head = nn.Linear(width, self.values)
        self.log_softmax_at = LogSoftmaxAt()
        self.register_buffer("table", rotary_table(self.length, width // heads), persistent=False)

    # The model: p(x) = Π p(x_t | x_<t) ------------------------------------------------------------------------------

    def tokens(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` as tokens `[B, T]`."""
        x = x.long().unflatten(2, (-1, self.patch)).unflatten(4, (-1, self.patch))  # [B, C, H / P, P, W / P, P]
        numbers = x.permute(0, 2, 4, 1, 3, 5).reshape(len(x), self.length, -1)  # [B, T, S]
        return (numbers * self.digits).sum(2)

    def images(self, tokens: Tensor) -> Tensor:
        """The images that `tokens` reads as `[B, T]`."""
        colours, rows, columns = self.spec.shape
        numbers = tokens.unsqueeze(2) // self.digits % self.spec.levels  # [B, T, S]
        x = numbers.reshape(-1, *self.grid[:2], colours, self.patch, self.patch)
        return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, colours, rows, columns)

    def embed(self, stream: Tensor, start: int) -> Tensor:
        """What T positions from `start` on are given, `[B, T, D]`.

        `stream` `[B, lag + T - 1]` begins `lag` tokens before the first that they predict and ends before the last, so
        that nothing at a position can know its own token. At an edge of the image the raster's neighbours stand in.
        """
        x: Tensor = self.token(stream[:, self.lag - 1 :])
        T = x.shape[1]
        x = x + self.place.weight[start : start + T]
        for above, lag in zip(self.above, self.lags, strict=True):
            x = x + above(stream[:, self.lag - lag : self.lag - lag + T])
        return F.dropout(self.norm_in(x), self.dropout, self.training)

    def forward(self, stream: Tensor, start: int = 0, caches: list[Cache] | None = None) -> Tensor:
        """Logits `[B, T, V]` of the tokens from `start` on, each from those before it."""
        x = self.embed(stream, start)
        rotary = self.table[start : start + x.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, rotary, caches[i] if caches else None)
        logits: Tensor = self.head(self.norm_out(x))
        return logits

    def stream(self, tokens: Tensor) -> Tensor:
        """What predicts `tokens` `[B, T]`: begin tokens, and all but the last of them."""
        return F.pad(tokens, (self.lag, 0), value=self.begin)[:, :-1]

    # Promises --------------------------------------------------------------------------------------------------------

    def log_prob(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        log_p: Tensor = self.log_softmax_at(self(self.stream(tokens)), tokens)
        return log_p.sum(1)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """The largest logits of attention and of the softmax over values: both grow before a transformer diverges
        (Wortsman and others, "Small-scale proxies for large-scale Transformer training instabilities", 2023)."""
        y, largest = self.embed(self.stream(self.tokens(x)), 0), 0.0
        for block in self.blocks:
            q, k, _ = block.attention.project(y, self.table)
            largest = max(largest, float((q @ k.transpose(2, 3)).abs().max()) / math.sqrt(q.shape[3]))
            y = block(y, self.table)
        return {"attention_logit": largest, "output_logit": float(self.head(self.norm_out(y)).abs().max())}

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", self.length)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Token after token, keys and values of earlier positions kept: one position a step."""
        stream = torch.full((n, self.lag + self.length), self.begin, device=self.device)
        caches = [block.attention.cache(n, self.length) for block in self.blocks]
        for t in range(self.length):
            logits = self(stream[:, t : t + self.lag], t, caches)[:, -1].float()
            stream[:, t + self.lag] = draw(logits)
        return self.images(stream[:, self.lag :])

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.log_prob(batch.x).mean() / self.length}  # nats a token

    def configure_optimizers(self) -> Optimizer:
        return muon_in_blocks(self, self.muon_learning_rate, self.learning_rate, self.weight_decay)


def plain_embedding(values: int, width: int) -> nn.Embedding:
    """Of values that have no order, the begin token last."""
    return nn.Embedding(values + 1, width)


def smooth_embedding(levels: int, width: int) -> nn.Embedding:
    """Random Fourier features of the level (Rahimi and Recht 2007): close levels start with similar vectors.

    The last row, of the begin token, is apart.
    """
    table = plain_embedding(levels, width)
    angle = torch.outer(torch.linspace(0, 2 * math.pi, levels), torch.randn(width)) + 2 * math.pi * torch.rand(width)
    table.weight.data[:levels] = math.sqrt(2) * angle.cos()  # [V, D], of unit variance
    return table
