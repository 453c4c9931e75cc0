"""Figures of a dataset's page: rows with their intervals, quality against cost, and who improves on whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

from markupsafe import Markup

from benchmark.leaderboard.columns import COST, COST_OF_MACHINE, Column, columns, value_of
from benchmark.leaderboard.compare import Side, compare
from benchmark.leaderboard.rows import Ranking
from benchmark.leaderboard.site.contents import Contents, Group
from benchmark.leaderboard.site.plots import Point, interval_plot, pareto_plot
from benchmark.leaderboard.site.tables import Matrix
from benchmark.leaderboard.texts import by_machine, machine

#: Of the costs that depend on a machine, those across which quality is drawn.
_TIMES = tuple(column for column in COST_OF_MACHINE if column.fact.better == "lower")


def rows_plot(contents: Contents, caption: str, ranking: Ranking, column: Column) -> Markup:
    """Reference values that lie beyond all rows are left to the table."""
    points = _points(contents, ranking, column)
    floors = {
        reference.name.replace("_", " "): value
        for reference in ranking.references
        if (value := value_of(reference.scores[column.metric])) is not None
        and value <= max(point.high for point in points)
    }
    log = column.log and all(point.low > 0 for point in points)
    return interval_plot(caption, column.title, points, floors, log)


def cost_plots(contents: Contents, group: Group) -> Iterator[dict[str, Any]]:
    """For each quality, a figure for each cost that two rows or more have: times on one hardware each."""
    for quality in group.columns.leading:
        for ranking in contents.judge.rankings(group.rows, quality)[:1]:
            plots = [_cost_plot(contents, group, ranking, quality, cost) for cost in COST]
            if shown := [plot for plot in plots if plot is not None]:
                yield {"title": f"{quality.title} against cost", "plots": shown}
            for hardware in by_machine(group.rows):
                plots = [_cost_plot(contents, group, ranking, quality, cost, hardware) for cost in _TIMES]
                if shown := [plot for plot in plots if plot is not None]:
                    yield {"title": f"{quality.title} against time on {hardware}", "plots": shown}


def matrices(contents: Contents, ranking: Ranking, column: Column) -> Iterator[Matrix]:
    """Who is better than whom: over pairs of runs, and where the score is a mean over test examples, over those."""
    sides = [Side(entry.row.name, entry.runs) for entry in ranking.entries]
    found = {
        (i, j): compare(a, b, column.metric, contents.problems)
        for (i, a), (j, b) in combinations(enumerate(sides), 2)  # the other half is what is left of 1
    }
    names = [side.name for side in sides]
    by_run = {pair: comparison.improvement for pair, comparison in found.items()}
    by_example = {pair: one.by_example.better for pair, one in found.items() if one.by_example is not None}
    yield Matrix(f"{column.title}: share of pairs of runs in which the row beats the column", names, by_run)
    if by_example:
        _, what = columns(sides[0].runs[0].record).kind.unit
        caption = f"{column.title}: share of test {what} on which the row beats the column, seeds averaged"
        yield Matrix(caption, names, by_example)


def _cost_plot(
    contents: Contents, group: Group, ranking: Ranking, quality: Column, cost: Column, hardware: str | None = None
) -> Markup | None:
    """Quality against a cost, of the runs on some hardware or of all; `None` where fewer than two rows have it."""
    points = []
    for entry, point in zip(ranking.entries, _points(contents, ranking, quality), strict=True):
        runs = [run for run in entry.runs if hardware is None or machine(run.record.hardware) == hardware]
        scores = [contents.judge.score(run, cost) for run in runs]
        known = [score.value for score in scores if score is not None and score.value]
        if known:
            points.append(replace(point, cost=sum(known) / len(known)))
    if len(points) < 2:
        return None
    where = "" if hardware is None else f", on {hardware}"
    caption = f"{quality.title} against {cost.fact.about}, {group.data}, {group.budget}{where}"
    log = quality.log and all(point.low > 0 for point in points)
    return pareto_plot(caption, quality.title, cost.fact.about, points, log)


def _points(contents: Contents, ranking: Ranking, column: Column) -> list[Point]:
    return [
        Point(
            entry.row.name,
            contents.colours[entry.row.family],
            entry.cell.interval.centre,
            *entry.cell.ends,
            exact=entry.cell.how.get("likelihood", "exact") == "exact",
            seeds=tuple(contents.values(entry.runs, column)),
        )
        for entry in ranking.entries
    ]
