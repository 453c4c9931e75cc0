"""The reproducibility report: a page about records, and about what came of running them again.

The same records always give the same page: nothing here depends on when or where it is made.
"""

from __future__ import annotations

import json
import shlex
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmark.config import dump_yaml, overrides_of, seeds_of
from benchmark.leaderboard.columns import Column, columns, mark, number, single
from benchmark.leaderboard.published import Published
from benchmark.leaderboard.rows import Row, Run, select
from benchmark.leaderboard.texts import ended, machine, seed, unit, words
from benchmark.record import Record, record_files
from benchmark.report.parts import Bullets, Cell, Code, Folded, Page, Paragraph, Part, Section, table
from benchmark.report.verify import CONFIDENCE, Judgement, Verdict, cells, judge
from benchmark.spec import BadInput, Score

_VERDICTS: tuple[Verdict, ...] = ("agrees", "differs", "not comparable")
_NOT_A_VERSION = ("platform", "python")


def report(
    title: str,
    records: Mapping[Path, Record],
    reruns: Mapping[Path, Record],
    published: Sequence[Published] = (),
    missing: Sequence[str] = (),
    problems: list[str] | None = None,
) -> Page:
    """The page about `records`. `reruns` may hold any runs: those that repeat one of the records are judged beside it.

    `missing` are experiments that were wanted and have no record. Of a run whose files cannot be read no re-run is
    judged, and they are named in `problems`, or raised as `BadInput` where none are given. Raises `BadInput` without
    records.
    """
    if not records:
        raise BadInput("no records to report on: name records or a suite that has some, or another folder by --records")
    return _Report(records, reruns, published, missing, problems).page(title)


class _Report:
    def __init__(
        self,
        records: Mapping[Path, Record],
        reruns: Mapping[Path, Record],
        published: Sequence[Published],
        missing: Sequence[str],
        problems: list[str] | None,
    ) -> None:
        self.runs = [Run(path, record) for path, record in sorted(records.items()) if record.kind == "run"]
        self.rows, self.superseded = select(records, current=None)
        every = {**reruns, **records}
        self.judgements = list(_judgements(_pairs(self.runs, every), every.values(), problems))
        self.twice = [one for one in self.judgements if not one.bits.apart]
        data = {record.data for record in records.values()}
        self.published = [group for group in published if group.data in data]
        self.missing = missing

    def page(self, title: str) -> Page:
        sections = [
            Section("In short", [Bullets(self._short())]),
            Section("Runs", self._runs()),
            Section("Environment", self._environment()),
            Section("Data", self._data()),
            Section("Determinism", self._determinism()),
            Section("Spread over seeds", self._spread()),
            Section("Run again", self._again()),
            Section("Published figures", self._figures()),
            Section("Deviations and negative results", self._deviations()),
        ]
        lead = (
            "What was run, with what, and whether repeated runs agree. Made from records only: the same records "
            "give the same page."
        )
        return Page(title, lead, sections)

    def _short(self) -> list[str]:
        models, data = ({getattr(run.record, name) for run in self.runs} for name in ("model", "data"))
        statuses = Counter(run.record.status for run in self.runs)
        ended = ", ".join(f"{n} {status}" for status, n in sorted(statuses.items()))
        verdicts = Counter(one.verdict for one in self.judgements)
        judged = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in _VERDICTS if verdicts[verdict])
        same = sum(not one.bits.different for one in self.twice)
        exact = sum("scores" in one.bits.compared and "scores" not in one.bits.different for one in self.judgements)
        return [
            f"{_count(len(self.runs), 'run')} of {_count(len(models), 'model')} on {', '.join(sorted(data))}: {ended}",
            f"run again: {_count(len(self.judgements), 'time')}{f' ({judged})' if judged else ''}"
            + (f", {exact} with every score the same to the last bit" if exact else ""),
            f"the same seed twice with the same code on the same machine: {_count(len(self.twice), 'time')}"
            + (f", {same} of them bit for bit the same" if self.twice else ""),
            f"deviations and negative results: {len(self._findings())}",
        ]

    # What was run ----------------------------------------------------------------------------------------------------

    def _runs(self) -> list[Part]:
        header = ["model", "data", "budget", "seed", "status", "record", "commit", "code", "likelihood", "FID"]
        rows: list[list[Cell]] = [
            [
                run.record.model,
                run.record.data,
                run.record.budget,
                seed(run),
                run.record.status,
                Code(_file(run)),
                Code(_commit(run.record)),
                Code((run.record.code_hash or "unknown")[:8]),
                *_headline(run.record),
            ]
            for run in self.runs
        ]
        return [
            table(header, rows, left=8),
            Paragraph("Each configuration, and the commands that run it: at the commit that the table names."),
            *self._configurations(),
        ]

    def _configurations(self) -> list[Folded]:
        groups: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            groups[run.identity].append(run)
        folded = []
        for runs in sorted(groups.values(), key=lambda runs: _place(runs[0])):
            record = runs[0].record
            settings = {name: part for name, part in record.config.items() if name not in ("seed", "runtime")}
            commands = [
                f"{command}\npython -m benchmark verify {run.path.as_posix()}"
                for run, command in zip(runs, _commands(runs), strict=True)
            ]
            text = "\n".join([*commands, "", dump_yaml(settings)])
            title = f"{record.model} on {record.data}, {record.budget}, configuration {record.config_hash[:8]}"
            folded.append(Folded(f"{title}, {_count(len(runs), 'run')}", text))
        return folded

    def _environment(self) -> list[Part]:
        versions: dict[str, Counter[str]] = defaultdict(Counter)
        for run in self.runs:
            for name, version in run.record.environment.items():
                versions[name][version] += 1
        order = sorted(versions, key=lambda name: (name not in _NOT_A_VERSION, name))
        machines = Counter(_hardware(run.record.hardware) for run in self.runs)
        return [
            table(["", "version"], [[name, _tally(versions[name])] for name in order], left=2),
            table(["hardware", "runs"], [[text, str(n)] for text, n in sorted(machines.items())]),
        ]

    def _data(self) -> list[Part]:
        parts: list[Part] = []
        seen: dict[str, dict[str, Any]] = {}
        for run in self.runs:
            if run.fingerprint:
                seen.setdefault(f"{run.record.data} {run.fingerprint}", run.record.dataset)
        for card in seen.values():
            facts = ((title, card.get(key)) for title, key in (("Source", "source"), ("Licence", "licence")))
            lines = [f"{title}: {text}" for title, text in facts if text]
            rows: list[list[Cell]] = [
                [name, Code(split["sha256"]), f"{split['n']:,}"] for name, split in card["splits"].items()
            ]
            parts += [Paragraph(str(card.get("name", ""))), Bullets(lines)]
            parts.append(table(["split", "SHA-256", "examples"], rows, left=2))
        return parts or [Paragraph("No run got as far as its data.")]

    # What came of it -------------------------------------------------------------------------------------------------

    def _determinism(self) -> list[Part]:
        if not self.twice:
            return [
                Paragraph(
                    "No seed was run twice with the same code, packages, machine and threads. "
                    "The verb verify does so on the machine that made a record."
                )
            ]
        rows = [[*_who(one), "no" if one.bits.different else "yes", one.bits.text] for one in self.twice]
        return [
            Paragraph("The same seed, code, packages, machine and threads: every bit should be the same."),
            table(["model", "data", "budget", "seed", "same", "compared"], rows, left=6),
        ]

    def _spread(self) -> list[Part]:
        rows = []
        for row in self.rows:
            for column in columns(row.runs[0].record).leading:
                if (line := _spread(row, column)) is not None:
                    rows.append(line)
        header = ["model", "data", "budget", "score", "each seed", "seeds", "mean with 95 % interval", "sd"]
        return [table(header, rows, left=5)] if rows else [Paragraph("No run has a score.")]

    def _again(self) -> list[Part]:
        if not self.judgements:
            return [Paragraph("None of these runs was run again: the verb verify does so.")]
        header = ["model", "data", "budget", "seed", "verdict", "record", "re-run", "bit for bit"]
        rows: list[list[Cell]] = [
            [*_who(one), one.verdict, Code(_file(one.run)), Code(_file(one.again)), one.bits.text]
            for one in self.judgements
        ]
        parts: list[Part] = [
            Paragraph(
                f"A re-run agrees where each score lies in the band that holds {100 * CONFIDENCE:g} % of new runs, by "
                "the spread over seeds of the same configuration (Student's t, for FID on the log scale), or by the "
                "standard error of the score where there are fewer than three seeds; and where the record lies in the "
                "band that re-run and other seeds give, or within its standard error. Numbers under another protocol, "
                "metric version or on other data are not compared."
            ),
            table(header, rows, left=8),
        ]
        titles = ["score", "by", "verdict", "record", "re-run", "difference", "expected"]
        for one in self.judgements:
            moved = [cells(score) for score in one.scores if score.again != score.recorded]
            if moved:
                who = "{}, {}, {}, seed {}".format(*_who(one))
                kept = len(one.scores) - len(moved)
                parts.append(Paragraph(f"{who}: {one.verdict}. {_count(kept, 'further score')} came back unchanged."))
                order = [[line[0], line[5], line[6], *line[1:5]] for line in moved]
                parts.append(table(titles, order, left=3))
        return parts

    def _figures(self) -> list[Part]:
        rows = [
            [
                group.data,
                figure.model,
                figure.citation,
                f"{group.protocol}{f'; {figure.note}' if figure.note else ''}",
                f"{'comparable' if group.comparable else 'not comparable'}: {group.why}",
                f"{mark({'likelihood': figure.likelihood})}{figure.value:g} {unit(group)}",
            ]
            for group in self.published
            for figure in group.figures
        ]
        if not rows:
            return [Paragraph("No published figures are known for this data.")]
        ours: list[list[Cell]] = [
            [row.runs[0].record.data, row.name, row.budget, column.title, *line]
            for row in self.rows
            for column in columns(row.runs[0].record).leading
            if column.metric in {group.metric for group in self.published if group.data == row.runs[0].record.data}
            and (line := _ours(row, column)) is not None
        ]
        header = ["data", "model", "source", "protocol", "beside ours", "reported"]
        return [
            table(header, rows, left=5),
            Paragraph("Ours of the same metric:"),
            table(["data", "model", "budget", "score", "protocol", "ours"], ours, left=5),
        ]

    def _deviations(self) -> list[Part]:
        found = self._findings()
        return [Bullets(found)] if found else [Paragraph("None.")]

    def _findings(self) -> list[str]:
        """Everything that is not as one would wish, a line each."""
        found = [f"no record: {name}" for name in self.missing]
        for run in self.runs:
            record, who = run.record, _name(run)
            if record.status != "finished":
                found.append(f"{who}: {ended(record)}")
            if run.impossible is not None:
                found.append(f"{who}: impossible, {run.impossible}")
            if record.git is None or record.git.get("dirty") or record.code_hash is None:
                found.append(f"{who}: made with code that is not committed")
            for name, score in sorted(record.scores.items()):
                if score.absent is not None and score.absent.kind != "does not apply":
                    found.append(f"{who}: {name} {score.absent.kind}: {score.absent.reason}")
        for row in self.rows:
            if row.memorises:
                found.append(f"{row.name} on {row.runs[0].record.data}, {row.budget}: its sampler memorises")
            codes = {_hardware(run.record.hardware) for run in row.runs}
            if len(codes) > 1:
                found.append(
                    f"{row.name} on {row.runs[0].record.data}, {row.budget}: its seeds ran on {len(codes)} machines"
                )
        found += [f"{_name(entry.run)}: superseded, {entry.why}" for entry in self.superseded]
        for one in self.judgements:
            if one.verdict != "agrees":
                found.append(f"{_name(one.run)}: its re-run {one.verdict}: {'; '.join(one.reasons)}")
            if not one.bits.apart and one.bits.different:
                found.append(f"{_name(one.run)}: {one.bits.text}")
        for group in self.published:
            if not group.comparable:
                figures = _count(len(group.figures), "published figure")
                found.append(f"{group.data}, {group.metric}: not compared with {figures}: {group.why}")
        return found


def _judgements(
    pairs: Iterable[tuple[Run, Run]], every: Iterable[Record], problems: list[str] | None
) -> Iterator[Judgement]:
    for run, again in pairs:
        try:
            yield judge(run, again, every)
        except BadInput as error:
            if problems is None:
                raise
            problems.append(str(error))


# Which re-run belongs to which record --------------------------------------------------------------------------------


def _pairs(runs: Sequence[Run], every: Mapping[Path, Record]) -> list[tuple[Run, Run]]:
    """Each run with those that repeat it later: the same configuration and seeds, another training."""
    by_experiment: dict[str, list[Run]] = defaultdict(list)
    for again in _trainings(Run(path, record) for path, record in sorted(every.items())):
        by_experiment[_experiment(again.record)].append(again)
    return [
        (run, again)
        for run in _trainings(runs)
        for again in by_experiment[_experiment(run.record)]
        if again.record.started > run.record.started
    ]


def _trainings(runs: Iterable[Run]) -> list[Run]:
    """One run for each training that ended: a run and its published record are one, a renewed record comes first."""
    found: dict[tuple[str, datetime], Run] = {}
    for run in runs:
        if run.record.kind == "run" and run.record.status != "failed":
            key = _experiment(run.record), run.record.started
            if key not in found or (found[key].record.renewed is None and run.record.renewed is not None):
                found[key] = run
    return list(found.values())


def _experiment(record: Record) -> str:
    return f"{record.identity} {json.dumps(record.seed, sort_keys=True)}"


# Words and numbers ---------------------------------------------------------------------------------------------------


def _headline(record: Record) -> list[str]:
    texts = []
    for column in columns(record).leading:
        score = column.score(record)
        text = single(score, column.digits)
        texts.append(text if text == "—" or score is None or score.unit == "1" else f"{text} {score.unit}")
    return [*texts, *["—"] * (2 - len(texts))]


def _spread(row: Row, column: Column) -> list[Cell] | None:
    values = _values(row, column)
    if not values:
        return None
    record = row.runs[0].record
    deviation = number(statistics.stdev(values), column.digits + 1) if len(values) > 1 else "—"
    each = ", ".join(number(value, column.digits) for value in values)
    return [row.name, record.data, row.budget, column.title, each, str(len(values)), _mean(row, column), deviation]


def _ours(row: Row, column: Column) -> list[str] | None:
    if not _values(row, column):
        return None
    protocol = dict(_scores(row, column)[0].protocol)
    how = protocol.pop("how", {})
    return ["; ".join(filter(None, (words(protocol), words(how)))), _mean(row, column)]


def _mean(row: Row, column: Column) -> str:
    """With its interval, and a mark where it is a bound."""
    how = _scores(row, column)[0].protocol.get("how", {})
    return mark(how) + column.text(column.interval(_values(row, column)))


def _values(row: Row, column: Column) -> list[float]:
    return [score.value for score in _scores(row, column) if score.value is not None]


def _scores(row: Row, column: Column) -> list[Score]:
    found = [column.score(run.record) for run in row.scored]
    return [score for score in found if score is not None and score.value is not None]


def _who(one: Judgement) -> list[str]:
    record = one.run.record
    return [record.model, record.data, record.budget, seed(one.run)]


def _name(run: Run) -> str:
    return f"{run.record.model} on {run.record.data}, {run.record.budget}, seed {seed(run)} ({run.path.as_posix()})"


def _file(run: Run) -> str:
    """A record's name among others: of its file, or of the run's folder."""
    return run.path.parent.name if run.path.name == "record.json" else run.path.stem


def _place(run: Run) -> tuple[str, str, float, str, str]:
    return run.record.data, run.record.model, run.minutes, run.budget, run.identity


def _commands(runs: Sequence[Run]) -> Iterator[str]:
    """What runs each of some runs that differ in their seeds alone."""
    try:
        first = overrides_of(runs[0].record.config)
    except BadInput as error:
        yield from [f"# {error}"] * len(runs)
        return
    seeds = [index for index, setting in enumerate(first) if setting.startswith(("seed=", "seed."))]
    for run in runs:
        own = [*first[: seeds[0]], *seeds_of(run.record.seed), *first[seeds[-1] + 1 :]]
        yield f"python -m benchmark run {shlex.join(own)}"


def _commit(record: Record) -> str:
    if record.git is None:
        return "unknown"
    return str(record.git["commit"])[:8] + (" with changes" if record.git.get("dirty") else "")


def _hardware(hardware: Mapping[str, Any]) -> str:
    known = ("cpu", "cores", "device", "threads")
    others = [f"{name.replace('_', ' ')}: {_yes(value)}" for name, value in hardware.items() if name not in known]
    return "; ".join([machine(hardware), *others])


def _yes(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _tally(versions: Mapping[str, int]) -> str:
    """`2.15.0`, or `2.14.0 (3 runs), 2.15.0 (9 runs)`."""
    if len(versions) == 1:
        return next(iter(versions))
    return ", ".join(f"{version} ({_count(n, 'run')})" for version, n in sorted(versions.items()))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Each record among `paths`: files, runs' folders, or folders of many. Raises `BadInput` where one is neither."""
    found: list[Path] = []
    for path in paths:
        if path.is_file():
            found.append(path)
        elif (path / "record.json").is_file():
            found.append(path / "record.json")
        else:
            inside = record_files(path)
            if not inside:
                raise BadInput(f"no records below {path}: give a record, a run's folder, or a folder of records")
            found += inside
    return found
