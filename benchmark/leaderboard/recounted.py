"""Costs that are counted otherwise today than when a record was made, counted again from its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from benchmark.record import Record
from benchmark.spec import BadInput


class Recounted(BaseModel):
    """What training one example of a configuration costs, forward and backward, and by which version of the count."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    flops_per_example: float = Field(gt=0, allow_inf_nan=False)
    version: int


_FILE = TypeAdapter(dict[str, Recounted])  # by the `config_hash` that records hold


def read_recounted(file: Path) -> dict[str, Recounted]:
    """The validated content of `recounted.json`, empty where there is none. Raises `BadInput` where it is malformed."""
    if not file.is_file():
        return {}
    try:
        return _FILE.validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput(f"{file}: {place}: {first['msg']}: restore the file, or leave it out") from error


def recount(records: Mapping[Path, Record], recounted: Mapping[str, Recounted]) -> dict[Path, Record]:
    """The records with the newer counts in place of older ones."""
    return {path: _recount(record, recounted.get(record.config_hash)) for path, record in records.items()}


def outdated(records: Iterable[Record], recounted: Mapping[str, Recounted], version: int) -> dict[str, Record]:
    """The records whose count is older than `version`, and has not been made again: one for each configuration."""
    found = {}
    for record in records:
        then, today = record.scores.get("flops_per_example"), recounted.get(record.config_hash)
        if then is not None and max(then.version, today.version if today else 0) < version:
            found[record.config_hash] = record
    return found


def as_json(recounted: Mapping[str, Recounted]) -> str:
    """What `read_recounted` reads."""
    content = {name: one.model_dump() for name, one in sorted(recounted.items())}
    return json.dumps(content, indent=1) + "\n"


def _recount(record: Record, today: Recounted | None) -> Record:
    then = record.scores.get("flops_per_example")
    if today is None or then is None or then.value is None or then.version >= today.version:
        return record
    score = replace(then, value=today.flops_per_example, version=today.version)
    return record.model_copy(update={"scores": record.scores | {"flops_per_example": score}})
