"""Likelihoods against numbers by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from evidence import value
from known_data import data_of

from benchmark.build import build_examination
from benchmark.evaluate import Experts, Protocol, evaluate
from benchmark.metrics import likelihood
from benchmark.metrics.likelihood import Control, Elbo, LogProb, LogProbs
from benchmark.modalities import image
from benchmark.models.diffusion.flow_matching import FlowMatching
from benchmark.models.vae.vae import VAE
from benchmark.spec import DataSpec

IMAGES = DataSpec((1, 2, 3), 4, "grid")


def test_exact_likelihood_in_each_unit():
    evidence = LogProbs(torch.tensor([-1.0, -2.0, -6.0]), IMAGES.dims)
    nll = likelihood.nll(evidence)
    assert nll.value == pytest.approx(3)
    assert nll.stderr == pytest.approx(math.sqrt(7) / math.sqrt(3))  # sd of 1, 2, 6 is √7
    assert nll.n == 3
    bits = likelihood.bits_per_dim(evidence)
    assert bits.value == pytest.approx(3 / (6 * math.log(2)))
    assert bits.stderr == pytest.approx(nll.stderr / (6 * math.log(2)))
    assert likelihood.nll.probes == likelihood.bits_per_dim.probes == (LogProb, Elbo)  # the exact value goes first


def test_a_uniform_model_scores_the_logarithm_of_the_levels():
    x = torch.zeros(5, 1, 2, 3)
    evidence = LogProbs(image.uniform(x, x, IMAGES.levels), IMAGES.dims)
    assert value("bits_per_dim", evidence) == pytest.approx(2)  # log2 of 4 levels


def test_draws_of_a_bound_are_averaged_before_errors_are_taken_over_examples():
    once = torch.tensor([[-1.0, -2.0, -6.0]])
    for draws in (once, once.repeat(16, 1)):  # a repeated draw brings no new example
        estimate = likelihood.elbo(LogProbs(draws.mean(0), IMAGES.dims))
        assert estimate.value == pytest.approx(-3)
        assert estimate.stderr == pytest.approx(math.sqrt(7 / 3))
        assert estimate.n == 3
    assert value("nll", LogProbs(once.mean(0), IMAGES.dims)) == pytest.approx(3)
    assert value("importance_bound", LogProbs(once[0], IMAGES.dims)) == pytest.approx(-3)


def test_a_control_corrects_a_subset_for_what_it_differs_by():
    """Many subsets of one population: the mean is right, and varies as its error says, less than without control."""
    generator = torch.Generator().manual_seed(0)
    means: list[float] = []
    errors: list[float] = []
    without: list[float] = []
    for _ in range(400):
        y = 5 * torch.randn(2000, generator=generator, dtype=torch.float64) - 100
        c = y - 3 + torch.randn(2000, generator=generator, dtype=torch.float64)  # cheaper, and too low
        n = torch.randperm(2000, generator=generator)[:100]
        estimate = likelihood.elbo(LogProbs(y[n], 1, Control(c[n], c)))
        means.append(estimate.value)
        errors.append(estimate.stderr or 0.0)
        without.append(likelihood.elbo(LogProbs(y[n], 1)).value)
        assert estimate.n == 100
    spread = np.std(means)
    assert abs(np.mean(means) + 100) < 4 * spread / math.sqrt(400)
    assert np.mean(errors) == pytest.approx(spread, rel=0.1)
    assert spread < np.std(without) / 2


@pytest.mark.parametrize(
    ("cls", "metric", "by"), [(VAE, "importance_bound", "elbo"), (FlowMatching, "elbo", "8 evaluations")]
)
def test_what_is_scored_in_part_says_by_what_it_is_corrected(cls, metric, by):
    digits = data_of("digits")
    protocol = Protocol("validation", 0, elbo_draws=1, importance_samples=4, importance_examples=30, solved_examples=30)
    torch.manual_seed(0)
    examination = build_examination("image")
    score = evaluate(cls(digits.spec), digits, protocol, examination, Experts(), [metric]).scores[metric]
    assert score.protocol["subset"] == "30 of 180, random"
    assert score.protocol["all_by"] == by
    everything = replace(protocol, importance_examples=None, solved_examples=None)
    whole = evaluate(cls(digits.spec), digits, everything, examination, Experts(), [metric]).scores[metric]
    assert "all_by" not in whole.protocol


def test_one_example_has_no_standard_error():
    assert likelihood.nll(LogProbs(torch.tensor([-1.0]), IMAGES.dims)).stderr is None
