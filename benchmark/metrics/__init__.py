"""What is measured: `METRICS` is the one list, in the order of the board. `benchmark.facts` says what each of them is,
this file how it is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from benchmark import facts
from benchmark.metrics import (
    anomaly,
    coverage,
    downstream,
    fidelity,
    interpolation,
    likelihood,
    memorisation,
    reconstruction,
    text,
)
from benchmark.spec import Estimate, Evidence, Metric, unknown


def _metric(
    needs: tuple[str, ...],
    compute: Callable[[Evidence], Estimate],
    protocol: Mapping[str, Any] = MappingProxyType({}),
) -> Metric:
    """The metric that the function `compute` is named after."""
    fact = facts.METRICS[compute.__name__]
    return Metric(fact.name, fact.version, fact.unit, fact.better, needs, compute, fact.modalities, protocol)


_LIKELIHOOD, _TOKENS, _SAMPLES = ("log_prob", "elbo"), ("token_log_prob",), ("samples",)
_LABELLED, _ANOMALIES, _RECONSTRUCTIONS = ("labelled",), ("anomalies",), ("reconstructions",)
_STREAM = {"stderr": f"batch means, blocks of max({text.MIN_BLOCK}, sqrt(n)) tokens"}

METRICS: tuple[Metric, ...] = (
    _metric(_LIKELIHOOD, likelihood.nll),
    _metric(_LIKELIHOOD, likelihood.bits_per_dim),
    _metric(("elbo",), likelihood.elbo),
    _metric(("importance_bound",), likelihood.importance_bound),
    _metric(_TOKENS, text.nats_per_token, _STREAM),
    _metric(_TOKENS, text.perplexity, _STREAM),
    _metric(_TOKENS, text.bits_per_char, _STREAM),
    _metric(_TOKENS, text.bits_per_byte, _STREAM),
    _metric(_SAMPLES, fidelity.fid),
    _metric(_SAMPLES, fidelity.kid, fidelity.KID_PROTOCOL),
    _metric(_SAMPLES, fidelity.inception_score, fidelity.INCEPTION_SCORE_PROTOCOL),
    _metric(_SAMPLES, coverage.precision, coverage.PROTOCOL),
    _metric(_SAMPLES, coverage.recall, coverage.PROTOCOL),
    _metric(_SAMPLES, fidelity.fid_infinity),
    _metric(_SAMPLES, coverage.density, coverage.DENSITY_PROTOCOL),
    _metric(_SAMPLES, coverage.coverage, coverage.DENSITY_PROTOCOL),
    _metric(("classes",), coverage.class_histogram),
    _metric(_SAMPLES, memorisation.nearest_neighbour_ratio),
    _metric(("images",), memorisation.copies, memorisation.PIXELS_PROTOCOL),
    _metric(("images",), memorisation.near_copies, memorisation.NEAR_PROTOCOL),
    _metric(_LABELLED, downstream.downstream_accuracy, downstream.PROTOCOL),
    _metric(_LABELLED, downstream.augmented_accuracy, downstream.PROTOCOL),
    _metric(_ANOMALIES, anomaly.anomaly_auroc, anomaly.PROTOCOL),
    _metric(_ANOMALIES, anomaly.anomaly_auroc_corrected, anomaly.CORRECTED_PROTOCOL),
    _metric(_RECONSTRUCTIONS, reconstruction.psnr),
    _metric(_RECONSTRUCTIONS, reconstruction.ssim, reconstruction.SSIM_PROTOCOL),
    _metric(("interpolations",), interpolation.interpolation_ratio, interpolation.PROTOCOL),
)


def by_name(name: str) -> Metric:
    """The metric called `name`. Raises `BadInput` with the nearest name that exists."""
    for metric in METRICS:
        if metric.name == name:
            return metric
    raise unknown("metric", name, (metric.name for metric in METRICS))
