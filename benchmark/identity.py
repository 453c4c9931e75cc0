"""What makes two configurations the same: a versioned function of what a record holds, computed on reading.

It holds what changes a result and nothing else: no seeds, paths, devices, threads, nominal minutes, names of
modalities, structures that a model accepts, or import paths of our own classes. An option that a record lacks counts as
what the code did before the option existed, which stands beside the option; it is left out of the identity, so that
adding an option moves no record. Nor does removing one, of a record that says what the code has done ever since.

Version 1 is the rule of the first records (schema 1), kept so that what they store can be checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

VERSION = 2
OWN = "benchmark."  # import paths that may change without a change of result

#: Values of options that came while version 1 was in force.
_LATER_V1: Mapping[str, Mapping[str, Any]] = {
    "training": {"selection": "auto"},
    "evaluation": {"solved_examples": 1000, "outliers": "corrupted"},
}
_GROUPS = ("data", "model", "budget", "training", "evaluation")

Before = Mapping[str, Mapping[str, Any]]  # group -> option -> what the code did before the option existed


def version_1(config: Mapping[str, Any]) -> str:
    """The `config_hash` that schema 1 stores: everything but seeds, runtime and the table of nominal minutes."""
    content: dict[str, Any] = {group: dict(config[group]) for group in _GROUPS}
    content["data"].pop("minutes", None)
    for group, later in _LATER_V1.items():
        content[group] = {key: value for key, value in content[group].items() if later.get(key, _NEVER) != value}
    return _digest(content)


def version_2(config: Mapping[str, Any], before: Before, stages: Mapping[str, str] = MappingProxyType({})) -> str:
    """The identity of a stored or composed configuration.

    `before` says what its missing options count as, and what those said that are no more; `stages` the identity of
    each whose weights it takes over.
    Nominal minutes and where our own classes are do not count, and 8.0 is 8:

    >>> digits = {"target": "benchmark.data.images.Digits", "minutes": {"quick": 1}}
    >>> rest = {"budget": {"examples": 100}, "training": {}, "evaluation": {}}
    >>> one = {"data": digits, "model": {"target": "mine.Model", "latent": 8.0}, **rest}
    >>> moved = {"data": {"target": "benchmark.data.Digits"}, "model": {"target": "mine.Model", "latent": 8}, **rest}
    >>> version_2(one, before={}) == version_2(moved, before={})
    True
    """
    content: dict[str, Any] = {group: dict(config[group]) for group in _GROUPS}
    content["budget"] = {"examples": content["budget"]["examples"]}
    content["data"].pop("minutes", None)
    content["data"].pop("modality", None)
    for accepted in ("structures", "conditions", "modalities"):  # the last is what older records say
        content["model"].pop(accepted, None)
    for group in ("data", "model"):
        if str(content[group]["target"]).startswith(OWN):
            del content[group]["target"]
    plain: dict[str, dict[str, Any]] = {group: _plain(options) for group, options in content.items()}
    for group, options in before.items():
        known = _plain(options)
        plain[group] = {key: value for key, value in plain[group].items() if known.get(key, _NEVER) != value}
    return _digest({**plain, **stages})


_NEVER = object()


def _plain(value: Any) -> Any:
    """The value with whole floats as integers, tuples as lists: 4.0 and 4 are one setting."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
