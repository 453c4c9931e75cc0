"""The harness on real data: what a run leaves behind, and that stopping, breaking and missing parts cannot spoil it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning import Trainer
from runs import carry_out, curve, experiment, prepared, resumed, silent, values
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmark import again, loop, train
from benchmark import record as records
from benchmark.config import choices, from_container
from benchmark.loop import Plan, Progress, get_random_state, set_random_state
from benchmark.models.vae.vae import VAE
from benchmark.record import read_record
from benchmark.spec import BadInput

ON_THE_FINISHED_RUN = pytest.mark.xdist_group("finished run")  # which one worker makes


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


# Stopped, cut and broken runs ----------------------------------------------------------------------------------------


def assert_trained_alike(folder: Path, whole: Path) -> None:
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (folder / "curves.csv").read_text() == (whole / "curves.csv").read_text()
    assert read_record(folder).status == read_record(whole).status == "finished"


def assert_the_same(folder: Path, whole: Path) -> None:
    assert_trained_alike(folder, whole)
    assert values(folder) == values(whole)


#: Four steps, with a checkpoint in the middle, and little to look at: each model has to pass.
SHORTEST = ("budget.examples=32", "training.batch_size=8", "evaluation.validation_examples=8")


@pytest.mark.usefixtures("unscored")
@pytest.mark.parametrize("model", sorted(choices("model")))
def test_training_that_stopped_ends_as_if_it_never_had(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for modality, shown in (("image", 2), ("text", 1)):  # samples in a picture
        content = yaml.safe_load(choices("modality")[modality].read_text(encoding="utf-8")) | {"shown": shown}
        (own := tmp_path / "own" / "modality").mkdir(parents=True, exist_ok=True)
        (own / f"{modality}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(tmp_path / "own"))
    monkeypatch.setattr(train.training, "WATCHED", 8)
    whole = carry_out(tmp_path, model, *SHORTEST, "evaluation.validation_draws=2")
    stopped = prepared(experiment(tmp_path, model, *SHORTEST, "evaluation.validation_draws=2"))
    assert_trained_alike(resumed(stopped), whole)


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(choices("model")))
def test_a_run_of_every_model_that_stopped_ends_as_one_that_never_did(model: str, tmp_path: Path) -> None:
    whole = carry_out(tmp_path, model)
    assert_the_same(resumed(prepared(experiment(tmp_path, model))), whole)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """For training, each look at the clock is a second later than the one before."""
    seconds = iter(range(10**6))
    fake = SimpleNamespace(perf_counter=lambda: float(next(seconds)), process_time=lambda: 0.0)
    monkeypatch.setattr(loop, "time", fake)


@ON_THE_FINISHED_RUN
@pytest.mark.usefixtures("clock", "unscored")
def test_a_runaway_is_cut_and_not_scored_and_with_a_higher_limit_it_ends_as_one_that_was_not_cut(
    finished_run: Path, tmp_path: Path
) -> None:
    folder = carry_out(tmp_path, "vae", "runtime.limit_minutes=0.12")
    cut = read_record(folder)
    assert (cut.status, cut.scores) == ("truncated", {})
    assert cut.share is not None
    assert 0 < cut.share < 1
    assert cut.reason == f"the limit of 0.12 minutes was reached, at {round(160 * cut.share)} of 160 examples"
    train.carry_out(folder, silent)  # the limit holds for all attempts together
    again_cut = read_record(folder)
    assert again_cut.status == "truncated"
    assert again_cut.share == pytest.approx(cut.share + 0.1)  # one step, and a look at the clock
    train.carry_out(folder, silent, overrides=["runtime.limit_minutes=30"])
    assert_trained_alike(folder, finished_run)
    assert read_record(folder).share == 1
    attempts = [read_record(file) for file in sorted((folder / "attempts").iterdir())]
    assert [attempt.share for attempt in attempts] == [cut.share, again_cut.share]
    with pytest.raises(BadInput, match=r"only runtime\.\* may be given"):
        train.carry_out(folder, silent, overrides=["budget.examples=10"])


@pytest.mark.usefixtures("clock", "unscored")
def test_without_a_limit_of_ones_own_a_runaway_is_what_needs_ten_times_its_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "FIRST_STEPS", (2, 1.0))
    monkeypatch.setattr(loop, "LIMIT", (1.0, 0.5))  # of what the first steps predict
    record = read_record(carry_out(tmp_path, "vae"))
    assert record.status == "truncated"
    assert record.reason is not None
    assert record.reason.startswith("the limit of ")


def broken_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training of a VAE fails in this step, counted from 1, as when memory runs out."""
    taken, original = iter(range(1, 10**6)), VAE.training_step

    def training_step(self: VAE, *arguments: Any) -> Any:
        if next(taken) == step:
            raise RuntimeError("not enough memory\nand a trace")
        return original(self, *arguments)

    monkeypatch.setattr(VAE, "training_step", training_step)


def full_disk_at(checkpoint: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when this checkpoint, counted from 1, is half written."""
    written, original = iter(range(1, 10**6)), Trainer.save_checkpoint

    def save_checkpoint(self: Trainer, path: Any, *arguments: Any) -> None:
        original(self, path, *arguments)
        if next(written) == checkpoint:
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Trainer, "save_checkpoint", save_checkpoint)


@ON_THE_FINISHED_RUN
@pytest.mark.usefixtures("unscored")
@pytest.mark.parametrize(
    ("fails", "reason", "kept"),
    [
        (lambda patch: broken_at(3, patch), "RuntimeError: not enough memory", False),
        (lambda patch: broken_at(8, patch), "RuntimeError: not enough memory", True),
        (lambda patch: full_disk_at(2, patch), "OSError: [Errno 28] No space left on device", True),
    ],
    ids=["before the first checkpoint", "after the first checkpoint", "a full disk"],
)
def test_a_failure_loses_nothing_that_was_saved(
    fails: Callable[[pytest.MonkeyPatch], None], reason: str, kept: bool, finished_run: Path, tmp_path: Path
) -> None:
    folder = train.prepare(experiment(tmp_path, "vae"))
    with pytest.MonkeyPatch.context() as patch:
        fails(patch)
        with pytest.raises((RuntimeError, OSError)):
            train.carry_out(folder, silent)
    failed = read_record(folder)
    assert (failed.status, failed.reason, failed.scores) == ("failed", reason, {})
    assert (folder / "last.ckpt").is_file() == kept
    train.carry_out(folder, silent)
    assert_trained_alike(folder, finished_run)
    (attempt,) = (folder / "attempts").iterdir()
    assert read_record(attempt) == failed
    assert not list(folder.glob("*.writing"))


@pytest.mark.usefixtures("unscored")
def test_an_attempt_that_fails_before_it_trains_leaves_the_curves_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train.prepare(experiment(tmp_path, "vae"))
    with pytest.MonkeyPatch.context() as patch:
        broken_at(8, patch)
        with pytest.raises(RuntimeError):
            train.carry_out(folder, silent)
    before = (folder / "curves.csv").read_text()
    assert len(before.splitlines()) > 2

    def lost(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("benchmark.train.run.data_of", lost)
    with pytest.raises(OSError, match="Input/output"):
        train.carry_out(folder, silent)
    assert (folder / "curves.csv").read_text() == before


@ON_THE_FINISHED_RUN
def test_a_failure_in_scoring_is_kept_as_a_failure_and_scoring_is_repeated(finished_run: Path, tmp_path: Path) -> None:
    folder = train.prepare(experiment(tmp_path, "vae"))

    def fail(progress: Progress) -> None:
        if progress.phase == "scoring":
            raise RuntimeError("the disk\nis full")

    with pytest.raises(RuntimeError):
        train.carry_out(folder, fail)
    record = read_record(folder)
    assert (record.status, record.reason, record.share) == ("failed", "RuntimeError: the disk", 1)
    train.carry_out(folder, silent)
    assert_the_same(folder, finished_run)


def test_a_configuration_that_was_edited_under_way_is_refused(tmp_path: Path) -> None:
    folder = train.prepare(experiment(tmp_path, "vae"))
    file = folder / "config.yaml"
    content = yaml.safe_load(file.read_text())
    content["model"]["latent"] += 1
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(BadInput, match=r"config\.yaml was changed since the run began: model\.latent was \d+ and is"):
        train.carry_out(folder, silent)
    assert not (folder / "record.json").exists()
    content["model"]["latent"] -= 1
    content["runtime"]["limit_minutes"] = 90.0  # how it runs may change
    file.write_text(yaml.safe_dump(content))

    def reached(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.carry_out(folder, reached)


def test_code_that_changed_under_way_is_refused_unless_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train.prepare(experiment(tmp_path, "vae"))
    file = folder / "begun.json"
    content = json.loads(file.read_text())
    content["code"]["benchmark"] = "of yesterday"
    file.write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"began with other code \(benchmark changed since\)"):
        train.carry_out(folder, silent)
    monkeypatch.setattr(train.run._Run, "_train_and_score", lambda self: self._finish("diverged", "for the test"))
    train.carry_out(folder, silent, changed_code=True)
    assert "of yesterday" in read_record(folder).environment["changed under way"]


def test_each_change_of_code_has_to_be_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = {"benchmark": "monday"}
    monkeypatch.setattr(records.folder, "code_identity", lambda targets=(): dict(code))
    records.begin(tmp_path, {}, ())
    for day in ("tuesday", "wednesday"):
        code["benchmark"] = day
        with pytest.raises(BadInput, match=r"began with other code \(benchmark changed since\)"):
            records.check_code(tmp_path, ())
        records.check_code(tmp_path, (), changed_code=True)
        records.check_code(tmp_path, ())
    assert "monday" in records.changed_code(tmp_path)[records.CHANGED]


@pytest.mark.usefixtures("unscored")
def test_validation_that_cannot_be_computed_fails_no_run_and_is_no_divergence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last weights are kept, and the score that selects says why it is absent."""
    from benchmark.spec import Absence, Score

    absent = {"nll": Score("nats/example", 1, absent=Absence("failed", "singular"))}
    monkeypatch.setattr(train.parts.Parts, "evaluate_on", lambda self, split, *metrics: absent)
    folder = carry_out(tmp_path, "vae")
    record = read_record(folder)
    assert (record.status, record.reason) == ("finished", None)
    assert record.scores["selection"].absent is not None
    assert (folder / "model.safetensors").is_file()


def test_a_run_that_diverges_is_recorded_with_when_and_how(tmp_path: Path) -> None:
    record = read_record(carry_out(tmp_path, "vae", "model.learning_rate=1e30"))
    assert record.status == "diverged"
    assert record.reason is not None
    assert "of 160 examples" in record.reason
    assert record.scores == {}


@ON_THE_FINISHED_RUN
def test_a_finished_run_is_never_run_over(finished_run: Path) -> None:
    before = (finished_run / "record.json").read_bytes()
    with pytest.raises(BadInput, match="never overwritten"):
        train.carry_out(finished_run, silent)
    assert (finished_run / "record.json").read_bytes() == before


# What a run leaves behind --------------------------------------------------------------------------------------------


@ON_THE_FINISHED_RUN
def test_a_run_leaves_everything_behind(finished_run: Path) -> None:
    folder = finished_run
    left = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert left >= {"config.yaml", "last.ckpt", "model.safetensors", "curves.csv", "likelihoods.npz", "record.json"}
    assert "samples/final.png" in left
    raw = json.loads((folder / "record.json").read_text())
    expected = "schema kind status reason model data budget seed config config_hash code_hash git dataset environment"
    expected += " hardware started seconds scores stability renewed"
    expected += " share impossible precision processes condition sources exam"
    assert set(raw) == set(expected.split())
    assert (raw["schema"], raw["share"], raw["precision"], raw["processes"]) == (2, 1, "float32", 1)
    assert set(raw["scores"]["nll"]) == {"value", "stderr", "n", "unit", "version", "protocol", "absent"}
    record = read_record(folder)
    assert (record.status, record.reason) == ("finished", None)
    assert record.scores["nll"].n == len(np.load(folder / "likelihoods.npz")["elbo"]) == 180
    mean = float(np.load(folder / "likelihoods.npz")["elbo"].astype(float).mean())
    assert record.scores["elbo"].value == pytest.approx(mean, rel=1e-6)
    assert record.scores["interpolation_ratio"].value is not None
    assert "nats_per_token" not in record.scores  # of another modality
    assert set(record.dataset["references"]) == {
        "uniform",
        "histogram",
        "pixel_histogram",
        "categorical_mixture",
        "lzma",
        "held-out data",
        "training data",
    }
    rows = (folder / "curves.csv").read_text().splitlines()
    assert rows[0] == "examples,name,value"
    assert {row.split(",")[1] for row in rows[1:]} >= {"train/loss", "val/nll"}


@ON_THE_FINISHED_RUN
def test_scores_come_back_from_the_folder(finished_run: Path) -> None:
    scores = again.score_again(finished_run)
    record = read_record(finished_run)
    assert {name: score.value for name, score in scores.items()} == {name: record.scores[name].value for name in scores}


@ON_THE_FINISHED_RUN
def test_a_record_is_renewed_where_metrics_have_changed_and_nowhere_else(finished_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run, tmp_path / finished_run.name)
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


@ON_THE_FINISHED_RUN
def test_the_same_samples_come_back_whatever_was_drawn_before(finished_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run, tmp_path / finished_run.name)
    first = again.sample_again(folder, 9, seed=1).read_bytes()
    torch.rand(7)
    assert again.sample_again(folder, 9, seed=1).read_bytes() == first
    assert again.sample_again(folder, 9, seed=2).read_bytes() != first


@pytest.mark.usefixtures("unscored")
def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    more = ["training.patience=2", "training.validations=8", "model.learning_rate=0"]
    folder = carry_out(tmp_path, "vae", *more)
    found = curve(folder, "val/nll")
    assert found == [found[0]] * 4  # before training, the best, and two no better: validation has no noise of its own
    record = read_record(folder)
    assert record.status == "finished"
    assert record.scores["selection"].value == found[0]


@pytest.mark.usefixtures("unscored")
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
    plan = Plan(1000, 10, warmup=0.1, decay=0.4, clip_norm=0, ema_decay=0, validations=3, patience=0)
    factors = [plan.rate_factor(step / plan.steps) for step in range(plan.steps)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[20:60] == [1.0] * 40
    assert factors[80] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.03
    assert plan.validation_steps == {33, 67, 100}


def test_the_ladder_has_the_rungs_of_its_paper() -> None:
    plan = Plan(3280, 1, 0.0, 0.0, 0.0, ema_decay=0.0, validations=1, patience=0, schedule="ladder")
    factors = [plan.rate_factor(step / plan.steps) for step in range(plan.steps)]
    for i in range(8):
        assert sum(f == pytest.approx(10 ** (-i / 7)) for f in factors) == 3**i
    assert factors == sorted(factors, reverse=True)


def test_the_cosine_ends_at_a_tenth_after_its_warm_up() -> None:
    plan = Plan(2000, 1, 0.05, 0.0, 0.0, ema_decay=0.0, validations=1, patience=0, schedule="cosine")
    factors = [plan.rate_factor(step / plan.steps) for step in range(plan.steps)]
    assert factors[:100] == pytest.approx([(step + 1) / 100 for step in range(100)])
    assert factors[100] == 1.0
    assert factors[1050] == pytest.approx(0.55)  # half way down
    assert factors[100:] == sorted(factors[100:], reverse=True)
    assert factors[-1] == pytest.approx(0.1, abs=1e-5)


@pytest.mark.usefixtures("unscored")
@pytest.mark.parametrize("weights", ["best", "last"])
def test_the_weights_are_those_of_the_best_validation_unless_the_last_are_asked_for(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([4.0, 1.0, 3.0, 2.0])  # before training, and at three validations
    monkeypatch.setattr("benchmark.train.training._validate", lambda *_: next(scores))
    folder = carry_out(tmp_path, "vae", "training.validations=3", "training.ema_decay=0", f"training.weights={weights}")
    record, kept = read_record(folder), load_file(folder / "model.safetensors")
    assert record.scores["selection"].value == {"best": 1.0, "last": 2.0}[weights]
    live = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(live[name], value) for name, value in kept.items()) == (weights == "last")


@pytest.mark.usefixtures("unscored")
def test_weights_and_biases_that_fail_or_are_missing_do_not_fail_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    from benchmark import tracking

    def refuse(**_: Any) -> None:
        raise wandb.Error("no")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.warns(UserWarning, match="continues without it"):
        assert read_record(carry_out(tmp_path, "vae")).status == "finished"
    monkeypatch.setattr(tracking, "_MISSING", "No module named 'wandb'")
    with pytest.warns(UserWarning, match="is not there"):
        assert read_record(carry_out(tmp_path, "vae")).status == "finished"


@pytest.mark.slow
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


@pytest.mark.usefixtures("unscored")
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
    read = from_container(yaml.safe_load((folder / "config.yaml").read_text()))
    assert read == given
    assert read.config_hash == given.config_hash == experiment(tmp_path, "vae", "seed=4").config_hash
    assert math.isclose(read.budget.minutes, given.budget.minutes)
