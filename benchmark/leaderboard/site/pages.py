"""Records and the catalogue to pages. The same records always give the same bytes."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup

from benchmark.leaderboard.choosing import LEAD, advice
from benchmark.leaderboard.columns import (
    COST,
    COST_OF_MACHINE,
    MARKS,
    Column,
    Columns,
    columns,
    error_text,
    number,
    quantity,
    value_of,
)
from benchmark.leaderboard.compare import Side, compare
from benchmark.leaderboard.published import Published, read_published
from benchmark.leaderboard.rows import Current, Judge, Ranking, Row, Run, Superseded, budgets, select
from benchmark.leaderboard.rows import Entry as Ranked
from benchmark.leaderboard.sensitivity import sensitivities, starts_of
from benchmark.leaderboard.site.cells import (
    DASH,
    command,
    commit,
    inline,
    options,
    place_cell,
    reference_cells,
    seeds_cell,
    stem,
    value_cells,
)
from benchmark.leaderboard.site.plots import COLOURS, Point, curve_plot, interval_plot, pareto_plot
from benchmark.leaderboard.site.studies import studied, studies_page
from benchmark.leaderboard.site.tables import Entry, Head, Matrix, Table, dressed, linked
from benchmark.leaderboard.stability import stabilities
from benchmark.leaderboard.texts import (
    absences,
    budget_title,
    by_machine,
    cell_text,
    conditions,
    ended,
    machine,
    marked,
    outdated,
    seed,
    unit,
    words,
)
from benchmark.record import Record
from benchmark.spec import CAPABILITIES, BadInput
from benchmark.sweep.studies import Study
from benchmark.traces import NEIGHBOURS, read_curves, read_picture, read_text

_STUDIES = {
    "sensitivity.md": "Which hyperparameters matter, in full",
    "stability.md": "Which models are stable, in full",
}

#: Of the costs that depend on a machine, those across which quality is drawn.
_TIMES = tuple(column for column in COST_OF_MACHINE if column.fact.better == "lower")

_Content = TypeVar("_Content")
Models = Sequence[Mapping[str, Any]]


def site(
    records: Mapping[Path, Record],
    models: Models,
    current: Current | None = None,
    published: Path | None = None,
    home: Path = Path("leaderboards/site"),
    studies: Sequence[Study] = (),
    beside: Mapping[str, str] = MappingProxyType({}),
    problems: list[str] | None = None,
) -> dict[str, str]:
    """The site's files, path below `home` → text: `index.html`, a page a dataset and a model, style and script.

    `models` are the catalogue's entries: name, family, capabilities, paper. `current` and `published` are those of
    `boards`, `studies` the committed ones; links to records are relative to `home`. `beside` are whole pages that
    others make, name → HTML: each page links to them. A file beside a record that cannot be read is left out and named
    in `problems`. Raises `BadInput` where a record's names cannot be shown, and without `problems` for such a file.
    """
    figures = read_published(published) if published else ()
    pages = _Site(records, models, current, figures, home, studies, tuple(beside), problems).files()
    return pages | {f"{name}.html": html for name, html in beside.items()}


@dataclass(frozen=True)
class _Group:
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


class _Site:
    def __init__(
        self,
        records: Mapping[Path, Record],
        models: Models,
        current: Current | None,
        figures: Sequence[Published],
        home: Path,
        studies: Sequence[Study],
        beside: Sequence[str],
        problems: list[str] | None,
    ) -> None:
        self.problems = problems
        self.records, self.figures, self.home, self.studies = records, figures, home, studies
        starts = starts_of(records)
        self.sensitive = sensitivities(studies, starts)
        self.beside = beside
        self.current = current
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
            _Group(data, budget, tuple(row for row in found if row.budget == budget))
            for data, found in sorted(by_data.items())
            for budget in budgets(found)
        ]
        self.templates = jinja2.Environment(
            loader=jinja2.PackageLoader("benchmark.leaderboard.site"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {"linked": linked}

    def files(self) -> dict[str, str]:
        assets = files("benchmark.leaderboard.site") / "assets"
        found = {f"assets/{name}": (assets / name).read_text(encoding="utf-8") for name in ("site.css", "tables.js")}
        found["index.html"] = self._render("index.html", "", **self._index())
        for data in self.datasets:
            found[f"data/{data}.html"] = self._render("dataset.html", "../", **self._dataset(data))
        for model in self.models:
            found[f"model/{model}.html"] = self._render("model.html", "../", **self._model(model))
        pages = {name: f"model/{name}.html" for name in self.models}
        if self.stable:
            content = studies_page(self.sensitive, self.stable, pages, self.colours)
            found["studies.html"] = self._render("studies.html", "", **content)
        parts = [
            replace(part, table=part.table and dressed(part.table, pages, self.colours))
            for part in advice(self.records, list(self.catalogue.values()), self.current, self.studies)
        ]
        found["choosing.html"] = self._render("choosing.html", "", lead=LEAD, parts=parts)
        return found

    def _render(self, template: str, up: str, **content: Any) -> str:
        studies = {title: f"{up}../{name}" for name, title in _STUDIES.items() if (self.home.parent / name).is_file()}
        others = ("choosing", *(["studies"] if self.stable else []), *self.beside)
        shared = {"up": up, "datasets": self.datasets, "studies": studies, "others": others}
        return self.templates.get_template(template).render(**shared, **content)

    # The index -------------------------------------------------------------------------------------------------------

    def _index(self) -> dict[str, Any]:
        costs = COST[:2]
        heads = [Head("model"), Head("dataset", filter=True), Head("quantity", filter=True)]
        heads += [Head(title, number=True) for title in ("value", "s.e.", "rank", "seeds")]
        heads += [Head("family", filter=True), Head("budget", filter=True)]
        heads += [*(Head(column.title, number=True) for column in costs), Head("protocol", filter=True)]
        lines = [
            [
                Entry(marked(entry.row), href=self._row_page(group, entry.row, ""), head=True),
                Entry(group.data, href=f"data/{group.data}.html"),
                Entry(quality.title),
                *value_cells(entry, quality),
                place_cell(entry),
                seeds_cell(entry.row, entry.runs),
                self._family(entry.row),
                Entry(group.budget, sort=group.minutes),
                *self._costs(entry.runs, costs),
                Entry(words(ranking.protocol)),
            ]
            for group in self.groups
            for quality in group.columns.leading
            for ranking in self.judge.rankings(group.rows, quality)
            for entry in ranking.entries
        ]
        cards = [
            {
                "name": data,
                "modality": next(group.columns.kind.name for group in self.groups if group.data == data),
                "rows": sum(len(group.rows) for group in self.groups if group.data == data),
                "runs": sum(len(row.runs) for group in self.groups if group.data == data for row in group.rows),
                "leaders": list(self._leaders(data)),
                "published": sum(len(group.figures) for group in self.figures if group.data == data),
            }
            for data in self.datasets
            if any(group.data == data for group in self.groups)
        ]
        return {
            "results": Table("All results", heads, lines, titled=False),
            "cards": cards,
            "models": self._models_table(),
        }

    def _leaders(self, data: str) -> Iterator[tuple[str, str, str]]:
        """What is measured, who is first in its largest ranking under the largest budget, and with what."""
        group = next(group for group in self.groups if group.data == data)
        for quality in group.columns.leading:
            for ranking in self.judge.rankings(group.rows, quality)[:1]:
                first = [entry for entry in ranking.entries if entry.rank == 1]
                yield quality.title, ", ".join(e.row.name for e in first), cell_text(first[0].cell, quality)

    def _models_table(self) -> Table:
        lines = []
        for name in self.models:
            card = self.catalogue.get(name)
            shown = sorted({group.data for group in self.groups for row in group.rows if _named(row, name)})
            family = str(card["family"]) if card else self._runs_of(name)[0].record.family
            promises = ", ".join(card["capabilities"]) if card else ""
            lines.append(
                [
                    Entry(name, href=f"model/{name}.html", head=True),
                    Entry(family, colour=self.colours[family]),
                    Entry(promises or "samples only" if card else "not in the catalogue"),
                    Entry(", ".join(shown) or "—"),
                ]
            )
        heads = [Head("model"), Head("family", filter=True), Head("promises"), Head("on the board for")]
        return Table("Models", heads, lines, titled=False)

    # A dataset -------------------------------------------------------------------------------------------------------

    def _dataset(self, data: str) -> dict[str, Any]:
        runs = [Run(path, record) for path, record in sorted(self.records.items()) if record.data == data]
        groups = [group for group in self.groups if group.data == data]
        known: dict[str, dict[str, Any]] = {}
        for run in runs:
            if run.fingerprint:
                known.setdefault(run.fingerprint, run.record.dataset)
        machines = Counter(machine(run.record.hardware) for group in groups for row in group.rows for run in row.runs)
        return {
            "data": data,
            "cards": list(known.values()),
            "machines": [f"{name} ({n} {'run' if n == 1 else 'runs'})" for name, n in sorted(machines.items())],
            "budgets": [self._budget(group) for group in groups],
            "published": self._published(data),
            "records": self._records(groups),
            "unfinished": [
                self._ended(run)
                for group in groups
                for row in group.rows
                for run in (*(run for run in row.runs if run.record.status != "finished"), *row.failed)
            ],
            "impossible": [
                (self._ended(run), run.impossible) for group in groups for row in group.rows for run in row.impossible
            ],
            "superseded_records": [
                (self._ended(old.run), old.why) for old in self.superseded if old.run.record.data == data
            ],
        }

    def _budget(self, group: _Group) -> dict[str, Any]:
        shown, main = group.columns, group.columns.likelihood
        tables = self._tables("Likelihood", group, main, shown.beside, COST)
        parts = [self._with_figures(table, ranking, main) for table, ranking in tables]
        more = self._more("More on the same models", group, main, shown.more_on_likelihood)
        if shown.samples:
            first, *others = shown.samples
            tables = self._tables("Samples", group, first, others, ())
            parts += [self._with_figures(table, ranking, first) for table, ranking in tables]
            more += self._more("More on samples", group, first, shown.more_on_samples)
        costs = list(self._pareto(group))
        times = list(self._times(group))
        content = {"tables": parts, "more": more, "costs": costs, "times": times}
        return {"title": group.title, "anchor": group.anchor, **content}

    def _with_figures(self, table: Table, ranking: Ranking | None, column: Column) -> dict[str, Any]:
        """A table; where it ranks two rows or more, their intervals and who improves on whom."""
        if ranking is None or len(ranking.entries) < 2:
            return {"table": table, "plot": None, "matrices": []}
        plot = self._interval_plot(table.caption, ranking, column)
        return {"table": table, "plot": plot, "matrices": list(self._matrices(ranking, column))}

    def _tables(
        self, title: str, group: _Group, main: Column, beside: Sequence[Column], cost: Sequence[Column]
    ) -> list[tuple[Table, Ranking | None]]:
        """One table for each protocol, with what it ranks. Rows without the score stand in the first."""
        rankings = self.judge.rankings(group.rows, main)
        ranked = {entry.row.name for ranking in rankings for entry in ranking.entries}
        without = [row for row in group.rows if row.name not in ranked]
        notes = absences(self.judge, group.rows, main, beside)
        notes += [line for column in cost for line in outdated(self.judge, group.rows, column)]
        heads = [Head("rank", number=True), Head("model"), Head(main.title, number=True), Head("s.e.", number=True)]
        heads += [Head("seeds", number=True), Head("family", filter=True)]
        heads += [Head(column.title, number=True) for column in (*beside, *cost)]
        found: list[tuple[Table, Ranking | None]] = []
        for index, ranking in enumerate(rankings):
            lines = [
                [
                    place_cell(entry),
                    Entry(marked(entry.row), href=self._row_page(group, entry.row, "../"), head=True),
                    *value_cells(entry, main),
                    seeds_cell(entry.row, entry.runs),
                    self._family(entry.row),
                    *self._others(entry.runs, beside),
                    *self._costs(entry.runs, cost),
                ]
                for entry in ranking.entries
            ]
            if index == 0:
                lines += [self._without(group, row, beside, cost) for row in without]
            below = [reference_cells(reference, main, beside, cost) for reference in ranking.references]
            lined = conditions(self.judge, ranking, beside) + (notes if index == 0 else [])
            caption = f"{title}: {words(ranking.protocol)}"
            found.append((Table(caption, heads, lines, below, lined), ranking))
        if not rankings and without:
            lines = [self._without(group, row, beside, cost) for row in without]
            shown = Table(title, heads, lines, notes=notes)
            return [(shown if cost else Table(f"{title}: no row has {main.title}", (), (), notes=notes), None)]
        return found

    def _more(self, title: str, group: _Group, main: Column, columns: Sequence[Column]) -> list[Table]:
        """Further columns in the order of a first table; those that no record has are left out."""
        runs = [run for row in group.rows for run in row.scored]
        shown = [column for column in columns if any(self.judge.score(run, column) for run in runs)]
        return [table for table, _ in self._tables(title, group, main, shown, ())] if shown else []

    def _without(self, group: _Group, row: Row, beside: Sequence[Column], cost: Sequence[Column]) -> list[Entry]:
        name = Entry(marked(row), href=self._row_page(group, row, "../"), head=True)
        others = [*self._others(row.scored, beside), *self._costs(row.scored, cost)]
        return [DASH, name, DASH, DASH, seeds_cell(row, row.scored), self._family(row), *others]

    def _others(self, runs: Sequence[Run], columns: Sequence[Column]) -> list[Entry]:
        cells = [(self.judge.cell(runs, column), column) for column in columns]
        return [DASH if cell is None else Entry(cell_text(cell, c), cell.interval.centre) for cell, c in cells]

    def _costs(self, runs: Sequence[Run], columns: Sequence[Column]) -> list[Entry]:
        cells = [self.judge.cell(runs, column) for column in columns]
        return [DASH if cell is None else Entry(quantity(cell.interval.centre), cell.interval.centre) for cell in cells]

    def _times(self, group: _Group) -> Iterator[Table]:
        """What rows cost on each hardware, the quickest training first."""
        heads = [Head("model"), *(Head(column.title, number=True) for column in COST_OF_MACHINE)]
        heads += [Head("seeds", number=True), Head("family", filter=True)]
        for hardware, timed in by_machine(group.rows).items():
            lines = [
                [
                    Entry(marked(row), href=self._row_page(group, row, "../"), head=True),
                    *self._costs(runs, COST_OF_MACHINE),
                    seeds_cell(row, runs),
                    self._family(row),
                ]
                for row, runs in timed
            ]
            lines.sort(key=lambda line: (line[1].sort is None, line[1].sort or 0.0, line[0].text))
            yield Table(f"Times on {hardware}", heads, lines)

    # Figures ---------------------------------------------------------------------------------------------------------

    def _points(self, ranking: Ranking, column: Column) -> list[Point]:
        return [
            Point(
                entry.row.name,
                self.colours[entry.row.family],
                entry.cell.interval.centre,
                *entry.cell.ends,
                exact=entry.cell.how.get("likelihood", "exact") == "exact",
                seeds=tuple(self._values(entry, column)),
            )
            for entry in ranking.entries
        ]

    def _values(self, entry: Ranked, column: Column) -> list[float]:
        scores = [self.judge.score(run, column) for run in entry.runs]
        return [score.value for score in scores if score is not None and score.value is not None]

    def _interval_plot(self, caption: str, ranking: Ranking, column: Column) -> Markup:
        """Reference values that lie beyond all rows are left to the table."""
        points = self._points(ranking, column)
        floors = {
            reference.name.replace("_", " "): value
            for reference in ranking.references
            if (value := value_of(reference.scores[column.metric])) is not None
            and value <= max(point.high for point in points)
        }
        log = column.log and all(point.low > 0 for point in points)
        return interval_plot(caption, column.title, points, floors, log)

    def _pareto(self, group: _Group) -> Iterator[dict[str, Any]]:
        """For each quality, a figure for each cost that two rows or more have: times on one hardware each."""
        for quality in group.columns.leading:
            for ranking in self.judge.rankings(group.rows, quality)[:1]:
                plots = [self._pareto_plot(group, ranking, quality, cost) for cost in COST]
                if shown := [plot for plot in plots if plot is not None]:
                    yield {"title": f"{quality.title} against cost", "plots": shown}
                for hardware in by_machine(group.rows):
                    plots = [self._pareto_plot(group, ranking, quality, cost, hardware) for cost in _TIMES]
                    if shown := [plot for plot in plots if plot is not None]:
                        yield {"title": f"{quality.title} against time on {hardware}", "plots": shown}

    def _pareto_plot(
        self, group: _Group, ranking: Ranking, quality: Column, cost: Column, hardware: str | None = None
    ) -> Markup | None:
        """Quality against a cost, of the runs on some hardware or of all; `None` where fewer than two rows have it."""
        points = []
        for entry, point in zip(ranking.entries, self._points(ranking, quality), strict=True):
            runs = [run for run in entry.runs if hardware is None or machine(run.record.hardware) == hardware]
            scores = [self.judge.score(run, cost) for run in runs]
            known = [score.value for score in scores if score is not None and score.value]
            if known:
                points.append(replace(point, cost=sum(known) / len(known)))
        if len(points) < 2:
            return None
        where = "" if hardware is None else f", on {hardware}"
        caption = f"{quality.title} against {cost.fact.about}, {group.data}, {group.budget}{where}"
        log = quality.log and all(point.low > 0 for point in points)
        return pareto_plot(caption, quality.title, cost.fact.about, points, log)

    def _matrices(self, ranking: Ranking, column: Column) -> Iterator[Matrix]:
        """Who is better than whom: over pairs of runs, and where the score is a mean over test examples, over those."""
        sides = [Side(entry.row.name, entry.runs) for entry in ranking.entries]
        found = {
            (i, j): compare(a, b, column.metric, self.problems)
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

    # Below the tables ------------------------------------------------------------------------------------------------

    def _published(self, data: str) -> Table | None:
        lines = [
            [
                Entry(figure.model, head=True),
                Entry(f"{MARKS[figure.likelihood]}{figure.value:g}", figure.value),
                Entry(unit(group)),
                Entry(self._ours(data, group.metric)),
                Entry("yes" if group.comparable else "no"),
                Entry(f"{group.protocol}{f'; {figure.note}' if figure.note else ''}"),
                Entry(group.why),
                Entry(figure.citation),
            ]
            for group in self.figures
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

    def _ours(self, data: str, metric: str) -> str:
        """The rows under the largest budget that have this metric, best first: `lstm 1.680, gpt 1.685`."""
        group = next((group for group in self.groups if group.data == data), None)
        known = () if group is None else group.columns.everything
        column = next((column for column in known if column.metric == metric), None)
        if group is None or column is None:
            return "—"
        entries = [entry for ranking in self.judge.rankings(group.rows, column) for entry in ranking.entries]
        entries.sort(key=lambda entry: column.sign * entry.cell.interval.centre)
        return ", ".join(f"{marked(entry.row)} {cell_text(entry.cell, column)}" for entry in entries) or "—"

    def _records(self, groups: Sequence[_Group]) -> Table | None:
        lines = [
            [
                Entry(row.name, href=self._row_page(group, row, "../"), head=True),
                Entry(group.budget, sort=group.minutes),
                *self._run_cells(run),
                Entry(run.record.config_hash[:8], code=True),
            ]
            for group in groups
            for row in group.rows
            for run in row.runs
        ]
        heads = [Head("model", filter=True), Head("budget", filter=True), Head("seed", number=True)]
        heads += [Head("status", filter=True), Head("record"), Head("commit"), Head("configuration")]
        return Table("Records", heads, lines, titled=False) if lines else None

    def _run_cells(self, run: Run) -> list[Entry]:
        """Seed, status, record, commit."""
        return [
            Entry(seed(run), run.seed[0] + run.seed[1] / 1e10),
            Entry(run.record.status),
            Entry(stem(run), href=self._file(run.path)),
            Entry(commit(run.record), code=True),
        ]

    def _ended(self, run: Run) -> dict[str, str]:
        record = run.record
        text = f"{record.model}, {record.budget}, seed {seed(run)}: {ended(record)}"
        return {"text": text, "record": stem(run), "href": self._file(run.path)}

    # A model ---------------------------------------------------------------------------------------------------------

    def _model(self, name: str) -> dict[str, Any]:
        card = self.catalogue.get(name)
        promised = set(card["capabilities"]) if card else set()
        family = str(card["family"]) if card else self._runs_of(name)[0].record.family
        groups = [(group, row) for group in self.groups for row in group.rows if _named(row, name)]
        return {
            "name": name,
            "card": card,
            "family": family,
            "colour": self.colours[family],
            "promises": [
                (capability.__name__, (capability.__doc__ or "").split("\n")[0])
                for capability in CAPABILITIES
                if capability.__name__ in promised
            ],
            "sections": [self._section(group, row) for group, row in groups],
            "superseded_records": [(self._ended(old.run), old.why) for old in self._superseded_of(name)],
        }

    def _section(self, group: _Group, row: Row) -> dict[str, Any]:
        """One row of a board, with all that is known of its runs."""
        record = row.runs[0].record
        studies = [one for one in self.sensitive if (one.of.data, one.of.model) == (group.data, record.model)]
        return {
            "title": f"{group.data}, {row.budget}{'' if row.name == record.model else f', {row.name}'}",
            "anchor": self._anchor(group, row),
            "data": group.data,
            "figures": list(self._headline(group, row)),
            "strip": self._strip(row),
            "neighbours": self._picture(row, NEIGHBOURS),
            "curves": list(self._curves(row)),
            "spread": self._spread(group, row),
            "studied": studied(studies[0], self.colours[row.family]) if studies else None,
            "runs": self._runs_table(row),
            "command": command(row),
            "options": options(record),
        }

    def _headline(self, group: _Group, row: Row) -> Iterator[tuple[str, str, str]]:
        """Title, value and place of what ranks; then the costs."""
        for quality in group.columns.leading:
            for ranking in self.judge.rankings(group.rows, quality):
                for entry in ranking.entries:
                    if entry.row is row:
                        of = f"rank {entry.place} of {len(ranking.entries)}"
                        yield quality.title, cell_text(entry.cell, quality), of
        yield "training examples", " to ".join(f"{n:,}" for n in sorted({run.planned for run in row.runs})), ""
        for column in COST:
            if (cell := self.judge.cell(row.scored, column)) is not None:
                yield column.title, quantity(cell.interval.centre), ""

    def _strip(self, row: Row) -> dict[str, Any] | None:
        """Samples over training of the first run that kept some."""
        for run in row.runs:
            picture = self._read(read_picture, run.path.with_suffix(".png"))
            if picture is not None:
                return {"seed": seed(run), "image": inline(picture[0]), "moments": picture[1], "text": None}
            text = self._read(read_text, run.path.with_suffix(".txt"))
            if text is not None:
                return {"seed": seed(run), "image": None, "moments": (), "text": text}
        return None

    def _picture(self, row: Row, suffix: str) -> dict[str, str] | None:
        for run in row.runs:
            picture = self._read(read_picture, run.path.with_name(run.path.stem + suffix))
            if picture is not None:
                return {"seed": seed(run), "image": inline(picture[0])}
        return None

    def _curves(self, row: Row) -> Iterator[Markup]:
        """Validation first, then the training loss; one figure each over all seeds that kept curves."""
        kept = [curves for run in row.runs if (curves := self._read(read_curves, run.path))]
        names = [*sorted({name for curves in kept for name in curves if name.startswith("val/")}), "train/loss"]
        for name in names:
            found = [curves[name] for curves in kept if len(curves.get(name, ())) > 1]
            if found:
                what = f"{'validation' if name.startswith('val/') else 'training'}: {name.partition('/')[2]}"
                caption = f"{row.name} on {row.runs[0].record.data}, {what}, {len(found)} seeds"
                yield curve_plot(caption, what.replace("_", " "), found, self.colours[row.family])

    def _spread(self, group: _Group, row: Row) -> Table | None:
        """How much the seeds differ: standard deviation, best and worst."""
        lines = []
        for column in group.columns.everything:
            cell = self.judge.cell(row.scored, column)
            if cell is None:
                continue
            scores = [self.judge.score(run, column) for run in row.scored]
            values = [score.value for score in scores if score is not None and score.value is not None]
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

    def _runs_table(self, row: Row) -> Table:
        columns = [column for column in (*COST, *COST_OF_MACHINE) if any(column.score(run.record) for run in row.runs)]
        lines = [
            [
                *self._run_cells(run),
                *[
                    DASH if value is None else Entry(quantity(value), value)
                    for value in (value_of(self.judge.score(run, column)) for column in columns)
                ],
                Entry(machine(run.record.hardware)),
            ]
            for run in (*row.runs, *row.failed)
        ]
        heads = [Head("seed", number=True), Head("status"), Head("record"), Head("commit")]
        heads += [*(Head(column.title, number=True) for column in columns), Head("machine")]
        return Table("Runs", heads, lines, titled=False)

    def _read(self, read: Callable[[Path], _Content | None], file: Path) -> _Content | None:
        """What lies beside a record; `None` where it is malformed."""
        try:
            return read(file)
        except BadInput as error:
            if self.problems is None:
                raise
            self.problems.append(str(error))
            return None

    # Links and names -------------------------------------------------------------------------------------------------

    def _runs_of(self, model: str) -> list[Run]:
        return [Run(path, record) for path, record in sorted(self.records.items()) if record.model == model]

    def _superseded_of(self, model: str) -> list[Superseded]:
        return [old for old in self.superseded if old.run.record.model == model]

    def _family(self, row: Row) -> Entry:
        return Entry(row.family, colour=self.colours[row.family])

    def _anchor(self, group: _Group, row: Row) -> str:
        return f"{group.data}-{group.anchor}-{row.runs[0].identity[:8]}"

    def _row_page(self, group: _Group, row: Row, up: str) -> str:
        return f"{up}model/{row.runs[0].record.model}.html#{quote(self._anchor(group, row))}"

    def _file(self, path: Path) -> str:
        """From a page one folder below the site's own."""
        return quote(Path(os.path.relpath(path, self.home / "data")).as_posix())


def _named(row: Row, model: str) -> bool:
    return row.runs[0].record.model == model
