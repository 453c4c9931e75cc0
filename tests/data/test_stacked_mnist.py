"""Stacks of three digits: which digits stand in them, which mode they are, and what the judge of digits makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mnist_files import small_mnist
from scipy import stats
from torch import Tensor

from benchmark.build import build_examination
from benchmark.config import compose
from benchmark.data.base import SPLITS, fingerprint
from benchmark.data.images import Mnist
from benchmark.data.stacked import StackedMnist, draw
from benchmark.evaluate import Experts, Protocol, load_extractor, load_judge, references
from benchmark.metrics.extractors.base import OfChannels
from benchmark.spec import Absence, BadInput, DataSpec

SIZES = {"train": 40, "validation": 20, "test": 30}


@pytest.fixture
def small(tmp_path: Path) -> tuple[Mnist, StackedMnist]:
    """30 + 10 made-up digits, of which 24, 6 and 10 are in the splits, and stacks of them."""
    mnist, _ = small_mnist(tmp_path, packed=False)

    chosen = (
        draw(n, SIZES[name], seed) for seed, (name, n) in enumerate(zip(SPLITS, (24, 6, 10), strict=True), start=1)
    )

    class Small(StackedMnist):
        digits = mnist
        sizes = SIZES  # type: ignore[assignment]
        split_sha256 = fingerprint(*chosen)

    return mnist(tmp_path), Small(tmp_path)


def test_a_stack_holds_three_digits_of_its_own_split_and_its_mode_is_their_number(
    small: tuple[Mnist, StackedMnist],
) -> None:
    digits, data = small
    assert data.spec == DataSpec((3, 28, 28), 256, "grid")
    for seed, name in enumerate(SPLITS, start=1):
        ours, theirs = data.split(name), digits.split(name)
        assert ours.labels is not None
        assert theirs.labels is not None
        assert ours.x.shape == (SIZES[name], 3, 28, 28)
        assert ours.x.dtype == torch.uint8
        random = np.random.RandomState(seed)  # whose stream is frozen
        for x, mode in zip(ours.x, ours.labels.tolist(), strict=True):
            chosen = [int(random.randint(len(theirs.x))) for _ in range(3)]
            assert all(torch.equal(channel, theirs.x[i, 0]) for channel, i in zip(x, chosen, strict=True))
            assert f"{mode:03}" == "".join(str(int(theirs.labels[i])) for i in chosen)


def test_training_walks_through_the_stacks_and_is_not_told_their_mode(small: tuple[Mnist, StackedMnist]) -> None:
    _, data = small
    batch = data.batch(seed=3, step=7, batch_size=5)
    assert (batch.x.shape, batch.x.dtype, batch.condition) == ((5, 3, 28, 28), torch.int64, None)
    assert torch.equal(batch.x, data.batch(3, 7, 5).x)
    assert not torch.equal(batch.x, data.batch(3, 8, 5).x)
    epoch = torch.cat([data.batch(0, step, 8).x for step in range(5)])
    assert sorted(bytes(x.to(torch.uint8).numpy()) for x in epoch) == sorted(
        bytes(x.numpy()) for x in data.split("train").x
    )


def test_a_mode_weighs_what_its_digits_do_together(small: tuple[Mnist, StackedMnist]) -> None:
    digits, data = small
    labels = digits.split("train").labels
    assert labels is not None
    shares = torch.bincount(labels, minlength=10).double() / 24
    assert data.modes.weights.sum() == pytest.approx(1)
    for mode in (0, 7, 123, 980):
        a, b, c = map(int, f"{mode:03}")
        assert data.modes.weights[mode] == pytest.approx(float(shares[a] * shares[b] * shares[c]))
    assert data.modes.assign is None, "the judge tells"


def test_another_stream_of_random_numbers_is_refused(small: tuple[Mnist, StackedMnist], tmp_path: Path) -> None:
    _, data = small

    class Other(type(data)):  # type: ignore[misc]
        sizes = SIZES | {"test": 31}

    with pytest.raises(BadInput, match="the split of stacked_mnist has SHA-256"):
        Other(tmp_path)


# Who judges it -------------------------------------------------------------------------------------------------------


def told(x: Tensor) -> tuple[Tensor, Tensor]:
    """A network that reads its class from the first pixel, and is as sure as the second one says."""
    assert x.shape[1] == 1
    pixels = x[:, 0].flatten(1).double()
    logits = torch.zeros(len(x), 10).double()
    logits[range(len(x)), pixels[:, 0].long()] = pixels[:, 1]
    return pixels[:, :1], logits


def test_each_channel_is_judged_by_itself_and_the_least_sure_one_counts() -> None:
    judge = OfChannels("digits", "0", told, chunk=4)
    x = torch.zeros(3, 3, 28, 28, dtype=torch.int64)
    x[:, :, 0, 0] = torch.tensor([[1, 2, 3], [0, 0, 7], [9, 8, 0]])
    x[:, :, 0, 1] = torch.tensor([[9, 9, 9], [9, 2, 9], [1, 3, 2]])
    found = judge.classify(x)
    assert found.classes.tolist() == [123, 7, 980]
    sure = [np.exp(least) / (np.exp(least) + 9) for least in (9, 2, 1)]
    assert found.probability.tolist() == pytest.approx(sure)
    seen = judge(x)
    assert seen.features.tolist() == [[1, 2, 3], [0, 0, 7], [9, 8, 0]]
    assert seen.logits.shape == (3, 30)
    assert isinstance(judge.on(torch.device("cpu")), OfChannels)


def test_its_judge_is_that_of_mnist_and_it_has_no_extractor() -> None:
    spec = DataSpec((3, 28, 28), 256, "grid")
    judge, mnist = (
        load_judge("stacked_mnist", spec),
        load_judge("mnist", DataSpec((1, 28, 28), 256, "grid", DataSpec.label(10))),
    )
    assert isinstance(judge, OfChannels)
    assert not isinstance(mnist, Absence)
    assert (judge.name, judge.sha256) == (mnist.name, mnist.sha256)
    extractor = load_extractor("stacked_mnist", spec)
    assert isinstance(extractor, Absence)
    assert "no extractor for stacked_mnist" in extractor.reason


def test_runs_count_26_000_samples_and_compare_no_pairs_of_them() -> None:
    experiment = compose(["data=stacked_mnist", "model=dcgan", "budget=smoke"])
    assert (experiment.evaluation.sample_draws, experiment.evaluation.sample_examples) == (1, 26_000)
    metrics = build_examination(experiment.data.modality).metrics
    assert {"modes_covered", "mode_kl", "near_share"} <= set(metrics)
    assert not {"fid", "kid", "precision", "recall", "copies", "near_copies", "downstream_accuracy"} & set(metrics)


# On MNIST itself -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stacked_mnist(stored: Callable[[Any], Any]) -> StackedMnist:
    data: StackedMnist = stored(StackedMnist)
    return data


def test_stacked_mnist(stacked_mnist: StackedMnist) -> None:
    described = stacked_mnist.describe()["splits"]
    assert [(described[name]["n"], described[name]["sha256"][:16]) for name in SPLITS] == [
        (128_000, "e0970b9465206c90"),
        (26_000, "c39ab0a3aca6fbdb"),
        (26_000, "0e2b9e6806cfe610"),
    ]
    labels = stacked_mnist.split("validation").labels
    assert labels is not None
    counts = torch.bincount(labels, minlength=1000).double()
    assert counts.min() > 0, "26,000 real stacks reach all modes"
    p = counts / 26_000
    kl = float(torch.special.xlogy(p, p / stacked_mnist.modes.weights).sum())
    assert kl < stats.chi2.ppf(0.999, 999) / 52_000  # 0.022: that of 26,000 draws; their expectation is 0.019


def test_the_judge_tells_real_stacks_apart_and_takes_all_noise_for_one_mode(stacked_mnist: StackedMnist) -> None:
    judge = load_judge("stacked_mnist", stacked_mnist.spec)
    protocol = Protocol("test", 0, sample_draws=1, sample_examples=300)
    table = references(stacked_mnist, protocol, build_examination("stack"), Experts(judge=judge))
    real, noise = table["held-out data"], table["uniform"]
    assert list(table) == ["uniform", "held-out data", "training data"]
    assert (real["near_share"].value or 0) > 0.85
    assert (real["modes_covered"].value or 0) > 230  # of 300 stacks: 259 on average
    assert noise["modes_covered"].value == 1, "white noise is 888,"
    assert noise["near_share"].value == 1, "and the judge is sure of it, as docs/metrics.md says"
    assert real["modes_covered"].protocol["judge"] == noise["modes_covered"].protocol["judge"]
    test = stacked_mnist.split("test")
    assert test.labels is not None
    assert not isinstance(judge, Absence)
    agrees = judge.classify(test.x[:300]).classes == test.labels[:300]
    assert agrees.double().mean() > 0.95
