"""Each remedy against its closed form or a direct computation; and those that are off, which change nothing."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.nn.remedies import (
    BatchDeviation,
    BatchDiscrimination,
    Pack,
    Remedies,
    between,
    feature_matching,
    gradient_norms,
    gradient_penalty,
    lipschitz_penalty,
    matched,
    parameters,
)

ALL = Remedies(spectral=True, kernels=3, deviation=2, packing=2)


def discriminator(width: int, remedies: Remedies, channels: int = 1) -> nn.Sequential:
    """Over images of 4x4 pixels."""
    last, features = remedies.last(width * 16)
    return nn.Sequential(
        *remedies.first(),
        *(remedies.layer(nn.Conv2d(channels * remedies.packing, width, 3, padding=1)), nn.ReLU()),
        *(remedies.layer(nn.Conv2d(width, width, 3, padding=1)), nn.ReLU()),
        *(nn.Flatten(), *last),
        *(remedies.layer(nn.Linear(features, 1)), nn.Flatten(0)),
    )


# Layers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_pack_is_consecutive_examples_stacked_by_channel(layout: Any) -> None:
    y = torch.randn(6, 2, 4, 5).contiguous(memory_format=layout)
    packs = Pack(3)(y)
    assert torch.equal(packs, y.reshape(2, 6, 4, 5))
    assert torch.equal(packs[1], torch.cat([y[3], y[4], y[5]]))


def test_points_are_packed_side_by_side() -> None:
    y = torch.arange(8.0).view(4, 2)
    assert Pack(2)(y).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert torch.equal(Pack(1)(y), y)


def test_the_deviation_of_a_group_is_biased_averaged_over_features_and_the_same_for_its_members() -> None:
    h = torch.tensor([[0.0, 5.0], [2.0, 5.0], [1.0, 0.0], [1.0, 8.0]])  # deviations 1 and 0; 0 and 4
    out = BatchDeviation(2)(h)
    assert torch.equal(out[:, :2], h)
    torch.testing.assert_close(out[:, 2], torch.tensor([0.5, 0.5, 2.0, 2.0]), atol=1e-4, rtol=0)
    expected = h.std(0, correction=0).mean()
    torch.testing.assert_close(BatchDeviation(4)(h)[:, 2], expected.expand(4))


def test_a_collapsed_group_deviates_by_nothing_and_has_gradients() -> None:
    h = torch.ones(4, 3, requires_grad=True)
    out = BatchDeviation(4)(h)
    assert out[:, 3].max() <= 1.01e-4
    (gradient,) = torch.autograd.grad(out[:, 3].sum(), h)
    assert gradient.isfinite().all()


def test_minibatch_discrimination_is_a_sum_over_the_others() -> None:
    torch.manual_seed(0)
    layer, h = BatchDiscrimination(4, kernels=3).double(), torch.randn(5, 4, dtype=torch.float64)
    M = (h @ layer.T).detach().view(5, 3, layer.dims)
    expected = torch.zeros(5, 3, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            for b in range(3):
                if i != j:
                    expected[i, b] += math.exp(-float((M[i, b] - M[j, b]).abs().sum()))
    out = layer(h)
    assert torch.equal(out[:, :4], h)
    torch.testing.assert_close(out[:, 4:], expected, rtol=1e-5, atol=1e-6)


def test_an_example_alone_is_near_to_none_and_one_among_copies_near_to_all() -> None:
    layer = BatchDiscrimination(4, kernels=2)
    assert torch.equal(layer(torch.randn(1, 4))[:, 4:], torch.zeros(1, 2))
    torch.testing.assert_close(layer(torch.ones(7, 4))[:, 4:], torch.full((7, 2), 6.0))


def test_every_layer_has_spectral_norm_one() -> None:
    torch.manual_seed(0)
    network = discriminator(8, Remedies(spectral=True))
    for _ in range(50):  # one power iteration each
        network(torch.randn(2, 1, 4, 4))
    layers: list[Any] = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 3
    for layer in layers:
        largest = torch.linalg.svdvals(layer.weight.flatten(1)).max()
        torch.testing.assert_close(largest, torch.ones(()), rtol=1e-3, atol=0)


# Together ------------------------------------------------------------------------------------------------------------


def test_what_is_off_changes_neither_network_nor_output_nor_random_stream() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(128, 1), nn.Flatten(0)),
    )
    following = torch.rand(1)
    torch.manual_seed(0)
    found = matched(discriminator, 8, Remedies())
    assert torch.equal(torch.rand(1), following)
    assert list(found.state_dict()) == list(plain.state_dict())
    y = torch.randn(3, 1, 4, 4)
    assert torch.equal(found(y), plain(y))
    Remedies().check(2)
    assert torch.equal(Remedies().whole(y), y)


@pytest.mark.parametrize(
    "remedies",
    [
        ALL,
        Remedies(spectral=True),
        Remedies(kernels=1),
        Remedies(kernels=20),
        Remedies(deviation=4),
        Remedies(packing=2),
        Remedies(packing=8),
    ],
)
@pytest.mark.parametrize("width", [32, 64])
def test_a_discriminator_has_as_many_parameters_with_a_remedy_as_without(width: int, remedies: Remedies) -> None:
    goal = parameters(discriminator(width, Remedies()))
    found = matched(discriminator, width, remedies)
    assert abs(parameters(found) - goal) <= 0.05 * goal
    n = 4 * remedies.multiple
    assert found(torch.randn(n, 1, 4, 4)).shape == (n // remedies.packing,)


def test_no_other_width_comes_nearer() -> None:
    remedies = Remedies(kernels=5)
    goal = parameters(discriminator(24, Remedies()))
    off = {w: abs(parameters(discriminator(w, remedies)) - goal) for w in range(1, 49)}
    found = matched(discriminator, 24, remedies)
    assert abs(parameters(found) - goal) == min(off.values())


def test_remedies_that_outgrow_the_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"minibatch_kernels=500 and packing=1 have .* give less of either"):
        matched(partial(discriminator, channels=3), 4, Remedies(kernels=500))


@pytest.mark.parametrize(
    ("n", "remedies"),
    [
        (9, Remedies(packing=2)),
        (10, Remedies(deviation=4)),
        (12, Remedies(packing=2, deviation=4)),
        (1, Remedies()),
        (4, Remedies(packing=4)),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_in_one_line(n: int, remedies: Remedies) -> None:
    with pytest.raises(ValueError, match=f"a batch of {n} with") as error:
        remedies.check(n)
    assert "\n" not in str(error.value)
    assert f"a multiple of {remedies.multiple}, at least {2 * remedies.packing}" in str(error.value)


def test_of_a_batch_the_whole_groups_are_kept() -> None:
    assert len(ALL.whole(torch.zeros(11, 1, 4, 4))) == 8
    ALL.check(8)


# Terms of a loss -----------------------------------------------------------------------------------------------------


def test_the_gradient_penalty_of_a_quadratic() -> None:
    """D(y) = ½ yᵀ A y has the gradient A y, with A symmetric."""
    torch.manual_seed(0)
    A = torch.randn(12, 12)
    A = (A + A.T).requires_grad_()
    y = torch.randn(5, 3, 2, 2, requires_grad=True)
    flat = y.flatten(1)
    score = 0.5 * torch.einsum("bi,ij,bj->b", flat, A, flat)
    penalty = gradient_penalty(score, y)
    expected = (flat @ (A + A.T) / 2).square().sum(1).mean()  # summed over pixels, a mean over examples
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(torch.autograd.grad(penalty, A)[0], torch.autograd.grad(expected, A)[0])


def test_the_gradient_penalty_of_packs_is_a_mean_over_packs() -> None:
    y = torch.randn(6, 2, requires_grad=True)
    score = (Pack(3)(y) * torch.arange(6.0)).sum(1)  # each pack has the gradient 0, 1, ..., 5
    assert gradient_penalty(score, y).item() == pytest.approx(55)


@pytest.mark.parametrize("shape", [(5,), (3, 2, 4)])
def test_between_is_on_a_straight_line_with_one_share_an_example(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(400, *shape, requires_grad=True), torch.randn(400, *shape)
    y = between(real, fake)
    assert y.requires_grad
    assert y.is_leaf
    share = ((y - fake) / (real - fake)).flatten(1).detach().double()
    typical = share.median(1, keepdim=True).values  # free of rounding where both are near each other
    torch.testing.assert_close(share, typical.expand_as(share), rtol=0, atol=1e-2)
    edges = torch.arange(1, 4) / 4
    below = (typical <= edges).double().mean(0)  # uniform on [0, 1]
    torch.testing.assert_close(below, edges.double(), rtol=0, atol=0.08)
    assert 0 <= typical.min() < 0.02
    assert 0.98 < typical.max() <= 1


def test_between_packs_has_one_share_a_pack() -> None:
    torch.manual_seed(0)
    share = between(torch.ones(12, 2), torch.zeros(12, 2), 3)[:, 0]
    packs = share.view(4, 3)
    assert torch.equal(packs, packs[:, :1].expand(4, 3))
    assert len(share.unique()) == 4


@pytest.mark.parametrize("shape", [(6,), (3, 2, 2)])
def test_the_penalty_of_a_linear_critic(shape: tuple[int, ...]) -> None:
    """(‖w‖ - 1)² everywhere, whatever the number of examples. Norms pixel by pixel would give another number."""
    torch.manual_seed(0)
    w = torch.randn(math.prod(shape), dtype=torch.float64, requires_grad=True)
    real, fake = torch.randn(2, 7, *shape, dtype=torch.float64)
    y = between(real, fake)
    score = y.flatten(1) @ w
    torch.testing.assert_close(gradient_norms(score, y), w.norm().expand(7))
    penalty = lipschitz_penalty(score, y)
    torch.testing.assert_close(penalty, (w.norm() - 1).square())
    (found,) = torch.autograd.grad(penalty, w)
    torch.testing.assert_close(found, (2 * (w.norm() - 1) * w / w.norm()).detach())
    by_pixel = (w.detach().view(shape).norm(dim=0) - 1).square().mean()
    assert len(shape) == 1 or abs(penalty.item() - by_pixel.item()) > 0.1


def test_the_penalty_of_packs_is_that_of_the_gradient_of_a_pack() -> None:
    y = between(torch.randn(6, 2), torch.randn(6, 2), packing=3)
    score = Pack(3)(y) @ torch.arange(6.0)  # each pack has the gradient 0, 1, ..., 5
    torch.testing.assert_close(gradient_norms(score, y), torch.full((2,), 55**0.5))
    assert lipschitz_penalty(score, y).item() == pytest.approx((55**0.5 - 1) ** 2)


def test_the_penalty_is_a_mean_of_squares_and_not_a_square_of_means() -> None:
    y = torch.tensor([[0.5], [1.5]], requires_grad=True)
    score = 0.5 * y.square().sum(1)  # slopes of 1/2 and 3/2
    assert lipschitz_penalty(score, y).item() == pytest.approx(0.25)


def test_a_critic_without_a_slope_has_a_finite_penalty_and_gradients() -> None:
    y, w = torch.randn(4, 3, requires_grad=True), torch.zeros(3, requires_grad=True)
    penalty = lipschitz_penalty(y @ w, y)
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    (gradient,) = torch.autograd.grad(penalty, w)
    assert gradient.isfinite().all()


def test_feature_matching_is_of_means_and_not_of_examples() -> None:
    real = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    same_mean = torch.tensor([[2.0, 3.0], [2.0, 3.0], [2.0, 3.0]])
    assert feature_matching(real, same_mean) == 0
    assert feature_matching(real, same_mean + torch.tensor([1.0, -2.0])).item() == pytest.approx(5)


def penalty_by_loops(network: nn.Module, y: Tensor) -> Tensor:
    """Each example by itself."""
    squares = []
    for one in y:
        one = one[None].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network(one).sum(), one)
        squares.append(gradient.square().sum())
    return torch.stack(squares).mean()


def test_the_gradient_penalty_of_a_network_is_that_of_single_examples() -> None:
    torch.manual_seed(0)
    network = discriminator(4, Remedies()).double()
    y = F.pad(torch.randn(5, 1, 2, 4, dtype=torch.float64), (0, 0, 1, 1)).requires_grad_()
    torch.testing.assert_close(gradient_penalty(network(y), y).float(), penalty_by_loops(network, y).float())
