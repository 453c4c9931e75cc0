"""The page of a model: each of its rows with its place, samples, curves, seeds and how to make it again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from markupsafe import Markup

from benchmark.leaderboard.columns import COST, COST_OF_MACHINE, error_text, number, quantity, value_of
from benchmark.leaderboard.rows import Row
from benchmark.leaderboard.site.cells import DASH, command, inline, options
from benchmark.leaderboard.site.contents import Contents, Group
from benchmark.leaderboard.site.plots import curve_plot
from benchmark.leaderboard.site.studies import studied
from benchmark.leaderboard.site.tables import Entry, Head, Table
from benchmark.leaderboard.texts import cell_text, machine, seed
from benchmark.spec import CAPABILITIES
from benchmark.traces import NEIGHBOURS, read_curves, read_picture, read_text


def model_page(contents: Contents, name: str) -> dict[str, Any]:
    card = contents.catalogue.get(name)
    promised = set(card["capabilities"]) if card else set()
    family = contents.family_of(name)
    return {
        "name": name,
        "card": card,
        "family": family,
        "colour": contents.colours[family],
        "promises": [
            (capability.__name__, (capability.__doc__ or "").split("\n")[0])
            for capability in CAPABILITIES
            if capability.__name__ in promised
        ],
        "sections": [_section(contents, group, row) for group, row in contents.rows_of(name)],
        "superseded_records": [
            (contents.mention(old.run), old.why) for old in contents.superseded if old.run.record.model == name
        ],
    }


def _section(contents: Contents, group: Group, row: Row) -> dict[str, Any]:
    """One row of a board, with all that is known of its runs."""
    record = row.runs[0].record
    studies = [one for one in contents.sensitive if (one.of.data, one.of.model) == (group.data, record.model)]
    return {
        "title": f"{group.data}, {row.budget}{'' if row.name == record.model else f', {row.name}'}",
        "anchor": contents.anchor(group, row),
        "data": group.data,
        "figures": list(_headline(contents, group, row)),
        "strip": _strip(contents, row),
        "neighbours": _picture(contents, row, NEIGHBOURS),
        "curves": list(_curves(contents, row)),
        "spread": _spread(contents, group, row),
        "studied": studied(studies[0], contents.colours[row.family]) if studies else None,
        "runs": _runs_table(contents, row),
        "command": command(row),
        "options": options(record),
    }


def _headline(contents: Contents, group: Group, row: Row) -> Iterator[tuple[str, str, str]]:
    """Title, value and place of what ranks; then the costs."""
    for quality in group.columns.leading:
        for ranking in contents.judge.rankings(group.rows, quality):
            for entry in ranking.entries:
                if entry.row is row:
                    of = f"rank {entry.place} of {len(ranking.entries)}"
                    yield quality.title, cell_text(entry.cell, quality), of
    yield "training examples", " to ".join(f"{n:,}" for n in sorted({run.planned for run in row.runs})), ""
    for column in COST:
        if (cell := contents.judge.cell(row.scored, column)) is not None:
            yield column.title, quantity(cell.interval.centre), ""


def _strip(contents: Contents, row: Row) -> dict[str, Any] | None:
    """Samples over training of the first run that kept some."""
    for run in row.runs:
        picture = contents.read(read_picture, run.path.with_suffix(".png"))
        if picture is not None:
            return {"seed": seed(run), "image": inline(picture[0]), "moments": picture[1], "text": None}
        text = contents.read(read_text, run.path.with_suffix(".txt"))
        if text is not None:
            return {"seed": seed(run), "image": None, "moments": (), "text": text}
    return None


def _picture(contents: Contents, row: Row, suffix: str) -> dict[str, str] | None:
    for run in row.runs:
        picture = contents.read(read_picture, run.path.with_name(run.path.stem + suffix))
        if picture is not None:
            return {"seed": seed(run), "image": inline(picture[0])}
    return None


def _curves(contents: Contents, row: Row) -> Iterator[Markup]:
    """Validation first, then the training loss; one figure each over all seeds that kept curves."""
    kept = [curves for run in row.runs if (curves := contents.read(read_curves, run.path))]
    names = [*sorted({name for curves in kept for name in curves if name.startswith("val/")}), "train/loss"]
    for name in names:
        found = [curves[name] for curves in kept if len(curves.get(name, ())) > 1]
        if found:
            what = f"{'validation' if name.startswith('val/') else 'training'}: {name.partition('/')[2]}"
            caption = f"{row.name} on {row.runs[0].record.data}, {what}, {len(found)} seeds"
            yield curve_plot(caption, what.replace("_", " "), found, contents.colours[row.family])


def _spread(contents: Contents, group: Group, row: Row) -> Table | None:
    """How much the seeds differ: standard deviation, best and worst."""
    lines = []
    for column in group.columns.everything:
        cell = contents.judge.cell(row.scored, column)
        if cell is None:
            continue
        values = contents.values(row.scored, column)
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


def _runs_table(contents: Contents, row: Row) -> Table:
    columns = [column for column in (*COST, *COST_OF_MACHINE) if any(column.score(run.record) for run in row.runs)]
    lines = [
        [
            *contents.run_cells(run),
            *[
                DASH if value is None else Entry(quantity(value), value)
                for value in (value_of(contents.judge.score(run, column)) for column in columns)
            ],
            Entry(machine(run.record.hardware)),
        ]
        for run in (*row.runs, *row.failed)
    ]
    heads = [Head("seed", number=True), Head("status"), Head("record"), Head("commit")]
    heads += [*(Head(column.title, number=True) for column in columns), Head("machine")]
    return Table("Runs", heads, lines, titled=False)
