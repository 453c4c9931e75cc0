"""What can be composed: the shapes of an experiment and its parts, validated before any work, and their identity.

pydantic checks types, and names are compared with what exists. Neither torch nor a model is imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from benchmark.config.files import choices, config_folders, read_group, read_yaml
from benchmark.identity import version_2
from benchmark.spec import BadInput, Structure, shown, unknown


def _no_switch(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number, not true or false")
    return value


_Number = BeforeValidator(_no_switch)
Share = Annotated[float, _Number, Field(ge=0, le=1)]
Count = Annotated[int, _Number, Field(ge=0, lt=2**31)]
Positive = Annotated[int, _Number, Field(ge=1, lt=2**31)]
Minutes = Annotated[float, _Number, Field(gt=0, allow_inf_nan=False)]
Draws = Annotated[int, _Number, Field(ge=2, lt=2**31)]  # with a standard error
Seed = Annotated[int, _Number, Field(ge=0, lt=2**31)]


def _import_path(target: str) -> str:
    if (
        "." not in target
        or not all(part.isidentifier() for part in target.split("."))
        or target.startswith("__main__.")
    ):
        raise ValueError("input should be the import path of a class, such as package.module.Class")
    return target


Target = Annotated[str, AfterValidator(_import_path)]


def _home(path: str) -> str:
    """`~` is the user's home, as a shell has it."""
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{error}: write the whole path") from error


Place = Annotated[str, Field(min_length=1), AfterValidator(_home)]  # a path
_Shape = TypeVar("_Shape", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class _Named(BaseModel):
    """A group whose remaining keys are options of the class that `target` names.

    `trust` lists the packages outside the benchmark to which the user has consented: an import path is code, and what
    was only read has no consent.
    """

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())
    name: Annotated[str, Field(min_length=1)]
    target: Target
    #: What records that lack an option count as having: what the code did before the option existed.
    before: dict[str, Any] = Field(default={}, exclude=True)
    _trust: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _before_is_of_options(self) -> Self:
        for name in self.before:
            if name not in self.options:
                raise ValueError(f"before says what {name!r} was, which is not an option here")
        return self

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def trust(self) -> tuple[str, ...]:
        return self._trust

    def consented(self, trust: Sequence[str]) -> Self:
        """The same with consent to the packages in `trust`. Raises `BadInput` where the class is in another one."""
        consent(self.target, trust, self.name)
        self._trust = tuple(trust)
        return self


def _modality(name: str) -> str:
    if name not in (known := choices("modality")):
        raise ValueError(str(unknown("modality", name, known)))
    return name


class DataConfig(_Named):
    """A dataset. Its `modality` says how it is scored and shown, and which structure models see."""

    modality: Annotated[str, AfterValidator(_modality)]
    minutes: dict[str, float] = Field(exclude=True)  # what each budget means on this dataset


#: What records of models said before they said structures.
_STRUCTURES = {"image": "grid", "text": "sequence"}


class ModelConfig(_Named):
    """A model: the structures of data that it accepts, and those of conditions."""

    structures: Annotated[tuple[Structure, ...], Field(min_length=1)]
    conditions: tuple[Structure, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _said_in_modalities(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or "modalities" not in content or "structures" in content:
            return content
        content = dict(content)
        content["structures"] = [_STRUCTURES.get(one, one) for one in content.pop("modalities")]
        return content


class Budget(_Strict):
    """How long a run trains: `examples`, on any machine. The rest only names it and says what it costs."""

    name: str
    minutes: Minutes  # nominal, of one thread of the reference machine
    examples: Positive


class Seeds(_Strict):
    init: Seed
    data: Seed
    eval: Seed


def _metric_or_auto(name: str) -> str:
    if name not in (known := ("auto", *choices("metric"))):
        raise ValueError(str(unknown("metric", name, known)))
    return name


class Training(_Strict):
    batch_size: Positive
    warmup: Share
    decay: Share
    clip_norm: Annotated[float, _Number, Field(ge=0)]
    ema_decay: Annotated[float, _Number, Field(ge=0, lt=1)]
    precision: Literal["float32", "bfloat16"]
    validations: Positive
    patience: Count
    selection: Annotated[str, AfterValidator(_metric_or_auto)] = "auto"

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup={self.warmup:g} and decay={self.decay:g} are shares of training: at most 1 together"
            )
        return self


class Evaluation(_Strict):
    split: Literal["validation", "test"]
    elbo_draws: Draws
    importance_samples: Positive
    importance_examples: Positive
    solved_examples: Positive = 1000
    outliers: str = "corrupted"
    sample_draws: Draws
    sample_examples: Positive
    stride: Positive
    validation_draws: Draws
    validation_examples: Positive


class Runtime(_Strict):
    device: Literal["auto", "cpu", "gpu"]
    threads: Annotated[int, _Number, Field(ge=0, le=4096)]
    runs: Place
    data_root: Place | None
    inception: Place | None
    limit_minutes: Minutes | None = None


class Origin(_Strict):
    """The run whose weights are taken over: what its record says, and what is needed to make it again."""

    run: str  # its id
    sha256: str  # of its weights
    config: dict[str, Any]  # its experiment, without runtime
    cpu_minutes: float | None = None  # what its training cost
    training_flops: float | None = None


class Stage(_Strict):
    """A run whose weights are taken over: its folder, or the settings of an experiment that is carried out before.

    `identity` is that of its configuration; `origin` is known once the run has been found.
    """

    run: Place | None = None
    experiment: Annotated[str, Field(min_length=1)] | None = None
    identity: str | None = None
    origin: Origin | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.run is not None and self.experiment is not None and self.origin is None:
            raise ValueError("give a run or an experiment, not both")
        return self

    @property
    def given(self) -> bool:
        return self != Stage()


#: Whose weights an experiment takes over: those of a model inside its own, and those that its own starts from.
STAGES = ("first_stage", "start")


class Experiment(_Strict):
    """One composed, validated configuration."""

    data: DataConfig
    model: ModelConfig
    first_stage: Stage = Stage()
    start: Stage = Stage()
    budget: Budget
    seed: Seeds
    training: Training
    evaluation: Evaluation
    runtime: Runtime

    @property
    def family(self) -> str:
        return family_of(self.model.target)

    @property
    def trust(self) -> tuple[str, ...]:
        """The packages outside the benchmark whose classes may be imported for it."""
        return self.model.trust

    @property
    def stages(self) -> dict[str, Stage]:
        """Those that are given."""
        return {name: stage for name in STAGES if (stage := getattr(self, name)).given}

    @property
    def origins(self) -> dict[str, Origin]:
        """The runs whose weights are taken over."""
        return {name: stage.origin for name, stage in self.stages.items() if stage.origin is not None}

    @property
    def vocabulary(self) -> DataConfig | None:
        """The data whose words the model has known from its start; `None`: those of its own."""
        if self.start.origin is None:
            return None
        before = validate({**self.start.origin.config, "runtime": self.runtime.model_dump()})
        return before.vocabulary or before.data

    @property
    def targets(self) -> tuple[str, ...]:
        """The import path of every class that takes part."""
        named = (self.data, self.model, *self._outliers())
        before = [str(of.config[group]["target"]) for of in self.origins.values() for group in ("data", "model")]
        return tuple(dict.fromkeys((*(one.target for one in named), *before, *own_targets("modality", "metric"))))

    def _outliers(self) -> list[DataConfig]:
        name = self.evaluation.outliers
        return [] if name == "corrupted" else [load_data(name)]

    @property
    def config_hash(self) -> str:
        """What makes two experiments the same: SHA-256, by the rule of `benchmark.identity`."""
        return identity(self.container())

    def container(self) -> dict[str, Any]:
        """Everything, as plain containers that `from_container` takes back."""
        content = self.model_dump(mode="json")
        content["data"]["minutes"] = self.data.minutes
        for name in STAGES:
            if name not in self.stages:
                del content[name]
        return content

    def to_record(self) -> dict[str, Any]:
        """The container without the folders of stages, which are of one machine: their origins say what they were."""
        content = self.container()
        for name in self.origins:
            content[name] |= {"run": None}
        return content

    @property
    def title(self) -> str:
        return f"{self.model.name} on {self.data.name}, {self.budget.name}, seed {self.seed.init}"


class SuiteEntry(_Strict):
    data: str
    model: str
    settings: tuple[str, ...] = ()


class Suite(_Strict):
    """Every experiment with every seed, under one budget. `settings` (`training.validations=5`) are of all of them."""

    description: str
    budget: str
    settings: tuple[str, ...] = ()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    experiments: Annotated[tuple[SuiteEntry, ...], Field(min_length=1)]


def load_data(name: str, trust: Sequence[str] = ()) -> DataConfig:
    """The dataset's own configuration, without a model; `trust` lists the packages that may be imported for it."""
    config = _load("data", name, DataConfig)
    config._trust = tuple(trust)
    return config


def own_targets(*groups: str) -> list[str]:
    """The import paths outside the benchmark that the user's own files of these groups name."""
    files = [file for group in groups for file in choices(group).values() if file.parents[1] != config_folders()[-1]]
    targets = [str(read_yaml(file).get("target")) for file in files]
    return sorted({target for target in targets if not target.startswith("benchmark.")})


def load_model(name: str) -> ModelConfig:
    """The model's own configuration, without data."""
    return _load("model", name, ModelConfig)


def read_suite(name: str) -> Suite:
    """What `configs/suite/<name>.yaml` says."""
    return _load("suite", name, Suite)


def _load(group: str, name: str, shape: type[_Shape]) -> _Shape:
    """What `configs/<group>/<name>.yaml` says. Raises `BadInput` where it is missing or of another shape."""
    content = read_group(group, name)
    if "name" in shape.model_fields:
        content["name"] = name
    try:
        return _fitting(shape, content)
    except Malformed as error:
        raise BadInput(f"{choices(group)[name]}: {error}") from error


def from_container(content: Mapping[str, Any], trust: Sequence[str] = ()) -> Experiment:
    """Validate a resolved configuration that will be carried out: a composed one, or one that a run left behind."""
    experiment = validate(content)
    for named in (experiment.data, experiment.model, *experiment._outliers()):
        named.consented(trust)
    for target in (*own_targets("modality", "metric"), *experiment.targets):
        consent(target, trust)
    return experiment


def validate(content: Mapping[str, Any]) -> Experiment:
    """A resolved configuration of whoever wrote it, to be read and not to be run: it may name any class."""
    return _fitting(Experiment, content)


def _unspeakable(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """What a record cannot hold, and a folder cannot be called."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _unspeakable(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _unspeakable(value, place)
    elif isinstance(node, float) and not math.isfinite(node):
        yield place, f"is {node}: give a finite number"
    elif isinstance(node, str) and ("\0" in node or any("\ud800" <= letter <= "\udfff" for letter in node)):
        yield place, f"is {node!r}, which is not text in UTF-8: give another one"


class Malformed(BadInput):
    """What was given does not fit a shape, at this `place`."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


def _fitting(shape: type[_Shape], content: Any) -> _Shape:
    """The content as `shape`. Raises `Malformed` for the first thing that is wrong: where, what was given, and why."""
    try:
        found = shape.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Malformed(place, _in_words(place, first, shape)) from error
    for place, problem in _unspeakable(content):
        raise Malformed(place, f"{place} {problem}")
    return found


def _in_words(place: str, error: Any, shape: type[BaseModel]) -> str:
    message, given = error["msg"].removeprefix("Value error, "), error["input"]
    match error["type"]:
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden":
            where, _, name = place.rpartition(".")
            return str(unknown(f"option of {where}" if where else "setting", name, _options(shape, error["loc"][:-1])))
        case "string_type" if isinstance(given, (bool, int, float)):
            message = f"""input should be text: put it in double quotes, as in '{place}="…"'"""
    message = f"{message[0].lower()}{message[1:]}"
    return f"{place}: {message}" if isinstance(given, Mapping) or not place else f"{place}={shown(given)}: {message}"


def _options(shape: Any, place: Sequence[str | int]) -> list[str]:
    """The names that a shape has at a place inside it."""
    for part in place:
        shape = get_args(shape)[0] if isinstance(part, int) else shape.model_fields[part].annotation
    return list(shape.model_fields)


def family_of(target: str) -> str:
    """The folder that holds the file of the class at this import path; the file itself where it stands in none."""
    return target.split(".")[-3:][0]


def trusted(target: str, trust: Sequence[str]) -> bool:
    """Whether the class at this import path is the benchmark's, or of a package in `trust`."""
    return target.split(".")[0] in ("benchmark", *trust)


def consent(target: str, trust: Sequence[str], name: str | None = None) -> None:
    """Raises `BadInput` unless the class at this import path is the benchmark's, or of a package in `trust`."""
    if not trusted(target, trust):
        package = target.split(".")[0]
        who = "the configuration" if name is None else repr(name)
        raise BadInput(
            f"{who} names the class {target!r} outside the benchmark: an import path is code; "
            f"if you trust it, add --trust {package}"
        )


def identity(config: Mapping[str, Any]) -> str:
    """The identity of a resolved configuration, one of today or one that a record holds."""
    groups = {group: config[group] for group in ("data", "model")}
    before = {group: _before(group, str(named["name"])) for group, named in groups.items()}
    stages = {name: _identity_of(stage) for name in STAGES if any((stage := config.get(name) or {}).values())}
    return version_2(config, before | _BEFORE, stages)


def _identity_of(stage: Mapping[str, Any]) -> str:
    """The identity of the experiment whose weights are taken over."""
    return identity(stage["origin"]["config"]) if stage.get("origin") else str(stage["identity"])


def _later(group: type[BaseModel]) -> dict[str, Any]:
    """The options that have a default here: they came later, and the default is what the code did until then."""
    return {name: field.default for name, field in group.model_fields.items() if not field.is_required()}


_BEFORE = {"training": _later(Training), "evaluation": _later(Evaluation)}


def _before(group: str, name: str) -> dict[str, Any]:
    """What `configs/<group>/<name>.yaml` says of options that older records lack."""
    files = (folder / group / f"{name}.yaml" for folder in config_folders())
    return next((_before_in(file) for file in files if file.is_file()), {})


@cache
def _before_in(file: Path) -> dict[str, Any]:
    before = read_yaml(file).get("before") or {}
    if not isinstance(before, dict):
        raise BadInput(f"{file}: before={shown(before)}: it must map options to what the code did without them")
    return before


class Rename(_Strict):
    """A configuration that changed its name. `until`: when the old name came to mean something else, if it did."""

    group: Literal["data", "model"]
    old: str
    new: str
    until: datetime | None = None


class _Renames(_Strict):
    renames: tuple[Rename, ...]


def renames() -> tuple[Rename, ...]:
    """The tables in `renames.yaml`, the shipped one before the user's own, in the order in which names changed."""
    files = (folder / "renames.yaml" for folder in reversed(config_folders()))
    return tuple(rename for file in files if file.is_file() for rename in _renames_in(file))


@cache
def _renames_in(file: Path) -> tuple[Rename, ...]:
    try:
        return _fitting(_Renames, read_yaml(file)).renames
    except Malformed as error:
        raise BadInput(f"{file}: {error}") from error


def name_today(group: str, name: str, made: datetime) -> str:
    """What a configuration that was called `name` when a record was `made` is called today."""
    for rename in renames():
        if (rename.group, rename.old) == (group, name) and (rename.until is None or made < rename.until):
            name = rename.new
    return name


def renamed(config: Mapping[str, Any], made: datetime) -> dict[str, Any]:
    """What changes in a record or a study that holds `config`, made then, under the names of today; empty: nothing."""
    old = {group: str(config[group]["name"]) for group in ("data", "model")}
    new = {group: name_today(group, name, made) for group, name in old.items()}
    stages = {name: config[name] for name in STAGES if (config.get(name) or {}).get("origin")}
    inner = {name: renamed(stage["origin"]["config"], made) for name, stage in stages.items()}
    if new == old and not any(inner.values()):
        return {}
    changed = {group: config[group] | {"name": name} for group, name in new.items()}
    changed |= {
        name: stage | {"origin": stage["origin"] | {"config": inner[name]["config"]}}
        for name, stage in stages.items()
        if inner[name]
    }
    return {**new, "config": {**config, **changed}}


def names_of_old(group: str, name: str) -> tuple[str, ...]:
    """The name of a configuration, and those that it had before and that nothing else has taken since."""
    found = [name]
    for rename in reversed(renames()):
        if rename.group == group and rename.new in found and rename.until is None:
            found.append(rename.old)
    return tuple(found)
