"""Convolutional networks: blocks against the same written out, and what depends on what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.nn.conv import Attention2d, ModulatedResidual, Residual, UNet, decoder, encoder
from benchmark.nn.layers import zeroed


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def convolved(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3x3 convolution as a sum over the nine shifts."""
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1))
    shifted = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    weight = conv.weight.flatten(2)  # [out, in, 9]
    assert conv.bias is not None
    return sum(torch.einsum("oi,bihw->bohw", weight[:, :, k], y) for k, y in enumerate(shifted)) + conv.bias.view(
        -1, 1, 1
    )


def normalised(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Over each example as a whole, then a gain and a shift for each channel."""
    mean, variance = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), keepdim=True, correction=0)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)


def drawn(module: nn.Module) -> Any:
    """With every parameter away from its start; what it is made of is not known to types."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


# Blocks --------------------------------------------------------------------------------------------------------------


def test_a_residual_block_adds_two_convolutions() -> None:
    block, x = drawn(Residual(4, 0.5)), torch.randn(2, 4, 5, 3)
    first, second = (layer for layer in block.modules() if isinstance(layer, nn.Conv2d))
    expected = x + convolved(F.silu(convolved(F.silu(x), first)), second)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def test_a_context_scales_and_shifts_between_the_convolutions() -> None:
    block, x, context = drawn(ModulatedResidual(4, 6, 0.5)), torch.randn(2, 4, 5, 3), torch.randn(2, 6)
    parameters = context @ block.modulation.weight.T + block.modulation.bias
    scale, shift = parameters[:, :4, None, None], parameters[:, 4:, None, None]
    y = convolved(F.silu(normalised(x, block.norm1)), block.conv1)
    y = normalised(y, block.norm2) * (1 + scale) + shift
    expected = x + convolved(F.silu(y), block.conv2)
    torch.testing.assert_close(block(x, context), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: Residual(4, 0.5), lambda: ModulatedResidual(4, 6, 0.5)])
def test_blocks_drop_in_training_only(make: Callable[[], nn.Module]) -> None:
    block = make()
    inputs = (torch.randn(1, 4, 5, 5), torch.randn(1, 6))[: 2 if isinstance(block, ModulatedResidual) else 1]
    assert not torch.equal(block(*inputs), block(*inputs))
    block.eval()
    assert torch.equal(block(*inputs), block(*inputs))


def test_attention_is_torchs_with_one_head_between_all_places() -> None:
    block, x = drawn(Attention2d(6)), torch.randn(3, 6, 4, 2)
    y = normalised(x, block.norm).flatten(2).transpose(1, 2)  # [B, N, P]
    q, k, v = (y @ block.qkv.weight.view(18, 6).T + block.qkv.bias).chunk(3, 2)
    mixed = F.scaled_dot_product_attention(q, k, v) @ block.out.weight.view(6, 6).T + block.out.bias
    torch.testing.assert_close(block(x), x + mixed.transpose(1, 2).view_as(x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch: of its own forward derivatives
def test_attention_can_be_differentiated_forward() -> None:
    block, x, direction = drawn(Attention2d(6)).double(), torch.randn(1, 6, 2, 2).double(), torch.randn(1, 6, 2, 2)
    found = torch.func.jvp(block, (x,), (direction.double(),))[1]
    step = 1e-6 * direction.double()
    torch.testing.assert_close(found, (block(x + step) - block(x - step)) / 2e-6, rtol=1e-5, atol=1e-7)


# Encoder and decoder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 12)])
def test_an_encoder_sees_every_pixel_and_a_decoder_paints_every_one(shape: tuple[int, ...]) -> None:
    see, paint = encoder(shape, 5, 8, 1, 0.0), decoder(5, shape, 8, 1, 0.0)
    x = torch.randn(2, *shape, requires_grad=True)
    z = see(x)
    assert z.shape == (2, 5)
    (gradient,) = torch.autograd.grad(z[0].sum(), x)
    assert (gradient[0] != 0).all()
    assert not gradient[1].any()
    painted = paint(z.detach())
    assert painted.shape == (2, *shape)
    jacobian = torch.autograd.functional.jacobian(lambda z: paint(z[None])[0], torch.randn(5))
    assert (jacobian != 0).any(-1).all()  # every pixel depends on the latents ...
    assert (jacobian != 0).flatten(0, 2).any(0).all()  # ... and every latent is used


@pytest.mark.parametrize("depth", [0, 2])
def test_depth_counts_residual_blocks_at_either_size(depth: int) -> None:
    for network in (encoder((1, 8, 8), 5, 8, depth, 0.0), decoder(5, (1, 8, 8), 8, depth, 0.0)):
        blocks: list[Any] = [block for block in network if isinstance(block, Residual)]
        channels = [block.block[1].in_channels for block in blocks]
        assert sorted(channels) == [4] * depth + [8] * depth


# The U-Net -----------------------------------------------------------------------------------------------------------


def unet(outputs: int = 3, scales: int = 2, patch: int = 1, positions: bool = True, shape: tuple = (2, 8, 4)) -> UNet:
    return UNet(shape, outputs, 4, 1, scales, patch, positions, 0.0, torch.logspace(0, 2, 4))


def test_a_unet_starts_as_nothing() -> None:
    assert torch.equal(unet()(torch.randn(2, 2, 8, 4), torch.rand(2)), torch.zeros(2, 3, 8, 4))


@pytest.mark.parametrize(("scales", "patch"), [(1, 1), (1, 2), (3, 1), (2, 2)])
def test_every_output_of_a_unet_depends_on_every_pixel_and_on_the_time_of_its_own_image(
    scales: int, patch: int
) -> None:
    network = drawn(unet(scales=scales, patch=patch)).double()
    x, t = torch.randn(2, 2, 8, 4).double(), torch.rand(2).double()
    assert network(x, t).shape == (2, 3, 8, 4)
    by_pixel, by_time = torch.autograd.functional.jacobian(network, (x, t))
    for of, on in ((0, 0), (1, 1)):
        assert (by_pixel[of][..., on, :, :, :] != 0).all()
        assert (by_time[of][..., on] != 0).all()
    assert not by_pixel[0][..., 1, :, :, :].any()
    assert not by_time[0][..., 1].any()


def test_places_of_a_unet_with_patches_stay_where_they_are() -> None:
    """A patch weighs most on what comes out in its own place, once attention is quiet and the blocks are small."""
    network: Any = unet(outputs=2, scales=1, patch=2, positions=False).double()
    with torch.no_grad():
        for parameter in (*network.down.parameters(), *network.up.parameters(), *network.attention.parameters()):
            parameter.mul_(0.01)
        network.stem.weight.zero_()
        network.stem.weight[:, :, 1, 1] = torch.randn(4, 8)
        network.head.weight.copy_(torch.linalg.pinv(network.stem.weight[:, :, 1, 1])[:, :, None, None])
    x = torch.randn(1, 2, 8, 4).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x, torch.zeros(1).double())[0], x)[:, :, :, 0]
    size = jacobian.abs().sum((0, 3))  # [H, W, H, W]
    patches = size.view(4, 2, 2, 2, 4, 2, 2, 2).sum((1, 3, 5, 7)).view(8, 8)  # of outputs, and of pixels
    assert patches.argmax(1).tolist() == list(range(8))


def test_skip_connections_lead_past_the_bottom_and_the_bottom_adds_to_them() -> None:
    network, t = drawn(unet(scales=2)), torch.rand(1)
    x, y = torch.randn(2, 1, 2, 8, 4)
    outputs = network(x, t)
    for layer in network.grow:
        zeroed(layer)
    past = network(x, t)
    assert not torch.allclose(past, outputs)
    assert not torch.allclose(past, network(y, t))


def test_learnt_positions_can_be_left_out() -> None:
    with_them, without = (dict(unet(positions=on).named_parameters()) for on in (True, False))
    assert with_them.keys() - without.keys() == {"positions.value"}
    assert with_them["positions.value"].shape == (4, 8, 4)


def test_a_unet_learns_what_needs_the_time() -> None:
    """x times (1 if t is late, else 0): after a brief training most of the error is gone."""
    network = UNet((1, 4, 4), 1, 8, 1, 2, 1, True, 0.0, torch.logspace(0, 1, 8))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    errors = []
    for _ in range(120):
        x, t = torch.randn(16, 1, 4, 4), torch.rand(16)
        late = (t > 0.5).float().view(-1, 1, 1, 1)
        error = (network(x, t) - late * x).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(float(error.detach()))
    assert sum(errors[-10:]) / 10 < 0.25 * errors[0]
