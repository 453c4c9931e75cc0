"""Two models or two runs beside each other: paired by test example, paired by training seed, over all pairs of runs.

Every difference is A less B. Pairing by example says how sure one is of these trained models on other examples; pairing
by seed, of these methods under other seeds. Seeds differ in what they draw, so a seed in common pairs little more than
the order of the data; it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark import facts
from benchmark.leaderboard.columns import (
    Column,
    column,
    columns,
    digits_that_show,
    mark,
    number,
    value_of,
)
from benchmark.leaderboard.rows import Current, Judge, Run, select
from benchmark.leaderboard.statistics import Interval, improvement, student_interval
from benchmark.leaderboard.texts import ended
from benchmark.record import Record, read_record
from benchmark.spec import BadInput, unknown
from benchmark.tables import Head, Table, entries

EXAMPLES = 20  # fewer have no interval over examples
STREAM = "token_log_prob"  # the array beside a record that is of tokens
BLOCK = 1_000  # neighbouring tokens, which are not independent, that count as one example
_BETTER = {"lower": "lower is better", "higher": "higher is better", "neither": "neither high nor low is better"}


class NotComparable(Exception):
    """The two numbers do not stand under one protocol; the message says where they differ."""


@dataclass(frozen=True)
class Paired:
    """Differences A − B of things that belong together, and the share of them where A is better."""

    difference: Interval
    better: float


@dataclass(frozen=True)
class Side:
    """What is compared: the runs of one model, a seed each."""

    name: str
    runs: tuple[Run, ...]

    def values(self, column: Column) -> list[float]:
        found = [value_of(column.score(run.record)) for run in self.runs]
        return [value for value in found if value is not None]


@dataclass(frozen=True)
class Comparison:
    """A against B in one metric. Parts are `None` where the records do not hold what they need."""

    column: Column
    a: Side
    b: Side
    by_example: Paired | None
    by_seed: Paired | None
    improvement: float  # probability that a run of A beats a run of B; where neither is better, that it is lower


def side(name: str, records: dict[Path, Record], current: Current, data: str | None, budget: str) -> Side:
    """The runs that `name` stands for: a record or a run's folder, or a model's row on the board of `data`."""
    if Path(name).exists():
        record = read_record(Path(name))
        path = Path(name) / "record.json" if Path(name).is_dir() else Path(name)
        return Side(f"{record.model} ({record.config_hash[:8]}, seed {record.seed['init']})", (Run(path, record),))
    if data is None:
        raise BadInput(
            f"{name!r} is neither a file nor a folder; if it is a model, say on which data, as in --data digits"
        )
    if data not in (known := {record.data for record in records.values()}):
        raise unknown("data with records", data, known)
    if budget not in (known := {record.budget for record in records.values() if record.data == data}):
        raise unknown(f"budget with records on {data}", budget, known)
    here = {path: record for path, record in records.items() if (record.data, record.budget) == (data, budget)}
    rows, _ = select(here, current)
    by_model = {row.runs[0].record.model: row for row in rows}
    if name not in by_model:
        raise unknown(f"model with records on {data}, budget {budget}", name, by_model)
    row = by_model[name]
    if not row.scored:
        why = "reports what cannot be" if row.impossible else "has no run that finished"
        raise NotComparable(f"{name} on {data}, budget {budget}, {why}")
    return Side(name, row.scored)


def compare(a: Side, b: Side, metric: str | None = None, problems: list[str] | None = None) -> Comparison:
    """Compare in `metric`; by default in the likelihood of the data, or where one side has none in the first score of
    samples. Raises `NotComparable` where protocol, version or data differ.

    Likelihoods of single examples that cannot be read are left out and named in `problems`, or raised as `BadInput`
    where none are given.
    """
    column = _column(a, b, metric)
    _check(a, b, column)
    ours, theirs = ([column.sign * value for value in side.values(column)] for side in (a, b))
    wins = improvement(ours, theirs)  # counts who is lower
    return Comparison(column, a, b, _by_example(a, b, column, problems), _by_seed(a, b, column), wins)


def _column(a: Side, b: Side, metric: str | None) -> Column:
    shown, other = (columns(side.runs[0].record) for side in (a, b))
    if shown.kind != other.kind:
        raise NotComparable(f"{a.name} is a model of {shown.kind.title}, {b.name} of {other.kind.title}")
    wanted: Sequence[Column] = (shown.likelihood, *shown.samples, *shown.more_on_samples, *shown.beside)
    if metric is not None:
        named = {name: column(name) for name in facts.metrics_of(shown.kind)}
        named |= {one.metric: one for one in wanted}
        if metric not in named:
            raise unknown("metric", metric, named)
        wanted = [named[metric]]
    for one in wanted:
        if a.values(one) and b.values(one):
            return one
    raise NotComparable(f"{a.name} and {b.name} have no score in common: {', '.join(c.metric for c in wanted)}")


def _check(a: Side, b: Side, column: Column) -> None:
    """Refuse what a board would not put in one ranking."""
    for side in (a, b):
        if (why := next((run.impossible for run in side.runs if run.impossible), None)) is not None:
            raise NotComparable(f"{side.name} reports what cannot be: {why}")
    runs = [run for side in (a, b) for run in side.runs if value_of(column.score(run.record)) is not None]
    judge = Judge([run.record for run in runs])
    found: list[dict[str, object]] = []
    for run in runs:
        score = column.score(run.record)
        assert score is not None
        version = {"version": score.version, "fingerprint of the data": run.fingerprint, "data": run.record.data}
        found.append(judge.protocol(run, score) | version)
    for other in found[1:]:
        for name in sorted({*found[0], *other}):
            if found[0].get(name) != other.get(name):
                one, two = (str(conditions.get(name, "none")) for conditions in (found[0], other))
                raise NotComparable(f"{column.metric} stands under two protocols: {name} is {one} and {two}")


# Pairs ---------------------------------------------------------------------------------------------------------------


def _by_example(a: Side, b: Side, column: Column, problems: list[str] | None) -> Paired | None:
    try:
        terms = example_terms(a, column), example_terms(b, column)
    except BadInput as error:
        if problems is None:
            raise
        problems.append(str(error))
        return None
    if terms[0] is None or terms[1] is None or len(terms[0]) != len(terms[1]) or len(terms[0]) < EXAMPLES:
        return None
    return _paired(terms[0] - terms[1], column)


def example_terms(side: Side, column: Column) -> np.ndarray | None:
    """What each example contributes to the score, mean over seeds, in the unit of the score; tokens by blocks.

    `None` where a run keeps no such numbers. Raises `BadInput` where they cannot be read.
    """
    terms = []
    for run in side.runs:
        score, log_prob = value_of(column.score(run.record)), _log_prob(run, column.metric)
        if score is None or log_prob is None:
            return None
        terms.append(log_prob * (score / log_prob.mean()))  # nats are negative, and scores are in some unit
    if len({len(term) for term in terms}) != 1:
        return None
    mean: np.ndarray = np.mean(terms, axis=0)
    if STREAM in side.runs[0].likelihoods:
        return np.array([block.mean() for block in np.array_split(mean, max(1, len(mean) // BLOCK))])
    return mean


def _log_prob(run: Run, metric: str) -> np.ndarray | None:
    """Log-likelihoods `[N]` in nats that lie beside a record."""
    known = facts.metrics()
    terms = known[metric].terms if metric in known else ()
    arrays = run.likelihoods if terms else {}
    name = next((name for name in terms if name in arrays), None)
    return None if name is None else arrays[name].astype(np.float64)


def _by_seed(a: Side, b: Side, column: Column) -> Paired | None:
    scores = [{run.seed: value_of(column.score(run.record)) for run in side.runs} for side in (a, b)]
    pairs = [(scores[0][seed], scores[1][seed]) for seed in sorted({*scores[0]} & {*scores[1]})]
    differences = [one - two for one, two in pairs if one is not None and two is not None]
    if not differences:
        return None
    return _paired(np.array(differences), column)


def _paired(differences: np.ndarray, column: Column) -> Paired:
    return Paired(student_interval(differences.tolist()), share_better(differences, column))


def share_better(differences: np.ndarray, column: Column) -> float:
    """The share of differences A − B in which A is better; ties count half."""
    gains = -column.sign * differences
    return float((gains > 0).mean() + (gains == 0).mean() / 2)


# The table -----------------------------------------------------------------------------------------------------------


def comparison_table(found: Comparison) -> Table:
    """One table: both sides, and each way to pair them."""
    column, record = found.column, found.a.runs[0].record
    neither = column.fact.better == "neither"
    heads = [Head("", least=16), Head("n", number=True, rank=2), Head(column.title, number=True)]
    heads += [Head("95 % interval", number=True, rank=3)]
    heads += [Head("A lower" if neither else "A better", number=True, rank=1)]
    title = f"{column.title} on {record.data}, {_BETTER[column.fact.better]}"
    lines: list[list[str]] = []
    for letter, side in (("A", found.a), ("B", found.b)):
        interval = column.interval(side.values(column))
        score = column.score(side.runs[0].record)
        sign = mark(score.protocol.get("how", {})) if score else ""
        lines.append([f"{letter}: {side.name}", f"{interval.n} runs", *_cells(interval, column, sign), ""])
    unit, _ = columns(record).kind.unit
    for how, paired in ((f"A − B by {unit}", found.by_example), ("A − B by seed", found.by_seed)):
        if paired is not None:
            n = str(paired.difference.n)
            lines.append([how, n, *_cells(paired.difference, column), f"{paired.better:.0%}"])
    pairs = f"{len(found.a.values(column))} × {len(found.b.values(column))}"
    chance = "probability of being lower" if neither else "probability of improvement"
    lines.append([chance, pairs, "", "", f"{found.improvement:.0%}"])
    return Table(title, heads, [entries(line) for line in lines], notes=_remarks(found))


def _cells(interval: Interval, column: Column, sign: str = "") -> list[str]:
    if interval.low is None or interval.high is None:
        return [sign + number(interval.centre, column.digits), "—"]
    digits = digits_that_show((interval.high - interval.low) / 2, column.digits)
    low, high = number(interval.low, digits), number(interval.high, digits)
    return [sign + number(interval.centre, digits), f"[{low}, {high}]"]


def _remarks(found: Comparison) -> Sequence[str]:
    lines = [
        f"{letter} {run.record.model}, seed {run.record.seed['init']}: {ended(run.record)}"
        for letter, side in (("A", found.a), ("B", found.b))
        for run in side.runs
        if run.record.status != "finished"
    ]
    if found.by_example is None:
        lines.append("no pairs of examples: the metric is not a mean over examples, or a record has none beside it")
    for letter, side in (("A", found.a), ("B", found.b)):
        score = found.column.score(side.runs[0].record)
        if score is not None and mark(score.protocol.get("how", {})) == "≤ ":
            lines.append(f"{letter}'s number is a bound: its likelihood may be better")
    budgets = {run.budget for side in (found.a, found.b) for run in side.runs}
    if len(budgets) > 1:
        lines.append("budgets differ: " + " and ".join(sorted(budgets)))
    return lines
