"""What the harness costs: the measurement itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders import shown
from files import RECORDS

from benchmark import bench, reference
from benchmark.bench import Row, as_machine, as_table, default_cases, measure
from benchmark.config import compose
from benchmark.loop import has_bfloat16
from benchmark.reference import as_yaml, comparison, read_machine, reference_seconds
from benchmark.train import in_bfloat16


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
        return Row("vae", "digits", 1000.0, bare, bare * ratio, ratio, (ratio, ratio), {"schedule": 0.1})

    verdicts = {(1.0, 1.4): "within 0.5 ms", (1.0, 1.6): "over 0.5 ms", (9.0, 1.1): "within 1.15 times"}
    assert {case: row(*case).verdict for case in verdicts} == verdicts
    assert row(9.0, 1.2).verdict == "over 1.15 times"
    assert "over 1.15 times" in shown(as_table([row(9.0, 1.2)]), 60)


def test_every_model_with_settings_for_digits_or_mnist_is_measured() -> None:
    assert {"gpt@pydocs", "vae@digits", "vae@mnist", "sngan@digits"} <= set(default_cases())


def test_a_measured_machine_is_read_as_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that `--reference` writes is what nominal times are computed from."""
    rows = [Row("vae", "digits", 12345.6, 1.0, 1.0, 1.0, (1.0, 1.0), {})]
    (tmp_path / "machine.yaml").write_text(as_yaml(as_machine(rows)), encoding="utf-8")
    machine = read_machine(tmp_path / "machine.yaml")
    assert machine.examples_per_second == {"digits": {"vae": 12350.0}}
    assert machine.loop_seconds > 0
    monkeypatch.setattr(reference, "reference", lambda: machine)
    known, other = (compose([f"data={data}", "model=vae"]) for data in ("digits", "mnist"))
    assert reference_seconds(known) == pytest.approx(known.budget.examples / 12350)
    assert reference_seconds(other) == 60 * other.budget.minutes
    seconds = reference_seconds(known)
    assert comparison(known, 2.4 * seconds).startswith("2.4 times slower than the reference: about ")
    assert comparison(known, seconds / 2).startswith("2.0 times faster than the reference: about ")
    assert comparison(known, seconds).startswith("as fast as the reference: about ")


def test_the_reference_machine_knows_every_model_that_has_records() -> None:
    known = {(data, model) for data, of in reference.reference().examples_per_second.items() for model in of}
    folders = RECORDS.glob("*/*")
    assert {(folder.parent.name, folder.name) for folder in folders} <= known


def test_the_environment_says_that_a_machine_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that training is in float32 there, and the record says so."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.delenv("BENCHMARK_BFLOAT16", raising=False)
    device = torch.device("cpu")
    experiment = compose(["data=digits", "model=vdm"])
    assert has_bfloat16(device)
    assert in_bfloat16(experiment, device)
    monkeypatch.setenv("BENCHMARK_BFLOAT16", "0")
    assert not has_bfloat16(device)
    assert not in_bfloat16(experiment, device)
