"""Compose and validate: overrides on a command line become an `Experiment`, or a one-line refusal before any work.

Hydra composes the groups that are chosen, the values that are given are written over them, pydantic checks types, and
names are compared with what exists. Neither torch nor a model is imported.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
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

from benchmark.identity import version_2
from benchmark.spec import BadInput, Modality, unknown

GROUPS = ("data", "model", "budget")

#: What may stand in a folder of configurations: groups of files, and single files.
FOLDERS = (*GROUPS, "tuned", "suite", "sweep")
FILES = ("experiment.yaml", "dashboard.yaml", "published.yaml", "reference.yaml", "renames.yaml")


def _no_switch(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number, not true or false")
    return value


_Number = BeforeValidator(_no_switch)
Share = Annotated[float, _Number, Field(ge=0, le=1)]
Count = Annotated[int, _Number, Field(ge=0, lt=2**31)]
Positive = Annotated[int, _Number, Field(ge=1, lt=2**31)]
Seed = Annotated[int, _Number, Field(ge=0, lt=2**31)]


def _import_path(target: str) -> str:
    if "." not in target or not all(part.isidentifier() for part in target.split(".")):
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


class DataConfig(_Named):
    modality: Modality
    minutes: dict[str, float] = Field(exclude=True)  # what each budget means on this dataset


class ModelConfig(_Named):
    modalities: tuple[Modality, ...]


class Budget(_Strict):
    """How long a run trains: `examples`, on any machine. The rest only names it and says what it costs."""

    name: str
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)]  # nominal, of one thread of the reference machine
    examples: Positive


class Seeds(_Strict):
    init: Seed
    data: Seed
    eval: Seed


class Training(_Strict):
    batch_size: Positive
    warmup: Share
    decay: Share
    clip_norm: Annotated[float, _Number, Field(ge=0)]
    ema_decay: Annotated[float, _Number, Field(ge=0, lt=1)]
    precision: Literal["float32", "bfloat16"]
    validations: Positive
    patience: Count
    selection: Literal["auto", "nll", "fid", "nats_per_token"] = "auto"

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup={self.warmup:g} and decay={self.decay:g} are shares of training: at most 1 together"
            )
        return self


class Evaluation(_Strict):
    split: Literal["validation", "test"]
    elbo_draws: Annotated[int, Field(ge=2)]
    importance_samples: Positive
    importance_examples: Positive
    solved_examples: Positive = 1000
    outliers: str = "corrupted"
    sample_draws: Annotated[int, Field(ge=2)]
    sample_examples: Positive
    stride: Positive
    validation_draws: Annotated[int, Field(ge=2)]
    validation_examples: Positive


class Runtime(_Strict):
    device: Literal["auto", "cpu", "gpu"]
    threads: Annotated[int, _Number, Field(ge=0, le=4096)]
    runs: Place
    data_root: Place | None
    inception: Place | None
    limit_minutes: Annotated[float, _Number, Field(gt=0, allow_inf_nan=False)] | None = None


class SuiteEntry(_Strict):
    data: str
    model: str


class Suite(_Strict):
    """Every experiment with every seed, under one budget."""

    description: str
    budget: str
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    experiments: Annotated[tuple[SuiteEntry, ...], Field(min_length=1)]


class Experiment(_Strict):
    """One composed, validated configuration."""

    data: DataConfig
    model: ModelConfig
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
    def targets(self) -> tuple[str, ...]:
        """The import path of every class that takes part."""
        return tuple(named.target for named in (self.data, self.model, *self._outliers()))

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
        return content

    @property
    def title(self) -> str:
        return f"{self.model.name} on {self.data.name}, {self.budget.name}, seed {self.seed.init}"


def identity(config: Mapping[str, Any]) -> str:
    """The identity of a resolved configuration, one of today or one that a record holds."""
    groups = {group: config[group] for group in ("data", "model")}
    before = {group: _before(group, str(named["name"])) for group, named in groups.items()}
    return version_2(config, before | _BEFORE)


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
    return dict(read_yaml(file).get("before") or {})


class Rename(_Strict):
    """A configuration that changed its name. `until`: when the old name came to mean something else, if it did."""

    group: Literal["data", "model"]
    old: str
    new: str
    until: datetime | None = None


@cache
def renames() -> tuple[Rename, ...]:
    """The table in `configs/renames.yaml`, in the order in which names changed."""
    file = config_folders()[-1] / "renames.yaml"
    return tuple(Rename.model_validate(row) for row in read_yaml(file)["renames"])


def name_today(group: str, name: str, made: datetime) -> str:
    """What a configuration that was called `name` when a record was `made` is called today."""
    for rename in renames():
        if (rename.group, rename.old) == (group, name) and (rename.until is None or made < rename.until):
            name = rename.new
    return name


def names_of_old(group: str, name: str) -> tuple[str, ...]:
    """The name of a configuration, and those that it had before and that nothing else has taken since."""
    found = [name]
    for rename in reversed(renames()):
        if rename.group == group and rename.new in found and rename.until is None:
            found.append(rename.old)
    return tuple(found)


def family_of(target: str) -> str:
    """The folder that holds the file of the class at this import path; the file itself where it stands in none."""
    return target.split(".")[-3:][0]


def consent(target: str, trust: Sequence[str], name: str | None = None) -> None:
    """Raises `BadInput` unless the class at this import path is the benchmark's, or of a package in `trust`."""
    package = target.split(".")[0]
    if package not in ("benchmark", *trust):
        who = "the configuration" if name is None else repr(name)
        raise BadInput(
            f"{who} names the class {target!r} outside the benchmark: an import path is code; "
            f"if you trust it, add --trust {package}"
        )


# Files ---------------------------------------------------------------------------------------------------------------


def config_folders() -> list[Path]:
    """Where configurations are looked for: `BENCHMARK_CONFIGS` (the user's own), then the shipped ones."""
    package = Path(__file__).resolve().parent
    shipped = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    given = os.environ.get("BENCHMARK_CONFIGS", "").split(os.pathsep)
    own = [Path(folder).expanduser().resolve() for folder in given if folder]
    for folder in own:
        if not folder.is_dir():
            raise BadInput(
                f"BENCHMARK_CONFIGS names {str(folder)!r}, which is not a folder: correct or unset it "
                f"({os.pathsep!r} stands between folders)"
            )
    return [*own, shipped]


def find(place: str) -> Path | None:
    """The file at `place`, such as `model/vae.yaml`, in the first folder that has it: a user's own comes first."""
    return next((file for file in (folder / place for folder in config_folders()) if os.path.lexists(file)), None)


def choices(group: str) -> dict[str, Path]:
    """Name → file of every configuration in `group`; a user's own comes first. The file's name is the name."""
    found: dict[str, Path] = {}
    for folder in config_folders():
        for file in sorted((folder / group).glob("*.yaml")):
            if not file.name.startswith("."):  # what an editor keeps beside the file
                found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def strangers() -> Iterator[str]:
    """What lies in the user's own folders and is never read, with what to do about it."""
    for folder in config_folders()[:-1]:
        for file in sorted(folder.rglob("*")):
            place = file.relative_to(folder)
            if file.suffix not in (".yaml", ".yml") or any(part.startswith(".") for part in place.parts):
                continue
            if file.suffix == ".yml":
                yield f"{file} is not read: call it {file.stem}.yaml"
            elif len(place.parts) == 1 and place.name not in FILES:
                yield f"{file} is not read: {unknown('file', place.name, FILES)}; or put it into a group's folder"
            elif len(place.parts) > 1 and place.parts[0] not in FOLDERS:
                yield f"{file} is not read: {unknown('group', place.parts[0], FOLDERS)}"
            elif len(place.parts) != (3 if place.parts[0] == "tuned" else 2) and len(place.parts) > 1:
                wanted = "tuned/DATA/MODEL.yaml" if place.parts[0] == "tuned" else f"{place.parts[0]}/NAME.yaml"
                yield f"{file} is not read: its place is {wanted}"
            elif place.parts[0] == "tuned":
                data, model = place.parts[1], place.stem
                for group, name in (("data", data), ("model", model)):
                    if not any(name in names_of_old(group, known) for known in choices(group)):
                        yield f"{file} is not read: {unknown(group, name, choices(group))}"


class _Loader(yaml.SafeLoader):
    """YAML as OmegaConf reads it: 1e-3 is a number, a date is text, and no key may stand twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, shape)
        for tag, shape in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*([eE][-+]?\d+)?|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping in UTF-8, or the line that says where it is malformed."""
    try:
        content = yaml.load(file.read_bytes().decode("utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 (byte {error.start}): save it in that encoding") from error
    except FileNotFoundError as error:
        raise BadInput(f"{file} leads nowhere: restore what it links to, or remove it") from error
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        raise BadInput(f"{file} is empty: it must hold a mapping of keys to values")
    if not isinstance(content, dict):
        raise BadInput(f"{file} holds {type(content).__name__}, not a mapping of keys to values")
    for key in content:
        if not isinstance(key, str):
            raise BadInput(f"{file}: {key!r} is not a name: a key must be text")
    return content


# Composition ---------------------------------------------------------------------------------------------------------


def compose(overrides: Sequence[str] = (), trust: Sequence[str] = ()) -> Experiment:
    """The experiment that `overrides` (`model=vae`, `model.latent=16`, `seed=3`) describe.

    `trust` lists packages outside the benchmark whose classes a configuration may name: an import path is code.
    Raises `BadInput` for whatever does not exist or has the wrong type.
    """
    return from_container(_compose(overrides), trust)


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration that `overrides` describe; of two for one setting the later counts."""
    pairs = _expand_seed([_split(override) for override in overrides])
    names = _defaults() | {key: value for key, value in pairs if key in GROUPS}
    content = copy.deepcopy(_chosen(tuple(config_folders()), tuple(names.items())))
    for key, text in pairs:
        if key not in GROUPS:
            _assign(content, key, value_of(key, text))
    _check_modality(content)
    return _resolve(content)


def from_container(content: Mapping[str, Any], trust: Sequence[str] = ()) -> Experiment:
    """Validate a resolved configuration that will be carried out: a composed one, or one that a run left behind."""
    experiment = validate(content)
    for named in (experiment.data, experiment.model, *experiment._outliers()):
        named.consented(trust)
    return experiment


def validate(content: Mapping[str, Any]) -> Experiment:
    """A resolved configuration of whoever wrote it, to be read and not to be run: it may name any class."""
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise BadInput(_first(error, content)) from error
    for place, problem in _unspeakable(content):
        raise BadInput(f"{place} {problem}")
    return experiment


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


def shown(value: Any) -> str:
    """A value as messages show it: on one line, and not too long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _first(error: ValidationError, content: Any = None) -> str:
    """The first thing that is wrong: where, with what was given there, and why."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    given = shown(first["input"])
    match first["type"]:
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden":
            where, _, name = place.rpartition(".")
            shape: Any = Experiment if not where else Experiment.model_fields[where].annotation
            allowed = shape.model_fields if where in ("", *Experiment.model_fields) else ()
            return str(unknown(f"option of {where}" if where else "setting", name, allowed))
        case "string_type" if isinstance(first["input"], (bool, int, float)):
            message = f"""input should be text: put it in double quotes, as in '{place}="…"'"""
    message = f"{message[0].lower()}{message[1:]}"
    return f"{place}: {message}" if isinstance(first["input"], Mapping) else f"{place}={given}: {message}"


def experiment_again(
    content: Mapping[str, Any], runtime: Mapping[str, Any], overrides: Sequence[str] = (), trust: Sequence[str] = ()
) -> Experiment:
    """The experiment that a record holds, to be carried out with another `runtime`, which is no part of its identity.

    `overrides` (`runtime.threads=2`) come last. Raises `BadInput` where they touch anything else.
    """
    settings = dict(runtime)
    for key, value in map(_split, overrides):
        group, _, name = key.partition(".")
        if group != "runtime":
            raise BadInput(f"{key}={value} would change what is run again: only runtime.* may be given")
        if name not in Runtime.model_fields:
            raise unknown("option of runtime", name, Runtime.model_fields)
        settings[name] = value_of(key, value)
    return from_container({**content, "runtime": settings}, trust)


def resumed(folder: Path, overrides: Sequence[str] = (), trust: Sequence[str] = ()) -> Experiment:
    """The experiment of the run in `folder`, to be carried out; `overrides` (`runtime.threads=2`) as above."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise BadInput(f"{folder} holds no config.yaml: give the folder of a run, runs/<data>/<model>/<id>")
    content = read_yaml(file)
    return experiment_again(content, content.get("runtime") or {}, overrides, trust)


def overrides_of(content: Mapping[str, Any]) -> list[str]:
    """What `compose` needs to give the experiment that a record holds, with the configurations of today.

    Raises `BadInput` where these no longer have its data, model or budget.
    """
    wanted = validate(content)
    names = _names(wanted.data.name, wanted.model.name, wanted.budget.name)
    if wanted.budget.name not in choices("budget"):  # such as a study's: it has no file
        budget = wanted.budget.model_dump(mode="json")
        names[2:] = ["budget=quick", *(as_setting(f"budget.{key}", value) for key, value in budget.items())]
    try:
        today = validate(_compose(names))
    except BadInput:  # nothing is tuned for it
        names.append(f"budget.examples={wanted.budget.examples}")
        today = validate(_compose(names))
    seed = wanted.seed
    same = {"seed": seed.init} if seed.init == seed.data else {"seed.init": seed.init, "seed.data": seed.data}
    seeds = [f"{key}={value}" for key, value in (same | ({"seed.eval": seed.eval} if seed.eval else {})).items()]
    mine, theirs = (one.model_dump(mode="json", exclude={"seed", "runtime"}) for one in (wanted, today))
    different = [
        as_setting(f"{group}.{key}", value)
        for group, options in mine.items()
        for key, value in options.items()
        if theirs[group].get(key) != value
    ]
    return [*names, *seeds, *different]


def tuned_identity(data: str, model: str, budget: str) -> str | None:
    """The identity of what `tuned/` says today; `None` where such an experiment no longer exists."""
    try:
        return validate(_compose(_names(data, model, budget))).config_hash
    except BadInput:
        return None


def load_data(name: str, trust: Sequence[str] = ()) -> DataConfig:
    """The dataset's own configuration, without a model; `trust` lists the packages that may be imported for it."""
    config = _load("data", name, DataConfig)
    config._trust = tuple(trust)
    return config


def load_model(name: str) -> ModelConfig:
    """The model's own configuration, without data."""
    return _load("model", name, ModelConfig)


def load_suite(name: str, overrides: Sequence[str] = (), trust: Sequence[str] = ()) -> list[Experiment]:
    """The experiments of `configs/suite/<name>.yaml`, every one with every seed; `overrides` apply to all."""
    suite = read_suite(name)
    own_seed = any(override.startswith("seed=") for override in overrides)
    for override in overrides:
        if override.startswith(("data=", "model=")):
            raise BadInput(f"suite {name!r} names its data and models: drop {override}, or use `run`")
    return [
        compose([*_names(entry.data, entry.model, suite.budget), *seed, *overrides], trust)
        for seed in ([[]] if own_seed else [[f"seed={one}"] for one in suite.seeds])
        for entry in suite.experiments
    ]


def read_suite(name: str) -> Suite:
    """What `configs/suite/<name>.yaml` says."""
    return _load("suite", name, Suite)


def _load(group: str, name: str, shape: type[_Shape]) -> _Shape:
    """What `configs/<group>/<name>.yaml` says. Raises `BadInput` where it is missing or of another shape."""
    content = read_group(group, name)
    if "name" in shape.model_fields:
        content["name"] = name
    try:
        found = shape.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{choices(group)[name]}: {_first(error)}") from error
    for place, problem in _unspeakable(content):
        raise BadInput(f"{choices(group)[name]}: {place} {problem}")
    return found


def read_group(group: str, name: str) -> dict[str, Any]:
    """What the file of `name` in `group` says, with what it inherits by a list of `defaults`."""
    files = choices(group)
    if name not in files:
        for folder in config_folders()[:-1]:
            if (misnamed := folder / group / f"{name}.yml").is_file():
                raise BadInput(f"{misnamed} is not read: call it {name}.yaml")
        raise unknown(group, name, files)
    if not re.fullmatch(r"[\w.-]+", name):
        raise BadInput(f"{files[name]}: {name!r} cannot name a configuration: letters, digits, '_', '-' and '.' can")
    content = read_yaml(files[name])
    return _inherited(group, name) if "defaults" in content else content


def _names(data: str, model: str, budget: str) -> list[str]:
    return [f"data={data}", f"model={model}", f"budget={budget}"]


# Settings of a command line ------------------------------------------------------------------------------------------

_WORDS = {"null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[+-]?(0|[1-9](_?\d)*)", re.ASCII)
_FLOAT = re.compile(
    r"[+-]?((\d(_?\d)*)?\.\d(_?\d)*|\d(_?\d)*\.?)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII | re.IGNORECASE
)
_QUOTED = re.compile(r"'((?:[^'\\]|\\.|'')*)'", re.DOTALL)


def value_of(key: str, text: str) -> Any:
    """The value that a command line gives as `key=text`.

    null, true, false, numbers, lists such as [1, 2], and what stands in quotes; everything else is text as it is.
    """
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text) and len(text) < 400:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if not text.startswith(("'", '"', "[", "{")):
        return text
    if quoted := _QUOTED.fullmatch(text):
        return quoted[1].replace("''", "'").replace("\\'", "'")
    try:
        return json.loads(text) if text.startswith('"') else yaml.load(text, Loader=_Loader)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise BadInput(
            f"{key}={text[:80]} cannot be read: write a list as [1, 2], and text that begins with a quote or a bracket "
            f"""in double quotes, as in '{key}="…"'"""
        ) from error


def as_setting(key: str, value: Any) -> str:
    """What `value_of` reads as `value`."""
    if isinstance(value, str) and value == value.strip() and not value.startswith(("'", '"', "[", "{")):
        plain = value.lower() not in _WORDS and not _INTEGER.fullmatch(value) and not _FLOAT.fullmatch(value)
        if plain:
            return f"{key}={value}"
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _split(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals or not key or key[0] in "+~":
        raise BadInput(f"{override!r} is not a setting: write key=value, as in model=vae or model.latent=16")
    return key, value


def distinct(overrides: Sequence[str]) -> None:
    """Raises `BadInput` where a command line gives one setting twice: one of the two would be ignored."""
    keys = [override.partition("=")[0] for override in overrides]
    for key in keys:
        if keys.count(key) > 1:
            given = " and ".join(override for override in overrides if override.partition("=")[0] == key)
            raise BadInput(f"{key} is given {keys.count(key)} times: decide between {given}")


def _expand_seed(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """`seed=3` sets what training depends on; `seed.eval` stays."""
    expanded = []
    for key, value in pairs:
        expanded += [("seed.init", value), ("seed.data", value)] if key == "seed" else [(key, value)]
    return expanded


def _assign(content: dict[str, Any], key: str, value: Any) -> None:
    """Set an option that exists. Raises `BadInput` for any other, with the nearest name."""
    node: Any = content
    *parents, last = key.split(".")
    for depth, part in enumerate([*parents, last]):
        where = ".".join(parents[:depth])
        if not isinstance(node, dict):
            raise BadInput(f"{where!r} has no parts: {key!r} does not exist")
        if part not in node:
            raise unknown(f"option of {where}" if where else "setting", part, [str(name) for name in node])
        holder, node = node, node[part]
    if isinstance(node, Mapping):
        raise BadInput(
            f"{key!r} is a group of settings; set one of them: {', '.join(f'{key}.{part}' for part in node)}"
        )
    if key in ("data.name", "model.name"):
        group = key.partition(".")[0]
        raise BadInput(f"{key} is the name of a file: choose one with {group}=NAME")
    holder[last] = value


# Files, one over the other -------------------------------------------------------------------------------------------


class _Defaults(_Strict):
    data: str
    model: str
    budget: str


def _experiment() -> dict[str, Any]:
    file = find("experiment.yaml")
    assert file is not None, "it is shipped"
    return read_yaml(file)


def _defaults() -> dict[str, str]:
    """The names that count where a command line gives none."""
    try:
        return _Defaults.model_validate(_experiment().get("defaults")).model_dump()
    except ValidationError as error:
        raise BadInput(f"{find('experiment.yaml')}: defaults must name data, model and budget") from error


@cache
def _chosen(folders: tuple[Path, ...], names: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """What the files say: experiment.yaml, over it the groups, over these what is tuned. Interpolations stand as they
    are."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    base = _experiment() | {group: read_group(group, name) for group, name in names}
    del base["defaults"]
    tuned = _tuned(folders, dict(names), base)
    try:
        content: Any = OmegaConf.to_container(OmegaConf.merge(base, tuned), resolve=False)
    except OmegaConfBaseException as error:
        chosen = " ".join(f"{group}={name}" for group, name in names)
        raise BadInput(f"{chosen}: {str(error).splitlines()[0]}") from error
    for group, name in names:
        content[group]["name"] = name
    return {str(key): value for key, value in content.items()}


def _tuned(folders: tuple[Path, ...], names: Mapping[str, str], base: Mapping[str, Any]) -> dict[str, Any]:
    """What `tuned/<data>/<model>.yaml` says, without what the user says otherwise in a folder before its own."""
    places = [(d, m) for d in names_of_old("data", names["data"]) for m in names_of_old("model", names["model"])]
    files = ((folder / "tuned" / d / f"{m}.yaml", d, m) for folder in folders for d, m in places)
    file, data, model = next((found for found in files if os.path.lexists(found[0])), (None, "", ""))
    if file is None:
        return {}
    content = read_yaml(file)
    content = _inherited("tuned", f"{data}/{model}") if "defaults" in content else content
    behind = folders[folders.index(file.parents[2]) :]
    for key, section in list(content.items()):
        if section is None:
            del content[key]
        elif not isinstance(section, Mapping) or key not in (*Experiment.model_fields, "examples"):
            raise BadInput(f"{file}: {unknown('section', key, [*Experiment.model_fields, 'examples'])}")
        elif key != "examples":
            place = f"{key}/{names[key]}.yaml" if key in names else "experiment.yaml"
            mine = base[key]
            theirs = next((read_yaml(one / place) for one in behind if (one / place).is_file()), {})
            theirs = theirs if key in names else theirs.get(key, {})
            if find(place) in [one / place for one in behind]:
                continue
            same = mine.get("target") == theirs.get("target")
            content[key] = {
                option: value for option, value in section.items() if same and mine.get(option) == theirs.get(option)
            }
    return content


_COMPOSING = threading.Lock()  # Hydra composes one at a time


def _inherited(group: str, name: str) -> dict[str, Any]:
    """Hydra's composition of a file with a list of `defaults`, as plain containers."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    first, *others = config_folders()
    places = ",".join(quoted(f"file://{folder}") for folder in others)
    try:
        with _COMPOSING, initialize_config_dir(str(first), version_base="1.3"):
            content = hydra_compose(None, [f"+{group}@found={quoted(name)}", f"hydra.searchpath=[{places}]"])
        found: Any = OmegaConf.to_container(content, resolve=False)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError) as error:
        raise BadInput(f"{group}/{name}.yaml: {' '.join(str(error).split())[:300]}") from error
    return dict(found["found"])


def _check_modality(content: Mapping[str, Any]) -> None:
    """Raises `BadInput` where model and data do not go together; what is malformed, validation says."""
    data, model = content["data"], content["model"]
    modalities = model.get("modalities")
    if isinstance(modalities, list) and "modality" in data and data["modality"] not in modalities:
        raise BadInput(
            f"model {model['name']!r} is for {' and '.join(map(str, modalities))}, but data {data['name']!r} is "
            f"{data['modality']}; `python -m benchmark list` shows what goes together"
        )


def _resolve(content: dict[str, Any]) -> dict[str, Any]:
    """Resolve interpolations; `examples` is only the table that the budget picks from."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create(content), resolve=True)
    except InterpolationKeyError as error:
        data, model, budget = (content[group]["name"] for group in GROUPS)
        if not str(error.full_key).startswith("budget."):
            raise BadInput(f"{error.full_key}: {str(error).splitlines()[0]}") from error
        raise BadInput(
            f"nothing is tuned for {model} on {data} with budget {budget}: give budget.examples=N (training examples "
            f"seen), or write configs/tuned/{data}/{model}.yaml"
        ) from error
    except (OmegaConfBaseException, RecursionError) as error:
        raise BadInput(str(error).splitlines()[0]) from error
    resolved.pop("examples", None)
    for group in ("data", "model"):
        resolved[group].pop("before", None)
    return {str(key): value for key, value in resolved.items()}
