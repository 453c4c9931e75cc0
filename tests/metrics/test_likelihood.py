"""Likelihoods against numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch
from evidence import value

from benchmark.metrics import likelihood
from benchmark.metrics.likelihood import Elbo, LogProb, LogProbs
from benchmark.modalities import image
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


def test_one_example_has_no_standard_error():
    assert likelihood.nll(LogProbs(torch.tensor([-1.0]), IMAGES.dims)).stderr is None
