"""The short table that ends a command: runs as they are, each with what it scored and cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.leaderboard.columns import (
    COST,
    COST_OF_MACHINE,
    Column,
    columns,
    digits_that_show,
    number,
    quantity,
    single,
    value_of,
)
from benchmark.leaderboard.rows import Run
from benchmark.leaderboard.texts import ended
from benchmark.record import Record
from benchmark.spec import Score
from benchmark.tables import Head, Table, Tone, entries

#: Costs, what does not depend on the machine first; the rest is of the machine that each run had.
_COST = [*COST[:2], *(column for column in COST_OF_MACHINE if column.fact.better == "lower")]


def runs_table(records: Mapping[Path, Record]) -> list[Table]:
    """One table for each dataset and budget, a row a run, the best likelihood first, what has none that counts last;
    baselines below, dim.

    `±` is one standard error over test examples.
    """
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for path, record in sorted(records.items()):
        run = Run(path, record)
        groups[record.data, run.budget].append(run)
    order = sorted(groups.items(), key=lambda item: (item[0][0], max(run.minutes for run in item[1]), item[0][1]))
    return [_table(data, budget, runs) for (data, budget), runs in order]


def _table(data: str, budget: str, runs: Sequence[Run]) -> Table:
    shown = columns(runs[0].record)
    main, leading = shown.likelihood, shown.samples[:1]
    beside = [*shown.beside[1:], *leading] if leading else list(shown.beside)
    splits = " and ".join(sorted({str(run.record.config["evaluation"]["split"]) for run in runs}))
    heads = [Head("model", least=16), Head("seed", number=True), Head("status", rank=1)]
    heads.append(Head(main.fact.short, number=True))
    heads += [Head(column.fact.short, number=True, rank=rank) for rank, column in enumerate((*beside, *_COST), 2)]
    problems = [problem for run in runs if (problem := _problem(run)) is not None]
    lines, below = [], []
    tones: dict[int, Tone] = {}

    def likelihood(run: Run) -> tuple[bool, float, str, tuple[int, int]]:
        value = value_of(main.score(run.record))
        counts = value is not None and run.impossible is None and run.record.status == "finished"
        return not counts, main.sign * (value or 0.0), run.record.model, run.seed

    for index, run in enumerate(sorted(runs, key=likelihood)):
        record = run.record
        status = record.status if run.impossible is None else "impossible"
        costs = [value_of(column.score(record)) for column in _COST]
        row = [record.model + ("§" if run.unexamined else ""), str(record.seed["init"]), status]
        row += [_cell(column.score(record), column, column in shown.leading) for column in (main, *beside)]
        row += ["—" if cost is None else quantity(cost) for cost in costs]
        lines.append(entries(row))
        if run.impossible is not None:
            tones[index] = "bad"
    for name, scores in {name: scores for run in runs for name, scores in run.references.items()}.items():
        if not any(column.metric in scores for column in (main, *beside)):
            continue  # it has none of the numbers that are shown
        row = [name.replace("_", " "), "", ""]
        row += [_cell(scores.get(column.metric), column, column in shown.leading) for column in (main, *beside)]
        below.append(entries([*row, *[""] * len(_COST)]))
    return Table(f"{data}, {splits} split, budget {budget}", heads, lines, below, problems, tones=tones)


def _cell(score: Score | None, column: Column, leading: bool) -> str:
    """What sorts or ranks has its standard error with it."""
    if score is None or score.stderr is None or not leading:
        return single(score, column.digits)
    digits = digits_that_show(score.stderr, column.digits)
    return f"{single(score, digits)} ± {number(score.stderr, digits)}"


def _problem(run: Run) -> str | None:
    who = f"{run.record.model}, seed {run.record.seed['init']}"
    if run.impossible is not None:
        return f"{who}: impossible: {run.impossible}"
    if run.record.status != "finished":
        return f"{who}: {ended(run.record)}"
    return None if run.unexamined is None else f"§ {who}: a model from outside; {run.unexamined}"
