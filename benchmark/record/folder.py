"""The folder of a run under way: how it began, what it has spent, which process carries it on, attempts before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from benchmark.record.files import read_record, write_atomic
from benchmark.record.provenance import CHANGED, code_identity
from benchmark.record.schema import UNFINISHED
from benchmark.spec import BadInput

# How it began --------------------------------------------------------------------------------------------------------


def begin(folder: Path, config: Mapping[str, Any], targets: Iterable[str] = ()) -> None:
    """Note in a new run's folder what decides its result: the configuration, and the code that it starts with.

    The code is the benchmark's, and that of the classes outside it at the import paths `targets`.
    """
    _write_begun(folder, _Begun(code=code_identity(targets), config=dict(config)))


def started_with(folder: Path) -> dict[str, str] | None:
    """The `code_identity` with which the run in `folder` started; `None` where it is unknown, or changed since."""
    begun = _begun(folder)
    return begun.code if begun.changed_code is None else None


def check_unchanged(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse to resume a run whose `config.yaml` would give another result than the one that began."""
    begun = _begun(folder).config
    if begun is not None and (changed := _first_difference(begun, json.loads(json.dumps(config)))) is not None:
        key, was, is_ = changed
        raise BadInput(
            f"{folder / 'config.yaml'} was changed since the run began: {key} was {was!r} and is {is_!r}; only "
            f"runtime.* may change: put it back, or start a new run"
        )


def check_code(folder: Path, targets: Iterable[str], changed_code: bool = False) -> None:
    """Refuse to resume a run whose code has changed since it was last carried out, unless `changed_code` allows it.

    Where that is allowed, its record says so.
    """
    begun, today = _begun(folder), code_identity(targets)
    last = begun.changed_code or begun.code
    if last is None or last == today:
        return
    if not changed_code:
        parts = sorted(name for name in last.keys() | today.keys() if last.get(name) != today.get(name))
        raise BadInput(
            f"{folder} began with other code ({', '.join(parts)} changed since): restore that code, start a new "
            "run, or resume with --changed-code, which its record will say"
        )
    _write_begun(folder, begun.model_copy(update={"changed_code": today}))


def changed_code(folder: Path) -> dict[str, str]:
    """What the record of a run that was resumed with other code says: the code that it began with."""
    begun = _begun(folder)
    return {CHANGED: json.dumps(begun.code)} if begun.changed_code is not None else {}


class _Begun(BaseModel):
    """How a run began; runs that began before this was noted have none of it."""

    code: dict[str, str] | None = None
    config: dict[str, Any] | None = None
    changed_code: dict[str, str] | None = None  # with which it was resumed


def _begun(folder: Path) -> _Begun:
    file = folder / "begun.json"
    try:
        return _Begun.model_validate_json(file.read_bytes()) if file.is_file() else _Begun()
    except ValidationError as error:
        raise BadInput(f"{file} is damaged: start a new run") from error


def _write_begun(folder: Path, begun: _Begun) -> None:
    write_atomic(folder / "begun.json", begun.model_dump_json(indent=1) + "\n")


def _first_difference(old: Any, new: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Where two configurations differ first: key, old and new value."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return None if old == new else (key, old, new)
    names = dict.fromkeys([*old, *new])
    found = (_first_difference(old.get(name), new.get(name), f"{key}.{name}".lstrip(".")) for name in names)
    return next((one for one in found if one is not None), None)


# Under way -----------------------------------------------------------------------------------------------------------


def is_unfinished(folder: Path) -> bool:
    """Whether the run in `folder` has no result yet: it was stopped, failed, or reached its limit."""
    file = folder / "record.json"
    return not file.is_file() or read_record(file).status in UNFINISHED


def set_aside(folder: Path) -> None:
    """Make room for the record of a run that is resumed: that of the attempt before moves to `attempts/`."""
    file = folder / "record.json"
    if file.is_file():
        attempts = folder / "attempts"
        attempts.mkdir(exist_ok=True)
        file.rename(attempts / f"{len(list(attempts.iterdir())):03d}.json")


def note_spent(folder: Path, seconds: float) -> None:
    """Note how long all attempts at a run have trained."""
    write_atomic(folder / "spent", f"{seconds:.1f}\n")


def spent(folder: Path) -> float:
    """Seconds that all attempts at a run have trained, as far as is known."""
    file = folder / "spent"
    try:
        return float(file.read_bytes()) if file.is_file() else 0.0
    except ValueError as error:
        raise BadInput(f"{file} does not say how many seconds the run has trained: correct or remove it") from error


@contextmanager
def carrying_on(folder: Path) -> Iterator[None]:
    """Inside, the run in `folder` belongs to this process. The system gives it free when the process dies."""
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        raise BadInput(f"another process is carrying on the run in {folder}: wait until it ends") from error


def is_running(folder: Path) -> bool:
    """Whether a process is carrying on the run in `folder`."""
    try:
        with FileLock(folder / "lock", timeout=0):
            return False
    except Timeout:
        return True
