"""Actnorm starts from the first batch of training, once; the mixing of channels is P L U, and a rotation at first."""

from __future__ import annotations

import torch
from torch import nn

from benchmark import testing
from benchmark.nn.channels import ActNorm, Mix
from benchmark.nn.flows import Chain

SHIFT, SPREAD = torch.tensor([3.0, -1.0]).view(2, 1, 1), torch.tensor([0.2, 5.0]).view(2, 1, 1)


def batch(seed: int = 0) -> torch.Tensor:
    with testing.seeded(seed):
        return SHIFT + SPREAD * torch.randn(64, 2, 3, 4)


def test_the_first_batch_comes_out_standardised_and_later_ones_change_nothing() -> None:
    norm, x = ActNorm(2), batch()
    y, log_det = norm(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(2), rtol=1e-3, atol=0)
    torch.testing.assert_close(
        log_det, (-12 * x.std((0, 2, 3), correction=0).log().sum()).expand(64), rtol=1e-3, atol=0
    )
    before = norm(x[:1])[0]
    norm(2 * batch(1) + 7)
    assert torch.equal(norm(x[:1])[0], before)


def test_a_chain_of_them_starts_in_order() -> None:
    """Each is given what those before make of the first batch."""
    flow = Chain(ActNorm(2), Mix(2), ActNorm(2))
    y, _ = flow(batch())
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(2), rtol=1e-3, atol=0)


def test_scoring_starts_nothing() -> None:
    norm = ActNorm(2).eval()
    x = batch()
    assert torch.equal(norm(x)[0], x)
    assert not norm.initialized
    norm.train()
    assert not torch.equal(norm(x)[0], x)


def test_a_model_that_comes_back_starts_no_second_time() -> None:
    """Whether it has been trained before its weights are replaced, or not."""
    norm = ActNorm(2)
    norm(batch())
    saved = norm.state_dict()
    assert bool(saved["initialized"])
    for again in (ActNorm(2), nn.Sequential(ActNorm(2)).eval().train()[0]):
        again.load_state_dict(saved)
        assert torch.equal(again(2 * batch(1) + 7)[0], norm(2 * batch(1) + 7)[0])
        assert torch.equal(again.train()(batch(2) - 4)[0], norm(batch(2) - 4)[0])


def test_mixing_starts_as_a_rotation_and_is_a_1x1_convolution() -> None:
    with testing.seeded(0):
        mix, x = Mix(6).double(), torch.randn(3, 6, 2, 5).double()
    y, log_det = mix(x)
    torch.testing.assert_close(y.square().sum(1), x.square().sum(1))
    torch.testing.assert_close(log_det, torch.zeros(3).double(), rtol=0, atol=1e-4)
    with torch.no_grad():
        for parameter in mix.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    L, U = mix.factors()
    W = mix.P @ L @ U
    y, log_det = mix(x)
    torch.testing.assert_close(y, torch.nn.functional.conv2d(x, W[:, :, None, None]))
    torch.testing.assert_close(log_det, (10 * torch.linalg.slogdet(W).logabsdet).expand(3))  # for each of 10 places
    torch.testing.assert_close(mix.inverse(y), x)


def test_mixing_stays_exact_under_autocast() -> None:
    with testing.seeded(0):
        mix, x = Mix(6), torch.randn(3, 6, 2, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = mix(x)
        back = mix.inverse(y)
    assert torch.equal(y, mix(x)[0])
    torch.testing.assert_close(back, x)


def test_the_order_of_pivots_is_saved() -> None:
    with testing.seeded(0):
        mix, other = Mix(6), Mix(6)
    other.load_state_dict(mix.state_dict())
    x = torch.randn(2, 6, 1, 1)
    assert torch.equal(mix(x)[0], other(x)[0])


def test_mixing_may_start_as_a_permutation_and_learns_the_rest() -> None:
    with testing.seeded(0):
        mix, x = Mix(6, start="permutation"), torch.randn(3, 6, 1, 2)
    y, log_det = mix(x)
    assert torch.equal(y.sort(1).values, x.sort(1).values)
    assert not torch.equal(y, x)
    assert not log_det.any()
    torch.testing.assert_close(mix.inverse(y), x)
    y.square().mul(torch.arange(6.0).view(6, 1, 1)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in mix.parameters())
