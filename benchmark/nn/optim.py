"""AdamW over the right parameters, Muon, and several optimisers as one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels, none on biases, gains and other vectors."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def adamw(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019) in torch's fused implementation."""
    groups = parameter_groups(model, weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=epsilon, fused=True)


#: The odd polynomial of degree five, steep at 0, that keeps singular values near 1 when iterated (Jordan and others).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalised(G: Tensor) -> Tensor:
    """About U Vᵀ for each matrix of `[B, n, m]` with singular value decomposition U S Vᵀ, by Newton-Schulz iterations.

    The singular values end between 0.68 and 1.21 where they were above 1/500 of the Frobenius norm, and never above
    1.21. Works in bfloat16 on a GPU, in float32 or better on a CPU, where bfloat16 is often emulated.
    """
    a, b, c = COEFFICIENTS
    X = G.to(torch.promote_types(G.dtype, torch.float32) if G.is_cpu else torch.bfloat16)
    X = X.mT if X.shape[-2] > X.shape[-1] else X  # the smaller Gram matrix
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # no singular value is above 1
    for _ in range(ITERATIONS):
        A = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(A, A, A, beta=b, alpha=c), X, beta=a)  # a X + (b A + c A²) X
    return (X.mT if G.shape[-2] > G.shape[-1] else X).to(G.dtype)


class Muon(Optimizer):
    """Momentum, orthogonalised: each step has about the same size in every direction that a matrix can turn.

    Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024,
    https://kellerjordan.github.io/posts/muon, with Nesterov's momentum, decoupled weight decay, and steps that grow
    with √(rows / columns) of tall matrices. Matrices of one shape are iterated together, in one batched product.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.02, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        """Parameters are matrices, or stacks of them `[..., n, m]`. Raises `ValueError` where one is not."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim < 2:
                    raise ValueError(f"Muon is for matrices: a parameter has the shape {list(p.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = _evaluated(closure)
        for group in self.param_groups:
            same = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    same[p.shape[-2:], p.device, p.dtype].append(p)
            for parameters in same.values():
                self._update(parameters, group["lr"], group["weight_decay"], group["momentum"])
        return loss

    def _update(self, parameters: list[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        """One step of matrices of one shape."""
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        gradients = [p.grad for p in parameters if p.grad is not None]
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        rows, columns = parameters[0].shape[-2:]
        looked_ahead = [x.reshape(-1, rows, columns) for x in torch._foreach_lerp(gradients, buffers, momentum)]
        updates = orthogonalised(torch.cat(looked_ahead)).split([len(x) for x in looked_ahead])
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        scaled = -lr * math.sqrt(max(1, rows / columns))
        torch._foreach_add_(
            parameters, [u.view(p.shape) for u, p in zip(updates, parameters, strict=True)], alpha=scaled
        )


class JointOptimizer(Optimizer):
    """Several optimisers as one: their groups and their state are its own, so schedules and checkpoints just work."""

    def __init__(self, *parts: Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.state = self.state
            part.param_groups = list(islice(groups, len(part.param_groups)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = _evaluated(closure)
        for part in self.parts:
            part.step()
        return loss


def muon_in_blocks(
    model: nn.Module,
    muon_learning_rate: float,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
) -> JointOptimizer:
    """Muon for the matrices of `model.blocks`, where alone weights decay, and AdamW for all else."""
    matrices = {name: p for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim >= 2}
    rest = [p for name, p in model.named_parameters() if name not in matrices]
    return JointOptimizer(
        Muon(matrices.values(), lr=muon_learning_rate, weight_decay=weight_decay),
        AdamW(rest, lr=learning_rate, betas=betas, weight_decay=0.0, fused=True),
    )


def _evaluated(closure: Callable[[], Any] | None) -> Any:
    """The loss that a closure computes, with its gradients."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
