"""Blocks of a GAN against their formulas, augmentation by what it may do, losses in closed form."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.nn.adversarial import (
    REFERENCE,
    DownBlock,
    Referenced,
    ReferenceNorm,
    SumPool,
    UpBlock,
    cut_out,
    halvings,
    hinge_discriminator,
    hinge_generator,
    logistic_discriminator,
    logistic_generator,
    translated,
    wasserstein,
)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [((8, 8), (1, 4, 4)), ((28, 28), (2, 7, 7)), ((32, 16), (2, 8, 4)), ((9, 12), (0, 9, 12)), ((2, 2), (0, 2, 2))],
)
def test_sides_halve_until_one_is_odd_or_at_most_four(sides: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert halvings(*sides) == expected


def normal_weight(conv: Any) -> Tensor:
    """The weight over its largest singular value, by torch's decomposition."""
    raw = conv.parametrizations.weight.original
    return raw / torch.linalg.matrix_norm(raw.flatten(1), ord=2)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_block_that_enlarges(scale: int) -> None:
    torch.manual_seed(0)
    block: Any = UpBlock(8, scale, partial(nn.GroupNorm, 4)).double()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    larger = x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    h = F.group_norm(x, 4).relu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    h = F.conv2d(h, block.conv1.weight, block.conv1.bias, padding=1)
    h = F.conv2d(F.group_norm(h, 4).relu(), block.conv2.weight, block.conv2.bias, padding=1)
    torch.testing.assert_close(block(x), larger + h)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_block_that_shrinks(scale: int) -> None:
    torch.manual_seed(0)
    block: Any = DownBlock(8, scale).double()
    x = torch.randn(2, 8, 4, 6, dtype=torch.float64)
    for _ in range(200):  # one power iteration each
        block(x)
    h = F.conv2d(x.relu(), normal_weight(block.conv1), block.conv1.bias, padding=1).relu()
    h = x + F.conv2d(h, normal_weight(block.conv2), block.conv2.bias, padding=1)
    expected = h.unflatten(2, (-1, scale)).unflatten(4, (-1, scale)).mean((3, 5))
    torch.testing.assert_close(block.eval()(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_block_that_shrinks_with_other_layers_and_a_normalisation(scale: int) -> None:
    torch.manual_seed(0)
    block: Any = DownBlock(8, scale, lambda layer: layer, partial(nn.GroupNorm, 1)).double()
    x = torch.randn(2, 8, 4, 6, dtype=torch.float64)
    h = F.conv2d(F.group_norm(x, 1).relu(), block.conv1.weight, block.conv1.bias, padding=1)
    h = x + F.conv2d(F.group_norm(h, 1).relu(), block.conv2.weight, block.conv2.bias, padding=1)
    expected = h.unflatten(2, (-1, scale)).unflatten(4, (-1, scale)).mean((3, 5))
    torch.testing.assert_close(block(x), expected)
    assert not any("parametrizations" in name for name in block.state_dict())


def test_a_block_by_itself_has_no_parameters_but_those_of_its_convolutions() -> None:
    names = {name.rsplit(".", 1)[0] for name, _ in DownBlock(8, 2).named_parameters()}
    assert names == {"conv1", "conv2", "conv1.parametrizations.weight", "conv2.parametrizations.weight"}


def test_a_block_wraps_its_convolutions_and_hands_on_what_is_given_to_its_normalisation() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            return x * c

    torch.manual_seed(0)
    wrapped: list[nn.Module] = []

    def layer(conv: nn.Conv2d) -> nn.Module:
        wrapped.append(conv)
        return conv

    block: Any = UpBlock(3, 1, lambda channels: Scaled(), layer)
    x, c = torch.randn(2, 3, 4, 4), torch.tensor(2.0)
    torch.testing.assert_close(block(x, c), x + block.conv2((2 * block.conv1((2 * x).relu())).relu()))
    assert wrapped == [block.conv1, block.conv2]
    down = DownBlock(3, 1, layer)
    assert wrapped[2:] == [down.conv1, down.conv2]
    assert "parametrizations" not in dict(down.conv1.named_children())


def test_a_sum_over_positions() -> None:
    x = torch.arange(12.0).view(1, 2, 2, 3)
    assert SumPool()(x).tolist() == [[15.0, 51.0]]


class Labelled(nn.Module):
    """Normalises latents plus 10 times their label, without gain and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = ReferenceNorm(3, affine=False)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        y: Tensor = self.norm(z + 10 * labels[:, None])
        return y


def test_in_evaluation_statistics_are_of_fixed_latents_under_all_labels_in_turn() -> None:
    torch.manual_seed(0)
    generator = Referenced(Labelled(), 3, classes=4)
    assert not list(generator.parameters())
    assert list(generator.state_dict()) == ["reference"]
    z, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 3])
    given = z + 10 * labels[:, None]
    torch.testing.assert_close(generator(z, labels), F.batch_norm(given, None, None, training=True))
    latents = generator.state_dict()["reference"] + 10 * (torch.arange(REFERENCE) % 4)[:, None]
    mean, deviation = latents.mean(0), (latents.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(generator.eval()(z, labels), (given - mean) / deviation)


@pytest.mark.parametrize("classes", [1, 10, REFERENCE, 1000])
def test_labels_of_the_reference_are_spread_over_all_classes(classes: int) -> None:
    labels = Referenced(Labelled(), 3, classes).get_buffer("labels")
    counts = torch.bincount(labels, minlength=classes)
    assert len(counts) == classes
    if classes <= REFERENCE:
        assert counts.max() - counts.min() <= 1
    else:
        steps = labels.diff()
        assert set(steps.tolist()) == {classes // REFERENCE, classes // REFERENCE + 1}
        assert labels[-1] >= classes - classes // REFERENCE - 1


def test_translation_is_a_shift_of_the_padded_image_by_one_pixel_at_most() -> None:
    torch.manual_seed(0)
    y = torch.rand(64, 1, 8, 8)
    padded = F.pad(y, (1, 1, 1, 1), value=-1.0)
    seen = set()
    for i, shifted in enumerate(translated(y, 1)):
        matches = [
            (down, right)
            for down in range(3)
            for right in range(3)
            if torch.equal(shifted, padded[i, :, down : down + 8, right : right + 8])
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 9


def test_cutout_paints_one_rectangle_with_the_lowest_level() -> None:
    torch.manual_seed(0)
    y = torch.rand(64, 3, 8, 8)
    cut = cut_out(y, 3)
    painted = cut == -1
    assert torch.equal(cut[~painted], y[~painted])
    assert torch.equal(painted[:, 0], painted[:, 2])
    rows, columns = painted[:, 0].any(2).sum(1), painted[:, 0].any(1).sum(1)
    assert torch.equal(painted[:, 0].sum((1, 2)), rows * columns)
    assert rows.max() == columns.max() == 3


def test_gradients_pass_through_the_augmentation_to_the_pixels_that_are_seen() -> None:
    torch.manual_seed(0)
    y = torch.rand(4, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(translated(y, 1).sum(), y)
    assert torch.equal(gradient[:, :, 1:-1, 1:-1], torch.ones(4, 1, 6, 6))  # a shift by one keeps the inside
    cut = cut_out(y, 3)
    (gradient,) = torch.autograd.grad(cut.sum(), y)
    assert torch.equal(gradient, (cut != -1).float())
    assert (gradient == 0).any()


def test_the_hinge_and_its_gradients() -> None:
    real = torch.tensor([2.0, 0.5, -1.0], requires_grad=True)
    fake = torch.tensor([-3.0, 0.0, 1.0, -0.5], requires_grad=True)
    loss = hinge_discriminator(real, fake)
    assert loss.item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2 + 0.5) / 4)
    loss.backward()
    torch.testing.assert_close(real.grad, -torch.tensor([0.0, 1.0, 1.0]) / 3)
    torch.testing.assert_close(fake.grad, torch.tensor([0.0, 1.0, 1.0, 1.0]) / 4)
    assert hinge_generator(fake).item() == pytest.approx(2.5 / 4)


def test_the_logistic_losses_are_cross_entropies_and_do_not_saturate() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([-300.0, 0.5, 1.0], requires_grad=True)
    entropy = F.binary_cross_entropy_with_logits
    expected = entropy(real, torch.ones(2)) + entropy(fake, torch.zeros(3))
    torch.testing.assert_close(logistic_discriminator(real, fake), expected)
    loss = logistic_generator(fake)
    torch.testing.assert_close(loss, entropy(fake, torch.ones(3)))
    loss.backward()
    assert fake.grad is not None
    assert fake.grad[0].item() == pytest.approx(-1 / 3)  # where D is sure, G learns most


def test_the_distance_is_what_real_examples_score_above_generated_ones() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0, 1.5])
    assert wasserstein(real, fake).item() == pytest.approx(1.25 + 0.5)
