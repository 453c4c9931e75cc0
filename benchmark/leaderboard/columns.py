"""What boards show: which score stands in which column, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmark.leaderboard.statistics import Interval, log_interval, student_interval
from benchmark.record import Record
from benchmark.spec import Score

MARKS = {"exact": "", "bound": "≤ ", "approximate": "≈ "}


@dataclass(frozen=True)
class Column:
    """One metric on a board. `score` takes it from a record, `None` where the record does not speak of it."""

    metric: str
    title: str
    digits: int
    score: Callable[[Record], Score | None]
    log: bool = False  # interval on the log scale

    def interval(self, values: Sequence[float]) -> Interval:
        """Over seeds; on the log scale where the column says so and every value is positive."""
        return log_interval(values) if self.log and min(values) > 0 else student_interval(values)

    def text(self, interval: Interval) -> str:
        """`1.894 ± 0.012`, on the log scale `1.56 [1.40, 1.75]`, with one seed `1.894`."""
        if interval.low is None or interval.high is None:
            return number(interval.centre, self.digits)
        half = (interval.high - interval.low) / 2
        digits = digits_that_show(half, self.digits)
        if self.log:
            low, high = number(interval.low, digits), number(interval.high, digits)
            return f"{number(interval.centre, digits)} [{low}, {high}]"
        return f"{number(interval.centre, digits)} ± {number(half, digits)}"


def _column(metric: str, title: str, digits: int, log: bool = False) -> Column:
    return Column(metric, title, digits, lambda record: record.scores.get(metric), log)


def _bound_in_bits(record: Record) -> Score | None:
    """The importance-weighted bound as bits per dimension; one dimension is the ratio of nats to bits."""
    bound, nats, bits = (record.scores.get(name) for name in ("importance_bound", "nll", "bits_per_dim"))
    if bound is None or bound.value is None or not nats or not bits or not nats.value or not bits.value:
        return bound
    nats_per_bit = nats.value / bits.value  # dims · ln 2
    stderr = None if bound.stderr is None else bound.stderr / nats_per_bit
    return replace(bound, unit=bits.unit, value=-bound.value / nats_per_bit, stderr=stderr)


#: The likelihood that sorts a board, and what stands beside it.
LIKELIHOOD = {"image": _column("bits_per_dim", "bits/dim", 3), "text": _column("nats_per_token", "nats/token", 3)}
BESIDE = {
    "image": (
        _column("nll", "nats/example", 2),
        Column("importance_bound", "importance bound, bits/dim", 3, _bound_in_bits),
    ),
    "text": (_column("bits_per_char", "bits/char", 3), _column("perplexity", "perplexity", 3)),
}
#: Scores of samples: the first sorts.
SAMPLES = (
    _column("fid", "FID", 2, log=True),
    _column("kid", "KID", 4),
    _column("inception_score", "inception score", 2),
    _column("precision", "precision", 3),
    _column("recall", "recall", 3),
)
#: The same samples in a second table, in the order of the first.
MORE_ON_SAMPLES = (
    _column("fid_infinity", "FID∞", 2),
    _column("density", "density", 3),
    _column("coverage", "coverage", 3),
    _column("class_histogram", "class shares", 3),
    _column("nearest_neighbour_ratio", "nearest neighbour ratio", 3),
    _column("near_copies", "near copies", 3),
    _column("copies", "copies", 3),
    _column("downstream_accuracy", "accuracy from samples", 3),
    _column("augmented_accuracy", "from real + samples", 3),
    _column("interpolation_ratio", "interpolation ratio", 2),
)
#: And what else a model with a likelihood may do, in the order of the likelihood.
MORE_ON_LIKELIHOOD = (
    _column("anomaly_auroc", "anomaly AUROC", 3),
    _column("anomaly_auroc_corrected", "the same, less complexity", 3),
    _column("psnr", "PSNR, dB", 2),
    _column("ssim", "SSIM", 3),
)
COST = (
    _column("parameters", "parameters", 0),
    _column("cpu_minutes", "CPU minutes", 2),
    _column("examples_per_second", "examples/s", 0),
    _column("sampling_seconds", "s per 1,000 samples", 2),
)


def modality(record: Record) -> str:
    return str(record.config["data"]["modality"])


def value_of(score: Score | None) -> float | None:
    return None if score is None else score.value


def mark(how: Mapping[str, Any]) -> str:
    """`≤` before a bound, `≈` before an approximation, nothing before an exact number."""
    return MARKS[how.get("likelihood", "exact")]


def single(score: Score | None, digits: int) -> str:
    """One score by itself: `≤ 2.008`, or a dash."""
    value = value_of(score)
    return "—" if score is None or value is None else mark(score.protocol.get("how", {})) + number(value, digits)


def number(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def digits_that_show(error: float | None, least: int) -> int:
    """Decimals at which a positive error does not round to zero, at least `least`."""
    if error is None or error < 1e-9:  # rounding noise
        return least
    return max(least, math.ceil(-math.log10(error)))


def error_text(stderr: float | None, digits: int) -> str:
    return "—" if stderr is None else number(stderr, digits_that_show(stderr, digits))


def quantity(value: float) -> str:
    """Three significant digits: `259k`, `12.3`, `0.095`."""
    value = float(f"{value:.3g}")
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
