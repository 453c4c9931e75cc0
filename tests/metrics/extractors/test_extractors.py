"""Extractors: the shipped weights are the pinned ones, know their images, and see each image by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmark.data.images import BinaryMnist, Digits, Mnist
from benchmark.metrics import extractors
from benchmark.metrics.extractors import FOLDER, PINNED, load_extractor, load_judge
from benchmark.metrics.extractors.base import Extractor
from benchmark.metrics.extractors.classifier import Classifier
from benchmark.spec import Absence, BadInput, DataSpec, sha256

DIGITS = DataSpec((1, 8, 8), 17, "grid", DataSpec.label(10))


@pytest.fixture(scope="module")
def digits() -> Extractor:
    extractor = load_extractor("digits", DIGITS)
    assert isinstance(extractor, Extractor)
    return extractor


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(17, (300, 1, 8, 8), generator=torch.Generator().manual_seed(0))


def test_every_shipped_file_is_pinned_and_small():
    files = sorted(FOLDER.glob("*.safetensors"))
    assert [path.stem for path in files] == sorted(PINNED)
    names = {"digits", "mnist", "binary_mnist"}
    assert {f"{name}-v1" for name in names} | {f"{name}-judge-v1" for name in names} <= set(PINNED)
    for path in files:
        assert sha256(path) == PINNED[path.stem], path.stem
        assert path.stat().st_size < 1_000_000, path.stem


def test_the_digits_extractor_knows_digits_it_never_saw(digits, data_root):
    test = Digits(data_root).split("test")
    found = digits(test.x)
    assert found.features.shape == (180, 64)
    assert found.features.dtype == found.logits.dtype == torch.float64
    assert (found.logits.argmax(1) == test.labels).double().mean() >= 0.985


@pytest.mark.parametrize(("name", "cls"), [("mnist", Mnist), ("binary_mnist", BinaryMnist)])
def test_the_mnist_extractors_know_digits_they_never_saw(name, cls, stored):
    data = stored(cls)
    extractor, judge = load_extractor(name, data.spec), load_judge(name, data.spec)
    test = data.split("test")
    chosen = torch.randperm(len(test.x), generator=torch.Generator().manual_seed(0))[:1000]
    for network in (extractor, judge):
        assert isinstance(network, Extractor)
        assert (network(test.x[chosen]).logits.argmax(1) == test.labels[chosen]).double().mean() >= 0.985


def test_the_judge_of_digits_is_another_network_that_knows_them(digits, data_root):
    test = Digits(data_root).split("test")
    judge = load_judge("digits", DIGITS)
    assert isinstance(judge, Extractor)
    assert (judge(test.x).logits.argmax(1) == test.labels).double().mean() >= 0.985
    assert judge(test.x).features.shape == (180, 48)
    assert judge.sha256 != digits.sha256
    absent = load_judge("cifar10", DataSpec((3, 32, 32), 256, "grid", DataSpec.label(10)))
    assert isinstance(absent, Absence)
    assert absent.kind == "does not apply"
    assert "data=cifar10 role=judge" in absent.reason


def test_features_are_standardised_over_training_images(digits, data_root):
    features = digits(Digits(data_root).split("train").x).features
    assert features.mean(0).abs().max() < 0.3  # the running averages saw shifted images
    assert 0.5 < features.var(0).mean() < 2


def test_an_image_has_the_same_features_in_any_company(digits, images):
    together = digits(images)
    for size in (1, 64, 250, 299):
        parts = [digits(part) for part in images[: min(299, 4 * size)].split(size)]
        features = torch.cat([part.features for part in parts])
        torch.testing.assert_close(features, together.features[: len(features)], rtol=1e-5, atol=1e-6)
    assert torch.equal(digits(images).features, together.features)
    assert torch.equal(digits(images.to(torch.uint8)).features, together.features)


def test_the_global_random_state_is_untouched_and_nothing_learns(digits, images):
    torch.manual_seed(1)
    before, weights = torch.get_rng_state(), {k: v.clone() for k, v in digits.network.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        found = digits(images)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, weights[k]) for k, v in digits.network.state_dict().items())
    assert torch.equal(found.features, digits(images).features)  # autocast does not reach inside
    assert not found.features.requires_grad


def test_the_name_carries_the_hash(digits):
    assert digits.name == f"digits-v1@{PINNED['digits-v1'][:8]}"
    assert digits.sha256 == PINNED["digits-v1"]


def test_no_extractor_is_an_absence_with_its_remedy():
    absent = load_extractor("cifar10", DataSpec((3, 32, 32), 256, "grid", DataSpec.label(10)))
    assert isinstance(absent, Absence)
    assert absent.kind == "does not apply"
    assert "scripts/train_extractor.py data=cifar10" in absent.reason
    absent = load_extractor("pydocs", DataSpec((128,), 90, "sequence"))
    assert absent == Absence("does not apply", "features are for images, and pydocs is a sequence")


def test_other_weights_than_the_pinned_are_refused(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.setattr(extractors, "FOLDER", tmp_path)
    with pytest.raises(BadInput, match="no weights at"):
        load_extractor("digits", DIGITS)
    save_file(Classifier(DIGITS).state_dict(), tmp_path / "digits-v1.safetensors")
    with pytest.raises(BadInput, match="must be"):
        load_extractor("digits", DIGITS)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(BadInput, match="are for other images"):
        load_extractor("digits", DataSpec((3, 8, 8), 17, "grid", DataSpec.label(10)))
    with pytest.raises(BadInput, match="square"):
        Classifier(DataSpec((1, 8, 9), 17, "grid", DataSpec.label(10)))
    with pytest.raises(BadInput, match="with classes"):
        Classifier(DataSpec((1, 8, 8), 17, "grid"))


@pytest.mark.parametrize(
    "spec",
    [
        DIGITS,
        DataSpec((3, 32, 32), 256, "grid", DataSpec.label(10)),
        DataSpec((1, 28, 28), 2, "grid", DataSpec.label(10)),
    ],
)
def test_a_classifier_fits_under_one_megabyte_whatever_the_size(spec):
    network = Classifier(spec).eval()
    features, logits = network(torch.zeros(2, *spec.shape, dtype=torch.long))
    assert features.shape == (2, 64)
    assert logits.shape == (2, 10)
    assert sum(4 * value.numel() for value in network.state_dict().values()) < 1_000_000


# Inception ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_inception_sees_levels_as_eight_bits_and_grey_as_rgb(inception_weights, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(inception_weights.parent.parent))
    extractor = load_extractor("digits", DIGITS, Path("auto"))
    assert isinstance(extractor, Extractor)
    assert extractor.name == f"inception-v3@{sha256(inception_weights)[:8]}"
    x = torch.randint(17, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    found = extractor(x)
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(inception_weights))
    rgb = torch.tensor([round(level * 255 / 16) for level in range(17)], dtype=torch.uint8)[x].repeat(1, 3, 1, 1)
    features, logits = theirs(rgb)
    torch.testing.assert_close(found.features, features.double(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.logits, logits.double(), rtol=1e-4, atol=1e-6)
    assert found.features.shape == (3, 2048)


def test_auto_falls_back_to_the_own_classifier(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    extractor = load_extractor("digits", DIGITS, Path("auto"))
    assert isinstance(extractor, Extractor)
    assert extractor.name.startswith("digits-v1@")


def test_inception_weights_that_are_missing_wrong_or_not_plain_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no Inception weights"):
        load_extractor("digits", DIGITS, tmp_path / "missing.pth")
    wrong = tmp_path / "wrong.pth"
    for content in ({"weight": torch.zeros(1)}, Path("an object that only unpickling code would build")):
        torch.save(content, wrong)
        with pytest.raises(BadInput, match="does not hold Inception weights"):
            load_extractor("digits", DIGITS, wrong)
    with pytest.raises(BadInput, match="not 2 channels"):
        load_extractor("digits", DataSpec((2, 8, 8), 17, "grid", DataSpec.label(10)), wrong)
