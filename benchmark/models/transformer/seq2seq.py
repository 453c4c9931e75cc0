"""Encoder-decoder transformer: replies to what was said.

Paper: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin, "Attention Is All You Need", NeurIPS
2017, arXiv:1706.03762.

Differences are those of the benchmark's GPT, to which it is compared: rotary positions (Su and others 2021,
arXiv:2104.09864), RMSNorm without gains before every layer (Zhang and Sennrich 2019, arXiv:1910.07467), normalised
queries and keys (Henry and others 2020, arXiv:2010.04245), squared ReLU (So and others 2021, arXiv:2109.08668),
projections back to the residual stream that start at zero, and Muon (Jordan and others 2024) for the blocks' matrices
beside AdamW for the rest; and no label smoothing, whose loss is no likelihood. The head is not tied to the embedding,
which encoder and decoder share where their tokens are the same.

`reads` says how the decoder hears what was said: through an encoder; as a prefix of its own text (Radford and others
2019), in 7/3 as many layers, so that there are as many parameters; or not at all, which is the same decoder without
its cross-attention. What only fills a condition up (end tokens before it) is seen by nobody, and changes nothing.

Shapes: B examples, S tokens of a condition, T tokens of a reply, V levels, D width, N heads, K = D / N. Unit: nats.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.distributions import LogSoftmaxAt
from benchmark.nn.optim import muon_in_blocks
from benchmark.nn.sampling import Drawing
from benchmark.nn.transformer import Block, Cache, Read, check_heads, rms_norm, rotary_table
from benchmark.spec import (
    BadInput,
    Batch,
    Conditional,
    ConditionalTokenLikelihood,
    Count,
    DataSpec,
    NonNegative,
    Positive,
    Probability,
    Sampler,
    Share,
    Size,
)

KEPT = 256  # conditions of the latest batches, to which `sample` replies


class Seq2Seq(GenerativeModel, ConditionalTokenLikelihood, Conditional):
    """Each token of a reply under a softmax that sees the tokens before it, and what the reply is to.

    `sample` replies to conditions of the latest training batches, drawn with equal probability; of a model that has not
    trained, to random tokens. Where data have no condition, nothing is read.
    """

    met: Tensor
    table: Tensor

    fused = ("log_softmax_at",)

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 3,  # of the encoder and of the decoder; 7/3 times as many where it reads a prefix
        heads: Size = 4,
        width: Size = 128,  # D, an even multiple of heads
        dropout: Share = 0.0,  # on what blocks and embeddings add to the residual stream
        reads: Literal["encoder", "prefix", "nothing"] = "encoder",
        muon_learning_rate: NonNegative = 0.02,  # of the blocks' matrices
        learning_rate: NonNegative = 3e-3,  # of AdamW
        beta2: Share = 0.95,  # of AdamW
        weight_decay: NonNegative = 0.0,  # of the blocks' matrices
        temperature: Positive = 1.0,  # of the sampler
        top_k: Count = 0,  # draw among the k likeliest alone; 0: all
        top_p: Probability = 1.0,  # and of these among the fewest that have so much probability
    ) -> None:
        super().__init__(spec)
        with refusing("seq2seq"):
            check_heads(width, heads)
        self.reads = reads if spec.condition is not None else "nothing"
        said = spec.condition if self.reads != "nothing" else None
        if said is not None and said.structure != "sequence":
            raise BadInput(f"seq2seq: it reads sequences, and the condition is a {said.structure}; set reads=nothing")
        self.dropout, self.draw = dropout, Drawing(temperature, top_k, top_p)
        self.muon_learning_rate, self.learning_rate, self.weight_decay = muon_learning_rate, learning_rate, weight_decay
        self.betas = (0.9, beta2)
        self.begin = spec.levels  # the token before a reply's first
        self.token = nn.Embedding(spec.levels + 1, width)
        self.said = nn.Embedding(said.levels, width) if said is not None and said.levels != spec.levels else None
        encoder = layers if self.reads == "encoder" else 0
        decoder = round(layers * 7 / 3) if self.reads == "prefix" else layers
        self.encoder = [Block(width, heads, dropout, causal=False) for _ in range(encoder)]
        self.decoder = [Block(width, heads, dropout, crossed=encoder > 0) for _ in range(decoder)]
        self.blocks = nn.ModuleList([*self.encoder, *self.decoder])
        self.head = nn.Linear(width, spec.levels)
        self.log_softmax_at = LogSoftmaxAt()
        S = 0 if said is None else said.dims
        self.register_buffer("table", rotary_table(S + spec.dims + 1, width // heads), persistent=False)
        levels = 1 if said is None else said.levels
        self.register_buffer("met", torch.randint(levels, (KEPT if said is not None else 0, S)))

    # The model: p(x | c) = Π p(x_t | x_<t, c) -----------------------------------------------------------------------

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, T]` of a reply, the begin token among them, as vectors `[B, T, D]`."""
        return F.dropout(rms_norm(self.token(tokens)), self.dropout, self.training)

    def listen(self, condition: Tensor) -> Tensor:
        """Tokens `[B, S]` of what was said as vectors `[B, S, D]`."""
        embedding = self.token if self.said is None else self.said
        return F.dropout(rms_norm(embedding(condition)), self.dropout, self.training)

    def seen(self, condition: Tensor) -> Tensor | None:
        """Which positions of conditions, and of the begin token after them, are there to be seen: `[B, S + 1]` bool;
        `None`: all. The last one always is: so there is something to see where nothing was said."""
        end = None if self.spec.condition is None else self.spec.condition.end
        return None if end is None else F.pad(condition != end, (0, 1), value=True)

    def encoded(self, condition: Tensor | None) -> list[Read | None]:
        """What each block of the decoder reads: keys and values of the encoder's last layer over what was said and a
        begin token."""
        if not self.encoder or condition is None:
            return [None] * len(self.decoder)
        begin = torch.full_like(condition[:, :1], self.begin)
        y, seen = torch.cat([self.listen(condition), self.embed(begin)], 1), self.seen(condition)
        mask = None if seen is None else seen[:, None, None]
        for block in self.encoder:
            y = block(y, self.table[: y.shape[1]], mask=mask)
        memory = rms_norm(y)
        return [None if block.cross is None else block.cross.read(memory, seen) for block in self.decoder]

    def decoded(
        self,
        y: Tensor,
        start: int,
        read: list[Read | None],
        caches: list[Cache] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Logits `[B, t, V]` of what follows each of the t positions `y` `[B, t, D]` from `start` on."""
        rotary = self.table[start : start + y.shape[1]]
        for i, block in enumerate(self.decoder):
            y = block(y, rotary, caches[i] if caches else None, mask, read[i])
        logits: Tensor = self.head(rms_norm(y))
        return logits

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits `[B, T, V]` of the tokens of `x` `[B, T]`, each from those before it and the condition `[B, S]`."""
        stream = self.embed(F.pad(x, (1, 0), value=self.begin)[:, :-1])  # no position knows its own token
        if self.reads != "prefix" or condition is None:
            return self.decoded(stream, 0, self.encoded(condition))
        y = torch.cat([self.listen(condition), stream], 1)  # [B, S + T, D]
        nothing: list[Read | None] = [None] * len(self.decoder)
        logits = self.decoded(y, 0, nothing, mask=self.prefix_mask(condition, y.shape[1]))
        return logits[:, condition.shape[1] :]

    def prefix_mask(self, condition: Tensor, length: int) -> Tensor | None:
        """Which of the positions before it and itself each of the first `length` ones sees, `[B, 1, L, L]` bool: what
        fills a condition up sees itself alone, so that every one sees something. `None`: all."""
        seen = self.seen(condition)
        if seen is None:
            return None
        seen = F.pad(seen, (0, length - seen.shape[1]), value=True)[:, None, None]
        itself = torch.eye(length, dtype=torch.bool, device=condition.device)
        return seen & torch.ones_like(itself).tril() | itself

    def token_log_prob_given(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = x.long()
        log_p: Tensor = self.log_softmax_at(self(x, condition), x)
        return log_p.masked_fill(~self.spec.counted(x), 0.0)

    # Sampling -------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.draw.named("ancestral"), self.spec.dims)

    def sample(self, n: int) -> Tensor:
        if not len(self.met):
            return self.drawn(n, None)
        return self.sample_given(self.met[torch.randint(len(self.met), (n,), device=self.device)])

    def sample_given(self, condition: Tensor) -> Tensor:
        return self.drawn(len(condition), None if self.reads == "nothing" else condition.long())

    @torch.no_grad()
    def drawn(self, n: int, condition: Tensor | None) -> Tensor:
        """`n` replies `[n, T]`, token after token: what was said is read once, keys and values of earlier positions are
        kept, and nothing follows an end."""
        T, end, start = self.spec.dims, self.spec.end, 0
        x = torch.full((n, T), 0 if end is None else end, device=self.device)
        y, mask, seen = self.embed(torch.full((n, 1), self.begin, device=self.device)), None, None
        read = self.encoded(condition)
        if self.reads == "prefix" and condition is not None:
            y = torch.cat([self.listen(condition), y], 1)
            mask, seen = self.prefix_mask(condition, y.shape[1]), self.seen(condition)
        caches = [block.attention.cache(n, y.shape[1] + T) for block in self.decoder]
        over = torch.zeros(n, dtype=torch.bool, device=self.device)
        for t in range(T):
            token = self.draw(self.decoded(y, start, read, caches, mask)[:, -1].float())
            start += y.shape[1]
            x[:, t] = token.where(~over, x[:, t])
            over |= token == end if end is not None else over
            if over.all():
                break
            y = self.embed(token[:, None])
            mask = None if seen is None else F.pad(seen, (0, 1 + t), value=True)[:, None, None]
        return x

    # Learning -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        if len(self.met) and batch.condition is not None:
            self.met.copy_(torch.cat([batch.condition, self.met])[: len(self.met)])
        log_p = self.token_log_prob_given(batch.x, batch.condition)
        return {"loss": -log_p.sum() / self.spec.counted(batch.x).sum()}  # nats a token of replies

    def configure_optimizers(self) -> Optimizer:
        return muon_in_blocks(self, self.muon_learning_rate, self.learning_rate, self.weight_decay, self.betas)
