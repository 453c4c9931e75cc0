"""A transformer's layers on a CPU in full precision, with gradients written out.

Time goes into memory there. What lies between two products is computed in place, and for so many rows at a time that
they stay in the cache; gradients are written out, so that they can be too. `transformer.py` says the same by torch's
own operations, and takes these where `written_out` allows.

Shapes: B examples, T positions, D width, N heads, K = D / N.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 768  # positions at a time


def written_out(x: Tensor) -> bool:
    """Whether the functions below stand in for torch's own operations on `x`: not where a compiler fuses those."""
    return x.is_cpu and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def inverse_rms(x: Tensor) -> Tensor:
    """1 / rms(x) over the last axis, `[..., 1]`."""
    square: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    return square.div_(x.shape[-1]).add_(torch.finfo(x.dtype).eps).rsqrt_()


def through_norm_(dy: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Makes the gradient of x from that of y = x scale, scale = 1 / rms(x): (dy - y mean(y dy)) scale, in place."""
    mean: Tensor = torch.linalg.vecdot(y, dy.mul_(scale)).unsqueeze(-1)
    return dy.addcmul_(y, mean, value=-1 / y.shape[-1])


def turn_(x: Tensor, by: Tensor) -> None:
    """Multiplies neighbours (a, b) of `x` `[b, T, 2, N, K]`, as numbers a + ib, by `by` `[T, 1, 1, K/2]`, in place."""
    torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)).mul_(by)


class Normalised(torch.autograd.Function):
    """y = x / rms(x) for `x` `[..., D]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = inverse_rms(x)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return through_norm_(dy.clone(), *ctx.saved_tensors)


class Projected(torch.autograd.Function):
    """Queries and keys of norm(x), normalised and turned, and values: `[B, T, N, K]` each, for `weight` `[3 D, D]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, table: Tensor, heads: int) -> tuple[Tensor, ...]:
        B, T, D = x.shape
        turn = torch.view_as_complex(table.type_as(x))[:, None]
        y, scales = x.new_empty(B, T, 3, heads, D // heads), []
        examples = max(1, ROWS // T)
        for x_, y_ in zip(x.split(examples), y.split(examples), strict=True):
            scale = inverse_rms(x_)
            torch.mm((x_ * scale).view(-1, D), weight.T, out=y_.view(-1, 3 * D))
            qk = y_[:, :, :2]
            scale_qk = inverse_rms(qk)
            turn_(qk.mul_(scale_qk), turn)
            scales += [scale, scale_qk]
        ctx.save_for_backward(x, y, weight, turn, *scales)
        return y.unbind(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, turn, *scales = ctx.saved_tensors
        D, back = x.shape[2], turn.conj().resolve_conj()
        dx, dweight = torch.empty_like(x), torch.zeros_like(weight.T)
        examples = max(1, ROWS // x.shape[1])
        parts = (each.split(examples) for each in (x, y, dx, *gradients))
        for x_, y_, dx_, *dy_ in zip(*parts, strict=True):
            scale, scale_qk, *scales = scales
            dy = torch.stack(dy_, 2)
            turn_(through_norm_(dy[:, :, :2], y_[:, :, :2], scale_qk), back)
            rows, x_ = dy.view(-1, 3 * D), x_ * scale
            dweight.addmm_(x_.view(-1, D).T, rows)
            torch.mm(rows, weight, out=dx_.view(-1, D))
            through_norm_(dx_, x_, scale)
        return dx, dweight.T, None, None


class Transformed(torch.autograd.Function):
    """max(norm(x) Uᵀ, 0)² Dᵀ for matrices U = `up` `[4 D, D]` and D = `down` `[D, 4 D]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        y, saved = torch.empty_like(x), []
        for x_, y_ in zip(x.view(-1, len(down)).split(ROWS), y.view(-1, len(down)).split(ROWS), strict=True):
            scale = inverse_rms(x_)
            h = torch.mm(x_ * scale, up.T).relu_()
            torch.mm(h.square(), down.T, out=y_)
            saved += [scale, h]
        ctx.save_for_backward(x, up, down, *saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, up, down, *saved = ctx.saved_tensors
        dx, dup, ddown = torch.empty_like(x), torch.zeros_like(down), torch.zeros_like(down)
        parts = (each.reshape(-1, len(down)).split(ROWS) for each in (x, dx, dy))
        for x_, dx_, dy_ in zip(*parts, strict=True):
            scale, h, *saved = saved
            ddown.addmm_(dy_.T, h.square())
            dh, x_ = torch.mm(2 * dy_, down).mul_(h), x_ * scale
            dup.addmm_(x_.T, dh)
            torch.mm(dh, up, out=dx_)
            through_norm_(dx_, x_, scale)
        return dx, dup.T, ddown
