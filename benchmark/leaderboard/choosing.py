"""Boards to advice: what to take for likelihoods, samples, speed, codes, text, and where there is no time to tune.

Prose says what holds of the question; every name and number comes from records and class headers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmark import facts
from benchmark.facts import Question
from benchmark.leaderboard.columns import (
    COST,
    COST_OF_MACHINE,
    Column,
    quantity,
)
from benchmark.leaderboard.dataset import Dataset, Group
from benchmark.leaderboard.rows import Entry as Ranked
from benchmark.leaderboard.rows import Judge, Ranking
from benchmark.leaderboard.sensitivity import decades
from benchmark.leaderboard.stability import MOST, Stability, as_robust, percents
from benchmark.leaderboard.statistics import pareto_front
from benchmark.leaderboard.texts import by_machine, cell_text, listed, marked, words
from benchmark.tables import Entry, Head, Table

_, _FLOPS, _EVALUATIONS = COST
_COSTS = (_FLOPS, _EVALUATIONS)
_SECONDS = next(column for column in COST_OF_MACHINE if column.metric == "sampling_seconds")
_UNTIMED: Sequence[tuple[str, float | None]] = [("—", None)]
_OF_CODES = ("psnr", "ssim", "interpolation_ratio")

#: What one may need of a model, and the promises that give it.
_NEEDS = {
    "the likelihood itself": ("Likelihood", "TokenLikelihood", "Stateful"),
    "a bound on the likelihood": ("LikelihoodBound", "ImportanceBound", "SolvesLikelihood", "StepwiseBound"),
    "the likelihood of a reply": ("ConditionalTokenLikelihood",),
    "a pseudo-likelihood, token by token": ("PseudoLikelihood",),
    "encode an example and give it back": ("Reconstructs",),
    "samples under a given condition": ("Conditional",),
    "walks between samples": ("Interpolates",),
    "quicker samples for worse ones, after training": ("SamplesWithin",),
    "samples and nothing else": (),
}


@dataclass(frozen=True)
class Advice:
    """One question: the answer in a line, what to know about it, what the records say, and the numbers."""

    title: str
    text: str
    facts: Sequence[str] = ()
    table: Table | None = None
    short: str = ""


def advice(said: Sequence[Sequence[Advice]], models: Sequence[Mapping[str, Any]]) -> list[Advice]:
    """The answers in short, then the questions in order: from what each dataset says (`said_of`), and from `models`,
    the catalogue's entries."""
    by_question: dict[tuple[int, str], list[Advice]] = defaultdict(list)
    for answers in said:
        for order, part in enumerate(answers):
            if part.table is not None:
                by_question[order, part.title].append(part)
    questions = sorted(by_question, key=lambda question: question[0])  # of one order, as datasets ask them
    parts = [*(_joined(by_question[question]) for question in questions), _promises(models)]
    short = [f"{part.title}: {part.short}" for part in parts if part.short]
    return [Advice("In short", "", short), *parts] if short else parts


def said_of(dataset: Dataset, models: Sequence[Mapping[str, Any]]) -> list[Advice]:
    """What one dataset answers to each question, under its largest budget, without a table where it has no answer;
    nothing at all where its entropy is known: it judges metrics."""
    if dataset.known_entropy or not dataset.groups:
        return []
    group = dataset.groups[0]
    return [
        _likelihoods(dataset, group),
        _samples(dataset, group),
        _speed(dataset, group),
        _codes(dataset, group, models),
        _robustness(dataset),
    ]


def _joined(parts: Sequence[Advice]) -> Advice:
    """One answer from those of several datasets. A protocol is shown if one of them ranks under several."""
    first = parts[0]
    tables = [part.table for part in parts if part.table is not None]
    heads, rows = tables[0].heads, [row for table in tables for row in table.rows]
    protocol = next((index for index, head in enumerate(heads) if head.title == "protocol"), None)
    if protocol is not None:
        data = next(index for index, head in enumerate(heads) if head.title == "data")
        if len({row[protocol].text for row in rows}) == len({row[data].text for row in rows}):
            heads = [head for index, head in enumerate(heads) if index != protocol]
            rows = [[entry for index, entry in enumerate(row) if index != protocol] for row in rows]
    shorts = [part.short for part in parts if part.short]
    if len(set(shorts)) == 1:
        shorts = shorts[:1]
    facts = [fact for part in parts for fact in part.facts]
    return replace(first, facts=facts, table=replace(tables[0], heads=heads, rows=rows), short="; ".join(shorts))


# The questions -------------------------------------------------------------------------------------------------------


def _likelihoods(dataset: Dataset, group: Group) -> Advice:
    shown = group.columns
    asked = shown.kind.choosing.likelihood or Question(title=f"Likelihood of {shown.kind.title}", text="")
    found = dataset.rankings(group, shown.likelihood)
    return _advice(dataset, asked, f"Likelihoods of {shown.kind.title}", found, ())


def _samples(dataset: Dataset, group: Group) -> Advice:
    shown = group.columns
    asked = shown.kind.choosing.samples or Question(title=f"Samples of {shown.kind.title}", text="")
    beside = [column for column in shown.samples if column.metric in shown.kind.trials]
    return _advice(dataset, asked, f"Samples of {shown.kind.title}", _of_samples(dataset, group), beside)


def _of_samples(dataset: Dataset, group: Group) -> list[Ranking]:
    """By the first score of samples."""
    samples = group.columns.samples
    return dataset.rankings(group, samples[0]) if samples else []


def _advice(dataset: Dataset, asked: Question, name: str, found: Sequence[Ranking], beside: Sequence[Column]) -> Advice:
    lines = [fact for ranking in found for fact in _facts(dataset, ranking)]
    return Advice(asked.title, asked.text, lines, _table(dataset, name, found, beside), _winners(dataset.name, found))


def _speed(dataset: Dataset, group: Group) -> Advice:
    """Models by how often each asks its network for one sample, and by the time that this takes on some hardware."""
    judge, data, found = dataset.judge, dataset.name, _of_samples(dataset, group)
    lines: list[list[Entry]] = []
    facts, shorts = [], []
    for ranking in found:
        asked = {entry.row.name: _cost(judge, entry, _EVALUATIONS) for entry in ranking.entries}
        order = sorted(ranking.entries, key=lambda entry: (asked[entry.row.name] or math.inf, entry.row.name))
        timed = {
            hardware: {row.name: cell.interval.centre for row, runs in there if (cell := judge.cell(runs, _SECONDS))}
            for hardware, there in by_machine([entry.row for entry in order]).items()
        }
        for entry in order:
            name = entry.row.name
            times: list[tuple[str, float | None]] = [
                (hardware, seconds[name]) for hardware, seconds in timed.items() if name in seconds
            ]
            for hardware, seconds in times or _UNTIMED:
                lines.append(
                    [
                        Entry(marked(entry.row), head=True),
                        Entry(entry.row.family),
                        Entry(data),
                        Entry(hardware),
                        _quantity(asked[name]),
                        Entry(cell_text(entry.cell, ranking.column), entry.cell.interval.centre),
                        _quantity(seconds),
                    ]
                )
        for hardware, of in timed.items():
            if len(of) > 1:
                first = min(of, key=lambda name: (of[name], name))
                facts.append(
                    f"{data}, on {hardware}: {first} is the quickest ({quantity(of[first])} s per 1,000 samples)"
                )
        known = [(n, entry) for entry in order if (n := asked[entry.row.name]) is not None]
        if known:
            fewest = known[0][0]
            names = listed([entry.row.name for n, entry in known if n == fewest], "or")
            cost = f"{quantity(fewest)} network {'evaluation' if fewest == 1 else 'evaluations'} per sample"
            short = f"{names} on {data} ({cost})"
            best = next(((n, entry) for n, entry in known if entry.rank == 1), None)
            if best is not None and best[0] > fewest:
                short += f"; of those that are or share the first in {ranking.column.title}, {best[1].row.name} "
                short += f"({quantity(best[0])})"
            shorts.append(short)
    heads = [Head("model"), *(Head(title, filter=True) for title in ("family", "data", "hardware"))]
    quality = "" if not found else found[0].column.title
    heads += [Head(title, number=True) for title in (_EVALUATIONS.title, quality, _SECONDS.title)]
    return Advice(
        "Fast sampling",
        "What sets the time is how often the network is asked for one sample: once by a GAN, a VAE or a flow, once a "
        "pixel by an autoregressive model, once a step by diffusion and flow matching. Seconds depend on the machine "
        "too: compare them within one hardware.",
        facts,
        Table("Speed", heads, lines, titled=False) if lines else None,
        "; ".join(shorts),
    )


def _codes(dataset: Dataset, group: Group, models: Sequence[Mapping[str, Any]]) -> Advice:
    """Models that encode and decode or walk between samples, with how well they do."""
    judge, columns = dataset.judge, [one for one in group.columns.everything if one.metric in _OF_CODES]
    encode, walk = _able(models, "Reconstructs"), _able(models, "Interpolates")
    lines = []
    for row in group.rows:
        cells = [judge.cell(row.scored, column) for column in columns]
        record = row.runs[0].record
        if record.model in {*encode, *walk} and any(cells):
            does = "encodes and decodes" if record.model in encode else "walks between samples"
            numbers = [
                Entry("—") if cell is None else Entry(cell_text(cell, column), cell.interval.centre)
                for cell, column in zip(cells, columns, strict=True)
            ]
            lines.append([Entry(marked(row), head=True), Entry(row.family), Entry(record.data), Entry(does), *numbers])
    heads = [Head("model"), Head("family", filter=True), Head("data", filter=True), Head("can", filter=True)]
    heads += [Head(column.title, number=True) for column in columns]
    return Advice(
        "Latent codes",
        "A model that encodes gives each example a code, from which it is decoded again: PSNR and SSIM say how well. "
        "Others only walk between the latents of two samples; the interpolation ratio says how straight the walk is, "
        "as features of the images see it (1: no detour; lower is better).",
        (),
        Table("Codes", heads, lines, titled=False) if lines else None,
        f"{listed(encode, 'or')}, {'which encodes and decodes' if len(encode) == 1 else 'which encode and decode'}"
        if encode
        else "",
    )


def _robustness(dataset: Dataset) -> Advice:
    """Who forgives settings that were not tuned; no table where no study was made."""
    windows = {model.of.title: model.rates for model in dataset.sensitive}
    stable = [model for model in dataset.stable if model.of.search or windows.get(model.title)]
    lines: list[list[Entry]] = []
    judged: dict[tuple[str, str], list[Stability]] = defaultdict(list)
    for model in stable:
        window = windows.get(model.title)
        unstable = model.rates("space").unstable if model.of.search is not None else None
        lines.append(
            [
                Entry(model.of.model, head=True),
                Entry(model.of.family),
                Entry(model.of.data),
                Entry("—") if model.robust is None else Entry(f"{model.robust:.0%}", model.robust),
                Entry("—") if unstable is None else Entry(f"{unstable:.0%}", unstable),
                Entry("—") if window is None else Entry(decades(window), window.decades),
            ]
        )
        if model.robust is not None:
            judged[model.of.data, model.of.measure].append(model)
    heads = [Head("model"), Head("family", filter=True), Head("data", filter=True)]
    titles = ("settings that work", "unstable settings", "decades of good learning rates")
    heads += [Head(title, number=True) for title in titles]
    return Advice(
        "No time to tune",
        f"Settings were drawn from each model's search space without looking. Those work that learn {MOST:.0%} of what "
        "the best of them learns; unstable ones diverged, or ended worse than before training. The last column says "
        "over how many factors of ten the learning rate may be wrong at little loss.",
        (),
        Table("Robustness", heads, lines, titled=False) if lines else None,
        "; ".join(_most_robust(models) for models in judged.values()),
    )


def _most_robust(models: Sequence[Stability]) -> str:
    first = as_robust(models)
    names = listed([model.of.model for model in first], "or")
    of, whose = models[0].of, "its" if len(first) == 1 else "their"
    return f"{names} on {of.data}, judged by {of.measure} ({percents(first)} of {whose} settings work)"


def _promises(models: Sequence[Mapping[str, Any]]) -> Advice:
    lines = []
    for need, promises in _NEEDS.items():
        able = _able(models, *promises) if promises else [str(m["name"]) for m in models if _only_samples(m)]
        lines.append([Entry(need, head=True), Entry(", ".join(able) or "none yet")])
    heads = [Head("need"), Head("models", wide=True)]
    return Advice(
        "What else a model can do",
        "What a class promises in its header, and the tests examine.",
        (),
        Table("What models promise", heads, lines, titled=False),
    )


def _able(models: Sequence[Mapping[str, Any]], *promises: str) -> list[str]:
    """Models that promise one of these."""
    return [str(model["name"]) for model in models if set(model["capabilities"]) & set(promises)]


def _only_samples(model: Mapping[str, Any]) -> bool:
    likelihoods = {promise for need, promises in _NEEDS.items() if "likelihood" in need for promise in promises}
    return not likelihoods & set(model["capabilities"])


# Rankings, in words and as a table -----------------------------------------------------------------------------------


def _winners(data: str, rankings: Sequence[Ranking]) -> str:
    """`a or b, in bits/dim on digits`: who is first, or may be."""
    if not rankings:
        return ""
    names = [f"{e.row.name} ({cell_text(e.cell, r.column)})" for r in rankings for e in r.entries if e.rank == 1]
    apart = ", not ranked against each other" if len(rankings) > 1 else ""
    return f"{listed(names, 'or')}, in {rankings[0].column.title} on {data}{apart}"


def _facts(dataset: Dataset, ranking: Ranking) -> Iterator[str]:
    """Who is first, and who is not beaten in quality and cost at once; nothing of a row that stands alone."""
    if len(ranking.entries) < 2:
        return
    judge, data = dataset.judge, dataset.name
    first = [entry for entry in ranking.entries if entry.rank == 1]
    names = listed([f"{entry.row.name} ({cell_text(entry.cell, ranking.column)})" for entry in first])
    place = "share the first place, since their intervals overlap" if len(first) > 1 else "is first"
    yield f"{data}: {names} {place} in {ranking.column.title}"
    for column in _COSTS if _judges_samples(ranking.column) else (_FLOPS,):
        costs = {_point(entry, cost): entry for entry in ranking.entries if (cost := _cost(judge, entry, column))}
        front = [costs[point] for point in pareto_front(list(costs))]
        if front:
            shown = listed([f"{e.row.name} ({quantity(_cost(judge, e, column) or 0)})" for e in front], "or")
            yield f"{data}: no model beats {shown} in both {ranking.column.title} and {column.fact.about}"


def _point(entry: Ranked, cost: float) -> tuple[float, float]:
    return cost, entry.cell.interval.centre


def _judges_samples(column: Column) -> bool:
    known = facts.metrics()
    return column.metric in known and known[column.metric].of == "samples"


def _cost(judge: Judge, entry: Ranked, column: Column) -> float | None:
    cell = judge.cell(entry.runs, column)
    return None if cell is None else cell.interval.centre


def _table(dataset: Dataset, caption: str, found: Sequence[Ranking], beside: Sequence[Column]) -> Table | None:
    judge = dataset.judge
    lines = [
        [
            Entry(marked(entry.row), head=True),
            Entry(entry.row.family),
            Entry(dataset.name),
            Entry(words(ranking.protocol)),  # ranks hold within it
            Entry(cell_text(entry.cell, ranking.column), entry.cell.interval.centre),
            Entry(entry.place, entry.rank + entry.last / 1000),
            *(Entry(cell_text(judge.cell(entry.runs, column), column)) for column in beside),
            *(_quantity(_cost(judge, entry, column)) for column in _COSTS),
        ]
        for ranking in found
        for entry in ranking.entries
    ]
    titles = ("value", "rank", *(column.title for column in beside))
    titles += tuple(column.title for column in _COSTS)
    heads = [Head("model"), Head("family", filter=True), Head("data", filter=True)]
    heads += [Head("protocol", filter=True, wide=True), *(Head(title, number=True) for title in titles)]
    return Table(caption, heads, lines, titled=False) if lines else None


def _quantity(value: float | None) -> Entry:
    return Entry("—") if value is None else Entry(quantity(value), value)
