"""An experiment becomes objects: the only place that resolves a class from a name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from benchmark.config import DataConfig, Experiment, config_folders, from_container, read_yaml
from benchmark.data.base import DataModule, SplitName, data_root
from benchmark.models.base import GenerativeModel
from benchmark.spec import BadInput, DataSpec, unknown

__all__ = [
    "DataModule",  # this one and the next two are what other rooms know of data and models
    "GenerativeModel",
    "SplitName",
    "build_data",
    "build_model",
    "check_data",
    "check_model",
    "extractor_folders",
    "load_weights",
    "restore",
    "save_weights",
]


def build_data(config: DataConfig, root: str | None) -> DataModule:
    """The dataset, read and verified. Raises `BadInput` when files are missing, cannot be fetched or are corrupt."""
    cls = resolve(config.target, DataModule)
    data: DataModule = cls(data_root(root), **check_data(config))
    return data


def extractor_folders() -> list[Path]:
    """Where the extractors of a user's own data lie: beside the user's configurations."""
    return [folder / "extractors" for folder in config_folders()[:-1]]


def check_data(config: DataConfig) -> dict[str, Any]:
    """The dataset's options, with types and ranges checked before a file is read."""
    cls: type[DataModule] = resolve(config.target, DataModule)
    options = check_options("data", cls, config.options, given=("root",))
    cls.check(**options)
    return options


def build_model(experiment: Experiment, spec: DataSpec) -> GenerativeModel:
    """The untrained model for data of this `spec`."""
    cls = resolve(experiment.model.target, GenerativeModel)
    model: GenerativeModel = cls(spec, **check_model(experiment))
    return model


def check_model(experiment: Experiment) -> dict[str, Any]:
    """The model's options, with types checked against its constructor before data or training cost anything."""
    cls = resolve(experiment.model.target, GenerativeModel)
    return check_options("model", cls, experiment.model.options, given=("spec",))


def resolve(target: str, base: type) -> type:
    """The class at import path `target`; it must be a subclass of `base`. Who may be imported, `config` has decided."""
    module_name, _, class_name = target.rpartition(".")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise BadInput(f"target {target!r} cannot be imported: {error}") from error
    members = dict(inspect.getmembers(module, inspect.isclass))
    if class_name not in members:
        raise unknown(f"class in {module_name}", class_name, members)
    if not issubclass(members[class_name], base):
        raise BadInput(f"target {target!r} is no {base.__name__}: name a subclass of {base.__module__}.{base.__name__}")
    cls: type = members[class_name]
    return cls


def check_options(group: str, cls: type, options: Mapping[str, Any], given: tuple[str, ...]) -> dict[str, Any]:
    """`options` coerced to the types of the constructor of `cls`, whose first arguments are `given` by the house."""
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    parameters = [name for name in inspect.signature(cls).parameters if name not in given]
    checked = {}
    for name, value in options.items():
        if name not in parameters:
            raise unknown(f"option of {group}", name, parameters)
        try:
            adapter = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
            checked[name] = adapter.validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise BadInput(f"{group}.{name}={value!r}: {message[0].lower()}{message[1:]}") from error
    return checked


def save_weights(model: GenerativeModel, file: Path) -> None:
    """The weights as safetensors, atomically."""
    from safetensors.torch import save_model

    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".writing")
    save_model(model, str(temporary))
    os.replace(temporary, file)


def load_weights(model: GenerativeModel, file: Path) -> None:
    """Read what `save_weights` wrote. Raises `BadInput` when it does not fit the model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(model, str(file))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise BadInput(f"{file} does not hold the weights of this model: {str(error).splitlines()[0]}") from error


def restore(run: Path, trust: Sequence[str] = ()) -> tuple[Experiment, DataModule, GenerativeModel]:
    """What a run left behind: its experiment, data, and model with the weights that validation chose."""
    for name in ("config.yaml", "model.safetensors"):
        if not (run / name).is_file():
            raise BadInput(f"{run} holds no {name}: give the folder of a finished run, runs/<data>/<model>/<id>")
    experiment = from_container(read_yaml(run / "config.yaml"), trust)
    data = build_data(experiment.data, experiment.runtime.data_root)
    model = build_model(experiment, data.spec)
    load_weights(model, run / "model.safetensors")
    return experiment, data, model.eval()
