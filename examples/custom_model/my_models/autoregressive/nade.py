"""NADE: every pixel is predicted from the pixels before it, through hidden units that all pixels share.

Paper: Uria, Côté, Gregor, Murray and Larochelle, "Neural Autoregressive Distribution Estimation", JMLR 17 2016,
arXiv:1605.02226; first in Larochelle and Murray 2011.

Differences: pixels have any number of levels, so that W holds a vector for each level and V gives a logit for each;
rectified units and dropout, for small data; one fixed order, row by row.

B batch, D pixels, L levels, H hidden units. Likelihoods are in nats, summed over pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.optim import adamw
from benchmark.spec import Batch, DataSpec, Likelihood, Sampler


class NADE(GenerativeModel, Likelihood):
    """Promises an exact likelihood."""

    def __init__(
        self,
        spec: DataSpec,
        hidden: int = 256,  # H
        dropout: float = 0.5,  # of hidden units
        learning_rate: float = 2e-3,
        weight_decay: float = 1.0,
    ) -> None:
        super().__init__(spec)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.W = nn.Parameter(torch.randn(spec.dims, spec.levels, hidden) * 0.05)
        self.V = nn.Parameter(torch.randn(spec.dims, hidden, spec.levels) / hidden**0.5)
        self.b = nn.Parameter(torch.zeros(spec.dims, spec.levels))
        self.c = nn.Parameter(torch.zeros(hidden))
        self.dropout = nn.Dropout(dropout)

    # What it promises ------------------------------------------------------------------------------------------------

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-probability `[B]` in nats of images `[B, *shape]`."""
        x = x.flatten(1)  # [B, D]
        read = self.W[torch.arange(self.spec.dims, device=x.device), x]  # [B, D, H]
        before = F.pad(read[:, :-1], (0, 0, 1, 0)).cumsum(1)  # [B, D, H]: pixel d sees what is before it
        h = F.relu(self.c + before)  # eq. 3
        logits = torch.einsum("bdh,dhl->bdl", self.dropout(h), self.V) + self.b  # [B, D, L], eq. 2
        log_p = logits.log_softmax(-1).gather(-1, x[..., None]).squeeze(-1)  # [B, D]
        return log_p.sum(1)  # eq. 1

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", self.spec.dims)

    def sample(self, n: int) -> Tensor:
        """Pixel after pixel: `[n, *shape]`."""
        x = torch.empty(n, self.spec.dims, dtype=torch.int64, device=self.device)
        before = torch.zeros(n, len(self.c), device=self.device)  # [n, H]
        for d in range(self.spec.dims):
            logits = self.dropout(F.relu(self.c + before)) @ self.V[d] + self.b[d]  # [n, L], eqs. 2 and 3
            x[:, d] = torch.multinomial(logits.softmax(-1), 1).squeeze(-1)
            before = before + self.W[d, x[:, d]]
        return x.reshape(n, *self.spec.shape)

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.log_prob(batch.x).mean()}

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)
