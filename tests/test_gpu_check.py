"""The check of a GPU, as far as a CPU can tell: its verdicts, what it leaves behind, what it says is to be brought."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from files import REPOSITORY

from benchmark.build import build_model
from benchmark.config import compose
from benchmark.evaluate import cost
from benchmark.spec import BadInput, Batch
from scripts.gpu_check import agreement, luggage, speed
from scripts.gpu_check.agreement import Figure, compared
from scripts.gpu_check.results import Results, table

# Verdicts ------------------------------------------------------------------------------------------------------------

OURS = Figure([-100.0, -200.0, -300.0])
BOUND = Figure([-100.0, -200.0, -300.0], error=0.5)


def off_by(figure: Figure, share: float) -> Figure:
    """The last value alone is wrong."""
    return replace(figure, values=[*figure.values[:-1], figure.values[-1] * (1 + share)])


def test_an_exact_likelihood_agrees_example_by_example() -> None:
    assert compared("exact", OURS, off_by(OURS, 5e-5)).right
    verdict = compared("exact", OURS, off_by(OURS, 2e-4))
    assert not verdict.right
    assert verdict.difference == pytest.approx(2e-4)


def test_values_that_are_not_finite_agree_with_nothing() -> None:
    assert not compared("exact", OURS, off_by(OURS, float("nan"))).right
    assert not compared("bound", BOUND, off_by(BOUND, float("inf"))).right


def test_a_bound_agrees_under_the_same_draws_alone() -> None:
    assert compared("bound", BOUND, off_by(BOUND, 5e-4)).right
    near, far = compared("bound", BOUND, off_by(BOUND, 0.01)), compared("bound", BOUND, off_by(BOUND, 0.1))
    assert (near.right, near.words) == (False, "OTHER DRAWS, within their error")
    assert (far.right, far.words) == (False, "OTHER DRAWS, NOT within their error")


def test_few_samples_may_fall_to_the_other_side_of_an_edge() -> None:
    ours = Figure([float(i % 7) for i in range(1000)])
    assert compared("samples", ours, Figure([1.0 - ours.values[0], *ours.values[1:]])).right
    assert not compared("samples", ours, Figure([*ours.values[500:], *ours.values[:500]])).right


def test_every_shipped_model_is_a_case_and_others_are_refused() -> None:
    assert {case.split("@")[0] for case in agreement.cases()} >= {"vae", "gpt", "lstm", "vdm", "sngan"}
    with pytest.raises(BadInput, match=r"unknown case 'vae@mnist'"):
        agreement.cases(["vae@mnist"])


def test_noise_reaches_what_starts_as_the_identity() -> None:
    """Else half of a network could be wrong, and nobody would see it."""
    model, _, _ = agreement.prepared("gpt@synthetic_text")
    assert all(float(p.detach().abs().sum()) > 0 for p in model.parameters())


def test_the_figures_that_come_along_are_of_todays_models() -> None:
    cases = json.loads(agreement.EXPECTED.read_text())["cases"]
    assert sorted(cases) == sorted(agreement.cases())
    for name in ("vae@digits", "gpt@synthetic_text"):
        model, _, _ = agreement.prepared(name)
        assert agreement.weight(model) == pytest.approx(cases[name]["weights"], rel=1e-6)


# Speed ---------------------------------------------------------------------------------------------------------------


def test_operations_of_a_gpt_are_what_torch_counts() -> None:
    """6N + 12LDT: every product of matrices, and the whole square of attention."""
    case = speed.cases(small=True)[0]
    model = build_model(compose([*case.settings, "budget.examples=1000"]), case.spec)
    batch: Batch = next(speed.batches(case.spec, 2))
    counted = cost.flops_per_example(model, batch) / case.units
    assert case.flops(model, case.spec) == pytest.approx(counted, rel=0.02)  # biases, which it adds, are no products


def test_the_peak_is_of_the_card_that_is_named() -> None:
    known = {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H200": 989e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA GeForce RTX 4090": None,
    }
    assert {name: speed.peak_of(name) for name in known} == known


# What is left behind -------------------------------------------------------------------------------------------------


def test_a_part_that_fails_leaves_what_it_has(tmp_path: Path) -> None:
    pages = []

    def part() -> None:
        with Results(tmp_path, "speed", deadline=time.monotonic() + 60) as results:
            results.add({"case": "first", "ratio": 1.0, "_rounds": [1, 2]})
            pages.append((tmp_path / "speed.md").read_text())  # as it is if nobody comes to end it
            raise ZeroDivisionError("so it goes")

    with pytest.raises(ZeroDivisionError):
        part()
    pages.append((tmp_path / "speed.md").read_text())
    assert "| first | 1 |" in pages[0]
    assert "| first | 1 |" in pages[1]
    assert "under way, or killed" in pages[0]
    assert "ended early: it failed: ZeroDivisionError: so it goes" in pages[1]
    with tarfile.open(tmp_path / "speed.tar.gz") as archive:
        rows = archive.extractfile("speed/results.jsonl")
        assert rows is not None
        assert json.loads(rows.read()) == {"case": "first", "ratio": 1.0, "_rounds": [1, 2]}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["speed.md", "speed.tar.gz"]


def test_rows_with_the_same_headings_make_a_table() -> None:
    first, second = table([{"a": 1, "_b": 2}, {"c": None}, {"a": "x|y"}])
    assert first == "| a |\n| --- |\n| 1 |\n| x\\|y |"
    assert second == "| c |\n| --- |\n|  |"


# What is brought -----------------------------------------------------------------------------------------------------


def test_all_that_is_to_be_brought_is_locked_and_here() -> None:
    versions = luggage.locked_versions((REPOSITORY / "requirements.lock").read_text())
    assert set(luggage.SMALL) | set(luggage.LARGE) <= set(versions)
    assert luggage.missing() == []


def test_a_name_that_nobody_needs_is_not_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert luggage.fetch_wheels(tmp_path / "wheels", ["numpy", "pandas"]) == 2
    assert "pandas: not needed" in capsys.readouterr().err
    assert not (tmp_path / "wheels").exists()


# The script ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_part_is_rehearsed_from_a_copy_without_git(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("benchmark", "configs", "scripts"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if name not in ("BENCHMARK_DATA", "PYTHONPATH")}
    command = ["scripts/gpu_check.sh", "agreement", "out", "--rehearse", "--only", "vae@digits,gpt@synthetic_text"]
    done = subprocess.run(
        command, cwd=copy, env=environment | {"PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (copy / "out").iterdir()) == ["agreement.md", "agreement.tar.gz"]
    page = (copy / "out" / "agreement.md").read_text()
    assert "All figures agree." in page
    assert "of no known commit" in page
    assert "| vae@digits | elbo |" in page
    assert "| gpt@synthetic_text | token_log_prob |" in page
