"""References are computed once in one place, for all runs for which they are the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import experiment

from benchmark import record as records
from benchmark.build import build_examination, data_of
from benchmark.evaluate import references
from benchmark.record import read_records
from benchmark.train import experts_of, final_protocol, references_of

CPU = torch.device("cpu")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each time that references were computed."""
    times: list[object] = []

    def counted(*arguments: Any) -> Any:
        times.append(arguments)
        return references(*arguments)

    monkeypatch.setattr("benchmark.train.references.references", counted)
    return times


def table(runs: Path, model: str = "vae", *overrides: str) -> Any:
    wanted = experiment(runs, model, *overrides)
    data, examination = data_of(wanted), build_examination(wanted.data.modality)
    return references_of(wanted, data, final_protocol(wanted), examination, experts_of(wanted, data, CPU), CPU)


def files(runs: Path) -> list[Path]:
    return sorted((runs / "references").iterdir())


def test_another_run_finds_what_was_computed_bit_for_bit(tmp_path, computed):
    first = table(tmp_path)
    assert table(tmp_path, "sngan", "seed=3", "training.batch_size=8") == first
    assert len(computed) == len(files(tmp_path)) == 1
    wanted = experiment(tmp_path, "vae")
    data = data_of(wanted)
    anew = references(data, final_protocol(wanted), build_examination("image"), experts_of(wanted, data, CPU))
    plain = {name: {metric: asdict(score) for metric, score in scores.items()} for name, scores in anew.items()}
    assert first == json.loads(json.dumps(plain))
    assert first["held-out data"]["fid"]["value"] == anew["held-out data"]["fid"].value


@pytest.mark.parametrize(
    "setting", ["evaluation.sample_draws=3", "evaluation.split=validation", "seed.eval=1", "data=synthetic_images"]
)
def test_what_changes_them_is_another_matter(setting, tmp_path, computed):
    table(tmp_path)
    table(tmp_path, "vae", setting)
    assert len(computed) == len(files(tmp_path)) == 2


def test_other_code_or_another_machine_computes_its_own(tmp_path, computed, monkeypatch):
    table(tmp_path, "gpt")
    monkeypatch.setattr(records, "code_identity", lambda targets: {"benchmark": "other"})
    table(tmp_path, "gpt")
    monkeypatch.setattr(records, "hardware", lambda: {"cpu": "another", "cores": 3})
    table(tmp_path, "gpt")
    assert len(computed) == len(files(tmp_path)) == 3


def cut(text: str) -> str:
    return text[: len(text) // 2]


def bent(text: str) -> str:
    content = json.loads(text)
    content["references"]["uniform"]["nats_per_token"]["value"] += 0.5
    return json.dumps(content)


def without(text: str) -> str:
    return json.dumps({"of": json.loads(text)["of"]})


def of_another(text: str) -> str:
    return json.dumps(json.loads(text) | {"of": {}})


@pytest.mark.parametrize("damage", [cut, bent, without, of_another, lambda text: "", lambda text: "[]"])
def test_a_damaged_file_is_written_anew(damage: Callable[[str], str], tmp_path, computed):
    first = table(tmp_path, "gpt")
    (file,) = files(tmp_path)
    whole = file.read_text(encoding="utf-8")
    file.write_text(damage(whole), encoding="utf-8")
    assert table(tmp_path, "gpt") == first
    assert len(computed) == 2
    assert file.read_text(encoding="utf-8") == whole


def test_they_are_taken_for_no_record(tmp_path):
    table(tmp_path, "gpt")
    problems: list[str] = []
    assert read_records(tmp_path, problems) == {}
    assert problems == []
