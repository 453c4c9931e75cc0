"""Does a study's best setting keep its promise? Statistics of a study and of its confirmation on fresh seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.config import choices, dump_yaml, read_yaml
from benchmark.record import write_atomic
from benchmark.sweep.sensitivity import scored
from benchmark.sweep.studies import Study, Trial


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its 95 % Student-t interval; one pair has none."""

    centre: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Confirmation:
    """A study's best setting on fresh seeds. Scores of validation, lower is better."""

    best: float  # what the study found
    again: tuple[float, ...]  # on fresh seeds, under the study's budget
    budget: str  # under which it meets the tuned setting
    long: tuple[float, ...]
    tuned: tuple[float, ...]
    difference: Difference | None  # best less tuned, paired by seed

    @property
    def mean(self) -> float:
        return float(np.mean(self.again))

    @property
    def gap(self) -> float:
        """The winner's curse: by how much the mean of fresh seeds is worse than the study's best."""
        return self.mean - self.best

    @property
    def verdict(self) -> str:
        """Whether it may replace the tuned setting: only if the whole interval is below zero."""
        found = self.difference
        if found is None or found.low is None or found.high is None:
            return "cannot be told from the tuned setting with so few seeds"
        if found.high < 0:
            return "beats the tuned setting"
        return "loses against the tuned setting" if found.low > 0 else "cannot be told from the tuned setting"


def best_trial(study: Study) -> Trial | None:
    """The design's best trial, at its own budget and seed; `None` where no trial learnt anything."""
    return min(
        (trial for trial in scored(study) if trial.learnt), key=lambda trial: (trial.value, trial.number), default=None
    )


def confirmation(study: Study, confirm: Study) -> Confirmation | None:
    """What `confirm` says about `study`; `None` where it is about another one, or not far enough."""
    best = best_trial(study)
    if confirm.header.confirms.get("study") != study.header.name or best is None or best.value is None:
        return None
    again = _values(confirm, "best", "study")
    if not again:
        return None
    long, tuned = _values(confirm, "best", "standard"), _values(confirm, "tuned", "standard")
    pairs = sorted(long.keys() & tuned.keys())
    differences = [long[seed] - tuned[seed] for seed in pairs]
    return Confirmation(
        float(confirm.header.confirms["value"]),
        tuple(again.values()),
        "standard",
        tuple(long.values()),
        tuple(tuned.values()),
        paired(differences) if differences else None,
    )


def _values(confirm: Study, setting: str, budget: str) -> dict[int, float]:
    """Scores by seed."""
    return {
        int(trial.params["seed"]): trial.value
        for trial in confirm.trials
        if (trial.params["setting"], trial.params["budget"]) == (setting, budget) and trial.value is not None
    }


def paired(differences: list[float]) -> Difference:
    from scipy.special import stdtrit  # quantile of Student's t

    values, n = np.asarray(differences), len(differences)
    centre = float(values.mean())
    if n == 1:
        return Difference(centre, None, None)
    half = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / n**0.5
    return Difference(centre, centre - half, centre + half)


def propose(study: Study, folder: Path) -> Path | None:
    """Write `tuned.yaml`, today's tuned setting with the study's best one in it, to the study's folder, never over
    `configs/`. `None` where the study has no trial."""
    best = best_trial(study)
    if best is None:
        return None
    files = choices(f"tuned/{study.header.data}")
    tuned = read_yaml(files[study.header.model]) if study.header.model in files else {}
    content: dict[str, Any] = {section: dict(options or {}) for section, options in tuned.items()}
    for key, value in best.params.items():
        section, _, option = key.partition(".")
        content.setdefault(section, {})[option] = value
    head = f"# @package _global_\n# Trial {best.number} of study {study.header.name}; confirm it before it is tuned.\n"
    return write_atomic(folder / "tuned.yaml", head + dump_yaml(content))
