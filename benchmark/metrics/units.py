"""The one place that converts units: everything inside is nats."""

from __future__ import annotations

import math

from benchmark.spec import Estimate

NATS_PER_BIT = math.log(2)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """`factor` times the quantity."""
    stderr = None if estimate.stderr is None else abs(factor) * estimate.stderr
    return Estimate(factor * estimate.value, stderr, estimate.n)


def bits_per(nats: Estimate, parts: float) -> Estimate:
    """Nats over a whole that has `parts` parts (pixels, characters, bytes), in bits for each part."""
    return scaled(nats, 1 / (parts * NATS_PER_BIT))


def exponential(estimate: Estimate) -> Estimate:
    """exp of the quantity; its standard error to first order (the delta method)."""
    value = math.exp(estimate.value) if estimate.value < 700 else math.inf  # exp overflows float64 at 709
    return Estimate(value, None if estimate.stderr is None else value * estimate.stderr, estimate.n)
