"""What a study varies: the search space beside a model's configuration, and designs over it.

A design is a set of parameters with their distributions, points that are run whatever the sampler says, and the way
from parameters to the settings of an experiment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmark.config import Experiment, as_setting, compose, config_folders, find, read_group
from benchmark.facts import modality
from benchmark.spec import BadInput, Structure, unknown

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Role = Literal["studied", "nuisance", "fixed"]
Value = bool | int | float | str
Params = Mapping[str, Value]
DesignName = Literal["space", "learning_rate", "seeds", "remedies", "confirm"]

#: Seeds of the trials of a search: each has its own, far from the board's 0, 1, 2, so that nothing is tuned to those.
FIRST_SEED = 1000
FRESH_SEED = 100  # and so have confirmations


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Option(_Strict):
    """One hyperparameter: a range with its scale, or choices, or fixed at what is tuned.

    `studied`: the study asks what it does. `nuisance`: varied, since the answer depends on it. Roles are those of
    Google's tuning playbook (Godbole and others 2023).
    """

    role: Role
    low: float | None = None
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    integer: bool = False
    step: Annotated[int, Field(ge=1)] = 1  # between integers
    choices: tuple[Value, ...] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Option:
        ranged = self.low is not None and self.high is not None
        if (self.role == "fixed") == (ranged or self.choices is not None) or (ranged and self.choices is not None):
            raise ValueError("studied and nuisance options have low and high, or choices; fixed ones have neither")
        if ranged and not (self.low or 0.0) < (self.high or 0.0):
            raise ValueError(f"low={self.low} is not below high={self.high}")
        if self.scale == "log" and (self.low or 0.0) <= 0:
            raise ValueError(f"scale=log needs low above 0, not {self.low}")
        if self.choices is not None and len(set(self.choices)) < 2:
            raise ValueError("choices need two values at least")
        return self

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.scale == "log", step=self.step)
        return FloatDistribution(self.low, self.high, log=self.scale == "log")

    def holds(self, value: Value | None) -> bool:
        """Whether a value, which may be of any type, lies in it."""
        if self.choices is not None:
            return value in self.choices
        assert self.low is not None
        assert self.high is not None
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (not self.integer or (value - self.low) % self.step == 0)


class Trial(_Strict):
    """How long one trial of a search trains."""

    examples: Annotated[int, Field(ge=1)]
    minutes: Annotated[float, Field(gt=0)]  # nominal, of one thread of the reference machine


class Remedy(_Strict):
    """What the design `remedies` turns on and off."""

    settings: dict[str, tuple[Value, Value]]  # off and on
    structures: tuple[Structure, ...] = ()  # of the data that it is for; empty: all

    def fits(self, kind: str) -> bool:
        """Whether it applies to data of this modality."""
        return not self.structures or modality(kind).structure in self.structures


class Space(_Strict):
    """`configs/sweep/<model>.yaml`: what may be varied, and what a trial costs on each dataset."""

    trial: dict[str, Trial]
    settings: tuple[str, ...] = ()  # of every trial
    options: dict[str, Option]
    remedies: dict[str, Remedy] = {}  # of the design `remedies`, by name

    @property
    def varied(self) -> dict[str, Option]:
        return {key: option for key, option in self.options.items() if option.role != "fixed"}


def load_space(model: str) -> Space:
    """The search space of `model`. Raises `BadInput` where there is none, or where it is malformed."""
    return _space_of(tuple(config_folders()), model)


@cache
def _space_of(folders: tuple[Path, ...], model: str) -> Space:
    try:
        return Space.model_validate(read_group("sweep", model))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{find(f'sweep/{model}.yaml')}: {place}: {message[0].lower()}{message[1:]}") from error


def base_settings(data: str, model: str, space: Space, overrides: Sequence[str] = ()) -> list[str]:
    """What every trial starts from: the tuned setting, scored on validation, under the trial's budget.

    `budget=standard` among the overrides trains as for the board instead.
    """
    names = [f"data={data}", f"model={model}", "evaluation.split=validation"]
    if any(override.startswith("budget=") for override in overrides):
        return [*names, *overrides]
    return [*names, *space.settings, *_trial_budget(data, model, space), *overrides]


def base_experiment(space: Space, settings: Sequence[str], trust: Sequence[str] = ()) -> Experiment:
    """The experiment of `base_settings`. Raises `BadInput` where it sees the test split, or lacks an option."""
    experiment = compose(settings, trust)
    if experiment.evaluation.split != "validation":
        raise BadInput("a study never sees the test split: drop evaluation.split")
    for key in space.options:
        lookup(experiment, key)
    return experiment


def _trial_budget(data: str, model: str, space: Space) -> list[str]:
    if data not in space.trial:
        raise BadInput(
            f"configs/sweep/{model}.yaml does not say how long a trial on {data} is, only on {', '.join(space.trial)}: "
            "add it there, or give budget=quick"
        )
    trial = space.trial[data]
    return ["budget=quick", "budget.name=trial", f"budget.examples={trial.examples}", f"budget.minutes={trial.minutes}"]


def lookup(experiment: Experiment, key: str) -> Value:
    """The value of a setting such as `model.latent`. Raises `BadInput` with the nearest name that exists."""
    node: Any = experiment.container()
    for depth, part in enumerate(key.split(".")):
        if not isinstance(node, Mapping) or part not in node:
            where = ".".join(key.split(".")[:depth])
            raise unknown(f"option of {where}" if where else "setting", part, map(str, node))
        node = node[part]
    value: Value = node
    return value


# Designs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """What a study varies and how."""

    name: DesignName
    distributions: dict[str, BaseDistribution]
    points: tuple[Params, ...]  # run first, whatever the sampler says
    settings: Callable[[Params, int], list[str]]  # from parameters and the number of the trial


def search(space: Space, base: Experiment) -> Design:
    """The whole space; the tuned setting is the first trial, where the space holds it."""
    tuned = {key: lookup(base, key) for key in space.varied}
    inside = all(option.holds(tuned[key]) for key, option in space.varied.items())
    return Design(
        "space",
        {key: option.distribution() for key, option in space.varied.items()},
        (tuned,) if inside else (),
        lambda params, number: [*settings_of(params), f"seed={FIRST_SEED + number}"],
    )


def learning_rate(base: Experiment, rates: int, seeds: int) -> Design:
    """All learning rates of the tuned setting times one factor, from 10^-1.5 to 10^1.5, with several seeds each."""
    from optuna.distributions import FloatDistribution, IntDistribution

    keys = [f"model.{name}" for name in base.model.options if name.endswith("learning_rate")]
    if not keys:
        raise BadInput(f"model {base.model.name!r} has no learning rate: it needs an option whose name ends so")
    for key in keys:
        if not isinstance(lookup(base, key), (int, float)):
            raise BadInput(f"{key}={lookup(base, key)} is not a rate: give a number")
    factors = [10 ** (3 * i / (rates - 1) - 1.5) for i in range(rates)]

    def settings(params: Params, number: int) -> list[str]:
        factor = float(params["factor"])
        scaled = {key: float(f"{float(lookup(base, key)) * factor:.6g}") for key in keys}
        return [*settings_of(scaled), f"seed={params['seed']}"]

    return Design(
        "learning_rate",
        {"factor": FloatDistribution(factors[0], factors[-1], log=True), "seed": IntDistribution(0, seeds - 1)},
        tuple({"factor": factor, "seed": seed} for seed in range(seeds) for factor in factors),
        settings,
    )


def initialisation_and_data(seeds: int) -> Design:
    """Every initialisation with every order of the data, at the tuned setting."""
    from optuna.distributions import IntDistribution

    keys = ("seed.init", "seed.data")
    return Design(
        "seeds",
        {key: IntDistribution(0, seeds - 1) for key in keys},
        tuple({keys[0]: init, keys[1]: data} for init in range(seeds) for data in range(seeds)),
        lambda params, number: settings_of(params),
    )


NONE, ALL, ALL_BUT = "none", "all", "all but "  # cases of the design `remedies`, beside each alone


def remedies(space: Space, base: Experiment, cases: Sequence[str], seeds: int) -> Design:
    """The tuned setting with none of the remedies, with each alone, with all, and with all but each, or those of these
    cases that are named. All have the same seeds, so that effects are paired."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if not space.remedies:
        raise BadInput(
            f"configs/sweep/{base.model.name}.yaml lists no remedies: add `remedies:`, or take another design"
        )
    fit = {name: remedy for name, remedy in space.remedies.items() if remedy.fits(base.data.modality)}
    turned_on = {NONE: (), **{name: (name,) for name in fit}, ALL: tuple(fit)}
    turned_on |= {f"{ALL_BUT}{name}": tuple(other for other in fit if other != name) for name in fit}
    for case in cases:
        if case not in turned_on:
            raise unknown(f"case on {base.data.name}", case, turned_on)
    for key in {key for remedy in fit.values() for key in remedy.settings}:
        lookup(base, key)

    def settings(params: Params, number: int) -> list[str]:
        on = turned_on[str(params["case"])]
        own = {key: pair[name in on] for name, remedy in fit.items() for key, pair in remedy.settings.items()}
        return [*settings_of(own), "training.weights=last", f"seed={params['seed']}"]  # none from before a collapse

    chosen = tuple(cases) or tuple(turned_on)
    return Design(
        "remedies",
        {"case": CategoricalDistribution(chosen), "seed": IntDistribution(0, seeds - 1)},
        tuple({"case": case, "seed": seed} for seed in range(seeds) for case in chosen),
        settings,
    )


def confirm(short: Sequence[str], base: Experiment, best: Params, seeds: int) -> Design:
    """A study's best setting on seeds that nothing was chosen by: as in the study, whose settings are `short` and make
    `base`, and under the budget `standard` as for the board, beside the tuned setting."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    names = [f"data={base.data.name}", f"model={base.model.name}", "evaluation.split=validation", "budget=standard"]

    def settings(params: Params, number: int) -> list[str]:
        own = settings_of(best) if params["setting"] == "best" else []
        common = names if params["budget"] == "standard" else short
        return [*common, *own, f"seed={params['seed']}", as_setting("runtime.runs", base.runtime.runs)]

    cases = (("best", "study"), ("best", "standard"), ("tuned", "standard"))
    fresh = range(FRESH_SEED, FRESH_SEED + seeds)
    return Design(
        "confirm",
        {
            "setting": CategoricalDistribution(("best", "tuned")),
            "budget": CategoricalDistribution(("study", "standard")),
            "seed": IntDistribution(FRESH_SEED, FRESH_SEED + seeds - 1),
        },
        tuple({"setting": which, "budget": name, "seed": seed} for which, name in cases for seed in fresh),
        settings,
    )


def settings_of(params: Params) -> list[str]:
    """Parameters as settings of the command line."""
    return [as_setting(key, value) for key, value in params.items()]


def identity(design: Design, base: Experiment, sampler: str) -> str:
    """A fingerprint of everything that decides what a study finds, but for the number of trials."""
    distributions = {key: repr(distribution) for key, distribution in sorted(design.distributions.items())}
    points = [dict(point) for point in design.points]
    content = [design.name, distributions, points, base.config_hash, sampler]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
