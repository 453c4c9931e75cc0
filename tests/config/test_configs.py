"""The configuration files say what the code says: every option, every default, every name."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from files import CONFIGS
from signatures import MODEL_KEYS, assert_options_are_the_signature, class_of

from benchmark.config import compose, load_suite
from benchmark.data.base import DataModule
from benchmark.facts import modality
from benchmark.models.base import GenerativeModel
from benchmark.spec import BadInput, Structure

BUDGETS = ("smoke", "quick", "standard", "full")
DATA_KEYS = ("target", "modality", "minutes", "before", "evaluation")


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def group(name: str) -> list[Any]:
    """The files of a configuration group, each a test case with its name."""
    return [pytest.param(path, id=path.stem) for path in sorted((CONFIGS / name).glob("*.yaml"))]


def is_variant(path: Path) -> bool:
    """Whether a model's configuration has another name than the file of its class, and values of its own."""
    return path.stem != load(path)["target"].split(".")[-2]


@pytest.mark.parametrize("path", group("model"))
def test_model(path: Path) -> None:
    config = load(path)
    assert set(config["structures"]) <= {"grid", "sequence", "coordinates"}
    assert config["structures"]
    assert set(config.get("conditions", [])) <= set(get_args(Structure))
    assert config["target"].startswith("benchmark.models.")
    model = class_of(config)
    assert issubclass(model, GenerativeModel)
    assert not inspect.isabstract(model), f"abstract: {sorted(model.__abstractmethods__)}"
    assert_options_are_the_signature(config, MODEL_KEYS, "spec", variant=is_variant(path))


def test_every_model_has_a_configuration_with_its_defaults() -> None:
    """`gpt2` sets options of the class whose own configuration is `gpt`."""
    files = [parameter.values[0] for parameter in group("model")]
    own = {load(path)["target"] for path in files if not is_variant(path)}
    assert {load(path)["target"] for path in files} == own
    assert is_variant(CONFIGS / "model" / "gpt2.yaml")
    assert not is_variant(CONFIGS / "model" / "gpt.yaml")


@pytest.mark.parametrize("path", group("model"))
def test_model_cites_its_paper(path: Path) -> None:
    """A paragraph `Paper: authors, "title", venue year, link`."""
    docstring = inspect.getmodule(class_of(load(path))).__doc__ or ""
    paragraphs = [" ".join(paragraph.split()) for paragraph in docstring.split("\n\n")]
    assert any(re.match(r'Paper: .+".+",.* \d{4}', paragraph) for paragraph in paragraphs), f"no paper: {docstring!r}"


@pytest.mark.parametrize("path", group("data"))
def test_data(path: Path) -> None:
    config = load(path)
    assert config["modality"] in {path.stem for path in (CONFIGS / "modality").glob("*.yaml")}
    assert tuple(config["minutes"]) == BUDGETS
    assert list(config["minutes"].values()) == sorted(config["minutes"].values())
    assert config["target"].startswith("benchmark.data.")
    assert issubclass(class_of(config), DataModule)
    assert_options_are_the_signature(config, DATA_KEYS, "root")


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in sorted((CONFIGS / "tuned").glob("*/*.yaml"))],
)
def test_tuned(path: Path) -> None:
    """Names data and model that exist and belong together, known options only, and a length for each budget."""
    tuned = load(path)
    assert path.read_text(encoding="utf-8").startswith("# @package _global_\n")
    data_file, model_file = CONFIGS / "data" / f"{path.parent.name}.yaml", CONFIGS / "model" / path.name
    assert data_file.is_file(), f"no dataset {path.parent.name!r}"
    assert model_file.is_file(), f"no model {path.stem!r}"
    data, model = load(data_file), load(model_file)
    structure = modality(data["modality"]).structure
    assert structure in model["structures"], f"{path.stem} takes {model['structures']}"

    known = {
        "data": set(data) - {"target", "modality"},
        "model": set(model) - set(MODEL_KEYS),
        "training": set(load(CONFIGS / "experiment.yaml")["training"]),
        "evaluation": set(load(CONFIGS / "experiment.yaml")["evaluation"]),
        "examples": set(BUDGETS),
        "first_stage": {"run", "experiment"},
        "start": {"run", "experiment"},
    }
    assert set(tuned) <= set(known), f"unknown: {sorted(set(tuned) - set(known))}"
    for section, options in tuned.items():
        unknown = set(options or {}) - known[section]
        assert not unknown, f"unknown in {section}: {sorted(unknown)}"
    lengths = [tuned["examples"][budget] for budget in BUDGETS]
    assert all(isinstance(length, int) and length > 0 for length in lengths), f"examples seen: {lengths}"
    assert lengths == sorted(lengths), f"a larger budget sees fewer examples: {lengths}"


def test_options_that_drift_are_noticed() -> None:
    """The comparison itself convicts a missing option, a changed default and an unknown one."""
    path = sorted((CONFIGS / "model").glob("*.yaml"))[0]
    config = load(path)
    name = next(key for key in config if key not in MODEL_KEYS)
    missing = {key: value for key, value in config.items() if key != name}
    unknown = {**config, "no_such_option": 1}
    for drifted in (missing, {**config, name: "another default"}, unknown):
        with pytest.raises(AssertionError):
            assert_options_are_the_signature(drifted, MODEL_KEYS, "spec")
    for drifted in (missing, unknown):
        with pytest.raises(AssertionError):
            assert_options_are_the_signature(drifted, MODEL_KEYS, "spec", variant=True)
    wrong = {**load(CONFIGS / "model" / "gpt2.yaml"), "layers": -1}
    with pytest.raises(BadInput, match="layers=-1"):
        assert_options_are_the_signature(wrong, MODEL_KEYS, "spec", variant=True)


def test_settings_of_a_suite_and_of_an_entry_reach_its_runs_and_the_command_line_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "mine.yaml").write_text(
        "description: two\nbudget: smoke\nseeds: [0]\nsettings: [training.validations=3, evaluation.sample_draws=2]\n"
        "experiments:\n- {data: digits, model: vae}\n"
        "- {data: digits, model: vdm, settings: [training.validations=4, budget.examples=77]}\n"
    )
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(tmp_path))
    vae, vdm = load_suite("mine")
    assert (vae.training.validations, vae.evaluation.sample_draws) == (3, 2)
    assert (vdm.training.validations, vdm.evaluation.sample_draws, vdm.budget.examples) == (4, 2, 77)
    assert {one.training.validations for one in load_suite("mine", ["training.validations=5"])} == {5}


def test_data_may_say_how_they_are_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over what holds for all data, and under what is tuned or given."""
    mine = (CONFIGS / "data" / "digits.yaml").read_text()
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "mine.yaml"
    names = ["data=mine", "model=vae", "budget=smoke", "budget.examples=100"]
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(tmp_path))
    file.write_text(mine + "evaluation: {sample_draws: 1, sample_examples: 70}\n")
    experiment = compose(names)
    assert (experiment.evaluation.sample_draws, experiment.evaluation.sample_examples) == (1, 70)
    assert experiment.evaluation.elbo_draws == compose(["data=digits", *names[1:]]).evaluation.elbo_draws
    assert "evaluation" not in experiment.container()["data"]
    assert compose([*names, "evaluation.sample_examples=50"]).evaluation.sample_examples == 50
    (tmp_path / "data" / "tuned.yaml").write_text(file.read_text())
    (tmp_path / "tuned" / "tuned").mkdir(parents=True)
    (tmp_path / "tuned" / "tuned" / "vae.yaml").write_text("evaluation: {sample_examples: 60}\n")
    assert compose(["data=tuned", *names[1:]]).evaluation.sample_examples == 60
    (tmp_path / "data" / "other.yaml").write_text(mine + "evaluation: {smaple_draws: 1}\n")
    with pytest.raises(BadInput, match=r"other.yaml: unknown option of evaluation 'smaple_draws'; did you mean"):
        compose(["data=other", *names[1:]])
    (tmp_path / "data" / "wrong.yaml").write_text(mine + "evaluation: {sample_draws: some}\n")
    with pytest.raises(BadInput, match=r"wrong.yaml: evaluation.sample_draws="):
        compose(["data=wrong", *names[1:]])
