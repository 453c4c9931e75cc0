"""Agreement with others: what the harness reports is what independent implementations compute from the same inputs.

Metrics on given features are compared in tests/metrics; here whole paths are, from a model or from images to the
number in a record.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from evidence import normal
from known_data import Stream
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import KEY_METRIC_FID
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL
from torchmetrics.functional.text import perplexity
from torchmetrics.image.fid import FrechetInceptionDistance
from toys import Independent, Markov

from benchmark import testing
from benchmark.build import build_examination
from benchmark.data.images import Digits
from benchmark.evaluate import Experts, Protocol, draw_samples, evaluate, load_extractor
from benchmark.metrics import fidelity
from benchmark.metrics.extractors.base import Extractor, Features
from benchmark.metrics.samples import SampleFeatures
from benchmark.models.transformer.gpt import GPT
from benchmark.spec import DataSpec

NAMES = {
    "fid": KEY_METRIC_FID,
    "kid": KEY_METRIC_KID_MEAN,
    "inception_score": KEY_METRIC_ISC_MEAN,
    "precision": KEY_METRIC_PRECISION,
    "recall": KEY_METRIC_RECALL,
}


# Samples: torch-fidelity and torchmetrics ----------------------------------------------------------------------------


class Rgb(TensorDataset):
    """Images as torch-fidelity reads them: 8 bits, three channels."""

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        return super().__getitem__(index)[0]


def registered(extractor: Extractor) -> str:
    """`extractor` under a name that torch-fidelity knows. It sees grey levels in three equal channels."""

    class Registered(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            found = extractor(x[:, :1].long())
            return tuple(getattr(found, name) for name in self.features_list)

    name = extractor.name.replace("@", "-")
    if name not in torch_fidelity.registry.FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor(name, Registered)
    return name


@pytest.fixture(scope="module")
def digits() -> tuple[Digits, Extractor]:
    data = Digits(Path("unused"))
    extractor = load_extractor("digits", data.spec)
    assert isinstance(extractor, Extractor)
    return data, extractor


def test_the_harness_reports_what_calculate_metrics_does(digits):
    """From a model's samples to five numbers, our extractor registered with the library."""
    data, extractor = digits
    with testing.seeded(0):
        model = Independent(data.spec)
    protocol = Protocol("test", seed=0, sample_draws=2)
    scores = evaluate(model, data, protocol, build_examination("image"), Experts(extractor), list(NAMES)).scores
    n = len(data.split("test").x)
    draws = [draw_samples(model, n, protocol.seed, draw) for draw in range(2)]
    theirs = [
        torch_fidelity.calculate_metrics(
            input1=Rgb(draw.to(torch.uint8).expand(-1, 3, -1, -1)),
            input2=Rgb(data.split("train").x.expand(-1, 3, -1, -1)),
            feature_extractor=registered(extractor),
            fid=True,
            kid=True,
            isc=True,
            prc=True,
            kid_subset_size=n,
            isc_splits=1,
            cuda=False,
            cache=False,
            verbose=False,
            save_cpu_ram=True,
        )
        for draw in draws
    ]
    for name, key in NAMES.items():
        expected = float(np.mean([found[key] for found in theirs]))
        assert scores[name].value == pytest.approx(expected, rel=1e-6), name
    assert scores["fid"].value > 10  # noise is far from digits


def features_of(generated: Tensor, real: Tensor) -> SampleFeatures:
    drawn, seen = (Features(x.double(), x.double()) for x in (generated, real))
    return SampleFeatures((drawn,), seen, seen)


def test_fid_agrees_with_torchmetrics():
    class Projected(nn.Module):
        num_features = 6
        projection = normal(0, 48, 6) / 255

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).double() @ self.projection

    generator = torch.Generator().manual_seed(2)
    generated = torch.randint(0, 200, (80, 3, 4, 4), generator=generator, dtype=torch.uint8)
    real = torch.randint(20, 256, (150, 3, 4, 4), generator=generator, dtype=torch.uint8)
    theirs = FrechetInceptionDistance(feature=Projected(), antialias=False).set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(generated[:50], real=False)
    theirs.update(generated[50:], real=False)
    ours = fidelity.fid(features_of(Projected()(generated), Projected()(real))).value
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-5)


def test_fid_of_two_gaussians_is_the_closed_form():
    """Features moved and scaled to exact moments: |μ - ν|² + Σ (σ - τ)² where covariances are diagonal."""

    def with_moments(noise: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        centred = noise - noise.mean(0)
        white = centred @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(centred.T))).T
        return white * deviation + mean

    mu, nu = torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([0.5, 1.0, 2.0]).double()
    sigma, tau = torch.tensor([1.0, 2.0, 0.1]).double(), torch.tensor([3.0, 2.0, 0.5]).double()
    evidence = features_of(with_moments(normal(0, 90, 3), mu, sigma), with_moments(normal(1, 200, 3), nu, tau))
    expected = (mu - nu).square().sum() + (sigma - tau).square().sum()
    assert fidelity.fid(evidence).value == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.slow
def test_inception_path_agrees_with_the_library_on_weights_from_a_file(digits, inception_weights):
    """Grey images with 17 levels, through the same file of weights, to the Fréchet distance and inception score."""
    data, _ = digits
    extractor = load_extractor("digits", data.spec, inception_weights)
    assert isinstance(extractor, Extractor)
    generated, real = data.split("test").x[:24], data.split("train").x[:32]

    def eight_bits(x: Tensor) -> Rgb:
        return Rgb((x.double() * 255 / 16).round().to(torch.uint8).expand(-1, 3, -1, -1))

    theirs = torch_fidelity.calculate_metrics(
        input1=eight_bits(generated),
        input2=eight_bits(real),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(inception_weights),
        fid=True,
        isc=True,
        isc_splits=1,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    seen = extractor(real)
    ours = SampleFeatures((extractor(generated),), seen, seen)
    for name in ("fid", "inception_score"):
        assert getattr(fidelity, name)(ours).value == pytest.approx(theirs[NAMES[name]], rel=1e-4, abs=1e-6), name


# Text: torchmetrics and a naive loop ---------------------------------------------------------------------------------


def scored(model: Any, stream: Tensor, **options: Any) -> dict[str, float]:
    names = ["nats_per_token", "perplexity"]
    scores = evaluate(
        model,
        Stream(stream, model.spec),
        Protocol("test", seed=0, **options),
        build_examination("text"),
        Experts(),
        names,
    ).scores
    return {name: scores[name].value for name in names}


@pytest.fixture(scope="module")
def gpt() -> GPT:
    """A small network that depends on all of its context."""
    with testing.seeded(0):
        model = GPT(DataSpec((16,), 5, "sequence"), layers=2, heads=2, width=16).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model


STREAM = torch.randint(5, (150,), generator=torch.Generator().manual_seed(3))  # no multiple of any window


def test_perplexity_of_whole_windows_agrees_with_torchmetrics(gpt):
    stream = STREAM[: 9 * 16]
    windows = stream.view(9, 16)
    with torch.no_grad():
        logits = gpt(torch.nn.functional.pad(windows, (1, 0), value=gpt.begin)[:, :-1])
    assert scored(gpt, stream)["perplexity"] == pytest.approx(perplexity(logits, windows).item(), rel=1e-5)


@pytest.mark.parametrize("stride", [1, 3, 8, 16])
def test_sliding_windows_agree_with_a_naive_loop(gpt, stride):
    """Token by token: the first window that ends behind it, cut off at the token, scores its last entry."""
    starts = [*range(0, len(STREAM) - 15, stride)]
    if starts[-1] + 16 < len(STREAM):
        starts.append(len(STREAM) - 16)
    total = 0.0
    for t in range(len(STREAM)):
        start = next(start for start in starts if t < start + 16)
        with torch.no_grad():
            total -= float(gpt.token_log_prob(STREAM[None, start : t + 1])[0, -1])
    found = scored(gpt, STREAM, stride=stride)
    assert found["nats_per_token"] == pytest.approx(total / len(STREAM), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / len(STREAM)), rel=1e-5)


def test_a_carried_state_agrees_with_a_naive_loop():
    with testing.seeded(0):
        model = Markov(DataSpec((16,), 5, "sequence"))
    log_p = model.table.detach().log_softmax(-1)
    before = [5, *STREAM[:-1].tolist()]  # the begin token first
    total = -sum(float(log_p[a, b]) for a, b in zip(before, STREAM.tolist(), strict=True))
    assert scored(model, STREAM)["nats_per_token"] == pytest.approx(total / len(STREAM), rel=1e-6)
