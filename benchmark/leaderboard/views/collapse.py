"""What studies of remedies say of mode collapse: sentences, tables and figures."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmark.facts import modality
from benchmark.leaderboard.columns import Column, column, number
from benchmark.leaderboard.dataset import Dataset
from benchmark.leaderboard.plots import Curves, Intervals, Point
from benchmark.leaderboard.published import Published
from benchmark.leaderboard.sensitivity import command, spelled
from benchmark.leaderboard.statistics import student_interval
from benchmark.leaderboard.texts import difference, listed
from benchmark.sweep.remedies import Contrast, cases, contrasts, courses, ended, measured, scores
from benchmark.sweep.space import ALL, NONE
from benchmark.sweep.studies import Study
from benchmark.tables import DASH, Entry, Head, Table


@dataclass(frozen=True, slots=True)
class Finding:
    """What one remedy does alone: better or worse by an interval over seeds that leaves out zero, or neither."""

    remedy: str
    where: str  # `dcgan on digits (FID)`
    verdict: int  # 1: helps, -1: hurts, 0: cannot be told
    seeds: int


@dataclass(frozen=True, slots=True)
class Remedied:
    """One study of remedies."""

    title: str
    model: str
    table: Table
    effects: Intervals | None
    courses: tuple[Curves, ...]  # of the worst case and of the best
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]  # words between backticks are code


@dataclass(frozen=True, slots=True)
class Collapse:
    """All studies of remedies on one dataset, and what papers report of modes there."""

    data: str
    studies: tuple[Remedied, ...]
    published: Table | None


def collapse_of(dataset: Dataset) -> Collapse | None:
    """`None` where no remedy was studied."""
    studies = [study for study in dataset.studies if study.header.design == "remedies" and study.header.metric]
    if not studies:
        return None
    ordered = sorted(studies, key=lambda study: (study.header.model, study.header.name))
    figures = [group for group in dataset.figures if group.metric == "modes_covered"]
    return Collapse(
        dataset.name,
        tuple(_remedied(study, dataset.colours.get(study.header.family, 0)) for study in ordered),
        _published(dataset.name, figures) if figures else None,
    )


def sentences(found: Iterable[Collapse]) -> tuple[str, str]:
    """What helps, and how sure that is."""
    findings = [one for data in found for study in data.studies for one in study.findings]
    parts = []
    for verdict, word in ((1, "help"), (-1, "hurt")):
        places: dict[str, list[str]] = defaultdict(list)
        for one in findings:
            if one.verdict == verdict:
                places[one.where].append(one.remedy)
        for where, remedies in sorted(places.items()):
            parts.append(f"{listed(remedies)} {word}{'' if len(remedies) > 1 else 's'} {where}")
    unsure = sum(one.verdict == 0 for one in findings)
    first = (
        f"Alone against none of them, {'; '.join(parts)}." if parts else "No remedy alone is sure to help or to hurt."
    )
    seeds = sorted({one.seeds for one in findings})
    shown = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1]))) if seeds else "no"
    second = (
        f"These are the effects whose 95 % interval over {shown} seeds, paired, leaves out zero; {unsure} of "
        f"{len(findings)} cannot be told from none, and of as many that do nothing chance would name about "
        f"{0.05 * len(findings):.1f}."
    )
    return first, second


# One study -----------------------------------------------------------------------------------------------------------


def _remedied(study: Study, colour: int) -> Remedied:
    header = study.header
    title = f"{header.model} on {header.data}"
    judge = column(header.metric)
    found = contrasts(study, log=judge.log)
    return Remedied(
        title,
        header.model,
        _table(study, judge, title),
        _effects(found, judge, colour, title),
        tuple(_courses(study, judge, colour, title)),
        tuple(_finding(one, judge, title) for one in found if one.alone and one.remedy != ALL),
        tuple(_notes(study)),
    )


def _finding(contrast: Contrast, judge: Column, title: str) -> Finding:
    found = student_interval(contrast.differences)
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        verdict = 0
    else:
        verdict = 1 if found.centre < 0 else -1  # what selects is better where it is lower
    return Finding(contrast.remedy, f"{title} ({judge.title})", verdict, found.n)


def _table(study: Study, judge: Column, title: str) -> Table:
    """A row a case: each measure over seeds, and its difference from the same case without what it is called after."""
    kinds = modality(study.header.config["data"]["modality"])
    known = [name for name in (*kinds.trials, *kinds.samples) if name in measured(study)]
    columns = [(judge, ""), *((column(name), name) for name in dict.fromkeys(known) if name != judge.metric)]
    effects = [
        {one.ends[0] if one.alone else one.ends[1]: one for one in contrasts(study, name, of.log)}
        for of, name in columns
    ]
    lines = []
    for case in cases(study):
        cells = [Entry(case, head=True), Entry(str(len(scores(study, case))))]
        for (of, name), by_case in zip(columns, effects, strict=True):
            values = list(scores(study, case, name).values())
            cells.append(Entry(of.text(of.interval(values)), of.interval(values).centre) if values else DASH)
            contrast = by_case.get(case)
            cells.append(DASH if contrast is None else _difference(contrast, of))
        lines.append(cells)
    heads = [Head("remedies"), Head("seeds", number=True)]
    for of, _ in columns:
        heads += [Head(of.title, number=True), Head(f"effect on {of.title}", number=True)]
    return Table(f"Remedies: {title}", heads, lines, titled=False)


def _difference(contrast: Contrast, of: Column) -> Entry:
    """With its interval, or as a factor where logarithms are compared."""
    found = student_interval(contrast.differences)
    return Entry(difference(found, of.digits, contrast.log), found.centre)


def _effects(found: Sequence[Contrast], judge: Column, colour: int, title: str) -> Intervals | None:
    points = []
    for one in found:
        interval = student_interval(one.differences)
        ends = [interval.centre if end is None else end for end in (interval.low, interval.high)]
        values = [interval.centre, *ends, *one.differences]
        centre, low, high, *seeds = [math.exp(value) if one.log else value for value in values]
        name = "all of them" if one.remedy == ALL else one.remedy if one.alone else f"{one.remedy}, added to all others"
        points.append(Point(name, colour, centre, low, high, exact=one.alone, seeds=tuple(seeds)))
    if not points:
        return None
    log = found[0].log
    what = f"{judge.fact.about}, {'times' if log else 'more than'} that without: left is good"
    return Intervals(f"Effects of remedies: {title}", what, points, {"no effect": 1.0 if log else 0.0}, log)


def _courses(study: Study, judge: Column, colour: int, title: str) -> list[Curves]:
    """Over training, the case that ends worst on average and the one that ends best."""
    ends = {case: scores(study, case) for case in cases(study)}
    means = {case: math.fsum(of.values()) / len(of) for case, of in ends.items() if of}
    if len(means) < 2:
        return []
    worst, best = max(means, key=lambda case: means[case]), min(means, key=lambda case: means[case])
    found = []
    for case, how in ((worst, "the worst case"), (best, "the best case")):
        curves = tuple(courses(study, case))
        if curves:
            name = "no remedy" if case == NONE else case
            found.append(Curves(f"{title}: {name}, {how}, {len(curves)} seeds", judge.fact.about, curves, colour))
    return found


def _notes(study: Study) -> list[str]:
    header, config = study.header, study.header.config
    lines = [f"{study.examples:,} examples a trial, judged by the weights at its end; {spelled(command(study))}"]
    for name, remedy in header.remedies.items():
        if not remedy.fits(config["data"]["modality"]):
            lines.append(f"{name} does not apply: it is for {listed(remedy.structures)} alone")
            continue
        on = ", ".join(spelled(f"{key}={pair[1]}") for key, pair in remedy.settings.items())
        lines.append(f"{name}: {on}")
    for case in cases(study):
        if others := ended(study, case):
            lines.append(f"{case}: {listed([f'{n} {status}' for status, n in others.items()])} of its trials")
    return lines


def _published(data: str, groups: Sequence[Published]) -> Table:
    lines = [
        [
            Entry(figure.model, head=True),
            Entry(number(figure.value, 1), figure.value),
            Entry(figure.citation),
            Entry(group.protocol),
            Entry("; ".join(part for part in (group.why, figure.note) if part)),
        ]
        for group in groups
        for figure in group.figures
    ]
    heads = [Head("model"), Head("modes", number=True), Head("reported by"), Head("protocol", wide=True)]
    return Table(f"Published counts on {data}", [*heads, Head("what differs", wide=True)], lines, titled=False)
