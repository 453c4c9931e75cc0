"""Which models are stable: statistics over seeds and over a space, as pure functions of studies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark import facts
from benchmark.sweep.studies import Study, Trial


@dataclass(frozen=True)
class Rates:
    """What went wrong how often, over some trials."""

    trials: int
    diverged: int  # not finite
    worse: int  # finite, and at its end worse than before training
    failed: int  # refused or broken, by no fault of its training
    spikes: float | None  # of the loss, for 1,000 watched steps
    tail: float | None  # median over trials of the gradient norm's 99th percentile over its median

    @property
    def unstable(self) -> float:
        """Share of trials that diverged or ended worse than they started."""
        return (self.diverged + self.worse) / max(1, self.trials - self.failed)


def rates(trials: Sequence[Trial]) -> Rates:
    diverged = [trial for trial in trials if trial.status == "diverged"]
    worse = [trial for trial in trials if trial.diverged and trial.status != "diverged"]
    failed = [trial for trial in trials if trial.status in ("failed", "refused")]
    watched = sum(trial.stability.get("watched_steps", 0.0) for trial in trials)
    spikes = sum(trial.stability.get("loss_spikes", 0.0) for trial in trials)
    tails = [trial.stability["gradient_tail"] for trial in trials if "gradient_tail" in trial.stability]
    return Rates(
        len(trials),
        len(diverged),
        len(worse),
        len(failed),
        1000 * spikes / watched if watched else None,
        float(np.median(tails)) if tails else None,
    )


@dataclass(frozen=True)
class Spread:
    """Scores of one setting over seeds."""

    n: int
    median: float
    quartiles: tuple[float, float]
    worst: float

    @property
    def iqr(self) -> float:
        return self.quartiles[1] - self.quartiles[0]


def spread(values: Sequence[float]) -> Spread | None:
    """Median, quartiles and the worst; lower is better. `None` without values."""
    if not values:
        return None
    low, median, high = (float(q) for q in np.percentile(values, (25, 50, 75)))
    return Spread(len(values), median, (low, high), max(values))


@dataclass(frozen=True)
class Sources:
    """Where the spread over seeds comes from: standard deviations of a crossed design."""

    initialisation: float
    data: float
    rest: float  # what neither explains: their interaction, and nothing else, since runs repeat bit for bit
    inits: int
    orders: int


def sources(study: Study) -> Sources | None:
    """Variance components of `design=seeds`, two ways without repetition, by expected mean squares; none below zero."""
    cells = {(t.params["seed.init"], t.params["seed.data"]): t.value for t in study.trials if t.value is not None}
    inits, orders = (sorted({key[i] for key in cells}) for i in (0, 1))
    if len(inits) < 2 or len(orders) < 2 or len(cells) < len(inits) * len(orders):
        return None
    table = np.array([[cells[init, order] for order in orders] for init in inits])  # [I, J]
    rows, columns = table.shape
    by_init, by_order, mean = table.mean(1), table.mean(0), table.mean()
    residual = table - by_init[:, None] - by_order + mean
    rest = float((residual**2).sum() / ((rows - 1) * (columns - 1)))
    init = max(0.0, float(by_init.var(ddof=1)) - rest / columns)
    order = max(0.0, float(by_order.var(ddof=1)) - rest / rows)
    return Sources(math.sqrt(init), math.sqrt(order), math.sqrt(rest), rows, columns)


#: Entries of a record's stability that are no sign of a model's own.
GENERAL = ("initial", "best", "final", "loss_spikes", "watched_steps", "gradient_tail")


@dataclass(frozen=True)
class Sign:
    """One sign of collapse over some trials."""

    name: str
    start: float | None  # before training, the median
    low: float
    median: float
    high: float


def signs(trials: Sequence[Trial]) -> list[Sign]:
    """Every sign that these trials have, at the end of training: lowest, median and highest."""
    ended = [trial for trial in trials if trial.status in ("finished", "truncated")]
    names = {name for trial in ended for name in trial.stability if name not in GENERAL}
    found = []
    for name in sorted(name for name in names if not name.endswith("_start")):
        values = [trial.stability[name] for trial in ended if name in trial.stability]
        starts = [trial.stability[f"{name}_start"] for trial in ended if f"{name}_start" in trial.stability]
        start = float(np.median(starts)) if starts else None
        found.append(Sign(name, start, min(values), float(np.median(values)), max(values)))
    of_samples = dict.fromkeys(name for kind in facts.modalities().values() for name in kind.trials)
    for name in of_samples:  # measured where samples select: signs of collapse too
        values = [trial.scores[name] for trial in ended if name in trial.scores]
        if values:
            found.append(Sign(name, None, min(values), float(np.median(values)), max(values)))
    return found
