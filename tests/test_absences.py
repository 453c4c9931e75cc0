"""A number that cannot be had is an absence with its reason: it never costs the run its record."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toys
from builders import record
from torch import Tensor

from benchmark.data.base import InMemory, Split
from benchmark.data.images import Digits
from benchmark.evaluate import Protocol, evaluate, load_extractor, load_judge, references
from benchmark.leaderboard.board import boards
from benchmark.metrics import METRICS, by_name
from benchmark.record import Record, read_record, write_record
from benchmark.spec import Batch, Estimate, Score

PROTOCOL = Protocol("test", seed=0, elbo_draws=2, sample_draws=2)


class Few(InMemory):
    """Digits with a training split of 100 images and a test split of so many."""

    card = Digits.card

    def __init__(self, digits: Digits, test: int) -> None:
        splits = {name: digits.split(name) for name in ("train", "validation", "test")}
        few = {"train": 100, "validation": 5, "test": test}
        super().__init__(
            digits.spec,
            {name: Split(split.x[: few[name]], split.labels[: few[name]]) for name, split in splits.items()},  # type: ignore[misc]
        )

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        raise NotImplementedError("nothing is trained here")


class Surprised(toys.Independent):
    """Is certain that the first image cannot be."""

    surprise = -math.inf

    def log_prob(self, x: Tensor) -> Tensor:
        found = super().log_prob(x)
        return torch.cat([torch.full_like(found[:1], self.surprise), found[1:]])


class Lost(Surprised):
    surprise = math.nan


@pytest.fixture(scope="module")
def digits(data_root: str) -> Digits:
    return Digits(Path(data_root))


def scores_of(model: toys.Toy, data: Few) -> dict[str, Score]:
    extractor, judge = load_extractor("digits", data.spec), load_judge("digits", data.spec)
    return evaluate(model, data, PROTOCOL, extractor, judge=judge).scores


def kept(tmp_path: Path, scores: dict[str, Score]) -> Record:
    """The record of a run with these scores, written, read and put on a board."""
    found = read_record(write_record(tmp_path / "run", record(scores, model="mine")))
    assert "mine" in boards({tmp_path / "run" / "record.json": found}, home=tmp_path)["digits.md"]
    return found


@pytest.mark.parametrize(("cls", "value"), [(Surprised, "inf"), (Lost, "nan")])
def test_a_likelihood_that_is_not_finite_is_an_absence(
    cls: type[Surprised], value: str, digits: Digits, tmp_path: Path
) -> None:
    data = Few(digits, test=20)
    found = kept(tmp_path, scores_of(cls(data.spec), data))
    for name in ("nll", "bits_per_dim"):
        absent = found.scores[name].absent
        assert absent is not None
        assert (absent.kind, absent.reason) == ("failed", f"the value is {value}")
    assert found.scores["class_histogram"].value is not None, "what has nothing to do with it stands"
    assert found.status == "finished"


def test_one_image_has_no_standard_error_and_what_needs_more_says_so(digits: Digits, tmp_path: Path) -> None:
    data = Few(digits, test=1)
    found = kept(tmp_path, scores_of(toys.Independent(data.spec), data))
    assert found.scores["nll"].value is not None
    assert found.scores["nll"].stderr is None
    fid = found.scores["fid"].absent
    assert fid is not None
    assert fid.kind == "failed"
    assert fid.reason
    assert {metric.name for metric in METRICS} <= set(found.scores), "each has a number or a reason"
    table = references(data, PROTOCOL, load_extractor("digits", data.spec), load_judge("digits", data.spec))
    assert math.isfinite(table["histogram"]["nll"].value or math.nan)


def test_a_number_without_a_finite_error_stands_and_says_why(monkeypatch: pytest.MonkeyPatch, digits: Digits) -> None:
    odd = replace(by_name("nll"), compute=lambda evidence: Estimate(3.0, math.inf, 20))
    monkeypatch.setattr("benchmark.evaluate.METRICS", (odd,))
    data = Few(digits, test=20)
    (score,) = scores_of(toys.Independent(data.spec), data).values()
    assert (score.value, score.stderr) == (3.0, None)
    assert score.protocol["how"]["stderr"] == "left out, since it is inf"
