"""What an experiment names, built, and scored in passing as validation does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmark.build import DataModule, Examination, GenerativeModel, build_data, data_before, restore
from benchmark.config import Experiment, load_data
from benchmark.evaluate import (
    Earlier,
    Experts,
    Protocol,
    Reader,
    evaluate,
    load_extractor,
    load_judge,
    selection_metric,
)
from benchmark.spec import BadInput, Outliers, Score, TokenLikelihood, sha256
from benchmark.stages import WEIGHTS


@dataclass(frozen=True)
class Parts:
    """An experiment's data and model, the device that it runs on, and how its modality is examined, with whom."""

    experiment: Experiment
    data: DataModule
    model: GenerativeModel
    device: torch.device
    examination: Examination
    experts: Experts

    @property
    def selection_metric(self) -> str:
        given = self.experiment.training.selection
        return selection_metric(self.model, self.examination) if given == "auto" else given

    @property
    def selects_by_likelihood(self) -> bool:
        return self.examination.metrics[self.selection_metric].fact.of == "likelihood"

    @property
    def validation(self) -> torch.Tensor:
        """The examples `[n, *shape]` of validation: images, or windows of text."""
        return self.data.split("validation").examples(self.data.spec.shape)

    def evaluate_on(self, split: Literal["train", "validation"], *metrics: str) -> dict[str, Score]:
        """As validation does it: with few draws, on a fixed subset where the split is large."""
        settings = self.experiment.evaluation
        examples = settings.validation_examples
        if split == "train":  # as many as validation has
            examples = min(examples, len(self.validation))
        protocol = Protocol(
            split,
            self.experiment.seed.eval,
            elbo_draws=settings.validation_draws,
            sample_draws=settings.validation_draws,
            sample_examples=settings.validation_examples,
            examples=examples,
        )
        return evaluate(self.model, self.data, protocol, self.examination, self.experts, metrics).scores


def experts_of(experiment: Experiment, data: DataModule, device: torch.device) -> Experts:
    """Who is asked about this experiment's samples, on `device`, and what its likelihood should reject."""
    inception = experiment.runtime.inception
    extractor = load_extractor(experiment.data.name, data.spec, Path(inception) if inception else None)
    judge = load_judge(experiment.data.name, data.spec)
    others = outliers(experiment, data), _earlier(experiment), reader(experiment, data)
    return Experts(extractor, judge, *others).on(device)


def reader(experiment: Experiment, data: DataModule) -> Reader | None:
    """Whom `runtime.reader` names. Raises `BadInput` where it is no model of the same text in the same tokens."""
    if experiment.runtime.reader is None:
        return None
    folder = Path(experiment.runtime.reader)
    other, known, model = restore(folder, experiment.trust)
    given = f"runtime.reader={folder} is a {other.model.name} of {other.data.name}"
    if not isinstance(model, TokenLikelihood):
        raise BadInput(f"{given}, which promises no likelihood of tokens: name the run of a GPT, say")
    if (other.data.name, known.choice_of_tokens) != (experiment.data.name, data.choice_of_tokens):
        raise BadInput(f"{given}, in {known.choice_of_tokens}: name a run on {experiment.data.name} in the same tokens")
    if known.spec.dims < data.spec.dims:
        raise BadInput(
            f"{given}, whose context of {known.spec.dims} is shorter than samples of {data.spec.dims} tokens"
        )
    return Reader(other.model.name, sha256(folder / WEIGHTS), model)


def _earlier(experiment: Experiment) -> Earlier | None:
    """What the model that an experiment starts from had learnt."""
    before, origin = experiment.before, experiment.start.origin
    if before is None or origin is None or (data := data_before(experiment)) is None:
        return None
    return Earlier(data, origin.bits_per_byte if _scored_alike(before, experiment) else None)


def _scored_alike(one: Experiment, other: Experiment) -> bool:
    """Whether both score a text on the same split, with as much context."""
    conditions = [
        (each.evaluation.split, each.evaluation.stride, each.data.options.get("context")) for each in (one, other)
    ]
    return conditions[0] == conditions[1]


def outliers(experiment: Experiment, data: DataModule) -> Outliers | None:
    """The other dataset that `evaluation.outliers` names. Raises `BadInput` where its images are of another kind."""
    name, split = experiment.evaluation.outliers, experiment.evaluation.split
    if name == "corrupted":
        return None
    other = build_data(load_data(name, experiment.trust), experiment.runtime.data_root)
    if (other.spec.shape, other.spec.levels) != (data.spec.shape, data.spec.levels):
        raise BadInput(
            f"evaluation.outliers={name} has shape {other.spec.shape} and {other.spec.levels} levels, the data "
            f"{data.spec.shape} and {data.spec.levels}: name data of the same kind, or corrupted"
        )
    return Outliers(f"{name}, {split}", other.split(split).x)
