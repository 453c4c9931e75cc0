"""A study: its space, its designs, that it survives whatever dies, and what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from commands import benchmark
from files import REPOSITORY
from rich.console import Console

from benchmark.config import choices, compose
from benchmark.launch import Display
from benchmark.record import Record, read_record, read_records, write_record
from benchmark.server import Task
from benchmark.spec import BadInput, Score
from benchmark.sweep import queue, search, space
from benchmark.sweep.command import confirming, plan_of
from benchmark.sweep.confirmation import confirmation
from benchmark.sweep.plan import SAMPLERS, Plan
from benchmark.sweep.proposals import make_sampler
from benchmark.sweep.search import Summary
from benchmark.sweep.storage import open_journal, open_storage
from benchmark.sweep.studies import collect, publish_study, read_study

TINY = ["budget.examples=64", "budget.minutes=5", "training.validations=2"]


# Spaces --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", sorted(choices("sweep")))
def test_a_space_names_options_that_exist_and_holds_the_tuned_setting(model: str) -> None:
    """On every dataset on which a trial has a length."""
    found = space.load_space(model)
    assert 5 <= len(found.varied) <= 7
    assert {option.role for option in found.options.values()} >= {"studied", "nuisance"}
    for data in found.trial:
        base = space.base_experiment(found, space.base_settings(data, model, found))
        assert base.evaluation.split == "validation"
        assert base.budget.name == "trial"
        design = space.search(found, base)
        assert len(design.points) == 1, "the tuned setting lies outside the space"


@pytest.mark.parametrize("model", sorted(choices("model")))
def test_every_model_has_a_space(model: str) -> None:
    assert model in choices("sweep")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("{role: studied, low: 0.1}", "low and high, or choices"),
        ("{role: studied, low: 0.1, high: 0.01}", "low=0.1 is not below high=0.01"),
        ("{role: studied, low: 0.0, high: 1.0, scale: log}", "scale=log needs low above 0"),
        ("{role: fixed, low: 0.1, high: 1.0}", "fixed ones have neither"),
        ("{role: studied, choices: [1]}", "two values"),
        ("{role: studeid, low: 0.1, high: 1.0}", "role"),
        ("{role: studied, low: 0.1, hihg: 1.0}", "hihg"),
    ],
)
def test_a_malformed_space_is_refused_in_one_line(
    option: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "vae.yaml").write_text(f"trial: {{}}\noptions:\n  model.latent: {option}\n")
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(tmp_path))
    with pytest.raises(BadInput, match=words) as refused:
        space.load_space("vae")
    assert len(str(refused.value).splitlines()) == 1


def test_a_space_that_names_no_option_is_refused_with_the_nearest_name() -> None:
    found = space.load_space("vae")
    wrong = found.model_copy(update={"options": {"model.latnet": found.options["model.latent"]}})
    with pytest.raises(BadInput, match="did you mean 'latent'"):
        space.base_experiment(wrong, space.base_settings("digits", "vae", found))


@pytest.mark.parametrize(
    ("value", "inside"),
    [(16, True), (16.5, False), (0, False), (None, False), ("16", False), (True, False), ([16], False)],
)
def test_only_a_number_of_its_kind_lies_in_a_range(value: Any, inside: bool) -> None:
    assert space.Option(role="studied", low=1, high=32, integer=True).holds(value) is inside


def test_learning_rates_are_scaled_together() -> None:
    found = space.load_space("sngan")
    base = space.base_experiment(found, space.base_settings("digits", "sngan", found))
    design = space.learning_rate(base, rates=7, seeds=3)
    assert len(design.points) == 21
    factors = sorted({float(point["factor"]) for point in design.points})
    assert factors[0] == pytest.approx(10**-1.5)
    assert factors[3] == pytest.approx(1)
    assert factors[-1] == pytest.approx(10**1.5)
    settings = design.settings({"factor": 10.0, "seed": 2}, 5)
    assert settings == ["model.generator_learning_rate=0.03", "model.discriminator_learning_rate=0.03", "seed=2"]


def test_seeds_of_initialisation_and_data_are_crossed() -> None:
    design = space.initialisation_and_data(3)
    assert len({tuple(point.values()) for point in design.points}) == 9
    assert compose(design.settings({"seed.init": 1, "seed.data": 2}, 0)).seed.model_dump() == {
        "init": 1,
        "data": 2,
        "eval": 0,
    }


def remedies_on(data: str, *cases: str, seeds: int = 2) -> space.Design:
    found = space.load_space("dcgan")
    base = space.base_experiment(found, space.base_settings(data, "dcgan", found, ["budget=standard"]))
    return space.remedies(found, base, cases, seeds)


def test_remedies_come_alone_together_and_less_one_each_and_what_is_not_for_the_data_does_not_come() -> None:
    images, points = remedies_on("digits"), remedies_on("gaussian_grid")
    cases = [str(point["case"]) for point in points.points if point["seed"] == 0]
    names = [name for name in cases if name not in ("none", "all") and not name.startswith("all but ")]
    assert cases == ["none", *names, "all", *(f"all but {name}" for name in names)]
    assert "augmentation" not in names
    assert len(points.points) == 2 * len(cases)
    assert len(images.points) == len(points.points) + 2 * 2


def test_a_remedy_is_off_where_it_is_not_named_whatever_is_tuned() -> None:
    design = remedies_on("digits")
    settings = {case: design.settings({"case": case, "seed": 1}, 7) for case in ("none", "packing", "all but packing")}
    off, on = "model.packing=1", "model.packing=2"
    assert off in settings["none"]
    assert on in settings["packing"]
    assert [one for one in settings["packing"] if one != on] == [one for one in settings["none"] if one != off]
    assert off in settings["all but packing"]
    common = {off, "training.weights=last", "seed=1"}
    assert {*settings["none"]} & {*settings["all but packing"]} == common
    assert load_tuned_translation() == 1
    assert "model.translation=0" in settings["none"]
    for given in settings.values():
        compose(["data=digits", "model=dcgan", *given])


def load_tuned_translation() -> Any:
    return compose(["data=digits", "model=dcgan"]).model.options["translation"]


def test_some_cases_of_remedies_can_be_asked_for() -> None:
    design = remedies_on("digits", "none", "packing", "all", seeds=3)
    assert [tuple(point.values()) for point in design.points[:3]] == [("none", 0), ("packing", 0), ("all", 0)]
    assert len(design.points) == 9


def plan(tmp_path: Path, trials: int = 4, **changes: Any) -> Plan:
    found = space.load_space("vae")
    settings = space.base_settings("digits", "vae", found, [*TINY, f"runtime.runs={tmp_path}"])
    base = space.base_experiment(found, settings)
    return Plan(base, found, space.search(found, base), tuple(settings), trials, **changes)


def test_a_study_is_named_by_what_decides_what_it_finds(tmp_path: Path) -> None:
    name = plan(tmp_path).title
    assert name.startswith("digits-vae-qmc-")
    assert plan(tmp_path, trials=9).title == name
    assert plan(tmp_path, sampler="tpe").title.startswith("digits-vae-tpe-")
    narrow = space.load_space("vae")
    narrow = narrow.model_copy(update={"options": {"model.latent": narrow.options["model.latent"]}})
    one = plan(tmp_path)
    assert Plan(one.base, narrow, space.search(narrow, one.base), one.settings, 4).title != name


# The engine, with children that do not train -------------------------------------------------------------------------


class Fake:
    """Stands for `server.Child`: says a score at each of two validations, and leaves a record."""

    deaths: list[int]  # trials over which a child dies, once each
    carried: list[tuple[str, int]]  # what was carried out, with the seed

    def __init__(self, task: Task) -> None:
        assert task.folder is not None
        assert task.study == task.folder.parent.name
        self.folder, self.config = task.folder, task.config
        self.refused: str | None = None
        self.problem = ""
        self.going_on = True

    @property
    def number(self) -> int:
        return int(self.folder.name.rpartition("-")[2])

    def events(self) -> Iterator[dict[str, Any]]:
        if self.number in Fake.deaths:
            Fake.deaths.remove(self.number)
            self.problem = "killed by SIGKILL"
            return
        latent = self.config["model"]["latent"]
        value = abs(latent - 20.0) + self.config["model"]["learning_rate"]
        examples = self.config["budget"]["examples"]
        yield {"folder": str(self.folder)}
        yield {"phase": "training", "examples": 0, "total": 1}
        for done in (examples // 2, examples):
            if self.going_on:
                yield {"score": value + 1 - done // examples, "examples": done}
        self.finish("diverged" if latent > 50 and self.going_on else "finished" if self.going_on else "pruned", value)
        yield {"done": True}

    def finish(self, status: str, value: float) -> None:
        Fake.carried.append((self.folder.name, self.config["seed"]["init"]))
        scores = {"selection": Score("nats", 1, value, protocol={"metric": "nll"})}
        record = record_of(dict(self.config), status, {} if status == "diverged" else scores, {"initial": 60.0})
        write_record(self.folder, record)

    def answer(self, go_on: bool) -> None:
        self.going_on = go_on

    def stop(self) -> None:
        pass


def record_of(config: dict[str, Any], status: Any, scores: dict[str, Score], stability: dict[str, float]) -> Record:
    return Record(
        schema=1,
        kind="trial",
        status=status,
        reason=None,
        model=config["model"]["name"],
        data="digits",
        budget=config["budget"]["name"],
        seed=config["seed"],
        config=config,
        config_hash="c0ffee",
        code_hash="c0de",
        git={"commit": "abc", "dirty": False},
        dataset={},
        environment={},
        hardware={},
        started=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=1.0,
        scores=scores,
        stability=stability,
    )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    Fake.deaths, Fake.carried = [], []
    monkeypatch.setattr("benchmark.server.Child", Fake)
    monkeypatch.setattr(search, "import_once", lambda display: None)
    return Fake


def run(plan: Plan, workers: int = 1) -> Summary:
    with Display(Console(quiet=True)) as display:
        return search.sweep(plan, workers, None, display)


def study_of(plan: Plan) -> optuna.Study:
    return optuna.load_study(study_name=plan.title, storage=open_storage(str(plan.folder.parent / "journal.log")))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sweep_carries_out_every_trial_once(sampler: str, tmp_path: Path, fake: type[Fake]) -> None:
    one = plan(tmp_path, trials=6, sampler=sampler, pruner="none")
    summary = run(one, workers=2)
    assert summary.counts["complete"] == 7
    assert sorted(fake.carried) == [(f"{one.title}-{number:04d}", 1000 + number) for number in range(7)]
    study = collect(one.folder)
    assert len(study.trials) == 7
    assert [trial.number for trial in study.trials if trial.tuned] == [0]
    assert study.trials[0].params["model.width"] == 64  # the tuned setting
    assert len({json.dumps(trial.params) for trial in study.trials}) == 7
    assert run(one).counts["complete"] == 7
    assert len(fake.carried) == 7, "the same command found nothing left to do"
    assert run(plan(tmp_path, trials=8, sampler=sampler, pruner="none")).counts["complete"] == 9
    assert len({json.dumps(trial.params) for trial in collect(one.folder).trials}) == 9, "no point comes twice"


def test_the_same_design_comes_again_on_another_day(tmp_path: Path, fake: type[Fake]) -> None:
    points = []
    for folder, workers in (("a", 1), ("b", 2)):
        one = plan(tmp_path / folder, trials=6)
        run(one, workers)
        points.append(sorted(json.dumps(trial.params, sort_keys=True) for trial in collect(one.folder).trials))
    assert points[0] == points[1]


def test_what_diverged_counts_as_having_learnt_nothing(tmp_path: Path, fake: type[Fake]) -> None:
    one = plan(tmp_path, trials=16)
    summary = run(one)
    study = collect(one.folder)
    diverged = [trial for trial in study.trials if trial.status == "diverged"]
    assert summary.counts["diverged"] == len(diverged) > 0
    assert all(trial.params["model.latent"] > 50 and trial.value == 60.0 for trial in diverged)
    told = {trial.number: trial for trial in study_of(one).get_trials()}
    assert all(told[trial.number].value == 60.0 for trial in diverged)


def test_where_no_trial_learns_there_is_no_best(
    tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Fake.finish
    monkeypatch.setattr(Fake, "finish", lambda self, status, value: finish(self, "diverged", value))
    one = plan(tmp_path, trials=3)
    summary = run(one)
    assert summary.counts == {"complete": 4, "diverged": 4}
    assert (summary.best, summary.params, summary.trial) == (None, {}, "")
    with pytest.raises(BadInput, match="no best setting"):
        confirming(one.folder, [])


def test_trials_that_fall_behind_are_pruned(tmp_path: Path, fake: type[Fake]) -> None:
    one = plan(tmp_path, trials=16, sampler="tpe", pruner="halving")
    summary = run(one)
    pruned = [trial for trial in collect(one.folder).trials if trial.status == "pruned"]
    assert summary.counts["pruned"] == len(pruned) > 0


def test_a_child_that_dies_is_replaced_and_its_trial_goes_on(tmp_path: Path, fake: type[Fake]) -> None:
    fake.deaths = [1, 3]
    one = plan(tmp_path, trials=4)
    assert run(one).counts["complete"] == 5
    assert Counter(name for name, _ in fake.carried).most_common(1)[0][1] == 1
    assert [trial.state.name for trial in study_of(one).get_trials()] == ["COMPLETE"] * 5


def test_a_trial_whose_children_always_die_fails(tmp_path: Path, fake: type[Fake]) -> None:
    fake.deaths = [1] * search.ATTEMPTS
    one = plan(tmp_path, trials=2)
    assert run(one).counts == {"complete": 2, "fail": 1, "diverged": 0}
    (failed,) = [trial for trial in collect(one.folder).trials if trial.status == "refused"]
    assert failed.number == 1
    assert failed.reason == f"its process died {search.ATTEMPTS} times: killed by SIGKILL"


def test_a_setting_that_cannot_be_is_counted_as_refused(
    tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Fake.events

    def refuse(self: Fake) -> Iterator[dict[str, Any]]:
        self.refused = "width=7 is odd" if self.number == 1 else None
        return iter(()) if self.refused else events(self)

    monkeypatch.setattr(Fake, "events", refuse)
    one = plan(tmp_path, trials=2)
    assert run(one).counts == {"complete": 2, "fail": 1, "diverged": 0}
    assert [trial.reason for trial in collect(one.folder).trials if trial.status == "refused"] == ["width=7 is odd"]


def test_a_study_ends_at_once_where_what_it_starts_from_cannot_be(
    tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Fake) -> Iterator[dict[str, Any]]:
        self.refused = "model.depth='abc' is no number"
        return iter(())

    monkeypatch.setattr(Fake, "events", refuse)
    one = plan(tmp_path, trials=9)
    with pytest.raises(BadInput, match=r"model\.depth='abc'"):
        run(one, workers=2)
    assert len(study_of(one).get_trials()) < 9
    with pytest.raises(BadInput, match="no trial with a score"):
        publish_study(one.folder, tmp_path / "published")


def test_a_trial_whose_sweep_died_is_taken_up_again(tmp_path: Path, fake: type[Fake]) -> None:
    """Killed before it said what it would be, while it ran, between its record and Optuna, and while being given up."""
    one = plan(tmp_path, trials=5)
    run(plan(tmp_path, trials=0))
    study = study_of(one)
    study.sampler = make_sampler("qmc", 0)
    study.ask()  # number 1 died before it had parameters
    running = study.ask(one.design.distributions)  # number 2
    ended = study.ask(one.design.distributions)  # number 3
    for trial in (running, ended):
        trial.set_user_attr("run", trial.number)
        trial.set_user_attr("beat", 0.0)
        folder = one.folder / f"{one.title}-{trial.number:04d}"
        folder.mkdir()
        (folder / "trial.yaml").write_text(json.dumps({"number": trial.number, "params": trial.params}))
    content = one.base.container()
    write_record(folder, record_of(content, "finished", {"selection": Score("nats", 1, 5.0)}, {"initial": 60.0}))
    given_up = study.ask(one.design.distributions)  # number 4
    given_up.set_user_attr("run", 4)
    study.tell(given_up, state=optuna.trial.TrialState.FAIL)
    for frozen in study.get_trials(deepcopy=False):
        if frozen.number == 1:
            study._storage.set_trial_user_attr(frozen._trial_id, "beat", 0.0)

    summary = run(one)
    assert summary.counts["complete"] == 6
    names = [int(name.rpartition("-")[2]) for name, _ in fake.carried]
    assert len(names) == len(set(names)) == 5, "trial 3 had its record"
    assert {2, 4} <= set(names)
    trials = {trial.number: trial for trial in collect(one.folder).trials}
    assert trials[2].params == running.params
    assert trials[4].params == given_up.params
    assert trials[3].score == 5.0


def test_a_trial_that_somebody_else_carries_out_is_left_alone(
    tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = plan(tmp_path, trials=2)
    run(plan(tmp_path, trials=0))
    study = study_of(one)
    other = study.ask(one.design.distributions)
    other.set_user_attr("beat", time.time())
    monkeypatch.setattr(queue, "POLL", 0.01)
    reclaim = queue.Queue._reclaim

    def reclaim_and_finish(self: queue.Queue) -> None:
        reclaim(self)
        if len(fake.carried) == 2 and study.trials[other.number].value is None:
            study.tell(other, 3.0)

    monkeypatch.setattr(queue.Queue, "_reclaim", reclaim_and_finish)
    assert run(one).counts["complete"] == 3
    assert other.number not in {int(name.rpartition("-")[2]) for name, _ in fake.carried}


def test_half_a_line_at_the_end_of_a_journal_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    study = optuna.create_study(storage=open_journal(file), study_name="s")
    study.tell(study.ask(), 1.0)
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code": 5, "wor')
    again = optuna.load_study(storage=open_journal(file), study_name="s")
    assert file.read_bytes() == whole
    assert [trial.value for trial in again.get_trials()] == [1.0]


def test_another_study_of_the_same_name_is_refused(tmp_path: Path, fake: type[Fake]) -> None:
    run(plan(tmp_path, trials=1, name="mine"))
    with pytest.raises(BadInput, match="another name="):
        run(plan(tmp_path, trials=1, name="mine", sampler="tpe"))


def test_a_study_is_published_as_lines(tmp_path: Path, fake: type[Fake]) -> None:
    one = plan(tmp_path, trials=4)
    run(one)
    file = publish_study(one.folder, tmp_path / "published")
    assert file == tmp_path / "published" / "digits" / f"{one.title}.jsonl"
    study = read_study(file)
    assert study == collect(one.folder)
    assert (study.header.metric, study.header.unit) == ("nll", "nats")
    assert study.header.tuned["model.width"] == 64
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[-1]]) + "\n")
    with pytest.raises(BadInput, match="never cut short"):
        publish_study(one.folder, tmp_path / "published")
    file.write_text("\n".join([*lines[:3], lines[3].replace('"status":"', '"status":"x')]) + "\n")
    with pytest.raises(BadInput, match=r"line 4, is not a line of a study: status"):
        read_study(file)


def test_code_that_is_not_committed_publishes_no_study(tmp_path: Path, fake: type[Fake]) -> None:
    one = plan(tmp_path, trials=1)
    run(one)
    file = one.folder / f"{one.title}-0000" / "record.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"git": {"commit": "abc", "dirty": True}}))
    with pytest.raises(BadInput, match="not committed"):
        publish_study(one.folder, tmp_path)


def test_a_best_setting_is_confirmed_on_fresh_seeds(tmp_path: Path, fake: type[Fake]) -> None:
    one = plan(tmp_path, trials=8)
    run(one)
    best = min(collect(one.folder).proposed, key=lambda trial: trial.value)
    confirm, workers, storage = confirming(one.folder, ["seeds=3", "workers=2"])
    assert (workers, storage) == (2, None)
    assert confirm.title == f"{one.title}-confirm-{best.number}"
    summary = run(confirm, workers)
    assert summary.counts["complete"] == 9
    found = collect(confirm.folder)
    assert {trial.seed["init"] for trial in found.trials} == {100, 101, 102}
    assert {trial.params["budget"] for trial in found.trials} == {"study", "standard"}
    judged = confirmation(collect(one.folder), found)
    assert judged is not None
    assert judged.best == best.value
    assert judged.gap == pytest.approx(0), "these trials have no noise"
    latent = {}
    for trial in found.trials:
        folder = confirm.folder / f"{confirm.title}-{trial.number:04d}"
        record = read_record(folder)
        assert record.config["training"]["validations"] == (2 if trial.params["budget"] == "study" else 20)
        latent[trial.params["setting"]] = record.config["model"]["latent"]
        assert record.config["evaluation"]["split"] == "validation"
        assert record.config["budget"]["name"] == {"study": "trial"}.get(trial.params["budget"], "standard")
    assert latent == {"best": best.params["model.latent"], "tuned": 16}
    with pytest.raises(BadInput, match="no best setting"):
        confirming(confirm.folder, [])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model=vea"], "did you mean 'vae'"),
        (["sampler=tpee"], "did you mean 'tpe'"),
        (["pruner=medain"], "did you mean 'median'"),
        (["design=seed"], "did you mean 'seeds'"),
        (["trials=many"], "trials=many is not possible"),
        (["rates=2"], "rates=2 is not possible"),
        (["workers=0"], "workers=0 is not possible"),
        (["name=a/b"], "cannot name a folder"),
        (["trails=4"], "did you mean"),
        (["evaluation.split=test"], "never sees the test split"),
        (["data=mnist"], "how long a trial on mnist is"),
        (["model.latnet=3"], "did you mean 'latent'"),
        (["model.latent=3"], "model.latent is what the study varies"),
        (["seed=3"], "seed is what the study varies"),
        (["design=seeds", "seed.init=3"], "seed.init is what the study varies"),
        (["design=seeds", "seeds=1"], "crosses nothing"),
        (["design=learning_rate", "model.learning_rate=fast"], "is not a rate"),
        (["data=digit"], "did you mean 'digits'"),
        (["design=remedies"], "lists no remedies"),
        (["design=remedies", "model=dcgan", "cases=none,pakcing"], "did you mean 'packing'"),
        (["design=remedies", "model=dcgan", "model.packing=4"], "model.packing is what the study varies"),
        (["trials"], "'trials' is not a setting"),
        (["model"], "'model' is not a setting"),
        (["trial=3"], "did you mean 'trials'"),
        (["name=.."], "cannot name a folder"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said_in_one_line(settings: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        plan_of(settings)
    assert len(str(refused.value).splitlines()) == 1


# The command, with children that train -------------------------------------------------------------------------------

ENVIRONMENT = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def command(*more: str) -> list[str]:
    return [sys.executable, "-m", "benchmark", "sweep", "model=vae", "data=digits", *more]


@pytest.mark.xdist_group("server")
def test_a_sweep_from_the_command_line(tmp_path: Path) -> None:
    settings = ["trials=2", "workers=1", "name=short", *TINY]
    done = benchmark("sweep", "model=vae", "data=digits", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "short: 3 complete" in done.stdout
    assert "Warning" not in done.stderr
    records = read_records(tmp_path / "runs" / "studies")
    assert len(records) == 3
    for record in records.values():
        assert (record.kind, record.config["evaluation"]["split"]) == ("trial", "validation")
        assert record.status == "finished"
        assert record.stability.keys() >= {"initial", "final", "gradient_tail", "active_units", "generalisation_gap"}
        assert all(score.protocol.get("split") != "test" for score in record.scores.values())
        assert "fid" not in record.scores
        assert record.hardware["threads"] == 1
    assert not list((tmp_path / "runs" / "studies").rglob("last.ckpt"))


LONG = ["budget.examples=6000", "budget.minutes=10", "training.validations=30"]


@pytest.mark.slow
def test_killed_trials_and_killed_sweeps_lose_nothing(tmp_path: Path) -> None:
    """kill -9 of a child in mid-trial, of the whole sweep, and Ctrl-C: every trial is there once, unharmed."""
    settings = ["trials=3", "workers=2", "name=killed", *LONG]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*settings), cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait_for_checkpoint(but: set[Path]) -> set[Path]:
        deadline = time.monotonic() + 900  # a loaded machine takes its time
        while time.monotonic() < deadline:
            if found := set(tmp_path.glob("runs/studies/killed/*/last.ckpt")) - but:
                return found
            time.sleep(0.05)
        raise AssertionError("no checkpoint in time")

    first = start()
    seen = wait_for_checkpoint(set())
    (server,) = (child for child in children(first.pid) if children(child))
    os.kill(children(server)[0], signal.SIGKILL)
    seen |= wait_for_checkpoint(seen)
    with first:  # closes its pipe
        first.kill()
    journal = tmp_path / "runs" / "studies" / "journal.log"
    with journal.open("ab") as end:
        end.write(b'{"op_code":6,"wor')  # what a kill in mid-write leaves
    second = start()
    wait_for_checkpoint(seen)
    second.send_signal(signal.SIGINT)
    _, said = second.communicate(timeout=300)
    assert second.returncode == 130
    assert "repeat the command to resume" in said
    assert "Traceback" not in said
    done = subprocess.run(command(*settings), capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "killed: 4 complete" in done.stdout
    records = sorted(tmp_path.glob("runs/studies/killed/*/record.json"))
    assert [file.parent.name for file in records] == [f"killed-{number:04d}" for number in range(4)]

    whole = subprocess.run(command(*settings, "runtime.runs=whole"), cwd=tmp_path, env=ENVIRONMENT, check=False)
    assert whole.returncode == 0
    for file in records:
        other = read_record(tmp_path / "whole" / "studies" / "killed" / file.parent.name)
        mine = read_record(file)
        assert (mine.seed, mine.config_hash) == (other.seed, other.config_hash)
        assert mine.scores["selection"].value == other.scores["selection"].value


def children(pid: int) -> list[int]:
    """Processes that any of its threads started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(found) for file in files for found in file.read_text().split()]


# A real server -------------------------------------------------------------------------------------------------------


def server_binary(name: str) -> str | None:
    """Debian keeps PostgreSQL's server outside the path."""
    found = [shutil.which(name), *sorted(str(file) for file in Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))]
    return next((file for file in reversed(found) if file), None)


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of a server of our own, on a socket of its own; PostgreSQL refuses to run as root."""
    initdb, postgres = server_binary("initdb"), server_binary("postgres")
    if initdb is None or postgres is None:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        if user:
            shutil.chown(folder, "nobody")
        home = Path(folder) / "data"
        options: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **user}
        subprocess.run([initdb, "-D", home, "-U", "optuna", "-A", "trust", "--no-sync"], check=True, **options)
        server = subprocess.Popen([postgres, "-D", home, "-k", folder, "-c", "listen_addresses=", "-F"], **options)
        try:
            deadline = time.monotonic() + 60
            while not list(Path(folder).glob(".s.PGSQL.*")) and time.monotonic() < deadline:
                time.sleep(0.1)
            yield f"postgresql+psycopg://optuna@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


@pytest.mark.slow
def test_two_sweeps_share_a_study_in_postgresql(postgresql: str, tmp_path: Path) -> None:
    settings = ["trials=4", "workers=1", "name=shared", f"storage={postgresql}", *TINY]
    both = [
        subprocess.Popen(
            command(*settings), cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for sweep in both:
        said, problems = sweep.communicate(timeout=900)
        assert sweep.returncode == 0, problems
        assert "shared: 5 complete" in said
    records = read_records(tmp_path / "runs" / "studies" / "shared")
    assert len(records) == 5
    assert len({record.config_hash for record in records.values()}) == 5
    study = optuna.load_study(study_name="shared", storage=open_storage(postgresql))
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE"] * 5
    assert len({trial.user_attrs["run"] for trial in study.get_trials()}) == 5


def test_a_storage_that_does_not_open_is_said_in_one_line() -> None:
    with pytest.raises(BadInput, match="does not open") as refused:
        open_storage("postgresql+psycopg://me:secret@/nothing?host=/nowhere")
    assert "secret" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(BadInput, match="does not open"):
        open_storage("nosuchdatabase://here")
