"""What is measured: `METRICS` is the one list, in the order of the board."""

from __future__ import annotations

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
from benchmark.spec import Metric, Modality, unknown

_IMAGE: tuple[Modality, ...] = ("image",)
_TEXT: tuple[Modality, ...] = ("text",)
_LIKELIHOOD, _TOKENS, _SAMPLES = ("log_prob", "elbo"), ("token_log_prob",), ("samples",)
_LABELLED, _ANOMALIES, _RECONSTRUCTIONS = ("labelled",), ("anomalies",), ("reconstructions",)
_STREAM = {"stderr": f"batch means, blocks of max({text.MIN_BLOCK}, sqrt(n)) tokens"}

METRICS: tuple[Metric, ...] = (
    Metric("nll", 1, "nats/example", "lower", _LIKELIHOOD, likelihood.nll),
    Metric("bits_per_dim", 1, "bits/dim", "lower", _LIKELIHOOD, likelihood.bits_per_dim, _IMAGE),
    Metric("elbo", 1, "nats/example", "higher", ("elbo",), likelihood.elbo),
    Metric("importance_bound", 1, "nats/example", "higher", ("importance_bound",), likelihood.importance_bound),
    Metric("nats_per_token", 1, "nats/token", "lower", _TOKENS, text.nats_per_token, _TEXT, _STREAM),
    Metric("perplexity", 1, "1", "lower", _TOKENS, text.perplexity, _TEXT, _STREAM),
    Metric("bits_per_char", 1, "bits/char", "lower", _TOKENS, text.bits_per_char, _TEXT, _STREAM),
    Metric("bits_per_byte", 1, "bits/byte", "lower", _TOKENS, text.bits_per_byte, _TEXT, _STREAM),
    Metric("fid", 1, "1", "lower", _SAMPLES, fidelity.fid, _IMAGE),
    Metric("kid", 1, "1", "lower", _SAMPLES, fidelity.kid, _IMAGE, fidelity.KID_PROTOCOL),
    Metric(
        "inception_score",
        1,
        "1",
        "higher",
        _SAMPLES,
        fidelity.inception_score,
        _IMAGE,
        fidelity.INCEPTION_SCORE_PROTOCOL,
    ),
    Metric("precision", 1, "1", "higher", _SAMPLES, coverage.precision, _IMAGE, coverage.PROTOCOL),
    Metric("recall", 1, "1", "higher", _SAMPLES, coverage.recall, _IMAGE, coverage.PROTOCOL),
    Metric("fid_infinity", 1, "1", "lower", _SAMPLES, fidelity.fid_infinity, _IMAGE),
    Metric("density", 1, "1", "higher", _SAMPLES, coverage.density, _IMAGE, coverage.DENSITY_PROTOCOL),
    Metric("coverage", 1, "1", "higher", _SAMPLES, coverage.coverage, _IMAGE, coverage.DENSITY_PROTOCOL),
    Metric("class_histogram", 1, "1", "lower", ("classes",), coverage.class_histogram, _IMAGE),
    Metric("nearest_neighbour_ratio", 1, "1", "neither", _SAMPLES, memorisation.nearest_neighbour_ratio, _IMAGE),
    Metric("copies", 1, "1", "lower", ("images",), memorisation.copies, _IMAGE, memorisation.PIXELS_PROTOCOL),
    Metric("near_copies", 2, "1", "lower", ("images",), memorisation.near_copies, _IMAGE, memorisation.NEAR_PROTOCOL),
    Metric(
        "downstream_accuracy", 1, "1", "higher", _LABELLED, downstream.downstream_accuracy, _IMAGE, downstream.PROTOCOL
    ),
    Metric(
        "augmented_accuracy", 1, "1", "higher", _LABELLED, downstream.augmented_accuracy, _IMAGE, downstream.PROTOCOL
    ),
    Metric("anomaly_auroc", 1, "1", "higher", _ANOMALIES, anomaly.anomaly_auroc, _IMAGE, anomaly.PROTOCOL),
    Metric(
        "anomaly_auroc_corrected",
        1,
        "1",
        "higher",
        _ANOMALIES,
        anomaly.anomaly_auroc_corrected,
        _IMAGE,
        anomaly.CORRECTED_PROTOCOL,
    ),
    Metric("psnr", 1, "dB", "higher", _RECONSTRUCTIONS, reconstruction.psnr, _IMAGE),
    Metric("ssim", 1, "1", "higher", _RECONSTRUCTIONS, reconstruction.ssim, _IMAGE, reconstruction.SSIM_PROTOCOL),
    Metric(
        "interpolation_ratio",
        1,
        "1",
        "lower",
        ("interpolations",),
        interpolation.interpolation_ratio,
        _IMAGE,
        interpolation.PROTOCOL,
    ),
)


def by_name(name: str) -> Metric:
    """The metric called `name`. Raises `BadInput` with the nearest name that exists."""
    for metric in METRICS:
        if metric.name == name:
            return metric
    raise unknown("metric", name, (metric.name for metric in METRICS))
