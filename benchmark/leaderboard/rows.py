"""Records to rows, rows to rankings: what stands on a board, what was superseded, and who may be compared with whom."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from zipfile import BadZipFile

from pydantic import TypeAdapter, ValidationError

from benchmark import facts
from benchmark.facts import COSTS, IMPOSSIBLE_SIGMAS, ROUNDING
from benchmark.leaderboard.columns import Column
from benchmark.leaderboard.statistics import Interval, pooled_stderr, rank_ranges
from benchmark.record import Record, is_ours, model_targets, per_example_file
from benchmark.spec import BadInput, Score

if TYPE_CHECKING:
    import numpy as np

Current = Mapping[tuple[str, str, str], Collection[str]]  # (data, model, budget) -> each identity that counts
Protocol = dict[str, Any]

_REFERENCES: TypeAdapter[dict[str, dict[str, Score]]] = TypeAdapter(dict[str, dict[str, Score]])


#: More near copies than held-out images have by this much, and by so many standard errors, are memorised.
MEMORISED, MEMORISED_SIGMAS = 0.05, 3.0


@dataclass(frozen=True)
class NearCopies:
    """The share of a run's samples that nearly are training images, beside that of held-out images."""

    share: float
    stderr: float
    held_out: float

    @property
    def excessive(self) -> bool:
        return self.share - self.held_out > max(MEMORISED, MEMORISED_SIGMAS * self.stderr)


@dataclass(frozen=True)
class Run:
    """A record and the file that holds it."""

    path: Path
    record: Record

    @property
    def seed(self) -> tuple[int, int]:
        """What training depends on; another `seed.eval` is the same training."""
        return self.record.seed["init"], self.record.seed["data"]

    @property
    def identity(self) -> str:
        """Of the configuration: runs that share it, and differ only in their seeds, make a row."""
        return self.record.identity

    @property
    def budget(self) -> str:
        return self.record.budget

    @property
    def planned(self) -> int:
        """How many training examples the budget is."""
        return int(self.record.config["budget"]["examples"])

    @property
    def minutes(self) -> float:
        """What the budget costs nominally: it orders budgets, and tells none apart."""
        return float(self.record.config["budget"]["minutes"])

    @property
    def fingerprint(self) -> str:
        """Of the three splits; empty where a run failed before it had its data."""
        splits = self.record.dataset.get("splits", {})
        return "-".join(str(split["sha256"])[:8] for split in splits.values())

    @property
    def near_copies(self) -> NearCopies | None:
        """`None` where the record does not say."""
        score = self.record.scores.get("near_copies")
        held_out = self.references.get("held-out data", {}).get("near_copies")
        if score is None or score.value is None or held_out is None or held_out.value is None:
            return None
        return NearCopies(score.value, score.stderr or 0.0, held_out.value)

    @cached_property
    def impossible(self) -> str | None:
        """Why its numbers cannot be right, as the record says or as its scores show; `None` where they can."""
        return self.record.impossible or _beats_the_source(self.record.scores, self.references.get("source", {}))

    @cached_property
    def unexamined(self) -> str | None:
        """Why nobody knows whether its model keeps its promises: it is from outside, and passed no exam."""
        if all(is_ours(target) for target in model_targets(self.record.config)):
            return None
        exam = self.record.exam or {"passed": None}
        if exam["passed"] is None:
            return "it did not sit the exam"
        return None if exam["passed"] else f"it failed {len(exam['failed'])} of {exam['laws']} laws of the exam"

    @cached_property
    def likelihoods(self) -> dict[str, np.ndarray]:
        """Log-likelihoods in nats of single examples that lie beside the record, by capability; empty without any."""
        import numpy as np

        file = per_example_file(self.path)
        if not file.is_file():
            return {}
        try:
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (ValueError, OSError, EOFError, BadZipFile) as error:
            raise BadInput(f"{file} holds no plain arrays: {str(error).splitlines()[0]}") from error

    @cached_property
    def references(self) -> dict[str, dict[str, Score]]:
        """Baselines and floor that were scored with the run, by name and metric."""
        try:
            return _REFERENCES.validate_python(self.record.dataset.get("references", {}))
        except ValidationError as error:
            raise BadInput(
                f"{self.path} is not a valid record: dataset.references: {error.errors()[0]['msg']}"
            ) from error


def _beats_the_source(scores: Mapping[str, Score], source: Mapping[str, Score]) -> str | None:
    """Whether a likelihood is better than that of the data's own source on the same examples by what no luck explains.

    For records that do not say it themselves: from the two scores alone, without the pairs of examples.
    """
    known = facts.metrics() if source else {}
    for name, theirs in source.items():
        ours, fact = scores.get(name), known.get(name)
        if ours is None or fact is None or not fact.terms or (ours.n, ours.version) != (theirs.n, theirs.version):
            continue
        if ours.value is None or theirs.value is None or ours.stderr is None or theirs.stderr is None:
            continue
        gain = ours.value - theirs.value if fact.better == "higher" else theirs.value - ours.value
        if gain > IMPOSSIBLE_SIGMAS * math.hypot(ours.stderr, theirs.stderr) + ROUNDING * abs(theirs.value):
            return f"{name} {ours.value:.3g} beats the source's own {theirs.value:.3g} of the same examples"
    return None


@dataclass(frozen=True)
class Row:
    """One configuration of a model under one budget: a run for each seed, all with the same code.

    `failed` are runs that failed and were repeated.
    """

    name: str
    runs: tuple[Run, ...]
    failed: tuple[Run, ...] = ()

    @property
    def budget(self) -> str:
        return self.runs[0].budget

    @property
    def minutes(self) -> float:
        return max(run.minutes for run in self.runs)

    @property
    def family(self) -> str:
        return self.runs[0].record.family

    @property
    def scored(self) -> tuple[Run, ...]:
        """The runs that count: finished ones. Where a number of one of them cannot be right, none of the row does."""
        return () if self.impossible else self.finished

    @property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.record.status == "finished")

    @property
    def impossible(self) -> tuple[Run, ...]:
        """Runs that report what cannot be."""
        return tuple(run for run in self.runs if run.impossible is not None)

    @property
    def unexamined(self) -> str | None:
        """Why nobody knows whether the model of one run, at least, keeps its promises; `None` where all do."""
        return next((run.unexamined for run in self.runs if run.unexamined is not None), None)

    @property
    def memorises(self) -> bool:
        """Whether the sampler of one run, at least, gives training images back."""
        return any(run.near_copies is not None and run.near_copies.excessive for run in self.finished)


@dataclass(frozen=True)
class Superseded:
    """A record that is on no row, and why."""

    run: Run
    why: str


def budgets(rows: Iterable[Row]) -> list[str]:
    """The budgets of some rows, the largest first."""
    minutes: dict[str, float] = {}
    for row in rows:
        minutes[row.budget] = max(minutes.get(row.budget, 0.0), row.minutes)
    return sorted(minutes, key=lambda name: (-minutes[name], name))


def select(records: Mapping[Path, Record], current: Current | None) -> tuple[list[Row], list[Superseded]]:
    """The rows of a board, and what stands below it.

    A row is one configuration that counts, as a rule the tuned one, with all its seeds at the newest code that has
    them. The first record of a seed counts, so that no one can repeat a seed until it is lucky; only a run that failed
    through no fault of its model may be repeated. `current=None` takes every configuration as it is, one row each: for
    local runs.
    """
    groups: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    superseded: list[Superseded] = []
    for run in sorted((Run(path, record) for path, record in records.items()), key=lambda run: str(run.path)):
        record = run.record
        if record.kind == "trial":
            continue  # evidence of a study, which has pages of its own
        why = _no_result(record) or _not_current(run, current)
        if why:
            superseded.append(Superseded(run, why))
        else:
            groups[record.data, record.model, run.budget, run.identity].append(run)

    configurations: dict[tuple[Any, ...], int] = defaultdict(int)
    for key in groups:
        configurations[key[:-1]] += 1
    rows = []
    for key, runs in sorted(groups.items()):
        model, identity = str(key[1]), str(key[-1])
        row, others = _row(model if configurations[key[:-1]] == 1 else f"{model} ({identity[:8]})", runs)
        rows.append(row)
        superseded += others
    return rows, sorted(superseded, key=lambda entry: str(entry.run.path))


def _no_result(record: Record) -> str | None:
    split = record.config["evaluation"]["split"]
    return None if split == "test" else f"scored on the {split} split"


def _not_current(run: Run, current: Current | None) -> str | None:
    if current is None:
        return None
    counting = current.get((run.record.data, run.record.model, run.budget))
    if not counting:
        return "nothing is tuned for it"
    return None if run.identity in counting else f"other configuration ({run.identity[:8]})"


def _row(name: str, runs: Sequence[Run]) -> tuple[Row, list[Superseded]]:
    """The runs of one configuration: those with the newest code that has all its seeds, the first of each seed."""
    by_code: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_code[run.record.code_hash or "unknown"].append(run)

    def seeds_then_age(code: str) -> tuple[int, datetime, str]:
        return len({run.seed for run in by_code[code]}), max(run.record.started for run in by_code[code]), code

    newest = max(by_code, key=seeds_then_age)
    superseded = [
        Superseded(run, f"other code ({code[:8]}), older or with fewer seeds")
        for code, others in by_code.items()
        if code != newest
        for run in others
    ]
    first: dict[tuple[int, int], Run] = {}
    failed = []
    order = sorted(by_code[newest], key=lambda run: (run.record.status == "failed", run.record.started, str(run.path)))
    for run in order:
        if first.setdefault(run.seed, run) is run:
            continue
        if run.record.status == "failed":
            failed.append(run)
        else:
            superseded.append(Superseded(run, "repeated seed: the first counts"))
    return Row(name, tuple(first[seed] for seed in sorted(first)), tuple(failed)), superseded


# Rankings ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One metric of a row, over its seeds."""

    interval: Interval
    stderr: float | None  # of the evaluation: over test examples
    protocol: Protocol
    how: Mapping[str, Any]  # exact or bound, which sampler

    @property
    def ends(self) -> tuple[float, float]:
        """Low and high, for telling rows apart: over seeds; with one seed, 95 % by the error of the evaluation."""
        if self.interval.low is not None and self.interval.high is not None:
            return self.interval.low, self.interval.high
        half = 1.96 * (self.stderr or 0.0)
        return self.interval.centre - half, self.interval.centre + half

    def places(self, sign: float) -> tuple[float, float]:
        """The same times `sign`, for ranks: anything may be behind one seed whose error is unknown."""
        if self.interval.low is None and self.stderr is None:
            return -math.inf, math.inf
        low, high = sorted(sign * end for end in self.ends)
        return low, high


@dataclass(frozen=True)
class Entry:
    """A row's place in a ranking, and the runs that stand under its protocol.

    Where intervals overlap, places are shared: `rank` is the best that the row can hold, `last` the worst.
    """

    rank: int
    last: int
    row: Row
    runs: tuple[Run, ...]
    cell: Cell

    @property
    def place(self) -> str:
        return str(self.rank) if self.rank == self.last else f"{self.rank}–{self.last}"


@dataclass(frozen=True)
class Reference:
    """A baseline or a floor: under the same protocol, never ranked."""

    name: str
    scores: dict[str, Score]


@dataclass(frozen=True)
class Ranking:
    """Rows whose scores may be compared: one metric, version and protocol."""

    column: Column
    protocol: Protocol
    entries: tuple[Entry, ...]
    references: tuple[Reference, ...]


class Judge:
    """Says which scores may be compared. Built from all records, since the newest version of a metric rules; of a cost,
    the version that is counted today."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.versions: dict[str, int] = defaultdict(int, {name: fact.version for name, fact in COSTS.items()})
        fingerprints: dict[str, set[str]] = defaultdict(set)
        for record in records:
            if fingerprint := Run(Path(), record).fingerprint:
                fingerprints[record.data].add(fingerprint)
            for name, score in record.scores.items():
                self.versions[name] = max(self.versions[name], score.version)
        self._changed = {data for data, found in fingerprints.items() if len(found) > 1}
        self._keys: dict[tuple[Path, str], str] = {}  # protocols of runs, by record and metric

    def protocol(self, run: Run, score: Score) -> Protocol:
        """Under which conditions a score holds, without how the model met them.

        Where a dataset's records do not all have the same data, its fingerprint is one of them.
        """
        data = {"data": run.fingerprint} if run.record.data in self._changed else {}
        return {name: value for name, value in score.protocol.items() if name != "how"} | data

    def score(self, run: Run, column: Column) -> Score | None:
        """A score with a value at the metric's newest version."""
        score = column.score(run.record)
        if score is None or score.value is None or score.version < self.versions[column.metric]:
            return None
        return score

    def outdated(self, row: Row, column: Column) -> int | None:
        """The old version of a metric that a row holds, if it does."""
        found = [column.score(run.record) for run in row.scored]
        versions = [score.version for score in found if score is not None and score.value is not None]
        old = [version for version in versions if version < self.versions[column.metric]]
        return min(old, default=None)

    def cell(self, runs: Sequence[Run], column: Column) -> Cell | None:
        """A metric over the runs of a row; `None` where none has it, or where seeds stand under different protocols."""
        scores = [(run, score) for run in runs if (score := self.score(run, column)) is not None]
        if len({self._key(run, column, score) for run, score in scores}) != 1:
            return None
        values = [cast(float, score.value) for _, score in scores]
        return Cell(
            column.interval(values),
            pooled_stderr([score.stderr for _, score in scores]),
            self.protocol(*scores[0]),
            scores[0][1].protocol.get("how", {}),
        )

    def _key(self, run: Run, column: Column, score: Score) -> str:
        """Of a score's protocol: the same where numbers may be compared."""
        place = run.path, column.metric
        if place not in self._keys:
            self._keys[place] = _canonical(self.protocol(run, score))
        return self._keys[place]

    def rankings(self, rows: Sequence[Row], column: Column) -> list[Ranking]:
        """One ranking for each protocol, the one with most rows first; the best row first."""
        by_protocol: dict[str, list[tuple[Row, list[Run]]]] = defaultdict(list)
        for row in rows:
            runs_under: dict[str, list[Run]] = defaultdict(list)
            for run in row.scored:
                if (score := self.score(run, column)) is not None:
                    runs_under[self._key(run, column, score)].append(run)
            for key, runs in runs_under.items():
                by_protocol[key].append((row, runs))
        found = []
        for _, members in sorted(by_protocol.items(), key=lambda item: (-len(item[1]), item[0])):
            placed = [(row, runs, cell) for row, runs in members if (cell := self.cell(runs, column)) is not None]
            places = rank_ranges([cell.places(column.sign) for *_, cell in placed])
            entries = [
                Entry(*place, row, tuple(runs), cell) for place, (row, runs, cell) in zip(places, placed, strict=True)
            ]
            entries.sort(key=lambda entry: (column.sign * entry.cell.interval.centre, entry.row.name))
            protocol = entries[0].cell.protocol
            references = self._references([run for entry in entries for run in entry.runs], column, protocol)
            found.append(Ranking(column, protocol, tuple(entries), references))
        return found

    def _references(self, runs: Sequence[Run], column: Column, protocol: Protocol) -> tuple[Reference, ...]:
        found: dict[str, dict[str, Score]] = {}
        for run in runs:
            for name, scores in run.references.items():
                score = scores.get(column.metric)
                if score is None or score.value is None or score.version < self.versions[column.metric]:
                    continue
                if _fits(self.protocol(run, score), protocol):
                    found.setdefault(name, scores)
        order = sorted(found, key=lambda name: (column.sign * cast(float, found[name][column.metric].value), name))
        return tuple(Reference(name, found[name]) for name in order)


def _canonical(protocol: Protocol) -> str:
    return json.dumps(protocol, sort_keys=True)


def _fits(reference: Protocol, protocol: Protocol) -> bool:
    """A reference belongs under a protocol that is its own; a baseline of text needs no context, so it fits any."""
    if reference.get("context") == "own":
        reference, protocol = (
            {name: value for name, value in given.items() if name not in ("context", "stride")}
            for given in (reference, protocol)
        )
    return _canonical(reference) == _canonical(protocol)
