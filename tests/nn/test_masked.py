"""Masked convolutions against a loop over pixels, and by their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.nn.masked import (
    CausalConv2d,
    ColourConv2d,
    GatedResidual,
    MaskedConv2d,
    Scan,
    colour_of,
    even_degrees,
    masked_mlp,
)


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


# Whole images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_masked_square_is_torchs_convolution_by_a_kernel_masked_by_hand(size: int, strict: bool) -> None:
    torch.manual_seed(0)
    source, target = torch.tensor([-1, 0, 1]), torch.tensor([0, 0, 1, 1])
    ours, middle = MaskedConv2d(source, target, size, strict), size // 2
    theirs = nn.Conv2d(3, 4, size, padding=middle)
    weight = torch.zeros(4, 3, size, size)
    weight[:, :, : middle + 1] = ours.weight.detach()
    weight[:, :, middle, middle + 1 :] = 0.0
    for o, i in [(o, i) for o in range(4) for i in range(3)]:
        if not (source[i] < target[o] if strict else source[i] <= target[o]):
            weight[o, i, middle, middle] = 0.0
    theirs.load_state_dict({"weight": weight, "bias": ours.bias.detach()})
    x = torch.randn(2, 3, 6, 5)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("shape", "stride", "expected"), [((5, 4), 1, (5, 4)), ((5, 4), 2, (3, 2)), ((1, 1), 2, (1, 1))]
)
def test_a_causal_convolution_keeps_the_size_or_halves_it(shape: tuple, stride: int, expected: tuple) -> None:
    x = torch.randn(1, 2, *shape, requires_grad=True)
    y = CausalConv2d(2, 3, 2, 3, right=1, stride=stride)(x)
    assert y.shape == (1, 3, *expected)
    (gradient,) = torch.autograd.grad(y[0, :, -1, 0].sum(), x)
    row = (expected[0] - 1) * stride
    seen = torch.zeros(shape, dtype=torch.bool)
    seen[max(0, row - 1) : row + 1, :2] = True
    assert torch.equal((gradient[0] != 0).any(0), seen)


def networks() -> list[nn.Module]:
    plain = torch.zeros(4)
    return [
        CausalConv2d(4, 4, 2, 2),
        CausalConv2d(4, 4, 3, 1),
        MaskedConv2d(plain, plain, 5),
        GatedResidual(lambda inputs, outputs: CausalConv2d(inputs, outputs, 2, 2), 4, 0, 0.0),
    ]


@pytest.mark.parametrize("network", networks(), ids=lambda network: type(network).__name__)
def test_a_scan_pixel_by_pixel_computes_the_whole_image(network: nn.Module) -> None:
    x, scan = torch.randn(2, 4, 4, 5), Scan(4, 5)
    with torch.no_grad():
        parts = [network(x[:, :, i : i + 1, j : j + 1], scan=scan) for i, j in scan.places()]
        torch.testing.assert_close(torch.cat(parts, 3).view(2, 4, 4, 5), network(x))


def test_a_scan_row_by_row_may_look_to_the_right() -> None:
    x, scan, layer = torch.randn(2, 4, 4, 5), Scan(4, 5), CausalConv2d(4, 4, 2, 3, right=1)
    rows = []
    with torch.no_grad():
        for scan.row in range(4):
            rows.append(layer(x[:, :, scan.row : scan.row + 1], scan))
        torch.testing.assert_close(torch.cat(rows, 2), layer(x))


def test_what_a_scan_keeps_serves_two_rows_and_two_columns() -> None:
    scan, layer = Scan(3, 3), nn.Identity()
    kept = []
    for i, j in scan.places():
        if i % 2 == 0 and j % 2 == 0:
            half = scan.half()
            assert (half.row, half.column, half.height, half.width) == (i // 2, j // 2, 2, 2)
            scan.keep(layer, torch.full((1, 1, 2, 2), 10.0 * half.row + half.column))
        kept.append(float(scan.kept(layer, 1)))
    assert kept == [0, 0, 1, 0, 0, 1, 10, 10, 11]


@pytest.mark.parametrize(("units", "inputs"), [(1, 5), (3, 9), (8, 9), (100, 9), (4, 2), (2, 1)])
def test_degrees_leave_no_unit_dead_and_no_input_unread(units: int, inputs: int) -> None:
    degrees = even_degrees(units, inputs)
    assert degrees.shape == (units,)
    assert int(degrees.min()) >= 1
    assert int(degrees.max()) == max(1, inputs - 1)
    assert units < inputs or len(degrees.unique()) == max(1, inputs - 1)
    assert torch.equal(degrees, degrees.sort().values)


# Vectors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [0]])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_masked_perceptron_reads_all_that_comes_before_and_nothing_else(order: list[int], depth: int) -> None:
    turns = torch.tensor(order)
    torch.manual_seed(0)
    network = masked_mlp(turns, 3, 40, depth, 0.0)
    assert not network(torch.randn(2, len(order))).any()  # zero at first
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x[None])[0], torch.randn(len(order)))
    reads = (jacobian.view(3, len(order), len(order)) != 0).any(0)
    assert torch.equal(reads, turns < turns[:, None])
