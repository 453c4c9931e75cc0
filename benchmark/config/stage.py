"""Stages: the runs whose weights an experiment takes over, and where they come from."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from benchmark.config.shapes import Place, Strict

#: Whose weights an experiment takes over: those of a model inside its own, and those that its own starts from.
STAGES = ("first_stage", "start")


class Origin(Strict):
    """The run whose weights are taken over: what its record says, and what is needed to make it again."""

    run: str  # its id
    sha256: str  # of its weights
    config: dict[str, Any]  # its experiment, without runtime
    cpu_minutes: float | None = None  # what its training cost
    training_flops: float | None = None
    bits_per_byte: float | None = None  # what it scored, where it is a model of text


class Stage(Strict):
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
