"""Precision, recall, density, coverage and class histograms, by brute force and against what their papers expect."""

from __future__ import annotations

import pytest
import torch
from evidence import features, normal, samples, value
from torch import Tensor

from benchmark.metrics import coverage
from benchmark.metrics.extractors.base import Features, Verdicts
from benchmark.metrics.samples import SampleClasses, SampleFeatures


def test_dropping_half_of_the_modes_costs_recall_and_not_precision():
    reference = features(0, 200).features
    reference[:100] += 50
    half = Features(normal(5, 100, 4), normal(6, 100, 3))
    evidence = SampleFeatures((half,), half, Features(reference, reference))
    assert value("precision", evidence) > 0.9
    assert 0.4 < value("recall", evidence) <= 0.5


def test_precision_and_recall_by_brute_force():
    drawn = samples(draws=1)
    generated, real = drawn.generated[0].features, drawn.reference.features

    def covered(points: Tensor, manifold: Tensor) -> float:
        inside = 0
        for point in points:
            reached = False
            for centre in manifold:
                radius = (manifold - centre).norm(dim=1).sort().values[3]  # entry 0 is the centre itself
                reached = reached or bool((point - centre).norm() <= radius)
            inside += reached
        return inside / len(points)

    evidence = drawn
    assert value("precision", evidence) == pytest.approx(covered(generated, real))
    assert value("recall", evidence) == pytest.approx(covered(real, generated))


def test_density_and_coverage_by_brute_force():
    drawn = samples(n=30, reference=30, draws=1)
    generated, real = drawn.generated[0].features, drawn.reference.features
    radius = [(real - centre).norm(dim=1).sort().values[5] for centre in real]  # entry 0 is the centre itself
    inside = torch.stack([(generated - c).norm(dim=1) < r for c, r in zip(real, radius, strict=True)])  # [N, M]
    evidence = drawn
    assert value("density", evidence) == pytest.approx(inside.double().sum().item() / (5 * 30))
    assert value("coverage", evidence) == pytest.approx(inside.any(1).double().mean().item())


def test_density_and_coverage_of_a_perfect_sampler_are_what_the_paper_expects():
    """Naeem and others 2020, §3: E[density] = 1 and, for as many real images as samples, E[coverage] = 1 − 2⁻⁵."""
    drawn = SampleFeatures(tuple(features(20 + i, 200, 3) for i in range(4)), features(1, 200, 3), features(3, 1000, 3))
    assert value("density", drawn) == pytest.approx(1, abs=0.05)
    assert value("coverage", drawn) == pytest.approx(1 - 2**-5, abs=0.012)


def test_class_histogram_is_the_total_variation():
    one, two, held_out = (
        Verdicts(torch.tensor(classes), torch.ones(len(classes)))
        for classes in ([0, 0, 1, 1], [0, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3])
    )
    estimate = coverage.class_histogram(SampleClasses((one, two), held_out))
    assert estimate.value == pytest.approx((0.5 + 0) / 2)
    assert estimate.stderr == pytest.approx(0.25)
