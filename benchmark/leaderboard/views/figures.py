"""Figures of a dataset: rows with their intervals, quality against cost, and who improves on whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from benchmark.leaderboard.columns import COST, COST_OF_MACHINE, Column, columns, value_of
from benchmark.leaderboard.compare import EXAMPLES, Side, example_terms, share_better
from benchmark.leaderboard.dataset import Dataset, Group
from benchmark.leaderboard.plots import Intervals, Pareto, Point
from benchmark.leaderboard.rows import Ranking
from benchmark.leaderboard.statistics import improvement
from benchmark.leaderboard.texts import by_machine, machine
from benchmark.spec import BadInput
from benchmark.tables import Matrix

#: Of the costs that depend on a machine, those across which quality is drawn.
_TIMES = tuple(column for column in COST_OF_MACHINE if column.fact.better == "lower")


@dataclass(frozen=True)
class CostPlots:
    """One quality against several costs."""

    title: str
    plots: tuple[Pareto, ...]


def rows_plot(dataset: Dataset, caption: str, ranking: Ranking) -> Intervals:
    """Reference values that lie beyond all rows are left to the table."""
    column, points = ranking.column, _points(dataset, ranking)
    floors = {
        reference.name.replace("_", " "): value
        for reference in ranking.references
        if (value := value_of(reference.scores[column.metric])) is not None
        and value <= max(point.high for point in points)
    }
    log = column.log and all(point.low > 0 for point in points)
    return Intervals(caption, column.title, points, floors, log)


def cost_plots(dataset: Dataset, group: Group) -> Iterator[CostPlots]:
    """For each quality, a figure for each cost that two rows or more have: times on one hardware each."""
    for quality in group.columns.leading:
        for ranking in dataset.rankings(group, quality)[:1]:
            plots = [cost_plot(dataset, group, ranking, cost) for cost in COST]
            if shown := tuple(plot for plot in plots if plot is not None):
                yield CostPlots(f"{quality.title} against cost", shown)
            for hardware in by_machine(group.rows):
                plots = [cost_plot(dataset, group, ranking, cost, hardware) for cost in _TIMES]
                if shown := tuple(plot for plot in plots if plot is not None):
                    yield CostPlots(f"{quality.title} against time on {hardware}", shown)


def cost_plot(
    dataset: Dataset, group: Group, ranking: Ranking, cost: Column, hardware: str | None = None
) -> Pareto | None:
    """Quality against a cost, of the runs on some hardware or of all; `None` where fewer than two rows have it."""
    quality, points = ranking.column, []
    for entry, point in zip(ranking.entries, _points(dataset, ranking), strict=True):
        runs = [run for run in entry.runs if hardware is None or machine(run.record.hardware) == hardware]
        known = [value for value in dataset.values(runs, cost) if value]
        if known:
            points.append(replace(point, cost=sum(known) / len(known)))
    if len(points) < 2:
        return None
    where = "" if hardware is None else f", on {hardware}"
    caption = f"{quality.title} against {cost.fact.about}, {group.data}, {group.budget}{where}"
    log = quality.log and all(point.low > 0 for point in points)
    return Pareto(caption, quality.title, cost.fact.about, tuple(points), log)


def matrices(dataset: Dataset, ranking: Ranking) -> Iterator[Matrix]:
    """Who is better than whom: over pairs of runs, and where the score is a mean over test examples, over those."""
    column = ranking.column
    sides = [Side(entry.row.name, entry.runs) for entry in ranking.entries]
    names = [side.name for side in sides]
    pairs = list(combinations(range(len(sides)), 2))  # the other half is what is left of 1
    values = [[column.sign * value for value in side.values(column)] for side in sides]
    by_run = {(i, j): improvement(values[i], values[j]) for i, j in pairs}
    yield Matrix(f"{column.title}: share of pairs of runs in which the row beats the column", names, by_run)
    terms = [_terms(dataset, side, column) for side in sides]
    by_example = {}
    for i, j in pairs:
        ours, theirs = terms[i], terms[j]
        if ours is not None and theirs is not None and len(ours) == len(theirs) >= EXAMPLES:
            by_example[i, j] = share_better(ours - theirs, column)
    if by_example:
        _, what = columns(sides[0].runs[0].record).kind.unit
        caption = f"{column.title}: share of test {what} on which the row beats the column, seeds averaged"
        yield Matrix(caption, names, by_example)


def _terms(dataset: Dataset, side: Side, column: Column) -> np.ndarray | None:
    try:
        return example_terms(side, column)
    except BadInput as error:
        dataset.problems.append(str(error))
        return None


def _points(dataset: Dataset, ranking: Ranking) -> tuple[Point, ...]:
    return tuple(
        Point(
            entry.row.name,
            dataset.colours.get(entry.row.family, 0),
            entry.cell.interval.centre,
            *entry.cell.ends,
            exact=entry.cell.how.get("likelihood", "exact") == "exact",
            seeds=tuple(dataset.values(entry.runs, ranking.column)),
        )
        for entry in ranking.entries
    )
