"""What a record holds: scores and provenance of one run, immutable, validated when read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from benchmark.config import STAGES, choices, identity
from benchmark.identity import version_1
from benchmark.spec import Score, unknown

SCHEMA: Literal[2] = 2
Kind = Literal["run", "trial"]
Status = Literal["finished", "diverged", "failed", "truncated", "pruned"]

#: How a run ends that its command, or `run --resume`, resumes from its last checkpoint.
UNFINISHED = ("failed", "truncated")


def _holds(shape: Any) -> AfterValidator:
    """What every reader of a mapping takes for granted; the mapping stays as it is, with whatever else it holds."""
    adapter: TypeAdapter[Any] = TypeAdapter(shape)

    def checked(content: Any) -> Any:
        try:
            adapter.validate_python(content, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        return content

    return AfterValidator(checked)


class _Seeds(BaseModel):
    init: int
    data: int
    eval: int


def _known_modality(name: str) -> str:
    if name not in (known := choices("modality")):
        raise ValueError(str(unknown("modality", name, known)))
    return name


class _DataConfig(BaseModel):
    name: str
    target: str
    modality: Annotated[str, AfterValidator(_known_modality)]


class _ModelConfig(BaseModel):
    name: str
    target: str


class _BudgetConfig(BaseModel):
    examples: int
    minutes: float


class _EvaluationConfig(BaseModel):
    split: str


class _OriginConfig(BaseModel):
    model: _ModelConfig


class _Origin(BaseModel):
    config: _OriginConfig


class _Stage(BaseModel):
    origin: _Origin | None = None


class _Config(BaseModel):
    first_stage: _Stage | None = None
    start: _Stage | None = None
    data: _DataConfig
    model: _ModelConfig
    budget: _BudgetConfig
    training: dict[str, Any]
    evaluation: _EvaluationConfig


class _Git(BaseModel):
    commit: str
    dirty: bool


class _Split(BaseModel):
    n: int
    sha256: str


class _Reference(BaseModel):  # a score as plain values
    unit: str
    version: int
    value: float | None = None
    stderr: float | None = None
    n: int | None = None
    protocol: dict[str, Any] = {}


class _Dataset(BaseModel):  # empty where a run failed before it had its data
    name: str = ""
    source: str = ""
    licence: str = ""
    citation: str = ""
    note: str = ""
    publishable: bool = True
    splits: dict[str, _Split] = {}
    references: dict[str, dict[str, _Reference]] = {}


class _Hardware(BaseModel):
    cpu: str = ""
    cores: int | None = None
    device: str = ""
    threads: int = 0


class _Renewed(BaseModel):
    run: str
    code_hash: str | None
    git: _Git | None
    scores: list[str]


class _How(BaseModel):
    likelihood: Literal["exact", "bound", "approximate"] = "exact"


class _Protocol(BaseModel):
    how: _How = _How()


class SaidOfExam(BaseModel):
    """What a record says of the exam of its models from outside: of exactly the `sources` that made it.

    `passed` is `None` where they sat none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    passed: bool | None
    laws: Annotated[int, Field(ge=0)] = 0  # that examined them
    failed: list[str] = []
    sources: dict[str, str]  # package -> SHA-256 of its files
    when: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        sat = self.passed is not None
        if sat != (self.laws > 0) or sat != (self.when is not None) or not self.sources:
            raise ValueError("an exam has laws, a date and sources, and one that was not sat has sources alone")
        if (self.passed is False) != bool(self.failed) or len(self.failed) > self.laws:
            raise ValueError(f"passed is {self.passed}, but {len(self.failed)} of {self.laws} laws failed")
        return self


class Record(BaseModel):
    """What one run leaves behind. All that a reader sees is a pure function of these."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), populate_by_name=True)

    schema_version: Literal[1, 2] = Field(alias="schema")
    kind: Kind
    status: Status
    reason: str | None  # why a run is not finished: when and how
    model: str
    data: str
    budget: str
    seed: Annotated[dict[str, int], _holds(_Seeds)]
    config: Annotated[dict[str, Any], _holds(_Config)]
    config_hash: str
    code_hash: str | None
    git: Annotated[dict[str, Any], _holds(_Git)] | None
    dataset: Annotated[dict[str, Any], _holds(_Dataset)]
    environment: dict[str, str]
    hardware: Annotated[dict[str, Any], _holds(_Hardware)]
    started: datetime
    seconds: float
    scores: dict[str, Score]
    stability: dict[str, float] = {}  # how training went (`benchmark.watch`); older records have none
    # Since schema 2; older records have none of these.
    share: Annotated[float, Field(ge=0, le=1)] | None = None  # of the examples that the budget asks for
    impossible: str | None = None  # why its numbers cannot be right: they beat the known source of the data
    precision: Literal["float32", "bfloat16"] | None = None  # of the forward pass in training, as the hardware had it
    processes: Annotated[int, Field(ge=1)] = 1  # that trained together
    condition: dict[str, Any] | None = None  # what samples are drawn under, as the data specifies it
    sources: dict[str, str] = {}  # what else made it -> SHA-256: code of other packages, weights that it starts from
    #: Of models from outside: whether their source passed the exam.
    exam: Annotated[dict[str, Any], _holds(SaidOfExam)] | None = None
    #: Run, code and git of the training, and the scores that are of today's code.
    renewed: Annotated[dict[str, Any], _holds(_Renewed)] | None = None

    @field_validator("stability")
    @classmethod
    def _finite(cls, stability: dict[str, float]) -> dict[str, float]:
        for name, value in stability.items():
            if not math.isfinite(value):
                raise ValueError(f"stability {name!r} is not finite")
        return stability

    @field_validator("scores")
    @classmethod
    def _finite_or_absent(cls, scores: dict[str, Score]) -> dict[str, Score]:
        for name, score in scores.items():
            numbers = [number for number in (score.value, score.stderr) if number is not None]
            if not all(math.isfinite(number) for number in numbers):
                raise ValueError(f"score {name!r} holds a number that is not finite")
            if (score.value is None) == (score.absent is None):
                raise ValueError(f"score {name!r} must have a value or say why it has none")
            try:
                _PROTOCOL.validate_python(score.protocol)
            except ValidationError as error:
                place = ".".join(map(str, error.errors()[0]["loc"]))
                raise ValueError(f"score {name!r}, protocol.{place}: {error.errors()[0]['msg']}") from error
        return scores

    @property
    def family(self) -> str:
        """The folder that holds the model's file, or the file where it stands in none."""
        return str(self.config["model"]["target"]).split(".")[-3:][0]

    @property
    def publishable(self) -> bool:
        return bool(self.dataset.get("publishable", True))

    @cached_property
    def identity(self) -> str:
        """What makes two records' configurations the same, whatever the rule was when each was written."""
        return identity(self.config)

    @property
    def trained_in(self) -> str:
        """The precision of its training: stated since schema 2, before that by what the hardware had."""
        asked = self.config.get("training", {}).get("precision", "float32")
        return self.precision or (asked if self.hardware.get("bfloat16", True) else "float32")

    @property
    def hash_by_its_rule(self) -> str:
        """The `config_hash` that its configuration has by the rule of its schema."""
        return version_1(self.config) if self.schema_version == 1 else self.identity


_PROTOCOL: TypeAdapter[_Protocol] = TypeAdapter(_Protocol)


def model_targets(config: Mapping[str, Any]) -> list[str]:
    """The import path of every model that takes part in a run: its own, and those whose weights were taken over."""
    stages = [(config.get(name) or {}).get("origin") for name in STAGES]
    configs = [config, *(origin["config"] for origin in stages if origin)]
    return [str(one["model"]["target"]) for one in configs]


def origins(record: Record) -> dict[str, dict[str, Any]]:
    """The runs whose weights a record's run took over, by stage: id, hash of the weights, configuration, cost."""
    found = {name: (record.config.get(name) or {}).get("origin") for name in STAGES}
    return {name: origin for name, origin in found.items() if origin}
