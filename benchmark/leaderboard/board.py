"""Records to Markdown. The same records always give the same pages: nothing here depends on when or where it runs."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.leaderboard.columns import (
    COST,
    COST_OF_MACHINE,
    MARKS,
    Column,
    columns,
    error_text,
    quantity,
    single,
)
from benchmark.leaderboard.markdown import bullets, code, escape, folded, link, page, table
from benchmark.leaderboard.published import Published, read_published
from benchmark.leaderboard.rows import Current, Judge, Reference, Row, Run, Superseded, budgets, select
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
    seeds,
    unit,
    words,
)
from benchmark.record import Record
from benchmark.spec import BadInput

_GENERATED = "<!-- Generated from records by `python -m benchmark leaderboard`: never edited by hand. -->"

_HOW_TO_READ = """\
A value is the mean over training seeds ± half the width of its 95 % Student-t interval; for FID it is the geometric
mean with an interval on the log scale. One seed has no interval. *s.e.* is the standard error of the evaluation
(over test examples, for FID also over draws of samples), pooled over seeds. `≤` marks an upper bound, `≈` an
approximation, nothing an exact number. Rows stand in the order of their means, and ranks hold within one table: numbers
under different protocols never share one. A rank such as 1–2 is shared: the best and the worst place that the row can
hold where intervals overlap (with one seed, 1.96 s.e. to either side). Rows without a rank need no model: baselines,
and real images in the place of samples. *Held-out data* is the floor; where its split is stratified by class,
independent samples cannot quite reach it. *Training data* is drawn independently from the reference itself: what a
sampler that only copies would score. ‡ marks a row whose sampler memorises: more of its samples than of held-out images
are near copies (in pixels, nearer to a training image than half of the way from that to the next), by over 0.05 and by
over three standard errors, in one run at least. § marks a model from outside whose source did not pass the exam, or did
not sit it: that it keeps its promises, such as a likelihood that sums to one, is its author's word.

*Training FLOPs* are those of forward and backward passes over all examples that training saw; *evaluations/sample* says
how often the network is asked for one sample. Neither depends on a machine. Times do: they stand apart, in one table
for each hardware.
"""


def boards(
    records: Mapping[Path, Record],
    current: Current | None = None,
    published: Path | None = None,
    home: Path = Path("leaderboards"),
) -> dict[str, str]:
    """The pages of a leaderboard, file name → Markdown: one a dataset, and `README.md` that lists them.

    `current` maps (data, model, budget) to the identity of the tuned configuration, or of several, each of whose
    runs make a row; `None` takes every configuration as it is. `published` is the file of reported figures. `home` is
    the folder of the pages: links to records are relative to it. Raises `BadInput` where references or `published` are
    malformed.
    """
    figures = read_published(published) if published is not None else ()
    judge = Judge(records.values())
    rows, superseded = select(records, current)
    pages, index = {}, []
    for data in sorted({record.data for record in records.values()}):
        if not re.fullmatch(r"[\w-]+", data):
            raise BadInput(f"a record says data={data!r}, which cannot name a page: letters, digits, '_' and '-' can")
        board = _Board(
            data,
            [row for row in rows if row.runs[0].record.data == data],
            [entry for entry in superseded if entry.run.record.data == data],
            [Run(path, record) for path, record in sorted(records.items()) if record.data == data],
            [figure for figure in figures if figure.data == data],
            judge,
            home,
        )
        pages[f"{data}.md"] = board.page()
        index.append([link(data, PurePosixPath(f"{data}.md")), board.leaders(), str(len(board.rows)), board.counts()])
    header = ["data", "first in likelihood", "rows", "runs"]
    return {"README.md": page(["# Leaderboards", _GENERATED, table(header, index, left=2)]), **pages}


class _Board:
    """One dataset's page."""

    def __init__(
        self,
        data: str,
        rows: Sequence[Row],
        superseded: Sequence[Superseded],
        runs: Sequence[Run],
        figures: Sequence[Published],
        judge: Judge,
        home: Path,
    ) -> None:
        self.data, self.rows, self.superseded, self.runs = data, rows, superseded, runs
        self.figures, self.judge, self.home = figures, judge, home
        self.columns = columns(runs[0].record)

    def page(self) -> str:
        parts = [f"# {escape(self.data)}", _GENERATED, self._dataset(), _HOW_TO_READ.strip()]
        for budget in self._budgets():
            parts += self._budget(budget)
        parts += [self._impossible(), self._unfinished(), self._published(), self._evidence(), self._superseded()]
        return page(parts)

    def leaders(self) -> str:
        """For each budget, who is first in its largest ranking."""
        found = []
        for budget in self._budgets():
            for ranking in self.judge.rankings(self._under(budget), self.columns.likelihood)[:1]:
                first, *others = [entry for entry in ranking.entries if entry.rank == 1]
                value = f"{cell_text(first.cell, ranking.column)} {ranking.column.title}"
                shared = f", shared with {', '.join(escape(entry.row.name) for entry in others)}" if others else ""
                found.append(f"{escape(budget)}: {escape(first.row.name)}, {value}{shared}")
        return "; ".join(found) or "—"

    def counts(self) -> str:
        """`12, of which 1 diverged`."""
        statuses = Counter[str](run.record.status for row in self.rows for run in (*row.runs, *row.failed))
        total = statuses.total()
        del statuses["finished"]
        impossible = sum(len(row.impossible) for row in self.rows)
        statuses += Counter({"impossible": impossible})
        others = ", ".join(f"{n} {status}" for status, n in sorted(statuses.items()))
        return f"{total}{f', of which {others}' if others else ''}"

    # The head --------------------------------------------------------------------------------------------------------

    def _dataset(self) -> str:
        seen: dict[str, dict[str, Any]] = {}
        for run in self.runs:
            if run.fingerprint:
                seen.setdefault(run.fingerprint, run.record.dataset)
        lines = []
        for card in seen.values():
            facts = {"Source": "source", "Licence": "licence", "Cite": "citation", "Note": "note"}
            lines += [f"{title}: {escape(card[key])}" for title, key in facts.items() if card.get(key)]
            splits = (f"{name} {int(of['n']):,} ({code(of['sha256'][:8])})" for name, of in card["splits"].items())
            lines.append(f"Splits, with the start of their SHA-256: {', '.join(splits)}")
            if not card.get("publishable", True):
                lines.append("Records on this data are never published.")
        machines = Counter(machine(run.record.hardware) for row in self.rows for run in row.runs)
        runs = (f"{escape(name)} ({n} {'run' if n == 1 else 'runs'})" for name, n in sorted(machines.items()))
        lines.append(f"Hardware: {'; '.join(runs) or '—'}")
        command = f"python -m benchmark run model=MODEL data={self.data} budget=BUDGET seed=SEED"
        lines.append(f"To run a row again: {code(command)}, at the commit that its records name.")
        return bullets(lines)

    # Tables ----------------------------------------------------------------------------------------------------------

    def _budgets(self) -> list[str]:
        return budgets(self.rows)

    def _under(self, budget: str) -> list[Row]:
        return [row for row in self.rows if row.budget == budget]

    def _budget(self, budget: str) -> list[str]:
        rows = self._under(budget)
        parts = [f"## Budget {escape(budget_title(rows))}"]
        likelihood, samples = self.columns.likelihood, self.columns.samples
        parts += self._tables("Likelihood", rows, likelihood, self.columns.beside, COST)
        parts += self._more("More on the same models", rows, likelihood, self.columns.more_on_likelihood)
        if samples:
            parts += self._tables("Samples", rows, samples[0], samples[1:], ())
            parts += self._more("More on samples", rows, samples[0], self.columns.more_on_samples)
        return parts + self._times(rows)

    def _times(self, rows: Sequence[Row]) -> list[str]:
        """What rows cost on each hardware, the quickest training first."""
        parts = []
        header = ["model", "family", *(column.title for column in COST_OF_MACHINE), "seeds"]
        for hardware, timed in by_machine(rows).items():
            lines = []
            for row, runs in timed:
                cells = [self.judge.cell(runs, column) for column in COST_OF_MACHINE]
                shown = ["—" if cell is None else quantity(cell.interval.centre) for cell in cells]
                first = math.inf if cells[0] is None else cells[0].interval.centre
                lines.append((first, [escape(marked(row)), escape(row.family), *shown, seeds(row, runs)]))
            content = table(header, [line for _, line in sorted(lines)], left=2)
            parts += [f"### Times on {escape(hardware)}", content]
        return parts

    def _more(self, title: str, rows: Sequence[Row], main: Column, columns: Sequence[Column]) -> list[str]:
        """Further columns in the order of a first table, folded; those that no record has are left out."""
        runs = [run for row in rows for run in row.scored]
        shown = [column for column in columns if any(self.judge.score(run, column) is not None for run in runs)]
        return [folded(title, page(self._tables(title, rows, main, shown, ())))] if shown else []

    def _tables(
        self, title: str, rows: Sequence[Row], main: Column, beside: Sequence[Column], cost: Sequence[Column]
    ) -> list[str]:
        """One table for each protocol. Rows without the score stand below the first."""
        rankings = self.judge.rankings(rows, main)
        ranked = {entry.row.name for ranking in rankings for entry in ranking.entries}
        without = [row for row in rows if row.name not in ranked]
        notes = absences(self.judge, rows, main, beside)
        notes += [line for column in cost for line in outdated(self.judge, rows, column)]
        header = ["rank", "model", "family", main.title, "s.e.", *(c.title for c in (*beside, *cost)), "seeds"]
        parts = []
        for index, ranking in enumerate(rankings):
            lines = [
                [
                    entry.place,
                    escape(marked(entry.row)),
                    escape(entry.row.family),
                    cell_text(entry.cell, main),
                    error_text(entry.cell.stderr, main.digits),
                    *self._others(entry.runs, beside, cost),
                    seeds(entry.row, entry.runs),
                ]
                for entry in ranking.entries
            ]
            if index == 0:
                lines += [self._without(row, beside, cost) for row in without]
            lines += [_reference(reference, main, beside, cost) for reference in ranking.references]
            parts += [f"### {title}: {escape(words(ranking.protocol))}", table(header, lines, left=3)]
            below = conditions(self.judge, ranking, beside) + (notes if index == 0 else [])
            parts.append(_lines(below))
        if not rankings:
            lines = [self._without(row, beside, cost) for row in without]
            shown = table(header, lines, left=3) if cost else f"No row has {main.title}."
            parts += [f"### {title}", shown, _lines(notes)]
        return parts

    def _others(self, runs: Sequence[Run], beside: Sequence[Column], cost: Sequence[Column]) -> list[str]:
        scores = [cell_text(self.judge.cell(runs, column), column) for column in beside]
        cells = [self.judge.cell(runs, column) for column in cost]
        return scores + ["—" if cell is None else quantity(cell.interval.centre) for cell in cells]

    def _without(self, row: Row, beside: Sequence[Column], cost: Sequence[Column]) -> list[str]:
        others = self._others(row.scored, beside, cost)
        return ["", escape(marked(row)), escape(row.family), "—", "—", *others, seeds(row, row.scored)]

    # Below the tables ------------------------------------------------------------------------------------------------

    def _impossible(self) -> str:
        runs = [run for row in self.rows for run in row.impossible]
        lines = [f"{self._record(run)}: {escape(run.impossible)}" for run in runs]
        return _section(f"Impossible numbers, ranked nowhere: {_count(runs)}", bullets(lines)) if runs else ""

    def _unfinished(self) -> str:
        runs = [run for row in self.rows for run in row.runs if run.record.status != "finished"]
        runs += [run for row in self.rows for run in row.failed]
        if not runs:
            return ""
        counted = sorted(Counter(run.record.status for run in runs).items())
        title = ", ".join(f"{n} {status}" for status, n in counted)
        return _section(f"Runs that did not finish: {title}", bullets([self._record(run) for run in runs]))

    def _published(self) -> str:
        if not self.figures:
            return ""
        lines = [
            [
                escape(figure.model),
                f"{MARKS[figure.likelihood]}{figure.value:g} {escape(unit(group))}",
                escape(f"{group.protocol}{f'; {figure.note}' if figure.note else ''}"),
                escape(figure.citation),
                escape(f"{'yes' if group.comparable else 'no'}: {group.why}"),
            ]
            for group in self.figures
            for figure in group.figures
        ]
        header = ["model", "reported", "protocol", "source", "comparable with ours"]
        return _section("Published figures, not ranked", table(header, lines, left=5))

    def _evidence(self) -> str:
        lines = [
            [
                escape(row.name),
                escape(row.budget),
                seed(run),
                run.record.status,
                self._link(run),
                _commit(run.record),
                code(run.record.config_hash[:8]),
            ]
            for row in self.rows
            for run in row.runs
        ]
        header = ["model", "budget", "seed", "status", "record", "commit", "configuration"]
        return _section("Records", table(header, lines, left=7)) if lines else ""

    def _superseded(self) -> str:
        lines = [f"{self._record(entry.run)}: {escape(entry.why)}" for entry in self.superseded]
        return _section(f"Superseded records: {len(lines)}", bullets(lines)) if lines else ""

    def _record(self, run: Run) -> str:
        """`vae, standard, seed 0, [1f2e3d4c](…), diverged at step 9`."""
        name = f"{escape(run.record.model)}, {escape(run.record.budget)}, seed {seed(run)}"
        return f"{name}, {self._link(run)}, {escape(ended(run.record))}"

    def _link(self, run: Run) -> str:
        target = PurePosixPath(Path(os.path.relpath(run.path, self.home)).as_posix())
        return link(target.parent.name if target.name == "record.json" else target.stem, target)


# Cells ---------------------------------------------------------------------------------------------------------------


def _lines(lines: Sequence[str]) -> str:
    return bullets([escape(line) for line in lines])


def _count(runs: Sequence[Run]) -> str:
    return f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}"


def _section(title: str, content: str) -> str:
    return f"## {title}\n\n{content}"


def _reference(reference: Reference, main: Column, beside: Sequence[Column], cost: Sequence[Column]) -> list[str]:
    first, *others = [single(reference.scores.get(column.metric), column.digits) for column in (main, *beside)]
    error = error_text(reference.scores[main.metric].stderr, main.digits)
    name = f"*{escape(reference.name.replace('_', ' '))}*"
    return ["", name, "", first, error, *others, *["—"] * len(cost), "—"]


def _commit(record: Record) -> str:
    if record.git is None:
        return "unknown"
    return code(str(record.git["commit"])[:8]) + (" with changes" if record.git.get("dirty") else "")
