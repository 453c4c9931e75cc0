"""What remedies against collapse do: effects paired by seed, as pure functions of a study of the design `remedies`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.sweep.space import ALL, ALL_BUT, NONE
from benchmark.sweep.studies import Study, Trial

#: Of one case, by seed.
BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Contrast:
    """What one remedy does where there is no other, or in the midst of all others.

    `ends` are a case with it and the same case without; `differences` of their scores have one entry for each seed that
    both finished, and are of logarithms where `log` says so.
    """

    remedy: str
    ends: tuple[str, str]
    differences: tuple[float, ...]
    log: bool

    @property
    def alone(self) -> bool:
        """Whether it is compared with no remedy at all."""
        return self.ends[1] == NONE


def cases(study: Study) -> list[str]:
    """The cases that were tried, in the order of the design."""
    return list(dict.fromkeys(str(trial.params["case"]) for trial in study.trials))


def asked_for(study: Study) -> list[str]:
    """The cases, if some of the design's were left out."""
    kind = study.header.config["data"]["modality"]
    names = [name for name, remedy in study.header.remedies.items() if remedy.fits(kind)]
    whole = {NONE, ALL, *names, *(f"{ALL_BUT}{name}" for name in names)}
    return [] if whole == set(cases(study)) else cases(study)


def measured(study: Study) -> list[str]:
    """What trials were measured by beside the score that judges them, in the order of the records."""
    return list(dict.fromkeys(name for trial in study.trials for name in trial.scores))


def scores(study: Study, case: str, name: str = "") -> dict[int, float]:
    """Of the trials of a case that finished, by seed: the score that judges them, or the one of that name."""
    of = [trial for trial in study.trials if trial.params["case"] == case and trial.status == "finished"]
    found = {int(trial.params["seed"]): trial.scores.get(name) if name else trial.score for trial in of}
    return {seed: value for seed, value in sorted(found.items()) if value is not None and math.isfinite(value)}


def contrasts(study: Study, name: str = "", log: bool = False) -> list[Contrast]:
    """Every remedy alone against none, then all against all but it, as far as both sides were tried."""
    tried = cases(study)
    single = [case for case in tried if case not in (NONE, ALL) and not case.startswith(ALL_BUT)]
    left_out = [case.removeprefix(ALL_BUT) for case in tried if case.startswith(ALL_BUT)]
    pairs = [(remedy, remedy, NONE) for remedy in single if NONE in tried]
    pairs += [(remedy, ALL, f"{ALL_BUT}{remedy}") for remedy in left_out if ALL in tried]
    if {ALL, NONE} <= set(tried):
        pairs.append((ALL, ALL, NONE))
    found = []
    for remedy, with_it, without in pairs:
        ours, theirs = scores(study, with_it, name), scores(study, without, name)
        differences = tuple(_difference(ours[seed], theirs[seed], log) for seed in ours if seed in theirs)
        if differences:
            found.append(Contrast(remedy, (with_it, without), differences, log))
    return found


def _difference(ours: float, theirs: float, log: bool) -> float:
    return math.log(ours / theirs) if log else ours - theirs


def courses(study: Study, case: str) -> list[tuple[tuple[int, float], ...]]:
    """The score over training of each trial of a case that finished."""
    return [
        trial.validations
        for trial in study.trials
        if trial.params["case"] == case and trial.status == "finished" and len(trial.validations) > 1
    ]


def ended(study: Study, case: str) -> dict[str, int]:
    """How the trials of a case ended that did not finish: how many of each status."""
    others: list[Trial] = [t for t in study.trials if t.params["case"] == case and t.status != "finished"]
    return {status: sum(trial.status == status for trial in others) for status in sorted({t.status for t in others})}
