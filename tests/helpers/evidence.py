"""Evidence for metrics, drawn from normal distributions by seed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmark.build import load_metrics
from benchmark.metrics.extractors.base import Features
from benchmark.metrics.samples import SampleFeatures, SeenFeatures

METRICS = load_metrics()
SAMPLE_METRICS = [name for name, metric in METRICS.items() if metric.probes == (SeenFeatures,)]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(seed: int, n: int, d: int = 4, scale: float = 1.0, shift: float = 0.0) -> Features:
    return Features(normal(seed, n, d) * scale + shift, normal(seed + 1, n, 3))


def samples(seed: int = 0, n: int = 60, reference: int = 130, draws: int = 3, scale: float = 1.3) -> SampleFeatures:
    generated = tuple(features(seed + 10 * draw, n, scale=scale, shift=0.2) for draw in range(draws))
    return SampleFeatures(generated, features(seed + 1000, n), features(seed + 2000, reference))


def value(name: str, evidence: Any) -> float:
    return METRICS[name](evidence).value
