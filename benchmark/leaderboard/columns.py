"""What boards show: which score stands in which column, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmark import facts
from benchmark.facts import COSTS, DERIVED, Fact, ModalityFact
from benchmark.leaderboard.statistics import Interval, log_interval, student_interval
from benchmark.record import Record, training_flops
from benchmark.spec import Score

MARKS = {"exact": "", "bound": "≤ ", "approximate": "≈ "}


@dataclass(frozen=True)
class Column:
    """One number on a board. `score` takes it from a record, `None` where the record does not speak of it."""

    metric: str  # by which records call it
    fact: Fact
    score: Callable[[Record], Score | None] = field(compare=False)

    @property
    def title(self) -> str:
        return self.fact.title

    @property
    def digits(self) -> int:
        return self.fact.digits

    @property
    def log(self) -> bool:
        return self.fact.log

    @property
    def sign(self) -> float:
        """Times which values are the lower, the better."""
        return -1.0 if self.fact.better == "higher" else 1.0

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


def column(name: str) -> Column:
    """The column of a metric or a cost as records hold it, or of what boards compute from one."""
    if name in _COMPUTED:
        metric, score = _COMPUTED[name]
        return Column(metric, DERIVED[name], score)
    return Column(name, COSTS.get(name) or facts.metrics()[name], lambda record: record.scores.get(name))


def _bound_in_bits(record: Record) -> Score | None:
    """The importance-weighted bound as bits per dimension; one dimension is the ratio of nats to bits."""
    bound, nats, bits = (record.scores.get(name) for name in ("importance_bound", "nll", "bits_per_dim"))
    if bound is None or bound.value is None:
        return bound
    if not nats or not bits or not nats.value or not bits.value:
        return None
    nats_per_bit = nats.value / bits.value  # dims · ln 2
    stderr = None if bound.stderr is None else bound.stderr / nats_per_bit
    return replace(bound, unit=bits.unit, value=-bound.value / nats_per_bit, stderr=stderr)


def _training_flops(record: Record) -> Score | None:
    """Forward and backward passes over all examples that training saw, those of its stages included."""
    each = record.scores.get("flops_per_example")
    if each is None or each.value is None:
        return each
    flops = training_flops(record)
    return None if flops is None else replace(each, unit=DERIVED["training_flops"].unit, value=flops)


def _evaluations_per_sample(record: Record) -> Score | None:
    """How often the network is asked for one sample."""
    thousand = record.scores.get("sampling_evaluations")
    if thousand is None or thousand.value is None:
        return thousand
    return replace(thousand, unit=DERIVED["evaluations_per_sample"].unit, value=thousand.value / 1000)


#: What boards compute: from which score of a record, and how.
_COMPUTED: Mapping[str, tuple[str, Callable[[Record], Score | None]]] = {
    "importance_bits": ("importance_bound", _bound_in_bits),
    "training_flops": ("flops_per_example", _training_flops),
    "evaluations_per_sample": ("sampling_evaluations", _evaluations_per_sample),
}


@dataclass(frozen=True)
class Columns:
    """What boards of a modality show. The likelihood sorts a board; the first of `samples`, if there are any, another.

    `more` are further columns of either, in the order of tables.
    """

    kind: ModalityFact
    likelihood: Column
    beside: tuple[Column, ...]
    more_on_likelihood: tuple[Column, ...]
    samples: tuple[Column, ...]
    more_on_samples: tuple[Column, ...]
    within: Mapping[str, Mapping[float, Column]]  # of samples by at most so many evaluations, by metric and number
    truncated: Mapping[str, Mapping[float, Column]]  # of truncated samples, by metric and factor

    @property
    def leading(self) -> tuple[Column, ...]:
        """Those that rank."""
        return (self.likelihood, *self.samples[:1])

    @property
    def everything(self) -> tuple[Column, ...]:
        """All of them, those that rank first within their kind."""
        first = (self.likelihood, *self.beside, *self.more_on_likelihood)
        varied = (column for over in (*self.within.values(), *self.truncated.values()) for column in over.values())
        return (*first, *self.samples, *self.more_on_samples, *varied)


def columns_of(kind: ModalityFact) -> Columns:
    """The columns that the modality's file names, and a further one for each other metric of its data."""
    likelihood, *beside = map(column, kind.likelihood)
    samples = tuple(map(column, kind.samples))
    shown = {one.metric for one in (likelihood, *beside, *samples)}
    others = [fact for name, fact in facts.metrics_of(kind).items() if fact.shown and name not in shown]
    further = [fact for fact in others if fact.within is None and fact.truncation is None]
    within: dict[str, dict[float, Column]] = {}
    truncated: dict[str, dict[float, Column]] = {}
    for fact in others:  # in their order, which is that of numbers and factors
        if fact.within is not None:
            within.setdefault(fact.within.of, {})[float(fact.within.evaluations)] = column(fact.name)
        if fact.truncation is not None:
            truncated.setdefault(fact.truncation.of, {})[fact.truncation.factor] = column(fact.name)
    more = {of: tuple(column(fact.name) for fact in further if fact.of == of) for of in ("likelihood", "samples")}
    return Columns(
        kind,
        likelihood,
        tuple(beside),
        more["likelihood"],
        samples,
        more["samples"],
        within,
        truncated,
    )


def columns(record: Record) -> Columns:
    """The columns of boards on a record's data."""
    return columns_of(facts.modality(str(record.config["data"]["modality"])))


#: What a row costs on any machine.
COST = (
    column("parameters"),
    column("training_flops"),
    column("evaluations_per_sample"),
)
#: What it costs on one machine: compared only between records of the same hardware.
COST_OF_MACHINE = tuple(map(column, ("cpu_minutes", "examples_per_second", "sampling_seconds")))


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
    """A number with so many decimals, thousands apart, and no minus before zero.

    >>> number(1234.5678, 2), number(-0.001, 2)
    ('1,234.57', '0.00')
    """
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def digits_that_show(error: float | None, least: int) -> int:
    """Decimals at which a positive error does not round to zero, at least `least`.

    >>> digits_that_show(0.0004, least=2)
    4
    """
    if error is None or error < 1e-9:  # rounding noise
        return least
    return max(least, math.ceil(-math.log10(error)))


def error_text(stderr: float | None, digits: int) -> str:
    return "—" if stderr is None else number(stderr, digits_that_show(stderr, digits))


def quantity(value: float) -> str:
    """Three significant digits.

    >>> quantity(258_900), quantity(12.345), quantity(0.095)
    ('259k', '12.3', '0.095')
    """
    value = float(f"{value:.3g}")
    for size, suffix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
