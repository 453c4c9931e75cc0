"""All that is known of one dataset: its records in rows, its studies, and the cells that its tables share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from benchmark.leaderboard.columns import Column, Columns, columns, error_text, quantity
from benchmark.leaderboard.plots import COLOURS
from benchmark.leaderboard.published import Published
from benchmark.leaderboard.rows import Current, Judge, Ranking, Row, Run, budgets, select
from benchmark.leaderboard.rows import Entry as Ranked
from benchmark.leaderboard.sensitivity import Sensitivity, sensitivities, starts_of
from benchmark.leaderboard.stability import Stability, stabilities
from benchmark.leaderboard.texts import budget_title, cell_text, ended, seed, seeds
from benchmark.record import Record
from benchmark.spec import BadInput
from benchmark.sweep.studies import Starts, Study
from benchmark.tables import DASH, Entry


@dataclass(frozen=True)
class Group:
    """The rows of one dataset under one budget."""

    data: str
    budget: str
    rows: tuple[Row, ...]

    @property
    def minutes(self) -> float:
        return max(row.minutes for row in self.rows)

    @property
    def title(self) -> str:
        return budget_title(self.rows)

    @property
    def anchor(self) -> str:
        return re.sub(r"[^\w-]+", "-", self.budget)

    @cached_property
    def columns(self) -> Columns:
        return columns(self.rows[0].runs[0].record)


@dataclass(frozen=True, slots=True)
class Mention:
    """A run in a list: what is said of it, its record's name and file."""

    text: str
    record: str
    file: Path


class Dataset:
    """One dataset. Raises `BadInput` where its name cannot name a page."""

    def __init__(
        self,
        name: str,
        records: Mapping[Path, Record],
        current: Current | None = None,
        figures: Sequence[Published] = (),
        studies: Sequence[Study] = (),
        colours: Mapping[str, int] | None = None,
    ) -> None:
        """`colours` are those of families, `figures` what papers report of this dataset."""
        check_page_name("data", name)
        self.name, self.records, self.figures, self.studies = name, records, figures, studies
        self.colours = colours if colours is not None else colours_of([record.family for record in records.values()])
        self._rankings: dict[tuple[str, str, str], list[Ranking]] = {}
        self.problems: list[str] = []  # files beside records that cannot be read
        self.runs = [Run(path, record) for path, record in sorted(records.items())]
        self.judge = Judge(records.values())
        self.rows, self.superseded = select(records, current)
        self.groups = [
            Group(name, budget, tuple(row for row in self.rows if row.budget == budget))
            for budget in budgets(self.rows)
        ]

    @cached_property
    def starts(self) -> Starts:
        return starts_of(self.records)

    @cached_property
    def sensitive(self) -> list[Sensitivity]:
        return sensitivities(self.studies, self.starts)

    @cached_property
    def stable(self) -> list[Stability]:
        return stabilities(self.studies, self.rows, self.starts)

    @property
    def known_entropy(self) -> bool:
        """Whether it judges metrics: what is written on choosing leaves it out."""
        return any("entropy" in record.dataset for record in self.records.values())

    def rankings(self, group: Group, column: Column) -> list[Ranking]:
        """One for each protocol, the one with most rows first."""
        question = group.budget, column.metric, column.title
        if question not in self._rankings:
            self._rankings[question] = self.judge.rankings(group.rows, column)
        return self._rankings[question]

    def values(self, runs: Sequence[Run], column: Column) -> list[float]:
        """One of each run that has the score."""
        scores = [self.judge.score(run, column) for run in runs]
        return [score.value for score in scores if score is not None and score.value is not None]

    # Links -----------------------------------------------------------------------------------------------------------

    def anchor(self, row: Row) -> str:
        group = next(group for group in self.groups if group.budget == row.budget)
        return f"{self.name}-{group.anchor}-{row.runs[0].identity[:8]}"

    def page_of(self, row: Row) -> str:
        return f"model/{row.runs[0].record.model}.html#{quote(self.anchor(row))}"

    def mention(self, run: Run) -> Mention:
        """What a list says of a run, and its record."""
        record = run.record
        return Mention(f"{record.model}, {record.budget}, seed {seed(run)}: {ended(record)}", stem(run), run.path)

    # Cells -----------------------------------------------------------------------------------------------------------

    def family_cell(self, row: Row) -> Entry:
        return Entry(row.family, colour=self.colours.get(row.family))

    def score_cells(self, runs: Sequence[Run], columns: Sequence[Column]) -> list[Entry]:
        cells = [(self.judge.cell(runs, column), column) for column in columns]
        return [DASH if cell is None else Entry(cell_text(cell, c), cell.interval.centre) for cell, c in cells]

    def cost_cells(self, runs: Sequence[Run], columns: Sequence[Column]) -> list[Entry]:
        cells = [self.judge.cell(runs, column) for column in columns]
        return [DASH if cell is None else Entry(quantity(cell.interval.centre), cell.interval.centre) for cell in cells]

    def run_cells(self, run: Run) -> list[Entry]:
        """Seed, status, record, commit."""
        return [
            Entry(seed(run), run.seed[0] + run.seed[1] / 1e10),
            Entry(run.record.status),
            Entry(stem(run), file=run.path),
            commit_cell(run.record),
        ]


def check_page_name(what: str, name: str) -> None:
    """Raises `BadInput` where a page cannot be called after what a record says."""
    if not re.fullmatch(r"[\w-]+", name):
        raise BadInput(f"a record says {what}={name!r}, which cannot name a page: letters, digits, '_', '-' can")


def place_cell(entry: Ranked) -> Entry:
    return Entry(entry.place, entry.rank + entry.last / 1000)


def value_cells(entry: Ranked, column: Column) -> list[Entry]:
    cell = entry.cell
    error = Entry(error_text(cell.stderr, column.digits), cell.stderr)
    return [Entry(cell_text(cell, column), cell.interval.centre), error]


def seeds_cell(row: Row, runs: Sequence[Run]) -> Entry:
    return Entry(seeds(row, runs), len(runs))


def commit_cell(record: Record) -> Entry:
    if record.git is None:
        return Entry("unknown")
    changed = "with changes" if record.git.get("dirty") else ""
    return Entry(str(record.git["commit"])[:8], code=True, more=changed)


def stem(run: Run) -> str:
    """A record's name among others: of its file, or of the run's folder."""
    return run.path.parent.name if run.path.name == "record.json" else run.path.stem


def colours_of(families: Sequence[str]) -> dict[str, int]:
    return {family: index % COLOURS for index, family in enumerate(sorted(set(families)))}


def by_data(records: Mapping[Path, Record]) -> dict[str, dict[Path, Record]]:
    """Records of each dataset, in order."""
    found: dict[str, dict[Path, Record]] = defaultdict(dict)
    for path, record in sorted(records.items()):
        found[record.data][path] = record
    return dict(sorted(found.items()))
