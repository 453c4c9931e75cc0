"""A model outside the package: a configuration file is all it takes to run it, to see it beside ours, to hand it in."""

from __future__ import annotations

import json
import os
import shutil
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import benchmark
from laws import LAWS, Law, Subject
from runs import FEW_DRAWS
from test_configs import MODEL_KEYS, assert_options_are_the_signature, class_of

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLE = REPOSITORY / "examples" / "custom_model"
CONFIG = EXAMPLE / "configs" / "model" / "nade.yaml"
SHORT = ["budget=smoke", "budget.examples=640", "training.validations=1", *FEW_DRAWS, "runtime.threads=1"]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(EXAMPLE / "configs"))


def configuration() -> dict[str, Any]:
    return yaml.safe_load(CONFIG.read_text())


@cache
def subject() -> Subject:
    options = {key: value for key, value in configuration().items() if key not in MODEL_KEYS}
    return Subject(partial(class_of(configuration()), **options), "grid")


def laws() -> list[Law]:
    sys.path.insert(0, str(EXAMPLE))
    try:
        return [law for law in LAWS if law.binds(class_of(configuration()), "grid")]
    finally:
        sys.path.remove(str(EXAMPLE))


@pytest.mark.parametrize("law", laws(), ids=lambda law: law.name)
def test_the_example_keeps_its_promises(law: Law) -> None:
    law.check(subject())


def test_the_example_lists_every_option() -> None:
    assert_options_are_the_signature(configuration(), MODEL_KEYS, "spec")


def test_from_a_configuration_to_the_board_and_to_a_record_that_can_be_handed_in(tmp_path: Path) -> None:
    assert "autoregressive: Likelihood; digits" in benchmark("list", cwd=tmp_path).stdout
    refused = benchmark("run", "model=nade", *SHORT, cwd=tmp_path)
    assert refused.returncode == 2
    assert "add --trust my_models" in refused.stderr
    done = benchmark("run", "model=nade", *SHORT, "--trust", "my_models", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("runs/digits/nade/*/record.json")
    assert len(json.loads(record.read_text())["sources"]["my_models"]) == 64

    ours = shutil.copytree(REPOSITORY / "leaderboards" / "records" / "digits", tmp_path / "ours" / "records" / "digits")
    places = ["--records", str(ours.parent), "--records", "runs", "--to", "board"]
    shown = benchmark("leaderboard", *places, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    board = (tmp_path / "board" / "digits.md").read_text()
    rows = [line.split(" | ")[:3] for line in board.splitlines() if line.startswith("| 1 | ")]
    assert ["| 1", "nade", "autoregressive"] in rows  # alone in its budget
    assert "| gated_pixelcnn | standard | 0 |" in board  # ours, on the same page

    content = json.loads(record.read_text()) | {"code_hash": "c" * 40, "git": {"commit": "d" * 40, "dirty": False}}
    record.write_text(json.dumps(content))
    handed_in = benchmark("check", str(record.parent), cwd=tmp_path)
    assert (handed_in.returncode, handed_in.stdout) == (0, f"{record.parent}: well-formed\n"), handed_in.stderr


def test_a_suite_takes_models_that_it_may_trust(tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(EXAMPLE / "configs", configs)
    (configs / "suite").mkdir()
    suite = {
        "description": "one",
        "budget": "smoke",
        "seeds": [0],
        "experiments": [{"data": "digits", "model": "nade"}],
    }
    (configs / "suite" / "mine.yaml").write_text(yaml.safe_dump(suite))
    own = {"PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(REPOSITORY)]), "BENCHMARK_CONFIGS": str(configs)}
    command = ["suite", "mine", "jobs=1", *SHORT[1:]]
    refused = benchmark(*command, cwd=tmp_path, **own)
    assert refused.returncode == 2
    assert "add --trust my_models" in refused.stderr
    done = benchmark(*command, "--trust", "my_models", cwd=tmp_path, **own)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/digits/nade/*/record.json"))) == 1
