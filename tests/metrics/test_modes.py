"""Modes of samples made by hand: all of them, one, none; real draws; and modes that a judge tells apart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from evidence import METRICS, value
from known_data import Stream, data_of
from scipy import stats
from torch import Tensor

from benchmark.build import build_examination
from benchmark.data.base import Modes
from benchmark.data.points import GaussianGrid
from benchmark.evaluate import Experts, Protocol, load_judge, references
from benchmark.metrics.extractors.base import Extractor, Features
from benchmark.metrics.modes import ReachedModes, SampleModes
from benchmark.metrics.probe import Found
from benchmark.metrics.samples import Draws, SampleSets
from benchmark.metrics.session import Session
from benchmark.spec import Absence, DataSpec

GRID = torch.cartesian_prod(*[torch.arange(32, 256, 48)] * 2)  # [25, 2]


def reached(*draws: Tensor) -> SampleModes:
    """What the probe finds in draws of points of the grid."""
    data = data_of("gaussian_grid")
    sets = SampleSets(draws, data.split("test").x, data.split("train").x)
    found = Session(None, data, Protocol("test", 0), Experts(), {Draws: Found(sets, {"split": "test"})})[ReachedModes]
    assert isinstance(found, Found)
    assert found.protocol == {"split": "test", "modes": 25, "near": "within 3 standard deviations of its centre"}
    return found.evidence


def test_all_modes_alike() -> None:
    found = reached(GRID.repeat(4, 1))
    assert value("modes_covered", found) == 25
    assert value("mode_kl", found) == pytest.approx(0, abs=1e-12)
    assert value("near_share", found) == 1


def test_one_mode() -> None:
    found = reached(GRID[7].expand(100, 2) + torch.tensor([1, -2]))
    assert value("modes_covered", found) == 1
    assert value("mode_kl", found) == pytest.approx(math.log(25))
    assert value("near_share", found) == 1


def test_noise_between_the_modes() -> None:
    found = reached(GRID + 24)
    assert value("modes_covered", found) == 0
    assert value("near_share", found) == 0
    with pytest.raises(ValueError, match="none of 25 samples is near a mode"):
        METRICS["mode_kl"](found)


def test_what_lies_between_modes_is_left_out_of_their_shares() -> None:
    found = reached(torch.cat([GRID[:5].repeat(3, 1), GRID[5:10], GRID + 24]))
    assert value("modes_covered", found) == 10
    assert value("near_share", found) == pytest.approx(20 / 45)
    p = [3 / 20] * 5 + [1 / 20] * 5
    assert value("mode_kl", found) == pytest.approx(sum(q * math.log(q * 25) for q in p))


def test_errors_are_over_draws() -> None:
    found = METRICS["modes_covered"](reached(GRID, GRID[:22]))
    assert (found.value, found.n) == (23.5, 25)
    assert found.stderr == pytest.approx(1.5)
    assert METRICS["modes_covered"](reached(GRID)).stderr is None


def test_the_divergence_of_real_draws_is_what_their_number_costs() -> None:
    """2 N KL is chi-square with 24 degrees of freedom (Wilks 1938), so that its mean is that of (K - 1) / 2N."""
    data = data_of("gaussian_grid")
    assert isinstance(data, GaussianGrid)
    x = torch.from_numpy(data.source.sample(26_000, seed=5))
    found = reached(x)
    n = int((found.generated[0] >= 0).sum())
    low, high = stats.chi2.ppf([0.001, 0.999], 24) / (2 * n)
    assert low < value("mode_kl", found) < high
    assert (low + high) / 2 == pytest.approx(24 / (2 * n), rel=0.3)
    assert value("modes_covered", found) == 25
    assert value("near_share", found) == pytest.approx(0.980, abs=0.004)


def test_real_points_stand_beside_every_score_and_noise_does_worse() -> None:
    table = references(
        data_of("gaussian_grid"), Protocol("test", 0, sample_draws=2), build_examination("points"), Experts()
    )
    for name in ("held-out data", "training data", "histogram"):
        assert table[name]["modes_covered"].value == 25
        assert table[name]["near_share"].value == pytest.approx(0.98, abs=0.02)
        kl = table[name]["mode_kl"].value
        assert kl is not None
        assert kl < 0.005
    worse = table["uniform"]
    assert worse["near_share"].value == pytest.approx(25 * 37 / 256**2, abs=0.005)
    assert {"generated": 10_000, "modes": 25}.items() <= worse["modes_covered"].protocol.items()


# Modes that a judge tells apart --------------------------------------------------------------------------------------


class Parity(Extractor):
    """Takes what is odd for class 1; of numbers above 4 it is not sure."""

    name, sha256 = "parity", "0"

    def __init__(self) -> None:
        pass

    def __call__(self, x: Tensor) -> Features:
        odd, large = (x[:, 0] % 2).double(), x[:, 0] > 4
        logits = torch.stack([1 - odd, odd], 1) * torch.where(large, 1.0, 9.0)[:, None]
        return Features(odd[:, None], logits)


class Told(Stream):
    """Numbers whose modes a judge tells apart."""

    def __init__(self, modes: Modes | None) -> None:
        super().__init__(torch.arange(8)[:, None], DataSpec((1,), 8, "coordinates"))
        self._modes = modes

    @property
    def modes(self) -> Modes | None:
        return self._modes


def asked(modes: Modes | None, experts: Experts) -> Any:
    x = torch.tensor([[1], [3], [4], [5]])
    draws: Any = {Draws: Found(SampleSets((x,), x, x), {})}
    return Session(None, Told(modes), Protocol("test", 0), experts, draws)[ReachedModes]


def test_modes_may_be_the_classes_of_the_judge() -> None:
    modes = Modes(torch.tensor([0.5, 0.5], dtype=torch.float64))
    found = asked(modes, Experts(judge=Parity()))
    assert found.protocol == {"judge": "parity", "modes": 2, "near": "called with probability above 0.9"}
    assert found.evidence.generated[0].tolist() == [1, 1, 0, 1]
    assert found.evidence.near[0].tolist() == [True, True, True, False]  # of 5 it is less sure
    assert value("modes_covered", found.evidence) == 2
    assert value("near_share", found.evidence) == 0.75
    assert value("mode_kl", found.evidence) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_where_there_is_no_judge_or_no_mode_the_reason_is_said() -> None:
    modes = Modes(torch.ones(1, dtype=torch.float64))
    assert asked(modes, Experts()) == Absence("not run", "no judge of classes was given")
    assert asked(None, Experts()) == Absence("does not apply", "no modes of stream are known")


def test_the_classes_of_digits_are_its_modes() -> None:
    data = data_of("digits")
    assert data.modes is not None
    shares = torch.bincount(data.split("train").labels) / 1437
    torch.testing.assert_close(data.modes.weights, shares.double(), atol=1e-7, rtol=0)
    experts = Experts(judge=load_judge("digits", data.spec))
    table = references(data, Protocol("test", 0, sample_draws=2), build_examination("image"), experts)
    for name in ("held-out data", "training data"):
        assert table[name]["modes_covered"].value == 10
        assert (table[name]["near_share"].value or 0) > 0.9
        assert (table[name]["mode_kl"].value or 1) < 0.1  # 9 / 360 on average
    noise = table["pixel_histogram"]
    assert (noise["near_share"].value or 0) < (table["held-out data"]["near_share"].value or 0) - 0.1
    assert (noise["mode_kl"].value or 0) > 0.1
