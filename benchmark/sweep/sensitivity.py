"""Which hyperparameters matter: statistics of a study, as pure functions of its trials. Lower values are better."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.sweep.ped_anova import best, divergences, grid
from benchmark.sweep.studies import Study, Trial

TOP = 0.2  # share of trials that an importance is about: what does it take to be among them?
RESAMPLES = 60  # for the spread of importances, and for what pure chance gives
EPSILON = 0.02  # of the way from knowing nothing to the best: settings within it count as good
EDGE = 0.05  # share of a range at its ends: an optimum there says that the range is too narrow


@dataclass(frozen=True)
class Importance:
    """How much one hyperparameter decides whether a trial is among the best `TOP`."""

    name: str
    share: float  # of all hyperparameters' importance, 0 to 1
    low: float  # 5th and 95th percentile over resampled trials
    high: float
    chance: bool  # no larger than what scores that were dealt out at random give in one of twenty cases


def importances(study: Study) -> list[Importance]:
    """PED-ANOVA (Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces", IJCAI 2023) of the design's trials, the most important first.

    Each importance is the Pearson divergence of the density of the best `TOP` from a uniform one. The spread is over
    resampled trials; `chance` compares the divergence with those after scores were permuted. Trials that diverged
    count with the score before training: were they dropped, what makes training unstable would seem not to matter.
    """
    trials = scored(study)
    if len(trials) < 10:
        return []
    values = np.array([trial.value for trial in trials], dtype=float)
    names = varied(study)
    grids = [grid(study.header.options[name], [trial.params[name] for trial in trials]) for name in names]
    generator = np.random.default_rng(0)
    n = len(trials)
    drawn, permuted = [], []
    for _ in range(RESAMPLES):
        drawn.append(generator.integers(n, size=n))
        permuted.append(generator.permutation(values))
    index = np.stack(drawn)
    resampled = np.zeros((RESAMPLES, n), dtype=np.int64)
    np.add.at(resampled, (np.arange(RESAMPLES)[:, None], index), best(values[index], TOP))
    chosen = np.concatenate([best(np.stack([values, *permuted]), TOP), resampled])
    raw = np.stack([divergences(one, chosen) for one in grids])  # [names, 1 + 2 RESAMPLES]
    shares = raw / np.where(raw.sum(0) == 0, 1, raw.sum(0))
    low, high = np.percentile(shares[:, 1 + RESAMPLES :], (5, 95), axis=1)
    chance = raw[:, 0] <= np.percentile(raw[:, 1 : 1 + RESAMPLES], 95, axis=1)
    found = [
        Importance(name, float(shares[i, 0]), float(low[i]), float(high[i]), bool(chance[i]))
        for i, name in enumerate(names)
    ]
    return sorted(found, key=lambda importance: (-importance.share, importance.name))


def varied(study: Study) -> list[str]:
    """The hyperparameters that the study varied, studied ones first."""
    options = study.header.options
    order = sorted(options, key=lambda key: options[key].role != "studied")
    return [key for key in order if options[key].role != "fixed"]


def scored(study: Study) -> list[Trial]:
    """The design's trials that have a value; pruned ones do not, since they were never trained through."""
    return [trial for trial in study.proposed if trial.value is not None and trial.status != "pruned"]


def position(study: Study, key: str, value: Any) -> float:
    """Where a value lies in its range, 0 to 1, on the range's own scale."""
    option = study.header.options[key]
    if option.choices is not None:
        return option.choices.index(value) / (len(option.choices) - 1)
    assert option.low is not None
    assert option.high is not None
    low, high = option.low, option.high
    if option.scale == "log":
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))


def at_the_edge(study: Study) -> list[str]:
    """Ordered hyperparameters whose value in the best trial lies at an end of its range."""
    trials = scored(study)
    if not trials:
        return []
    best = min(trials, key=lambda trial: (trial.value, trial.number))
    found = []
    for key in varied(study):
        choices = study.header.options[key].choices
        if choices is None or all(isinstance(choice, (int, float)) for choice in choices):
            where = position(study, key, best.params[key])
            if not EDGE <= where <= 1 - EDGE:
                found.append(key)
    return found


def good_values(study: Study, key: str) -> tuple[Any, Any]:
    """The range of a hyperparameter over the best `TOP` of the trials, without the lowest and the highest tenth."""
    trials = sorted(scored(study), key=lambda trial: (trial.value, trial.number))
    best = trials[: max(2, round(TOP * len(trials)))]
    ordered = sorted((trial.params[key] for trial in best), key=lambda value: position(study, key, value))
    cut = len(ordered) // 10
    return ordered[cut], ordered[-1 - cut]


@dataclass(frozen=True)
class Interaction:
    """How far two hyperparameters act together."""

    first: str
    second: str
    additive: float  # share of the variance of the trials' ranks that both explain apart, each as a parabola
    together: float  # what their product adds


def interaction(study: Study, first: str, second: str) -> Interaction:
    """Least squares on ranks: how much better is a parabola in each with a product of the two than without."""
    trials = scored(study)
    ranks = _ranks([trial.value for trial in trials if trial.value is not None])
    u, v = (np.array([2 * position(study, key, t.params[key]) - 1 for t in trials]) for key in (first, second))
    apart = np.stack([np.ones_like(u), u, u**2, v, v**2], 1)
    return Interaction(first, second, *_gain(apart, (u * v)[:, None], ranks))


def _ranks(values: Sequence[float]) -> Any:
    """From 1, the lowest; equal values share the mean of theirs."""
    _, place, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]


def _gain(base: Any, more: Any, y: Any) -> tuple[float, float]:
    """Adjusted R² of a regression on `base`, and what `more` columns add to it."""

    def adjusted(x: Any) -> float:
        residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        return float(1 - (residual @ residual / (len(y) - x.shape[1])) / y.var(ddof=1))

    without = adjusted(base)
    return max(0.0, without), max(0.0, adjusted(np.concatenate([base, more], 1)) - max(0.0, without))


def expected_best(values: Sequence[float]) -> list[float]:
    """E[best of n] for n = 1 to the number of trials: Dodge and others, "Show Your Work", EMNLP 2019, eq. 8.

    For lower is better: the sum of v (P(V ≥ v)ⁿ - P(V > v)ⁿ) over values v. For independent or quasi-random trials.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    at_least = (n - np.arange(n)) / n  # P(V ≥ v) where values differ; equal ones share their weight evenly
    above = at_least - 1 / n
    return [float((ordered * (at_least**k - above**k)).sum()) for k in range(1, n + 1)]


def expected_loss(study: Study, start: float | None = None) -> list[float]:
    """What the best of n = 1, 2, ... settings is expected to lose, as a share of what there is to learn: 0 the best
    setting of all, 1 `start` (the mean score before training if not given). Empty where nothing was scored."""
    trials = scored(study)
    initial = _initial(trials, start)
    values = [min(trial.value, initial) for trial in trials if trial.value is not None]
    return list(_lost(expected_best(values), min(values), initial)) if values and math.isfinite(initial) else []


def _initial(trials: Sequence[Trial], start: float | None) -> float:
    """The score of who has learnt nothing: `start`, or the mean of the scores before training; infinite without any."""
    caps = [trial.cap for trial in trials if trial.cap is not None]
    return start if start is not None else float(np.mean(caps)) if caps else math.inf


def _lost(values: Sequence[float], best: float, initial: float) -> tuple[float, ...]:
    """Shares of the way from `initial` down to `best` that `values` lack; nan where there is no way."""
    return tuple((value - best) / (initial - best) if initial > best else math.nan for value in values)


# Learning rates ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearningRates:
    """How a model takes learning rates other than the tuned one."""

    factors: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]  # of each factor, one a seed, capped at what knows nothing
    initial: float  # the score of who has learnt nothing
    sensitivity: float  # mean over factors of the mean value, less the best, in the score's unit
    regret: float  # the same as a share of the way from `initial` to the best
    window: tuple[float, float]  # factors between which the mean lies within `EPSILON` of the best
    open_ends: tuple[bool, bool]  # whether the window may extend beyond the factors that were tried
    diverged: int
    trials: int

    @property
    def decades(self) -> float:
        return math.log10(self.window[1] / self.window[0])

    @property
    def lost(self) -> tuple[tuple[float, ...], ...]:
        """`values` as shares of what there is to learn: 0 the best factor's mean, 1 `initial`."""
        best = min(float(np.mean(values)) for values in self.values)
        return tuple(_lost(values, best, self.initial) for values in self.values)


def learning_rates(study: Study, start: float | None = None) -> LearningRates | None:
    """Learning-rate sensitivity (Wortsman and others, "Small-scale proxies for large-scale Transformer training
    instabilities", 2023: the mean of min(loss, loss at initialisation) less the best loss) and the width of the good
    window, from a study with `design=learning_rate`. `start` is the score of who has learnt nothing; before training by
    default, which some models begin far worse than others."""
    by_factor: dict[float, list[float]] = defaultdict(list)
    initial = _initial(study.trials, start)
    for trial in study.trials:
        if trial.value is not None:
            by_factor[float(trial.params["factor"])].append(min(trial.value, initial))
    if len(by_factor) < 3 or not math.isfinite(initial):
        return None
    factors = tuple(sorted(by_factor))
    means = [float(np.mean(by_factor[factor])) for factor in factors]
    best = min(means)
    sensitivity = float(np.mean(means)) - best
    way = initial - best
    window, ends = _window(factors, means, best + EPSILON * way)
    return LearningRates(
        factors,
        tuple(tuple(by_factor[factor]) for factor in factors),
        initial,
        sensitivity,
        sensitivity / way if way > 0 else math.nan,
        window,
        ends,
        sum(trial.diverged for trial in study.trials),
        len(study.trials),
    )


def _window(
    factors: Sequence[float], means: Sequence[float], limit: float
) -> tuple[tuple[float, float], tuple[bool, bool]]:
    """The neighbours of the best factor below `limit`; its ends are interpolated on the logarithmic scale."""
    best = int(np.argmin(means))

    def end(step: int) -> tuple[float, bool]:
        i = best
        while 0 <= i + step < len(means) and means[i + step] <= limit:
            i += step
        if not 0 <= i + step < len(means):
            return factors[i], True
        share = (limit - means[i]) / (means[i + step] - means[i])
        return math.exp(math.log(factors[i]) + share * math.log(factors[i + step] / factors[i])), False

    (low, opened_low), (high, opened_high) = end(-1), end(1)
    return (low, high), (opened_low, opened_high)


# Budgets -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """Whether trials rank settings as another budget does."""

    n: int
    spearman: float
    low: float  # 95 % interval by Fisher's transformation
    high: float


def agreement(short: Study, long: Study) -> Agreement | None:
    """Spearman's rank correlation between two studies over the settings that both tried."""
    other = {_key(trial): trial.value for trial in long.trials if trial.value is not None and trial.status != "pruned"}
    pairs = [
        (trial.value, other[_key(trial)]) for trial in short.trials if trial.value is not None and _key(trial) in other
    ]
    if len(pairs) < 5:
        return None
    ranks = [_ranks(values) for values in zip(*pairs, strict=True)]
    if any(np.ptp(values) == 0 for values in ranks):  # a study whose scores are all equal ranks nothing
        return None
    rho = float(np.corrcoef(ranks)[0, 1])
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / (len(pairs) - 3))  # Bonett and Wright 2000
    z = math.atanh(min(max(rho, -0.999999), 0.999999))
    return Agreement(len(pairs), rho, math.tanh(z - half), math.tanh(z + half))


def _key(trial: Trial) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in trial.params.items()))
