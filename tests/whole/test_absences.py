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

from benchmark.build import Measure, build_examination
from benchmark.data.base import InMemory, Split
from benchmark.data.images import Digits
from benchmark.evaluate import Experts, Protocol, evaluate, load_extractor, load_judge, references
from benchmark.leaderboard.pages import boards
from benchmark.metrics.session import NO_EXTRACTOR, NO_JUDGE
from benchmark.record import Record, read_record, write_record
from benchmark.spec import Absence, Batch, Estimate, LikelihoodBound, Score

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


def experts_of(data: Few) -> Experts:
    return Experts(load_extractor("digits", data.spec), load_judge("digits", data.spec))


def scores_of(model: toys.Toy, data: Few) -> dict[str, Score]:
    return evaluate(model, data, PROTOCOL, build_examination("image"), experts_of(data)).scores


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
    assert set(build_examination("image").metrics) <= set(found.scores), "each has a number or a reason"
    table = references(data, PROTOCOL, build_examination("image"), experts_of(data))
    assert math.isfinite(table["histogram"]["nll"].value or math.nan)


def test_a_number_without_a_finite_error_stands_and_says_why(digits: Digits) -> None:
    examination = build_examination("image")
    nll = examination.metrics["nll"]
    odd = Measure(nll.fact, replace(nll.metric, compute=lambda evidence: Estimate(3.0, math.inf, 20)))
    data = Few(digits, test=20)
    model, asked = toys.Independent(data.spec), replace(examination, metrics={"nll": odd})
    (score,) = evaluate(model, data, PROTOCOL, asked, Experts()).scores.values()
    assert (score.value, score.stderr) == (3.0, None)
    assert score.protocol["how"]["stderr"] == "left out, since it is inf"


def test_what_a_model_does_not_promise_is_named_by_the_promise(digits: Digits) -> None:
    """A model that promises nothing, and nobody to ask about its samples: only what needs pixels alone has a number."""
    data = Few(digits, test=30)
    scores = evaluate(toys.Adversarial(data.spec), data, PROTOCOL, build_examination("image"), Experts()).scores
    promises = {
        "nll": "Likelihood or LikelihoodBound",
        "bits_per_dim": "Likelihood or LikelihoodBound",
        "elbo": "LikelihoodBound",
        "importance_bound": "ImportanceBound",
        "anomaly_auroc": "Likelihood or LikelihoodBound",
        "anomaly_auroc_corrected": "Likelihood or LikelihoodBound",
        "psnr": "Reconstructs",
        "ssim": "Reconstructs",
        "interpolation_ratio": "Interpolates",
        **{f"fid_within_{most}": "SamplesWithin" for most in (5, 10, 20, 50, 100)},
        "bits_of_steps": "StepwiseBound",
        **{
            f"{name}_truncated_{percent}": "Truncates"
            for name in ("fid", "precision", "recall")
            for percent in (30, 50, 70, 100)
        },
    }
    for name, promised in promises.items():
        assert scores[name].absent == Absence("does not apply", f"Adversarial promises no {promised}"), name
    judged = {"class_histogram", "downstream_accuracy", "augmented_accuracy", "agreement"}
    for name in judged:
        assert scores[name].absent == NO_JUDGE, name
    modes = {"modes_covered", "mode_kl", "near_share"}
    for name in modes:
        assert scores[name].absent == Absence("does not apply", "no modes of digits are known"), name
    for name in set(scores) - set(promises) - judged - modes - {"copies", "near_copies"}:
        assert scores[name].absent == NO_EXTRACTOR, name
    assert scores["copies"].value == 0
    assert scores["near_copies"].value is not None


def test_metrics_of_another_modality_are_not_spoken_of(digits: Digits) -> None:
    data = Few(digits, test=30)
    found = set(scores_of(toys.Independent(data.spec), data))
    assert {"nll", "fid", "copies"} <= found
    of_texts = set(build_examination("text").metrics)
    assert {"nats_per_token", "bits_per_byte", "window_nats", "copied_text", "forgetting"} <= of_texts
    assert not of_texts & found


class Both(toys.Independent, LikelihoodBound):
    """Knows its likelihood, and a bound a hundred nats below."""

    def elbo(self, x: Tensor) -> Tensor:
        return self.log_prob(x) - 100


def test_the_exact_likelihood_goes_before_the_bound(digits: Digits) -> None:
    data = Few(digits, test=20)
    names, experts = ["nll", "bits_per_dim", "elbo"], Experts()
    scores = evaluate(Both(data.spec), data, PROTOCOL, build_examination("image"), experts, names).scores
    assert scores["nll"].protocol["how"] == scores["bits_per_dim"].protocol["how"] == {"likelihood": "exact"}
    assert scores["elbo"].protocol["how"] == {"likelihood": "bound", "draws": 2}
    assert scores["nll"].value == pytest.approx(-scores["elbo"].value - 100, rel=1e-6)
