"""From the words of a command line to a plan: its study, how many workers, and where it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.config import Experiment, choices, from_container
from benchmark.launch import default_jobs
from benchmark.spec import BadInput, unknown
from benchmark.sweep import space
from benchmark.sweep.confirmation import best_trial
from benchmark.sweep.search import Plan
from benchmark.sweep.studies import collect

Command = tuple[Plan, int, str | None]

SWEEP: Mapping[str, str] = {
    "trials": "64",
    "workers": "",
    "sampler": "qmc",
    "pruner": "",
    "design": "space",
    "rates": "7",
    "seeds": "3",
    "name": "",
    "storage": "",
}
CONFIRM: Mapping[str, str] = {"seeds": "5", "workers": "", "storage": ""}

_LEAST = {"trials": 1, "workers": 1, "rates": 3, "seeds": 1}


def plan_of(overrides: Sequence[str], trust: Sequence[str] = ()) -> Command:
    """What `benchmark sweep` was asked for. Settings that are not its own apply to every trial."""
    keys = {override: override.partition("=")[0] for override in overrides}
    known = {*SWEEP, *Experiment.model_fields}
    for override, key in keys.items():
        if "=" not in override:
            raise BadInput(f"{override!r} is no setting: write key=value, as in trials=64 or model=vae")
        if key.partition(".")[0] not in known:
            raise unknown("setting", key, known)
    given = _given([override for override in overrides if keys[override] in SWEEP], SWEEP)
    names = {"data": "digits", "model": "vae"}
    names |= {keys[override]: override.partition("=")[2] for override in overrides if keys[override] in names}
    others = [override for override in overrides if keys[override] not in {*SWEEP, *names}]
    if given["name"] and not re.fullmatch(r"[\w-]+", given["name"]):
        raise BadInput(f"name={given['name']} cannot name a folder: letters, digits, '_' and '-' can")
    if given["design"] == "seeds" and int(given["seeds"]) < 2:
        raise BadInput(f"seeds={given['seeds']} with design=seeds crosses nothing: give 2 or more")
    if names["data"] not in choices("data"):
        raise unknown("data", names["data"], choices("data"))
    searched = space.load_space(names["model"])
    settings = space.base_settings(names["data"], names["model"], searched, others)
    base = space.base_experiment(searched, settings, trust)
    designs = {
        "space": lambda: space.search(searched, base),
        "learning_rate": lambda: space.learning_rate(base, int(given["rates"]), int(given["seeds"])),
        "seeds": lambda: space.initialisation_and_data(int(given["seeds"])),
    }
    if given["design"] not in designs:
        raise unknown("design", given["design"], designs)
    design = designs[given["design"]]()
    for key in (keys[override] for override in others):
        if key in design.distributions or key in ("seed", "seed.init", "seed.data"):
            raise BadInput(
                f"{key} is what the study varies: drop it, or fix it in a configs/sweep/{names['model']}.yaml of yours"
            )
    plan = Plan(
        base,
        searched,
        design,
        tuple(settings),
        int(given["trials"]),
        given["sampler"],
        given["pruner"] or None,
        given["name"] or None,
    )
    return plan, int(given["workers"]), given["storage"] or None


def confirming(folder: Path, overrides: Sequence[str], trust: Sequence[str] = ()) -> Command:
    """What `benchmark confirm` was asked for: the study that trains the best setting of the one in `folder` again."""
    given = _given(overrides, CONFIRM)
    study = collect(folder)
    best, header = best_trial(study), study.header
    if header.design != "space" or best is None:
        raise BadInput(
            f"{folder} has no best setting: give a study of a search space in which a trial learnt something"
        )
    searched = space.load_space(header.model)
    runs = folder.resolve().parent.parent
    content = dict(header.config)
    content["runtime"] = content["runtime"] | {"runs": str(runs)}
    base = from_container(content, trust)
    short = header.settings or space.base_settings(header.data, header.model, searched)
    plan = Plan(
        base,
        searched,
        space.confirm(short, base, best.params, int(given["seeds"])),
        (),  # the design has all settings
        trials=0,
        name=f"{header.name}-confirm-{best.number}",
        confirms={"study": header.name, "trial": best.number, "value": best.value, "params": best.params},
    )
    return plan, int(given["workers"]), given["storage"] or None


def _given(overrides: Sequence[str], allowed: Mapping[str, str]) -> dict[str, str]:
    """`allowed` with what was given in place of its defaults; numbers are checked."""
    given = dict(allowed)
    for override in overrides:
        key, equals, value = override.partition("=")
        if key not in allowed or not equals:
            raise unknown("setting", key, allowed)
        given[key] = value
    given["workers"] = given["workers"] or str(default_jobs())
    for key, least in _LEAST.items():
        if key in given and not (given[key].isdecimal() and int(given[key]) >= least):
            raise BadInput(f"{key}={given[key]} is not possible: give a number from {least} on")
    return given
