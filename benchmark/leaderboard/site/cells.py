"""Pieces of pages: cells of a table, and what is read beside a record."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from typing import Any

from benchmark.leaderboard.columns import Column, error_text, single, value_of
from benchmark.leaderboard.rows import Entry as Ranked
from benchmark.leaderboard.rows import Reference, Row, Run
from benchmark.leaderboard.site.tables import Entry
from benchmark.leaderboard.texts import cell_text, seeds
from benchmark.record import Record

DASH = Entry("—")


def place_cell(entry: Ranked) -> Entry:
    return Entry(entry.place, entry.rank + entry.last / 1000)


def value_cells(entry: Ranked, column: Column) -> list[Entry]:
    cell = entry.cell
    error = Entry(error_text(cell.stderr, column.digits), cell.stderr)
    return [Entry(cell_text(cell, column), cell.interval.centre), error]


def seeds_cell(row: Row, runs: Sequence[Run]) -> Entry:
    return Entry(seeds(row, runs), len(runs))


def reference_cells(
    reference: Reference, main: Column, beside: Sequence[Column], cost: Sequence[Column]
) -> list[Entry]:
    scores = [(reference.scores.get(column.metric), column) for column in (main, *beside)]
    first, *others = [Entry(single(score, column.digits), value_of(score)) for score, column in scores]
    error = reference.scores[main.metric].stderr
    name = Entry(reference.name.replace("_", " "), head=True)
    blank = [DASH] * len(cost)
    return [Entry(""), name, first, Entry(error_text(error, main.digits), error), DASH, Entry(""), *others, *blank]


def stem(run: Run) -> str:
    return run.path.parent.name if run.path.name == "record.json" else run.path.stem


def commit(record: Record) -> str:
    if record.git is None:
        return "unknown"
    return str(record.git["commit"])[:8] + (" with changes" if record.git.get("dirty") else "")


def inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def command(row: Row) -> str:
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


def options(record: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """The configuration that a reader may want to know, group by group."""
    shown = []
    for group in ("model", "budget", "training", "evaluation"):
        options = {name: value for name, value in record.config.get(group, {}).items() if name not in _IDENTITY}
        if options:
            shown.append((group, [(name.replace("_", " "), str(value)) for name, value in options.items()]))
    return shown


_IDENTITY = ("name", "target", "structures", "conditions", "modalities")
