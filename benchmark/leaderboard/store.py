"""What was computed before, on disk, by what it was made of and by the code that made it. Losing it costs only time."""

from __future__ import annotations

import hashlib
import os
import pickle
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

_Found = TypeVar("_Found")

_ROOMS = ("leaderboard", "sweep", "record", "report", "config")  # whose code decides what a page says
_LIBRARIES = ("numpy", "scipy", "matplotlib", "jinja2", "pydantic", "pillow")
_UNUSED = 60 * 24 * 3600  # seconds after which what nobody asked for is dropped
_UNREADABLE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, TypeError, ValueError)


def cache_folder() -> Path:
    """The user's folder for what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "generative-benchmark"


def digest(*parts: object) -> str:
    """Of values whose `repr` says all that they hold."""
    return hashlib.blake2b("\x1f".join(map(repr, parts)).encode(), digest_size=16).hexdigest()


def fingerprint(content: object) -> str:
    """Of anything that can be pickled. Equal contents may differ in it, which costs time; different ones do."""
    return hashlib.blake2b(pickle.dumps(content), digest_size=16).hexdigest()


def stamp(files: Iterable[Path]) -> str:
    """Of files as they lie on disk: name, size and time of change; a file that is missing counts too."""
    found: list[tuple[str, int, int]] = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            found.append((str(file), -1, -1))
        else:
            found.append((str(file), status.st_size, status.st_mtime_ns))
    return digest(*found)


@dataclass(frozen=True, slots=True)
class Packed(Generic[_Found]):
    """A value as bytes, which take a fraction of its objects' memory, until somebody opens it."""

    content: bytes

    @classmethod
    def of(cls, value: _Found) -> Packed[_Found]:
        return cls(pickle.dumps(value))

    def open(self) -> _Found:
        return cast(_Found, pickle.loads(self.content))


@cache
def code_version() -> str:
    """Of the code, facts, templates and libraries that decide what pages say."""
    package = Path(__file__).parents[1]
    configs = next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())
    files = [*package.glob("*.py"), *package.glob("*.yaml"), *configs.glob("m*/*.yaml")]
    files += [file for room in _ROOMS for file in (package / room).rglob("*") if "__pycache__" not in file.parts]
    hashed = hashlib.blake2b(digest_size=16)
    for file in sorted(file for file in files if file.is_file()):
        hashed.update(file.name.encode() + file.read_bytes())
    return digest(hashed.hexdigest(), *map(_version, _LIBRARIES))


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


class Store:
    """Results by key in one SQLite file, which several processes may share; without a file nothing is kept.

    Results are pickled, as Python's own bytecode is: the file is the user's, and no one else may write it.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._database: sqlite3.Connection | None = None
        if file is not None:
            try:
                self._database = _opened(file)
            except (OSError, sqlite3.Error):  # not writable, or damaged: everything is computed
                self._database = None

    def remember(self, what: str, made_of: str, compute: Callable[[], _Found]) -> _Found:
        """`compute()`, or what it gave when `what` was last made of the same by the same code.

        Where nobody knows what it is made of, `made_of` is empty, and nothing is remembered; nor is an exception.
        """
        key = digest(what, made_of, code_version())
        if self._database is None or not made_of:
            return compute()
        if (row := self._ask("SELECT content, used FROM results WHERE key = ?", key)) is not None:
            try:
                found = cast(_Found, pickle.loads(row[0]))
            except _UNREADABLE:
                pass
            else:
                if row[1] < _today():
                    self._ask("UPDATE results SET used = ? WHERE key = ?", _today(), key)
                return found
        content = pickle.dumps(compute())
        self._ask("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", key, content, _today())
        return cast(_Found, pickle.loads(content))  # what a later call will find, so that its pickle is the same too

    def close(self) -> None:
        """Drop what was not asked for in a long time."""
        if self._database is not None:
            self._ask("DELETE FROM results WHERE used < ?", _today() - _UNUSED)
            self._database.close()
            self._database = None

    def _ask(self, question: str, *values: object) -> Any:
        """The first row, if any. A database that breaks under way is left alone from then on."""
        if self._database is None:
            return None
        try:
            row = self._database.execute(question, values).fetchone()
        except sqlite3.Error:
            self._database = None
            return None
        return row


def _opened(file: Path) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = sqlite3.connect(file, timeout=10, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")  # a power cut costs results, which can be computed again
    database.execute("CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, content BLOB, used INTEGER)")
    return database


def _today() -> int:
    return int(time.time()) // 86_400 * 86_400
