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
from benchmark.modalities import image, text

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
