"""What every metric has in common: its place in the list, its errors, and that it leaves random states alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from evidence import METRICS, SAMPLE_METRICS, samples, value

from benchmark import facts
from benchmark.metrics.likelihood import LogProbs
from benchmark.metrics.text import TokenLogProbs
from benchmark.spec import DataSpec

IMAGES = DataSpec((1, 2, 3), 4, "grid")


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
            "nats_of_known_works",
            "nats_of_new_works",
            "window_nats",
            "perplexity",
            "bits_per_char",
            "bits_per_byte",
            "bits_per_byte_before",
            "forgetting",
            "pseudo_perplexity",
            "label_nats",
            "label_accuracy",
            "reply_nats",
            "reply_bits_per_byte",
            "reply_perplexity",
            "reply_nats_wrong",
            "fid",
            "kid",
            "inception_score",
            "precision",
            "recall",
            "fid_infinity",
            "density",
            "coverage",
            "class_histogram",
            "modes_covered",
            "mode_kl",
            "near_share",
            "nearest_neighbour_ratio",
            "copies",
            "near_copies",
            "distinct_words",
            "overlap",
            "copied_text",
            "sample_entropy",
            "sample_perplexity",
            "mean_reward",
            "reward_before",
            "reward_of_text",
            "kl_before",
            "downstream_accuracy",
            "augmented_accuracy",
            "agreement",
            "fid_within_classes",
            "anomaly_auroc",
            "anomaly_auroc_corrected",
            "psnr",
            "ssim",
            "interpolation_ratio",
            *(f"fid_within_{most}" for most in (5, 10, 20, 50, 100)),
            "bits_of_steps",
            *(f"sample_perplexity_within_{most}" for most in (8, 16, 32, 64, 128)),
            *(f"sample_entropy_within_{most}" for most in (8, 16, 32, 64, 128)),
            *(
                f"{name}_truncated_{percent}"
                for percent in (30, 50, 70, 100)
                for name in ("fid", "precision", "recall")
            ),
        ]
    )
    for name, metric in METRICS.items():
        assert metric.probes, name
        assert len({probe.key for probe in metric.probes}) == len(metric.probes), name


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


@pytest.mark.parametrize("name", SAMPLE_METRICS)
def test_metrics_of_samples_are_deterministic_and_leave_random_states_alone(name):
    metric = METRICS[name]
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    of_numpy: Callable[[], Any] = np.random.get_state
    before = torch.get_rng_state(), of_numpy()[1].copy(), random.getstate()
    first, second = (metric(samples()) for _ in range(2))
    assert first == second
    assert first.stderr is not None
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(of_numpy()[1], before[1])
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
