"""What all pages of a site show: rows in groups, links between pages, and the cells that tables share."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from benchmark.leaderboard.columns import Column, Columns, columns, quantity
from benchmark.leaderboard.published import Published
from benchmark.leaderboard.rows import Current, Judge, Row, Run, budgets, select
from benchmark.leaderboard.sensitivity import sensitivities, starts_of
from benchmark.leaderboard.site.cells import DASH, commit, stem
from benchmark.leaderboard.site.plots import COLOURS
from benchmark.leaderboard.site.tables import Entry
from benchmark.leaderboard.stability import stabilities
from benchmark.leaderboard.texts import budget_title, cell_text, ended, seed
from benchmark.record import Record
from benchmark.spec import BadInput
from benchmark.sweep.studies import Study

_Content = TypeVar("_Content")
Models = Sequence[Mapping[str, Any]]


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


class Contents:
    """Those of one site. Names are checked: a page is called after each dataset and model.

    A file beside a record that cannot be read is named in `problems`, and raises `BadInput` without them.
    """

    def __init__(
        self,
        records: Mapping[Path, Record],
        models: Models,
        current: Current | None,
        figures: Sequence[Published],
        home: Path,
        studies: Sequence[Study],
        problems: list[str] | None,
    ) -> None:
        self.problems = problems
        self.records, self.figures, self.home = records, figures, home
        starts = starts_of(records)
        self.sensitive = sensitivities(studies, starts)
        self.judge = Judge(records.values())
        rows, self.superseded = select(records, current)
        self.stable = stabilities(studies, rows, starts)
        self.catalogue = {str(model["name"]): model for model in models}
        self.datasets = sorted({record.data for record in records.values()})
        self.models = sorted({*self.catalogue, *(record.model for record in records.values())})
        for what, name in [("data", name) for name in self.datasets] + [("model", name) for name in self.models]:
            if not re.fullmatch(r"[\w-]+", name):
                raise BadInput(
                    f"a record says {what}={name!r}, which cannot name a page: letters, digits, '_', '-' can"
                )
        families = {str(model["family"]) for model in models} | {record.family for record in records.values()}
        families |= {study.header.family for study in studies}
        self.colours = {family: index % COLOURS for index, family in enumerate(sorted(families))}
        by_data: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_data[row.runs[0].record.data].append(row)
        self.groups = [
            Group(data, budget, tuple(row for row in found if row.budget == budget))
            for data, found in sorted(by_data.items())
            for budget in budgets(found)
        ]

    def groups_of(self, data: str) -> list[Group]:
        """The largest budget first."""
        return [group for group in self.groups if group.data == data]

    def rows_of(self, model: str) -> list[tuple[Group, Row]]:
        return [(group, row) for group in self.groups for row in group.rows if row.runs[0].record.model == model]

    def family_of(self, model: str) -> str:
        """What the catalogue says, or the first record."""
        if (card := self.catalogue.get(model)) is not None:
            return str(card["family"])
        return next(record.family for _, record in sorted(self.records.items()) if record.model == model)

    def read(self, read: Callable[[Path], _Content | None], file: Path) -> _Content | None:
        """What lies beside a record; `None` where it is malformed."""
        try:
            return read(file)
        except BadInput as error:
            if self.problems is None:
                raise
            self.problems.append(str(error))
            return None

    def values(self, runs: Sequence[Run], column: Column) -> list[float]:
        """One of each run that has the score."""
        scores = [self.judge.score(run, column) for run in runs]
        return [score.value for score in scores if score is not None and score.value is not None]

    # Links -----------------------------------------------------------------------------------------------------------

    def anchor(self, group: Group, row: Row) -> str:
        return f"{group.data}-{group.anchor}-{row.runs[0].identity[:8]}"

    def row_page(self, group: Group, row: Row, up: str) -> str:
        return f"{up}model/{row.runs[0].record.model}.html#{quote(self.anchor(group, row))}"

    def link(self, path: Path) -> str:
        """From a page one folder below the site's own."""
        return quote(Path(os.path.relpath(path, self.home / "data")).as_posix())

    def mention(self, run: Run) -> dict[str, str]:
        """What a list says of a run, and its record."""
        record = run.record
        text = f"{record.model}, {record.budget}, seed {seed(run)}: {ended(record)}"
        return {"text": text, "record": stem(run), "href": self.link(run.path)}

    # Cells -----------------------------------------------------------------------------------------------------------

    def family_cell(self, row: Row) -> Entry:
        return Entry(row.family, colour=self.colours[row.family])

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
            Entry(stem(run), href=self.link(run.path)),
            Entry(commit(run.record), code=True),
        ]
