"""The diffusion transformer against what it promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.nn.denoisers import denoiser
from benchmark.nn.dit import DiT, DiTBlock, OfPixels, modulated, position_table


def perturbed(network: nn.Module) -> Any:
    """The same network with every parameter away from its start, where much is zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


def transformer(patch: int = 1, positions: bool = True, outputs: int = 3) -> DiT:
    return DiT((2, 4, 4), outputs, 8, 2, 2, patch, positions, 0.0, torch.logspace(0, 1, 4))


def test_it_is_zero_at_first_and_its_blocks_add_nothing() -> None:
    x, t = torch.randn(3, 2, 4, 4), torch.rand(3)
    assert not transformer()(x, t).any()
    h = torch.randn(3, 5, 8)
    assert torch.equal(DiTBlock(8, 2, 0.0)(h, torch.randn(3, 8)), h)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_all_pixels_the_time_and_no_other_example_reach_each_output(patch: int) -> None:
    net, x, t = perturbed(transformer(patch)), torch.randn(2, 2, 4, 4).requires_grad_(), torch.rand(2).requires_grad_()
    y = net(x, t)
    assert y.shape == (2, 3, 4, 4)
    gx, gt = torch.autograd.grad(y[0, 1, 2, 3], (x, t))
    assert gx[0].all()
    assert not gx[1].any()
    assert gt[0] != 0
    assert gt[1] == 0


def test_outputs_stand_where_the_pixels_of_their_patch_came_from() -> None:
    """Without attention a patch knows itself alone: moving one pixel moves its own patch."""
    net: Any = perturbed(transformer(patch=2))
    for block in net.blocks:
        nn.init.zeros_(block.attention.mix.weight)
    x, t = torch.randn(1, 2, 4, 4), torch.rand(1)
    moved = x.clone()
    moved[0, 0, 1, 2] += 1
    changed = (net(moved, t) - net(x, t)).abs().sum((0, 1)) > 1e-6  # [H, W]
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0:2, 2:4] = True
    assert torch.equal(changed, expected)


def test_only_positions_tell_places_apart() -> None:
    x, t = torch.full((1, 2, 4, 4), 0.3), torch.rand(1)
    with torch.no_grad():
        blind, knowing = (perturbed(transformer(positions=positions))(x, t)[0, 0] for positions in (False, True))
    torch.testing.assert_close(blind, blind[0, 0].expand(4, 4))
    assert len(knowing.flatten().unique()) == 16


def test_positions_are_sines_and_cosines_of_rows_and_columns() -> None:
    table = position_table(3, 5, 8)
    assert table.shape == (15, 8)
    row, column = 2, 4
    angles = [place * frequency for place in (row, column) for frequency in (1.0, 0.01)]
    sines, cosines = torch.tensor(angles).sin(), torch.tensor(angles).cos()
    expected = torch.cat([sines[:2], cosines[:2], sines[2:], cosines[2:]])
    torch.testing.assert_close(table[row * 5 + column], expected)


def test_a_block_is_its_formula() -> None:
    """Attention of two heads and the feed-forward layer written out (figure 3)."""
    block, x, context = perturbed(DiTBlock(8, 2, 0.0)), torch.randn(3, 5, 8), torch.randn(3, 8)
    shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(context)[:, None].chunk(6, 2)

    def normed(h: Tensor) -> Tensor:
        return (h - h.mean(2, keepdim=True)) / (h.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()

    h = normed(x) * (1 + scale1) + shift1
    torch.testing.assert_close(h, modulated(x, shift1, scale1))
    weight, bias = block.attention.projections, block.attention.bias.view(3, 8)
    q, k, v = (torch.stack((h @ w.T + b).chunk(2, 2), 1) for w, b in zip(weight, bias, strict=True))  # [B, 2, N, 4]
    mixed = (q @ k.transpose(2, 3) / 2).softmax(3) @ v
    x1 = x + gate1 * block.attention.mix(torch.cat(mixed.unbind(1), 2))
    up = block.feedforward.up(normed(x1) * (1 + scale2) + shift2)
    expected = x1 + gate2 * block.feedforward.down(nn.functional.gelu(up, approximate="tanh"))
    torch.testing.assert_close(block(x, context), expected, rtol=1e-4, atol=1e-4)


def test_of_pixels_it_gives_levels_of_each_colour_and_sees_waves() -> None:
    net: Any = OfPixels((2, 4, 4), 5, 8, 1, 2, 2, True, torch.tensor([3.0]), torch.logspace(0, 1, 4), 0.0)
    assert not net(torch.randn(3, 2, 4, 4), torch.rand(3)).any()
    net.network.head.bias.data = torch.arange(10.0).repeat_interleave(4)  # colour by colour, level by level
    y = net(torch.randn(3, 2, 4, 4), torch.rand(3))
    assert y.shape == (3, 2, 4, 4, 5)
    assert torch.equal(y[1, :, 2, 3], torch.arange(10.0).view(2, 5))
    assert net.network.stem.in_features == 2 * 3 * 4


@pytest.mark.parametrize("network", ["unet", "dit"])
def test_sizes_that_do_not_fit_are_refused_in_words(network: Any) -> None:
    def build(width: int = 8, heads: int = 2, patch: int = 1) -> nn.Module:
        return denoiser(network, (1, 6, 6), 1, width, 1, 1, heads, patch, True, 0.0, torch.ones(2))

    assert build(patch=3)(torch.zeros(1, 1, 6, 6), torch.zeros(1)).shape == (1, 1, 6, 6)
    with pytest.raises(ValueError, match="patch=4"):
        build(patch=4)
    if network == "dit":
        with pytest.raises(ValueError, match="width=8 of a transformer must be divisible by heads=3"):
            build(heads=3)
