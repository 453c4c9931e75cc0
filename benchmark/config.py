"""Compose and validate: overrides on a command line become an `Experiment`, or a one-line refusal before any work.

Hydra composes, pydantic checks types, and names are compared with what exists. Neither torch nor a model is imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.identity import version_2
from benchmark.spec import BadInput, Modality, unknown

GROUPS = ("data", "model", "budget")

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


_Shape = TypeVar("_Shape", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class _Named(BaseModel):
    """A group whose remaining keys are options of the class that `target` names."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())
    name: str
    target: str
    #: What records that lack an option count as having: what the code did before the option existed.
    before: dict[str, Any] = Field(default={}, exclude=True)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


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
    clip_norm: Annotated[float, Field(ge=0)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    precision: Literal["float32", "bfloat16"]
    validations: Positive
    patience: Count
    selection: Literal["auto", "nll", "fid", "nats_per_token"] = "auto"


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
    threads: Count
    runs: str
    data_root: str | None
    inception: str | None
    limit_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


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


def family_of(target: str) -> str:
    """The folder that holds the file of the class at this import path; the file itself where it stands in none."""
    return target.split(".")[-3:][0]


def config_folders() -> list[Path]:
    """Where configurations are looked for: `BENCHMARK_CONFIGS` (the user's own), then the shipped ones."""
    package = Path(__file__).resolve().parent
    shipped = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    own = [Path(folder).resolve() for folder in os.environ.get("BENCHMARK_CONFIGS", "").split(os.pathsep) if folder]
    for folder in own:
        if not folder.is_dir():
            raise BadInput(f"BENCHMARK_CONFIGS names {str(folder)!r}, which is no folder: correct or unset it")
    return [*own, shipped]


def choices(group: str) -> dict[str, Path]:
    """Name → file of every configuration in `group`; a user's own comes first."""
    found: dict[str, Path] = {}
    for folder in config_folders():
        for file in sorted((folder / group).glob("*.yaml")):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping, or the line that says where it is malformed."""
    try:
        content = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise BadInput(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{file} holds {type(content).__name__}, not a mapping of keys to values")
    return content


def compose(overrides: Sequence[str] = (), trust: Sequence[str] = ()) -> Experiment:
    """The experiment that `overrides` (`model=vae`, `model.latent=16`, `seed=3`) describe.

    `trust` lists packages outside the benchmark whose classes a configuration may name: an import path is code.
    Raises `BadInput` for whatever does not exist or has the wrong type.
    """
    return from_container(_compose(overrides), trust)


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration that `overrides` describe."""
    pairs = _expand_seed([_split(override) for override in overrides])
    selected = [(key, value) for key, value in pairs if key in GROUPS]
    options = [(key, value) for key, value in pairs if key not in GROUPS]
    for group, name in selected:
        if name not in choices(group):
            raise unknown(group, name, choices(group))
    bare = _hydra(tuple(f"{key}={value}" for key, value in selected))
    for key, _ in options:
        _check_key(bare, key)
    content = _hydra(tuple(f"{key}={value}" for key, value in pairs)) if options else bare
    _check_modality(bare)
    return _resolve(content)


def from_container(content: Mapping[str, Any], trust: Sequence[str] = ()) -> Experiment:
    """Validate a resolved configuration that will be carried out: a composed one, or one that a run left behind."""
    experiment = validate(content)
    for named in (experiment.data, experiment.model):
        package = named.target.split(".")[0]
        if package not in ("benchmark", *trust):
            raise BadInput(
                f"{named.name!r} names the class {named.target!r} outside the benchmark: an import path is code; "
                f"if you trust it, add --trust {package}"
            )
    return experiment


def validate(content: Mapping[str, Any]) -> Experiment:
    """A resolved configuration of whoever wrote it, to be read and not to be run: it may name any class."""
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise BadInput(_first(error)) from error


def _first(error: ValidationError) -> str:
    """The first thing that is wrong: where, with what was given there, and why."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


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
        settings[name] = yaml.safe_load(value)
    return from_container({**content, "runtime": settings}, trust)


def overrides_of(content: Mapping[str, Any]) -> list[str]:
    """What `compose` needs to give the experiment that a record holds, with the configurations of today.

    Raises `BadInput` where these no longer have its data, model or budget.
    """
    wanted = validate(content)
    names = _names(wanted.data.name, wanted.model.name, wanted.budget.name)
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
        f"{group}.{key}={json.dumps(value) if not isinstance(value, str) else value}"
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


def load_data(name: str) -> DataConfig:
    """The dataset's own configuration, without a model."""
    return _load("data", name, DataConfig)


def load_model(name: str) -> ModelConfig:
    """The model's own configuration, without data."""
    return _load("model", name, ModelConfig)


def load_suite(name: str, overrides: Sequence[str] = (), trust: Sequence[str] = ()) -> list[Experiment]:
    """The experiments of `configs/suite/<name>.yaml`, every one with every seed; `overrides` apply to all."""
    suite = read_suite(name)
    own_seed = any(override.startswith("seed=") for override in overrides)
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
    files = choices(group)
    if name not in files:
        raise unknown(group, name, files)
    try:
        return shape.model_validate(read_yaml(files[name]))
    except ValidationError as error:
        raise BadInput(f"{files[name]}: {_first(error)}") from error


def _names(data: str, model: str, budget: str) -> list[str]:
    return [f"data={data}", f"model={model}", f"budget={budget}"]


def _split(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals or not key or key[0] in "+~":
        raise BadInput(f"{override!r} is no setting: write key=value, as in model=vae or model.latent=16")
    return key, value


def _expand_seed(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """`seed=3` sets what training depends on; `seed.eval` stays."""
    expanded = []
    for key, value in pairs:
        expanded += [("seed.init", value), ("seed.data", value)] if key == "seed" else [(key, value)]
    return expanded


def _check_modality(content: Mapping[str, Any]) -> None:
    data, model = content["data"], content["model"]
    if data["modality"] not in model["modalities"]:
        raise BadInput(
            f"model {model['name']!r} is for {' and '.join(model['modalities'])}, but data {data['name']!r} is "
            f"{data['modality']}; `python -m benchmark list` shows what goes together"
        )


def _check_key(content: Mapping[str, Any], key: str) -> None:
    node: Any = content
    *parents, last = key.split(".")
    for depth, part in enumerate([*parents, last]):
        where = ".".join(key.split(".")[:depth])
        if not isinstance(node, Mapping):
            raise BadInput(f"{where!r} has no parts: {key!r} does not exist")
        if part not in node:
            raise unknown(f"option of {where}" if where else "setting", part, [str(name) for name in node])
        node = node[part]
    if isinstance(node, Mapping):
        raise BadInput(
            f"{key!r} is a group of settings; set one of them: {', '.join(f'{key}.{part}' for part in node)}"
        )


@cache
def _hydra(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Hydra's composition as plain containers, interpolations not yet resolved."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    own = config_folders()[:-1]
    searchpath = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in own)}]"] if own else []
    try:
        with initialize_config_dir(str(config_folders()[-1]), version_base="1.3"):
            content = hydra_compose("experiment", [*overrides, *searchpath])
        container = OmegaConf.to_container(content, resolve=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _resolve(content: dict[str, Any]) -> dict[str, Any]:
    """Resolve interpolations; `examples` is only the table that the budget picks from."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create(content), resolve=True)
    except InterpolationKeyError as error:
        data, model, budget = (content[group]["name"] for group in GROUPS)
        raise BadInput(
            f"nothing is tuned for {model} on {data} with budget {budget}: give budget.examples=N (training examples "
            f"seen), or write configs/tuned/{data}/{model}.yaml"
        ) from error
    except OmegaConfBaseException as error:
        raise BadInput(str(error).splitlines()[0]) from error
    resolved.pop("examples", None)
    for group in ("data", "model"):
        resolved[group].pop("before", None)
    return {str(key): value for key, value in resolved.items()}
