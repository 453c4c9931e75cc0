"""The harness on real data: what a run leaves behind, and that stopping, breaking and missing parts cannot spoil it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmark import again, train
from benchmark.config import choices, compose, read_yaml
from benchmark.loop import Plan, Progress, get_random_state, set_random_state
from benchmark.record import read_record
from benchmark.spec import BadInput

#: Few steps: what is tested here does not depend on how good a model is.
SHORT = ["budget.examples=160", "training.batch_size=16", "training.validations=2", "evaluation.importance_samples=4"]
SHORT += [
    "evaluation.validation_examples=64",
    "evaluation.sample_draws=2",
    "evaluation.elbo_draws=2",
    "evaluation.solved_examples=8",
    "evaluation.stride=128",
    "budget.minutes=5",
]


def experiment(runs: Path, model: str, *overrides: str) -> Any:
    data = "pydocs" if "text" in read_yaml(choices("model")[model])["modalities"] else "digits"
    more = ["data.context=64"] if data == "pydocs" else []
    names = [f"data={data}", f"model={model}", f"runtime.runs={runs}", "runtime.threads=1", "runtime.device=cpu"]
    return compose([*names, *SHORT, *more, *overrides])


def silent(progress: Progress) -> None:
    pass


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


def carry_out(runs: Path, model: str, *overrides: str) -> Path:
    folder = train.prepare(experiment(runs, model, *overrides))
    train.carry_out(folder, silent)
    return folder


@pytest.mark.parametrize("model", sorted(choices("model")))
def test_a_stopped_run_ends_as_one_that_never_stopped(model: str, tmp_path: Path) -> None:
    whole = carry_out(tmp_path, model)
    stopped = train.prepare(experiment(tmp_path, model))

    def stop_after_the_first_checkpoint(progress: Progress) -> None:
        if (stopped / "last.ckpt").is_file():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.carry_out(stopped, stop_after_the_first_checkpoint)
    assert not (stopped / "record.json").is_file()
    train.carry_out(stopped, silent)
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (stopped / "curves.csv").read_text() == (whole / "curves.csv").read_text()
    assert _values(stopped) == _values(whole)


def _values(folder: Path) -> dict[str, float | None]:
    scores = read_record(folder).scores
    costs = {name for name in scores if "seconds" in name or "minutes" in name or "memory" in name}
    return {name: score.value for name, score in scores.items() if name not in costs | {"examples_per_second"}}


def test_a_run_leaves_everything_behind(tmp_path: Path) -> None:
    folder = carry_out(tmp_path, "vae")
    left = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert left >= {"config.yaml", "last.ckpt", "model.safetensors", "curves.csv", "likelihoods.npz", "record.json"}
    assert "samples/final.png" in left
    raw = json.loads((folder / "record.json").read_text())
    expected = "schema kind status reason model data budget seed config config_hash code_hash git dataset environment"
    assert set(raw) == {*expected.split(), "hardware", "started", "seconds", "scores", "stability", "renewed"}
    assert set(raw["scores"]["nll"]) == {"value", "stderr", "n", "unit", "version", "protocol", "absent"}
    record = read_record(folder)
    assert (record.status, record.reason) == ("finished", None)
    assert record.scores["nll"].n == len(np.load(folder / "likelihoods.npz")["elbo"]) == 180
    mean = float(np.load(folder / "likelihoods.npz")["elbo"].astype(float).mean())
    assert record.scores["elbo"].value == pytest.approx(mean, rel=1e-6)
    assert record.scores["nats_per_token"].absent is not None
    assert set(record.dataset["references"]) == {
        "uniform",
        "histogram",
        "pixel_histogram",
        "held-out data",
        "training data",
    }
    rows = (folder / "curves.csv").read_text().splitlines()
    assert rows[0] == "examples,name,value"
    assert {row.split(",")[1] for row in rows[1:]} >= {"train/loss", "val/nll"}


def test_scores_come_back_from_the_folder(tmp_path: Path) -> None:
    folder = carry_out(tmp_path, "vae")
    scores = again.score_again(folder)
    record = read_record(folder)
    assert {name: score.value for name, score in scores.items()} == {name: record.scores[name].value for name in scores}


def test_a_record_is_renewed_where_metrics_have_changed_and_nowhere_else(tmp_path: Path) -> None:
    folder = carry_out(tmp_path, "vae")
    with pytest.raises(BadInput, match="nothing to renew"):
        again.renew(folder)
    content = json.loads((folder / "record.json").read_text())
    right = content["scores"]["fid"]["value"]
    content["scores"]["fid"] |= {"version": 0, "value": 1.0}  # what FID once meant
    content["scores"]["nll"]["value"] = 2.0  # what is not outdated is not looked at
    del content["scores"]["copies"]
    (folder / "record.json").write_text(json.dumps(content))
    renewed = again.renew(folder)
    record = read_record(renewed)
    assert record.scores["fid"].value == right
    assert record.scores["copies"].value is not None
    assert record.scores["nll"].value == 2.0
    assert record.renewed is not None
    assert record.renewed["run"] == folder.name
    assert record.renewed["scores"] == ["fid", "copies"]
    assert read_record(folder).scores["fid"].value == 1.0
    assert {file.name for file in folder.iterdir()} - {file.name for file in renewed.iterdir()} <= {
        *("lock", "wandb", "last.ckpt")
    }


def test_the_same_samples_come_back_whatever_was_drawn_before(tmp_path: Path) -> None:
    folder = carry_out(tmp_path, "vae")
    first = again.sample_again(folder, 9, seed=1).read_bytes()
    torch.rand(7)
    assert again.sample_again(folder, 9, seed=1).read_bytes() == first
    assert again.sample_again(folder, 9, seed=2).read_bytes() != first


def test_a_run_that_diverges_is_recorded_with_when_and_how(tmp_path: Path) -> None:
    folder = carry_out(tmp_path, "vae", "model.learning_rate=1e30")
    record = read_record(folder)
    assert record.status == "diverged"
    assert record.reason is not None
    assert "of 160 examples" in record.reason
    assert record.scores == {}


def test_a_run_that_overshoots_its_cpu_minutes_is_truncated_and_scored(tmp_path: Path) -> None:
    folder = carry_out(tmp_path, "vae", "budget.minutes=0.001", "budget.examples=1000000")
    record = read_record(folder)
    assert record.status == "truncated"
    assert record.reason is not None
    assert "CPU minutes were spent" in record.reason
    assert record.scores["nll"].value is not None


def test_a_failure_in_the_middle_is_kept_as_a_failure(tmp_path: Path) -> None:
    folder = train.prepare(experiment(tmp_path, "vae"))

    def fail(progress: Progress) -> None:
        if progress.phase == "scoring":
            raise RuntimeError("the disk\nis full")

    with pytest.raises(RuntimeError):
        train.carry_out(folder, fail)
    record = read_record(folder)
    assert (record.status, record.reason) == ("failed", "RuntimeError: the disk")


def test_a_finished_run_is_never_run_over(tmp_path: Path) -> None:
    folder = carry_out(tmp_path, "vae")
    before = (folder / "record.json").read_bytes()
    with pytest.raises(BadInput, match="never overwritten"):
        train.carry_out(folder, silent)
    assert (folder / "record.json").read_bytes() == before


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    more = ["training.patience=2", "training.validations=8", "model.learning_rate=0"]
    folder = carry_out(tmp_path, "vae", *more)
    curve = [row.split(",") for row in (folder / "curves.csv").read_text().splitlines()[1:]]
    values = [float(value) for _, name, value in curve if name == "val/nll"]
    assert values == [values[0]] * 4  # before training, the best, and two no better: validation has no noise of its own
    record = read_record(folder)
    assert record.status == "finished"
    assert record.scores["selection"].value == values[0]


def test_weights_that_are_averaged_are_the_ones_that_are_kept(tmp_path: Path) -> None:
    live, averaged = (carry_out(tmp_path, "vae", f"training.ema_decay={decay}") for decay in (0, 0.999))
    assert (live / "last.ckpt").read_bytes() != (averaged / "last.ckpt").read_bytes()
    trained = torch.load(averaged / "last.ckpt", weights_only=True)
    plain = torch.load(live / "last.ckpt", weights_only=True)
    for name, weight in trained["state_dict"].items():  # averaging does not touch what is trained
        assert torch.equal(weight, plain["state_dict"][name]), name
    assert (live / "model.safetensors").read_bytes() != (averaged / "model.safetensors").read_bytes()


def test_random_states_survive_a_file_that_holds_only_tensors_and_numbers(tmp_path: Path) -> None:
    import random

    torch.save(get_random_state(), tmp_path / "state")
    expected = (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == expected


def test_the_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    plan = Plan(1000, 10, warmup=0.1, decay=0.4, clip_norm=0, ema_decay=0, validations=3, patience=0, cpu_seconds=1)
    factors = [plan.rate_factor(step / plan.steps) for step in range(plan.steps)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[20:60] == [1.0] * 40
    assert factors[80] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.03
    assert plan.validation_steps == {33, 67, 100}


def test_weights_and_biases_that_fail_or_are_missing_do_not_fail_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark import tracking

    def refuse(**_: Any) -> None:
        raise tracking.wandb.Error("no")

    monkeypatch.setattr(tracking.wandb, "init", refuse)
    with pytest.warns(UserWarning, match="goes on without it"):
        assert read_record(carry_out(tmp_path, "vae")).status == "finished"
    monkeypatch.setattr(tracking, "_MISSING", "No module named 'wandb'")
    with pytest.warns(UserWarning, match="is not there"):
        assert read_record(carry_out(tmp_path, "vae")).status == "finished"


def test_an_offline_run_shows_its_scores_in_the_terminal_viewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    monkeypatch.delenv("WANDB_MODE")
    folder = carry_out(tmp_path, "vae")
    (offline,) = (folder / "wandb").glob("offline-run-*")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--summary", "--json", str(offline)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    record = read_record(folder)
    assert folder.name in shown
    for name in ("test/bits_per_dim", "test/fid", "cost/parameters", "val/nll", "train/loss"):
        assert name in shown, name
    assert repr(record.scores["bits_per_dim"].value)[:8] in shown


@pytest.mark.parametrize(("model", "precision"), [("vae", "bfloat16"), ("sngan", "float32")])
def test_gradients_are_clipped_for_fused_and_for_several_optimisers(model: str, precision: str, tmp_path: Path) -> None:
    norms: list[float] = []

    def watched(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    handle = register_optimizer_step_post_hook(watched)
    try:
        carry_out(tmp_path, model, "training.clip_norm=0.01", f"training.precision={precision}")
    finally:
        handle.remove()
    assert len(norms) == 10 * (2 if model == "sngan" else 1)
    assert max(norms) <= 0.01 * 1.001


def test_the_configuration_of_a_run_reads_back_as_the_same_experiment(tmp_path: Path) -> None:
    given = experiment(tmp_path, "vae", "seed=3")
    folder = train.prepare(given)
    from benchmark.config import from_container

    read = from_container(yaml.safe_load((folder / "config.yaml").read_text()))
    assert read == given
    assert read.config_hash == given.config_hash == experiment(tmp_path, "vae", "seed=4").config_hash
    assert math.isclose(read.budget.minutes, 5)
