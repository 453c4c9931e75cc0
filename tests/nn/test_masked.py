"""Masked convolutions against a loop over pixels, and by their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.nn.masked import ColourConv2d, colour_of


@pytest.mark.parametrize(
    ("channels", "colours", "expected"),
    [(6, 3, [0, 0, 1, 1, 2, 2]), (7, 3, [0, 0, 0, 1, 1, 2, 2]), (4, 1, [0] * 4), (2, 2, [0, 1])],
)
def test_channels_are_shared_out_among_colours(channels: int, colours: int, expected: list[int]) -> None:
    assert colour_of(channels, colours).tolist() == expected


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (2, 1), (3, 2)])
def test_equals_torchs_convolution_by_a_kernel_masked_by_hand(taps: int, dilation: int, strict: bool) -> None:
    torch.manual_seed(0)
    source, target = torch.tensor([-1, 0, 1, 2]), torch.tensor([0, 0, 1, 1, 2, 2])
    ours = ColourConv2d(source, target, taps, dilation, strict)
    theirs = nn.Conv2d(4, 6, (1, taps), dilation=dilation)
    weight = ours.weight.detach().clone()
    for o, i in [(o, i) for o in range(6) for i in range(4)]:
        allowed = source[i] < target[o] if strict else source[i] <= target[o]
        if not allowed:
            weight[o, i, 0, taps - 1] = 0.0
    assert 0 < (weight == 0).sum() < 24
    theirs.load_state_dict({"weight": weight, "bias": ours.bias.detach()})
    x = torch.randn(2, 4, 3, 8)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_its_own_pixel_is_read_in_the_order_of_colours_and_those_to_the_left_whole() -> None:
    torch.manual_seed(0)
    colours = torch.arange(3)
    for strict in (True, False):
        x = torch.randn(1, 3, 1, 6, requires_grad=True)
        y = ColourConv2d(colours, colours, taps=3, strict=strict)(x)
        assert y.shape == (1, 3, 1, 4)
        for colour in range(3):
            (gradient,) = torch.autograd.grad(y[0, colour, 0, 2], x, retain_graph=True)  # over columns 2, 3 and 4
            expected = torch.zeros(3, 6, dtype=torch.bool)
            expected[:, 2:4] = True
            expected[: colour if strict else colour + 1, 4] = True
            assert torch.equal(gradient[0, :, 0] != 0, expected)


def test_what_is_masked_is_never_learnt() -> None:
    colours = torch.arange(3)
    layer = ColourConv2d(colours, colours, taps=2, strict=True)
    layer(torch.randn(4, 3, 5, 5)).square().sum().backward()
    assert torch.equal(layer.weight.grad != 0, layer.mask == 1)
    assert "mask" not in layer.state_dict()
