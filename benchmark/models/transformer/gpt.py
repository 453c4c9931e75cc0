"""GPT: a decoder-only transformer over tokens.

Paper: Radford, Wu, Child, Luan, Amodei and Sutskever, "Language Models are Unsupervised Multitask Learners",
OpenAI 2019, https://openai.com/index/better-language-models

Differences: a begin token, no dropout of attention's weights and, by options that the configuration `gpt2` sets to the
paper's, each from the paper that brought it: rotary positions (Su and others 2021, arXiv:2104.09864), RMSNorm without
gains before every layer (Zhang and Sennrich 2019, arXiv:1910.07467), normalised queries and keys (Henry and others
2020, arXiv:2010.04245), squared ReLU (So and others 2021, arXiv:2109.08668), projections back to the residual stream
that start at zero, and Muon (Jordan and others 2024) for the blocks' matrices beside AdamW for the rest. One that
starts from another's weights may train low-rank adapters alone (Hu and others 2022, arXiv:2106.09685). Samples are
drawn with cached keys and values.

Shapes: B examples, T tokens, V levels, D width, N heads, K = D / N. Unit: nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import cached
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.distributions import LogSoftmaxAt
from benchmark.nn.low_rank import adapt
from benchmark.nn.optim import adamw, muon_in_blocks
from benchmark.nn.sampling import Drawing
from benchmark.nn.transformer import ACTIVATIONS, NORMS, Block, Cache, RMSNorm, check_heads, draw_normal, rotary_table
from benchmark.spec import (
    BadInput,
    Batch,
    Count,
    DataSpec,
    Diagnosable,
    Likelihood,
    NonNegative,
    Positive,
    Probability,
    Sampler,
    Share,
    Size,
    State,
    TokenLikelihood,
)


class GPT(GenerativeModel, Likelihood, TokenLikelihood, Diagnosable):
    """Each token's levels under a softmax that sees every token before it; the first follows a begin token."""

    blocks: Sequence[Block]
    table: Tensor | None

    fused = ("log_softmax_at",)

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 4,
        heads: Size = 4,
        width: Size = 192,  # D, an even multiple of heads
        dropout: Share = 0.0,  # on what blocks and embeddings add to the residual stream
        positions: Literal["rotary", "learned"] = "rotary",
        norm: Literal["rms", "layer"] = "rms",  # rms: no gains, and embeddings are normalised too
        activation: Literal["relu2", "gelu"] = "relu2",
        normalised_queries: bool = True,  # and keys
        biases: bool = False,  # in the blocks' layers
        initial_weights: Literal["identity", "normal"] = "identity",  # of blocks; normal: of all
        tied: bool = False,  # whether the head's matrix is the embedding
        optimizer: Literal["muon", "adamw"] = "muon",  # of the blocks' matrices; adapters have AdamW
        muon_learning_rate: NonNegative = 0.02,
        learning_rate: NonNegative = 3e-3,  # of AdamW
        beta2: Share = 0.95,  # of AdamW
        weight_decay: NonNegative = 0.0,  # of the blocks' matrices; of all matrices where AdamW has them
        adapter_rank: Count = 0,  # of what alone is trained: additions to the blocks' matrices; 0: all weights are
        temperature: Positive = 1.0,  # of the sampler
        top_k: Count = 0,  # draw among the k likeliest alone; 0: all
        top_p: Probability = 1.0,  # and of these among the fewest that have so much probability
    ) -> None:
        super().__init__(spec)
        with refusing("gpt"):
            check_heads(width, heads)
        self.dropout, self.optimizer = dropout, optimizer
        self.draw = Drawing(temperature, top_k, top_p)
        self.muon_learning_rate, self.learning_rate, self.weight_decay = muon_learning_rate, learning_rate, weight_decay
        self.betas = (0.9, beta2)
        self.begin = spec.levels  # the token before the first
        self.token = nn.Embedding(spec.levels + 1, width)
        self.place = nn.Embedding(spec.dims, width) if positions == "learned" else None
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
            Block(width, heads, dropout, NORMS[norm], ACTIVATIONS[activation], normalised_queries, biases)
            for _ in range(layers)
        )
        self.norm_in = RMSNorm(width) if norm == "rms" else nn.Identity()
        self.norm_out = NORMS[norm](width)
        self.head = None if tied else nn.Linear(width, spec.levels)
        self.log_softmax_at = LogSoftmaxAt()
        rotary = rotary_table(spec.dims, width // heads) if positions == "rotary" else None
        self.register_buffer("table", rotary, persistent=False)
        if initial_weights == "normal":
            draw_normal(self)
        adapt(self, self.blocks, adapter_rank)
        self.frozen = tuple(name for name, p in self.named_parameters() if not p.requires_grad)

    # The model: p(x) = Π p(x_t | x_<t) ------------------------------------------------------------------------------

    def embed(self, stream: Tensor, start: int) -> Tensor:
        """What T positions from `start` on are given, `[B, T, D]`.

        `stream` `[B, T]` begins one token before the first that they predict and ends before the last, so that nothing
        at a position can know its own token.
        """
        x: Tensor = self.token(stream)
        if self.place is not None:
            x = x + self.place.weight[start : start + x.shape[1]]
        return F.dropout(self.norm_in(x), self.dropout, self.training)

    def forward(self, stream: Tensor, start: int = 0, caches: list[Cache] | None = None) -> Tensor:
        """Logits `[B, T, V]` of the tokens from `start` on, each from those before it."""
        x = self.embed(stream, start)
        rotary = None if self.table is None else self.table[start : start + x.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, rotary, caches[i] if caches else None)
        return self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """From what the blocks leave, `[B, T, D]` to `[B, T, V]`."""
        x = self.norm_out(x)
        y: Tensor = self.head(x) if self.head is not None else F.linear(x, self.token.weight[: self.spec.levels])
        return y

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        x = x.long()
        if x.shape[1] > self.spec.dims:
            raise BadInput(
                f"gpt: {x.shape[1]} tokens given, context is {self.spec.dims}; score windows or raise context"
            )
        y: Tensor = self.log_softmax_at(self(self.stream(x)), x)
        return y

    def log_prob(self, x: Tensor) -> Tensor:
        return self.token_log_prob(x).sum(1)

    def stream(self, tokens: Tensor) -> Tensor:
        """What predicts `tokens` `[B, T]`: the begin token, and all but the last of them."""
        return F.pad(tokens, (1, 0), value=self.begin)[:, :-1]

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """The largest logits of attention and of the softmax over levels: both grow before a transformer diverges
        (Wortsman and others, "Small-scale proxies for large-scale Transformer training instabilities", 2023)."""
        y = self.embed(self.stream(x.long()), 0)
        rotary, largest = None if self.table is None else self.table[: y.shape[1]], 0.0
        for block in self.blocks:
            q, k, _ = block.attention.project(y, rotary)
            largest = max(largest, float((q @ k.transpose(2, 3)).abs().max()) / math.sqrt(q.shape[3]))
            y = block(y, rotary)
        return {"attention_logit": largest, "output_logit": float(self.logits(y).abs().max())}

    # Sampling -------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.draw.named("ancestral"), self.spec.dims)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Token after token, keys and values of earlier positions kept: one position a step."""
        T = self.spec.dims
        stream = torch.full((n, 1 + T), self.begin, device=self.device)
        caches = [block.attention.cache(n, T) for block in self.blocks]
        with cached():  # adapted matrices are added up once
            for t in range(T):
                logits = self(stream[:, t : t + 1], t, caches)[:, -1].float()
                stream[:, t + 1] = self.draw(logits)
        return stream[:, 1:].contiguous()

    # Learning -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.token_log_prob(batch.x).mean()}  # nats a token

    def configure_optimizers(self) -> Optimizer:
        if self.optimizer == "adamw" or self.frozen:
            return adamw(self, self.learning_rate, self.weight_decay, self.betas)
        return muon_in_blocks(self, self.muon_learning_rate, self.learning_rate, self.weight_decay, self.betas)
