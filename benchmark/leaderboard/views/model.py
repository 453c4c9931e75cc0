"""What a model's page shows of each of its rows: place, samples, curves, seeds and how to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.leaderboard.columns import COST, COST_OF_MACHINE, error_text, number, quantity, value_of
from benchmark.leaderboard.dataset import Dataset, Group, Mention
from benchmark.leaderboard.rows import Row
from benchmark.leaderboard.store import Packed, stamp
from benchmark.leaderboard.texts import cell_text, machine, seed
from benchmark.leaderboard.views.studies import StudiedModel
from benchmark.record import Record
from benchmark.tables import DASH, Entry, Head, Table
from benchmark.traces import pictures_beside


@dataclass(frozen=True, slots=True)
class Kept:
    """A run of a row by its seed; `kept` says which files beside its record there are, as they lie on disk."""

    seed: str
    record: Path
    kept: str


@dataclass(frozen=True, slots=True)
class Section:
    """One row of a board, with all that is known of its runs. `headline` is title, value and place."""

    title: str
    anchor: str
    data: str
    row: str
    colour: int
    headline: tuple[tuple[str, str, str], ...]
    runs: tuple[Kept, ...]
    spread: Table | None
    studied: StudiedModel | None
    table: Table
    command: str
    options: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page of a model shows of one dataset."""

    sections: tuple[Section, ...]
    superseded: tuple[tuple[Mention, str], ...]


@dataclass(frozen=True, slots=True)
class ModelOnData:
    """A model on one dataset, and whether one of its rows stands on the board."""

    family: str
    ranked: bool
    shown: Packed[Shown]


def models_of(dataset: Dataset, studied: dict[str, StudiedModel]) -> dict[str, ModelOnData]:
    """Each model that has a record on a dataset; `studied` is what studies say of models on it."""
    found = {}
    for name in sorted({run.record.model for run in dataset.runs}):
        sections = tuple(
            _section(dataset, group, row, studied.get(name))
            for group in dataset.groups
            for row in group.rows
            if row.runs[0].record.model == name
        )
        old = [entry for entry in dataset.superseded if entry.run.record.model == name]
        superseded = tuple((dataset.mention(entry.run), entry.why) for entry in old)
        family = next(run.record.family for run in dataset.runs if run.record.model == name)
        found[name] = ModelOnData(family, bool(sections), Packed.of(Shown(sections, superseded)))
    return found


def _section(dataset: Dataset, group: Group, row: Row, studied: StudiedModel | None) -> Section:
    record = row.runs[0].record
    return Section(
        f"{group.data}, {row.budget}{'' if row.name == record.model else f', {row.name}'}",
        dataset.anchor(row),
        group.data,
        row.name,
        dataset.colours.get(row.family, 0),
        tuple(_headline(dataset, group, row)),
        tuple(Kept(seed(run), run.path, stamp(_files(run.path))) for run in row.runs),
        _spread(dataset, group, row),
        studied,
        _runs_table(dataset, row),
        _command(row),
        tuple(_options(record)),
    )


def _files(record: Path) -> list[Path]:
    """What pictures and curves are read from, published or of a local run."""
    suffixes = (".png", ".txt", ".csv.gz")
    beside = [*(record.with_suffix(suffix) for suffix in suffixes), *pictures_beside(record).values()]
    return [*beside, record.parent / "curves.csv"] if record.name == "record.json" else beside


def _headline(dataset: Dataset, group: Group, row: Row) -> Iterator[tuple[str, str, str]]:
    """Title, value and place of what ranks; then the costs."""
    for quality in group.columns.leading:
        for ranking in dataset.rankings(group, quality):
            for entry in ranking.entries:
                if entry.row is row:
                    of = f"rank {entry.place} of {len(ranking.entries)}"
                    yield quality.title, cell_text(entry.cell, quality), of
    yield "training examples", " to ".join(f"{n:,}" for n in sorted({run.planned for run in row.runs})), ""
    for column in COST:
        if (cell := dataset.judge.cell(row.scored, column)) is not None:
            yield column.title, quantity(cell.interval.centre), ""


def _spread(dataset: Dataset, group: Group, row: Row) -> Table | None:
    """How much the seeds differ: standard deviation, best and worst."""
    lines = []
    for column in group.columns.everything:
        cell = dataset.judge.cell(row.scored, column)
        if cell is None:
            continue
        values = dataset.values(row.scored, column)
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        lines.append(
            [
                Entry(column.title, head=True),
                Entry(cell_text(cell, column), cell.interval.centre),
                Entry(error_text(cell.stderr, column.digits), cell.stderr),
                Entry(error_text(deviation, column.digits), deviation),
                Entry(number(min(values), column.digits), min(values)),
                Entry(number(max(values), column.digits), max(values)),
                Entry(str(len(values)), len(values)),
            ]
        )
    titles = ("value", "s.e.", "sd over seeds", "lowest", "highest", "seeds")
    heads = [Head("score"), *(Head(title, number=True) for title in titles)]
    return Table("Scores", heads, lines, titled=False) if lines else None


def _runs_table(dataset: Dataset, row: Row) -> Table:
    columns = [column for column in (*COST, *COST_OF_MACHINE) if any(column.score(run.record) for run in row.runs)]
    lines = [
        [
            *dataset.run_cells(run),
            *[
                DASH if value is None else Entry(quantity(value), value)
                for value in (value_of(dataset.judge.score(run, column)) for column in columns)
            ],
            Entry(machine(run.record.hardware)),
        ]
        for run in (*row.runs, *row.failed)
    ]
    heads = [Head("seed"), Head("status"), Head("record"), Head("commit")]
    heads += [*(Head(column.title, number=True) for column in columns), Head("machine")]
    return Table("Runs", heads, lines, titled=False)


def _command(row: Row) -> str:
    """What makes the row again, at the commit of its records. Quoted, since a stranger's words may be pasted."""
    record = row.runs[0].record
    lines = [] if record.git is None else [f"git checkout {shlex.quote(str(record.git['commit'])[:8])}"]
    threads = record.config.get("runtime", {}).get("threads", 0)
    for run in row.runs:
        init, data = run.seed
        settings: dict[str, Any] = {"model": record.model, "data": record.data, "budget": record.budget}
        settings |= {"seed": init} if init == data else {"seed.init": init, "seed.data": data}
        settings |= {"runtime.threads": threads} if threads else {}
        given = " ".join(shlex.quote(f"{name}={value}") for name, value in settings.items())
        lines.append(f"python -m benchmark run {given}")
    again = [f"python -m benchmark verify {shlex.quote(run.path.as_posix())}" for run in row.runs]
    return "\n".join([*lines, "", "# or from what its records hold, with a verdict", *again])


def _options(record: Record) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """The configuration that a reader may want to know, group by group."""
    for group in ("model", "budget", "training", "evaluation"):
        options = {name: value for name, value in record.config.get(group, {}).items() if name not in _IDENTITY}
        if options:
            yield group, tuple((name.replace("_", " "), str(value)) for name, value in options.items())


_IDENTITY = ("name", "target", "structures", "conditions", "modalities")
