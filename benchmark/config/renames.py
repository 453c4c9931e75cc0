"""Configurations that changed their names: what records, studies and tuned settings of old are called today."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from benchmark.config.files import config_folders, read_yaml
from benchmark.config.shapes import Malformed, Strict, fitting
from benchmark.config.stage import STAGES
from benchmark.spec import BadInput


class Rename(Strict):
    """A configuration that changed its name. `until`: when the old name came to mean something else, if it did."""

    group: Literal["data", "model"]
    old: str
    new: str
    until: datetime | None = None


class _Renames(Strict):
    renames: tuple[Rename, ...]


def renames() -> tuple[Rename, ...]:
    """The tables in `renames.yaml`, the shipped one before the user's own, in the order in which names changed."""
    files = (folder / "renames.yaml" for folder in reversed(config_folders()))
    return tuple(rename for file in files if file.is_file() for rename in _renames_in(file))


@cache
def _renames_in(file: Path) -> tuple[Rename, ...]:
    try:
        return fitting(_Renames, read_yaml(file)).renames
    except Malformed as error:
        raise BadInput(f"{file}: {error}") from error


def name_today(group: str, name: str, made: datetime) -> str:
    """What a configuration that was called `name` when a record was `made` is called today."""
    for rename in renames():
        if (rename.group, rename.old) == (group, name) and (rename.until is None or made < rename.until):
            name = rename.new
    return name


def renamed(config: Mapping[str, Any], made: datetime) -> dict[str, Any]:
    """What changes in a record or a study that holds `config`, made then, under the names of today; empty: nothing."""
    old = {group: str(config[group]["name"]) for group in ("data", "model")}
    new = {group: name_today(group, name, made) for group, name in old.items()}
    stages = {name: config[name] for name in STAGES if (config.get(name) or {}).get("origin")}
    inner = {name: renamed(stage["origin"]["config"], made) for name, stage in stages.items()}
    if new == old and not any(inner.values()):
        return {}
    changed = {group: config[group] | {"name": name} for group, name in new.items()}
    changed |= {
        name: stage | {"origin": stage["origin"] | {"config": inner[name]["config"]}}
        for name, stage in stages.items()
        if inner[name]
    }
    return {**new, "config": {**config, **changed}}


def names_of_old(group: str, name: str) -> tuple[str, ...]:
    """The name of a configuration, and those that it had before and that nothing else has taken since."""
    found = [name]
    for rename in reversed(renames()):
        if rename.group == group and rename.new in found and rename.until is None:
            found.append(rename.old)
    return tuple(found)
