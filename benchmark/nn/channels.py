"""Bijections that scale or mix the channels of [B, C, ...], alike at every place.

Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018, arXiv:1807.03039.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from benchmark.nn.flows import Bijection


class ActNorm(Bijection):
    """y = (x + b) exp(s) for each channel, where the first batch of training comes out with mean 0 and variance 1
    (section 3.1). Later batches change nothing, so that an example's density does not depend on others."""

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias, self.log_scale = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))  # saved: a model that comes back starts no second time
        self.unsure = True  # whether the buffer is to be read: from a GPU, that waits for all work before

    def train(self, mode: bool = True) -> ActNorm:
        self.unsure = True
        return super().train(mode)

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Takes bias and scale from `x`, unless there has been a first batch."""
        self.unsure = False
        if not self.initialized:
            values = x.transpose(0, 1).flatten(1)  # [C, N]
            self.bias.copy_(-values.mean(1))
            self.log_scale.copy_(-values.var(1, correction=0).add(1e-6).log() / 2)
            self.initialized.fill_(True)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training and self.unsure:
            self.start(x)
        shape = (-1, *[1] * (x.ndim - 2))
        y = (x + self.bias.view(shape)) * self.log_scale.exp().view(shape)
        places = x[0, 0].numel()
        return y, (places * self.log_scale.sum()).expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        shape = (-1, *[1] * (y.ndim - 2))
        return y * (-self.log_scale).exp().view(shape) - self.bias.view(shape)


class Mix(Bijection):
    """y = P L (U + diag(s)) x: an invertible 1x1 convolution by its LU decomposition (section 3.2, eq. 10 and 11).

    At first a random rotation, as Glow's; or a random permutation, as in neural spline flows, which leaves each number
    by itself. P and the signs of s are drawn once, and saved.
    """

    P: Tensor
    sign: Tensor

    def __init__(self, channels: int, start: Literal["rotation", "permutation"] = "rotation") -> None:
        super().__init__()
        if start == "rotation":
            first, _ = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
        else:
            first = torch.eye(channels, dtype=torch.float64)[torch.randperm(channels)]
        P, L, U = torch.linalg.lu(first)
        s = U.diagonal()
        self.register_buffer("P", P.float())
        self.register_buffer("sign", s.sign().float())
        self.log_s = nn.Parameter(s.abs().log().float())
        self.lower = nn.Parameter(L.tril(-1).float())  # of both, only the strict triangles are read
        self.upper = nn.Parameter(U.triu(1).float())

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U + diag(s), [C, C] each."""
        eye = torch.eye(len(self.sign), dtype=self.P.dtype, device=self.P.device)
        return self.lower.tril(-1) + eye, self.upper.triu(1) + torch.diag(self.sign * self.log_s.exp())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):  # the flow's own arithmetic stays exact
            L, U = self.factors()
            y = (self.P @ L @ U) @ x.flatten(2)  # [B, C, N]
        return y.view_as(x), (y.shape[2] * self.log_s.sum()).expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.autocast(y.device.type, enabled=False):
            L, U = self.factors()
            x: Tensor = torch.linalg.solve_triangular(L, self.P.T @ y.flatten(2), upper=False, unitriangular=True)
            x = torch.linalg.solve_triangular(U, x, upper=True)
        return x.view_as(y)
