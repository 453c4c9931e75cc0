"""What pixel models have in common: which earlier pixels an output sees, and how samples are drawn incrementally."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from benchmark.models.autoregressive.made import MADE
from benchmark.models.autoregressive.pixelcnn import PixelCNN
from benchmark.models.autoregressive.pixelcnn_pp import PixelCNNpp
from benchmark.models.autoregressive.pixelrnn import PixelRNN, skewed, unskewed
from benchmark.models.autoregressive.pixelsnail import PixelSNAIL
from benchmark.models.base import GenerativeModel
from benchmark.nn.sampling import draw
from benchmark.spec import BadInput, DataSpec

#: Deep enough for images of 7x8 to lie within reach; only the blind spot stays out of sight.
MODELS: dict[type[GenerativeModel], dict[str, Any]] = {
    GatedPixelCNN: {"layers": 8, "channels": 24},
    PixelCNN: {"layers": 8, "channels": 24},
    PixelRNN: {"layers": 1, "channels": 24, "first_kernel": 3},
    PixelCNNpp: {"layers": 2, "channels": 12},
    PixelSNAIL: {"layers": 2, "channels": 12},
}
BY_COLOUR = (GatedPixelCNN, PixelCNN, PixelRNN)  # the others predict pixels
SHAPES = [(1, 7, 8), (3, 3, 4), (1, 2, 2), (2, 1, 3)]


def model(kind: type[GenerativeModel], shape: tuple[int, ...], levels: int = 5, **options: Any) -> Any:
    torch.manual_seed(0)
    return kind(DataSpec(shape, levels, "grid"), **(MODELS.get(kind, {}) | options)).double().eval()


def dependence(net: Any) -> Tensor:
    """Which values each value's prediction depends on, by gradients: `[D, D]`, both in raster order."""
    seen: list[Tensor] = []
    features = net.features

    def watched(x: Tensor) -> Tensor:
        seen.append(features(x).requires_grad_())
        return seen[0]

    net.features = watched
    C, H, W = net.spec.shape
    x = torch.randint(net.spec.levels, (1, C, H, W))
    outputs = net(x)  # logits [1, C, L, H, W] of values, or the parameters of pixels [1, ..., H, W]
    colours = outputs if outputs.ndim == 5 else outputs.unsqueeze(1)
    rows = []
    for i in range(H):
        for j in range(W):
            for c in range(colours.shape[1]):
                (gradient,) = torch.autograd.grad(colours[0, c, :, i, j].square().sum(), seen[0], retain_graph=True)
                rows.append(gradient[0, -C:].permute(1, 2, 0).flatten() != 0)
    return torch.stack(rows)


def earlier(shape: tuple[int, ...]) -> Tensor:
    D = shape[0] * shape[1] * shape[2]
    return torch.ones(D, D, dtype=torch.bool).tril(-1)


def in_pixels_before(shape: tuple[int, ...]) -> Tensor:
    """What the network itself may show a pixel whose colours are coupled by its distribution: `[H W, D]`."""
    place = torch.arange(shape[1] * shape[2])
    return place.repeat_interleave(shape[0]) < place[:, None]


def blind_spot(shape: tuple[int, ...]) -> Tensor:
    """What stands in the a-th row above, and more than a + 2 columns to the right: `[D, D]`."""
    C, H, W = shape
    place = torch.arange(H * W).repeat_interleave(C)
    row, column = place // W, place % W
    above, right = row[:, None] - row, column - column[:, None]
    return (above > 0) & (right > above + 2)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sees_everything_before_and_nothing_after(kind: type[GenerativeModel], shape: tuple[int, ...]) -> None:
    expected = earlier(shape) if kind in BY_COLOUR else in_pixels_before(shape)
    if kind is PixelCNN:
        expected &= ~blind_spot(shape)
        assert shape != (1, 7, 8) or int(blind_spot(shape).sum()) > 100
    assert torch.equal(dependence(model(kind, shape)), expected)


def recomputed(net: Any, n: int) -> Tensor:
    """Samples by the whole image's network, once for each value; draws as `sample` makes them."""
    C, H, W = net.spec.shape
    x = torch.zeros(n, C, H, W, dtype=torch.long)
    for i in range(H):
        for j in range(W):
            if isinstance(net, BY_COLOUR):
                for c in range(C):
                    x[:, c, i, j] = draw(net(x)[:, c, :, i, j])
            else:
                x[:, :, i, j] = net.distribution(net(x)[:, :, i : i + 1, j : j + 1]).sample()[..., 0, 0]
    return x


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_incremental_sampling_equals_recomputing_everything(
    kind: type[GenerativeModel], shape: tuple[int, ...]
) -> None:
    net = model(kind, shape)
    torch.manual_seed(1)
    fast = net.sample(4)
    torch.manual_seed(1)
    assert torch.equal(fast, recomputed(net, 4))
    assert len(fast.unique(dim=0)) == 4


# MADE: a multilayer perceptron, so everything is before something ----------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"embedding": 3, "direct": False}, {"width": 5, "layers": 1}])
def test_made_sees_everything_before_and_nothing_after_in_each_order(options: dict[str, Any]) -> None:
    """Also where hidden units are fewer than inputs."""
    net = model(MADE, (2, 2, 3), orders=3, **{"width": 64} | options)
    seen: list[Tensor] = []
    inputs = net.inputs
    net.inputs = lambda x: seen.append(inputs(x).detach().requires_grad_()) or seen[-1]
    x = torch.randint(5, (8, 12))
    for k in range(3):
        logits = net(x, k)
        places = net.order[k]
        assert sorted(places.tolist()) == list(range(1, 13))
        for d in range(12):
            (gradient,) = torch.autograd.grad(logits[:, d].square().sum(), seen[-1], retain_graph=True)
            found = (gradient.view(8, 12, -1) != 0).any(2).any(0)  # [D]; of eight, since ReLUs switch off
            assert torch.equal(found, places < places[d])
    assert torch.equal(net.order[0], torch.arange(1, 13))
    assert not torch.equal(net.order[1], net.order[2])


def test_no_unit_of_made_is_dead() -> None:
    net = model(MADE, (1, 3, 3), width=16, orders=4)
    for k in range(4):
        hidden, head, _ = net.weights(k)
        assert all((weight != 0).any(1).all() for weight in hidden)  # each reads something
        assert all((weight != 0).any(0).all() for weight in (*hidden[1:], head))  # and something reads it


def test_made_averages_probabilities_of_whole_images() -> None:
    net = model(MADE, (1, 2, 2), levels=3, width=16, orders=4)
    x = torch.cartesian_prod(*[torch.arange(3)] * 4).view(-1, 1, 2, 2)
    each = torch.stack([net.log_prob_in(x, k) for k in range(4)]).exp()  # [K, 81]
    torch.testing.assert_close(net.log_prob(x).exp(), each.mean(0))
    assert each.std(0).max() > 1e-3
    net.averaged = False
    torch.testing.assert_close(net.log_prob(x).exp(), each[0])


@pytest.mark.parametrize("options", [{}, {"embedding": 3, "direct": False}])
def test_made_samples_as_recomputing_everything_would(options: dict[str, Any]) -> None:
    net = model(MADE, (3, 2, 2), orders=3, width=40, **options)
    for k in range(3):
        torch.manual_seed(1)
        fast = net.sample_in(5, k)
        torch.manual_seed(1)
        slow = torch.zeros(5, 12, dtype=torch.long)
        for d in net.order[k].argsort():
            slow[:, d] = draw(net(slow, k)[:, d])
        assert torch.equal(fast, slow)
        assert len(fast.unique(dim=0)) == 5


# What is special to one of them --------------------------------------------------------------------------------------


def test_the_first_place_of_pixelsnail_attends_to_nothing() -> None:
    attention = model(PixelSNAIL, (1, 3, 3)).layers[0].attention
    y = attention(torch.randn(2, 12, 3, 3).double(), torch.randn(2, 2, 3, 3).double(), None)
    assert torch.equal(y[..., 0, 0], torch.zeros(2, 32).double())
    assert (y.flatten(2)[..., 1:] != 0).all()  # and no NaN


def test_pixelsnail_has_a_softmax_too() -> None:
    """Over three colours, each from those before it: what is drawn follows what is scored."""
    net = model(PixelSNAIL, (3, 1, 1), levels=3, outputs="softmax")
    with torch.no_grad():
        for table in net.tables:
            table.weight.normal_(0, 2)
        x = torch.cartesian_prod(*[torch.arange(3)] * 3).view(-1, 3, 1, 1)
        p = net.log_prob(x).exp()
        torch.testing.assert_close(p.sum(), torch.tensor(1.0).double())
        drawn = net.sample(20_000).flatten(1) @ torch.tensor([9, 3, 1])
    torch.testing.assert_close(drawn.bincount(minlength=27) / 20_000, p.float(), rtol=0, atol=0.018)  # 5 errors


def test_diagonals_of_a_map_are_columns_of_the_skewed_one() -> None:
    x = torch.arange(1, 13).view(1, 3, 4)
    expected = [[1, 2, 3, 4, 0, 0], [0, 5, 6, 7, 8, 0], [0, 0, 9, 10, 11, 12]]
    assert skewed(x)[0].tolist() == expected
    assert torch.equal(unskewed(skewed(x), 4), x)


def test_small_images_are_halved_less_often() -> None:
    for shape, halvings in (((1, 2, 2), 1), ((1, 1, 5), 0), ((1, 7, 9), 2), ((1, 28, 28), 3)):
        assert model(PixelCNNpp, shape, halvings=3).vertical.halvings == halvings


@pytest.mark.parametrize(
    ("kind", "shape", "options", "words"),
    [
        (PixelCNN, (1, 4, 4), {"kernel": 4}, "kernel=4"),
        (PixelCNN, (3, 4, 4), {"channels": 4}, "channels=4 cannot hold 3 colours"),
        (PixelRNN, (1, 4, 4), {"first_kernel": 2}, "first_kernel=2 is even"),
        (PixelRNN, (3, 4, 4), {"channels": 5}, "channels=5 cannot hold 3 colours"),
    ],
)
def test_refuses_what_it_cannot_build(kind: Any, shape: tuple[int, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        model(kind, shape, **options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MADE, PixelCNN, PixelRNN, PixelCNNpp, PixelSNAIL])
def test_incremental_sampling_is_ten_times_faster_than_recomputing_everything(kind: type[GenerativeModel]) -> None:
    """At the model's default size, on images of binary MNIST's; MADE in one order."""
    net: Any = kind(DataSpec((1, 28, 28), 2, "grid")).eval()
    by_order = isinstance(net, MADE)
    started = time.process_time()
    x = net.sample_in(16, 0) if by_order else net.sample(16)
    fast = time.process_time() - started

    def forward() -> Tensor:
        return net(x, 0) if by_order else net(x)

    with torch.no_grad():
        forward()  # warm
        started = time.process_time()
        for _ in range(5):
            forward()
    slow = (time.process_time() - started) / 5 * net.spec.dims
    assert slow > 10 * fast, f"{slow:.1f} s against {fast:.1f} s"
