"""Rows that start from another model's weights: what they gain over starting from nothing, and what they forget."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.leaderboard.columns import Column, column, value_of
from benchmark.leaderboard.dataset import Dataset, Group, seeds_cell
from benchmark.leaderboard.rows import Row, Run
from benchmark.leaderboard.statistics import student_interval
from benchmark.leaderboard.texts import difference, words
from benchmark.record import origins
from benchmark.tables import DASH, Entry, Head, Table

MEASURE, LEFT, FORGOTTEN = "bits_per_byte", "bits_per_byte_before", "forgetting"


def tuned_tables(dataset: Dataset, group: Group) -> Iterator[Table]:
    """A table for each protocol under which a row stands that starts from another model's weights."""
    of = column(MEASURE)
    for ranking in dataset.rankings(group, of):
        tuned = [entry for entry in ranking.entries if _start(entry.runs[0]) is not None]
        nothing = [entry for entry in ranking.entries if _start(entry.runs[0]) is None]
        if not tuned:
            continue
        heads = [Head("model"), Head("starts from"), Head(of.title, number=True), Head("from nothing")]
        heads += [Head("gain", number=True), Head(column(LEFT).title, number=True), Head("forgotten", number=True)]
        heads += [Head("parameters trained", number=True), Head("seeds", number=True)]
        lines = []
        for entry in tuned:
            kin = [one for one in nothing if _kind(one.runs[0]) == _kind(entry.runs[0])]  # the best comes first
            name, gain = _gain(entry.runs, kin[0].row, kin[0].runs, of) if kin else (DASH, DASH)
            lines.append(
                [
                    Entry(entry.row.name, page=dataset.page_of(entry.row), head=True),
                    Entry(_origin(entry.runs[0])),
                    *dataset.score_cells(entry.runs, [of]),
                    name,
                    gain,
                    *dataset.score_cells(entry.runs, [column(LEFT), column(FORGOTTEN)]),
                    *dataset.cost_cells(entry.runs, [column("parameters")]),
                    seeds_cell(entry.row, entry.runs),
                ]
            )
        yield Table(f"Tuned from another model's weights: {words(ranking.protocol)}", heads, lines)


def _start(run: Run) -> dict[str, object] | None:
    return origins(run.record).get("start")


def _kind(run: Run) -> str:
    return str(run.record.config["model"]["target"])


def _origin(run: Run) -> str:
    """`gpt on pydocs`, and what that model scored there."""
    start = origins(run.record)["start"]
    before = start.get(MEASURE)
    shown = "" if before is None else f", {before:.3f} there"
    return f"{start['config']['model']['name']} on {start['config']['data']['name']}{shown}"


def _gain(runs: tuple[Run, ...], row: Row, others: tuple[Run, ...], of: Column) -> tuple[Entry, Entry]:
    """Over the best row that starts from nothing, seed by seed where both have it."""
    name = Entry(row.name)
    theirs = {run.seed: value for run in others if (value := value_of(of.score(run.record))) is not None}
    gains = [
        theirs[run.seed] - value
        for run in runs
        if run.seed in theirs and (value := value_of(of.score(run.record))) is not None
    ]
    if not gains:
        return name, DASH
    found = student_interval(gains)
    return name, Entry(difference(found, of.digits), found.centre)
