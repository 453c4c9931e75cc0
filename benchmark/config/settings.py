"""Settings of a command line, `key=text`: their values, and the text of a value."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from benchmark.config.files import parse_yaml
from benchmark.spec import BadInput

_WORDS = {"null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[+-]?(0|[1-9](_?\d)*)", re.ASCII)
_FLOAT = re.compile(
    r"[+-]?((\d(_?\d)*)?\.\d(_?\d)*|\d(_?\d)*\.?)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII | re.IGNORECASE
)
_QUOTED = re.compile(r"'((?:[^'\\]|\\.|'')*)'", re.DOTALL)


def value_of(key: str, text: str) -> Any:
    """The value that a command line gives as `key=text`.

    null, true, false, numbers, lists such as [1, 2], and what stands in quotes; everything else is text as it is.
    """
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text) and len(text) < 400:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if not text.startswith(("'", '"', "[", "{")):
        return text
    if quoted := _QUOTED.fullmatch(text):
        return quoted[1].replace("''", "'").replace("\\'", "'")
    try:
        return _listed(text)
    except ValueError as error:
        raise BadInput(
            f"{key}={text[:80]} cannot be read: write a list as [1, 2], and text that begins with a quote or a bracket "
            f"""in double quotes, as in '{key}="…"'"""
        ) from error


def _listed(text: str) -> Any:
    """What JSON reads as text or as a list is that; the rest is YAML. Raises `ValueError` where neither can read it."""
    try:
        return json.loads(text) if text[0] in '"[' else parse_yaml(text)
    except json.JSONDecodeError:
        if text[0] == '"':
            raise
        return parse_yaml(text)


def as_setting(key: str, value: Any) -> str:
    """What `value_of` reads as `value`."""
    if isinstance(value, str) and value == value.strip() and not value.startswith(("'", '"', "[", "{")):
        plain = value.lower() not in _WORDS and not _INTEGER.fullmatch(value) and not _FLOAT.fullmatch(value)
        if plain:
            return f"{key}={value}"
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def split_setting(override: str) -> tuple[str, str]:
    """Key and text of `key=text`. Raises `BadInput` for anything else."""
    key, equals, value = override.partition("=")
    if not equals or not key or key[0] in "+~":
        raise BadInput(f"{override!r} is not a setting: write key=value, as in model=vae or model.latent=16")
    return key, value


def distinct(overrides: Sequence[str]) -> None:
    """Raises `BadInput` where a command line gives one setting twice: one of the two would be ignored."""
    keys = [override.partition("=")[0] for override in overrides]
    for key in keys:
        if keys.count(key) > 1:
            given = " and ".join(override for override in overrides if override.partition("=")[0] == key)
            raise BadInput(f"{key} is given {keys.count(key)} times: decide between {given}")


def shown(value: Any) -> str:
    """A value as messages show it: on one line, and not too long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
