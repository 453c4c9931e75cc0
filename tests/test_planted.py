"""Planted bugs are convicted: known errors, patched into models, metrics and harness, fail a law or a truth check.

Each case names the mistake, plants it, and says which check convicts it in which words. The same check acquits the
code as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import laws
import numpy as np
import pytest
import torch
import torch_fidelity.metric_fid
import torch_fidelity.metric_prc
from laws import Subject
from test_metrics import normal
from test_truth import NO_EXTRACTOR, data_of
from torch import Tensor

from benchmark import evaluate as evaluation
from benchmark.build import GenerativeModel, build_model
from benchmark.config import compose
from benchmark.evaluate import Protocol, evaluate, references, selection_metric
from benchmark.leaderboard.truth import SIGMAS
from benchmark.loop import Loop
from benchmark.metrics import by_name, likelihood, units
from benchmark.models.autoregressive.gated_pixelcnn import ColourConv2d, GatedPixelCNN
from benchmark.models.autoregressive.lstm import LSTM
from benchmark.models.diffusion.flow_matching import FlowMatching
from benchmark.models.diffusion.vdm import VDM
from benchmark.models.flow.realnvp import RealNVP
from benchmark.models.transformer.gpt import GPT
from benchmark.models.vae.vae import VAE, DiscretisedLogistics
from benchmark.spec import DataSpec, Evidence, Features, SampleFeatures

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")

Plant = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[], None]
PAIR = DataSpec((1, 1, 2), 3, "image")
IMAGES = DataSpec((1, 2, 3), 4, "image")


# Checks --------------------------------------------------------------------------------------------------------------


def law(check: Callable[[Subject], None], model: type[GenerativeModel], modality: Any = "image", **options: Any) -> Check:
    """A law on a fresh subject: nothing that was trained before the bug was planted is seen again."""
    return lambda: check(Subject(partial(model, **options), modality))


def assert_not_below_entropy(data_name: str, model_name: str) -> None:
    """The truth check: after a brief training on synthetic data a model costs at least the entropy."""
    data = data_of(data_name)
    experiment = compose([f"data={data_name}", f"model={model_name}", "budget=smoke", "model.width=32"])
    with laws.seeded(0):
        model = build_model(experiment, data.spec)
    laws.train(model, lambda step: data.batch(0, step, 64), 100)
    protocol, metric = Protocol("validation", 0, elbo_draws=2, examples=64), selection_metric(model)
    score = evaluate(model, data, protocol, NO_EXTRACTOR, [metric]).scores[metric]
    entropy = references(data, protocol, NO_EXTRACTOR)["entropy"][metric].value
    assert score.value is not None
    assert score.stderr is not None
    assert entropy is not None
    assert score.value > entropy - SIGMAS * score.stderr, f"{score.value:.3f} beats the entropy {entropy:.3f}"


def assert_entropy_in_bits() -> None:
    """The source of the images costs its entropy, in bits for each of 16 pixels."""
    table = references(data_of("synthetic_images"), Protocol("test", 0), NO_EXTRACTOR)
    bits = data_of("synthetic_images").describe()["entropy"] / math.log(2) / 16
    assert table["entropy"]["bits_per_dim"].value == pytest.approx(bits), "not the entropy in bits"


def assert_mean_is_over_examples() -> None:
    """The same examples in another order have the same mean."""
    log_prob = -normal(0, 100).abs()  # 100 is no multiple of any batch
    values = [by_name("nll").compute(Evidence(IMAGES, log_prob=x)).value for x in (log_prob, log_prob.sort().values)]
    assert values[0] == pytest.approx(values[1]), "the order of examples moves their mean"


def samples(generated: Tensor, real: Tensor) -> Evidence:
    drawn, seen = (Features(x, normal(9, len(x), 3)) for x in (generated, real))
    return Evidence(IMAGES, samples=SampleFeatures((drawn,), seen, seen))


def assert_missing_modes_cost_recall() -> None:
    """Samples from one of two modes are all real, and cover half of what is real."""
    real = normal(0, 200, 4)
    real[:100] += 50
    precision, recall = (by_name(name).compute(samples(normal(5, 100, 4), real)).value for name in ("precision", "recall"))
    assert precision > 0.9 > 0.6 > recall, f"half of the modes: precision {precision:.2f}, recall {recall:.2f}"


def assert_fid_is_closed_form() -> None:
    """Two Gaussians that differ by a shift: its square, once covariances are fitted to the same noise."""
    x = normal(1, 500, 4)
    value = by_name("fid").compute(samples(x + 3.0, x)).value
    assert value == pytest.approx(4 * 3.0**2, rel=1e-6), f"a shift of 3 in 4 features costs 36, not {value:.2f}"


def assert_stream_is_scored_once() -> None:
    """Sliding windows score each token of the stream once, with as much context as there is."""
    data = data_of("synthetic_text")
    model = build_model(compose(["data=synthetic_text", "model=gpt", "budget=smoke", "model.width=16"]), data.spec)
    stream = data.split("validation").x[:500]
    with torch.no_grad():
        found, *_ = evaluation._stream_log_prob(model.eval(), stream, Protocol("validation", 0, stride=16))
        first = model.token_log_prob(stream[None, :64].long())[0]
    assert len(found) == len(stream), f"{len(found)} scores for {len(stream)} tokens"
    torch.testing.assert_close(found[:64], first.double())


def assert_draws_do_not_depend_on_batches() -> None:
    """The bound of the first examples is the same whether or not others come after them."""
    torch.manual_seed(0)
    model, x = VAE(PAIR, width=8).eval(), torch.randint(3, (150, 1, 1, 2))
    with torch.no_grad():
        whole, part = (evaluation._by_chunks(model.elbo, y, model.device, 0, "elbo") for y in (x, x[:64]))
    assert torch.equal(whole[:64], part), "scores depend on who else is scored"


def assert_kept_weights_are_averaged(tmp_path: Path) -> None:
    """What validation scores, and what is kept, is the moving average."""
    from benchmark.loop import Hooks, Plan

    plan = Plan(640, 16, 0.0, 0.0, 0.0, ema_decay=0.9, validations=1, patience=0, cpu_seconds=60)
    hooks = Hooks(*[lambda *_: 0.0] * 6)
    loop = Loop(plan, hooks)
    loop._parameters = [torch.nn.Parameter(torch.ones(3))]
    loop._average = [torch.zeros(3)]
    with loop.averaged():
        assert not loop._parameters[0].any(), "validation sees the weights of the last step"
    assert loop._parameters[0].all(), "training goes on from the average"
