"""Layers against what they say, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmark.nn.layers import Fourier, Positions, glorot, mlp, time_network, zeroed


def test_glorots_weights_have_his_variance_and_range_and_biases_are_zero() -> None:
    torch.manual_seed(0)
    network = mlp(300, 100, 200, depth=1, dropout=0.0, activation=nn.Tanh)
    glorot(network)
    for layer in network:
        if isinstance(layer, nn.Linear):
            total = layer.in_features + layer.out_features
            assert layer.weight.var().item() == pytest.approx(2 / total, rel=0.05)
            assert layer.weight.abs().max().item() == pytest.approx((6 / total) ** 0.5, rel=0.01)
            assert not layer.bias.any()
    assert [type(layer) for layer in network[2:3]] == [nn.Tanh]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_mlp_is_products_with_silu_between_them(depth: int) -> None:
    torch.manual_seed(0)
    network = mlp(12, 5, 7 if depth else 12, depth, dropout=0.5).eval()
    x = torch.randn(4, 3, 2, 2)
    h, linear = x.reshape(4, 12), [layer for layer in network if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [7] * depth + [5]
    for i, layer in enumerate(linear):
        h = h @ layer.weight.T + layer.bias
        h = F.silu(h) if i < depth else h
    torch.testing.assert_close(network(x), h)


def test_an_mlp_drops_hidden_units_in_training_only() -> None:
    torch.manual_seed(0)
    network, x = mlp(3, 2, 50, 1, dropout=0.5), torch.randn(1, 3)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_zeroed_is_the_same_layer_and_gives_nothing() -> None:
    layer = nn.Conv2d(2, 3, 3)
    assert zeroed(layer) is layer
    assert torch.equal(layer(torch.randn(1, 2, 5, 5)), torch.zeros(1, 3, 3, 3))
    assert all(parameter.requires_grad for parameter in layer.parameters())


def test_positions_start_as_nothing_and_are_learnt_place_by_place() -> None:
    positions, x = Positions(2, 3, 4), torch.randn(5, 2, 3, 4)
    assert torch.equal(positions(x), x)
    weight = torch.randn(2, 3, 4)
    (positions(x) * weight).sum().backward()
    torch.testing.assert_close(positions.value.grad, 5 * weight)


@pytest.mark.parametrize("shape", [(6,), (6, 3, 2, 2)])
def test_fourier_features_are_sines_then_cosines(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, frequencies = torch.randn(shape, dtype=torch.float64), torch.tensor([0.5, 2.0, 30.0], dtype=torch.float64)
    waves = np.exp(1j * np.multiply.outer(frequencies.numpy(), x.numpy())).swapaxes(0, 1)  # [B, F, ...]
    expected = torch.from_numpy(np.concatenate([waves.imag, waves.real], 1))
    torch.testing.assert_close(Fourier(frequencies)(x), expected)


def test_no_frequencies_are_no_features() -> None:
    assert Fourier(torch.zeros(0))(torch.randn(2, 3, 4, 4)).shape == (2, 0, 3, 4, 4)


def test_a_time_network_tells_times_apart_one_by_one() -> None:
    torch.manual_seed(0)
    network = time_network(torch.logspace(0, 3, 8), 10)
    t = torch.tensor([0.0, 0.001, 0.5, 1.0])
    features = network(t)
    assert features.shape == (4, 10)
    torch.testing.assert_close(features, torch.cat([network(one[None]) for one in t]))
    assert torch.pdist(features).min() > 1e-3
    assert not network.state_dict().keys() & {"0.frequencies"}  # given, not learnt: no checkpoint needs them
