"""A committed study goes on where its runs are not: its trials count, and none is trained again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from files import REPOSITORY
from rich.console import Console

from benchmark.config import Experiment, Rename
from benchmark.launch import Display
from benchmark.record import Record, write_record
from benchmark.spec import BadInput, Score
from benchmark.sweep import search, studies
from benchmark.sweep.command import plan_of
from benchmark.sweep.plan import Plan
from benchmark.sweep.search import Summary
from benchmark.sweep.studies import as_lines, collect, publish_study, read_study

COMMITTED = sorted((REPOSITORY / "leaderboards" / "studies").glob("*/*.jsonl"))
SEARCH = next(file for file in COMMITTED if "vae-qmc-standard" in file.name)
GRID = next(file for file in COMMITTED if "vae-seeds-9e177498" in file.name)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the trials that were carried out; each only writes a record."""
    found: list[str] = []

    def train(sweep: Any, trial: Any, experiment: Experiment, folder: Path) -> None:
        found.append(folder.name)
        score = Score("nats/example", 1, 100.0, protocol={"metric": "nll"})
        record = Record(
            schema=2,
            kind="trial",
            status="finished",
            reason=None,
            model=experiment.model.name,
            data=experiment.data.name,
            budget=experiment.budget.name,
            seed=experiment.seed.model_dump(),
            config=experiment.container(),
            config_hash=experiment.config_hash,
            code_hash="c0de",
            git={"commit": "abc", "dirty": False},
            dataset={},
            environment={},
            hardware={},
            started=datetime(2026, 1, 1, tzinfo=UTC),
            seconds=1.0,
            scores={"selection": score},
            stability={"initial": 180.0},
        )
        write_record(folder, record)

    monkeypatch.setattr(search._Sweep, "_train", train)
    return found


def continuing(file: Path, tmp_path: Path, *more: str) -> Plan:
    plan, _, _ = plan_of([f"continue={file}", f"runtime.runs={tmp_path}", *more])
    return plan


def carry_out(plan: Plan) -> Summary:
    with Display(Console(quiet=True)) as display:
        return search.sweep(plan, 1, None, display)


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_every_committed_study_can_be_continued(file: Path, tmp_path: Path) -> None:
    """Its options mean the same experiment today, and its design proposes the points that it had."""
    plan = continuing(file, tmp_path)
    had = [trial.params for trial in read_study(file).trials]
    assert all(dict(point) in had for point in plan.design.points)
    assert plan.title == read_study(file).header.name


def test_a_search_gets_the_next_points_of_its_sequence(tmp_path: Path, trained: list[str]) -> None:
    before = read_study(SEARCH)
    summary = carry_out(continuing(SEARCH, tmp_path, "trials=18"))
    after = collect(summary.folder)
    assert len(before.trials) == 17
    assert len(trained) == 2
    assert after.trials[:17] == before.trials
    assert len({str(trial.params) for trial in after.trials}) == 19, "no point comes twice"
    assert len({trial.number for trial in after.trials}) == 19
    assert summary.best == min(trial.value for trial in before.trials if trial.value is not None)
    assert carry_out(continuing(SEARCH, tmp_path, "trials=19")).counts["complete"] == 20, "and once more"
    assert len(trained) == 3


def test_a_grid_gets_the_points_that_it_lacks(tmp_path: Path, trained: list[str]) -> None:
    summary = carry_out(continuing(GRID, tmp_path, "seeds=4"))
    assert len(trained) == 16 - 9
    points = [trial.params for trial in collect(summary.folder).trials]
    assert sorted(map(dict, points), key=str) == sorted(
        ({"seed.init": init, "seed.data": data} for init in range(4) for data in range(4)), key=str
    )


def test_nothing_is_trained_where_nothing_is_lacking(tmp_path: Path, trained: list[str]) -> None:
    summary = carry_out(continuing(GRID, tmp_path))
    assert not trained
    target = tmp_path / "published"
    assert read_study(publish_study(summary.folder, target)).trials == read_study(GRID).trials


def test_the_folder_of_a_study_can_be_continued_too(tmp_path: Path, trained: list[str]) -> None:
    summary = carry_out(continuing(GRID, tmp_path))
    carry_out(continuing(summary.folder, tmp_path, "seeds=4"))
    trials = collect(summary.folder).trials
    assert len(trials) == len({str(sorted(trial.params.items())) for trial in trials}) == 16, "every point once"
    assert sorted(trained) == sorted(set(trained))


def test_what_would_ask_another_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"drop model\.width=8"):
        plan_of([f"continue={GRID}", "model.width=8"])
    with pytest.raises(BadInput, match="drop sampler=tpe"):
        plan_of([f"continue={GRID}", "sampler=tpe"])
    study = read_study(GRID)
    config = study.header.config | {"evaluation": study.header.config["evaluation"] | {"solved_examples": 7}}
    del config["evaluation"]["elbo_draws"]
    other = study.model_copy(update={"header": study.header.model_copy(update={"config": config})})
    file = tmp_path / "other.jsonl"
    file.write_text(as_lines(other))
    with pytest.raises(BadInput, match="elbo_draws"):
        plan_of([f"continue={file}"])


def test_studies_follow_a_configuration_that_changes_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    until = datetime(2026, 6, 1, tzinfo=UTC)
    table = (Rename(group="model", old="vae", new="conv_vae", until=until),)
    monkeypatch.setattr("benchmark.config.renames.renames", lambda: table)
    header = read_study(GRID).header
    assert (header.model, header.config["model"]["name"]) == ("conv_vae", "conv_vae")
    later = header.model_copy(update={"model": "vae", "started": until})
    assert studies._under_todays_names(later).model == "vae"
