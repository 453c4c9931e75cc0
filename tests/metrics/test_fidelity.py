"""FID, KID and the inception score against closed forms, brute force and other people's implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from evidence import METRICS, features, normal, samples, value
from scipy.linalg import sqrtm
from torch import Tensor

from benchmark.metrics import fidelity
from benchmark.metrics.extractors.base import Features
from benchmark.metrics.samples import SampleFeatures


def test_fid_is_the_distance_of_the_fitted_gaussians():
    drawn = samples(draws=1)
    generated, reference = drawn.generated[0].features.numpy(), drawn.reference.features.numpy()
    a, b = np.cov(generated.T), np.cov(reference.T)
    gap = generated.mean(0) - reference.mean(0)
    expected = gap @ gap + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert value("fid", drawn) == pytest.approx(expected, rel=1e-9)


def test_the_library_computes_the_same_from_images():
    import torch_fidelity
    from torch.utils.data import TensorDataset
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Images(TensorDataset):
        def __getitem__(self, index):
            return super().__getitem__(index)[0]

    projection, head = normal(0, 48, 6) / 255, normal(1, 6, 4)

    class Projected(FeatureExtractorBase):
        def __init__(self, name, features_list, **kwargs):
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list():
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "logits" if metric == "isc" else "features"

        def forward(self, x):
            found = x.flatten(1).double() @ projection
            return tuple({"features": found, "logits": found @ head}[name] for name in self.features_list)

    if "projected" not in torch_fidelity.registry.FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor("projected", Projected)
    generator = torch.Generator().manual_seed(2)
    generated = torch.randint(0, 200, (80, 3, 4, 4), generator=generator, dtype=torch.uint8)
    real = torch.randint(20, 256, (150, 3, 4, 4), generator=generator, dtype=torch.uint8)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(generated),
        input2=Images(real),
        feature_extractor="projected",
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        kid_subset_size=80,
        isc_splits=1,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    extract = Projected("projected", ["features", "logits"])
    ours = SampleFeatures((Features(*extract(generated)),), Features(*extract(real)), Features(*extract(real)))
    names = {
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "inception_score": "inception_score_mean",
        "precision": "precision",
        "recall": "recall",
    }
    for name, theirs_name in names.items():
        rel = 1e-7 if name in ("precision", "recall") else 1e-9  # theirs is a mean in float32
        assert value(name, ours) == pytest.approx(theirs[theirs_name], rel=rel), name


def test_fid_statistics_without_a_group_are_those_of_the_other_images():
    from torch_fidelity.metric_fid import fid_features_to_statistics

    x = features(0, 137).features + 1000  # far from zero, where sums of squares lose digits
    for index, found in zip(fidelity.random_groups(137), fidelity.statistics_without_groups(x), strict=True):
        kept = torch.ones(137, dtype=torch.bool)
        kept[index] = False
        expected = fid_features_to_statistics(x[kept])
        np.testing.assert_allclose(found["mu"], expected["mu"], rtol=1e-12)
        np.testing.assert_allclose(found["sigma"], expected["sigma"], atol=1e-10)


def test_kid_without_a_group_is_that_of_the_other_images():
    drawn = samples()
    y = drawn.reference.features
    x = torch.cat([draw.features for draw in drawn.generated])
    replicates = fidelity.discrepancies_without_groups([draw.features for draw in drawn.generated], y)
    for index, found in zip(fidelity.random_groups(len(y)), replicates, strict=True):
        rest = y[[i for i in range(len(y)) if i not in set(index.tolist())]]
        within, across = (rest @ rest.T / 4 + 1) ** 3, (x @ rest.T / 4 + 1) ** 3
        m = len(rest)
        expected = (within.sum() - within.diagonal().sum()) / (m * (m - 1)) - 2 * across.mean()
        assert found == pytest.approx(expected.item(), rel=1e-10)


def test_the_jackknife_of_a_mean_is_the_error_of_the_mean():
    means = normal(0, 10)  # of ten groups of one size
    without = [(means.sum() - mean).item() / 9 for mean in means]
    assert fidelity.jackknife_error(without) == pytest.approx(means.std().item() / math.sqrt(10))


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_the_error_is_that_of_repeating_everything(name, monkeypatch):
    monkeypatch.setattr(fidelity, "KID_SUBSETS", 20)
    estimates = [METRICS[name](samples(seed=10_000 * i, n=80, reference=200, scale=1.6)) for i in range(40)]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    reported = math.sqrt(np.mean([estimate.stderr**2 for estimate in estimates]))
    assert 0.65 < reported / spread < 1.5


def test_inception_score_of_extreme_classifiers():
    def score(logits: Tensor) -> float:
        draw = Features(normal(0, len(logits), 4), logits)
        return value("inception_score", SampleFeatures((draw,), draw, draw))

    assert score(100 * torch.eye(5, dtype=torch.float64).repeat(10, 1)) == pytest.approx(5)  # sure, and every class
    assert score(torch.zeros(50, 5, dtype=torch.float64)) == pytest.approx(1)  # knows nothing
    assert score(100 * torch.eye(5, dtype=torch.float64)[:1].repeat(50, 1)) == pytest.approx(1)  # one class alone


def test_fid_infinity_is_free_of_the_bias_of_few_samples():
    """Samples of the reference's own distribution: 0 for ever so many, and far from it at 100."""
    estimates = [
        fidelity.fid_infinity(SampleFeatures(tuple(features(9_000 * i + 7 * k, 100, 8) for k in range(5)), none, real))
        for i, (none, real) in enumerate([(features(1, 100, 8), features(3, 4_000, 8))] * 12)
    ]
    found = np.array([estimate.value for estimate in estimates])
    usual = value("fid", samples(n=100, reference=4_000, scale=1.0))
    assert abs(found.mean()) < 0.03 < usual
    reported = math.sqrt(np.mean([estimate.stderr**2 for estimate in estimates]))
    assert 0.5 < reported / found.std(ddof=1) < 2


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="10 generated and 130 reference images are too few"):
        value("fid", samples(n=10))


def test_a_large_reference_is_cut_to_the_same_random_rows():
    x = torch.arange(1000.0)[:, None]
    cut = fidelity.at_most(x, 100)
    assert torch.equal(cut, fidelity.at_most(x, 100))
    assert cut.unique().numel() == 100
    assert cut.mean().item() == pytest.approx(500, abs=100)  # a prefix would have 49.5
    assert fidelity.at_most(x, 1000) is x
