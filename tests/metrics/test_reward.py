"""What a tuned model earns: by hand, from the same noise before and after, and beside real text."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmark.data.text import PyDocs
from benchmark.metrics.probe import Found
from benchmark.metrics.reward import Earned, kl_before, mean_reward, reward_before, reward_of_text
from benchmark.metrics.session import Experts, Protocol, Session
from benchmark.spec import Absence, DataSpec, Rewarded, Sampler

T = 16


class Zeros(Rewarded):
    """Draws token 0 with probability 3/4 at each place, before with 1/4, else token 1; zeros are what pleases."""

    device = torch.device("cpu")
    sampler = Sampler("a test", T)
    reward_name = "zeros"

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.where(x == 0, 0.75, 0.25).log().sum(1)

    def log_prob_before(self, x: Tensor) -> Tensor:
        return torch.where(x == 0, 0.25, 0.75).log().sum(1)

    def reward_of(self, x: Tensor) -> Tensor:
        return (x == 0).double().mean(1)

    def sample(self, n: int) -> Tensor:
        return (torch.rand(n, T) > 0.75).long()

    def sample_before(self, n: int) -> Tensor:
        return (torch.rand(n, T) > 0.25).long()


def session(model: object = None) -> Session:
    data = PyDocs(Path(), context=T)
    return Session(model or Zeros(data.spec), data, Protocol("test", 0, sample_draws=4), Experts())


def test_rewards_and_divergence_by_hand() -> None:
    one = session()
    found = one[Earned]
    assert isinstance(found, Found)
    assert {"reward": "zeros", "generated": 100, "length": T, "split": "test"}.items() <= found.protocol.items()
    now, before = mean_reward(found.evidence), reward_before(found.evidence)
    for estimate, expected in ((now, 0.75), (before, 0.25), (kl_before(found.evidence), 0.5 * math.log(3))):
        assert estimate.stderr is not None
        assert estimate.value == pytest.approx(expected, abs=5 * math.hypot(estimate.stderr, 0.003))
        assert estimate.n == 100
    chosen = one.split.examples((T,))[one.subset(len(one.split.examples((T,))), 100, "written")]
    assert reward_of_text(found.evidence).value == pytest.approx(float((chosen == 0).double().mean()))


def test_both_are_drawn_from_the_same_noise() -> None:
    found = session()[Earned]
    assert isinstance(found, Found)
    now, before = torch.cat(list(found.evidence.now)), torch.cat(list(found.evidence.before))
    assert (now >= before).all(), "a place that was zero still is"


def test_other_models_have_no_reward() -> None:
    found = session(object())[Earned]
    assert isinstance(found, Absence)
    assert "promises no Rewarded" in found.reason
