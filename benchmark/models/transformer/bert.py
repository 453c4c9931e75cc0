"""BERT: hidden tokens are found again from all others, on both sides.

Paper: Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", NAACL 2019, arXiv:1810.04805; whole words are hidden as in its later release. Samples by unmasking one
place after another: Wang and Cho, "BERT has a Mouth, and It Must Speak", 2019, arXiv:1902.04094. Pseudo-likelihood:
Salazar and others, "Masked Language Model Scoring", ACL 2020, arXiv:1910.14659.

Differences: no next sentence is predicted, and nothing marks segments. The blocks are those of this benchmark's GPT
without a causal mask (rotary positions, RMSNorm, squared ReLU), trained by Muon. Nothing is hidden when it is scored
but the token that is asked for: an unmasked token would be its own answer. The scores of all tokens are no likelihood
of the whole, and bound none. A class is a hidden token in front of the text, in place of a head of its own (Schick and
Schütze, "Exploiting Cloze Questions for Few Shot Text Classification", EACL 2021, arXiv:2001.07676).

Shapes: B examples, T tokens, V levels, D width. Unit: nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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
    NonNegative,
    Positive,
    Probability,
    PseudoLikelihood,
    Sampler,
    SamplesWithin,
    Share,
    Size,
)

KEPT, SWAPPED = 0.1, 0.1  # of the tokens that are to be found: left as they are, replaced by any (section 3.1)


class BERT(GenerativeModel, PseudoLikelihood, SamplesWithin):
    """Each token under a softmax that sees all tokens before and after it."""

    blocks: Sequence[Block]
    table: Tensor
    begins_in_word: Tensor
    ends_in_word: Tensor

    fused = ("log_softmax_at",)

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 4,
        heads: Size = 4,
        width: Size = 192,  # D, an even multiple of heads
        dropout: Share = 0.0,  # on what blocks and embeddings add to the residual stream
        masked_share: Probability = 0.15,  # of a window's tokens that are to be found in a training step
        hides: Literal["tokens", "words", "first"] = "tokens",  # places apart, whole words, or the first token alone
        steps: Count = 0,  # evaluations of the network for a sample, at most T; 0: T
        temperature: Positive = 1.0,  # of what is drawn at a place
        top_k: Count = 0,  # draw among the k likeliest alone; 0: all
        top_p: Probability = 1.0,  # and of these among the fewest that have so much probability
        muon_learning_rate: NonNegative = 0.02,  # of the blocks' matrices
        learning_rate: NonNegative = 3e-3,  # of AdamW, for the rest
        weight_decay: NonNegative = 0.0,  # of the blocks' matrices
    ) -> None:
        super().__init__(spec)
        with refusing("bert"):
            check_heads(width, heads)
        if steps > spec.dims:
            raise BadInput(f"bert: steps={steps} is more than {spec.dims} tokens: give at most that, or 0")
        self.T, self.mask = spec.dims, spec.levels
        self.masked_share, self.hides, self.dropout = masked_share, hides, dropout
        self.steps, self.draw = steps or self.T, Drawing(temperature, top_k, top_p)
        self.muon_learning_rate, self.learning_rate, self.weight_decay = muon_learning_rate, learning_rate, weight_decay
        self.token = nn.Embedding(spec.levels + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, causal=False) for _ in range(layers))  # type: ignore[assignment]
        self.norm_in, self.norm_out = RMSNorm(width), RMSNorm(width)
        self.head = nn.Linear(width, spec.levels)
        self.log_softmax_at = LogSoftmaxAt()
        self.register_buffer("table", rotary_table(self.T, width // heads), persistent=False)
        if hides == "words" and not spec.pieces:
            raise BadInput("bert: hides=words is for text, and nothing says what tokens these are: take hides=tokens")
        begins = torch.tensor([_is_letter(piece[:1]) for piece in spec.pieces], dtype=torch.bool)
        ends = torch.tensor([_is_letter(piece[-1:]) for piece in spec.pieces], dtype=torch.bool)
        self.register_buffer("begins_in_word", begins, persistent=False)
        self.register_buffer("ends_in_word", ends, persistent=False)

    # The model -------------------------------------------------------------------------------------------------------

    def forward(self, z: Tensor) -> Tensor:
        """Logits `[B, T, V]` of each token, given those of z `[B, T]` that are not masks."""
        x = F.dropout(self.norm_in(self.token(z)), self.dropout, self.training)
        for block in self.blocks:
            x = block(x, self.table)
        logits: Tensor = self.head(self.norm_out(x))
        return logits

    # Promises --------------------------------------------------------------------------------------------------------

    def pseudo_log_probs(self, x: Tensor, places: Tensor) -> Tensor:
        found = []
        for t in places.tolist():
            z = x.long().clone()
            z[:, t] = self.mask
            found.append(self(z)[:, t].float().log_softmax(-1))
        return torch.stack(found, 1)

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.draw.named("iterated unmasking"), evaluations=self.steps)

    def sample(self, n: int) -> Tensor:
        return self.sample_within(n, self.steps)

    @torch.no_grad()
    def sample_within(self, n: int, evaluations: int) -> Tensor:
        """From nothing but masks, places are found in an order that no token decides, about as many at a time."""
        masks = torch.full((n, self.T), self.mask, device=self.device)
        return unmasked(self, masks, min(evaluations, self.T), self.draw)

    # How it learns ---------------------------------------------------------------------------------------------------

    def chosen(self, x: Tensor) -> Tensor:
        """Which tokens of x `[B, T]` are to be found, `[B, T]`: a share of each window, by units in random order until
        there are so many; a unit is a place, or a whole word."""
        if self.hides == "first":
            return torch.arange(self.T, device=x.device).expand(len(x), -1) == 0
        unit = torch.arange(self.T, device=x.device).expand(len(x), -1)  # [B, T]
        if self.hides == "words":
            goes_on = self.begins_in_word[x[:, 1:]] & self.ends_in_word[x[:, :-1]]  # with the token before it
            unit = F.pad((~goes_on).long().cumsum(1), (1, 0))
        turn = torch.rand(x.shape, device=x.device).gather(1, unit)  # [B, T] one number for each unit
        before = (turn[:, None] < turn[:, :, None]).sum(2)  # [B, T] tokens of units whose turn is earlier
        return before < max(1, round(self.masked_share * self.T))

    def hide(self, x: Tensor, chosen: Tensor) -> Tensor:
        """What the network is given in the place of x `[B, T]`: of the chosen tokens most are masks, some are any other
        token, and some stay (section 3.1). The first token alone is always a mask."""
        if self.hides == "first":
            return x.masked_fill(chosen, self.mask)
        u, any_token = torch.rand(x.shape, device=x.device), torch.randint_like(x, self.spec.levels)
        z = torch.where(u < SWAPPED, any_token, x.masked_fill(u >= SWAPPED + KEPT, self.mask))
        return torch.where(chosen, z, x)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        chosen = self.chosen(batch.x)
        log_p: Tensor = self.log_softmax_at(self(self.hide(batch.x, chosen)), batch.x)  # [B, T]
        return {"loss": -(log_p * chosen).sum() / chosen.sum()}  # nats a token that is to be found

    def configure_optimizers(self) -> Optimizer:
        return muon_in_blocks(self, self.muon_learning_rate, self.learning_rate, self.weight_decay)


def _is_letter(byte: bytes) -> bool:
    """Whether a byte is a letter of ASCII, or part of one that is not."""
    return byte.isalpha() or byte >= b"\x80"
