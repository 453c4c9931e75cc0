"""Our PED-ANOVA gives Optuna's numbers: on the committed studies, and on every kind of range."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from files import RECORDS
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from benchmark.sweep.ped_anova import best, divergences, grid
from benchmark.sweep.sensitivity import TOP, scored, varied
from benchmark.sweep.space import Option
from benchmark.sweep.studies import read_studies

OPTIONS = {
    "share": Option(role="studied", low=-0.3, high=0.9),
    "rate": Option(role="studied", low=1e-4, high=3e-1, scale="log"),
    "layers": Option(role="studied", low=1, high=6, integer=True),
    "width": Option(role="studied", low=8, high=520, integer=True, step=8),
    "uneven": Option(role="studied", low=3, high=20, integer=True, step=5),
    "alone": Option(role="studied", low=3, high=5, integer=True, step=7),
    "batch": Option(role="studied", low=1, high=1000, integer=True, scale="log"),
    "two": Option(role="studied", low=1, high=2, integer=True, scale="log"),
    "norm": Option(role="nuisance", choices=("none", "batch", "group")),
    "switch": Option(role="nuisance", choices=(True, False)),
    "size": Option(role="nuisance", choices=(16, 2.5, 64, 128, "all")),
}


def by_optuna(options: dict[str, Option], params: list[dict[str, Any]], values: Any) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is experimental; steps do not divide a range; all scores are equal
        distributions = {name: option.distribution() for name, option in options.items()}
        study.add_trials(
            [
                create_trial(params={name: one[name] for name in options}, distributions=distributions, value=value)
                for one, value in zip(params, values.tolist(), strict=True)
            ]
        )
        evaluator = PedAnovaImportanceEvaluator(target_quantile=TOP, evaluate_on_local=False)
        return get_param_importances(study, evaluator=evaluator, normalize=False)


def check(options: dict[str, Option], params: list[dict[str, Any]], values: np.ndarray, seed: int) -> None:
    """All trials, resampled ones, and permuted scores: as Optuna has it where trials stand there several times."""
    generator = np.random.default_rng(seed)
    n = len(params)
    everyone = np.arange(n)
    sets = [(everyone, values), (everyone, generator.permutation(values))]
    sets += [(index, values[index]) for index in generator.integers(n, size=(2, n))]
    chosen = np.zeros((len(sets), n), dtype=np.int64)
    for row, (index, scores) in enumerate(sets):
        np.add.at(chosen[row], index, best(scores[None], TOP)[0])
    ours = {name: divergences(grid(option, [one[name] for one in params]), chosen) for name, option in options.items()}
    for row, (index, scores) in enumerate(sets):
        theirs = by_optuna(options, [params[i] for i in index], scores)
        assert {name: float(found[row]) for name, found in ours.items()} == pytest.approx(theirs, rel=1e-9, abs=1e-15)


def test_committed_studies_have_optunas_importances() -> None:
    searches = [study for study in read_studies(RECORDS.parent / "studies").values() if study.header.options]
    assert searches
    for study in searches:
        trials = scored(study)
        options = {key: study.header.options[key] for key in varied(study)}
        check(options, [trial.params for trial in trials], np.array([trial.value for trial in trials]), 0)


def drawn(n: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Settings of all `OPTIONS`, at the ends of their ranges too."""

    def one(option: Option, u: float) -> Any:
        if option.choices is not None:
            return option.choices[min(int(u * len(option.choices)), len(option.choices) - 1)]
        low, high = option.low, option.high
        x = low * (high / low) ** u if option.scale == "log" else low + u * (high - low)
        return int(low) + int(x - low) // option.step * option.step if option.integer else min(max(x, low), high)

    us = generator.random((n, len(OPTIONS)))
    us[0], us[1] = 0, 1
    return [{name: one(option, u) for (name, option), u in zip(OPTIONS.items(), row, strict=True)} for row in us]


@pytest.mark.parametrize(("n", "levels"), [(10, None), (64, None), (64, 3), (64, 1), (173, 40)])
@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_range_has_optunas_importance(n: int, levels: int | None, seed: int) -> None:
    """Also where scores are equal, all of them too."""
    generator = np.random.default_rng(seed)
    params = drawn(n, generator)
    values = np.array([one["share"] ** 2 + 0.1 * one["layers"] for one in params]) + 0.1 * generator.random(n)
    check(OPTIONS, params, values if levels is None else np.floor(values * levels / (values.max() + 1)), seed)


def test_equal_sets_have_equal_divergences_to_the_bit() -> None:
    """Importances are compared with those of permuted scores by `<=`, where few choices give equal ones often."""
    generator = np.random.default_rng(0)
    params = drawn(30, generator)
    once = generator.integers(0, 3, size=(5, 30))
    for name, option in OPTIONS.items():
        cells = grid(option, [one[name] for one in params])
        found = divergences(cells, np.concatenate([once, once[::-1], once]))
        assert (found[:5] == found[10:]).all()
        assert (found[:5] == found[9:4:-1]).all()
