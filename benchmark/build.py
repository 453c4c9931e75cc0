"""An experiment becomes objects: the only place that resolves a class from a name."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from benchmark import facts
from benchmark.config import (
    DataConfig,
    Experiment,
    config_folders,
    consent,
    from_container,
    read_yaml,
    stage_of,
    trusted,
)
from benchmark.data.base import DataModule, SplitName, data_root
from benchmark.facts import MetricFact, ModalityFact
from benchmark.metrics.probe import Metric
from benchmark.modalities.base import Modality
from benchmark.models.base import GenerativeModel
from benchmark.spec import BadInput, DataSpec, sha256, shown, unknown
from benchmark.stages import WEIGHTS

__all__ = [
    "DataModule",  # this one and the next four are what other rooms know of data, models, metrics and modalities
    "Examination",
    "GenerativeModel",
    "Measure",
    "SplitName",
    "build_data",
    "build_examination",
    "build_model",
    "check_data",
    "check_model",
    "data_before",
    "data_of",
    "extractor_folders",
    "load_metrics",
    "load_weights",
    "restore",
    "save_weights",
    "take_over",
]


def build_data(config: DataConfig, root: str | None) -> DataModule:
    """The dataset, read and verified. Raises `BadInput` when files are missing, cannot be fetched or are corrupt."""
    cls = resolve(config.target, DataModule, config.trust)
    data: DataModule = cls(data_root(root), **check_data(config))
    return data


def data_of(experiment: Experiment) -> DataModule:
    """The dataset of an experiment, in the vocabulary of the data from whose model it starts."""
    return _in_words(experiment.data, experiment)


def data_before(experiment: Experiment) -> DataModule | None:
    """What the model had learnt from which an experiment starts, as it is shown its own data."""
    if experiment.before is None:
        return None
    before, own = experiment.before.data.consented(experiment.trust), experiment.data.options
    windows = {"context": own["context"]} if "context" in before.options and "context" in own else {}
    return _in_words(before.model_copy(update=windows), experiment)


def _in_words(config: DataConfig, experiment: Experiment) -> DataModule:
    """A dataset in the vocabulary that the experiment's model knows."""
    root, words = experiment.runtime.data_root, experiment.vocabulary
    data = build_data(config, root)
    return data if words is None else data.in_words_of(build_data(words.consented(experiment.trust), root))


@dataclass(frozen=True)
class Measure:
    """A metric: what is known of it, and how it is computed."""

    fact: MetricFact
    metric: Metric[Any]


@dataclass(frozen=True)
class Examination:
    """What is asked of models of one modality."""

    fact: ModalityFact
    modality: Modality
    metrics: Mapping[str, Measure]  # by name, in the order of tables


def build_examination(kind: str, trust: Sequence[str] = ()) -> Examination:
    """The modality called `kind`, with every metric that is computed for it."""
    fact = facts.modality(kind)
    measures = {name: Measure(one, _metric(one, trust)) for name, one in facts.metrics_of(fact).items()}
    return Examination(fact, resolve(fact.target, Modality, trust)(), measures)


def load_metrics(trust: Sequence[str] = ()) -> dict[str, Metric[Any]]:
    """Every metric whose code may be imported: the benchmark's own, and those of packages in `trust`."""
    return {name: _metric(fact, trust) for name, fact in facts.metrics().items() if trusted(fact.target, trust)}


def _metric(fact: MetricFact, trust: Sequence[str]) -> Metric[Any]:
    found = _member(fact.target, trust)
    if not isinstance(found, Metric):
        raise BadInput(f"target {fact.target!r} is no metric: decorate it with benchmark.metrics.probe.metric")
    return found


def extractor_folders() -> list[Path]:
    """Where the extractors of a user's own data lie: beside the user's configurations."""
    return [folder / "extractors" for folder in config_folders()[:-1]]


def check_data(config: DataConfig) -> dict[str, Any]:
    """The dataset's options, with types and ranges checked before a file is read."""
    cls: type[DataModule] = resolve(config.target, DataModule, config.trust)
    options = check_options("data", cls, config.options, given=("root",))
    cls.check(**options)
    return options


def build_model(experiment: Experiment, spec: DataSpec) -> GenerativeModel:
    """The untrained model for data of this `spec`. Raises `BadInput` where its options do not fit together."""
    cls = resolve(experiment.model.target, GenerativeModel, experiment.model.trust)
    options = check_model(experiment)
    inner: dict[str, Any] = {}
    if experiment.first_stage.given:
        inner["first_stage"] = build_model(stage_of(experiment, "first_stage", experiment.trust), spec)
    try:
        model: GenerativeModel = cls(spec, **inner, **options)
    except (MemoryError, OverflowError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _TOO_LARGE.search(str(error)):
            raise
        raise BadInput(
            f"model {experiment.model.name!r} does not fit into memory with "
            f"{', '.join(f'{name}={value}' for name, value in options.items())}: give smaller sizes"
        ) from error
    return model


def check_model(experiment: Experiment) -> dict[str, Any]:
    """The model's options, with types checked against its constructor before data or training cost anything."""
    cls = resolve(experiment.model.target, GenerativeModel, experiment.model.trust)
    options = check_options("model", cls, experiment.model.options, given=("spec", "first_stage"))
    takes, name = "first_stage" in inspect.signature(cls).parameters, experiment.model.name
    if experiment.first_stage.given and not takes:
        raise BadInput(f"first_stage is given, but model {name!r} has no model inside: drop it, or start with from=")
    if takes and not experiment.first_stage.given:
        raise BadInput(f"model {name!r} needs a first stage: give first_stage=RUN, or first_stage='model=NAME'")
    return options


def take_over(model: GenerativeModel, experiment: Experiment) -> None:
    """Give an untrained model the weights of its stages. Raises `BadInput` where they have changed or do not fit."""
    for name, stage in experiment.stages.items():
        if stage.origin is None or stage.run is None:
            raise BadInput(f"{name} is not settled: no run is known whose weights could be taken over")
        file = Path(stage.run) / WEIGHTS
        if not file.is_file() or sha256(file) != stage.origin.sha256:
            raise BadInput(f"{name}: {file} no longer holds the weights of run {stage.origin.run}: restore it")
        load_weights(model.get_submodule("first_stage") if name == "first_stage" else model, file)


def resolve(target: str, base: type, trust: Sequence[str] = ()) -> type:
    """The class at import path `target`; it must be a subclass of `base`.

    Nothing outside the benchmark is imported, unless its package is in `trust`.
    """
    cls = _member(target, trust)
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise BadInput(
            f"target {target!r} is not a {base.__name__}: name a subclass of {base.__module__}.{base.__name__}"
        )
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__")))  # noqa: B009
        raise BadInput(f"target {target!r} is abstract: it lacks {missing}")
    return cls


def _member(target: str, trust: Sequence[str]) -> Any:
    """What stands at an import path. Nothing outside the benchmark is imported, unless its package is in `trust`."""
    consent(target, trust)
    module_name, _, name = target.rpartition(".")
    try:
        module = import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise BadInput(f"target {target!r} cannot be imported: {error}") from error
    if name not in vars(module):
        known = [one for one, value in vars(module).items() if inspect.isclass(value) or isinstance(value, Metric)]
        raise unknown(f"class in {module_name}", name, known)
    return vars(module)[name]


def check_options(group: str, cls: type, options: Mapping[str, Any], given: tuple[str, ...]) -> dict[str, Any]:
    """`options` coerced to the types of the constructor of `cls`, whose first arguments are `given` by the house."""
    hints = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    parameters = [name for name in inspect.signature(cls).parameters if name not in given]
    rules = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    checked = {}
    for name, value in options.items():
        if name not in parameters:
            raise unknown(f"option of {group}", name, parameters)
        try:
            hint = hints.get(name, Any)  # a user's own class may say nothing
            if isinstance(value, bool) and not _takes_switch(hint):
                raise BadInput(f"{group}.{name}={value}: input should not be true or false")
            checked[name] = TypeAdapter(hint, config=rules).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise BadInput(f"{group}.{name}={shown(value)}: {message[0].lower()}{message[1:]}") from error
    return checked


def _takes_switch(hint: Any) -> bool:
    """Whether a type is bool, has it among its parts, or is not known to be a number: pydantic takes true for 1."""
    return get_origin(hint) is not Annotated and hint not in (int, float)


#: What torch and numpy say of a size that no memory holds.
_TOO_LARGE = re.compile("not enough memory|out of memory|alloc|overflow|too large|exceeds|Storage size", re.IGNORECASE)


def save_weights(model: GenerativeModel, file: Path) -> None:
    """The weights as safetensors, atomically."""
    from safetensors.torch import save_model

    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".writing")
    save_model(model, str(temporary))
    os.replace(temporary, file)


def load_weights(model: nn.Module, file: Path) -> None:
    """Read what `save_weights` wrote. Raises `BadInput` when it does not fit the model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(model, str(file))
    except (RuntimeError, SafetensorError, OSError) as error:
        why = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise BadInput(f"{file} does not hold the weights of this model: {why}") from error


def restore(run: Path, trust: Sequence[str] = ()) -> tuple[Experiment, DataModule, GenerativeModel]:
    """What a run left behind: its experiment, data, and model with the weights that validation chose."""
    for name in ("config.yaml", WEIGHTS):
        if not (run / name).is_file():
            raise BadInput(f"{run} holds no {name}: give the folder of a finished run, runs/<data>/<model>/<id>")
    experiment = from_container(read_yaml(run / "config.yaml"), trust)
    data = data_of(experiment)
    model = build_model(experiment, data.spec)
    load_weights(model, run / WEIGHTS)
    return experiment, data, model.eval()
