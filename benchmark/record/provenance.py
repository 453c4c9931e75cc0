"""Where a result comes from: time, commit, hashes of code, versions of packages, the machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.record.files import write_atomic
from benchmark.record.schema import Record
from benchmark.spec import BadInput

CHANGED = "changed under way"  # said of the code of a run that was resumed with other code
STAMP = "provenance.json"  # beside the package: which commit the code is of, for a machine without git

_PACKAGE = Path(__file__).resolve().parent.parent
_REPOSITORY = _PACKAGE.parent
_PACKAGES = (
    "generative-benchmark",
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "torch-fidelity",
    "torchvision",
    "wandb",
    "optuna",
    "numpy",
    "scikit-learn",
)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


# Code ----------------------------------------------------------------------------------------------------------------


def code_identity(targets: Iterable[str] = ()) -> dict[str, str]:
    """Which code carries out a run: the benchmark's `code_hash`, and SHA-256 of each package outside it that one of the
    import paths `targets` names."""
    return {"benchmark": code_hash() or "", **sources(targets)}


def code_of(record: Record) -> dict[str, str] | None:
    """The `code_identity` of the code that made a record; `None` where that changed under way."""
    if CHANGED in record.environment:
        return None
    return {"benchmark": record.code_hash or "", **record.sources}


@cache
def git_state() -> dict[str, Any] | None:
    """Commit, and whether the code differs from it: by git, or by the stamp where there is no checkout. `None` where
    neither knows."""
    return _checkout() or _stamped()


def _checkout() -> dict[str, Any] | None:
    """What git says. `None` outside a git checkout of the benchmark.

    A repository that merely surrounds an installed package is not one: its commit says nothing about this code.
    """
    if _git("ls-files", "--error-unmatch", "benchmark/__init__.py", "configs/experiment.yaml") is None:
        return None
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    dirty = bool(_git("status", "--porcelain", "--", "benchmark", "configs"))
    return {"commit": commit, "dirty": dirty}


def write_stamp() -> Path:
    """Say beside the package which commit its code is, and that commit's `code_hash` as git has it.

    Raises `BadInput` outside a git checkout, and where the code is not as committed.
    """
    state = _checkout()
    if state is None:
        raise BadInput(
            f"{_REPOSITORY} is no git checkout of the benchmark: stamp it where it is one, with git installed"
        )
    if state["dirty"]:
        raise BadInput("benchmark/ or configs/ is not as committed: commit, then stamp")
    trees = {name: bytes.fromhex(_git("rev-parse", f"HEAD:{name}") or "") for name in ("benchmark", "configs")}
    content = {"commit": state["commit"], "code_hash": _object("tree", _entries(trees)).hex()}
    return write_atomic(_REPOSITORY / STAMP, json.dumps(content, indent=1) + "\n")


def _stamped() -> dict[str, Any] | None:
    """What the stamp says; the code counts as changed unless its hash, taken anew, is the one in there."""
    file = _REPOSITORY / STAMP
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_bytes())
        commit, hashed = str(content["commit"]), str(content["code_hash"])
    except (ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{file} is not a stamp, so no commit is known: write it anew ({error!r})", stacklevel=3)
        return None
    dirty = code_hash() != hashed
    if dirty:
        found, expected = code_hash()[:8], f"{hashed[:8]} of commit {commit[:8]}"
        warnings.warn(f"the code is {found}, not {expected} as {STAMP} says: it has changed since", stacklevel=3)
    return {"commit": commit, "dirty": dirty}


@cache
def code_hash() -> str:
    """Git's hash of a tree that holds `benchmark/` and `configs/` as they are on disk, of a checkout or installed."""
    inside = _PACKAGE / "configs"  # where the installed package has them
    configs = inside if inside.is_dir() else _REPOSITORY / "configs"
    return _object("tree", _entries({"benchmark": _tree(_PACKAGE, without=inside), "configs": _tree(configs)})).hex()


def folder_hash(folder: Path) -> str:
    """Git's hash of the code in a folder."""
    return (_tree(folder) or b"").hex()


#: What is not code: leftovers of the interpreter, of the system and of editors.
_LEFTOVERS = re.compile(r"__pycache__|wandb|\..*|.*\.pyc|.*~|.*\.(swp|orig|rej)")


def _tree(folder: Path, without: Path | None = None) -> bytes | None:
    """Git's hash of a folder; `None` for an empty one, which git does not know."""
    found: dict[str, bytes | None] = {}
    for file in folder.iterdir():
        if file != without and not _LEFTOVERS.fullmatch(file.name):
            found[file.name] = _tree(file) if file.is_dir() else _object("blob", file.read_bytes())
    kept = {name: digest for name, digest in found.items() if digest is not None}
    if not kept:
        return None
    return _object("tree", _entries(kept, {name for name in kept if (folder / name).is_dir()}))


def _entries(found: Mapping[str, bytes | None], folders: Iterable[str] | None = None) -> bytes:
    """The content of a tree object: mode, name and hash of each entry, folders sorted as if they ended in a slash."""
    folders = set(found) if folders is None else set(folders)
    names = sorted(found, key=lambda name: f"{name}/".encode() if name in folders else name.encode())
    modes = {name: b"40000" if name in folders else b"100644" for name in names}
    return b"".join(modes[name] + b" " + name.encode() + b"\0" + (found[name] or b"") for name in names)


def _object(kind: str, content: bytes) -> bytes:
    """The SHA-1 by which git knows an object."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).digest()


def is_ours(target: str) -> bool:
    """Whether the class at this import path is the benchmark's own."""
    return target.split(".")[0] == "benchmark"


def sources(targets: Iterable[str]) -> dict[str, str]:
    """Package outside the benchmark that one of the import paths `targets` names -> SHA-256 of its files."""
    outside = {target.split(".")[0] for target in targets if not is_ours(target)}
    return {package: _source_hash(package) for package in sorted(outside)}


@cache  # what a process has imported stays what it was
def _source_hash(package: str) -> str:
    """SHA-256 of all code of a package, of all parts of one that several distributions share, or of a module that is
    one file."""
    importlib.invalidate_caches()
    found = importlib.util.find_spec(package)
    if found is None:
        return "unknown"
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    files = [
        (file.relative_to(folder).as_posix(), file)
        for folder in folders
        for file in folder.rglob("*")
        if file.suffix in (".py", ".so", ".pyd") and file.is_file()
    ]
    if not files and found.origin is not None:
        files = [(Path(found.origin).name, Path(found.origin))]
    digest = hashlib.sha256()
    for name, file in sorted(files):
        digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _git(*arguments: str) -> str | None:
    """What git says of the repository whose top is the folder of the package; `None` where it has nothing to say."""
    if not (_REPOSITORY / ".git").exists():  # also a file, in a worktree: else a repository around it would answer
        return None
    command: Sequence[str] = ("git", "-C", str(_REPOSITORY), *arguments)
    elsewhere = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_")
    }  # as a hook sets them
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, env=elsewhere
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


# Packages and machine ------------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def hardware() -> dict[str, Any]:
    """The machine, in words that mean something elsewhere."""
    return {"cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()}


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
