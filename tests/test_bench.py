"""What the harness costs: the measurement itself."""

from __future__ import annotations

import pytest
from builders import shown

from benchmark import bench
from benchmark.bench import Row, as_table, default_cases, measure


@pytest.mark.parametrize("case", ["vae@digits", "sngan@digits"])  # one optimiser, and two that the model steps itself
def test_a_step_under_the_harness_costs_a_bare_step_and_named_parts(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "STEPS", (6, 12))
    row = measure(case, rounds=1)
    assert row.bare > 0
    assert row.ratio == pytest.approx(row.harness / row.bare)
    assert set(row.parts) == {"schedule", "averaging of weights", "curves and progress", "Lightning's Trainer"}
    assert row.harness == pytest.approx(row.bare + sum(row.parts.values()))
    assert all(row.parts[part] > 0 for part in ("schedule", "averaging of weights", "curves and progress"))


def test_short_steps_are_judged_by_milliseconds_and_long_ones_by_the_ratio() -> None:
    def row(bare: float, ratio: float) -> Row:
        return Row("a model", bare, bare * ratio, ratio, (ratio, ratio), {"schedule": 0.1})

    verdicts = {(1.0, 1.4): "within 0.5 ms", (1.0, 1.6): "over 0.5 ms", (9.0, 1.1): "within 1.15 times"}
    assert {case: row(*case).verdict for case in verdicts} == verdicts
    assert row(9.0, 1.2).verdict == "over 1.15 times"
    assert "over 1.15 times" in shown(as_table([row(9.0, 1.2)]), 60)


def test_every_model_with_settings_for_digits_or_mnist_is_measured() -> None:
    assert {"gpt@pydocs", "vae@digits", "vae@mnist", "sngan@digits"} <= set(default_cases())
