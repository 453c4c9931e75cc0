"""What is known of every number that a record may hold, and of every modality: read from YAML, without torch.

A metric is a file in `configs/metric/`, a modality one in `configs/modality/`, costs are in `facts.yaml`; a user's own
folder of configurations adds to the first two. They are the one home of these facts: boards, site, `compare`,
dashboards, `check` and `docs/metrics.md` are made from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmark.config import choices, read_group
from benchmark.spec import BadInput, Direction, Structure, unknown

FILE = Path(__file__).with_name("facts.yaml")

#: A likelihood that beats the known source of its data by more standard errors than these, and by more than this share
#: of the source's own score (float32 likelihoods are no better than that), cannot be.
IMPOSSIBLE_SIGMAS, ROUNDING = 5.0, 1e-4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fact(_Strict):
    """One kind of number.

    `title` heads a column of a board, `short` one of the terminal, `about` names an axis. `digits` are shown at least;
    `log`: its interval over seeds is on the log scale. No number leaves `low` to `high`. `version` is of its meaning:
    numbers of other versions leave the boards. `machine`: it depends on the machine.
    """

    name: str
    title: str
    short: str = ""
    about: str = ""
    unit: str
    better: Direction
    digits: int
    version: int
    log: bool = False
    low: float = -math.inf
    high: float = math.inf
    machine: bool = False
    formula: str = ""

    def model_post_init(self, context: Any, /) -> None:
        object.__setattr__(self, "short", self.short or self.title)
        object.__setattr__(self, "about", self.about or self.title)


class Within(_Strict):
    """Which metric of samples it is, of those that took at most so many evaluations of the network each."""

    of: str
    evaluations: int = Field(ge=1)


class Truncation(_Strict):
    """Which metric of samples it is, from latents drawn towards their middle by this factor."""

    of: str
    factor: float = Field(gt=0, le=1)


class MetricFact(Fact):
    """A metric: a number computed from evidence by the function at `target`.

    It is computed for data of these `modalities`, and of those that name it. `of` says whether it judges the
    likelihood or samples, and with that its table; `order` its place in tables and in docs/metrics.md, in whose
    `section` stand `formula`, `protocol`, `source` and `weaknesses`. `terms`: arrays of single examples beside a record
    whose mean it is, up to sign and unit, the best first. `shown`: boards have a column for it. Those of samples
    `within` some evaluations of the network have a table of their own, and so have those of samples under `truncation`.
    """

    target: str
    modalities: tuple[str, ...] = ()
    of: Literal["likelihood", "samples"]
    terms: tuple[str, ...] = ()
    shown: bool = True
    within: Within | None = None
    truncation: Truncation | None = None
    order: int = 10_000
    section: str = "Further metrics"
    protocol: str
    source: str
    weaknesses: str


class Question(_Strict):
    """A heading and a paragraph of the advice on choosing a family."""

    title: str
    text: str


class Choosing(_Strict):
    likelihood: Question | None = None
    samples: Question | None = None


class ModalityFact(_Strict):
    """A kind of data as people know it: what is scored first, what stands beside it, how it is called.

    `structure` is what models see of it. `unit` names, one and many, what two models are compared on. `likelihood` and
    `samples` are the columns of a board; the first of each sorts it. `metrics` are further ones that are computed.
    `select` are those that may choose a checkpoint on validation: the first whose evidence a model promises does.
    `trials` are what a trial tells of its samples. `shown` samples stand in one picture. `boards` are the datasets that
    readers meet first, in this order.
    """

    name: str
    target: str
    structure: Structure
    title: str
    unit: tuple[str, str] = ("example", "examples")
    likelihood: tuple[str, ...] = Field(min_length=1)
    samples: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    select: tuple[str, ...] = Field(min_length=1)
    trials: tuple[str, ...] = ()
    shown: int = Field(default=64, ge=1)
    boards: tuple[str, ...] = ()
    choosing: Choosing = Choosing()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        computed, shown = metrics(), {**metrics(), **DERIVED}
        columns, others = (*self.likelihood, *self.samples), (*self.metrics, *self.select, *self.trials)
        for known, names in ((shown, columns), (computed, others)):
            for name in names:
                if name not in known:
                    raise ValueError(str(unknown("metric", name, known)))
        for name in self.select:
            if computed[name].better != "lower":
                allowed = ", ".join(one for one, fact in computed.items() if fact.better == "lower")
                raise ValueError(f"select: less of {name!r} is not better, so it cannot select (allowed: {allowed})")
        return self

    @property
    def named(self) -> frozenset[str]:
        """Every metric that its file names."""
        return frozenset((*self.likelihood, *self.samples, *self.metrics, *self.select, *self.trials))


def _fact(shape: type[Any], group: str, name: str) -> Any:
    try:
        return shape.model_validate({**read_group(group, name), "name": name})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{choices(group)[name]}: {f'{place}: ' if place else ''}{message}") from error


def _files(group: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(file)) for name, file in choices(group).items())


@cache
def _metrics(files: tuple[tuple[str, str], ...]) -> dict[str, MetricFact]:
    found = [_fact(MetricFact, "metric", name) for name, _ in files]
    return {fact.name: fact for fact in sorted(found, key=lambda fact: (fact.order, fact.name))}


@cache
def _modalities(files: tuple[tuple[str, str], ...], of: tuple[tuple[str, str], ...]) -> dict[str, ModalityFact]:
    return {name: _fact(ModalityFact, "modality", name) for name, _ in files}


def _costs(part: Literal["costs", "derived"]) -> dict[str, Fact]:
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: Fact(name=name, **entry) for name, entry in content[part].items()}


COSTS: Mapping[str, Fact] = _costs("costs")
DERIVED: Mapping[str, Fact] = _costs("derived")


def metrics() -> Mapping[str, MetricFact]:
    """Every metric by name, in the order of tables. Raises `BadInput` where a file is malformed."""
    return _metrics(_files("metric"))


def modalities() -> Mapping[str, ModalityFact]:
    """Every modality by name. Raises `BadInput` where a file is malformed."""
    return _modalities(_files("modality"), _files("metric"))


def modality(name: str) -> ModalityFact:
    """The modality called `name`. Raises `BadInput` with the nearest name that exists."""
    if name not in (known := modalities()):
        raise unknown("modality", name, known)
    return known[name]


def as_read(datasets: Iterable[str]) -> list[str]:
    """Names of datasets in the order in which readers meet them: those that modalities name, then the others."""
    first = [name for fact in modalities().values() for name in fact.boards]
    return sorted(datasets, key=lambda name: (first.index(name) if name in first else len(first), name))


def metrics_of(kind: ModalityFact) -> dict[str, MetricFact]:
    """The metrics that are computed for data of a modality, in the order of tables."""
    return {name: fact for name, fact in metrics().items() if kind.name in fact.modalities or name in kind.named}


def facts() -> dict[str, Fact]:
    """Every kind of number: metrics, costs, and what boards compute."""
    return {**metrics(), **COSTS, **DERIVED}


def measure(name: str, unit: str) -> str:
    """What numbers called `name` are in: their unit, or where they have none the title of what they are."""
    if unit != "1":
        return unit
    known = facts()
    return known[name].title if name in known else name
