"""Samples under a label: whether they are of that class, and how far each class is from its own; real ones beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from evidence import METRICS, features, value
from torch import Tensor

from benchmark.build import build_examination
from benchmark.data.images import Digits
from benchmark.evaluate import Experts, Protocol, evaluate, load_extractor, load_judge, references
from benchmark.metrics.conditions import ClassFeatures
from benchmark.metrics.extractors.base import Features
from benchmark.spec import Absence, Conditional

NAMES = ["agreement", "fid_within_classes", "downstream_accuracy"]
PROTOCOL = Protocol("test", seed=0, sample_draws=3)


@pytest.fixture(scope="module")
def digits(data_root: str) -> Digits:
    return Digits(Path(data_root))


@pytest.fixture(scope="module")
def experts(digits: Digits) -> Experts:
    return Experts(load_extractor("digits", digits.spec), load_judge("digits", digits.spec))


class Recites(toys.Toy, Conditional):
    """Repeats training images: of the class that is asked for, or of the next one. It counts what it is asked."""

    def __init__(self, digits: Digits, wrong: int = 0) -> None:
        super().__init__(digits.spec)
        self.of, self.wrong, self.asked = digits.split("train"), wrong, 0

    def sample(self, n: int) -> Tensor:
        return self.of.x[torch.randint(len(self.of.x), (n,))].long()

    def sample_given(self, condition: Tensor) -> Tensor:
        self.asked += len(condition)
        assert self.of.labels is not None
        wanted = (condition + self.wrong) % 10
        chosen = torch.multinomial((self.of.labels == wanted[:, None]).double(), 1)[:, 0]
        return self.of.x[chosen].long()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        raise NotImplementedError("it has nothing to learn")


def test_samples_of_the_class_that_is_asked_for_agree_and_those_of_another_do_not(
    digits: Digits, experts: Experts
) -> None:
    honest, wrong = Recites(digits), Recites(digits, wrong=1)
    good, bad = (
        evaluate(m, digits, PROTOCOL, build_examination("image"), experts, NAMES).scores for m in (honest, wrong)
    )
    assert good["agreement"].value is not None
    assert good["agreement"].value > 0.97
    assert bad["agreement"].value is not None
    assert bad["agreement"].value < 0.03
    assert (bad["fid_within_classes"].value or 0) > 5 * (good["fid_within_classes"].value or 1)
    assert honest.asked == 3 * 180, "what is drawn under a condition is drawn once for all metrics"
    shown = good["agreement"].protocol
    assert (shown["judge"], shown["how"]["labels"]) == (experts.judge.name, "condition")  # type: ignore[union-attr]
    assert good["fid_within_classes"].n == 540
    assert good["fid_within_classes"].protocol["draws_together"] == 3


def test_real_images_stand_beside_them(digits: Digits, experts: Experts) -> None:
    table = references(digits, PROTOCOL, build_examination("image"), experts)
    judge = experts.judge
    assert not isinstance(judge, Absence)
    test = digits.split("test")
    accuracy = (judge(test.x).logits.argmax(1) == test.labels).double().mean().item()
    assert table["held-out data"]["agreement"].value == pytest.approx(accuracy)
    assert table["training data"]["agreement"].value == pytest.approx(1, abs=0.01)
    assert "fid_within_classes" not in table["held-out data"], "fewer images do not compare"
    copier = evaluate(Recites(digits), digits, PROTOCOL, build_examination("image"), experts, NAMES).scores
    assert table["training data"]["fid_within_classes"].value == pytest.approx(
        copier["fid_within_classes"].value, rel=0.3
    )
    assert table["training data"]["downstream_accuracy"].protocol["judge"] == judge.name


def test_models_without_a_condition_have_none(digits: Digits, experts: Experts) -> None:
    scores = evaluate(
        toys.Independent(digits.spec), digits, PROTOCOL, build_examination("image"), experts, NAMES
    ).scores
    for name in NAMES[:2]:
        assert scores[name].absent == Absence("does not apply", "Independent promises no Conditional")


def of_classes(seed: int, n: int, shift: float = 0.0) -> tuple[Features, Tensor]:
    """Two classes, of which the second lies elsewhere, by so much more than it should."""
    labels = torch.arange(n) % 2
    seen = features(seed, n)
    return Features(seen.features + (5 + shift) * labels[:, None], seen.logits), labels


def test_the_distance_is_the_mean_over_classes_of_all_draws_together() -> None:
    def gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean(0), x.T.cov()

    def frechet(a: Tensor, b: Tensor) -> float:
        """Heusel and others 2017, eq. 6; the trace of the root from eigenvalues of the product."""
        (m, s), (w, c) = gaussian(a), gaussian(b)
        root = torch.linalg.eigvals(s @ c).real.clamp(min=0).sqrt().sum()
        return float((m - w).square().sum() + s.trace() + c.trace() - 2 * root)

    draws, real = (of_classes(0, 60, shift=1.0), of_classes(2, 60, shift=1.0)), of_classes(4, 200)
    x, labels = torch.cat([draw[0].features for draw in draws]), torch.cat([draw[1] for draw in draws])
    expected = sum(frechet(x[labels == c], real[0].features[real[1] == c]) for c in (0, 1)) / 2
    found = METRICS["fid_within_classes"](ClassFeatures(draws, real))
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.stderr is not None
    assert found.n == 120


def test_a_class_with_too_few_images_is_named() -> None:
    with pytest.raises(ValueError, match="class 0 has 15 samples and 100 reference images, too few: at least 20"):
        value("fid_within_classes", ClassFeatures((of_classes(0, 30),), of_classes(1, 200)))
