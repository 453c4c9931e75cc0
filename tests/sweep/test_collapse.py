"""Effects of remedies against those that the study was made with."""

from __future__ import annotations

import math

import pytest
from studies import remedied

from benchmark.sweep.remedies import asked_for, cases, contrasts, courses, ended, measured, scores
from benchmark.sweep.studies import Study, by_model


def test_effects_are_paired_by_seed_alone_and_among_all_others() -> None:
    """Seeds differ by half, and no difference does."""
    found = {one.ends: one for one in contrasts(remedied({"pack": 0.5, "norm": 2.0}), log=True)}
    assert set(found) == {
        ("pack", "none"),
        ("norm", "none"),
        ("all", "all but pack"),
        ("all", "all but norm"),
        ("all", "none"),
    }
    for ends, effect in {("pack", "none"): 0.5, ("all", "all but norm"): 2.0, ("all", "none"): 1.0}.items():
        assert found[ends].differences == pytest.approx([math.log(effect)] * 3)
    assert found["pack", "none"].alone
    assert not found["all", "all but pack"].alone


def test_other_measures_are_compared_by_their_difference() -> None:
    study = remedied({"pack": 0.5, "norm": 2.0})
    assert "recall" in measured(study)
    assert contrasts(study, "recall")[0].differences == pytest.approx([0.1] * 3)


def test_a_seed_that_one_side_lacks_is_no_pair() -> None:
    study, gone = remedied({"pack": 0.5}), {"status": "diverged", "score": None}
    trials = [
        trial.model_copy(update=gone) if trial.params == {"case": "pack", "seed": 1} else trial
        for trial in study.trials
    ]
    broken = Study(header=study.header, trials=tuple(trials))
    assert scores(broken, "pack").keys() == {0, 2}
    assert len(contrasts(broken)[0].differences) == 2
    assert ended(broken, "pack") == {"diverged": 1}
    assert ended(broken, "none") == {}


def test_cases_that_were_not_tried_are_not_compared() -> None:
    study = remedied({"pack": 0.5, "norm": 2.0})
    some = Study(header=study.header, trials=tuple(t for t in study.trials if t.params["case"] in ("pack", "all")))
    assert cases(some) == ["pack", "all"]
    assert contrasts(some) == []
    assert asked_for(some) == ["pack", "all"]
    assert asked_for(study) == []


def test_the_score_over_training_is_that_of_every_seed() -> None:
    found = courses(remedied({"pack": 0.5}), "pack")
    assert [curve[-1][1] for curve in found] == pytest.approx([2.0, 3.0, 4.5])


def test_studies_of_remedies_are_no_studies_of_hyperparameters() -> None:
    assert by_model([remedied({"pack": 0.5})]) == []
