"""Laws on functions: what a flow is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Flow = Callable[[Tensor], tuple[Tensor, Tensor]]  # x [B, *shape] -> z [B, *shape], log|det dz/dx| [B]


def assert_inverse_inverts(forward: Flow, inverse: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """inverse(forward(x)) = x."""
    with torch.no_grad():
        torch.testing.assert_close(inverse(forward(x)[0]), x, rtol=1e-4, atol=1e-4)


def assert_log_det_agrees(forward: Flow, x: Tensor) -> None:
    """The log-determinant is that of the Jacobian that autograd finds, example by example."""
    log_det = forward(x)[1].detach()  # [B]
    expected = []
    for example in x:
        jacobian = torch.autograd.functional.jacobian(lambda v: forward(v[None])[0][0], example)
        expected.append(torch.linalg.slogdet(jacobian.reshape(example.numel(), -1)).logabsdet)
    torch.testing.assert_close(log_det, torch.stack(expected), rtol=1e-4, atol=1e-4)
