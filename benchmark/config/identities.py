"""The identity of a configuration: the rule of `benchmark.identity`, with what options were before they existed, or
before they went."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from benchmark.config.files import config_folders, read_yaml
from benchmark.config.groups import Evaluation, Training
from benchmark.config.stage import STAGES
from benchmark.identity import version_2
from benchmark.spec import BadInput, shown


def identity(config: Mapping[str, Any]) -> str:
    """The identity of a resolved configuration, one of today or one that a record holds."""
    groups = {group: config[group] for group in ("data", "model")}
    before = {group: _before(group, str(named["name"])) for group, named in groups.items()}
    stages = {name: _identity_of(stage) for name in STAGES if any((stage := config.get(name) or {}).values())}
    return version_2(config, before | _BEFORE, stages)


def _identity_of(stage: Mapping[str, Any]) -> str:
    """The identity of the experiment whose weights are taken over."""
    return identity(stage["origin"]["config"]) if stage.get("origin") else str(stage["identity"])


def _later(group: type[BaseModel]) -> dict[str, Any]:
    """The options that have a default here: they came later, and the default is what the code did until then."""
    return {name: field.default for name, field in group.model_fields.items() if not field.is_required()}


_BEFORE = {"training": _later(Training), "evaluation": _later(Evaluation)}


def _before(group: str, name: str) -> dict[str, Any]:
    """What `configs/<group>/<name>.yaml` says of options that older records lack, or have and it has not."""
    files = (folder / group / f"{name}.yaml" for folder in config_folders())
    return next((_before_in(file) for file in files if file.is_file()), {})


@cache
def _before_in(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    found: dict[str, Any] = {}
    for key in ("before", "gone"):
        said = content.get(key) or {}
        if not isinstance(said, dict):
            raise BadInput(f"{file}: {key}={shown(said)}: it must map options to what the code does without them")
        found |= said
    return found
