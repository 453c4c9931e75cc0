"""A study on disk: what it was, and a line for each trial. Everything that is said about it is a pure function of this.

While it runs, `study.yaml` stands in its folder beside a folder for each trial. What is committed is one file of JSON
lines: the header, then the trials.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.config import Experiment, identity, read_yaml, renamed
from benchmark.facts import measure
from benchmark.identity import version_1
from benchmark.record import Record, now, read_record, write_atomic
from benchmark.spec import BadInput
from benchmark.sweep.space import Design, DesignName, Option, Remedy, Space, lookup

SCHEMA: Literal[2] = 2
CONTINUED = "continued.jsonl"  # in the folder of a study's runs: what it had when it was continued there

#: What knows nothing scores, by dataset and metric.
Starts = Mapping[tuple[str, str], float]
Status = Literal["finished", "diverged", "failed", "truncated", "pruned", "refused"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), populate_by_name=True)


class Header(_Strict):
    """What a study was."""

    schema_version: Literal[1, 2] = 1
    started: datetime = datetime.min.replace(tzinfo=UTC)  # unknown before schema 2: earlier than any change of a name
    name: str
    data: str
    model: str
    family: str
    design: DesignName
    sampler: str  # of the design `space`; others are grids
    pruner: str
    options: dict[str, Option]  # the search space, fixed ones too; empty for grids
    remedies: dict[str, Remedy] = {}  # of the design `remedies`: also those that are not for its data
    tuned: dict[str, Any]  # what the options are at the tuned setting
    config: dict[str, Any]  # that every trial starts from,
    settings: tuple[str, ...] = ()  # and what composed it
    config_hash: str
    confirms: dict[str, Any] = {}  # of the design `confirm`: `study`, `trial` and `params` of the setting
    metric: str = ""  # by which trials are judged, lower is better; known from the first record
    unit: str = ""
    environment: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    git: dict[str, Any] | None = None

    @property
    def measure(self) -> str:
        """What a score is in: its unit, or the title of a metric that has none."""
        return measure(self.metric, self.unit)

    @property
    def hash_by_its_rule(self) -> str:
        """The `config_hash` that its configuration has by the rule of its schema."""
        return version_1(self.config) if self.schema_version == 1 else identity(self.config)

    def asks_the_same(self, other: Header) -> bool:
        """Whether trials of both may stand in one study."""
        mine, theirs = (
            (one.design, one.sampler, one.options, one.remedies, identity(one.config), one.confirms)
            for one in (self, other)
        )
        return mine == theirs

    @classmethod
    def of(
        cls,
        name: str,
        base: Experiment,
        space: Space,
        design: Design,
        sampler: str,
        pruner: str,
        settings: Sequence[str],
        confirms: dict[str, Any],
    ) -> Header:
        searched = design.name == "space"
        return cls(
            schema_version=SCHEMA,
            started=now(),
            name=name,
            data=base.data.name,
            model=base.model.name,
            family=base.family,
            design=design.name,
            sampler=sampler if searched else "grid",
            pruner=pruner,
            options=space.options if searched else {},
            remedies=space.remedies if design.name == "remedies" else {},
            tuned={key: lookup(base, key) for key in space.options} if searched else {},
            config=base.container() | {"runtime": base.to_record()["runtime"]},
            settings=tuple(setting for setting in settings if not setting.startswith("runtime.")),
            config_hash=base.config_hash,
            confirms=confirms,
        )


class Trial(_Strict):
    """What came of one trial."""

    number: int
    params: dict[str, Any]
    tuned: bool = False  # the tuned setting itself, which no sampler proposed
    seed: dict[str, int] = {}
    status: Status
    reason: str | None = None
    score: float | None = None  # the validation score of the checkpoint that it chose
    validations: tuple[tuple[int, float], ...] = ()  # examples seen, score; the first before training
    scores: dict[str, float] = {}  # what else was measured: costs, and of samples
    stability: dict[str, float] = {}
    config_hash: str = ""
    code_hash: str | None = None

    @property
    def cap(self) -> float | None:
        """The score before training: a trial that ends worse learnt nothing."""
        return self.stability.get("initial")

    @property
    def diverged(self) -> bool:
        """Not finite, or in the end worse than at the start (`reason` says which)."""
        final, cap = self.stability.get("final"), self.cap
        return self.status == "diverged" or (final is not None and cap is not None and final > cap)

    @property
    def value(self) -> float | None:
        """The score, capped at that before training; `None` where nothing was scored."""
        found = [value for value in (self.score, self.cap) if value is not None]
        return min(found) if found and self.status not in ("failed", "refused") else None

    @property
    def learnt(self) -> bool:
        """Whether it has a score, better than that before training."""
        return self.value is not None and (self.cap is None or self.value < self.cap)


class Study(_Strict):
    """A header and its trials, in order."""

    header: Header
    trials: tuple[Trial, ...]

    @property
    def examples(self) -> int:
        """Training examples of a trial."""
        return int(self.header.config["budget"]["examples"])

    @property
    def proposed(self) -> list[Trial]:
        """The trials of the design, without the tuned setting."""
        return [trial for trial in self.trials if not trial.tuned]


@dataclass(frozen=True)
class Studied:
    """All studies of one model on one dataset, and which of them may be seen as one: those under one budget."""

    data: str
    model: str
    family: str
    search: Study | None  # the largest quasi-random or random one, unpruned: importances may be read from it
    rates: Study | None  # the design `learning_rate`
    crossed: Study | None  # the design `seeds`
    others: tuple[Study, ...]  # of other budgets or samplers
    confirms: tuple[Study, ...]
    start: float | None = None  # the score of the uniform distribution, for models that a likelihood judges

    @property
    def title(self) -> str:
        return f"{self.model} on {self.data}"

    @property
    def measure(self) -> str:
        """What its trials are judged in."""
        return next((s.header.measure for s in (self.search, self.rates, self.crossed) if s is not None), "")

    @property
    def together(self) -> tuple[Study, ...]:
        """Those whose trials had the same length, so that their scores may be set side by side."""
        mine = [study for study in (self.search, self.rates, self.crossed) if study is not None]
        return tuple(study for study in mine if study.examples == mine[0].examples)


def by_model(studies: Sequence[Study], starts: Starts = MappingProxyType({})) -> list[Studied]:
    """What was studied of each model. Of equally large searches the longer trials count; then grids of that length.
    Remedies against collapse are left out: `benchmark.sweep.remedies` speaks of them."""
    groups: dict[tuple[str, str, str], list[Study]] = defaultdict(list)
    for study in sorted(studies, key=lambda study: study.header.name):
        if study.header.design == "remedies":
            continue
        groups[study.header.data, study.header.family, study.header.model].append(study)
    return [_studied(key, of, starts) for key, of in sorted(groups.items())]


def _studied(key: tuple[str, str, str], studies: Sequence[Study], starts: Starts) -> Studied:
    of: dict[str, list[Study]] = defaultdict(list)
    for study in studies:
        of[study.header.design].append(study)
    searches = [s for s in of["space"] if s.header.sampler in ("qmc", "random") and s.header.pruner == "none"]
    search = max(searches, key=lambda study: (len(study.trials), study.examples), default=None)

    def fitting(grids: Sequence[Study]) -> Study | None:
        same = [grid for grid in grids if search is not None and grid.examples == search.examples]
        return max(same or grids, key=lambda study: study.examples, default=None)

    rates, crossed = fitting(of["learning_rate"]), fitting(of["seeds"])
    chosen = [study.header.name for study in (search, rates, crossed) if study is not None]
    others = tuple(s for s in studies if s.header.design != "confirm" and s.header.name not in chosen)
    data, family, model = key
    start = next((starts[data, s.header.metric] for s in studies if (data, s.header.metric) in starts), None)
    return Studied(data, model, family, search, rates, crossed, others, tuple(of["confirm"]), start)


def collect(folder: Path) -> Study:
    """The study in the folder of its runs, `runs/studies/<name>`, with every trial that has ended."""
    file = folder / "study.yaml"
    if not file.is_file():
        raise BadInput(f"{folder} is not a study: give runs/studies/<name>, which holds study.yaml")
    header = _under_todays_names(_parse(Header, json.dumps(read_yaml(file)), file))
    trials, first = [], None
    for about in sorted(folder.glob("*/trial.yaml")):
        known = read_yaml(about)
        refused = about.with_name("refused.txt")
        if about.with_name("record.json").is_file():
            record = read_record(about.parent)
            first = first or (record if "selection" in record.scores else None)
            trials.append(_trial(known, record, about.parent))
        elif refused.is_file():
            trials.append(Trial(**known, status="refused", reason=refused.read_text(encoding="utf-8").strip()))
    if first is not None:
        selection = first.scores["selection"]
        header = header.model_copy(
            update={
                "metric": selection.protocol["metric"],
                "unit": selection.unit,
                "environment": first.environment,
                "hardware": first.hardware,
                "git": first.git,
            }
        )
    earlier = folder / CONTINUED
    if earlier.is_file():
        study = read_study(earlier)
        same = ("started", "metric", "unit", "environment", "hardware", "git")
        header = header.model_copy(update={name: getattr(study.header, name) for name in same})
        ended = {trial.number for trial in trials}
        trials = sorted(
            [*(trial for trial in study.trials if trial.number not in ended), *trials], key=lambda trial: trial.number
        )
    return Study(header=header, trials=tuple(trials))


def continued(study: Study, folder: Path) -> None:
    """Keep in the folder of a study's runs the trials of elsewhere, whose runs are not here."""
    write_atomic(folder / CONTINUED, as_lines(study))


def _trial(known: dict[str, Any], record: Record, folder: Path) -> Trial:
    selection = record.scores.get("selection")
    scores = {name: score.value for name, score in record.scores.items() if score.value is not None}
    scores.pop("selection", None)
    return Trial(
        **known,
        seed={name: seed for name, seed in record.seed.items() if name != "eval"},
        status=record.status,
        reason=record.reason,
        score=None if selection is None else selection.value,
        validations=_validations(folder / "curves.csv"),
        scores={name: float(f"{value:.6g}") for name, value in scores.items()},
        stability={name: float(f"{value:.6g}") for name, value in record.stability.items()},
        config_hash=record.config_hash,
        code_hash=record.code_hash,
    )


def _validations(file: Path) -> tuple[tuple[int, float], ...]:
    if not file.is_file():
        return ()
    rows = [
        row for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()) if row["name"].startswith("val/")
    ]
    values = [(int(row["examples"]), float(f"{float(row['value']):.6g}")) for row in rows]
    return tuple((examples, value) for examples, value in values if math.isfinite(value))


def publish_study(folder: Path, target: Path) -> Path:
    """Write the study as JSON lines to `target/<data>/<name>.jsonl`; a longer file replaces a shorter one."""
    study = collect(folder)
    codes = {trial.code_hash for trial in study.trials if trial.status != "refused"}
    if not study.header.metric:
        raise BadInput(f"{folder} holds no trial with a score: run the sweep first")
    if None in codes or study.header.git is None or study.header.git["dirty"]:
        raise BadInput(f"{folder} was made with code that is not committed: commit, then run it again")
    file = target / study.header.data / f"{study.header.name}.jsonl"
    if file.is_file() and len(read_study(file).trials) > len(study.trials):
        raise BadInput(f"{file} holds more trials than {folder}: a study is never cut short")
    return write_atomic(file, as_lines(study))


def as_lines(study: Study) -> str:
    """The content of a committed file."""
    lines = [study.header.model_dump_json(), *(trial.model_dump_json(exclude_defaults=True) for trial in study.trials)]
    return "\n".join(lines) + "\n"


def read_study(file: Path) -> Study:
    """The validated study in a committed file. Raises `BadInput` with the line that is malformed."""
    if not file.is_file():
        raise BadInput(f"no study at {file}: give leaderboards/studies/<data>/<name>.jsonl")
    try:
        header, *lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}") from error
    except ValueError as error:  # nothing to unpack
        raise BadInput(f"{file} is empty: it holds no study") from error
    return Study(
        header=_under_todays_names(_parse(Header, header, file)),
        trials=tuple(_parse(Trial, line, file, number) for number, line in enumerate(lines, start=2)),
    )


def _under_todays_names(header: Header) -> Header:
    return header.model_copy(update=renamed(header.config, header.started))


def read_studies(folder: Path, problems: list[str] | None = None) -> dict[Path, Study]:
    """Every committed study below `folder`. A file that is none is skipped and named in `problems`, or raised as
    `BadInput` where none are given."""
    found = {}
    for file in sorted(folder.rglob("*.jsonl")):
        try:
            found[file] = read_study(file)
        except BadInput as error:
            if problems is None:
                raise
            problems.append(str(error))
    return found


def _parse(kind: Any, text: str, file: Path, line: int = 1) -> Any:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the line"
        raise BadInput(f"{file}, line {line}, is not a line of a study: {place}: {first['msg']}") from error
