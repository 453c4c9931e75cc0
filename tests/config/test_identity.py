"""Identity holds what changes a result and nothing else; what is committed keeps its place."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import record
from files import RECORDS, REPOSITORY

from benchmark.config import Rename, compose, composition, identity, name_today, renames, tuned_identity, validate
from benchmark.leaderboard.rows import select
from benchmark.record import Record, read_record, read_records, write_record
from benchmark.sweep.studies import read_studies

BASE = compose(["data=digits", "model=vae"]).container()


@pytest.fixture(scope="module")
def committed() -> dict[Path, Record]:
    return read_records(RECORDS)


def test_records_that_say_modalities_are_read_as_structures() -> None:
    old = copy.deepcopy(BASE)
    old["model"] = {key: value for key, value in old["model"].items() if key not in ("structures", "conditions")}
    for modalities, structures in ((["image"], ("grid",)), (["image", "text"], ("grid", "sequence"))):
        content = {**old, "model": old["model"] | {"modalities": modalities}}
        assert validate(content).model.structures == structures
        assert "modalities" not in validate(content).model.options
        assert identity(content) == identity(BASE)


def changed(group: str, **options: Any) -> dict[str, Any]:
    content = copy.deepcopy(BASE)
    content[group] |= options
    return content


@pytest.mark.parametrize(
    ("group", "options"),
    [
        ("seed", {"init": 7}),
        ("runtime", {"threads": 2, "runs": "elsewhere", "limit_minutes": 5.0}),
        ("budget", {"minutes": 99.0, "name": "long"}),
        ("data", {"minutes": {}, "modality": "picture", "target": "benchmark.data.elsewhere.Digits"}),
        ("model", {"structures": ["grid", "sequence"], "target": "benchmark.models.moved.VAE"}),
        ("model", {"conditions": ["label"]}),
        ("model", {"modalities": ["image", "audio"]}),  # as records of old say
        ("model", {"beta": 1, "latent": 16.0}),
        ("evaluation", {"outliers": "corrupted"}),
    ],
)
def test_what_changes_no_result_changes_no_identity(group: str, options: dict[str, Any]) -> None:
    assert identity(changed(group, **options)) == identity(BASE)


@pytest.mark.parametrize(
    ("group", "options"),
    [
        ("budget", {"examples": 7}),
        ("data", {"name": "mnist"}),
        ("model", {"name": "other"}),
        ("model", {"target": "my_models.vae.VAE"}),
        ("model", {"beta": 1.5}),
        ("training", {"batch_size": 8}),
        ("evaluation", {"elbo_draws": 8}),
        ("evaluation", {"outliers": "mnist"}),
    ],
)
def test_what_changes_a_result_changes_the_identity(group: str, options: dict[str, Any]) -> None:
    assert identity(changed(group, **options)) != identity(BASE)


def test_an_option_that_a_record_lacks_counts_as_what_the_code_did_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever today's default is; and adding the option moves no record."""
    file = REPOSITORY / "configs" / "model" / "vae.yaml"
    content = yaml.safe_load(file.read_text()) | {"free_bits": 0.5}
    content["before"] |= {"free_bits": 0.0}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "vae.yaml").write_text(yaml.safe_dump(content))
    old, stored = copy.deepcopy(BASE), identity(BASE)
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(tmp_path))
    assert identity(old) == stored
    assert identity(changed("model", free_bits=0.0)) == stored
    assert identity(changed("model", free_bits=0.5)) != stored


def test_an_option_that_goes_leaves_records_where_they_are_that_say_what_the_code_does_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load((REPOSITORY / "configs" / "model" / "vae.yaml").read_text())
    gone = content.pop("beta")
    content["gone"] = {"beta": gone}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "vae.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(tmp_path))
    today = copy.deepcopy(BASE)
    del today["model"]["beta"]
    assert identity(changed("model", beta=gone)) == identity(today)
    assert identity(changed("model", beta=gone + 0.5)) != identity(today)


def test_every_committed_record_and_study_has_the_hash_of_its_day(committed: dict[Path, Record]) -> None:
    assert len(committed) >= 58
    for path in committed:
        stored = read_record(path, as_stored=True)
        assert stored.hash_by_its_rule == stored.config_hash, path
        assert path.name.startswith(f"{stored.seed['init']}-{stored.config_hash[:8]}-")
    for path, study in read_studies(REPOSITORY / "leaderboards" / "studies").items():
        assert study.header.hash_by_its_rule == study.header.config_hash, path


def test_no_committed_record_or_study_says_where_it_lay_on_a_machine() -> None:
    found = [*(REPOSITORY / "leaderboards").rglob("*.json"), *(REPOSITORY / "leaderboards").rglob("*.jsonl")]
    assert len(found) >= 100
    assert not [file for file in found if re.search(r'"(runs|data_root|inception)": ?"[/~]', file.read_text("utf-8"))]


def test_what_is_recorded_names_no_place() -> None:
    experiment = compose(["runtime.runs=/here/runs", "runtime.data_root=/here/data", "runtime.inception=/here/weights"])
    assert "/here" in str(experiment.container())
    assert "/here" not in str(experiment.to_record())
    assert experiment.to_record() == compose([]).to_record()


def test_every_committed_record_is_of_a_configuration_that_counts_today(committed: dict[Path, Record]) -> None:
    """Under the tuned settings of today; what is superseded is so by newer code, not by another identity."""
    settings = {(one.data, one.model, one.budget) for one in committed.values()}
    current = {one: {tuned} for one in settings if (tuned := tuned_identity(*one)) is not None}
    rows, superseded = select(committed, current)
    assert {(row.runs[0].record.data, row.name) for row in rows} == {(data, model) for data, model, _ in settings}
    reasons: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for entry in superseded:
        reasons[entry.why.partition(" (")[0]].add((entry.run.record.data, entry.run.record.model))
    before = {"flow_matching": "its divergence was exact, and slow", "image_gpt": "its learning rates were too small"}
    assert reasons.pop("other configuration") == {("digits", model) for model in before}
    assert reasons.keys() <= {"other code", "repeated seed: the first counts"}


@pytest.mark.parametrize(
    "change",
    [
        {"target": "benchmark.models.elsewhere.Model"},
        {"structures": ["grid", "sequence", "coordinates"], "conditions": ["label"]},
        {"novelty": 0.0, "before": {"novelty": 0.0}},
    ],
    ids=["its file moves", "it accepts another structure", "it gets an option"],
)
def test_what_happens_to_models_leaves_every_committed_row_in_its_place(
    change: dict[str, Any], committed: dict[Path, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every model that has records: the rows of the boards, and the runs in each."""

    def rows() -> set[tuple[str, str, str, tuple[str, ...]]]:
        settings = {(one.data, one.model, one.budget) for one in committed.values()}
        current = {one: {tuned} for one in settings if (tuned := tuned_identity(*one)) is not None}
        found, _ = select(committed, current)
        return {
            (row.runs[0].record.data, row.name, row.budget, tuple(run.path.name for run in row.runs)) for row in found
        }

    before = rows()
    (tmp_path / "model").mkdir()
    for name in {one.model for one in committed.values()}:
        content = yaml.safe_load((REPOSITORY / "configs" / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
        older = content.get("before", {}) | change.get("before", {})
        changed = content | change | ({"before": older} if older else {})
        (tmp_path / "model" / f"{name}.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(tmp_path))
    for tuned in sorted((REPOSITORY / "configs" / "tuned").glob("*/*.yaml")):  # beside the files that they are about
        copy_of = tmp_path / "tuned" / tuned.parent.name / tuned.name
        copy_of.parent.mkdir(parents=True, exist_ok=True)
        copy_of.write_text(tuned.read_text(encoding="utf-8"), encoding="utf-8")
    assert rows() == before
    assert len(before) >= 17


def test_a_new_record_stores_the_identity_of_today(tmp_path: Path) -> None:
    experiment = compose(["data=digits", "model=vae"])
    write_record(
        tmp_path, record(schema=2, config=experiment.container(), config_hash=experiment.config_hash, share=1.0)
    )
    again = read_record(tmp_path)
    assert again.identity == again.hash_by_its_rule == experiment.config_hash == identity(BASE)


def test_a_renamed_configuration_takes_its_records_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the old name has come to mean something else; what is stored stays as written."""
    begun = datetime(2026, 6, 1, tzinfo=UTC)
    table = (Rename(group="model", old="vae", new="conv_vae", until=begun),)
    monkeypatch.setattr(renames, "renames", lambda: table)
    assert name_today("model", "vae", datetime(2026, 5, 1, tzinfo=UTC)) == "conv_vae"
    assert name_today("model", "vae", begun) == "vae"
    assert name_today("data", "vae", datetime(2026, 5, 1, tzinfo=UTC)) == "vae"
    old = record(schema=2, config=BASE, config_hash=identity(BASE), started=datetime(2026, 5, 1, tzinfo=UTC))
    write_record(tmp_path, old)
    found, stored = read_record(tmp_path), read_record(tmp_path, as_stored=True)
    assert (found.model, found.config["model"]["name"], found.config_hash) == ("conv_vae", "conv_vae", identity(BASE))
    assert found.identity == identity(changed("model", name="conv_vae")) != identity(BASE)
    assert (stored.model, stored.hash_by_its_rule) == ("vae", stored.config_hash)


def test_a_renamed_configuration_takes_a_users_tuned_settings_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tuned" / "digits" / "old_vae.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("examples: {quick: 777}\nmodel: {latent: 5}\n")
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(tmp_path))
    monkeypatch.setattr(renames, "renames", lambda: (Rename(group="model", old="old_vae", new="vae"),))
    composition._chosen.cache_clear()
    composed = compose(["data=digits", "model=vae", "budget=quick"])
    assert (composed.budget.examples, composed.model.options["latent"]) == (777, 5)
    assert not list(composition.strangers())
    composition._chosen.cache_clear()
