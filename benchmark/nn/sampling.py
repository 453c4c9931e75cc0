"""Draws from categorical distributions that are given by logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Drawing:
    """How a model's sampler draws from its logits: `draw`, where `top_k` of 0 and `top_p` of 1 leave all values in."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __call__(self, logits: Tensor) -> Tensor:
        top_p = self.top_p if self.top_p < 1 else None
        return draw(logits, self.temperature, self.top_k or None, top_p)

    def named(self, sampler: str) -> str:
        """The sampler's name with what is not as the model says: such samples are of another distribution."""
        parts = [f"temperature {self.temperature:g}"] if self.temperature != 1 else []
        parts += [f"top-k {self.top_k}"] if self.top_k else []
        parts += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        return ", ".join([sampler, *parts])


def unmasked(network: Callable[[Tensor], Tensor], z: Tensor, steps: int, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """Draws for all T places of z `[n, T]`, which are masks: in a random order that no token decides, about as many at
    each of `steps` evaluations of the network, which gives logits `[n, T, V]`."""
    T = z.shape[1]
    turn = torch.rand(z.shape, device=z.device).argsort(1).argsort(1)  # [n, T]
    for step in range(steps):
        now = (turn >= step * T // steps) & (turn < (step + 1) * T // steps)
        z = torch.where(now, draw(network(z).double()), z)  # in float32 rare tokens would be drawn too seldom
    return z


def draw(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """One draw `[...]`, int64, from the softmax of each of `logits` `[..., V]`, from torch's global generator.

    Logits are divided by `temperature`, above 0. Then only the `top_k` likeliest values may be drawn (Fan and others
    2018; with those as likely as the last of them), and of these the fewest likeliest whose probabilities reach `top_p`
    together (Holtzman and others 2020).
    """
    if temperature != 1.0:
        logits = logits / temperature
    if top_k is not None:
        last = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < last, -torch.inf)
    if top_p is not None:
        logits = _nucleus(logits, top_p)
    p = logits.softmax(-1)
    return torch.multinomial(p.reshape(-1, p.shape[-1]), 1).view(p.shape[:-1])


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """`logits` with -∞ outside the smallest set of likeliest values with probability `top_p`: never an empty set."""
    p, order = logits.softmax(-1).sort(-1, descending=True)
    outside = p.cumsum(-1) - p >= top_p  # those before it are enough
    outside[..., 0] = False
    return logits.masked_fill(torch.empty_like(outside).scatter_(-1, order, outside), -torch.inf)
