"""The groups of an experiment, one shape each: data, model, budget, seeds, training, evaluation, runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from benchmark.config.files import choices
from benchmark.config.shapes import Count, Draws, Minutes, Number, Place, Positive, Seed, Share, Strict, Target
from benchmark.spec import BadInput, Structure, unknown


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
    #: What options said that are no more, in records of the same results: what the code has done ever since.
    gone: dict[str, Any] = Field(default={}, exclude=True)
    _trust: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _options_then_and_now(self) -> Self:
        for name in self.before:
            if name not in self.options:
                raise ValueError(f"before says what {name!r} was, which is not an option here")
        for name in self.gone:
            if name in self.options:
                raise ValueError(f"gone says what {name!r} was, which is an option still")
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
    evaluation: dict[str, Any] = Field(default={}, exclude=True)  # settings of an experiment's that are its own


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


class Budget(Strict):
    """How long a run trains: `examples`, on any machine. The rest only names it and says what it costs."""

    name: str
    minutes: Minutes  # nominal, of one thread of the reference machine
    examples: Positive


class Seeds(Strict):
    init: Seed
    data: Seed
    eval: Seed


def _metric_or_auto(name: str) -> str:
    if name not in (known := ("auto", *choices("metric"))):
        raise ValueError(str(unknown("metric", name, known)))
    return name


class Training(Strict):
    batch_size: Positive
    warmup: Share
    decay: Share
    clip_norm: Annotated[float, Number, Field(ge=0)]
    ema_decay: Annotated[float, Number, Field(ge=0, lt=1)]
    precision: Literal["float32", "bfloat16"]
    validations: Positive
    patience: Count
    selection: Annotated[str, AfterValidator(_metric_or_auto)] = "auto"
    weights: Literal["best", "last"] = "best"
    schedule: Literal["linear", "ladder", "cosine"] = "linear"

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.weights == "last" and self.patience:
            raise ValueError(
                f"weights=last keeps what training ends with: patience={self.patience} cannot end it; set 0"
            )
        if self.schedule == "ladder" and (self.warmup or self.decay):
            raise ValueError("schedule=ladder has steps of its own: set warmup=0 and decay=0 beside it")
        if self.schedule == "cosine" and (self.decay or self.warmup == 1):
            raise ValueError("schedule=cosine falls over all that follows the warm-up: set decay=0, and warmup below 1")
        if self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup={self.warmup:g} and decay={self.decay:g} are shares of training: at most 1 together"
            )
        return self


class Evaluation(Strict):
    split: Literal["validation", "test"]
    elbo_draws: Draws
    importance_samples: Positive
    importance_examples: Positive
    solved_examples: Positive = 1000
    outliers: str = "corrupted"
    sample_draws: Positive  # one alone has no standard error
    sample_examples: Positive
    stride: Positive
    validation_draws: Draws
    validation_examples: Positive


class Runtime(Strict):
    device: Literal["auto", "cpu", "gpu"]
    threads: Annotated[int, Number, Field(ge=0, le=4096)]
    runs: Place
    data_root: Place | None
    inception: Place | None
    reader: Place | None = None
    limit_minutes: Minutes | None = None
    compile: bool = False


# Classes from outside -------------------------------------------------------------------------------------------------


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
