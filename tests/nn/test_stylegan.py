"""Layers of StyleGAN2 against what they stand for: scales, a filter by numpy, and one kernel for each example."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from benchmark.nn.stylegan import (
    Activation,
    EqualConv,
    EqualLinear,
    ModulatedConv,
    Normalised,
    ResidualBlock,
    StyledLayer,
    ToImage,
    blurred,
    enlarged,
)

# Equalised learning rates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_a_multiplier_scales_the_steps_and_not_the_start(multiplier: float) -> None:
    torch.manual_seed(0)
    layer = EqualLinear(100, 80, multiplier, bias=1.0)
    assert float(layer.weight.detach().std()) == pytest.approx(1 / multiplier, rel=0.05)

    def effective() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            bias = layer(torch.zeros(1, 100))[0]
            return layer(torch.eye(100)).T - bias[:, None], bias

    weight, bias = effective()
    assert float(weight.std()) == pytest.approx(0.1, rel=0.05)
    torch.testing.assert_close(bias, torch.ones(80))
    optimizer = Adam(layer.parameters(), lr=0.5)
    layer(torch.randn(50, 100)).square().sum().backward()
    optimizer.step()  # 0.5 along each coordinate
    moved_weight, moved_bias = effective()
    steps = (moved_weight - weight).abs(), (moved_bias - bias).abs()
    torch.testing.assert_close(steps[0], torch.full((80, 100), 0.5 * multiplier * 0.1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(steps[1], torch.full((80,), 0.5 * multiplier), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("side", "stride", "size"), [(1, 1, 9), (3, 1, 9), (3, 2, 4), (1, 2, 5)])
def test_convolutions_keep_the_variance_inside(side: int, stride: int, size: int) -> None:
    torch.manual_seed(0)
    layer = EqualConv(40, 30, side, stride)
    y = layer(torch.randn(100, 40, 9, 9))
    assert y.shape == (100, 30, size, size)
    inside = slice(1, -1) if side == 3 else slice(None)
    assert float(y[..., inside, inside].detach().var()) == pytest.approx(1, rel=0.1)
    assert float(layer.weight.detach().std()) == pytest.approx(1, rel=0.05)


def test_the_activation_keeps_the_mean_square_but_for_4_percent() -> None:
    torch.manual_seed(0)
    x = torch.randn(10**6)
    assert float(Activation()(x).square().mean()) == pytest.approx(1.04, rel=0.01)  # 2 (1 + 0.2²) / 2
    torch.testing.assert_close(Activation()(torch.tensor([-1.0, 1.0])), torch.tensor([-0.2, 1.0]) * math.sqrt(2))


def test_normalised_numbers_have_mean_square_one_at_any_scale() -> None:
    torch.manual_seed(0)
    z = torch.randn(5, 7)
    torch.testing.assert_close(Normalised()(z).square().mean(1), torch.ones(5))
    torch.testing.assert_close(Normalised()(100 * z), Normalised()(z))


# Resampling ----------------------------------------------------------------------------------------------------------


def filtered(image: np.ndarray) -> np.ndarray:
    """Rows, then columns, by numpy: of [H, W] all H + 3 by W + 3 places where the filter meets it."""
    for axis in (0, 1):
        image = np.apply_along_axis(np.convolve, axis, image, np.array([1, 3, 3, 1]) / 8, mode="full")
    return image


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_blurred_is_the_filter_in_both_directions(padding: int) -> None:
    torch.manual_seed(0)
    x, edge = torch.randn(2, 3, 5, 6), 3 - padding
    for image, found in zip(x.flatten(0, 1), blurred(x, padding).flatten(0, 1), strict=True):
        expected = filtered(image.numpy())[edge : 8 - edge, edge : 9 - edge]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_enlarged_is_bilinear_inside_and_filtered_zeros_between_pixels() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 6)
    y = enlarged(x)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(y[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])
    sparse = np.zeros((10, 12))
    sparse[::2, ::2] = x[0, 0].numpy()
    np.testing.assert_allclose(y[0, 0].numpy(), 4 * filtered(sparse)[1:11, 1:13], rtol=1e-5, atol=1e-6)


# Modulated convolution -----------------------------------------------------------------------------------------------


def literal(layer: ModulatedConv, x: Tensor, w: Tensor) -> Tensor:
    """Eqs. 1 to 3 as they are written: a kernel for each example, convolved with it alone."""
    images = []
    for image, s in zip(x, layer.style(w), strict=True):
        kernel = s[None, :, None, None] * layer.weight * layer.scale  # eq. 1
        if layer.demodulate:
            kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()  # eqs. 2 and 3
        if layer.enlarge:  # zeros between pixels, convolution, filter
            sparse = torch.zeros(1, len(image), 2 * image.shape[1] - 1, 2 * image.shape[2] - 1)
            sparse[..., ::2, ::2] = image
            images.append(4 * blurred(F.conv2d(sparse, kernel.flip(2, 3), padding=2), 1))
        else:
            images.append(F.conv2d(image[None], kernel, padding=kernel.shape[-1] // 2))
    return torch.cat(images)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("side", "enlarge"), [(1, False), (3, False), (3, True)])
def test_scaled_channels_are_a_kernel_for_each_example(side: int, enlarge: bool, demodulate: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(4, 5, side, 6, enlarge, demodulate)
    x, w = torch.randn(3, 4, 7, 5), 3 * torch.randn(3, 6)
    y = layer(x, w)
    assert y.shape == ((3, 5, 14, 10) if enlarge else (3, 5, 7, 5))
    torch.testing.assert_close(y, literal(layer, x, w), rtol=1e-4, atol=1e-5)


def test_demodulated_outputs_have_unit_variance_whatever_the_style() -> None:
    torch.manual_seed(0)
    layer, w = ModulatedConv(16, 6, 3, 8), 5 * torch.randn(2, 1, 8)
    for style in w:
        y = layer(torch.randn(2000, 16, 5, 5), style.expand(2000, -1))[..., 1:-1, 1:-1]
        torch.testing.assert_close(y.var((0, 2, 3)), torch.ones(6), rtol=0.1, atol=0)
    torch.testing.assert_close(layer.style(torch.zeros(1, 8)), torch.ones(1, 16))  # the bias at first


# What networks are built of ------------------------------------------------------------------------------------------


def test_noise_is_one_image_for_all_channels_and_nothing_at_first() -> None:
    torch.manual_seed(0)
    layer = StyledLayer(3, 4, 5, noise=True)
    x, w = torch.randn(2, 3, 6, 6), torch.randn(2, 5)
    without = layer(x, w)
    assert torch.equal(layer(x, w), without)
    assert layer.strength is not None
    with torch.no_grad():
        layer.strength.fill_(2.0)
    layer.activation = nn.Identity()  # type: ignore[assignment]
    torch.manual_seed(1)
    found = layer(x, w) - layer.conv(x, w)
    torch.manual_seed(1)
    torch.testing.assert_close(found, 2 * torch.randn(2, 1, 6, 6).expand(2, 4, 6, 6), rtol=1e-4, atol=1e-5)
    assert StyledLayer(3, 4, 5, noise=False).strength is None


def test_colours_are_modulated_and_not_demodulated() -> None:
    torch.manual_seed(0)
    layer, x, w = ToImage(4, 3, 5), torch.randn(2, 4, 6, 6), torch.randn(2, 5)
    s = layer.conv.style(w)
    expected = torch.einsum("oi,bi,bihw->bohw", layer.conv.weight[:, :, 0, 0] / 2, s, x)
    torch.testing.assert_close(layer(x, w), expected, rtol=1e-4, atol=1e-5)


def test_a_residual_block_is_a_path_and_its_skip_over_the_root_of_two() -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(4, 6), torch.randn(2, 4, 8, 8)
    nn.init.zeros_(block.conv2.weight)
    smooth = blurred(x, padding=1)[..., ::2, ::2]
    expected = torch.einsum("oi,bihw->bohw", block.skip.weight[:, :, 0, 0] / 2, smooth) / math.sqrt(2)
    torch.testing.assert_close(block(x), expected)
