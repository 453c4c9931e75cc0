"""Boards to advice: what to take for likelihoods, for samples, for little time, and for what else a model may do.

Prose says what holds of the question; every name and number comes from records and class headers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.leaderboard.columns import COST, LIKELIHOOD, SAMPLES, Column, modality, quantity
from benchmark.leaderboard.markdown import bullets, escape, page, table
from benchmark.leaderboard.rows import Current, Judge, Ranking, Row, select
from benchmark.leaderboard.rows import Entry as Ranked
from benchmark.leaderboard.site.tables import Entry, Head, Table
from benchmark.leaderboard.statistics import pareto_front
from benchmark.leaderboard.texts import cell_text, marked, words
from benchmark.record import Record
from benchmark.sweep.sensitivity import learning_rates
from benchmark.sweep.stability import rates
from benchmark.sweep.studies import Study, by_model

_GENERATED = "<!-- Generated from records by `python -m benchmark leaderboard`: never edited by hand. -->"
LEAD = (
    "What the boards say to somebody who has to choose, on each dataset under its largest budget. Ranks are shared "
    "where intervals overlap: a shared first place is no reason to prefer one, so let cost or promises decide. All of "
    "it is measured on small data with little training; who wins elsewhere may differ, and the same command tells."
)
_COSTS = {"cpu_minutes": "CPU minutes of training", "sampling_seconds": "seconds per 1,000 samples"}

#: What one may need of a model, and the promises that give it.
_NEEDS = {
    "the likelihood itself": ("Likelihood", "TokenLikelihood", "Stateful"),
    "a bound on the likelihood": ("LikelihoodBound", "ImportanceBound", "SolvesLikelihood"),
    "encode an example and give it back": ("Reconstructs",),
    "samples of a given class": ("Conditional",),
    "walks between samples": ("Interpolates",),
    "samples and nothing else": (),
}


@dataclass(frozen=True)
class Advice:
    """One question: what to know about it, what the records answer, and the numbers."""

    title: str
    text: str
    facts: Sequence[str]
    table: Table | None


def advice(
    records: Mapping[Path, Record],
    models: Sequence[Mapping[str, Any]],
    current: Current | None = None,
    studies: Sequence[Study] = (),
) -> list[Advice]:
    """The questions in order; `models` are the catalogue's entries. Data whose entropy is known judges metrics, and is
    left out."""
    real = {path: record for path, record in records.items() if "entropy" not in record.dataset}
    rows, _ = select(real, current)
    judge = Judge(records.values())
    likelihoods = list(_rankings(judge, rows, lambda kind: LIKELIHOOD[kind]))
    samples = list(_rankings(judge, rows, lambda kind: SAMPLES[0] if kind == "image" else None))
    return [
        Advice(
            "How likely is an example?",
            "For compression, comparison of models, and finding what does not belong. An exact number is the "
            "likelihood itself; a bound (≤) may belong to a model that is better than it says.",
            [fact for data, ranking in likelihoods for fact in _facts(judge, data, ranking)],
            _table(judge, "Likelihoods", likelihoods, ()),
        ),
        Advice(
            "Draw samples that look real",
            "The Fréchet distance sees quality and variety at once, in units of its dataset's extractor; precision is "
            "the share of samples that could be real, recall the share of real data that samples could reach. What "
            "counts beside it is how long 1,000 samples take.",
            [fact for data, ranking in samples for fact in _facts(judge, data, ranking)],
            _table(
                judge, "Samples", samples, [column for column in SAMPLES if column.metric in ("precision", "recall")]
            ),
        ),
        Advice(
            "More than numbers",
            "What a class promises in its header, and the tests examine.",
            [],
            _promises(models),
        ),
        *_robustness(studies),
    ]


def choosing_page(parts: Sequence[Advice]) -> str:
    """The advice as Markdown."""
    sections = []
    for part in parts:
        sections += [f"## {escape(part.title)}", escape(part.text), bullets([escape(fact) for fact in part.facts])]
        if part.table is not None:
            rows = [[escape(entry.text) for entry in row] for row in part.table.rows]
            left = sum(not head.number for head in part.table.heads)
            sections.append(table([head.title for head in part.table.heads], rows, left))
    return page(["# Choosing a family", _GENERATED, LEAD, *sections])


def _rankings(judge: Judge, rows: Sequence[Row], quality: Any) -> Iterator[tuple[str, Ranking]]:
    """Those of each dataset under its largest budget, one a protocol."""
    for data in sorted({row.runs[0].record.data for row in rows}):
        here = [row for row in rows if row.runs[0].record.data == data]
        column = quality(modality(here[0].runs[0].record))
        budget = max(row.budget for row in here)
        rankings = judge.rankings([row for row in here if row.budget == budget], column) if column else []
        yield from ((data, ranking) for ranking in rankings)


def _facts(judge: Judge, data: str, ranking: Ranking) -> Iterator[str]:
    """Who is first, and who is not beaten in quality and cost at once; nothing of a row that stands alone."""
    if len(ranking.entries) < 2:
        return
    first = [entry for entry in ranking.entries if entry.rank == 1]
    names = ", ".join(f"{entry.row.name} ({cell_text(entry.cell, ranking.column)})" for entry in first)
    shared = "a first place that intervals do not settle" if len(first) > 1 else "first"
    yield f"{data}, {ranking.column.title}: {shared}: {names}"
    for metric, title in _COSTS.items():
        column = next(column for column in COST if column.metric == metric)
        costs = {_point(entry, cost): entry for entry in ranking.entries if (cost := _cost(judge, entry, column))}
        front = [costs[point] for point in pareto_front(list(costs))]
        if front:
            shown = ", ".join(f"{e.row.name} ({quantity(_cost(judge, e, column) or 0)})" for e in front)
            yield f"{data}: nothing beats these in both {ranking.column.title} and {title}: {shown}"


def _point(entry: Ranked, cost: float) -> tuple[float, float]:
    return cost, entry.cell.interval.centre


def _cost(judge: Judge, entry: Ranked, column: Column) -> float | None:
    cell = judge.cell(entry.runs, column)
    return None if cell is None else cell.interval.centre


def _table(judge: Judge, caption: str, found: Sequence[tuple[str, Ranking]], beside: Sequence[Column]) -> Table | None:
    several = len({data for data, _ in found}) < len(found)  # ranks hold within one protocol, so it must be said
    lines = [
        [
            Entry(marked(entry.row), head=True),
            Entry(entry.row.family),
            Entry(data),
            *([Entry(words(ranking.protocol))] if several else []),
            Entry(cell_text(entry.cell, ranking.column), entry.cell.interval.centre),
            Entry(entry.place, entry.rank + entry.last / 1000),
            *(Entry(cell_text(judge.cell(entry.runs, column), column)) for column in beside),
            *(_quantity(_cost(judge, entry, column)) for column in COST if column.metric in _COSTS),
        ]
        for data, ranking in found
        for entry in ranking.entries
    ]
    titles = ("value", "rank", *(column.title for column in beside))
    titles += tuple(column.title for column in COST if column.metric in _COSTS)
    heads = [Head("model"), Head("family", filter=True), Head("data", filter=True)]
    heads += [Head("protocol", filter=True, wide=True)] if several else []
    heads += [Head(title, number=True) for title in titles]
    return Table(caption, heads, lines, titled=False) if lines else None


def _quantity(value: float | None) -> Entry:
    return Entry("—") if value is None else Entry(quantity(value), value)


def _promises(models: Sequence[Mapping[str, Any]]) -> Table:
    lines = []
    for need, promises in _NEEDS.items():
        able = [
            str(model["name"])
            for model in models
            if (set(model["capabilities"]) & set(promises) if promises else _only_samples(model["capabilities"]))
        ]
        lines.append([Entry(need, head=True), Entry(", ".join(able) or "none yet")])
    return Table("What models promise", [Head("need"), Head("models", wide=True)], lines, titled=False)


def _only_samples(capabilities: Sequence[str]) -> bool:
    likelihoods = {promise for need, promises in _NEEDS.items() if "likelihood" in need for promise in promises}
    return not likelihoods & set(capabilities)


def _robustness(studies: Sequence[Study]) -> Iterator[Advice]:
    """Who forgives settings that were not tuned; nothing where no study was made."""
    lines = []
    for of in by_model(studies):
        window = learning_rates(of.rates) if of.rates is not None else None
        if of.search is None and window is None:
            continue
        unstable = None if of.search is None else rates(of.search.proposed).unstable
        lines.append(
            [
                Entry(of.model, head=True),
                Entry(of.family),
                Entry(of.data),
                Entry("—") if unstable is None else Entry(f"{unstable:.0%}", unstable),
                Entry("—") if window is None else Entry(f"{window.decades:.1f}", window.decades),
            ]
        )
    if lines:
        heads = [Head("model"), Head("family", filter=True), Head("data", filter=True)]
        heads += [Head("unstable over the space", number=True), Head("decades of good learning rates", number=True)]
        yield Advice(
            "No time to tune",
            "How often a setting drawn from the search space diverged or was worse than no training, and over how many "
            "decades the learning rate may be wrong at little loss.",
            [],
            Table("Robustness", heads, lines, titled=False),
        )
