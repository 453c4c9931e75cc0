"""Metrics against closed forms, brute force and other people's implementations."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from evidence import METRICS, SAMPLE_METRICS, features, normal, samples, value
from scipy.linalg import sqrtm
from torch import Tensor, nn
from toys import Toy

from benchmark import facts
from benchmark.data.images import Digits
from benchmark.metrics import cost, coverage, fidelity, likelihood
from benchmark.metrics import text as text_metrics
from benchmark.metrics.extractors.base import Features
from benchmark.metrics.likelihood import Elbo, LogProb, LogProbs
from benchmark.metrics.samples import SampleClasses, SampleFeatures
from benchmark.metrics.text import TokenLogProbs
from benchmark.modalities import image, text
from benchmark.models.autoregressive.lstm import LSTM
from benchmark.models.transformer.gpt import GPT
from benchmark.nn.optim import Muon
from benchmark.spec import Batch, DataSpec

IMAGES = DataSpec((1, 2, 3), 4, "grid")
TEXT = DataSpec((8,), 5, "sequence")


# The list ----------------------------------------------------------------------------------------------------------


def test_the_list_has_every_metric_once_in_the_order_of_the_board():
    assert (
        list(facts.metrics())
        == list(METRICS)
        == [
            "nll",
            "bits_per_dim",
            "elbo",
            "importance_bound",
            "nats_per_token",
            "perplexity",
            "bits_per_char",
            "bits_per_byte",
            "fid",
            "kid",
            "inception_score",
            "precision",
            "recall",
            "fid_infinity",
            "density",
            "coverage",
            "class_histogram",
            "nearest_neighbour_ratio",
            "copies",
            "near_copies",
            "downstream_accuracy",
            "augmented_accuracy",
            "anomaly_auroc",
            "anomaly_auroc_corrected",
            "psnr",
            "ssim",
            "interpolation_ratio",
        ]
    )
    for name, metric in METRICS.items():
        assert metric.probes, name
        assert len({probe.key for probe in metric.probes}) == len(metric.probes), name


# Likelihood --------------------------------------------------------------------------------------------------------


def test_exact_likelihood_in_each_unit():
    evidence = LogProbs(torch.tensor([-1.0, -2.0, -6.0]), IMAGES.dims)
    nll = likelihood.nll(evidence)
    assert nll.value == pytest.approx(3)
    assert nll.stderr == pytest.approx(math.sqrt(7) / math.sqrt(3))  # sd of 1, 2, 6 is √7
    assert nll.n == 3
    bits = likelihood.bits_per_dim(evidence)
    assert bits.value == pytest.approx(3 / (6 * math.log(2)))
    assert bits.stderr == pytest.approx(nll.stderr / (6 * math.log(2)))
    assert likelihood.nll.probes == likelihood.bits_per_dim.probes == (LogProb, Elbo)  # the exact value goes first


def test_a_uniform_model_scores_the_logarithm_of_the_levels():
    x = torch.zeros(5, 1, 2, 3)
    evidence = LogProbs(image.uniform(x, x, IMAGES.levels), IMAGES.dims)
    assert value("bits_per_dim", evidence) == pytest.approx(2)  # log2 of 4 levels


def test_draws_of_a_bound_are_averaged_before_errors_are_taken_over_examples():
    once = torch.tensor([[-1.0, -2.0, -6.0]])
    for draws in (once, once.repeat(16, 1)):  # a repeated draw brings no new example
        estimate = likelihood.elbo(LogProbs(draws.mean(0), IMAGES.dims))
        assert estimate.value == pytest.approx(-3)
        assert estimate.stderr == pytest.approx(math.sqrt(7 / 3))
        assert estimate.n == 3
    assert value("nll", LogProbs(once.mean(0), IMAGES.dims)) == pytest.approx(3)
    assert value("importance_bound", LogProbs(once[0], IMAGES.dims)) == pytest.approx(-3)


def test_one_example_has_no_standard_error():
    assert likelihood.nll(LogProbs(torch.tensor([-1.0]), IMAGES.dims)).stderr is None


def test_evidence_that_is_empty_or_lacks_what_a_metric_needs_is_refused():
    for name in ("nll", "bits_per_dim", "elbo", "importance_bound"):
        with pytest.raises(ValueError, match="no example to take a mean of"):
            value(name, LogProbs(torch.tensor([]), IMAGES.dims))
    for name in ("nats_per_token", "perplexity", "bits_per_char", "bits_per_byte"):
        with pytest.raises(ValueError, match="no token to take a mean of"):
            value(name, TokenLogProbs(torch.tensor([]), characters=1, bytes=1))
    for name in SAMPLE_METRICS:
        with pytest.raises(ValueError, match=r"no draw of samples|0 draws of samples"):
            value(name, replace(samples(), generated=()))
    with pytest.raises(ValueError, match="how many bytes"):
        value("bits_per_byte", TokenLogProbs(torch.tensor([-1.0, -1.0])))


# Text --------------------------------------------------------------------------------------------------------------


def test_token_units():
    stream = torch.full((400,), -math.log(8))
    evidence = TokenLogProbs(stream, characters=800, bytes=1200)
    assert value("nats_per_token", evidence) == pytest.approx(math.log(8))
    assert value("perplexity", evidence) == pytest.approx(8)
    assert value("bits_per_char", evidence) == pytest.approx(1.5)  # 3 bits a token, 2 characters a token
    assert value("bits_per_byte", evidence) == pytest.approx(1)
    assert text_metrics.nats_per_token(evidence).stderr is None  # less than two blocks


def test_perplexity_agrees_with_torchmetrics():
    from torchmetrics.functional.text import perplexity

    logits, targets = normal(0, 1, 300, 5), torch.arange(300)[None] % 5
    token_log_prob = logits.log_softmax(-1)[0, torch.arange(300), targets[0]]
    ours = value("perplexity", TokenLogProbs(token_log_prob))
    assert ours == pytest.approx(perplexity(logits, targets).item(), rel=1e-6)


def test_the_error_of_a_correlated_stream_is_not_that_of_independent_tokens():
    n, rho = 100_000, 0.9
    noise = normal(3, n).numpy()
    stream = np.zeros(n)
    for t in range(1, n):
        stream[t] = rho * stream[t - 1] + math.sqrt(1 - rho**2) * noise[t]
    expected = math.sqrt((1 + rho) / (1 - rho) / n)  # of the mean of a stationary AR(1) process with unit variance
    evidence = TokenLogProbs(torch.from_numpy(stream))
    estimate = text_metrics.nats_per_token(evidence)
    assert estimate.stderr == pytest.approx(expected, rel=0.25)
    assert estimate.stderr > 3 / math.sqrt(n)
    perplexity = text_metrics.perplexity(evidence)
    assert perplexity.stderr == pytest.approx(perplexity.value * estimate.stderr)


# Fidelity and coverage ----------------------------------------------------------------------------------------------


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
        assert value(name, ours) == pytest.approx(theirs[theirs_name], rel=1e-9), name


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
    replicates = fidelity.discrepancies_without_groups(drawn.generated, y)
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


def test_dropping_half_of_the_modes_costs_recall_and_not_precision():
    reference = features(0, 200).features
    reference[:100] += 50
    half = Features(normal(5, 100, 4), normal(6, 100, 3))
    evidence = SampleFeatures((half,), half, Features(reference, reference))
    assert value("precision", evidence) > 0.9
    assert 0.4 < value("recall", evidence) <= 0.5


def test_precision_and_recall_by_brute_force():
    drawn = samples(draws=1)
    generated, real = drawn.generated[0].features, drawn.reference.features

    def covered(points: Tensor, manifold: Tensor) -> float:
        inside = 0
        for point in points:
            reached = False
            for centre in manifold:
                radius = (manifold - centre).norm(dim=1).sort().values[3]  # entry 0 is the centre itself
                reached = reached or bool((point - centre).norm() <= radius)
            inside += reached
        return inside / len(points)

    evidence = drawn
    assert value("precision", evidence) == pytest.approx(covered(generated, real))
    assert value("recall", evidence) == pytest.approx(covered(real, generated))


@pytest.mark.parametrize("name", SAMPLE_METRICS)
def test_metrics_of_samples_are_deterministic_and_leave_random_states_alone(name):
    metric = METRICS[name]
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, second = (metric(samples()) for _ in range(2))
    assert first == second
    assert first.stderr is not None
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


@pytest.mark.parametrize("name", SAMPLE_METRICS)
def test_one_draw_has_no_standard_error(name):
    metric, drawn = METRICS[name], samples()
    once, twice = (replace(drawn, generated=(drawn.held_out,) * n) for n in (1, 2))
    if name == "fid_infinity":
        with pytest.raises(ValueError, match="1 draws of samples are too few to extrapolate from"):
            metric(once)
        return
    floor = metric(once)
    assert floor.value == pytest.approx(metric(twice).value, rel=1e-12)
    assert floor.stderr is None
    assert floor.n == 60


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


def test_density_and_coverage_by_brute_force():
    drawn = samples(n=30, reference=30, draws=1)
    generated, real = drawn.generated[0].features, drawn.reference.features
    radius = [(real - centre).norm(dim=1).sort().values[5] for centre in real]  # entry 0 is the centre itself
    inside = torch.stack([(generated - c).norm(dim=1) < r for c, r in zip(real, radius, strict=True)])  # [N, M]
    evidence = drawn
    assert value("density", evidence) == pytest.approx(inside.double().sum().item() / (5 * 30))
    assert value("coverage", evidence) == pytest.approx(inside.any(1).double().mean().item())


def test_density_and_coverage_of_a_perfect_sampler_are_what_the_paper_expects():
    """Naeem and others 2020, §3: E[density] = 1 and, for as many real images as samples, E[coverage] = 1 − 2⁻⁵."""
    drawn = SampleFeatures(tuple(features(20 + i, 200, 3) for i in range(4)), features(1, 200, 3), features(3, 1000, 3))
    assert value("density", drawn) == pytest.approx(1, abs=0.05)
    assert value("coverage", drawn) == pytest.approx(1 - 2**-5, abs=0.012)


def test_class_histogram_is_the_total_variation():
    held_out = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    one, two = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2, 3])
    estimate = coverage.class_histogram(SampleClasses((one, two), held_out))
    assert estimate.value == pytest.approx((0.5 + 0) / 2)
    assert estimate.stderr == pytest.approx(0.25)


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


# Baselines ---------------------------------------------------------------------------------------------------------


IMAGE_BASELINES = (image.uniform, image.histogram, image.pixel_histogram)
TEXT_BASELINES = (text.uniform, text.unigram, text.bigram)


def baselines(
    functions: Sequence[Callable[..., Tensor]], train: Tensor, test: Tensor, levels: int
) -> dict[str, Tensor]:
    return {function.__name__: function(train, test, levels) for function in functions}


def test_baselines_of_digits_have_their_known_values(data_root):
    digits = Digits(data_root)
    train, test = digits.split("train").x, digits.split("test").x
    found = {
        name: value("bits_per_dim", LogProbs(log_prob, digits.spec.dims))
        for name, log_prob in baselines(IMAGE_BASELINES, train, test, digits.spec.levels).items()
    }
    assert found["uniform"] == pytest.approx(math.log2(17), abs=1e-9)
    assert found["histogram"] == pytest.approx(2.970, abs=0.03)  # known from another split of the same images
    assert found["pixel_histogram"] == pytest.approx(2.420, abs=0.03)


def test_baselines_are_distributions():
    train = torch.tensor([0, 1, 1, 2, 0, 1, 2, 2])
    for name in ("uniform", "unigram", "bigram"):
        for before in range(4):
            pairs = [baselines(TEXT_BASELINES, train, torch.tensor([before, after]), 4)[name] for after in range(4)]
            assert sum(pair[1].exp() for pair in pairs) == pytest.approx(1), name
    grid = torch.cartesian_prod(*[torch.arange(3)] * 4).view(-1, 1, 2, 2)  # all 81 images of 2×2 pixels, 3 levels
    for name, log_prob in baselines(IMAGE_BASELINES, grid[::7], grid, 3).items():
        assert log_prob.exp().sum() == pytest.approx(1), name


def test_counts_are_smoothed_by_one():
    train = torch.tensor([0, 1, 0, 1, 0])
    found = baselines(TEXT_BASELINES, train, torch.tensor([0, 1, 2]), 3)
    assert found["unigram"].exp().tolist() == pytest.approx([4 / 8, 3 / 8, 1 / 8])
    assert found["bigram"].exp().tolist() == pytest.approx([4 / 8, 3 / 5, 1 / 5])


# Cost --------------------------------------------------------------------------------------------------------------


def test_parameters_count_what_is_trained():
    network = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    network[1].requires_grad_(False)
    assert cost.parameters(network) == 3 * 5 + 5


def tokens(batch_size: int = 3) -> Batch:
    return Batch(torch.randint(TEXT.levels, (batch_size, TEXT.dims)))


@pytest.mark.parametrize("given", [tokens(1), tokens(7)], ids=["batch of 1", "batch of 7"])
def test_flops_of_a_gpt_are_6_for_each_weight_and_token_and_12_of_attention(given):
    """6 N + 12 L D T a token, N without embeddings; attention's products are not halved by the causal mask."""
    L, D, T, V = 2, 12, TEXT.dims, TEXT.levels
    N = 12 * L * D * D + D * V
    assert cost.flops_per_example(GPT(TEXT, layers=L, heads=3, width=D), given) == T * (6 * N + 12 * L * D * T)


def test_flops_of_an_lstm_see_its_recurrence():
    """6 a weight and token; but no gradient goes back into the state before the first token."""
    L, D, T, V = 2, 12, TEXT.dims, TEXT.levels
    N = L * 4 * D * (D + D) + D * V
    assert cost.flops_per_example(LSTM(TEXT, layers=L, width=D), tokens()) == 6 * N * T - L * 2 * 4 * D * D


class Counted(Toy):
    """A linear layer, a batch norm whose statistics run, noise, and a loss that may read a value."""

    def __init__(self, reads: bool) -> None:
        super().__init__(TEXT)
        self.reads = reads
        self.linear, self.norm = nn.Linear(8, 6), nn.BatchNorm1d(6)

    def sample(self, n):
        raise NotImplementedError

    def training_step(self, batch, batch_idx):
        y = self.norm(self.linear(batch.x.float() + torch.rand(batch.x.shape, device=self.device)))
        return {"loss": y.square().mean() * (2.0 if self.reads and float(y[0, 0].detach()) > 0 else 1.0)}


@pytest.mark.parametrize("reads", [False, True], ids=["on meta", "where values are read"])
def test_flops_are_counted_forward_and_backward_and_change_nothing(reads):
    net, given = Counted(reads).eval(), tokens()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    assert cost.flops_per_example(net, given) == 2 * 2 * 8 * 6  # the data itself needs no gradient
    assert torch.equal(torch.get_rng_state(), state)
    assert not net.training
    assert all(p.grad is None for p in net.parameters())
    for name, after in net.state_dict().items():
        assert torch.equal(after, before[name]), name
    assert torch.backends.mkldnn.enabled


class Alternating(Counted):
    """Two optimisers by hand, the second at every k-th step alone."""

    def __init__(self, k: int) -> None:
        super().__init__(reads=False)
        self.k, self.automatic_optimization = k, False
        self.other = nn.Linear(8, 6)

    def training_step(self, batch, batch_idx):
        optimisers = self.optimizers()
        loss = self.linear(batch.x.float()).sum()
        self.manual_backward(loss)
        optimisers[0].step()
        if (batch_idx + 1) % self.k == 0:
            self.manual_backward(self.other(batch.x.float()).sum())
            optimisers[1].step()
        return {"loss": loss.detach()}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.linear.parameters()), Muon([self.other.weight])]


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_flops_of_a_network_that_trains_now_and_then_are_a_mean(k):
    net = Alternating(k)
    before = copy.deepcopy(net.state_dict())
    assert cost.flops_per_example(net, tokens()) == pytest.approx(2 * 2 * 8 * 6 * (1 + 1 / k))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="counts the device's memory once CUDA is in use")
def test_peak_memory_is_in_bytes():
    held = torch.ones(25_000_000)  # 100 MB
    assert held.sum() == 25_000_000
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    assert cost.peak_memory() == pytest.approx(peak, rel=0.05)
    assert peak > 100_000_000
