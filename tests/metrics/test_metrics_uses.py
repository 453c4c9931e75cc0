"""What models are used for: learning from samples, finding outliers, reconstructing, interpolating."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from evidence import normal
from torch import Tensor

from benchmark import train
from benchmark.build import build_examination
from benchmark.config import compose
from benchmark.data.images import Digits
from benchmark.evaluate import Experts, Protocol, Result, draw_samples, evaluate, load_extractor, load_judge
from benchmark.metrics import anomaly, downstream, interpolation, reconstruction
from benchmark.metrics.anomaly import AnomalyScores
from benchmark.metrics.extractors.base import Extractor
from benchmark.metrics.reconstruction import Reconstructions
from benchmark.metrics.samples import Labelled, LabelledSamples
from benchmark.metrics.session import NO_JUDGE
from benchmark.spec import BadInput, Conditional, Outliers

PROTOCOL = Protocol("test", seed=0, elbo_draws=2, sample_draws=2)


def scored(model: toys.Toy, digits: Digits, names: list[str] | None = None, **experts: Any) -> Result:
    """What the harness makes of a model; the extractor is that of digits."""
    given = Experts(load_extractor("digits", digits.spec), **experts)
    return evaluate(model, digits, PROTOCOL, build_examination("image"), given, names)


@pytest.fixture(scope="module")
def digits(data_root: str) -> Digits:
    return Digits(Path(data_root))


# Learning from samples -----------------------------------------------------------------------------------------------


def lessons(digits: Digits, wrong: float = 0.0, draws: int = 3) -> LabelledSamples:
    """Images of validation and training in the place of samples, a share of them with wrong labels."""
    train, test = digits.split("train"), digits.split("test")
    generator = torch.Generator().manual_seed(0)
    generated = []
    for _ in range(draws):
        index = torch.randperm(len(train.x), generator=generator)[:180]
        labels = train.labels[index]
        mistaken = torch.rand(180, generator=generator) < wrong
        generated.append(Labelled(train.x[index], torch.where(mistaken, (labels + 1) % 10, labels)))
    return LabelledSamples(
        tuple(generated), Labelled(test.x, test.labels), Labelled(train.x[:400], train.labels[:400]), levels=17
    )


def test_a_classifier_learns_from_samples_and_not_from_wrong_labels(digits: Digits) -> None:
    good = downstream.downstream_accuracy(lessons(digits))
    assert 0.93 < good.value <= 1
    assert good.n == 180
    assert good.stderr >= math.sqrt(good.value * (1 - good.value) / 180)
    assert downstream.downstream_accuracy(lessons(digits, wrong=0.9)).value < 0.2
    helped = downstream.augmented_accuracy(lessons(digits, wrong=0.9))
    assert 0.2 < helped.value < downstream.augmented_accuracy(lessons(digits)).value


def test_the_classifier_is_ridge_regression_in_the_span_of_its_kernel(digits: Digits) -> None:
    samples = lessons(digits, draws=1)
    x, y = samples.generated[0].x.flatten(1).double() / 16, samples.generated[0].labels
    q = samples.held_out.x.flatten(1).double() / 16
    gamma = 1 / (64 * x.var())
    weights = torch.linalg.solve(
        torch.exp(-gamma * torch.cdist(x, x) ** 2) + 0.1 * torch.eye(len(x)), torch.eye(10).double()[y]
    )
    answers = (torch.exp(-gamma * torch.cdist(q, x) ** 2) @ weights).argmax(1)
    expected = (answers == samples.held_out.labels).double().mean().item()
    assert downstream.downstream_accuracy(samples).value == pytest.approx(expected)


def test_samples_of_one_class_alone_teach_one_answer(digits: Digits) -> None:
    samples = lessons(digits, draws=1)
    ones = Labelled(samples.generated[0].x, torch.ones(180, dtype=torch.int64))
    only = LabelledSamples((ones,), samples.held_out, samples.reference, levels=17)
    expected = (samples.held_out.labels == 1).double().mean().item()
    assert downstream.downstream_accuracy(only).value == pytest.approx(expected)


class Prints(toys.Toy, Conditional):
    """Repeats training images: of the class that is asked for, or of any."""

    def __init__(self, digits: Digits) -> None:
        super().__init__(digits.spec)
        self.of = digits.split("train")

    def sample(self, n: int) -> Tensor:
        return self.of.x[torch.randint(len(self.of.x), (n,))].long()

    def sample_given(self, condition: Tensor) -> Tensor:
        first = (self.of.labels == condition[:, None]).long().argmax(1)
        return self.of.x[first].long()

    def training_step(self, batch, batch_idx):
        raise NotImplementedError("it has nothing to learn")


def test_conditions_are_labels_where_a_model_takes_them_and_else_the_judge_gives_them(digits: Digits) -> None:
    judge = load_judge("digits", digits.spec)
    assert isinstance(judge, Extractor)
    names = ["downstream_accuracy", "class_histogram"]
    scores = scored(Prints(digits), digits, names, judge=judge).scores
    assert scores["downstream_accuracy"].protocol["how"]["labels"] == "condition"
    assert scores["downstream_accuracy"].protocol["judge"] == judge.name
    assert 0.4 < scores["downstream_accuracy"].value < 0.9  # it learns from one image a class
    assert scores["class_histogram"].value > 0  # of free samples: conditioned ones have the very shares
    toy = toys.Independent(digits.spec)
    assert scored(toy, digits, names, judge=judge).scores["downstream_accuracy"].protocol["how"] == {
        "sampler": "ancestral",
        "evaluations": 1,
        "draws": 2,
        "labels": "judge",
    }
    without = scored(toy, digits, names).scores
    assert without["downstream_accuracy"].absent == without["class_histogram"].absent == NO_JUDGE


# Outliers ------------------------------------------------------------------------------------------------------------


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    inside, outside = normal(0, 40), normal(1, 30) + 0.5
    estimate = anomaly.auroc(inside, outside, paired=False)
    from sklearn.metrics import roc_auc_score

    truth = [0] * 40 + [1] * 30
    assert estimate.value == pytest.approx(roc_auc_score(truth, torch.cat([inside, outside]).numpy()))
    assert anomaly.auroc(torch.zeros(3), torch.zeros(4), paired=False).value == 0.5  # ties


@pytest.mark.parametrize("paired", [False, True])
def test_the_error_of_auroc_is_that_of_repeating(paired: bool) -> None:
    """Outliers that share most of their noise with an image are compared more surely than independent ones."""
    estimates = []
    for i in range(200):
        inside = normal(2 * i, 60)
        noise = 0.3 * normal(2 * i + 1, 60) + (0.95 * inside if paired else 0)
        estimates.append(anomaly.auroc(inside, noise + 0.7, paired))
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    assert np.mean([estimate.stderr for estimate in estimates]) == pytest.approx(spread, rel=0.2)


def test_complexity_is_taken_off_in_nats() -> None:
    scores = AnomalyScores(
        log_prob=torch.tensor([-10.0, -12.0]),
        outlier_log_prob=torch.tensor([-9.0, -11.0]),  # likelier than the images,
        length=torch.tensor([10.0, 10.0]).double(),
        outlier_length=torch.tensor([9.0, 9.0]).double(),  # and shorter by a byte, 5.5 nats
        paired=True,
    )
    assert anomaly.anomaly_auroc(scores).value == 0.25
    assert anomaly.anomaly_auroc_corrected(scores).value == 1


def test_corruptions_are_always_the_same_in_the_levels_of_the_data(digits: Digits) -> None:
    x = digits.split("test").x[:8]
    outliers = anomaly.corrupted(x, 17)
    assert torch.equal(outliers, anomaly.corrupted(x, 17))
    assert 0 <= outliers.min() <= outliers.max() < 17
    noise, blur, mirror, shift = (outliers[i::4] for i in range(4))
    assert 0 < (noise != x[0::4]).double().mean() < 0.1
    assert blur.double().var() < x[1::4].double().var()
    assert torch.equal(mirror, x[2::4].long().flip(3))
    assert torch.equal(shift[..., 1:], x[3::4].long()[..., :-1])


def test_the_code_is_a_real_one_that_knows_simple_images() -> None:
    from torchvision.io import decode_image

    simple, busy = torch.zeros(1, 3, 16, 16), torch.randint(256, (1, 3, 16, 16))
    assert anomaly.code_length(simple)[0] < 100 < 3 * 16 * 16 < anomaly.code_length(busy)[0]
    assert anomaly.code_length(torch.zeros(2, 2, 8, 8)).shape == (2,)  # two channels lie below each other
    from torchvision.io import encode_png

    assert torch.equal(decode_image(encode_png(busy[0].to(torch.uint8), 9)), busy[0].to(torch.uint8))


class Knows(toys.Independent):
    """Gives every pixel its histogram in the training images."""

    def __init__(self, digits: Digits) -> None:
        super().__init__(digits.spec)
        counts = torch.nn.functional.one_hot(digits.split("train").x.long().flatten(1), 17).sum(0) + 1
        self.logits.data = counts.log()


def test_outliers_are_corrupted_images_or_what_is_given(digits: Digits) -> None:
    model = Knows(digits)
    scores = scored(model, digits, ["anomaly_auroc"]).scores["anomaly_auroc"]
    assert scores.protocol["outliers"] == "180 corrupted: noise, blur, mirror, shift"
    assert scores.protocol["how"] == {"by": "exact likelihood"}
    assert 0.6 < scores.value < 1
    noise = Outliers("white noise", torch.randint(17, (300, 1, 8, 8), generator=torch.Generator().manual_seed(0)))
    given = scored(model, digits, ["anomaly_auroc"], outliers=noise).scores["anomaly_auroc"]
    assert given.protocol["outliers"] == "180 white noise"
    assert given.value == 1
    bound = scored(toys.Latent(digits.spec), digits, ["anomaly_auroc"]).scores["anomaly_auroc"]
    assert bound.protocol["how"] == {"by": "bound", "draws": 4}
    absent = scored(Prints(digits), digits, ["anomaly_auroc"]).scores["anomaly_auroc"].absent
    assert absent is not None
    assert absent.reason == "Prints promises no Likelihood or LikelihoodBound"


def test_outliers_of_another_kind_are_refused_before_any_work(digits: Digits) -> None:
    experiment = compose(["data=digits", "model=vae", "budget=smoke", "evaluation.outliers=synthetic_images"])
    assert experiment.config_hash != compose(["data=digits", "model=vae", "budget=smoke"]).config_hash
    with pytest.raises(BadInput, match=r"outliers=synthetic_images has shape .* name data of the same kind"):
        train.outliers(experiment, digits)
    with pytest.raises(BadInput, match="unknown data 'fasion'"):
        train.outliers(compose(["data=digits", "model=vae", "budget=smoke", "evaluation.outliers=fasion"]), digits)
    assert train.outliers(compose(["data=digits", "model=vae", "budget=smoke"]), digits) is None


# Reconstructions and interpolations ----------------------------------------------------------------------------------


def test_psnr_and_ssim_by_hand(digits: Digits) -> None:
    x = digits.split("test").x[:20].long()
    again = (x + 2).clamp(max=16)
    found = Reconstructions(x, again, levels=17)
    mse = (x - again).double().square().mean().item()
    assert reconstruction.psnr(found).value == pytest.approx(10 * math.log10(16**2 / mse), rel=1e-6)
    assert reconstruction.ssim(found).value == pytest.approx(ssim_of(again, x), rel=1e-6)
    assert reconstruction.ssim(Reconstructions(x, x, levels=17)).value == pytest.approx(1)
    assert reconstruction.ssim(found).n == 20


def ssim_of(a: Tensor, b: Tensor) -> float:
    """Wang and others 2004, eq. 13, window by window, with reflected borders."""
    c1, c2 = (0.01 * 16) ** 2, (0.03 * 16) ** 2
    a, b = (
        torch.nn.functional.pad(x.double(), (3, 3, 3, 3), mode="reflect").unfold(2, 7, 1).unfold(3, 7, 1).flatten(4)
        for x in (a, b)
    )
    mu_a, mu_b = a.mean(-1), b.mean(-1)
    var_a, var_b = a.var(-1, correction=0), b.var(-1, correction=0)
    covariance = ((a - mu_a[..., None]) * (b - mu_b[..., None])).mean(-1)
    similarity = (2 * mu_a * mu_b + c1) * (2 * covariance + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
    return similarity.mean().item()


def test_the_ratio_of_a_path_is_its_length_over_the_distance() -> None:
    straight = torch.linspace(0, 1, 9)[None, :, None] * normal(0, 20, 1, 5)
    assert interpolation.interpolation_ratio(straight).value == pytest.approx(1)
    corner = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]]).repeat(3, 1, 1)
    estimate = interpolation.interpolation_ratio(corner)
    assert estimate.value == pytest.approx(math.sqrt(2))
    assert estimate.stderr == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="end where they begin"):
        interpolation.interpolation_ratio(torch.ones(3, 4, 2))


def test_the_harness_asks_for_reconstructions_and_paths(digits: Digits) -> None:
    model, extractor = toys.Latent(digits.spec), load_extractor("digits", digits.spec)
    assert isinstance(extractor, Extractor)
    names = ["psnr", "ssim", "interpolation_ratio"]
    scores = scored(model, digits, names).scores
    assert scores["psnr"].n == 180
    assert scores["ssim"].protocol["window"] == "7x7, uniform, reflected at the border"
    assert scores["interpolation_ratio"].n == 40
    assert scores["interpolation_ratio"].protocol["extractor"] == extractor.name
    assert scored(model, digits, names).scores == scores
    absent = scored(toys.Independent(digits.spec), digits, names).scores
    assert [absent[name].absent.reason for name in names] == [
        "Independent promises no Reconstructs",
        "Independent promises no Reconstructs",
        "Independent promises no Interpolates",
    ]


def test_pictures_show_images_before_their_reconstructions_and_walks_in_rows(digits: Digits) -> None:
    model = toys.Latent(digits.spec)
    found = scored(model, digits, ["psnr", "interpolation_ratio"])
    pairs, walks = found.pictures["reconstructions"], found.pictures["interpolations"]
    assert pairs.shape == (64, 1, 8, 8)
    assert torch.equal(pairs[1::2], model.reconstruct(pairs[::2]))
    held_out = {tuple(x.flatten().tolist()) for x in digits.split(PROTOCOL.split).x}
    assert {tuple(x.flatten().tolist()) for x in pairs[::2]} <= held_out
    assert walks.shape == (81, 1, 8, 8)  # a square: a walk of nine steps in each of nine rows


def test_what_training_does_not_ask_for_is_not_computed(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation for one likelihood draws no sample, reconstructs nothing, and asks for no outlier."""
    model = toys.Latent(digits.spec)
    asked: list[str] = []
    for name in ("sample", "reconstruct", "interpolate", "importance_bound"):
        monkeypatch.setattr(model, name, lambda *_, name=name: asked.append(name))
    monkeypatch.setattr(anomaly, "corrupted", lambda *_: asked.append("corrupted"))
    assert scored(model, digits, ["nll"]).scores["nll"].value
    assert not asked
    monkeypatch.undo()
    before = draw_samples(model, 5, 0)
    scored(model, digits)
    assert torch.equal(before, draw_samples(model, 5, 0))  # what else is drawn leaves samples as they were
