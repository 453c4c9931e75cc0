"""What is special to the gated PixelCNN: where it looks, and how it samples."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from benchmark.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from benchmark.spec import BadInput, DataSpec


def model(shape: tuple[int, ...], levels: int = 5, **options) -> GatedPixelCNN:
    torch.manual_seed(0)
    return GatedPixelCNN(DataSpec(shape, levels, "grid"), channels=24, **options).double().eval()


def dependence(net: GatedPixelCNN, target: tuple[int, int, int]) -> Tensor:
    """Which inputs `[C, H, W]` the logits of `target` depend on, by gradient."""
    colour, row, column = target
    seen: list[Tensor] = []
    features = net.features

    def watched(x: Tensor) -> Tensor:
        seen.append(features(x).requires_grad_())
        return seen[0]

    net.features = watched
    net(torch.randint(net.spec.levels, (1, *net.spec.shape)))[0, colour, :, row, column].square().sum().backward()
    assert seen[0].grad is not None
    return seen[0].grad[0, 1:] != 0


@pytest.mark.parametrize("dilations", [(1,), (1, 2)])
def test_sees_everything_before_and_nothing_after(dilations: tuple[int, ...]) -> None:
    """All of the image lies within reach of eight layers: no blind spot, no leak."""
    net = model((1, 6, 7), layers=8, dilations=dilations)
    position = torch.arange(42).view(1, 6, 7)
    for row, column in [(0, 0), (0, 3), (3, 0), (3, 3), (4, 6)]:
        assert torch.equal(dependence(net, (0, row, column)), position < row * 7 + column)


def test_colours_are_ordered() -> None:
    net = model((3, 3, 3), layers=4)
    position = torch.arange(27).view(3, 3, 3).permute(2, 0, 1)  # rows, columns, then colours
    for colour, row, column in [(0, 1, 1), (1, 1, 1), (2, 2, 0)]:
        assert torch.equal(dependence(net, (colour, row, column)), position < (row * 3 + column) * 3 + colour)


@pytest.mark.parametrize(("shape", "dilations"), [((1, 6, 5), (1, 2)), ((3, 4, 3), (1,))])
def test_incremental_sampling_equals_recomputing_everything(shape: tuple[int, ...], dilations: tuple[int, ...]) -> None:
    net = model(shape, layers=4, kernel=5, dilations=dilations)
    torch.manual_seed(1)
    fast = net.sample(3)
    torch.manual_seed(1)
    slow = torch.zeros(3, *shape, dtype=torch.long)
    for row in range(shape[1]):
        for column in range(shape[2]):
            for colour in range(shape[0]):
                probabilities = net(slow)[:, colour, :, row, column].softmax(1)
                slow[:, colour, row, column] = torch.multinomial(probabilities, 1).squeeze(1)
    assert torch.equal(fast, slow)
    assert len(fast.unique()) > 1


def test_refuses_what_it_cannot_build() -> None:
    with pytest.raises(BadInput, match="kernel=4 is even"):
        model((1, 4, 4), kernel=4)
    with pytest.raises(BadInput, match="channels=2 cannot hold 3 colours"):
        GatedPixelCNN(DataSpec((3, 4, 4), 4, "grid"), channels=2)


@pytest.mark.slow
def test_incremental_sampling_is_ten_times_faster_than_recomputing_everything() -> None:
    net = GatedPixelCNN(DataSpec((1, 28, 28), 2, "grid"), channels=24, dilations=(1, 2, 4)).eval()
    started = time.process_time()
    x = net.sample(16)
    fast = time.process_time() - started
    with torch.no_grad():
        net(x)  # warm
        started = time.process_time()
        for _ in range(5):
            net(x)
    slow = (time.process_time() - started) / 5 * net.spec.dims
    assert slow > 10 * fast
