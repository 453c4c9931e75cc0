"""Records and rows as plain tables, for those who want to draw their own figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmark.facts import COSTS, metrics
from benchmark.leaderboard.dataset import Dataset, stem
from benchmark.leaderboard.texts import machine

_RECORD = (
    *("data", "model", "family", "budget", "examples", "seed_init", "seed_data", "status", "on_board", "record"),
    *("configuration", "code", "commit", "started", "machine"),
)


def record_lines(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """A line for each run: what it is, and each of its scores with the standard error of its evaluation."""
    standing = {run.path: "yes" for row in dataset.rows for run in row.runs}
    standing |= {old.run.path: old.why for old in dataset.superseded}
    for run in dataset.runs:
        record = run.record
        if record.kind != "run":
            continue
        line: dict[str, Any] = {
            "data": record.data,
            "model": record.model,
            "family": record.family,
            "budget": record.budget,
            "examples": run.planned,
            "seed_init": run.seed[0],
            "seed_data": run.seed[1],
            "status": record.status,
            "on_board": standing.get(run.path, "failed, and repeated"),
            "record": stem(run),
            "configuration": run.identity[:8],
            "code": (record.code_hash or "unknown")[:8],
            "commit": "unknown" if record.git is None else str(record.git["commit"])[:8],
            "started": record.started.isoformat(),
            "machine": machine(record.hardware),
        }
        for name, score in record.scores.items():
            if score.value is not None:
                line[name] = score.value
            if score.stderr is not None:
                line[f"{name}_stderr"] = score.stderr
        yield line


def as_csv(lines: Iterable[Mapping[str, Any]]) -> str:
    """All records in one table; a score that a record does not have is empty."""
    lines = list(lines)
    present = {name for line in lines for name in line}
    scores = [column for name in (*metrics(), *COSTS) for column in (name, f"{name}_stderr")]
    known = [*_RECORD, *(column for column in scores if column in present)]
    names = [*known, *sorted(present - set(known))]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in line.items()} for line in lines)
    return buffer.getvalue()


def _inert(value: Any) -> Any:
    """A stranger's words are no formula of a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def row_lines(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """A line for each row and metric that some ranking holds: value, interval over seeds, place and protocol."""
    for group in dataset.groups:
        for column in dict.fromkeys((*group.columns.leading, *group.columns.everything)):
            for ranking in dataset.rankings(group, column):
                for entry in ranking.entries:
                    interval = entry.cell.interval
                    yield {
                        "data": group.data,
                        "budget": group.budget,
                        "model": entry.row.runs[0].record.model,
                        "row": entry.row.name,
                        "family": entry.row.family,
                        "metric": column.metric,
                        "title": column.title,
                        "unit": column.fact.unit,
                        "better": column.fact.better,
                        "value": interval.centre,
                        "low": interval.low,
                        "high": interval.high,
                        "stderr": entry.cell.stderr,
                        "seeds": dataset.values(entry.runs, column),
                        "rank": entry.rank,
                        "last": entry.last,
                        "of": len(ranking.entries),
                        "protocol": ranking.protocol,
                        "how": dict(entry.cell.how),
                    }


def as_json(lines: Iterable[Mapping[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n]\n"
