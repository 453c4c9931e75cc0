"""What papers and well-known projects report: shown beside our numbers, never ranked with them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from benchmark.spec import BadInput


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Figure(_Strict):
    """One reported number; `note` says what is peculiar about it."""

    model: str
    value: float
    likelihood: Literal["exact", "bound", "approximate"] = "exact"
    citation: str
    note: str = ""


class Published(_Strict):
    """Figures on one dataset under one protocol."""

    data: str
    metric: str
    unit: str
    protocol: str
    comparable: bool
    why: str
    figures: tuple[Figure, ...]


_FILE = TypeAdapter(tuple[Published, ...])


def read_published(file: Path) -> tuple[Published, ...]:
    """The validated content of `published.yaml`. Raises `BadInput` when it is missing or malformed."""
    try:
        return _FILE.validate_python(yaml.safe_load(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise BadInput(f"no published figures at {file}: restore the file, or leave it out") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read as a file in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput(f"{file}: {place}: {first['msg']}") from error
