"""What a study is, before it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.config import Experiment
from benchmark.spec import unknown
from benchmark.sweep.space import Design, Space, identity
from benchmark.sweep.studies import Study

SAMPLERS = ("qmc", "random", "tpe", "cmaes", "gp")
PRUNERS = ("none", "median", "halving")


@dataclass(frozen=True)
class Plan:
    """What a study is: the same plan continues the same study."""

    base: Experiment
    space: Space
    design: Design
    settings: tuple[str, ...]  # that compose `base`; a trial adds its own
    trials: int  # proposed by the sampler, beside the points of the design
    sampler: str = "qmc"
    pruner: str | None = None  # `None`: the median rule for samplers that learn, none for designs
    name: str | None = None
    confirms: dict[str, Any] = field(default_factory=dict)  # of the design `confirm`: what is confirmed
    continues: Study | None = None  # whose trials count, as if they had been trained here

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise unknown("sampler", self.sampler, SAMPLERS)
        if self.pruner is not None and self.pruner not in PRUNERS:
            raise unknown("pruner", self.pruner, PRUNERS)

    @property
    def fingerprint(self) -> str:
        return identity(self.design, self.base, self.sampler if self.design.name == "space" else "grid")

    @property
    def title(self) -> str:
        """`digits-vae-qmc-1a2b3c4d`, unless a name was given."""
        how = self.sampler if self.design.name == "space" else self.design.name
        return self.name or f"{self.base.data.name}-{self.base.model.name}-{how}-{self.fingerprint[:8]}"

    @property
    def folder(self) -> Path:
        return Path(self.base.runtime.runs) / "studies" / self.title

    @property
    def pruned_by(self) -> str:
        learns = self.design.name == "space" and self.sampler in ("tpe", "cmaes", "gp")
        return self.pruner or ("median" if learns else "none")

    @property
    def wanted(self) -> int:
        return len(self.design.points) + (self.trials if self.design.name == "space" else 0)

    def run_name(self, run: int) -> str:
        """The name of a trial's folder."""
        return f"{self.title}-{run:04d}"
