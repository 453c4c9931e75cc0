"""What is special to Image GPT: what it reads in which order, patches as tokens, cached sampling."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.models.transformer.image_gpt import ImageGPT
from benchmark.nn.optim import JointOptimizer
from benchmark.spec import BadInput, DataSpec

BINARY = DataSpec((1, 4, 6), 2, "grid")
CASES = [
    (DataSpec((1, 4, 3), 5, "grid"), 1),
    (DataSpec((3, 3, 2), 4, "grid"), 1),
    (BINARY, 2),
    (DataSpec((2, 4, 4), 2, "grid"), 2),
    (DataSpec((1, 4, 4), 17, "grid"), 2),  # two tokens a patch
    (DataSpec((1, 4, 4), 256, "grid"), 2),  # four
]


def model(spec: DataSpec, patch: int = 1, **options: Any) -> ImageGPT:
    """A small one whose weights are all drawn, so that no projection starts at zero."""
    torch.manual_seed(0)
    net = ImageGPT(spec, layers=2, heads=2, width=16, patch=patch, **options).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


@pytest.mark.parametrize(("spec", "patch"), CASES, ids=str)
def test_cached_sampling_equals_recomputing_everything(spec: DataSpec, patch: int) -> None:
    net = model(spec, patch)
    torch.manual_seed(1)
    fast = net.sample(4)
    torch.manual_seed(1)
    stream = torch.full((4, net.lag + net.length), net.begin)
    for t in range(net.length):
        probabilities = net(stream[:, : net.lag + t])[:, -1].softmax(1)
        stream[:, net.lag + t] = torch.multinomial(probabilities, 1).squeeze(1)
    assert torch.equal(net.tokens(fast), stream[:, net.lag :])
    assert fast.shape == (4, *spec.shape)
    assert len(fast.unique()) > 1


@pytest.mark.parametrize(("spec", "patch"), CASES, ids=str)
def test_a_token_is_predicted_from_those_before_it_alone(spec: DataSpec, patch: int) -> None:
    net = model(spec, patch)
    stream = torch.randint(net.values, (1, net.lag + net.length))
    logits = net(stream[:, :-1])
    for t in range(net.length):
        changed = stream.clone()
        changed[:, net.lag + t] = (changed[:, net.lag + t] + 1) % net.values
        differs = (net(changed[:, :-1]) != logits).any(-1)[0]  # [T]
        assert not differs[: t + 1].any()
        assert differs[t + 1 :].all()


@pytest.mark.parametrize(("spec", "patch"), CASES, ids=str)
def test_tokens_are_the_image_in_other_words(spec: DataSpec, patch: int) -> None:
    net = model(spec, patch)
    x = torch.randint(spec.levels, (5, *spec.shape))
    tokens = net.tokens(x)
    assert tokens.shape == (5, net.length)
    assert int(tokens.max()) < net.values
    assert torch.equal(net.images(tokens), x)


def test_a_patch_is_the_number_that_its_pixels_write() -> None:
    x = torch.tensor([[[[1, 0, 0, 1], [1, 1, 0, 1]]]])  # 10 over 11 is 1011; 01 over 01 is 0101
    assert model(DataSpec((1, 2, 4), 2, "grid"), 2).tokens(x).tolist() == [[0b1011, 0b0101]]


@pytest.mark.parametrize(("levels", "values"), [(2, 2**4), (8, 8**4), (17, 17**2), (256, 256)])
def test_a_token_is_as_much_of_a_patch_as_a_softmax_can_name(levels: int, values: int) -> None:
    net = ImageGPT(DataSpec((1, 4, 4), levels, "grid"), layers=1, heads=1, width=2, patch=2)
    assert net.values == values
    assert net.values**net.length == levels**16


def test_patches_have_an_exact_likelihood() -> None:
    spec = DataSpec((1, 2, 4), 2, "grid")
    x = torch.tensor(list(product(range(2), repeat=8))).view(-1, 1, 2, 4)
    assert model(spec, 2).log_prob(x).exp().sum().item() == pytest.approx(1)


def test_refuses_what_it_cannot_tile_or_name() -> None:
    with pytest.raises(BadInput, match="patches of 2 x 2 do not tile 3 x 4 pixels"):
        ImageGPT(DataSpec((1, 3, 4), 2, "grid"), patch=2)
    with pytest.raises(BadInput, match="multiple of 8"):
        ImageGPT(BINARY, width=20, heads=4)


def test_matrices_of_blocks_have_muon() -> None:
    optimizer = model(BINARY, 2).configure_optimizers()
    assert isinstance(optimizer, JointOptimizer)
    muon, _ = optimizer.parts
    assert sum(len(group["params"]) for group in muon.param_groups) == 2 * 4
