"""Masked diffusion: tokens are hidden and found again, in any order and several at a time.

Paper: Sahoo and others, "Simple and Effective Masked Diffusion Language Models", NeurIPS 2024, arXiv:2406.07524; the
bound as an average over orders is that of Uria, Murray and Larochelle, "A Deep and Tractable Density Estimator", ICML
2014, arXiv:1310.1757, and of Hoogeboom and others, "Autoregressive Diffusion Models", ICLR 2022, arXiv:2110.02037.

Differences: the number of masks k is uniform on 1, ..., T in place of a continuous time t with masks drawn
independently: the same bound with less variance, and no time at which none is left. The network sees no time, as in
Ou and others, "Your Absorbing Discrete Diffusion Secretly Models the Conditional Distributions of Clean Data", ICLR
2025, arXiv:2406.03736. It is this benchmark's GPT without its causal mask and its begin token, and it cannot predict a
mask. With T evaluations a sample is one of the model whose bound is reported; with fewer, tokens that are found
together are drawn independently, and the distribution is another.

Shapes: B examples, T tokens, V levels, D width. Unit: nats.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.distributions import LogSoftmaxAt
from benchmark.nn.optim import muon_in_blocks
from benchmark.nn.sampling import Drawing, unmasked
from benchmark.nn.transformer import Block, RMSNorm, check_heads, rotary_table
from benchmark.spec import (
    BadInput,
    Batch,
    Count,
    DataSpec,
    LikelihoodBound,
    NonNegative,
    Positive,
    Probability,
    Sampler,
    SamplesWithin,
    Share,
    Size,
)


class MaskedDiffusion(GenerativeModel, LikelihoodBound, SamplesWithin):
    """log p(x) ≥ E_k E_M T/k Σ_{i in M} log p(x_i | x without M), M any k of the T places, k uniform on 1 to T."""

    blocks: Sequence[Block]
    table: Tensor

    fused = ("log_softmax_at",)

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 4,
        heads: Size = 4,
        width: Size = 192,  # D, an even multiple of heads
        dropout: Share = 0.0,  # on what blocks and embeddings add to the residual stream
        steps: Count = 0,  # evaluations of the network for a sample, at most T; 0: T
        temperature: Positive = 1.0,  # of what is drawn at a place
        top_k: Count = 0,  # draw among the k likeliest alone; 0: all
        top_p: Probability = 1.0,  # and of these among the fewest that have so much probability
        muon_learning_rate: NonNegative = 0.02,  # of the blocks' matrices
        learning_rate: NonNegative = 3e-3,  # of AdamW, for the rest
        weight_decay: NonNegative = 0.0,  # of the blocks' matrices
    ) -> None:
        super().__init__(spec)
        with refusing("masked_diffusion"):
            check_heads(width, heads)
        if steps > spec.dims:
            raise BadInput(f"masked_diffusion: steps={steps} is more than {spec.dims} tokens: give at most that, or 0")
        self.T, self.mask = spec.dims, spec.levels
        self.steps = steps or self.T
        self.draw = Drawing(temperature, top_k, top_p)
        self.dropout = dropout
        self.muon_learning_rate, self.learning_rate, self.weight_decay = muon_learning_rate, learning_rate, weight_decay
        self.token = nn.Embedding(spec.levels + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, causal=False) for _ in range(layers))  # type: ignore[assignment]
        self.norm_in, self.norm_out = RMSNorm(width), RMSNorm(width)
        self.head = nn.Linear(width, spec.levels)
        self.log_softmax_at = LogSoftmaxAt()
        self.register_buffer("table", rotary_table(self.T, width // heads), persistent=False)

    # The model -------------------------------------------------------------------------------------------------------

    def forward(self, z: Tensor) -> Tensor:
        """Logits `[B, T, V]` of each token, given those of z `[B, T]` that are not masks."""
        x = F.dropout(self.norm_in(self.token(z)), self.dropout, self.training)
        for block in self.blocks:
            x = block(x, self.table)
        logits: Tensor = self.head(self.norm_out(x))
        return logits

    def hide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens of x `[B, T]` are hidden `[B, T]`, and how many `[B]`: uniform on 1 to T for each example, and
        spread evenly over the batch (Sahoo and others, appendix C.2)."""
        n = len(x)
        u = (torch.rand((), device=x.device) + torch.arange(n, device=x.device) / n) % 1
        k = 1 + (u * self.T).long().clamp(max=self.T - 1)
        order = torch.rand(x.shape, device=x.device).argsort(1).argsort(1)  # [B, T] each place's turn
        return order < k[:, None], k

    # Promises --------------------------------------------------------------------------------------------------------

    def elbo(self, x: Tensor) -> Tensor:
        x = x.long()
        hidden, k = self.hide(x)
        log_p: Tensor = self.log_softmax_at(self(x.masked_fill(hidden, self.mask)), x)  # [B, T]
        return self.T / k * (log_p * hidden).sum(1)

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.draw.named("in random order"), evaluations=self.steps)

    def sample(self, n: int) -> Tensor:
        return self.sample_within(n, self.steps)

    @torch.no_grad()
    def sample_within(self, n: int, evaluations: int) -> Tensor:
        """Places are found in an order that no token decides, about as many at each evaluation."""
        masks = torch.full((n, self.T), self.mask, device=self.device)
        return unmasked(self, masks, min(evaluations, self.T), self.draw)

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.elbo(batch.x).mean() / self.T}  # nats a token

    def configure_optimizers(self) -> Optimizer:
        return muon_in_blocks(self, self.muon_learning_rate, self.learning_rate, self.weight_decay)
