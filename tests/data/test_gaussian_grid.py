"""25 normal distributions on a lattice: their probabilities, their entropy, what is drawn, and which mode it is of."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from known_data import data_of
from scipy.special import ndtr

from benchmark import testing
from benchmark.data import points
from benchmark.data.points import GaussianGrid, NormalGrid, cell_mass
from benchmark.spec import BadInput, DataSpec

LEVELS, CENTRES, SIGMA = 256, range(32, 256, 48), 1.2


@pytest.fixture(scope="module")
def source() -> NormalGrid:
    return NormalGrid(CENTRES, SIGMA, LEVELS)


def every_point(levels: int) -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(levels), torch.arange(levels))


def mixture() -> np.ndarray:
    """p [L, L] as a mixture of 25 distributions of two coordinates each, from differences of Φ."""
    level, centre = np.arange(LEVELS)[:, None], np.array(CENTRES)
    upper = np.where(level == LEVELS - 1, np.inf, level + 0.5)
    lower = np.where(level == 0, -np.inf, level - 0.5)
    mass = ndtr((upper - centre) / SIGMA) - ndtr((lower - centre) / SIGMA)  # [L, 5]
    return np.einsum("ai,bj->ab", mass, mass) / len(CENTRES) ** 2


def test_probabilities_sum_to_one_and_are_those_of_a_mixture(source: NormalGrid) -> None:
    p = np.exp(source.log_prob(every_point(LEVELS).numpy()))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(p.reshape(LEVELS, LEVELS), mixture(), atol=1e-15)


def test_no_point_is_impossible(source: NormalGrid) -> None:
    assert np.isfinite(source.log_prob(every_point(LEVELS).numpy())).all()


def test_the_entropy_is_the_sum_over_all_points(source: NormalGrid) -> None:
    log_p = source.log_prob(every_point(LEVELS).numpy())
    assert source.entropy() == pytest.approx(-(np.exp(log_p) * log_p).sum(), abs=1e-9)
    smooth = math.log(25) + math.log(2 * math.pi * math.e * (SIGMA**2 + 1 / 12))  # of normals that a cell has widened
    assert source.entropy() == pytest.approx(smooth, abs=0.001)


def test_the_outer_cells_reach_to_infinity() -> None:
    assert cell_mass(-1.0, 1.5, 0, 8) == pytest.approx(ndtr(-0.5 / 1.5))
    assert cell_mass(2.0, 1.5, 7, 8) == pytest.approx(1 - ndtr(1.5 / 1.5))
    masses = [cell_mass(level - 3, 1.5, level, 8) for level in range(8)]
    assert sum(masses) == pytest.approx(1, abs=1e-15)
    assert masses[2] == pytest.approx(masses[4])


def test_samples_follow_the_source() -> None:
    small = NormalGrid((1, 4), 0.8, 6)
    spec = DataSpec((2,), 6, "coordinates")
    p = torch.from_numpy(np.exp(small.log_prob(every_point(6).numpy())))
    testing.assert_frequencies_agree(torch.from_numpy(small.sample(20_000, seed=1)).long(), p, spec)
    assert np.array_equal(small.sample(50, seed=1), small.sample(50, seed=1))
    assert not np.array_equal(small.sample(50, seed=1), small.sample(50, seed=2))


def test_every_split_costs_its_source_the_entropy_but_for_luck() -> None:
    data = data_of("gaussian_grid")
    for split in ("train", "validation", "test"):
        truth = data.truth(split)
        surprise = -truth["source"]
        entropy = -float(truth["entropy"][0])
        assert entropy == data.describe()["entropy"]
        assert abs(float(surprise.mean()) - entropy) < testing.SIGMAS * float(surprise.std()) / math.sqrt(len(surprise))


def test_a_point_is_of_the_nearest_centre_within_three_standard_deviations(source: NormalGrid) -> None:
    x = torch.tensor([[32, 32], [34, 35], [35, 35], [224, 223], [128, 80], [56, 56], [0, 255]])
    assert source.mode(x).tolist() == [0, -1, -1, 24, 11, -1, -1]  # 3.6 is near: √13 is not
    assert source.mode(torch.tensor([[35, 33], [29, 32]])).tolist() == [0, 0]
    modes = source.mode(every_point(LEVELS))
    assert torch.bincount(modes[modes >= 0]).tolist() == [37] * 25


def test_modes_are_as_heavy_as_they_say() -> None:
    data = data_of("gaussian_grid")
    assert isinstance(data, GaussianGrid)
    assert data.modes.weights.tolist() == [1 / 25] * 25
    assert data.modes.near == "within 3 standard deviations of its centre"
    p = torch.from_numpy(mixture()).flatten()
    modes = data.source.mode(every_point(LEVELS))
    masses = torch.zeros(25, dtype=torch.float64).index_add_(0, modes[modes >= 0], p[modes >= 0])
    torch.testing.assert_close(masses, masses.mean().expand(25), rtol=1e-9, atol=0)
    assert masses.sum().item() == pytest.approx(0.980, abs=0.0005)  # what docs/metrics.md says that data have


def test_data_without_known_modes_have_none() -> None:
    assert data_of("synthetic_images").modes is None


def test_another_stream_of_random_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "NEAR", 2.0)  # what is drawn does not depend on it
    GaussianGrid(Path("unused"))
    monkeypatch.setattr(NormalGrid, "sample", lambda self, n, seed: np.zeros((n, 2), np.uint8))
    with pytest.raises(BadInput, match="the split of gaussian_grid has SHA-256"):
        GaussianGrid(Path("unused"))
