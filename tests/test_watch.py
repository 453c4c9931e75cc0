"""What is said of a training, as a function of its curves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmark.watch import spikes, stability, tail


def curve(name: str, values: list[float], every: int = 10) -> list[tuple[int, str, float]]:
    return [((i + 1) * every, name, value) for i, value in enumerate(values)]


def test_a_steep_and_noisy_loss_has_no_spikes_and_a_jump_is_one() -> None:
    generator = np.random.default_rng(0)
    loss = 4 * np.exp(-np.arange(400) / 30) + 1 + 0.05 * generator.normal(size=400)
    assert spikes(list(loss)) == 0
    loss[[100, 250, 399]] += 1.0
    loss[200] -= 1.0
    loss[300] = math.nan
    assert spikes(list(loss)) == 3
    assert spikes([1.0] * 400) == 0
    assert spikes([]) == 0


def test_the_gradient_tail_is_a_ratio() -> None:
    assert tail([2.0] * 100) == 1.0
    assert tail([1.0] * 98 + [10.0] * 2) == pytest.approx(10.0)
    assert tail([1.0, math.inf, 1.0]) == 1.0
    assert math.isnan(tail([]))
    assert math.isnan(tail([0.0, 0.0]))


def test_stability_reads_the_curves() -> None:
    curves = [
        (0, "val/nll", 100.0),
        (0, "watch/active_units", 0.0),
        *curve("train/loss", [5.0, 4.0, 3.0]),
        *curve("watch/gradient_norm_0", [1.0, 1.0, 1.0]),
        *curve("watch/gradient_norm_1", [1.0, 1.0, 9.0]),
        (20, "val/nll", 60.0),
        (20, "watch/active_units", 0.5),
        (30, "val/nll", 70.0),
        (30, "watch/active_units", math.nan),
    ]
    found = stability(curves, "nll")
    assert {name: found[name] for name in ("initial", "best", "final")} == {
        "initial": 100.0,
        "best": 60.0,
        "final": 70.0,
    }
    assert (found["loss_spikes"], found["watched_steps"]) == (0.0, 3.0)
    assert found["gradient_tail"] == pytest.approx(tail([1.0, 1.0, 9.0]))
    assert found["active_units_start"] == 0.0
    assert "active_units" not in found, "it is not finite"
    assert stability([], "nll") == {}
    assert stability(curve("val/nll", [5.0]), "nll") == {"best": 5.0, "final": 5.0}, (
        "resumed from before this was watched"
    )
