"""A model outside the package: a configuration file is all it takes to run it, to see it beside ours, to hand it in."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import benchmark
from files import RECORDS, REPOSITORY
from runs import FEW_DRAWS
from signatures import MODEL_KEYS, assert_options_are_the_signature

EXAMPLE = REPOSITORY / "examples" / "custom_model"
CONFIG = EXAMPLE / "configs" / "model" / "nade.yaml"
SHORT = ["budget=smoke", "budget.examples=640", "training.validations=1", *FEW_DRAWS, "runtime.threads=1"]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(EXAMPLE / "configs"))


def configuration() -> dict[str, Any]:
    return yaml.safe_load(CONFIG.read_text())


def test_the_example_passes_the_exam(tmp_path: Path) -> None:
    refused = benchmark("exam", "my_models.autoregressive.nade.NADE", cwd=tmp_path)
    assert refused.returncode == 2
    assert "add --trust my_models" in refused.stderr
    done = benchmark("exam", "nade", "--trust", "my_models", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "my_models.autoregressive.nade.NADE: keeps all 8 laws" in done.stdout
    assert "samples_follow_likelihood on grid: holds" in done.stderr
    (kept,) = tmp_path.glob("runs/exams/*.json")
    content = json.loads(kept.read_text())
    assert content["options"]["hidden"] == 256
    assert content["structures"] == ["grid"]
    assert {law["problem"] for law in content["laws"]} == {None}


def test_the_example_lists_every_option() -> None:
    assert_options_are_the_signature(configuration(), MODEL_KEYS, "spec")


def test_from_a_configuration_to_the_board_and_to_a_record_that_can_be_handed_in(tmp_path: Path) -> None:
    assert "autoregressive: Likelihood; digits" in benchmark("list", cwd=tmp_path).stdout
    refused = benchmark("run", "model=nade", *SHORT, cwd=tmp_path)
    assert refused.returncode == 2
    assert "add --trust my_models" in refused.stderr
    assert benchmark("exam", "nade", "--trust", "my_models", cwd=tmp_path).returncode == 0
    done = benchmark("run", "model=nade", *SHORT, "--trust", "my_models", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("runs/digits/nade/*/record.json")
    content = json.loads(record.read_text())
    assert len(content["sources"]["my_models"]) == 64
    exam = {"passed": True, "laws": 8, "failed": [], "sources": content["sources"]}
    assert {**content["exam"], **exam} == content["exam"]

    ours = shutil.copytree(RECORDS / "digits", tmp_path / "ours" / "records" / "digits")
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
