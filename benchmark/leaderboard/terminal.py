"""The short table that ends a command: runs as they are, each with what it scored and cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from benchmark.leaderboard.columns import (
    BESIDE,
    COST,
    LIKELIHOOD,
    SAMPLES,
    Column,
    digits_that_show,
    modality,
    number,
    quantity,
    single,
    value_of,
)
from benchmark.leaderboard.rows import Run
from benchmark.record import Record
from benchmark.spec import Score

_TITLES = {"importance_bound": "IW bound", "parameters": "params", "cpu_minutes": "CPU min"}
_TITLES |= {"sampling_seconds": "s/1,000"}
_WITH_ERROR = {"bits_per_dim", "nats_per_token", "fid"}
_COST = [column for column in COST if column.metric in _TITLES]


def runs_table(records: Mapping[Path, Record]) -> list[Table]:
    """One table for each dataset and budget, a row a run, the lowest likelihood first; baselines below, dim.

    Fits 100 columns. `±` is one standard error over test examples.
    """
    groups: dict[tuple[str, tuple[float, str]], list[Run]] = defaultdict(list)
    for path, record in sorted(records.items()):
        run = Run(path, record)
        groups[record.data, run.budget].append(run)
    return [_table(data, budget, runs) for (data, budget), runs in sorted(groups.items())]


def _table(data: str, budget: tuple[float, str], runs: Sequence[Run]) -> Table:
    kind = modality(runs[0].record)
    main = LIKELIHOOD[kind]
    beside = [*BESIDE[kind][1:], SAMPLES[0]] if kind == "image" else list(BESIDE[kind])
    splits = " and ".join(sorted({str(run.record.config["evaluation"]["split"]) for run in runs}))
    problems = "\n".join(_problem(run.record) for run in runs if run.record.status != "finished")
    table = Table(
        title=Text(f"{data}, {splits} split, budget {budget[1]} (at most {budget[0]:g} CPU minutes)", "bold"),
        title_justify="left",
        caption=Text(problems) if problems else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("model", overflow="fold", max_width=16)
    table.add_column("seed", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for column in (main, *beside, *_COST):
        table.add_column(_TITLES.get(column.metric, column.title), justify="right", no_wrap=True)

    def likelihood(run: Run) -> tuple[bool, float, str, tuple[int, int]]:
        value = value_of(main.score(run.record))
        return value is None, value or 0.0, run.record.model, run.seed

    for run in sorted(runs, key=likelihood):
        record = run.record
        costs = [value_of(column.score(record)) for column in _COST]
        row = [record.model, str(record.seed["init"]), record.status]
        row += [_cell(column.score(record), column) for column in (main, *beside)]
        row += ["—" if cost is None else quantity(cost) for cost in costs]
        table.add_row(*map(Text, row))
    for name, scores in {name: scores for run in runs for name, scores in run.references.items()}.items():
        row = [name.replace("_", " "), "", ""]
        row += [_cell(scores.get(column.metric), column) for column in (main, *beside)]
        table.add_row(*map(Text, row), style="dim")
    return table


def _cell(score: Score | None, column: Column) -> str:
    if score is None or score.stderr is None or column.metric not in _WITH_ERROR:
        return single(score, column.digits)
    digits = digits_that_show(score.stderr, column.digits)
    return f"{single(score, digits)} ± {number(score.stderr, digits)}"


def _problem(record: Record) -> str:
    return f"{record.model}, seed {record.seed['init']}: {record.status}: {record.reason or 'no reason given'}"
