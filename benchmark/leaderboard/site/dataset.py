"""The page of a dataset: for each budget its tables and figures, then published figures and records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from benchmark.leaderboard.columns import COST, COST_OF_MACHINE, MARKS, Column
from benchmark.leaderboard.rows import Ranking, Row, Run
from benchmark.leaderboard.site.cells import DASH, place_cell, reference_cells, seeds_cell, value_cells
from benchmark.leaderboard.site.contents import Contents, Group
from benchmark.leaderboard.site.figures import cost_plots, matrices, rows_plot
from benchmark.leaderboard.site.tables import Entry, Head, Table
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


def dataset_page(contents: Contents, data: str) -> dict[str, Any]:
    runs = [Run(path, record) for path, record in sorted(contents.records.items()) if record.data == data]
    groups = contents.groups_of(data)
    known: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.fingerprint:
            known.setdefault(run.fingerprint, run.record.dataset)
    machines = Counter(machine(run.record.hardware) for group in groups for row in group.rows for run in row.runs)
    return {
        "data": data,
        "cards": list(known.values()),
        "machines": [f"{name} ({n} {'run' if n == 1 else 'runs'})" for name, n in sorted(machines.items())],
        "budgets": [_budget(contents, group) for group in groups],
        "published": _published(contents, data),
        "records": _records(contents, groups),
        "unfinished": [
            contents.mention(run)
            for group in groups
            for row in group.rows
            for run in (*(run for run in row.runs if run.record.status != "finished"), *row.failed)
        ],
        "impossible": [
            (contents.mention(run), run.impossible) for group in groups for row in group.rows for run in row.impossible
        ],
        "superseded_records": [
            (contents.mention(old.run), old.why) for old in contents.superseded if old.run.record.data == data
        ],
    }


def _budget(contents: Contents, group: Group) -> dict[str, Any]:
    shown, main = group.columns, group.columns.likelihood
    tables = _tables(contents, "Likelihood", group, main, shown.beside, COST)
    parts = [_with_figures(contents, table, ranking, main) for table, ranking in tables]
    more = _more(contents, "More on the same models", group, main, shown.more_on_likelihood)
    if shown.samples:
        first, *others = shown.samples
        tables = _tables(contents, "Samples", group, first, others, ())
        parts += [_with_figures(contents, table, ranking, first) for table, ranking in tables]
        more += _more(contents, "More on samples", group, first, shown.more_on_samples)
    costs = list(cost_plots(contents, group))
    times = list(_times(contents, group))
    content = {"tables": parts, "more": more, "costs": costs, "times": times}
    return {"title": group.title, "anchor": group.anchor, **content}


def _with_figures(contents: Contents, table: Table, ranking: Ranking | None, column: Column) -> dict[str, Any]:
    """A table; where it ranks two rows or more, their intervals and who improves on whom."""
    if ranking is None or len(ranking.entries) < 2:
        return {"table": table, "plot": None, "matrices": []}
    plot = rows_plot(contents, table.caption, ranking, column)
    return {"table": table, "plot": plot, "matrices": list(matrices(contents, ranking, column))}


def _tables(
    contents: Contents, title: str, group: Group, main: Column, beside: Sequence[Column], cost: Sequence[Column]
) -> list[tuple[Table, Ranking | None]]:
    """One table for each protocol, with what it ranks. Rows without the score stand in the first."""
    rankings = contents.judge.rankings(group.rows, main)
    ranked = {entry.row.name for ranking in rankings for entry in ranking.entries}
    without = [row for row in group.rows if row.name not in ranked]
    notes = absences(contents.judge, group.rows, main, beside)
    notes += [line for column in cost for line in outdated(contents.judge, group.rows, column)]
    heads = [Head("rank", number=True), Head("model"), Head(main.title, number=True), Head("s.e.", number=True)]
    heads += [Head("seeds", number=True), Head("family", filter=True)]
    heads += [Head(column.title, number=True) for column in (*beside, *cost)]
    found: list[tuple[Table, Ranking | None]] = []
    for index, ranking in enumerate(rankings):
        lines = [
            [
                place_cell(entry),
                Entry(marked(entry.row), href=contents.row_page(group, entry.row, "../"), head=True),
                *value_cells(entry, main),
                seeds_cell(entry.row, entry.runs),
                contents.family_cell(entry.row),
                *contents.score_cells(entry.runs, beside),
                *contents.cost_cells(entry.runs, cost),
            ]
            for entry in ranking.entries
        ]
        if index == 0:
            lines += [_without(contents, group, row, beside, cost) for row in without]
        below = [reference_cells(reference, main, beside, cost) for reference in ranking.references]
        lined = conditions(contents.judge, ranking, beside) + (notes if index == 0 else [])
        caption = f"{title}: {words(ranking.protocol)}"
        found.append((Table(caption, heads, lines, below, lined), ranking))
    if not rankings and without:
        lines = [_without(contents, group, row, beside, cost) for row in without]
        shown = Table(title, heads, lines, notes=notes)
        return [(shown if cost else Table(f"{title}: no row has {main.title}", (), (), notes=notes), None)]
    return found


def _more(contents: Contents, title: str, group: Group, main: Column, columns: Sequence[Column]) -> list[Table]:
    """Further columns in the order of a first table; those that no record has are left out."""
    runs = [run for row in group.rows for run in row.scored]
    shown = [column for column in columns if any(contents.judge.score(run, column) for run in runs)]
    return [table for table, _ in _tables(contents, title, group, main, shown, ())] if shown else []


def _without(
    contents: Contents, group: Group, row: Row, beside: Sequence[Column], cost: Sequence[Column]
) -> list[Entry]:
    name = Entry(marked(row), href=contents.row_page(group, row, "../"), head=True)
    others = [*contents.score_cells(row.scored, beside), *contents.cost_cells(row.scored, cost)]
    return [DASH, name, DASH, DASH, seeds_cell(row, row.scored), contents.family_cell(row), *others]


def _times(contents: Contents, group: Group) -> Iterator[Table]:
    """What rows cost on each hardware, the quickest training first."""
    heads = [Head("model"), *(Head(column.title, number=True) for column in COST_OF_MACHINE)]
    heads += [Head("seeds", number=True), Head("family", filter=True)]
    for hardware, timed in by_machine(group.rows).items():
        lines = [
            [
                Entry(marked(row), href=contents.row_page(group, row, "../"), head=True),
                *contents.cost_cells(runs, COST_OF_MACHINE),
                seeds_cell(row, runs),
                contents.family_cell(row),
            ]
            for row, runs in timed
        ]
        lines.sort(key=lambda line: (line[1].sort is None, line[1].sort or 0.0, line[0].text))
        yield Table(f"Times on {hardware}", heads, lines)


def _published(contents: Contents, data: str) -> Table | None:
    lines = [
        [
            Entry(figure.model, head=True),
            Entry(f"{MARKS[figure.likelihood]}{figure.value:g}", figure.value),
            Entry(unit(group)),
            Entry(_ours(contents, data, group.metric)),
            Entry("yes" if group.comparable else "no"),
            Entry(f"{group.protocol}{f'; {figure.note}' if figure.note else ''}"),
            Entry(group.why),
            Entry(figure.citation),
        ]
        for group in contents.figures
        if group.data == data
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


def _ours(contents: Contents, data: str, metric: str) -> str:
    """The rows under the largest budget that have this metric, best first: `lstm 1.680, gpt 1.685`."""
    group = next(iter(contents.groups_of(data)), None)
    known = () if group is None else group.columns.everything
    column = next((column for column in known if column.metric == metric), None)
    if group is None or column is None:
        return "—"
    entries = [entry for ranking in contents.judge.rankings(group.rows, column) for entry in ranking.entries]
    entries.sort(key=lambda entry: column.sign * entry.cell.interval.centre)
    return ", ".join(f"{marked(entry.row)} {cell_text(entry.cell, column)}" for entry in entries) or "—"


def _records(contents: Contents, groups: Sequence[Group]) -> Table | None:
    lines = [
        [
            Entry(row.name, href=contents.row_page(group, row, "../"), head=True),
            Entry(group.budget, sort=group.minutes),
            *contents.run_cells(run),
            Entry(run.record.config_hash[:8], code=True),
        ]
        for group in groups
        for row in group.rows
        for run in row.runs
    ]
    heads = [Head("model", filter=True), Head("budget", filter=True), Head("seed", number=True)]
    heads += [Head("status", filter=True), Head("record"), Head("commit"), Head("configuration")]
    return Table("Records", heads, lines, titled=False) if lines else None
