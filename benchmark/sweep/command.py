"""From the words of a command line to a plan: its study, how many workers, and where it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.config import Experiment, choices, default_names, from_container, identity, overrides_of
from benchmark.launch import default_jobs
from benchmark.spec import BadInput, unknown
from benchmark.sweep import space
from benchmark.sweep.confirmation import best_trial
from benchmark.sweep.plan import Plan
from benchmark.sweep.space import Space
from benchmark.sweep.studies import collect, read_study

Command = tuple[Plan, int, str | None]

SWEEP: Mapping[str, str] = {
    "trials": "64",
    "workers": "",
    "sampler": "qmc",
    "pruner": "",
    "design": "space",
    "rates": "7",
    "seeds": "3",
    "cases": "",
    "name": "",
    "storage": "",
    "continue": "",
}
CONFIRM: Mapping[str, str] = {"seeds": "5", "workers": "", "storage": ""}

_LEAST = {"trials": 1, "workers": 1, "rates": 3, "seeds": 1}


def plan_of(overrides: Sequence[str], trust: Sequence[str] = ()) -> Command:
    """What `benchmark sweep` was asked for. Settings that are not its own apply to every trial."""
    keys = {override: override.partition("=")[0] for override in overrides}
    known = {*SWEEP, *Experiment.model_fields, "from"}
    for override, key in keys.items():
        if "=" not in override:
            raise BadInput(f"{override!r} is not a setting: write key=value, as in trials=64 or model=vae")
        if key.partition(".")[0] not in known:
            raise unknown("setting", key, known)
    own = [override for override in overrides if keys[override] in SWEEP]
    given = _given(own, SWEEP)
    if given["continue"]:
        return _continuing(Path(given["continue"]), overrides, {keys[override] for override in own}, given, trust)
    names = {group: default_names()[group] for group in ("data", "model")}
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
        "remedies": lambda: space.remedies(searched, base, _cases(given["cases"]), int(given["seeds"])),
    }
    if given["design"] not in designs:
        raise unknown("design", given["design"], designs)
    design = designs[given["design"]]()
    for key in (keys[override] for override in others):
        if key in {"seed", "seed.init", "seed.data", *design.distributions} or (
            design.name == "remedies" and any(key in remedy.settings for remedy in searched.remedies.values())
        ):
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


def _continuing(
    place: Path, overrides: Sequence[str], own: set[str], given: Mapping[str, str], trust: Sequence[str]
) -> Command:
    """More trials of the study at `place`, a committed file or the folder of its runs, as if all were trained here."""
    study = collect(place) if place.is_dir() else read_study(place)
    header = study.header
    for override in overrides:
        key = override.partition("=")[0]
        if key in own - {"continue", "trials", "rates", "seeds", "cases", "workers", "storage"} or (
            key not in own and not key.startswith("runtime.")
        ):
            raise BadInput(f"continue= takes all settings from {place}: drop {override}")
    runtime = [override for override in overrides if override.startswith("runtime.")]
    settings = [setting for setting in overrides_of(header.config) if not setting.startswith("seed")]
    searched = Space(trial={}, options=header.options) if header.design == "space" else space.load_space(header.model)
    base = space.base_experiment(searched, [*settings, *runtime], trust)
    if base.config_hash != identity(header.config):
        raise BadInput(f"{place} cannot be continued: today its options mean another experiment; start a new study")
    points = [trial.params for trial in study.trials]

    def number(key: str, *params: str) -> int:
        return (
            int(given[key]) if key in own else len({point[one] for point in points for one in params if one in point})
        )

    if header.design == "space":
        design = space.search(searched, base)
    elif header.design == "learning_rate":
        design = space.learning_rate(base, number("rates", "factor"), number("seeds", "seed"))
    elif header.design == "seeds":
        design = space.initialisation_and_data(number("seeds", "seed.init", "seed.data"))
    elif header.design == "remedies":
        searched = Space(trial={}, options={}, remedies=header.remedies)
        cases = _cases(given["cases"]) if "cases" in own else list(dict.fromkeys(point["case"] for point in points))
        design = space.remedies(searched, base, [str(case) for case in cases], number("seeds", "seed"))
    else:
        design = space.confirm(settings, base, header.confirms["params"], number("seeds", "seed"))
    plan = Plan(
        base,
        searched,
        design,
        (*settings, *runtime) if header.design != "confirm" else (),
        trials=int(given["trials"]),
        sampler=header.sampler if header.design == "space" else SWEEP["sampler"],
        pruner=header.pruner,
        name=header.name,
        confirms=header.confirms,
        continues=study,
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


def _cases(given: str) -> list[str]:
    """`none,packing` as a list; empty: all that there are."""
    return [case.strip() for case in given.split(",") if case.strip()]


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
