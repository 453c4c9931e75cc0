"""Records and what lies beside them, to and from disk: read with validation, written whole or not at all."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from benchmark.config import renamed
from benchmark.record.schema import Record
from benchmark.spec import BadInput

if TYPE_CHECKING:
    import numpy as np

_SHA256 = re.compile("[0-9a-f]{64}")
_NAME = re.compile(r"[\w-][\w.-]*")


def read_record(path: Path, as_stored: bool = False) -> Record:
    """The validated record in `path`, a file or a run's folder, under the names of today unless `as_stored`.

    Raises `BadInput` when it is missing or malformed.
    """
    file = path / "record.json" if path.is_dir() else path
    if file.is_symlink() and not file.exists():
        raise BadInput(f"{file} is a link to nothing: remove it, or put back what it names")
    if not file.is_file():
        raise BadInput(f"no record at {file}: give a run's folder that holds record.json (an unfinished run has none)")
    try:
        record = Record.model_validate_json(file.read_bytes())
        return record if as_stored else record.model_copy(update=renamed(record.config, record.started))
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{file} is not a valid record: {place}: {message}") from error


_KEPT = {"exams", "references"}  # folders of files that are named by a hash
#: Below a run's folder, and among boards.
_NOT_RECORDS = {"wandb", "artifacts", "attempts", "begun.json", "rows.json", "recounted.json"}


def read_records(folder: Path, problems: list[str] | None = None) -> dict[Path, Record]:
    """Every record below `folder`, published (`<seed>-<hash>-<run>.json`) or of local runs (`record.json`).

    What is not a record is skipped and named: in `problems`, a line each, or on standard error where none are given.
    """
    found = {}
    for file in record_files(folder):
        try:
            record = checked_record(file)
        except BadInput as error:
            if problems is None:
                name_skipped(str(error))
            else:
                problems.append(str(error))
        else:
            found[file] = record
    return found


def checked_record(file: Path) -> Record:
    """The record in `file`, if its data and model may name pages; raises `BadInput` otherwise."""
    record = read_record(file)
    for name in (record.data, record.model):
        if not _NAME.fullmatch(name):
            raise BadInput(f"{file}: {name!r} cannot name a page: letters, digits, '_', '-' and '.' can")
    return record


@cache
def name_skipped(problem: str) -> None:
    """Say on standard error, once a process, which file was skipped and why."""
    print(f"skipped: {problem}", file=sys.stderr)


def record_files(folder: Path) -> list[Path]:
    """Where records may be below `folder`."""
    found = (file for file in folder.rglob("*.json") if not _NOT_RECORDS & set(file.parts))
    files = (file for file in found if not (file.parent.name in _KEPT and _SHA256.fullmatch(file.stem)))
    return sorted(file for file in files if not file.is_dir())


# Writing --------------------------------------------------------------------------------------------------------------


def write_record(folder: Path, record: Record) -> Path:
    """Write `record.json` atomically; a record that exists is never overwritten (`FileExistsError`)."""
    return write_once(folder / "record.json", record.model_dump_json(by_alias=True, indent=1).encode() + b"\n")


def write_per_example(folder: Path, values: Mapping[str, np.ndarray]) -> Path | None:
    """Per-example log-likelihoods in nats as compressed float32, one array for each capability."""
    import numpy as np

    if not values:
        return None
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: array.astype(np.float32) for name, array in values.items()}
    np.savez_compressed(buffer, **arrays)
    return write_once(folder / "likelihoods.npz", buffer.getvalue())


def per_example_file(record: Path) -> Path:
    """Where the likelihoods of single examples lie beside a record, published or of a local run."""
    return record.with_name("likelihoods.npz") if record.name == "record.json" else record.with_suffix(".npz")


def write_once(file: Path, content: bytes) -> Path:
    """Create `file` whole or not at all; raises `FileExistsError` if it exists."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
        temporary.write(content)
        temporary.flush()
        os.fsync(temporary.fileno())
    try:
        os.chmod(temporary.name, 0o644)
        os.link(temporary.name, file)  # unlike a rename, this refuses to replace
    finally:
        os.unlink(temporary.name)
    return file


def write_atomic(file: Path, content: str) -> Path:
    """Write text so that a reader sees the old or the new content, never half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as temporary:
        temporary.write(content)
    os.chmod(temporary.name, 0o644)
    os.replace(temporary.name, file)
    return file
