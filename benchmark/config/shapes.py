"""What shapes are made of, and how content is fitted to one: validated before any work, or refused in one line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from benchmark.spec import BadInput, shown, unknown


def _no_switch(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number, not true or false")
    return value


Number = BeforeValidator(_no_switch)  # in an annotation: a number, and no bool
Share = Annotated[float, Number, Field(ge=0, le=1)]
Count = Annotated[int, Number, Field(ge=0, lt=2**31)]
Positive = Annotated[int, Number, Field(ge=1, lt=2**31)]
Minutes = Annotated[float, Number, Field(gt=0, allow_inf_nan=False)]
Draws = Annotated[int, Number, Field(ge=2, lt=2**31)]  # with a standard error
Seed = Annotated[int, Number, Field(ge=0, lt=2**31)]


def _import_path(target: str) -> str:
    if (
        "." not in target
        or not all(part.isidentifier() for part in target.split("."))
        or target.startswith("__main__.")
    ):
        raise ValueError("input should be the import path of a class, such as package.module.Class")
    return target


Target = Annotated[str, AfterValidator(_import_path)]


def _home(path: str) -> str:
    """`~` is the user's home, as a shell has it."""
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{error}: write the whole path") from error


Place = Annotated[str, Field(min_length=1), AfterValidator(_home)]  # a path
Shape = TypeVar("Shape", bound=BaseModel)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


# Content to shapes ----------------------------------------------------------------------------------------------------


class Malformed(BadInput):
    """What was given does not fit a shape, at this `place`."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


def fitting(shape: type[Shape], content: Any) -> Shape:
    """The content as `shape`. Raises `Malformed` for the first thing that is wrong: where, what was given, and why."""
    try:
        found = shape.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Malformed(place, _in_words(place, first, shape)) from error
    for place, problem in _unspeakable(content):
        raise Malformed(place, f"{place} {problem}")
    return found


def _unspeakable(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """What a record cannot hold, and a folder cannot be called."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _unspeakable(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _unspeakable(value, place)
    elif isinstance(node, float) and not math.isfinite(node):
        yield place, f"is {node}: give a finite number"
    elif isinstance(node, str) and ("\0" in node or any("\ud800" <= letter <= "\udfff" for letter in node)):
        yield place, f"is {node!r}, which is not text in UTF-8: give another one"


def _in_words(place: str, error: Any, shape: type[BaseModel]) -> str:
    message, given = error["msg"].removeprefix("Value error, "), error["input"]
    match error["type"]:
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden":
            where, _, name = place.rpartition(".")
            return str(unknown(f"option of {where}" if where else "setting", name, _options(shape, error["loc"][:-1])))
        case "string_type" if isinstance(given, (bool, int, float)):
            message = f"""input should be text: put it in double quotes, as in '{place}="…"'"""
    message = f"{message[0].lower()}{message[1:]}"
    return f"{place}: {message}" if isinstance(given, Mapping) or not place else f"{place}={shown(given)}: {message}"


def _options(shape: Any, place: Sequence[str | int]) -> list[str]:
    """The names that a shape has at a place inside it."""
    for part in place:
        shape = get_args(shape)[0] if isinstance(part, int) else shape.model_fields[part].annotation
    return list(shape.model_fields)
