"""Statistics over training seeds, as pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds with its interval; one seed has none."""

    centre: float
    low: float | None
    high: float | None
    n: int


def student_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and Student-t interval of the mean, mean ± t(n-1) sd/√n, of one value a seed.

    >>> found = student_interval([1.0, 2.0, 3.0])
    >>> print(f"{found.centre:.2f} [{found.low:.2f}, {found.high:.2f}]")
    2.00 [-0.48, 4.48]
    >>> student_interval([1.0])
    Interval(centre=1.0, low=None, high=None, n=1)
    """
    from scipy.special import stdtrit  # quantile of Student's t; late, so that the command line starts quickly

    n = len(values)
    if n == 0:
        raise ValueError("a mean over seeds needs one value at least")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def prediction_interval(values: Sequence[float], confidence: float, log: bool = False) -> tuple[float, float]:
    """Where one more run of the same kind lands: mean ± t(n-1) sd √(1 + 1/n), on the log scale if `log`.

    Two values are needed at least, and positive ones for the log scale (`ValueError`).
    """
    n = len(values)
    interval = (log_interval if log else student_interval)(values, confidence)
    if interval.low is None or interval.high is None:
        raise ValueError("a spread needs two values at least")
    centre, high = (math.log(interval.centre), math.log(interval.high)) if log else (interval.centre, interval.high)
    half = (high - centre) * math.sqrt(n + 1)  # of the mean: t sd / √n
    return (math.exp(centre - half), math.exp(centre + half)) if log else (centre - half, centre + half)


def log_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The same on the log scale: geometric mean and an interval around it that never leaves the positive numbers.

    For distances, whose spread grows with their size. Every value must be positive (`ValueError`).
    """
    if not all(value > 0 for value in values):
        raise ValueError(f"the log scale needs positive values, not {min(values)}")
    logs = student_interval([math.log(value) for value in values], confidence)
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    return Interval(math.exp(logs.centre), low, high, logs.n)


def share_interval(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of which `k` of `n` draws were (Wilson 1927, "Probable Inference").

    >>> "{:.3f} {:.3f}".format(*share_interval(0, 10))
    '0.000 0.278'
    """
    z, share = 1.96, k / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def pooled_stderr(stderrs: Sequence[float | None]) -> float | None:
    """Root mean square of standard errors. `None` where one is missing.

    All seeds are scored on the same test examples, so their errors are shared: more seeds do not shrink them.
    """
    known = [stderr for stderr in stderrs if stderr is not None]
    if not known or len(known) < len(stderrs):
        return None
    return math.sqrt(math.fsum(stderr**2 for stderr in known) / len(known))


def rank_ranges(intervals: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """The best and the worst place that each (low, high) can hold, the lowest first.

    Only intervals that do not overlap are told apart: ahead of one are those that end below it, behind it those that
    start above it. Overlap does not pass on: A may share a place with B, and B with C, while A and C share none.

    >>> rank_ranges([(1.0, 2.0), (1.5, 3.5), (3.0, 4.0)])
    [(1, 2), (1, 3), (2, 3)]
    """
    return [
        (1 + sum(other[1] < low for other in intervals), len(intervals) - sum(other[0] > high for other in intervals))
        for low, high in intervals
    ]


def improvement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The probability that one of `ours` is lower than one of `theirs`; ties count half (Agarwal and others 2021).

    The Mann-Whitney statistic over the number of pairs.

    >>> improvement([1.0, 2.0], [2.0, 3.0])
    0.875
    """
    pairs = [(x, y) for x in ours for y in theirs]
    if not pairs:
        raise ValueError("a probability of improvement needs one value of each at least")
    return sum(1.0 if x < y else 0.5 if x == y else 0.0 for x, y in pairs) / len(pairs)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (cost, quality) that no other is better than in both, by rising cost; lower is better.

    >>> pareto_front([(3.0, 1.0), (1.0, 2.0), (2.0, 2.5)])
    [(1.0, 2.0), (3.0, 1.0)]
    """
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points):
        if not front or quality < front[-1][1]:
            front.append((cost, quality))
    return front
