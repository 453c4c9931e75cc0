"""Records to Markdown. The same records always give the same pages: nothing here depends on when or where it runs."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.leaderboard.columns import (
    BESIDE,
    COST,
    LIKELIHOOD,
    MARKS,
    MORE_ON_LIKELIHOOD,
    MORE_ON_SAMPLES,
    SAMPLES,
    Column,
    error_text,
    mark,
    modality,
    number,
    quantity,
    single,
)
from benchmark.leaderboard.markdown import bullets, code, escape, folded, link, page, table
from benchmark.leaderboard.published import Published, read_published
from benchmark.leaderboard.rows import Cell, Current, Judge, Ranking, Reference, Row, Run, Superseded, select
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
sampler that only copies would score. † marks a row with a run that its budget ended early, ‡ one whose sampler
memorises: more of its samples are near copies of training images (nearer, in pixels, than half of what is usual for
held-out images) than of held-out images, by over 0.05 and by over three standard errors, in one run at least.
"""


def boards(
    records: Mapping[Path, Record],
    current: Current | None = None,
    published: Path | None = None,
    home: Path = Path("leaderboards"),
) -> dict[str, str]:
    """The pages of a leaderboard, file name → Markdown: one a dataset, and `README.md` that lists them.

    `current` maps (data, model, budget) to the `config_hash` of the tuned configuration, whose runs make the row;
    `None` takes every configuration as it is. `published` is the file of reported figures. `home` is the folder of
    the pages: links to records are relative to it. Raises `BadInput` where references or `published` are malformed.
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
        self.modality = modality(runs[0].record)
        self.likelihood, self.beside = LIKELIHOOD[self.modality], BESIDE[self.modality]
        self.samples = SAMPLES if self.modality == "image" else ()

    def page(self) -> str:
        parts = [f"# {escape(self.data)}", _GENERATED, self._dataset(), _HOW_TO_READ.strip()]
        for budget in self._budgets():
            parts += self._budget(budget)
        parts += [self._unfinished(), self._published(), self._evidence(), self._superseded()]
        return page(parts)

    def leaders(self) -> str:
        """For each budget, who is first in its largest ranking."""
        found = []
        for budget in self._budgets():
            for ranking in self.judge.rankings(self._under(budget), self.likelihood)[:1]:
                first, *others = [entry for entry in ranking.entries if entry.rank == 1]
                value = f"{_text(first.cell, self.likelihood)} {self.likelihood.title}"
                shared = f", shared with {', '.join(escape(entry.row.name) for entry in others)}" if others else ""
                found.append(f"{escape(budget[1])}: {escape(first.row.name)}, {value}{shared}")
        return "; ".join(found) or "—"

    def counts(self) -> str:
        """`12, of which 1 diverged`."""
        statuses = Counter(run.record.status for row in self.rows for run in (*row.runs, *row.failed))
        others = ", ".join(f"{n} {status}" for status, n in sorted(statuses.items()) if status != "finished")
        return f"{statuses.total()}{f', of which {others}' if others else ''}"

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
        machines = Counter(_machine(run.record.hardware) for row in self.rows for run in row.runs)
        runs = (f"{escape(machine)} ({n} {'run' if n == 1 else 'runs'})" for machine, n in sorted(machines.items()))
        lines.append(f"Hardware: {'; '.join(runs) or '—'}")
        command = f"python -m benchmark run model=MODEL data={self.data} budget=BUDGET seed=SEED"
        lines.append(f"To run a row again: {code(command)}, at the commit that its records name.")
        return bullets(lines)

    # Tables ----------------------------------------------------------------------------------------------------------

    def _budgets(self) -> list[tuple[float, str]]:
        return sorted({row.budget for row in self.rows}, reverse=True)

    def _under(self, budget: tuple[float, str]) -> list[Row]:
        return [row for row in self.rows if row.budget == budget]

    def _budget(self, budget: tuple[float, str]) -> list[str]:
        rows, (minutes, name) = self._under(budget), budget
        parts = [f"## Budget {escape(name)}: at most {minutes:g} CPU minutes of training a run"]
        parts += self._tables("Likelihood", rows, self.likelihood, self.beside, COST)
        parts += self._more("More on the same models", rows, self.likelihood, MORE_ON_LIKELIHOOD)
        if self.samples:
            parts += self._tables("Samples", rows, self.samples[0], self.samples[1:], ())
            parts += self._more("More on samples", rows, self.samples[0], MORE_ON_SAMPLES)
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
        notes = sorted(self._notes(rows, main, beside))
        header = ["rank", "model", "family", main.title, "s.e.", *(c.title for c in (*beside, *cost)), "seeds"]
        parts = []
        for index, ranking in enumerate(rankings):
            lines = [
                [
                    entry.place,
                    _name(entry.row),
                    escape(entry.row.family),
                    _text(entry.cell, main),
                    error_text(entry.cell.stderr, main.digits),
                    *self._others(entry.runs, beside, cost),
                    _seeds(entry.row, entry.runs),
                ]
                for entry in ranking.entries
            ]
            if index == 0:
                lines += [self._without(row, beside, cost) for row in without]
            lines += [_reference(reference, main, beside, cost) for reference in ranking.references]
            parts += [f"### {title}: {words(ranking.protocol)}", table(header, lines, left=3)]
            parts.append(bullets(self._conditions(ranking, beside) + (notes if index == 0 else [])))
        if not rankings:
            lines = [self._without(row, beside, cost) for row in without]
            shown = table(header, lines, left=3) if cost else f"No row has {main.title}."
            parts += [f"### {title}", shown, bullets(notes)]
        return parts

    def _others(self, runs: Sequence[Run], beside: Sequence[Column], cost: Sequence[Column]) -> list[str]:
        scores = [_text(self.judge.cell(runs, column), column) for column in beside]
        cells = [self.judge.cell(runs, column) for column in cost]
        return scores + ["—" if cell is None else quantity(cell.interval.centre) for cell in cells]

    def _without(self, row: Row, beside: Sequence[Column], cost: Sequence[Column]) -> list[str]:
        others = self._others(row.scored, beside, cost)
        return ["", _name(row), escape(row.family), "—", "—", *others, _seeds(row, row.scored)]

    def _conditions(self, ranking: Ranking, beside: Sequence[Column]) -> list[str]:
        """How each row met the protocol, and what else holds for the columns beside the one that ranks."""
        hows: dict[str, list[str]] = defaultdict(list)
        for entry in ranking.entries:
            hows[words(entry.cell.how)].append(entry.row.name)
        lines = [f"{ranking.column.title} of {escape(', '.join(who))}: {how}" for how, who in hows.items() if how]
        for column in beside:
            models: dict[str, list[str]] = defaultdict(list)
            for entry in ranking.entries:
                if (cell := self.judge.cell(entry.runs, column)) is not None:
                    models[words(_difference(cell.protocol, ranking.protocol))].append(entry.row.name)
            for condition, who in sorted(models.items()):
                names = f" of {escape(', '.join(who))}" if len(models) > 1 else ""
                lines += [f"{column.title}{names}: {condition}"] if condition else []
        return lines

    def _notes(self, rows: Sequence[Row], main: Column, beside: Sequence[Column]) -> Iterable[str]:
        """Why a number is missing: which absence it is, and of how many runs."""
        for row in rows:
            for column in (main, *beside):
                reasons: Counter[str] = Counter()
                for run in row.scored:
                    score = column.score(run.record)
                    absent = None if score is None else score.absent
                    if absent is not None and (column is main or absent.kind != "does not apply"):
                        reasons[f"{absent.kind}: {absent.reason}"] += 1
                for reason, n in sorted(reasons.items()):
                    share = "" if n == len(row.scored) else f" in {n} of {len(row.scored)} runs"
                    yield f"{escape(row.name)}, {column.title}{share}: {escape(reason)}"
                if (old := self.judge.outdated(row, column)) is not None:
                    newest = self.judge.versions[column.metric]
                    yield f"{escape(row.name)}, {column.title}: left out, since it is version {old} and {newest} counts"
            if main.metric == "fid" and row.memorises:
                yield f"{escape(row.name)} memorises: {_shares(row)}"
            if not row.scored:
                yield f"{escape(row.name)}: no run finished, see below"

    # Below the tables ------------------------------------------------------------------------------------------------

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
                f"{MARKS[figure.likelihood]}{figure.value:g} {escape(_unit(group))}",
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
                escape(row.budget[1]),
                _seed(run),
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
        record = run.record
        ended = f"{record.status}{f' ({record.reason})' if record.reason else ''}"
        return f"{escape(record.model)}, {escape(record.budget)}, seed {_seed(run)}, {self._link(run)}, {escape(ended)}"

    def _link(self, run: Run) -> str:
        target = PurePosixPath(Path(os.path.relpath(run.path, self.home)).as_posix())
        return link(target.parent.name if target.name == "record.json" else target.stem, target)


# Cells ---------------------------------------------------------------------------------------------------------------


def _section(title: str, content: str) -> str:
    return f"## {title}\n\n{content}"


def words(protocol: Mapping[str, Any]) -> str:
    """A protocol as one line: `test split, context 128, stride 32`."""
    parts = {name: f"{value:,}" if type(value) is int else str(value) for name, value in protocol.items()}
    shown = [f"{parts.pop('split')} split"] if "split" in parts else []
    return escape(", ".join([*shown, *(f"{name.replace('_', ' ')} {value}" for name, value in parts.items())]))


def _difference(protocol: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in protocol.items() if name not in base or base[name] != value}


def _name(row: Row) -> str:
    return escape(row.name) + ("†" if row.truncated else "") + ("‡" if row.memorises else "")


def _shares(row: Row) -> str:
    """`near copies are 0.99, 0.98 of its samples, 0.006 of held-out images`."""
    found = [run.near_copies for run in row.scored if run.near_copies is not None]
    samples = ", ".join(number(near.share, 2) for near in found)
    held_out = ", ".join(sorted({number(near.held_out, 3) for near in found}))
    return f"near copies are {samples} of its samples, {held_out} of held-out images"


def _text(cell: Cell | None, column: Column) -> str:
    return "—" if cell is None else mark(cell.how) + column.text(cell.interval)


def _seeds(row: Row, runs: Sequence[Run]) -> str:
    """`3`, or `2 of 3` where a run diverged, failed, or stands under another protocol."""
    return str(len(runs)) if len(runs) == len(row.runs) else f"{len(runs)} of {len(row.runs)}"


def _reference(reference: Reference, main: Column, beside: Sequence[Column], cost: Sequence[Column]) -> list[str]:
    first, *others = [single(reference.scores.get(column.metric), column.digits) for column in (main, *beside)]
    error = error_text(reference.scores[main.metric].stderr, main.digits)
    name = f"*{escape(reference.name.replace('_', ' '))}*"
    return ["", name, "", first, error, *others, *["—"] * len(cost), "—"]


def _seed(run: Run) -> str:
    init, data = run.seed
    return str(init) if init == data else f"{init}, data {data}"


def _unit(group: Published) -> str:
    return group.metric if group.unit == "1" else group.unit


def _commit(record: Record) -> str:
    if record.git is None:
        return "unknown"
    return code(str(record.git["commit"])[:8]) + (" with changes" if record.git.get("dirty") else "")


def _machine(hardware: Mapping[str, Any]) -> str:
    """`AMD EPYC, 2 cores, 1 thread`; a GPU comes first."""
    device = [str(hardware["device"])] if hardware.get("device", "cpu") != "cpu" else []
    threads = int(hardware.get("threads", 0))
    used = [f"{threads} {'thread' if threads == 1 else 'threads'} used"] if threads else []
    return ", ".join([*device, str(hardware.get("cpu", "unknown")), f"{hardware.get('cores', '?')} cores", *used])
