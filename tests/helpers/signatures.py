"""That the options in a file are those of the constructor."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from benchmark.build import check_options

MODEL_KEYS = ("target", "structures", "conditions", "before", "gone")


def class_of(config: dict[str, Any]) -> type:
    module, _, attribute = config["target"].rpartition(".")
    found: type = getattr(importlib.import_module(module), attribute)
    return found


def plain(value: Any) -> Any:
    """Tuples as lists, all the way down: YAML knows no tuples."""
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def assert_options_are_the_signature(
    config: dict[str, Any], own: tuple[str, ...], given: str, variant: bool = False
) -> None:
    """Every option of the YAML is one of the constructor, with its default, and none is missing.

    `own` are the keys of the file that are no options; `given` is the argument that the harness supplies. A `variant`
    of a model has values of its own, which the constructor takes.
    """
    parameters = dict(inspect.signature(class_of(config)).parameters)
    assert given in parameters, f"the constructor takes no {given!r}"
    del parameters[given]
    parameters.pop("first_stage", None)  # the harness supplies this too
    for name, parameter in parameters.items():
        assert parameter.annotation is not parameter.empty, f"option {name!r} has no type"
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY), f"{name!r} is no option"
    assert set(config.get("before", {})) <= set(parameters), "`before` says what options were before they existed"
    assert not set(config.get("gone", {})) & set(parameters), "`gone` says what options were that are no more"
    options = {key: plain(value) for key, value in config.items() if key not in own}
    if variant:
        assert set(options) == set(parameters)
        check_options("model", class_of(config), options, (given,))
        return
    assert options == {name: plain(parameter.default) for name, parameter in parameters.items()}
