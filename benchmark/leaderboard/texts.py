"""What boards say in words about rows, protocols and absences, as plain text: pages escape it their own way."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.facts import measure
from benchmark.leaderboard.columns import COST_OF_MACHINE, Column, digits_that_show, mark, number, value_of
from benchmark.leaderboard.published import Published
from benchmark.leaderboard.rows import Cell, Judge, Ranking, Row, Run
from benchmark.leaderboard.statistics import Interval
from benchmark.record import Record, share_done


def words(protocol: Mapping[str, Any]) -> str:
    """A protocol as one line: `test split, context 128, stride 32`."""
    parts = {name: f"{value:,}" if type(value) is int else str(value) for name, value in protocol.items()}
    first = [f"{parts.pop('split')} split"] if "split" in parts else []
    return ", ".join([*first, *(f"{name.replace('_', ' ')} {value}" for name, value in parts.items())])


def marked(row: Row) -> str:
    """A row's name, ‡ where the sampler memorises, § where a model from outside passed no exam."""
    return row.name + ("‡" if row.memorises else "") + ("§" if row.unexamined else "")


def budget_title(rows: Sequence[Row]) -> str:
    """Of rows under one budget: `standard: 118,000 to 1,500,000 examples a run, about 4 minutes of one thread …`."""
    examples = sorted({run.planned for row in rows for run in row.runs})
    shown = " to ".join(f"{n:,}" for n in dict.fromkeys((examples[0], examples[-1])))
    minutes = max(row.minutes for row in rows)
    nominal = f"about {minutes:g} {'minute' if minutes == 1 else 'minutes'} of one thread of the reference machine"
    return f"{rows[0].budget}: {shown} training examples a run, {nominal}"


def ended(record: Record) -> str:
    """`diverged (loss is nan)`, `truncated at 37 % of its examples (…)`."""
    share = share_done(record) if record.status == "truncated" else None
    done = "" if share is None else f" at {share:.0%} of its examples".replace("%", " %")
    return f"{record.status}{done}{f' ({record.reason})' if record.reason else ''}"


def cell_text(cell: Cell | None, column: Column) -> str:
    return "—" if cell is None else mark(cell.how) + column.text(cell.interval)


def difference(found: Interval, least: int, log: bool = False) -> str:
    """`+1.2 [0.4, 2.0]` in so many digits at least; of logarithms, as a factor: `× 0.8 [0.7, 0.9]`."""
    ends = () if found.low is None or found.high is None else (found.low, found.high)
    if log:
        shown = [f"{math.exp(value):.2f}" for value in (found.centre, *ends)]
        return f"× {shown[0]}" + (f" [{shown[1]}, {shown[2]}]" if ends else "")
    digits = digits_that_show((ends[1] - ends[0]) / 2 if ends else None, least)
    sign = "+" if found.centre > 0 else ""
    return f"{sign}{number(found.centre, digits)}" + (
        f" [{number(ends[0], digits)}, {number(ends[1], digits)}]" if ends else ""
    )


def listed(names: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    *others, final = names
    return f"{', '.join(others)} {last} {final}" if others else final


def seeds(row: Row, runs: Sequence[Run]) -> str:
    """`3`, or `2 of 3` where a run did not finish, or stands under another protocol."""
    return str(len(runs)) if len(runs) == len(row.runs) else f"{len(runs)} of {len(row.runs)}"


def seed(run: Run) -> str:
    init, data = run.seed
    return str(init) if init == data else f"{init}, data {data}"


def unit(group: Published) -> str:
    return measure(group.metric, group.unit)


def machine(hardware: Mapping[str, Any]) -> str:
    """`AMD EPYC, 2 cores, 1 thread`; a GPU comes first."""
    device = [str(hardware["device"])] if hardware.get("device", "cpu") != "cpu" else []
    threads = int(hardware.get("threads", 0))
    used = [f"{threads} {'thread' if threads == 1 else 'threads'} used"] if threads else []
    return ", ".join([*device, str(hardware.get("cpu", "unknown")), f"{hardware.get('cores', '?')} cores", *used])


def by_machine(rows: Sequence[Row]) -> dict[str, list[tuple[Row, list[Run]]]]:
    """Which runs of which rows were timed on which hardware: times are compared within one, and nowhere else."""
    found: dict[str, dict[str, tuple[Row, list[Run]]]] = defaultdict(dict)
    for row in rows:
        for run in row.scored:
            if any(value_of(column.score(run.record)) is not None for column in COST_OF_MACHINE):
                found[machine(run.record.hardware)].setdefault(row.name, (row, []))[1].append(run)
    return {name: list(found[name].values()) for name in sorted(found)}


# Below a table -------------------------------------------------------------------------------------------------------


def conditions(judge: Judge, ranking: Ranking, beside: Sequence[Column]) -> list[str]:
    """How each row met the protocol, and what else holds for the columns beside the one that ranks."""
    hows: dict[str, list[str]] = defaultdict(list)
    for entry in ranking.entries:
        hows[words(entry.cell.how)].append(entry.row.name)
    lines = [f"{ranking.column.title} of {', '.join(who)}: {how}" for how, who in hows.items() if how]
    for column in beside:
        models: dict[str, list[str]] = defaultdict(list)
        for entry in ranking.entries:
            if (cell := judge.cell(entry.runs, column)) is not None:
                models[words(_difference(cell.protocol, ranking.protocol))].append(entry.row.name)
        for condition, who in sorted(models.items()):
            names = f" of {', '.join(who)}" if len(models) > 1 else ""
            lines += [f"{column.title}{names}: {condition}"] if condition else []
    return lines


def absences(judge: Judge, rows: Sequence[Row], main: Column, beside: Sequence[Column]) -> list[str]:
    """Why a number is missing: which absence it is, and of how many runs."""
    lines = []
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
                lines.append(f"{row.name}, {column.title}{share}: {reason}")
        if main.metric == "fid" and row.memorises:
            lines.append(f"{row.name} memorises: {_shares(row)}")
        if row.unexamined:
            lines.append(f"{row.name} is from outside, and nobody knows that it keeps its promises: {row.unexamined}")
        if row.impossible:
            lines.append(f"{row.name}: it reports what cannot be, see below")
        elif not row.scored:
            lines.append(f"{row.name}: no run finished, see below")
    return sorted([*lines, *(line for column in (main, *beside) for line in outdated(judge, rows, column))])


def outdated(judge: Judge, rows: Sequence[Row], column: Column) -> list[str]:
    """Whose numbers are left out, since they are of an old version."""
    by_version: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        if (old := judge.outdated(row, column)) is not None:
            by_version[old].append(row.name)
    newest = judge.versions[column.metric]
    return [
        f"{listed(names)}, {column.title}: left out: of version {old}, and only version {newest} counts"
        for old, names in sorted(by_version.items())
    ]


def _difference(protocol: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in protocol.items() if name not in base or base[name] != value}


def _shares(row: Row) -> str:
    """`near copies are 0.99, 0.98 of its samples, 0.006 of held-out images`."""
    found = [run.near_copies for run in row.scored if run.near_copies is not None]
    samples = ", ".join(number(near.share, 2) for near in found)
    held_out = ", ".join(sorted({number(near.held_out, 3) for near in found}))
    return f"near copies are {samples} of its samples, {held_out} of held-out images"
