"""Low-rank adapters: matrices that are known already are tuned by what few numbers can add to them.

Hu and others, "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv:2106.09685, section 4.1, with its
factor α/r at 1: a learning rate is tuned for one rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization


class LowRank(nn.Module):
    """W + B A, with A `[..., rank, m]` drawn and B `[..., n, rank]` zero at first, for W `[..., n, m]`."""

    off = False  # whether it is W alone: see `without_additions`

    def __init__(self, W: Tensor, rank: int) -> None:
        super().__init__()
        *stack, n, m = W.shape
        self.A = nn.Parameter(torch.randn(*stack, rank, m) / math.sqrt(m))
        self.B = nn.Parameter(torch.zeros(*stack, n, rank))

    def forward(self, W: Tensor) -> Tensor:
        """`[..., n, m]` to `[..., n, m]`."""
        return W if self.off else W + self.B @ self.A


def adapt(net: nn.Module, blocks: Iterable[nn.Module], rank: int) -> None:
    """Gives each matrix of the `blocks` of `net` an addition of this rank, which alone is trained, unless rank is 0.

    The network computes what it did. Whatever its rank, it takes the state dict of one with any other: additions of
    another rank are merged into their matrices, exactly, and its own start at zero.
    """
    if rank:
        net.requires_grad_(False)
        for layer in [module for block in blocks for module in block.modules()]:
            for name, W in list(layer.named_parameters(recurse=False)):
                if W.ndim >= 2:
                    register_parametrization(layer, name, LowRank(W, rank))
    net.register_load_state_dict_pre_hook(_fit)


@contextmanager
def without_additions(net: nn.Module) -> Iterator[None]:
    """Inside, an adapted network computes exactly what it did before `adapt`, with the same weights: no second copy.

    Not to be entered where torch's `cached` holds what its matrices add up to.
    """
    additions = [module for module in net.modules() if isinstance(module, LowRank)]
    for one in additions:
        one.off = True
    try:
        yield
    finally:
        for one in additions:
            one.off = False


def _parts(name: str) -> tuple[str, str, str]:
    """What an adapted matrix called `layer.name` consists of, by name: W, A and B."""
    layer, _, name = name.rpartition(".")
    whole = f"{layer}.parametrizations.{name}"
    return f"{whole}.original", f"{whole}.0.A", f"{whole}.0.B"


def _whole(part: str) -> str:
    """The name of the adapted matrix that consists of a W of this name, among others."""
    return part.removesuffix(".original").replace("parametrizations.", "")


def _fit(net: nn.Module, state: dict[str, Tensor], prefix: str, *others: Any) -> None:
    """Before a state dict is loaded: its matrices, in the parts that this network has."""
    own = {prefix + name: p for name, p in net.named_parameters()}
    adapted = {_whole(name) for names in (own, state) for name in names if name.endswith(".original")}
    for name in adapted:
        W, A, B = _parts(name)
        if W in own and W in state and own[B].shape == state[B].shape:
            continue
        matrix = state.pop(W) + state.pop(B) @ state.pop(A) if W in state else state.pop(name, None)
        if matrix is None:
            continue  # loading says that it is missing
        if W in own:
            state |= {W: matrix, A: own[A].detach(), B: torch.zeros_like(own[B])}
        else:
            state[name] = matrix
