"""Planted bugs are convicted: known errors, patched into models, metrics and harness, fail a law or a truth check.

Each case names the mistake, plants it, and says which check convicts it in which words. The same check acquits the
code as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import exact
import numpy as np
import pytest
import torch
import torch_fidelity.metric_fid
from evidence import normal
from known_data import PROTOCOL, Stream, data_of
from solvable import shaken, small_flow
from torch import Tensor
from torch.distributions import MixtureSameFamily

from benchmark import testing
from benchmark.build import GenerativeModel, build_data, build_examination, build_model
from benchmark.config import compose
from benchmark.evaluate import Experts, Protocol, evaluate, references, selection_metric
from benchmark.leaderboard.truth import SIGMAS
from benchmark.loop import Loop, Plan
from benchmark.metrics import coverage, fidelity, likelihood, session, text, units
from benchmark.metrics.extractors.base import Features
from benchmark.metrics.likelihood import LogProbs
from benchmark.metrics.probe import Found
from benchmark.metrics.samples import SampleFeatures
from benchmark.metrics.session import Session
from benchmark.metrics.text import TokenLogProb
from benchmark.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from benchmark.models.autoregressive.lstm import LSTM
from benchmark.models.autoregressive.made import MADE
from benchmark.models.autoregressive.pixelrnn import DiagonalBiLSTM, PixelRNN
from benchmark.models.autoregressive.pixelsnail import PixelSNAIL
from benchmark.models.diffusion import flow_matching
from benchmark.models.diffusion.ddpm import DDPM
from benchmark.models.diffusion.edm import EDM
from benchmark.models.diffusion.flow_matching import FlowMatching
from benchmark.models.diffusion.vdm import VDM
from benchmark.models.flow import nice
from benchmark.models.flow.glow import Glow
from benchmark.models.flow.maf import MAF
from benchmark.models.flow.nice import NICE, Scale
from benchmark.models.flow.realnvp import RealNVP
from benchmark.models.flow.spline_flow import SplineFlow
from benchmark.models.transformer.gpt import GPT
from benchmark.models.vae.hierarchical_vae import HierarchicalVAE
from benchmark.models.vae.vae import VAE
from benchmark.models.vae.vq_vae import VQVAE, Transformer
from benchmark.nn.channels import Mix
from benchmark.nn.dequantised import DequantisedFlow, Logit, Prior, VariationalDequantisation
from benchmark.nn.distributions import DiscretisedLogistics, log_logistic
from benchmark.nn.masked import ColourConv2d, MaskedLinear
from benchmark.nn.splines import Spline
from benchmark.spec import DataSpec, TokenLikelihood
from benchmark.testing import Subject, likelihoods

Plant = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[], None]
Law = Callable[[Callable[[Subject], None]], Check]
PAIR = DataSpec((1, 1, 2), 3, "grid")
IMAGES = DataSpec((1, 2, 3), 4, "grid")


# Checks --------------------------------------------------------------------------------------------------------------


def law(
    check: Callable[[Subject], None], model: type[GenerativeModel], structure: Any = "grid", **options: Any
) -> Check:
    """A law on a fresh subject: nothing that was trained before the bug was planted is seen again."""
    return lambda: check(Subject(partial(model, **options), structure))


def assert_not_below_entropy(data_name: str, model_name: str, *options: str) -> None:
    """The truth check: after a brief training on synthetic data a model costs at least the entropy."""
    experiment = compose([f"data={data_name}", f"model={model_name}", "budget=smoke", *options])
    data = build_data(experiment.data, root=None)
    with testing.seeded(0):
        model = build_model(experiment, data.spec)
    testing.train(model, lambda step: data.batch(0, step, 64), 100)
    protocol = replace(PROTOCOL, split="validation", elbo_draws=2, examples=200)
    examination = build_examination(experiment.data.modality)
    metric = selection_metric(model, examination)
    score = evaluate(model, data, protocol, examination, Experts(), [metric]).scores[metric]
    entropy = references(data, protocol, examination, Experts())["entropy"][metric].value
    assert score.value is not None
    assert score.stderr is not None
    assert entropy is not None
    assert score.value > entropy - SIGMAS * score.stderr, f"{score.value:.3f} beats the entropy {entropy:.3f}"


def assert_entropy_in_bits() -> None:
    """The source of the images costs its entropy, in bits for each of 16 pixels."""
    table = references(data_of("synthetic_images"), PROTOCOL, build_examination("image"), Experts())
    bits = data_of("synthetic_images").describe()["entropy"] / math.log(2) / 16
    assert table["entropy"]["bits_per_dim"].value == pytest.approx(bits), "not the entropy in bits"


def assert_mean_is_over_examples() -> None:
    """The same examples in another order have the same mean."""
    log_prob = -normal(0, 100).abs()  # 100 is no multiple of any batch
    values = [likelihood.nll(LogProbs(x, IMAGES.dims)).value for x in (log_prob, log_prob.sort().values)]
    assert values[0] == pytest.approx(values[1]), "the order of examples moves their mean"


def samples(generated: Tensor, real: Tensor) -> SampleFeatures:
    drawn, seen = (Features(x, normal(9, len(x), 3)) for x in (generated, real))
    return SampleFeatures((drawn,), seen, seen)


def assert_missing_modes_cost_recall() -> None:
    """Samples from one of two modes are all real, and cover half of what is real."""
    real = normal(0, 200, 4)
    real[:100] += 50
    drawn = samples(normal(5, 100, 4), real)
    precision, recall = coverage.precision(drawn).value, coverage.recall(drawn).value
    assert precision > 0.9 > 0.6 > recall, f"half of the modes: precision {precision:.2f}, recall {recall:.2f}"


def assert_fid_is_closed_form() -> None:
    """Two Gaussians that differ by a shift: its square, once covariances are fitted to the same noise."""
    x = normal(1, 500, 4)
    value = fidelity.fid(samples(x + 3.0, x)).value
    assert value == pytest.approx(4 * 3.0**2, rel=1e-6), f"a shift of 3 in 4 features costs 36, not {value:.2f}"


def assert_stream_is_scored_once() -> None:
    """Sliding windows score each token of the stream once, with as much context as there is."""
    data = data_of("synthetic_text")
    model = build_model(compose(["data=synthetic_text", "model=gpt", "budget=smoke", "model.width=16"]), data.spec)
    assert isinstance(model, TokenLikelihood)
    stream = data.split("validation").x[:500]
    with torch.no_grad():
        asked = Session(model.eval(), Stream(stream, data.spec), Protocol("validation", 0, stride=16), Experts())
        brought = asked[TokenLogProb]
        first = model.token_log_prob(stream[None, :64].long())[0]
    assert isinstance(brought, Found)
    found = brought.evidence.nats
    assert len(found) == len(stream), f"{len(found)} scores for {len(stream)} tokens"
    torch.testing.assert_close(found[:64], first.double())


def assert_draws_do_not_depend_on_batches() -> None:
    """The bound of the first examples is the same whether or not others come after them."""
    torch.manual_seed(0)
    model, x = VAE(PAIR, width=8).eval(), torch.randint(3, (150, 1, 1, 2))
    asked = Session(model, data_of("synthetic_images"), Protocol("validation", 0), Experts())
    with torch.no_grad():
        whole, part = (asked.batched(model.elbo, y, "elbo") for y in (x, x[:64]))
    assert torch.equal(whole[:64], part), "scores depend on who else is scored"


def assert_validation_sees_the_average() -> None:
    """Inside `averaged` the model has the moving average of its weights; afterwards its own again."""
    plan = Plan(640, 16, 0.0, 0.0, 0.0, ema_decay=0.9, validations=1, patience=0)
    loop = Loop(plan, cast(Any, None))
    loop._parameters, loop._average = [torch.ones(3)], [torch.zeros(3)]
    with loop.averaged():
        assert not loop._parameters[0].any(), "validation sees the weights of the last step"
    assert loop._parameters[0].all(), "training goes on from the average"


def assert_log_det_of_realnvp() -> None:
    model = shaken(small_flow(RealNVP, DataSpec((1, 2, 2), 3, "grid"))).double()
    testing.assert_log_det_agrees(model, normal(0, 2, 1, 2, 2))


def assert_log_det_of_glow() -> None:
    with testing.seeded(0):
        model = shaken(Glow(DataSpec((1, 4, 4), 3, "grid"), steps=1, width=8, dropout=0.0), 0.1).double()
    testing.assert_log_det_agrees(model.flow, normal(0, 2, 1, 4, 4))


def assert_solves_gaussians() -> None:
    """The ODE likelihood of Gaussian data is its closed form."""
    (pair,) = exact.of_flow_matching(probes=1)
    assert pair.problem is None, pair.problem


# Bugs ----------------------------------------------------------------------------------------------------------------


def wrapped(owner: Any, name: str, bug: Callable[..., Any]) -> Plant:
    """Replaces a function by `bug(original, *arguments)`."""
    original = getattr(owner, name)
    return lambda patch: patch.setattr(owner, name, lambda *args, **options: bug(original, *args, **options))


def elbo_with_weight(original: Any, self: VAE, x: Tensor) -> Tensor:
    q = self.encode(x)
    return self.log_likelihood(x, q.rsample()) - 0.1 * self.kl(q)


def top_layer_alone(original: Any, self: HierarchicalVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    log_likelihood, kl = original(self, x)
    return log_likelihood, kl[:, :1]


def logit_without_constant(original: Any, self: Logit, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    y, log_jacobian = original(self, x, v)
    return y, log_jacobian + x[0].numel() * math.log(self.levels)


def slope_at_least_one(original: Any, self: Spline, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    y, log_slope = original(self, x, parameters)
    return y, log_slope.clamp(min=0.0)


def losses_by_mean(original: Any, self: VDM, x: Tensor) -> dict[str, Tensor]:
    terms = original(self, x)
    return terms | {"diffusion": terms["diffusion"] / self.spec.dims}


def sees_one_ahead(original: Any, q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
    ahead = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril(1)
    return original(q, k, v, attn_mask=ahead if is_causal else None)


def mean_of_batches(original: Any, x: Tensor) -> Any:
    return original(torch.stack([batch.mean() for batch in x.split(64)]))


def statistics_about_zero(original: Any, features: Tensor) -> dict[str, np.ndarray]:
    return original(features) | {"sigma": (features.T @ features / len(features)).numpy()}


def overlap_counted_twice(original: Any, asked: Session) -> Any:
    windows = asked.split.x.unfold(0, asked.spec.shape[0], asked.protocol.stride).long()
    log_prob = asked.model.token_log_prob(windows).flatten().double()
    return log_prob, torch.arange(len(log_prob)), {}


@dataclass(frozen=True)
class Bug:
    plant: Plant
    check: Check
    words: str


VAE_OPTIONS: dict[str, Any] = {"latent": 2, "width": 16, "depth": 1, "dropout": 0.0, "learning_rate": 0.01}
FLOW_OPTIONS: dict[str, Any] = {"couplings": 2, "width": 16, "depth": 1, "dropout": 0.0, "learning_rate": 0.01}
GPT_OPTIONS: dict[str, Any] = {"layers": 1, "heads": 2, "width": 16}

vae: Law = partial(law, model=VAE, **VAE_OPTIONS)
hierarchical_vae: Law = partial(law, model=HierarchicalVAE, patch=1, width=16, dropout=0.0, learning_rate=0.01)
realnvp: Law = partial(law, model=RealNVP, **FLOW_OPTIONS)
text_gpt: Law = partial(law, model=GPT, structure="sequence", **GPT_OPTIONS)
text_lstm: Law = partial(law, model=LSTM, structure="sequence", layers=1, width=16)

BUGS: dict[str, Bug] = {
    "vae: mean over pixels where the sum belongs": Bug(
        wrapped(VAE, "log_likelihood", lambda original, self, x, z: original(self, x, z) / self.spec.dims),
        vae(likelihoods.assert_is_a_bound),
        "exp of the bound sums to",
    ),
    "vae: KL weight in the ELBO": Bug(
        wrapped(VAE, "elbo", elbo_with_weight),
        vae(likelihoods.assert_importance_bound_tightens),
        "one importance sample gives",
    ),
    "vae: sampler with another prior": Bug(
        wrapped(VAE, "sample", lambda original, self, n: self.decode(3 * self.prior().sample((n,))).sample().long()),
        vae(likelihoods.assert_samples_follow_importance_bound),
        "disagree",
    ),
    "vae: one level too many in the decoder": Bug(
        wrapped(DiscretisedLogistics, "__init__", lambda original, self, x, levels: original(self, x, levels + 1)),
        vae(likelihoods.assert_samples_follow_importance_bound),
        "sum to",
    ),
    "vae: sum of importance weights, not their mean": Bug(
        wrapped(VAE, "importance_bound", lambda original, self, x, k: original(self, x, k) + math.log(k)),
        vae(likelihoods.assert_samples_follow_importance_bound),
        "sum to",
    ),
    "vae: the sum of a VampPrior's components, not their mean": Bug(
        wrapped(MixtureSameFamily, "log_prob", lambda original, self, z: original(self, z) + math.log(5)),
        law(likelihoods.assert_samples_follow_importance_bound, VAE, prior="vampprior", pseudo_inputs=5, **VAE_OPTIONS),
        "sum to",
    ),
    "hierarchical_vae: KL of the top layer alone": Bug(
        wrapped(HierarchicalVAE, "terms", top_layer_alone),
        hierarchical_vae(likelihoods.assert_importance_bound_tightens),
        "one importance sample gives",
    ),
    "hierarchical_vae: sampler with other priors": Bug(
        wrapped(HierarchicalVAE, "noise", lambda original, self, n: 3 * original(self, n)),
        hierarchical_vae(likelihoods.assert_samples_follow_importance_bound),
        "disagree",
    ),
    "vq_vae: the bound without what the codes cost": Bug(
        wrapped(Transformer, "log_prob", lambda original, self, z: 0 * original(self, z)),
        law(likelihoods.assert_is_a_bound, VQVAE, width=16, dropout=0.0),
        "exp of the bound sums to",
    ),
    "realnvp: forgotten dequantisation constant": Bug(
        wrapped(Logit, "forward", logit_without_constant),
        realnvp(likelihoods.assert_is_a_bound),
        "exp of the bound sums to",
    ),
    "realnvp: forgotten density of the learnt noise": Bug(
        wrapped(
            VariationalDequantisation,
            "forward",
            lambda original, self, x: (original(self, x)[0], torch.zeros(len(x))),
        ),
        realnvp(likelihoods.assert_samples_follow_importance_bound),
        "sum to",
    ),
    "realnvp: mean over dimensions in the log-determinant": Bug(
        wrapped(RealNVP, "forward", lambda original, self, y: (original(self, y)[0], original(self, y)[1] / 4)),
        assert_log_det_of_realnvp,
        "not close",
    ),
    "realnvp: sampler with another prior": Bug(
        wrapped(DequantisedFlow, "generate", lambda original, self, e: original(self, 2 * e)),
        realnvp(likelihoods.assert_samples_follow_importance_bound),
        "disagree",
    ),
    "nice: forgotten log-determinant of the scales": Bug(
        wrapped(Scale, "forward", lambda original, self, x, context=None: (original(self, x)[0], x.new_zeros(len(x)))),
        law(likelihoods.assert_is_a_bound, NICE, width=16, depth=1, dropout=0.0, learning_rate=0.01),
        "exp of the bound sums to",
    ),
    "nice: draws from a normal prior, scores by a logistic one": Bug(
        lambda patch: patch.setattr(nice, "PRIORS", {"logistic": Prior(log_logistic, lambda e: e)}),
        law(
            likelihoods.assert_samples_follow_importance_bound,
            NICE,
            width=16,
            depth=1,
            dropout=0.0,
            learning_rate=0.01,
        ),
        "disagree",
    ),
    "glow: the log-determinant of a 1x1 convolution counts one place": Bug(
        wrapped(
            Mix,
            "forward",
            lambda original, self, x, context=None: (original(self, x)[0], self.log_s.sum().expand(len(x))),
        ),
        assert_log_det_of_glow,
        "not close",
    ),
    "spline_flow: slopes below 1 count as 1": Bug(
        wrapped(Spline, "forward", slope_at_least_one),
        law(likelihoods.assert_is_a_bound, SplineFlow, steps=2, width=16, depth=1, dropout=0.0, learning_rate=0.01),
        "exp of the bound sums to",
    ),
    "maf: a number reads itself": Bug(
        wrapped(
            MaskedLinear, "__init__", lambda original, *args, **options: original(*args, **options | {"strict": False})
        ),
        law(likelihoods.assert_is_a_bound, MAF, layers=2, width=16, dropout=0.0, learning_rate=0.01),
        "exp of the bound sums to",
    ),
    "gated_pixelcnn: a pixel sees itself": Bug(
        wrapped(
            ColourConv2d, "__init__", lambda original, *args, **options: original(*args, **options | {"strict": False})
        ),
        partial(assert_not_below_entropy, "synthetic_images", "gated_pixelcnn", "model.channels=16"),
        "beats the entropy",
    ),
    "gated_pixelcnn: a pixel sees itself, by the law": Bug(
        wrapped(
            ColourConv2d, "__init__", lambda original, *args, **options: original(*args, **options | {"strict": False})
        ),
        law(likelihoods.assert_normalised, GatedPixelCNN, layers=2, channels=8),
        "probabilities sum to",
    ),
    "pixelrnn: the map from the right is not shifted down": Bug(
        wrapped(
            DiagonalBiLSTM,
            "merged",
            lambda original, self, x, left, above: original(self, x, left, above.roll(-1, 2)),
        ),
        law(likelihoods.assert_normalised, PixelRNN, layers=2, channels=8),
        "probabilities sum to",
    ),
    "pixelsnail: a place attends to its own pixel": Bug(
        wrapped(torch.nn.functional, "scaled_dot_product_attention", sees_one_ahead),
        law(likelihoods.assert_normalised, PixelSNAIL, layers=1, channels=8),
        "probabilities sum to",
    ),
    "made: the output layer lets a value see itself": Bug(
        wrapped(
            MADE,
            "weights",
            lambda original, self, k: (original(self, k)[0], self.head.weight, self.direct.weight),
        ),
        law(likelihoods.assert_normalised, MADE, width=64),
        "probabilities sum to",
    ),
    "gpt: attention sees one position ahead, its own token": Bug(
        wrapped(torch.nn.functional, "scaled_dot_product_attention", sees_one_ahead),
        text_gpt(likelihoods.assert_tokens_normalised),
        "all values of token",
    ),
    "gpt: a token is among those that it is predicted from": Bug(
        wrapped(GPT, "embed", lambda original, self, stream, start: original(self, stream.roll(-1, 1), start)),
        partial(assert_not_below_entropy, "synthetic_text", "gpt", "model.width=32", "data.context=16"),
        "beats the entropy",
    ),
    "lstm: the state is lost between windows": Bug(
        wrapped(LSTM, "token_log_prob", lambda original, self, x, state=None: original(self, x)),
        text_lstm(likelihoods.assert_carries_state),
        "not close",
    ),
    "lstm: a token is among those that it is predicted from": Bug(
        wrapped(LSTM, "forward", lambda original, self, stream, state: original(self, stream.roll(-1, 1), state)),
        text_lstm(likelihoods.assert_tokens_normalised),
        "all values of token",
    ),
    "vdm: mean over pixels where the sum belongs": Bug(
        wrapped(VDM, "losses", losses_by_mean),
        partial(assert_not_below_entropy, "synthetic_images", "vdm", "model.width=16"),
        "beats the entropy",
    ),
    "flow_matching: forgotten divergence": Bug(
        wrapped(flow_matching, "divergence", lambda original, field, y, _: (field(y), torch.zeros(len(y)))),
        assert_solves_gaussians,
        "above the exact value",
    ),
    "flow_matching: says one solver and uses another": Bug(
        wrapped(FlowMatching, "elbo", lambda original, self, x: self.solve(x, 20)),
        law(likelihoods.assert_solver_is_fine_enough, FlowMatching, width=8),
        "elbo is not what",
    ),
    "ddpm: a term is not divided by the probability of its step": Bug(
        wrapped(DDPM, "probabilities", lambda original, self: torch.ones_like(original(self))),
        law(likelihoods.assert_is_a_bound, DDPM, width=8),
        "exp of the bound sums to",
    ),
    "ddpm: mean over pixels where the sum belongs": Bug(
        wrapped(DDPM, "terms", lambda original, self, *args: original(self, *args) / self.spec.dims),
        law(likelihoods.assert_is_a_bound, DDPM, width=8),
        "exp of the bound sums to",
    ),
    "edm: forgotten spread of the noise that dequantises": Bug(
        wrapped(
            EDM, "solve", lambda original, self, x, n: original(self, x, n) - self.spec.dims * math.log(self.sigma_min)
        ),
        law(likelihoods.assert_is_a_bound, EDM, width=8),
        "exp of the bound sums to",
    ),
    "bits: nats for bits": Bug(
        lambda patch: patch.setattr(units, "NATS_PER_BIT", 1.0), assert_entropy_in_bits, "not the entropy in bits"
    ),
    "bits: a decimal logarithm": Bug(
        lambda patch: patch.setattr(units, "NATS_PER_BIT", math.log(10)), assert_entropy_in_bits, "entropy in bits"
    ),
    "nll: the remainder counts as a whole batch": Bug(
        wrapped(likelihood, "mean_over_examples", mean_of_batches), assert_mean_is_over_examples, "order of examples"
    ),
    "precision and recall: generated and real swapped": Bug(
        wrapped(coverage, "_precision_and_recall", lambda original, samples: original(samples)[::-1]),
        assert_missing_modes_cost_recall,
        "half of the modes",
    ),
    "fid: covariance about zero": Bug(
        wrapped(torch_fidelity.metric_fid, "fid_features_to_statistics", statistics_about_zero),
        assert_fid_is_closed_form,
        "a shift of 3",
    ),
    "sliding window: what overlaps counts twice": Bug(
        wrapped(text, "_sliding", overlap_counted_twice), assert_stream_is_scored_once, "scores for 500"
    ),
    "evaluation: draws without a key": Bug(
        lambda patch: patch.setattr(session, "keyed_randomness", lambda *key: nullcontext()),
        assert_draws_do_not_depend_on_batches,
        "depend on who else",
    ),
    "averaged weights are not used": Bug(
        lambda patch: patch.setattr(Loop, "averaged", lambda self: nullcontext()),
        assert_validation_sees_the_average,
        "weights of the last step",
    ),
}


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS.keys())
def test_convicted(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.check()
    bug.plant(monkeypatch)
    with pytest.raises(AssertionError, match=bug.words):
        bug.check()
