"""Muon by its laws and against torch's, several optimisers as one, and what AdamW decays."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from benchmark.nn import optim
from benchmark.nn.optim import JointOptimizer, Muon, adamw, orthogonalised, parameter_groups

SHAPES = [(6, 6), (6, 6), (6, 6), (12, 6), (6, 12), (12, 6), (5, 3)]


def matrices(dtype: torch.dtype) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in SHAPES]


def gradients(steps: int, dtype: torch.dtype) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        yield [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES]


def advance(optimiser: Optimizer, parameters: list[nn.Parameter], steps: Iterator[list[Tensor]]) -> None:
    for step in steps:
        for p, gradient in zip(parameters, step, strict=True):
            p.grad = gradient.clone()
        optimiser.step()


@pytest.mark.parametrize("shape", [(1, 40, 40), (2, 160, 40), (2, 40, 160), (3, 40, 60)], ids=str)
def test_updates_have_the_singular_vectors_of_the_gradient_and_values_in_the_published_band(shape: tuple) -> None:
    """Between 0.5 and 1.5, says the published code; these coefficients give 0.68 to 1.21 from 1/500 of the norm on."""
    torch.manual_seed(0)
    *_, rows, columns = shape
    rank = min(rows, columns)
    U, _, Vt = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.logspace(-2, 0, rank)
    assert values.min() / values.norm() > 1 / 500
    G = 37 * U @ values.diag() @ Vt
    update = orthogonalised(G)
    assert update.shape == G.shape
    assert update.dtype == G.dtype
    core = U.mT @ update @ Vt.mT
    assert (core - core.diagonal(dim1=-2, dim2=-1).diag_embed()).abs().max() < 1e-3
    after = torch.linalg.svdvals(update)
    assert after.min() > 0.68
    assert after.max() < 1.21


def test_an_update_of_nothing_is_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_steps_as_torch_does_where_torch_does_not_round_to_bfloat16(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float
) -> None:
    monkeypatch.setattr(torch, "bfloat16", dtype)  # torch's iterates in it
    ours, theirs = matrices(dtype), matrices(dtype)
    advance(Muon(ours, lr=0.1, weight_decay=0.3), ours, gradients(5, dtype))
    advance(torch.optim.Muon(theirs, lr=0.1, weight_decay=0.3), theirs, gradients(5, dtype))
    for mine, reference, start in zip(ours, theirs, matrices(dtype), strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=tolerance)
        assert (mine - start).norm() > 0.1


def test_matrices_of_one_shape_are_iterated_in_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    together, apart = matrices(torch.float32), matrices(torch.float32)
    seen: list[torch.Size] = []

    def watched(G: Tensor) -> Tensor:
        seen.append(G.shape)
        return orthogonalised(G)

    monkeypatch.setattr(optim, "orthogonalised", watched)
    advance(Muon(together), together, gradients(3, torch.float32))
    assert [tuple(shape) for shape in seen] == 3 * [(3, 6, 6), (2, 12, 6), (1, 6, 12), (1, 5, 3)]
    advance(JointOptimizer(*(Muon([p]) for p in apart)), apart, gradients(3, torch.float32))
    for mine, alone in zip(together, apart, strict=True):
        torch.testing.assert_close(mine, alone, rtol=0, atol=1e-5)


def test_a_stack_of_matrices_is_stepped_as_the_matrices_are() -> None:
    apart = matrices(torch.float64)[:3]
    stack = nn.Parameter(torch.stack([p.detach() for p in apart]))
    steps = [step[:3] for step in gradients(3, torch.float64)]
    advance(Muon(apart, weight_decay=0.3), apart, iter(steps))
    advance(Muon([stack], weight_decay=0.3), [stack], ([torch.stack(step)] for step in steps))
    torch.testing.assert_close(stack, torch.stack([p.detach() for p in apart]), rtol=0, atol=1e-12)


def test_iterates_in_float32_on_every_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "bfloat16", None)  # whoever asks for it fails
    assert orthogonalised(torch.randn(1, 3, 4)).dtype == torch.float32
    assert orthogonalised(torch.randn(1, 3, 4, dtype=torch.float16)).dtype == torch.float16


def test_resumes_from_its_state_as_if_it_had_never_stopped() -> None:
    going, stopping = matrices(torch.float32), matrices(torch.float32)
    straight, before = Muon(going, momentum=0.9), Muon(stopping, momentum=0.9)
    advance(straight, going, gradients(6, torch.float32))
    steps = gradients(6, torch.float32)
    advance(before, stopping, (next(steps) for _ in range(3)))
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    resumed = Muon(stopping)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    advance(resumed, stopping, steps)
    for one, other in zip(going, stopping, strict=True):
        assert torch.equal(one, other)


def test_leaves_alone_what_has_no_gradient_and_refuses_what_is_no_matrix() -> None:
    p = nn.Parameter(torch.ones(2, 3))
    Muon([p], weight_decay=0.5).step()
    assert torch.equal(p, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"the shape \[3\]"):
        Muon([nn.Parameter(torch.ones(3))])


def step(net: nn.Module, *optimisers: Optimizer) -> None:
    for optimiser in optimisers:
        optimiser.zero_grad()
    net(torch.ones(3, 4)).square().sum().backward()
    for optimiser in optimisers:
        optimiser.step()


def test_together_steps_as_its_parts_do_apart_through_schedules_and_checkpoints() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    twin = copy.deepcopy(net)

    def parts(net: nn.Sequential) -> list[Optimizer]:
        return [SGD(net[0].parameters(), lr=1e-2, momentum=0.9), Adam(net[1].parameters(), lr=1e-2)]

    together, apart = JointOptimizer(*parts(net)), parts(twin)
    for _ in range(3):
        step(net, together)
        step(twin, *apart)
    resumed = JointOptimizer(*parts(net))
    resumed.load_state_dict(copy.deepcopy(together.state_dict()))
    for group in [*resumed.param_groups, *(group for part in apart for group in part.param_groups)]:
        group["lr"] /= 2
    for _ in range(3):
        step(net, resumed)
        step(twin, *apart)
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_weight_decay_is_of_matrices_and_kernels_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Linear(4, 2), nn.Linear(2, 2).requires_grad_(False))
    decayed, spared = parameter_groups(net, 0.3)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert [p.ndim for p in spared["params"]] == [1, 1, 1, 1]
    before = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    adamw(net, 0.1, 0.3).step()
    for p, old in zip(net.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), old * (1 - 0.1 * 0.3) if p.ndim > 1 and p.requires_grad else old)
