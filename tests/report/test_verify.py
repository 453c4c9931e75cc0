"""A record comes back or it does not: the bands, what cannot be compared, and the verb from end to end."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import cost, distance, likelihood, record
from click.testing import CliRunner, Result
from runs import FEW_DRAWS

from benchmark import train
from benchmark.__main__ import cli, main
from benchmark.config import compose, experiment_again
from benchmark.facts import COSTS
from benchmark.leaderboard.rows import Run
from benchmark.leaderboard.statistics import prediction_interval
from benchmark.record import Record, publish, read_record
from benchmark.report.verify import OF_THE_MACHINE, OF_THE_MODEL, Judgement, judge
from benchmark.spec import Absence, BadInput, Score

SHORT = ["model=vae", "budget=smoke", "budget.examples=640", "training.validations=2", *FEW_DRAWS, "runtime.device=cpu"]
pytestmark = pytest.mark.xdist_group("verify")  # which share three runs


# The judgement, on records made by hand -------------------------------------------------------------------------------


def judged(said: Record, again: Record, *others: Record) -> Judgement:
    return judge(Run(Path("said.json"), said), Run(Path("again.json"), again), [said, *others])


def verdicts(judgement: Judgement) -> dict[str, str | None]:
    return {one.metric: one.verdict for one in judgement.scores}


def seeds(*bits: float) -> list[Record]:
    return [record(likelihood(value), seed=seed) for seed, value in enumerate(bits)]


def test_a_prediction_interval_holds_as_many_new_runs_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3.0, 0.5, (4000, 6))
    inside = [low <= row[5] <= high for row in draws for low, high in [prediction_interval(row[:5], 0.95)]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)
    low, high = prediction_interval([1.0, 2.0, 3.0], 0.95)  # t(2) = 4.3027, sd 1
    assert (low, high) == pytest.approx((2 - 4.3027 * math.sqrt(4 / 3), 2 + 4.3027 * math.sqrt(4 / 3)), abs=1e-3)
    assert prediction_interval([math.exp(value) for value in (1.0, 2.0, 3.0)], 0.95, log=True) == pytest.approx(
        (math.exp(low), math.exp(high))
    )
    with pytest.raises(ValueError, match="two values"):
        prediction_interval([1.0], 0.95)


def test_within_the_spread_over_seeds_it_agrees_and_outside_it_differs() -> None:
    said, *others = seeds(1.900, 1.902, 1.898, 1.901, 1.899)
    near, far = (record(likelihood(bits)) for bits in (1.903, 1.95))
    assert judged(said, near, *others).verdict == "agrees"
    judgement = judged(said, far, *others)
    assert judgement.verdict == "differs"
    assert verdicts(judgement)["bits_per_dim"] == "differs"
    assert verdicts(judgement)["parameters"] == "agrees"
    assert "bits_per_dim: 1.95 is not what is expected of 1.9, by 5 seeds" in judgement.reasons
    # its standard error alone, 0.019, would have let it pass
    assert judged(said, far).verdict == "agrees"
    (band,) = [one.band for one in judged(said, far).scores if one.metric == "bits_per_dim"]
    assert band is not None
    assert band.basis == "standard error, for want of three seeds"


def test_a_record_that_was_made_better_cannot_hide_in_the_spread_that_it_made_itself() -> None:
    honest, *others = seeds(1.900, 1.902, 1.898)
    tampered = record(likelihood(1.5))
    assert judged(tampered, honest, *others).verdict == "differs"
    assert judged(honest, tampered, *others).verdict == "differs"


def test_distances_are_judged_on_the_log_scale() -> None:
    said, *others = (record(distance(fid), seed=seed) for seed, fid in enumerate((1.0, 1.3, 0.8, 1.1, 0.9)))
    (fid,) = [one for one in judged(said, record(distance(1.05)), *others).scores if one.metric == "fid"]
    assert fid.verdict == "agrees"
    assert fid.band is not None
    assert fid.band.high - 1 > 1 - fid.band.low  # not symmetrical
    assert fid.band.low > 0


def test_seeds_that_happen_to_be_close_together_convict_nobody() -> None:
    """Three runs of one seed each said the same to the fourth digit; the fourth lay within its standard error."""
    said, *others = (record(distance(fid), seed=seed) for seed, fid in enumerate((1.2, 1.30001, 1.3)))
    assert judged(said, record(distance(1.30002)), *others).verdict == "agrees"


@pytest.mark.parametrize(
    ("again", "words"),
    [
        (record(likelihood(1.9), fingerprint="cd" * 32), "other data: the checksums of train, validation, test"),
        (record({"nll": replace(likelihood(1.9)["nll"], version=2)}), "nll: version 1 there, 2 here"),
        (record({"nll": replace(likelihood(1.9)["nll"], unit="bits")}), "nll: unit nats/example there, bits here"),
        (record(likelihood(1.9, importance_samples=5)), "importance_samples None there, importance_samples 5 here"),
        (record(likelihood(1.9, how="bound")), "'likelihood': 'bound'"),
        (record({}), "nll: it is no longer measured"),
        (
            record(status="truncated", reason="4 CPU minutes were spent"),
            "the re-run did not finish: truncated (4 CPU minutes",
        ),
    ],
    ids=["data", "version", "unit", "protocol", "how", "gone", "truncated"],
)
def test_what_stands_under_other_conditions_is_not_compared(again: Record, words: str) -> None:
    judgement = judged(record(), again)
    assert judgement.verdict == "not comparable"
    assert any(words in reason for reason in judgement.reasons), judgement.reasons


def test_how_a_run_ended_has_to_come_back_too() -> None:
    diverged = record({}, status="diverged", reason="loss is nan, at 64 of 100 examples")
    assert judged(diverged, diverged).verdict == "agrees"
    assert judged(record(), diverged).verdict == "differs"
    assert judged(diverged, record()).verdict == "differs"
    lost = record({"nll": Score("nats/example", 1, absent=Absence("failed", "the value is nan"))} | cost())
    assert "nll: the re-run has none: the value is nan" in judged(record(), lost).reasons


def test_costs_of_the_machine_are_not_judged_and_facts_must_be_equal() -> None:
    assert set(COSTS) == (OF_THE_MACHINE | OF_THE_MODEL)
    slower = record(likelihood(1.9) | cost() | {"cpu_minutes": Score("min", 1, 99.0)})
    assert judged(record(), slower).verdict == "agrees"
    larger = record(likelihood(1.9) | {"parameters": Score("1", 1, 259_489.0)})
    assert "parameters: it must be the same number" in judged(record(), larger).reasons


def test_without_a_yardstick_there_is_no_verdict() -> None:
    said, again = (record(likelihood(1.9) | {"selection": Score("bits/dim", 1, bits)}) for bits in (1.8, 1.7))
    assert verdicts(judged(said, again))["selection"] is None
    assert judged(said, again).verdict == "agrees"


def test_another_experiment_is_refused() -> None:
    with pytest.raises(BadInput, match="another experiment"):
        judged(record(), record(seed=1))


def test_what_may_cost_equality_of_bits_is_said() -> None:
    assert judged(record(), record()).bits.text == "bit for bit the same: scores"
    hardware = {"cpu": "AMD EPYC", "cores": 2, "device": "cpu", "threads": 2}
    other = record(likelihood(1.91), code_hash="2" * 40, hardware=hardware)
    assert judged(record(), other).bits.text == (
        "not bit for bit the same (scores), not expected to be, with other code (11111111, 22222222); threads 1 and 2"
    )
    assert "although nothing else differs" in judged(record(), record(likelihood(1.91))).bits.text
    renewed = {"run": "0a1b2c3d", "code_hash": "3" * 40, "git": None, "scores": ["nll"]}  # of a training by older code
    assert judged(record(renewed=renewed), record()).bits.apart == ("other code (33333333, 11111111)",)


# From end to end -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with three seeds of a short VAE on digits, published as if from committed code."""
    root = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.chdir(root)
        for seed in range(3):
            folder = train.prepare(compose([*SHORT, f"seed={seed}", "runtime.threads=1"]))
            train.carry_out(folder, lambda progress: None)
            change(folder / "record.json", "git", {"commit": "d" * 40, "dirty": False})
            publish(folder, root / "records")
        shutil.move(root / "runs", root / "original")
        yield root


@pytest.fixture
def inside(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return world


def change(file: Path, path: str, value: Any) -> None:
    content = json.loads(file.read_text())
    *parents, last = path.split(".")
    node = content
    for part in parents:
        node = node[part]
    node[last] = value
    file.write_text(json.dumps(content))


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["verify", *arguments, "--records", "records"], env={"COLUMNS": "160"})


def test_a_record_is_run_again_and_comes_back_bit_for_bit(inside: Path) -> None:
    (published,) = inside.glob("records/digits/vae/0-*.json")
    done = verify(str(published.relative_to(inside)))
    assert done.exit_code == 0, done.output
    assert "agrees: records/digits/vae/0-" in done.stdout
    assert "bit for bit the same: scores, likelihoods, curves" in done.stdout
    (again,) = inside.glob("runs/digits/vae/*/record.json")
    assert read_record(again).scores["nll"] == read_record(published).scores["nll"]
    (run,) = [
        file.parent for file in inside.glob("original/digits/vae/*/record.json") if read_record(file).seed["init"] == 0
    ]
    folder = verify(str(run), "--against", str(again.parent))
    assert folder.exit_code == 0
    assert "bit for bit the same: scores, likelihoods, curves, weights" in folder.stdout


def test_a_record_that_was_tampered_with_differs(inside: Path, tmp_path: Path) -> None:
    (published,) = inside.glob("records/digits/vae/1-*.json")
    (run,) = [
        file.parent for file in inside.glob("original/digits/vae/*/record.json") if read_record(file).seed["init"] == 1
    ]
    tampered = tmp_path / published.name
    shutil.copy(published, tampered)
    assert verify(str(tampered), "--against", str(run)).exit_code == 0
    for name in ("nll", "bits_per_dim"):
        change(tampered, f"scores.{name}.value", read_record(published).scores[name].value * 0.7)
    done = verify(str(tampered), "--against", str(run))
    assert done.exit_code == 3
    assert f"differs: {tampered}" in done.stdout
    assert "by 3 seeds" in done.stdout
    assert "not bit for bit the same (scores), although nothing else differs" in done.stdout
    change(tampered, "scores.fid.version", 99)
    change(tampered, "scores.nll.value", read_record(published).scores["nll"].value)
    change(tampered, "scores.bits_per_dim.value", read_record(published).scores["bits_per_dim"].value)
    done = verify(str(tampered), "--against", str(run))
    assert done.exit_code == 4
    assert "fid: version 99 there" in done.stdout


def test_only_what_is_no_part_of_an_experiment_may_be_given_anew() -> None:
    given = compose([*SHORT, "seed=3"])
    again = experiment_again(given.container(), {**given.container()["runtime"], "runs": "x"}, ["runtime.threads=2"])
    assert (again.runtime.threads, again.runtime.runs) == (2, "x")
    assert (again.config_hash, again.seed) == (given.config_hash, given.seed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no record at nowhere"),
        (["RECORD", "model.latent=3"], "only runtime.* may be given"),
        (["RECORD", "runtime.thread=3"], "did you mean 'threads'"),
        (["RECORD", "--against", "OTHER"], "is another experiment"),
        (["RECORD", "runtime.threads=1", "--against", "OTHER"], "drop runtime.threads=1"),
        (["HASH"], "config_hash is 00000000, but the configuration that it holds has"),
        (["FAILED"], "the run failed (OSError: full)"),
        (["OUTSIDE"], "add --trust my_models"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str],
    words: str,
    inside: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (published,) = inside.glob("records/digits/vae/0-*.json")
    (other,) = inside.glob("records/digits/vae/1-*.json")
    files = {"RECORD": published, "OTHER": other}
    for name in ("HASH", "FAILED", "OUTSIDE"):
        files[name] = tmp_path / f"{name}.json"
        shutil.copy(published, files[name])
    change(files["HASH"], "config_hash", "0" * 64)
    change(files["FAILED"], "status", "failed")
    change(files["FAILED"], "reason", "OSError: full")
    change(files["OUTSIDE"], "config.model.target", "my_models.nade.NADE")
    content = json.loads(files["OUTSIDE"].read_text())
    change(
        files["OUTSIDE"],
        "config_hash",
        experiment_again(content["config"], content["config"]["runtime"], [], ["my_models"]).config_hash,
    )
    before = sorted(inside.glob("runs/*/*/*"))
    monkeypatch.setattr("sys.argv", ["benchmark", "verify", *(str(files.get(one, one)) for one in arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err.strip()
    assert (stopped.value.code, len(said.splitlines())) == (2, 1), said
    assert words in said
    assert sorted(inside.glob("runs/*/*/*")) == before
