"""What is known of every number that a record may hold: title, unit, direction, range, digits, version.

`facts.yaml` is their one home. Whoever computes, writes, ranks, checks or draws a number reads it here, without torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from benchmark.spec import Direction, Modality

FILE = Path(__file__).with_name("facts.yaml")

#: A likelihood that beats the known source of its data by more standard errors than these, and by more than this share
#: of the source's own score (float32 likelihoods are no better than that), cannot be.
IMPOSSIBLE_SIGMAS, ROUNDING = 5.0, 1e-4


class Fact(BaseModel):
    """One kind of number. `facts.yaml` says what the fields mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    short: str = ""
    about: str = ""
    unit: str
    better: Direction
    digits: int
    version: int
    log: bool = False
    low: float = -math.inf
    high: float = math.inf
    modalities: tuple[Modality, ...] = ("image", "text")
    terms: tuple[str, ...] = ()
    machine: bool = False

    def model_post_init(self, context: Any, /) -> None:
        object.__setattr__(self, "short", self.short or self.title)
        object.__setattr__(self, "about", self.about or self.title)


def _read(part: Literal["metrics", "costs", "derived"]) -> dict[str, Fact]:
    return {name: Fact(name=name, **entry) for name, entry in _CONTENT[part].items()}


_CONTENT: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))

METRICS: Mapping[str, Fact] = _read("metrics")
COSTS: Mapping[str, Fact] = _read("costs")
DERIVED: Mapping[str, Fact] = _read("derived")
FACTS: Mapping[str, Fact] = {**METRICS, **COSTS, **DERIVED}


def measure(name: str, unit: str) -> str:
    """What numbers called `name` are in: their unit, or where they have none the title of what they are."""
    if unit != "1":
        return unit
    return FACTS[name].title if name in FACTS else name
