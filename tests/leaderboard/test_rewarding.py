"""What boards say of rows that were tuned to please a reward."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from builders import cost, page, record

from benchmark.leaderboard.dataset import Dataset
from benchmark.leaderboard.plots import Against, drawn
from benchmark.leaderboard.views.board import board_of
from benchmark.record import Record
from benchmark.spec import Score

OPTIONS = {"target": "benchmark.models.hybrid.rewarded.RewardTuned"}
STREAM = {"split": "test", "context": 128, "how": {"likelihood": "exact"}}


def row(model: str, seed: int, reward: float, kl: float, name: str = "iambic", **changes: Any) -> Record:
    said = {
        "split": "test",
        "generated": 100,
        "length": 128,
        "reward": name,
        "how": {"sampler": "ancestral", "draws": 5},
    }
    scores = {
        "nats_per_token": Score("nats/token", 1, 1.5 + kl, 0.01, 100, STREAM),
        "mean_reward": Score("1", 1, reward, 0.01, 100, said),
        "reward_before": Score("1", 1, 0.2, 0.01, 100, said),
        "reward_of_text": Score("1", 1, 0.45, None, 100, said),
        "kl_before": Score("nats/token", 1, kl, 0.001, 100, said),
    }
    given = {"model": model, "data": "speeches", "modality": "text", "seed": seed, "options": OPTIONS}
    return record(cost() | scores, **given, **changes)


FREE = [row("free", seed, reward, 0.5) for seed, reward in ((0, 0.9), (1, 0.8))]
TIGHT = [row("tight", seed, 0.4, kl) for seed, kl in ((0, 0.02), (1, 0.04))]
GAMED = row("gamed", 0, 1.0, 1.0, "exclaims")


def test_a_table_for_each_reward_says_what_was_earned_and_lost() -> None:
    text = page(*FREE, *TIGHT, GAMED, data="speeches")
    _, iambic, *_ = text.split("### Tuned to please a reward: ")
    free, tight = (line for line in iambic.splitlines() if line.startswith(("| free", "| tight")))
    assert "reward iambic" in iambic.splitlines()[0]
    assert "0.850" in free
    assert "0.030" in tight
    assert "0.450" in tight
    assert "gamed" not in iambic.partition("\n#")[0]
    assert text.count("### Tuned to please a reward: ") == 2
    assert "(pictures/reward-iambic-speeches-" in iambic


def test_the_figure_has_a_point_a_row_and_a_dot_a_seed() -> None:
    dataset = Dataset("speeches", {Path(f"{i}.json"): one for i, one in enumerate([*FREE, *TIGHT, GAMED])})
    (budget,) = board_of(dataset).budgets
    plot = next(one.plot for one in budget.varied if one.kind == "reward-iambic")
    assert isinstance(plot, Against)
    points = {spot.name: spot for spot in plot.spots}
    assert (points["free"].x, points["free"].y) == pytest.approx((0.5, 0.85))
    assert sorted(points["tight"].seeds) == [(0.02, 0.4), (0.04, 0.4)]
    assert plot.floors == pytest.approx({"before tuning": 0.2, "held-out text": 0.45})
    assert "tight" in drawn(plot)


def test_a_row_without_a_reward_has_no_table() -> None:
    plain = record(
        cost() | {"nats_per_token": Score("nats/token", 1, math.log(4), 0.01, 100, STREAM)},
        model="plain",
        data="speeches",
        modality="text",
    )
    assert "please a reward" not in page(plain, data="speeches")
