"""Compose: overrides on a command line become an `Experiment`, or a one-line refusal before any work.

experiment.yaml, over it the groups that are chosen, over these what is tuned, over all what the command line gives.
Neither torch nor a model is imported.
"""

from __future__ import annotations

import copy
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.config.experiment import Experiment, from_container, read_suite, validate
from benchmark.config.files import (
    FILES,
    FOLDERS,
    GROUPS,
    choices,
    config_folders,
    find,
    inherited,
    read_group,
    read_yaml,
)
from benchmark.config.groups import Runtime
from benchmark.config.identities import identity
from benchmark.config.renames import names_of_old
from benchmark.config.settings import as_setting, split_setting, value_of
from benchmark.config.shapes import Malformed
from benchmark.config.stage import STAGES
from benchmark.spec import BadInput, Structure, shown, unknown


def compose(overrides: Sequence[str] = (), trust: Sequence[str] = ()) -> Experiment:
    """The experiment that `overrides` (`model=vae`, `model.latent=16`, `seed=3`) describe.

    `trust` lists packages outside the benchmark whose classes a configuration may name: an import path is code.
    Raises `BadInput` for whatever does not exist or has the wrong type.
    """
    content = _compose(overrides)
    try:
        return _with_identities(from_container(content, trust))
    except Malformed as error:
        if error.place in (key for key, _ in _pairs(overrides)):
            raise
        file = _file_of(error.place, content)  # none has a name that was given for itself, such as budget.name=trial
        raise BadInput(str(error) if file is None else f"{file}: {error}") from error


def load_suite(name: str, overrides: Sequence[str] = (), trust: Sequence[str] = ()) -> list[Experiment]:
    """The experiments of `configs/suite/<name>.yaml`, every one with every seed; `overrides` apply to all."""
    suite = read_suite(name)
    own_seed = any(override.startswith("seed=") for override in overrides)
    for override in overrides:
        if override.startswith(("data=", "model=")):
            raise BadInput(f"suite {name!r} names its data and models: drop {override}, or use `run`")
    return [
        compose(
            [*_names(entry.data, entry.model, suite.budget), *suite.settings, *entry.settings, *seed, *overrides], trust
        )
        for seed in ([[]] if own_seed else [[f"seed={one}"] for one in suite.seeds])
        for entry in suite.experiments
    ]


def experiment_again(
    content: Mapping[str, Any], runtime: Mapping[str, Any], overrides: Sequence[str] = (), trust: Sequence[str] = ()
) -> Experiment:
    """The experiment that a record holds, to be carried out with another `runtime`, which is no part of its identity.

    `overrides` (`runtime.threads=2`) come last. Raises `BadInput` where they touch anything else.
    """
    settings = dict(runtime)
    for key, value in map(split_setting, overrides):
        group, _, name = key.partition(".")
        if group != "runtime":
            raise BadInput(f"{key}={value} would change what is run again: only runtime.* may be given")
        if name not in Runtime.model_fields:
            raise unknown("option of runtime", name, Runtime.model_fields)
        settings[name] = value_of(key, value)
    return from_container({**content, "runtime": settings}, trust)


def stage_of(experiment: Experiment, name: str, trust: Sequence[str] = ()) -> Experiment:
    """The experiment whose weights `experiment` takes over as its stage `name`.

    Where its settings are silent, data, budget and seed are those of `experiment`; where and how it runs always are.
    """
    try:
        return from_container(
            {**_stage_content(experiment.container(), name), "runtime": experiment.runtime.model_dump()}, trust
        )
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error


def _stage_content(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The configuration of the experiment whose weights a resolved configuration takes over as its stage `name`."""
    stage = content[name]
    if stage.get("origin"):
        return dict(stage["origin"]["config"])
    if stage.get("run") and stage.get("experiment"):
        raise BadInput("give a run or an experiment, not both")
    if stage.get("run"):
        return _left_behind(Path(str(stage["run"])).expanduser())
    settings = shlex.split(str(stage["experiment"]))
    for setting in settings:
        key, _ = split_setting(setting)
        if key.startswith("runtime."):
            raise BadInput(f"{name}: {setting} is about how a run is carried out: give it to the whole command")
    given = {key for key, _ in map(split_setting, settings)}
    if "model" not in given:
        raise BadInput(f"{name}={stage['experiment']}: name its model, as in 'model=vae budget=quick', or a run")
    silent = {"data": content["data"]["name"], "budget": content["budget"]["name"], "seed": content["seed"]["init"]}
    if silent["budget"] not in choices("budget"):  # such as a trial's
        del silent["budget"]
    settings += [f"{key}={value}" for key, value in silent.items() if key not in given]
    return _with_identities(validate(_compose(settings))).container()


def _with_identities(experiment: Experiment) -> Experiment:
    """The same with the identity of each stage."""
    stages, content = {}, experiment.container()
    for name, stage in experiment.stages.items():
        try:
            stages[name] = stage.model_copy(update={"identity": identity(_stage_content(content, name))})
        except BadInput as error:
            raise BadInput(f"{name}: {error}") from error
    return experiment.model_copy(update=stages) if stages else experiment


def _left_behind(folder: Path) -> dict[str, Any]:
    """The configuration that a run left in its folder."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise BadInput(f"{folder} holds no config.yaml: give the folder of a run, runs/<data>/<model>/<id>")
    return read_yaml(file)


def resumed(folder: Path, overrides: Sequence[str] = (), trust: Sequence[str] = ()) -> Experiment:
    """The experiment of the run in `folder`, to be carried out; `overrides` (`runtime.threads=2`) as above."""
    content = _left_behind(folder)
    return experiment_again(content, content.get("runtime") or {}, overrides, trust)


def overrides_of(content: Mapping[str, Any]) -> list[str]:
    """What `compose` needs to give the experiment that a record holds, with the configurations of today.

    Raises `BadInput` where these no longer have its data, model or budget.
    """
    wanted = validate(content)
    names = _names(wanted.data.name, wanted.model.name, wanted.budget.name)
    if wanted.budget.name not in choices("budget"):  # such as a study's: it has no file
        budget = wanted.budget.model_dump(mode="json")
        names[2:] = ["budget=quick", *(as_setting(f"budget.{key}", value) for key, value in budget.items())]
    try:
        today = validate(_compose(names))
    except BadInput:  # nothing is tuned for it
        names.append(f"budget.examples={wanted.budget.examples}")
        today = validate(_compose(names))
    mine, theirs = (one.model_dump(mode="json", exclude={"seed", "runtime", *STAGES}) for one in (wanted, today))
    different = [
        as_setting(f"{group}.{key}", value)
        for group, options in mine.items()
        for key, value in options.items()
        if theirs[group].get(key) != value
    ]
    stages = [
        f"{name}={shlex.join(overrides_of({**origin.config, 'runtime': content['runtime']}))}"
        for name, origin in wanted.origins.items()
    ]
    return [*names, *seeds_of(wanted.seed.model_dump()), *stages, *different]


def seeds_of(seed: Mapping[str, int]) -> list[str]:
    """What `compose` needs to give these seeds."""
    init, data = seed["init"], seed["data"]
    seeds = {"seed": init} if init == data else {"seed.init": init, "seed.data": data}
    return [f"{key}={value}" for key, value in (seeds | ({"seed.eval": seed["eval"]} if seed["eval"] else {})).items()]


def strangers() -> Iterator[str]:
    """What lies in the user's own folders and is never read, with what to do about it."""
    for folder in config_folders()[:-1]:
        for file in sorted(folder.rglob("*")):
            place = file.relative_to(folder)
            if file.suffix not in (".yaml", ".yml") or any(part.startswith(".") for part in place.parts):
                continue
            if file.suffix == ".yml":
                yield f"{file} is not read: call it {file.stem}.yaml"
            elif len(place.parts) == 1 and place.name not in FILES:
                yield f"{file} is not read: {unknown('file', place.name, FILES)}; or put it into a group's folder"
            elif len(place.parts) > 1 and place.parts[0] not in FOLDERS:
                yield f"{file} is not read: {unknown('group', place.parts[0], FOLDERS)}"
            elif len(place.parts) != (3 if place.parts[0] == "tuned" else 2) and len(place.parts) > 1:
                wanted = "tuned/DATA/MODEL.yaml" if place.parts[0] == "tuned" else f"{place.parts[0]}/NAME.yaml"
                yield f"{file} is not read: its place is {wanted}"
            elif place.parts[0] == "tuned":
                data, model = place.parts[1], place.stem
                for group, name in (("data", data), ("model", model)):
                    if not any(name in names_of_old(group, known) for known in choices(group)):
                        yield f"{file} is not read: {unknown(group, name, choices(group))}"


def tuned_identity(data: str, model: str, budget: str) -> str | None:
    """The identity of what `tuned/` says today; `None` where such an experiment no longer exists."""
    try:
        return _with_identities(validate(_compose(_names(data, model, budget)))).config_hash
    except BadInput:
        return None


def _names(data: str, model: str, budget: str) -> list[str]:
    return [f"data={data}", f"model={model}", f"budget={budget}"]


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration that `overrides` describe; of two for one setting the later counts."""
    pairs = _pairs(overrides)
    given = {key: value for key, value in pairs if key in GROUPS}
    names = {group: given[group] for group in GROUPS} if len(given) == len(GROUPS) else default_names() | given
    content = copy.deepcopy(_chosen(tuple(config_folders()), tuple(names.items())))
    content["model"].setdefault("conditions", [])  # what a record says need not stand in the model's file
    for key, text in pairs:
        if key not in GROUPS:
            _assign(content, key, value_of(key, text))
    if any(content["start"].values()):
        _start_as_before(content)
        for key, text in pairs:
            if key.startswith("model."):
                _assign(content, key, value_of(key, text))
    _check_structure(content)
    return _resolve(content)


def _start_as_before(content: dict[str, Any]) -> None:
    """A model that starts from another's weights has that one's options, unless another name gives it its own.
    Raises `BadInput` for two kinds of model."""
    try:
        before = _stage_content(content, "start")["model"]
    except BadInput as error:
        raise BadInput(f"from: {error}") from error
    model = content["model"]
    if before["target"] != model["target"]:
        raise BadInput(
            f"from: model {model['name']!r} cannot start from a {before['name']!r}: name one of its own kind"
        )
    if before["name"] == model["name"]:
        model |= {option: value for option, value in before.items() if option in model}


def _pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Keys and texts. `seed=3` sets what training depends on; `seed.eval` stays. `from=…` is the stage `start`; a stage
    is the folder of a run or, if there is no such folder, settings of an experiment."""
    pairs = []
    for key, text in map(split_setting, overrides):
        key = "start" + key.removeprefix("from") if key.partition(".")[0] == "from" else key
        if key == "seed":
            pairs += [("seed.init", text), ("seed.data", text)]
        elif key in STAGES:
            experiment = "=" in text and not os.path.isdir(os.path.expanduser(text))
            given, other = ("experiment", "run") if experiment else ("run", "experiment")
            pairs += [(f"{key}.{given}", text), (f"{key}.{other}", "null")]  # in place of whatever is tuned
        else:
            pairs.append((key, text))
    return pairs


def _file_of(place: str, content: Mapping[str, Any]) -> Path | None:
    """The file that says what stands at `place` in a composed configuration."""
    group, _, option = place.partition(".")
    tuned = find(f"tuned/{content['data']['name']}/{content['model']['name']}.yaml")
    if tuned is not None and option in (read_yaml(tuned).get(group) or {}):
        return tuned
    data = choices("data").get(content["data"]["name"])
    if group == "evaluation" and data is not None and option in (read_yaml(data).get(group) or {}):
        return data
    return choices(group).get(content[group]["name"]) if group in GROUPS else find("experiment.yaml")


def _assign(content: dict[str, Any], key: str, value: Any) -> None:
    """Set an option that exists. Raises `BadInput` for any other, with the nearest name."""
    node: Any = content
    *parents, last = key.split(".")
    for depth, part in enumerate([*parents, last]):
        where = ".".join(parents[:depth])
        if not isinstance(node, dict):
            raise BadInput(f"{where!r} has no parts: {key!r} does not exist")
        if part not in node:
            raise unknown(f"option of {where}" if where else "setting", part, [str(name) for name in node])
        holder, node = node, node[part]
    if isinstance(node, Mapping):
        raise BadInput(
            f"{key!r} is a group of settings; set one of them: {', '.join(f'{key}.{part}' for part in node)}"
        )
    if key in ("data.name", "model.name"):
        group = key.partition(".")[0]
        raise BadInput(f"{key} is the name of a file: choose one with {group}=NAME")
    holder[last] = value


class _Defaults(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data: str
    model: str
    budget: str


def _experiment() -> dict[str, Any]:
    file = find("experiment.yaml")
    assert file is not None, "it is shipped"
    return read_yaml(file)


def default_names() -> dict[str, str]:
    """The names that count where a command line gives none."""
    try:
        return _Defaults.model_validate(_experiment().get("defaults")).model_dump()
    except ValidationError as error:
        raise BadInput(f"{find('experiment.yaml')}: defaults must name data, model and budget") from error


@cache
def _chosen(folders: tuple[Path, ...], names: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """What the files say: experiment.yaml, over it the groups and how the data are evaluated, over these what is tuned.
    Interpolations stand as they are."""
    content = _experiment() | {group: read_group(group, name) for group, name in names}
    del content["defaults"]
    content["model"].setdefault("conditions", [])
    for section in (*Experiment.model_fields, "examples"):
        if not isinstance(content.get(section), dict):
            raise BadInput(f"{find('experiment.yaml')}: {section} must be a mapping of options")
    own = content["data"].pop("evaluation", {})
    for option in own if isinstance(own, dict) else [str(own)]:
        if option not in content["evaluation"]:
            file = choices("data")[dict(names)["data"]]
            raise BadInput(f"{file}: {unknown('option of evaluation', option, content['evaluation'])}")
    content["evaluation"] |= own
    for section, options in _tuned(folders, dict(names), content).items():
        content[section] |= options
    for group, name in names:
        content[group]["name"] = name
    return content


def _tuned(folders: tuple[Path, ...], names: Mapping[str, str], base: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What `tuned/<data>/<model>.yaml` says, without what the user says otherwise in a folder before its own."""
    places = [(d, m) for d in names_of_old("data", names["data"]) for m in names_of_old("model", names["model"])]
    files = ((folder / "tuned" / d / f"{m}.yaml", d, m) for folder in folders for d, m in places)
    file, data, model = next((found for found in files if os.path.lexists(found[0])), (None, "", ""))
    if file is None:
        return {}
    content = read_yaml(file)
    content = inherited("tuned", f"{data}/{model}") if "defaults" in content else content
    behind = folders[folders.index(file.parents[2]) :]
    found: dict[str, dict[str, Any]] = {}
    for section, options in content.items():
        if section not in (*Experiment.model_fields, "examples"):
            raise BadInput(f"{file}: {unknown('section', section, [*Experiment.model_fields, 'examples'])}")
        if not isinstance(options or {}, dict):
            raise BadInput(f"{file}: {section}={shown(options)}: it must be a mapping of options")
        found[section] = dict(options or {})
        if section == "examples":
            continue
        place = f"{section}/{names[section]}.yaml" if section in names else "experiment.yaml"
        mine = base[section]
        if find(place) not in [folder / place for folder in behind]:  # what was tuned is not what the user has
            theirs = next((read_yaml(folder / place) for folder in behind if (folder / place).is_file()), {})
            theirs = theirs if section in names else theirs.get(section) or {}
            same = mine.get("target") == theirs.get("target")
            kept = [option for option in found[section] if same and mine.get(option) == theirs.get(option)]
            found[section] = {option: found[section][option] for option in kept}
        for option in found[section]:
            if option not in mine:
                raise BadInput(f"{file}: {unknown(f'option of {section}', option, mine)}")
    return found


def _check_structure(content: Mapping[str, Any]) -> None:
    """Raises `BadInput` where model and data do not go together; what is malformed, validation says."""
    data, model = content["data"], content["model"]
    if "modalities" in model:
        raise BadInput(
            f"{choices('model')[model['name']]}: modalities={shown(model['modalities'])}: a model names the structures "
            f"of data that it accepts: structures: [{', '.join(get_args(Structure))}]"
        )
    structures = model.get("structures")
    if not isinstance(structures, list) or str(data.get("modality")) not in choices("modality"):
        return
    structure = read_group("modality", str(data["modality"])).get("structure")
    if structures and structure not in structures and set(structures) <= set(get_args(Structure)):
        raise BadInput(
            f"model {model['name']!r} accepts a {' or a '.join(structures)}, but data {data['name']!r} is a "
            f"{structure} ({data['modality']}); `python -m benchmark list` shows what goes together"
        )


def _resolve(content: dict[str, Any]) -> dict[str, Any]:
    """Resolve interpolations; `examples` is only the table that the budget picks from."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create(content), resolve=True)
    except InterpolationKeyError as error:
        data, model, budget = (content[group]["name"] for group in GROUPS)
        if not str(error.full_key).startswith("budget."):
            raise BadInput(f"{error.full_key}: {str(error).splitlines()[0]}") from error
        raise BadInput(
            f"nothing is tuned for {model} on {data} with budget {budget}: give budget.examples=N (training examples "
            f"seen), or write configs/tuned/{data}/{model}.yaml"
        ) from error
    except (OmegaConfBaseException, RecursionError) as error:
        raise BadInput(str(error).splitlines()[0]) from error
    resolved.pop("examples", None)
    for group in ("data", "model"):
        for key in ("before", "gone"):
            resolved[group].pop(key, None)
    return {str(key): value for key, value in resolved.items()}
