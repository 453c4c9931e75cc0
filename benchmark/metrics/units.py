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
    """Nats over a whole that has `parts` parts (pixels, characters, bytes), in bits for each part.

    An image of 64 pixels with 4 levels each, all equally likely:

    >>> bits_per(Estimate(64 * math.log(4), stderr=None, n=1), parts=64).value
    2.0
    """
    return scaled(nats, 1 / (parts * NATS_PER_BIT))


def exponential(estimate: Estimate) -> Estimate:
    """exp of the quantity; its standard error to first order (the delta method).

    >>> exponential(Estimate(0.0, stderr=0.1, n=10))
    Estimate(value=1.0, stderr=0.1, n=10)
    """
    value = math.exp(estimate.value) if estimate.value < 700 else math.inf  # exp overflows float64 at 709
    return Estimate(value, None if estimate.stderr is None else value * estimate.stderr, estimate.n)
