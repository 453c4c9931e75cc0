"""The board of a dataset: for each budget its tables and figures, then published figures and records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmark.leaderboard.columns import COST, COST_OF_MACHINE, MARKS, Column, error_text, single, value_of
from benchmark.leaderboard.dataset import Dataset, Group, Mention, place_cell, seeds_cell, value_cells
from benchmark.leaderboard.plots import Intervals, Line, Plot, Tradeoffs
from benchmark.leaderboard.rows import Ranking, Reference, Row
from benchmark.leaderboard.texts import (
    absences,
    by_machine,
    cell_text,
    conditions,
    machine,
    marked,
    outdated,
    unit,
    words,
)
from benchmark.leaderboard.views.figures import CostPlots, cost_plots, matrices, rows_plot
from benchmark.leaderboard.views.rewarding import rewarded
from benchmark.leaderboard.views.tuning import tuned_tables
from benchmark.tables import DASH, Entry, Head, Matrix, Table


@dataclass(frozen=True, slots=True)
class Ranked:
    """A table; where it ranks two rows or more, their intervals and who improves on whom."""

    table: Table
    plot: Intervals | None = None
    matrices: tuple[Matrix, ...] = ()


@dataclass(frozen=True, slots=True)
class Varied:
    """A score against what samplers vary after one training, or what tuning earned against how far it went; `kind` is
    in the name of the picture."""

    kind: str
    table: Table
    plot: Plot


@dataclass(frozen=True, slots=True)
class Budget:
    """All tables and figures under one budget; `more` are those that a reader opens."""

    title: str
    anchor: str
    tables: tuple[Ranked, ...]
    more: tuple[Table, ...]
    times: tuple[Table, ...]
    costs: tuple[CostPlots, ...]
    varied: tuple[Varied, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dataset's page. `cards` are what its records say of their data: one, unless it changed."""

    data: str
    cards: tuple[dict[str, Any], ...]
    machines: tuple[str, ...]
    budgets: tuple[Budget, ...]
    published: Table | None
    records: Table | None
    impossible: tuple[tuple[Mention, str], ...]
    unfinished: tuple[Mention, ...]
    superseded: tuple[tuple[Mention, str], ...]

    @property
    def statuses(self) -> str:
        """`2 diverged, 1 failed`: of the runs that did not finish."""
        counted = Counter(mention.text.partition(": ")[2].split(" ")[0] for mention in self.unfinished)
        return ", ".join(f"{n} {status}" for status, n in sorted(counted.items()))


def board_of(dataset: Dataset) -> Board:
    known: dict[str, dict[str, Any]] = {}
    for run in dataset.runs:
        if run.fingerprint:
            known.setdefault(run.fingerprint, {key: run.record.dataset.get(key) for key in _CARD})
    machines = Counter(machine(run.record.hardware) for row in dataset.rows for run in row.runs)
    rows = [row for group in dataset.groups for row in group.rows]
    unfinished = [run for row in rows for run in row.runs if run.record.status != "finished"]
    unfinished += [run for row in rows for run in row.failed]
    return Board(
        dataset.name,
        tuple(known.values()),
        tuple(f"{name} ({n} {'run' if n == 1 else 'runs'})" for name, n in sorted(machines.items())),
        tuple(_budget(dataset, group) for group in dataset.groups),
        _published(dataset),
        _records(dataset),
        tuple((dataset.mention(run), run.impossible or "") for row in rows for run in row.impossible),
        tuple(map(dataset.mention, unfinished)),
        tuple((dataset.mention(old.run), old.why) for old in dataset.superseded),
    )


_CARD = ("source", "licence", "citation", "note", "publishable", "splits")


def _budget(dataset: Dataset, group: Group) -> Budget:
    shown, main = group.columns, group.columns.likelihood
    tables = list(_ranked(dataset, "Likelihood", group, main, shown.beside, COST))
    tables += [Ranked(table) for table in tuned_tables(dataset, group)]
    more = _more(dataset, "More on the same models", group, main, shown.more_on_likelihood)
    if shown.samples:
        first, *others = shown.samples
        tables += _ranked(dataset, "Samples", group, first, others, ())
        more += _more(dataset, "More on samples", group, first, shown.more_on_samples)
    else:
        more += _more(dataset, "Samples of the same models", group, main, shown.more_on_samples)
    times, costs = tuple(_times(dataset, group)), tuple(cost_plots(dataset, group))
    return Budget(group.title, group.anchor, tuple(tables), tuple(more), times, costs, tuple(_varied(dataset, group)))


def _ranked(
    dataset: Dataset, title: str, group: Group, main: Column, beside: Sequence[Column], cost: Sequence[Column]
) -> Iterator[Ranked]:
    for table, ranking in _tables(dataset, title, group, main, beside, cost):
        if ranking is None or len(ranking.entries) < 2:
            yield Ranked(table)
        else:
            yield Ranked(table, rows_plot(dataset, table.caption, ranking), tuple(matrices(dataset, ranking)))


def _tables(
    dataset: Dataset, title: str, group: Group, main: Column, beside: Sequence[Column], cost: Sequence[Column]
) -> list[tuple[Table, Ranking | None]]:
    """One table for each protocol, with what it ranks. Rows without the score stand in the first."""
    rankings = dataset.rankings(group, main)
    ranked = {entry.row.name for ranking in rankings for entry in ranking.entries}
    without = [row for row in group.rows if row.name not in ranked]
    notes = absences(dataset.judge, group.rows, main, beside)
    notes += [line for column in cost for line in outdated(dataset.judge, group.rows, column)]
    heads = [Head("rank"), Head("model"), Head("family", filter=True)]
    heads += [Head(main.title, number=True), Head("s.e.", number=True)]
    heads += [Head(column.title, number=True) for column in (*beside, *cost)]
    heads.append(Head("seeds", number=True))
    found: list[tuple[Table, Ranking | None]] = []
    for index, ranking in enumerate(rankings):
        lines = [
            [
                place_cell(entry),
                *_who(dataset, entry.row),
                *value_cells(entry, main),
                *dataset.score_cells(entry.runs, beside),
                *dataset.cost_cells(entry.runs, cost),
                seeds_cell(entry.row, entry.runs),
            ]
            for entry in ranking.entries
        ]
        if index == 0:
            lines += [_without(dataset, row, beside, cost) for row in without]
        below = [_reference(reference, main, beside, cost) for reference in ranking.references]
        lined = conditions(dataset.judge, ranking, beside) + (notes if index == 0 else [])
        found.append((Table(f"{title}: {words(ranking.protocol)}", heads, lines, below, lined), ranking))
    if not rankings and without:
        lines = [_without(dataset, row, beside, cost) for row in without]
        shown = Table(title, heads, lines, notes=notes)
        return [(shown if cost else Table(f"{title}: no row has {main.title}", (), (), notes=notes), None)]
    return found


def _who(dataset: Dataset, row: Row) -> list[Entry]:
    return [Entry(marked(row), page=dataset.page_of(row), head=True), dataset.family_cell(row)]


def _without(dataset: Dataset, row: Row, beside: Sequence[Column], cost: Sequence[Column]) -> list[Entry]:
    others = [*dataset.score_cells(row.scored, beside), *dataset.cost_cells(row.scored, cost)]
    return [Entry(""), *_who(dataset, row), DASH, DASH, *others, seeds_cell(row, row.scored)]


def _reference(reference: Reference, main: Column, beside: Sequence[Column], cost: Sequence[Column]) -> list[Entry]:
    scores = [(reference.scores.get(column.metric), column) for column in (main, *beside)]
    first, *others = [Entry(single(score, column.digits), value_of(score)) for score, column in scores]
    error = reference.scores[main.metric].stderr
    name = Entry(reference.name.replace("_", " "), head=True)
    shown_error = Entry(error_text(error, main.digits), error)
    return [Entry(""), name, Entry(""), first, shown_error, *others, *[DASH] * len(cost), DASH]


def _more(dataset: Dataset, title: str, group: Group, main: Column, columns: Sequence[Column]) -> list[Table]:
    """Further columns in the order of a first table; those that no record has are left out."""
    runs = [run for row in group.rows for run in row.scored]
    shown = [column for column in columns if any(dataset.judge.score(run, column) for run in runs)]
    return [table for table, _ in _tables(dataset, title, group, main, shown, ())] if shown else []


def _varied(dataset: Dataset, group: Group) -> Iterator[Varied]:
    """Quality against evaluations of the network, and what truncation wins and loses."""
    shown = group.columns
    columns = {one.metric: one for one in shown.everything}
    for metric, over in shown.within.items():
        kind = "evaluations" if shown.samples[:1] == (columns[metric],) else f"evaluations-{metric}"
        along = _Along(kind, "network evaluations", "network evaluations for one sample, at most", True)
        yield from _curves(dataset, group, columns[metric], over, along, "evaluations_at_most")
    for metric, over in shown.truncated.items():
        along = _Along(f"truncation-{metric}", "truncation", "truncation of latents", False)
        yield from _curves(dataset, group, columns[metric], over, along, "truncation")
    met: Counter[str] = Counter()
    for name, table, plot in rewarded(dataset, group):
        met[name] += 1  # a reward may stand under several protocols
        yield Varied(f"reward-{name}" if met[name] == 1 else f"reward-{name}-{met[name]}", table, plot)


class _Along(NamedTuple):
    """What a sampler varies: in the name of a picture, in a caption, below an axis, and whether that is logarithmic."""

    kind: str
    caption: str
    axis: str
    log: bool


def _curves(
    dataset: Dataset, group: Group, main: Column, over: Mapping[float, Column], along: _Along, key: str
) -> Iterator[Varied]:
    """`main` at each value of what is varied, which a protocol calls `key`: rows whose samplers can vary it, the best
    at the last value first; nothing where there is none."""
    columns = list(over.values())
    ranking = next(iter(dataset.rankings(group, columns[-1])), None)
    if ranking is None:
        return
    rows: list[list[Entry]] = []
    lines: list[Line] = []
    for entry in ranking.entries:
        row = entry.row
        rows.append([*_who(dataset, row), *dataset.score_cells(entry.runs, columns), seeds_cell(row, entry.runs)])
        cells = {value: dataset.judge.cell(entry.runs, column) for value, column in over.items()}
        found = {value: cell.interval.centre for value, cell in cells.items() if cell is not None}
        colour = dataset.colours.get(row.family, 0)
        lines.append(Line(row.name, colour, len(lines), list(found), list(found.values())))
    worst = max(main.sign * y for y in lines[0].y)
    floors = {
        reference.name.replace("_", " "): value
        for known in dataset.rankings(group, main)[:1]
        for reference in known.references
        if (value := value_of(reference.scores[main.metric])) is not None and main.sign * value <= worst
    }
    heads = [Head("model"), Head("family", filter=True)]
    heads += [*(Head(column.title, number=True) for column in columns), Head("seeds", number=True)]
    caption = f"{main.title} against {along.caption}, from one training"
    title = f"{caption}, {group.data}, {group.budget}"
    plot = Tradeoffs(title, main.title, along.axis, (along.log, main.log), lines, floors)
    shared = {name: value for name, value in ranking.protocol.items() if name != key}
    yield Varied(along.kind, Table(f"{caption}: {words(shared)}", heads, rows), plot)


def _times(dataset: Dataset, group: Group) -> Iterator[Table]:
    """What rows cost on each hardware, the quickest training first."""
    heads = [Head("model"), Head("family", filter=True)]
    heads += [*(Head(column.title, number=True) for column in COST_OF_MACHINE), Head("seeds", number=True)]
    for hardware, timed in by_machine(group.rows).items():
        lines = [
            [*_who(dataset, row), *dataset.cost_cells(runs, COST_OF_MACHINE), seeds_cell(row, runs)]
            for row, runs in timed
        ]
        lines.sort(key=lambda line: (line[2].sort is None, line[2].sort or 0.0, line[0].text))
        yield Table(f"Times on {hardware}", heads, lines)


def _published(dataset: Dataset) -> Table | None:
    lines = [
        [
            Entry(figure.model, head=True),
            Entry(f"{MARKS[figure.likelihood]}{figure.value:g}", figure.value),
            Entry(unit(group)),
            Entry(_ours(dataset, group.metric)),
            Entry("yes" if group.comparable else "no"),
            Entry(f"{group.protocol}{f'; {figure.note}' if figure.note else ''}"),
            Entry(group.why),
            Entry(figure.citation),
        ]
        for group in dataset.figures
        for figure in group.figures
    ]
    heads = [Head("model"), Head("reported", number=True), Head("unit", filter=True), Head("ours", wide=True)]
    heads += [
        Head("comparable", filter=True),
        Head("protocol", filter=True, wide=True),
        Head("why", wide=True),
        Head("source"),
    ]
    return Table("Published figures, not ranked", heads, lines, titled=False) if lines else None


def _ours(dataset: Dataset, metric: str) -> str:
    """The rows under the largest budget that have this metric, best first: `lstm 1.680, gpt 1.685`."""
    group = next(iter(dataset.groups), None)
    known = () if group is None else group.columns.everything
    column = next((column for column in known if column.metric == metric), None)
    if group is None or column is None:
        return "—"
    entries = [entry for ranking in dataset.rankings(group, column) for entry in ranking.entries]
    entries.sort(key=lambda entry: column.sign * entry.cell.interval.centre)
    return ", ".join(f"{marked(entry.row)} {cell_text(entry.cell, column)}" for entry in entries) or "—"


def _records(dataset: Dataset) -> Table | None:
    lines = [
        [
            Entry(row.name, page=dataset.page_of(row), head=True),
            Entry(group.budget, sort=group.minutes),
            *dataset.run_cells(run),
            Entry(run.record.config_hash[:8], code=True),
        ]
        for group in dataset.groups
        for row in group.rows
        for run in row.runs
    ]
    heads = [Head("model", filter=True), Head("budget", filter=True), Head("seed")]
    heads += [Head("status", filter=True), Head("record"), Head("commit"), Head("configuration")]
    return Table("Records", heads, lines, titled=False) if lines else None
