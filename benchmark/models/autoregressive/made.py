"""MADE: a multilayer perceptron over all pixels at once, masked so that each is predicted from those before it.

Paper: Germain, Gregor, Murray and Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", ICML 2015,
arXiv:1502.03509

Differences: a softmax over all levels, of which the first has the logit 0, so that two levels make the paper's
Bernoulli; degrees of hidden units are spread evenly and then shuffled for each mask, not drawn, so that no unit is dead
and no input lost; AdamW, dropout, and embedded inputs as an option. An ensemble over orders averages probabilities of
whole images, never logits, and samples in one of the orders, drawn at random: both are one mixture.

Shapes: B images, D pixels times colours, L levels, K orders, N layers of P hidden units, E numbers for an input. Unit:
nats an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.levels import centred
from benchmark.nn.masked import even_degrees
from benchmark.nn.optim import adamw
from benchmark.nn.sampling import draw
from benchmark.spec import Batch, Count, DataSpec, Likelihood, NonNegative, Sampler, Share, Size


class MADE(GenerativeModel, Likelihood):
    """Each value under a softmax that sees those before it, in one of several orders, or in all of them on average."""

    order: Tensor  # [K, D], the place of each input in each order, from 1
    degrees: Tensor  # [K, N, P], how many inputs a hidden unit may see
    hidden: Sequence[nn.Linear]

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 2,  # N
        width: Size = 512,  # P
        orders: Size = 8,  # K, masks of which each training step takes one; the first is in raster order
        averaged: bool = True,  # whether p(x) is the mean over all orders; else that of the first
        embedding: Count = 0,  # E, learnt numbers that stand for a level; 0: the level itself, scaled to -1..1
        direct: bool = True,  # whether outputs are connected to inputs too (section 4.1)
        dropout: Share = 0.0,
        learning_rate: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(spec)
        self.averaged, self.learning_rate, self.weight_decay = averaged, learning_rate, weight_decay
        D, inputs, outputs = spec.dims, spec.dims * max(embedding, 1), spec.dims * (spec.levels - 1)
        order = [torch.arange(D) if k == 0 else torch.randperm(D) for k in range(orders)]
        self.register_buffer("order", 1 + torch.stack(order))
        even = even_degrees(width, D)
        degrees = [torch.stack([even[torch.randperm(width)] for _ in range(layers)]) for _ in range(orders)]
        self.register_buffer("degrees", torch.stack(degrees))
        self.embedding = nn.Embedding(D * spec.levels, embedding) if embedding else None
        self.hidden = nn.ModuleList(nn.Linear(width if i else inputs, width) for i in range(layers))  # type: ignore[assignment]
        self.head = nn.Linear(width, outputs)
        self.direct = nn.Linear(inputs, outputs, bias=False) if direct else None
        self.dropout = nn.Dropout(dropout)

    # The model: p(x) = 1/K Σ_k Π_d p(x_d | those before it in order k) ------------------------------------------------

    def inputs(self, x: Tensor) -> Tensor:
        """Levels `[B, D]` as numbers `[B, D E]`."""
        if self.embedding is None:
            return centred(x, self.spec.levels).to(self.dtype)
        rows = x + self.spec.levels * torch.arange(self.spec.dims, device=x.device)
        return self.embedding(rows).flatten(1)  # type: ignore[no-any-return]

    def weights(self, k: int) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """Of the hidden layers, the head and the direct connections, masked for order k (eq. 8, 9, 13)."""
        D, order = self.spec.dims, self.order[k]
        degrees = [order.repeat_interleave(self.hidden[0].in_features // D), *self.degrees[k]]
        last = order.repeat_interleave(self.spec.levels - 1)[:, None]  # [D (L - 1), 1]
        hidden = [
            layer.weight * (after[:, None] >= before)
            for layer, before, after in zip(self.hidden, degrees[:-1], degrees[1:], strict=True)
        ]
        direct = None if self.direct is None else self.direct.weight * (last > degrees[0])
        return hidden, self.head.weight * (last > degrees[-1]), direct

    def forward(self, x: Tensor, k: int) -> Tensor:
        """Logits `[B, D, L]` of levels `[B, D]`, each from those before it in order k."""
        hidden, head, direct = self.weights(k)
        h = inputs = self.inputs(x)
        for layer, weight in zip(self.hidden, hidden, strict=True):
            h = self.dropout(F.relu(F.linear(h, weight, layer.bias)))
        y = F.linear(h, head, self.head.bias)
        y = y if direct is None else y + F.linear(inputs, direct)
        return F.pad(y.unflatten(1, (self.spec.dims, -1)), (1, 0))

    def log_prob_in(self, x: Tensor, k: int) -> Tensor:
        """log p(x) `[B]` in order k."""
        x = x.flatten(1).long()
        nll = F.cross_entropy(self(x, k).float().transpose(1, 2), x, reduction="none")  # [B, D]
        return -nll.sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        orders = len(self.order) if self.averaged else 1
        log_p = torch.stack([self.log_prob_in(x, k) for k in range(orders)])  # [K, B]
        return log_p.logsumexp(0) - math.log(orders)

    # Sampling -------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", self.spec.dims)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Each image in one order, drawn at random. The images of one order go through `forward` together."""
        orders = len(self.order) if self.averaged else 1
        which = torch.randint(orders, (n,), device=self.device)
        x = torch.zeros(n, self.spec.dims, dtype=torch.long, device=self.device)
        for k in range(orders):
            x[which == k] = self.sample_in(int((which == k).sum()), k)
        return x.view(n, *self.spec.shape)

    def sample_in(self, n: int, k: int) -> Tensor:
        """Levels `[n, D]` in order k. A hidden unit is computed once: when all that its mask lets it see is drawn."""
        D, L = self.spec.dims, self.spec.levels
        x = torch.zeros(n, D, dtype=torch.long, device=self.device)
        hidden, head, direct = self.weights(k)
        layers = [self.inputs(x), *(self.head.weight.new_zeros(n, layer.out_features) for layer in self.hidden)]
        E = layers[0].shape[1] // D
        for known, d in enumerate(self.order[k].argsort().tolist(), 1):
            rows = slice(d * (L - 1), (d + 1) * (L - 1))
            y = F.linear(layers[-1], head[rows], self.head.bias[rows])
            y = y if direct is None else y + F.linear(layers[0], direct[rows])
            x[:, d] = draw(F.pad(y, (1, 0)))
            layers[0][:, d * E : (d + 1) * E] = self.inputs(x)[:, d * E : (d + 1) * E]
            for i, (layer, weight) in enumerate(zip(self.hidden, hidden, strict=True)):
                units = (self.degrees[k, i] == known).nonzero()[:, 0]
                layers[i + 1][:, units] = F.relu(F.linear(layers[i], weight[units], layer.bias[units]))
        return x

    # Learning -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        k = int(torch.randint(len(self.order), ()))  # the paper's turns, without a place in them to resume from
        return {"loss": -self.log_prob_in(batch.x, k).mean() / self.spec.dims}  # nats a dimension

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)
