"""Baselines: known values on digits, and probabilities that sum to one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from evidence import value
from torch import Tensor

from benchmark.data.images import Digits
from benchmark.metrics.likelihood import LogProbs
from benchmark.modalities import image, mixture, text

IMAGE_BASELINES = (image.uniform, image.histogram, image.pixel_histogram)
TEXT_BASELINES = (text.uniform, text.unigram, text.bigram)


def baselines(
    functions: Sequence[Callable[..., Tensor]], train: Tensor, test: Tensor, levels: int
) -> dict[str, Tensor]:
    return {function.__name__: function(train, test, levels) for function in functions}


def test_baselines_of_digits_have_their_known_values(data_root):
    digits = Digits(data_root)
    train, test = digits.split("train").x, digits.split("test").x
    found = {
        name: value("bits_per_dim", LogProbs(log_prob, digits.spec.dims))
        for name, log_prob in baselines(IMAGE_BASELINES, train, test, digits.spec.levels).items()
    }
    assert found["uniform"] == pytest.approx(math.log2(17), abs=1e-9)
    assert found["histogram"] == pytest.approx(2.970, abs=0.03)  # known from another split of the same images
    assert found["pixel_histogram"] == pytest.approx(2.420, abs=0.03)


def test_a_mixture_of_categoricals_is_what_models_of_digits_must_beat(data_root):
    digits = Digits(data_root)
    train, validation, test = (digits.split(name).x for name in ("train", "validation", "test"))
    found = mixture.fit(train, validation, digits.spec.levels, seed=0)
    bits = value("bits_per_dim", LogProbs(found.log_prob(test), digits.spec.dims))
    assert bits == pytest.approx(2.16, abs=0.04)
    again = mixture.fit(train, validation, digits.spec.levels, seed=0)
    assert torch.equal(found.table, again.table)


def test_more_rounds_make_the_training_data_likelier_and_two_kinds_of_images_come_apart(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    kinds = torch.tensor([[0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.9, 0.9]])
    kind = torch.randint(2, (2000,), generator=generator)
    x = torch.bernoulli(kinds[kind], generator=generator).long().view(-1, 1, 2, 2)
    likelihoods = []
    for rounds in (0, 1, 20):
        monkeypatch.setattr(mixture, "ROUNDS", rounds)
        torch.manual_seed(1)
        found = mixture.maximised(x, 2, 2)
        likelihoods.append(found.log_prob(x).mean().item())
    assert likelihoods == sorted(likelihoods)
    on = found.table.view(4, 2, 2)[:, 1].exp().T  # [K, D]: how often each pixel is on
    torch.testing.assert_close(on[on[:, 0].argsort(descending=True)], kinds, atol=0.06, rtol=0)
    every = torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 1, 2, 2)
    p = found.log_prob(every).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    torch.manual_seed(0)
    drawn = found.draw(20_000, (1, 2, 2))
    places = (drawn.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1)
    torch.testing.assert_close(torch.bincount(places, minlength=16) / 20_000, p.float(), atol=0.015, rtol=0)


def test_a_codec_takes_as_much_as_noise_holds_and_next_to_nothing_for_what_repeats():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (100, 1, 16, 16), generator=generator, dtype=torch.uint8)
    assert value("bits_per_dim", LogProbs(image.compressed(noise), 256)) == pytest.approx(8, rel=0.01)
    assert value("bits_per_dim", LogProbs(image.compressed(noise[:1].repeat(100, 1, 1, 1)), 256)) < 0.15


def test_baselines_are_distributions():
    train = torch.tensor([0, 1, 1, 2, 0, 1, 2, 2])
    for name in ("uniform", "unigram", "bigram"):
        for before in range(4):
            pairs = [baselines(TEXT_BASELINES, train, torch.tensor([before, after]), 4)[name] for after in range(4)]
            assert sum(pair[1].exp() for pair in pairs) == pytest.approx(1), name
    grid = torch.cartesian_prod(*[torch.arange(3)] * 4).view(-1, 1, 2, 2)  # all 81 images of 2×2 pixels, 3 levels
    for name, log_prob in baselines(IMAGE_BASELINES, grid[::7], grid, 3).items():
        assert log_prob.exp().sum() == pytest.approx(1), name


def test_counts_are_smoothed_by_one():
    train = torch.tensor([0, 1, 0, 1, 0])
    found = baselines(TEXT_BASELINES, train, torch.tensor([0, 1, 2]), 3)
    assert found["unigram"].exp().tolist() == pytest.approx([4 / 8, 3 / 8, 1 / 8])
    assert found["bigram"].exp().tolist() == pytest.approx([4 / 8, 3 / 5, 1 / 5])
