"""What can be composed: an experiment of its groups and stages, and suites of them, validated before any work.

pydantic checks types, and names are compared with what exists. Neither torch nor a model is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from benchmark.config.files import choices, config_folders, read_group, read_yaml
from benchmark.config.groups import (
    Budget,
    DataConfig,
    Evaluation,
    ModelConfig,
    Runtime,
    Seeds,
    Training,
    consent,
    family_of,
)
from benchmark.config.identities import identity
from benchmark.config.shapes import Malformed, Seed, Shape, Strict, fitting
from benchmark.config.stage import STAGES, Origin, Stage
from benchmark.spec import BadInput


class Experiment(Strict):
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
    def before(self) -> Experiment | None:
        """The experiment whose weights the model starts from."""
        if self.start.origin is None:
            return None
        return validate({**self.start.origin.config, "runtime": self.runtime.model_dump()})

    @property
    def vocabulary(self) -> DataConfig | None:
        """The data whose words the model has known from its start; `None`: those of its own."""
        before = self.before
        return None if before is None else before.vocabulary or before.data

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
        """The container without paths, which are of one machine; of stages, their origins say what they were."""
        content = self.container()
        nowhere = {"data_root": None, "inception": None, "reader": None}
        content["runtime"] |= {"runs": "runs"} | nowhere  # as where nobody names a place
        for name in self.origins:
            content[name] |= {"run": None}
        return content

    @property
    def title(self) -> str:
        return f"{self.model.name} on {self.data.name}, {self.budget.name}, seed {self.seed.init}"


class SuiteEntry(Strict):
    data: str
    model: str
    settings: tuple[str, ...] = ()


class Suite(Strict):
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


def _load(group: str, name: str, shape: type[Shape]) -> Shape:
    """What `configs/<group>/<name>.yaml` says. Raises `BadInput` where it is missing or of another shape."""
    content = read_group(group, name)
    if "name" in shape.model_fields:
        content["name"] = name
    try:
        return fitting(shape, content)
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
    return fitting(Experiment, content)
