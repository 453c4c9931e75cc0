"""Scores and provenance of one run, to and from JSON: immutable, validated when read, written whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from filelock import FileLock, Timeout
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from benchmark.spec import BadInput, Score
from benchmark.traces import traces

if TYPE_CHECKING:
    import numpy as np

SCHEMA: Literal[1] = 1
Kind = Literal["run", "trial"]
Status = Literal["finished", "diverged", "failed", "truncated", "pruned"]

_NAME = re.compile(r"[\w-]+")
_REPOSITORY = Path(__file__).resolve().parent.parent
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


def _holds(shape: Any) -> AfterValidator:
    """What every reader of a mapping takes for granted; the mapping stays as it is, with whatever else it holds."""
    adapter: TypeAdapter[Any] = TypeAdapter(shape)

    def checked(content: Any) -> Any:
        try:
            adapter.validate_python(content, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        return content

    return AfterValidator(checked)


class _Seeds(BaseModel):
    init: int
    data: int
    eval: int


class _DataConfig(BaseModel):
    modality: str


class _ModelConfig(BaseModel):
    target: str


class _BudgetConfig(BaseModel):
    minutes: float


class _EvaluationConfig(BaseModel):
    split: str


class _Config(BaseModel):
    data: _DataConfig
    model: _ModelConfig
    budget: _BudgetConfig
    evaluation: _EvaluationConfig


class _Git(BaseModel):
    commit: str
    dirty: bool


class _Split(BaseModel):
    n: int
    sha256: str


class _Reference(BaseModel):  # a score as plain values
    unit: str
    version: int
    value: float | None = None
    stderr: float | None = None
    n: int | None = None
    protocol: dict[str, Any] = {}


class _Dataset(BaseModel):  # empty where a run failed before it had its data
    name: str = ""
    source: str = ""
    licence: str = ""
    citation: str = ""
    note: str = ""
    publishable: bool = True
    splits: dict[str, _Split] = {}
    references: dict[str, dict[str, _Reference]] = {}


class _Hardware(BaseModel):
    cpu: str = ""
    cores: int | None = None
    device: str = ""
    threads: int = 0


class _Renewed(BaseModel):
    run: str
    code_hash: str | None
    git: _Git | None
    scores: list[str]


class _How(BaseModel):
    likelihood: Literal["exact", "bound", "approximate"] = "exact"


class _Protocol(BaseModel):
    how: _How = _How()


class Record(BaseModel):
    """What one run leaves behind. All that a reader sees is a pure function of these."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), populate_by_name=True)

    schema_version: Literal[1] = Field(alias="schema")
    kind: Kind
    status: Status
    reason: str | None  # why a run is not finished: when and how
    model: str
    data: str
    budget: str
    seed: Annotated[dict[str, int], _holds(_Seeds)]
    config: Annotated[dict[str, Any], _holds(_Config)]
    config_hash: str
    code_hash: str | None
    git: Annotated[dict[str, Any], _holds(_Git)] | None
    dataset: Annotated[dict[str, Any], _holds(_Dataset)]
    environment: dict[str, str]
    hardware: Annotated[dict[str, Any], _holds(_Hardware)]
    started: datetime
    seconds: float
    scores: dict[str, Score]
    impossible: str | None = None  # why its numbers cannot be right, where the source of the data is known
    stability: dict[str, float] = {}  # how training went (`benchmark.watch`); older records have none
    #: Run, code and git of the training, and the scores that are of today's code.
    renewed: Annotated[dict[str, Any], _holds(_Renewed)] | None = None

    @field_validator("stability")
    @classmethod
    def _finite(cls, stability: dict[str, float]) -> dict[str, float]:
        for name, value in stability.items():
            if not math.isfinite(value):
                raise ValueError(f"stability {name!r} is not finite")
        return stability

    @field_validator("scores")
    @classmethod
    def _finite_or_absent(cls, scores: dict[str, Score]) -> dict[str, Score]:
        for name, score in scores.items():
            numbers = [number for number in (score.value, score.stderr) if number is not None]
            if not all(math.isfinite(number) for number in numbers):
                raise ValueError(f"score {name!r} holds a number that is not finite")
            if (score.value is None) == (score.absent is None):
                raise ValueError(f"score {name!r} must have a value or say why it has none")
            try:
                _PROTOCOL.validate_python(score.protocol)
            except ValidationError as error:
                place = ".".join(map(str, error.errors()[0]["loc"]))
                raise ValueError(f"score {name!r}, protocol.{place}: {error.errors()[0]['msg']}") from error
        return scores

    @property
    def family(self) -> str:
        """The folder that holds the model's file, or the file where it stands in none."""
        return str(self.config["model"]["target"]).split(".")[-3:][0]

    @property
    def publishable(self) -> bool:
        return bool(self.dataset.get("publishable", True))


_PROTOCOL: TypeAdapter[_Protocol] = TypeAdapter(_Protocol)


def read_record(path: Path) -> Record:
    """The validated record in `path`, a file or a run's folder. Raises `BadInput` when it is missing or malformed."""
    file = path / "record.json" if path.is_dir() else path
    if not file.is_file():
        raise BadInput(f"no record at {file}: give a run's folder that holds record.json (an unfinished run has none)")
    try:
        return Record.model_validate_json(file.read_bytes())
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{file} is no valid record: {place}: {message}") from error


def read_records(folder: Path, problems: list[str] | None = None) -> dict[Path, Record]:
    """Every record below `folder`, published (`<seed>-<hash>-<run>.json`) or of local runs (`record.json`).

    What is no record is skipped and named: in `problems`, a line each, or on standard error where none are given.
    """
    found = {}
    for file in record_files(folder):
        try:
            record = read_record(file)
            for name in (record.data, record.model):
                if not _NAME.fullmatch(name):
                    raise BadInput(f"{file}: {name!r} cannot name a page: letters, digits, '_' and '-' can")
        except BadInput as error:
            if problems is None:
                name_skipped(str(error))
            else:
                problems.append(str(error))
        else:
            found[file] = record
    return found


@cache
def name_skipped(problem: str) -> None:
    """Say on standard error, once a process, which file was skipped and why."""
    print(f"skipped: {problem}", file=sys.stderr)


def record_files(folder: Path) -> list[Path]:
    """Where records may be below `folder`: what W&B keeps there is none."""
    files = (file for file in folder.rglob("*.json") if not {"wandb", "artifacts"} & set(file.parts))
    return sorted(file for file in files if not file.is_dir())


def begin(folder: Path) -> None:
    """Note in a new run's folder with which code it starts."""
    write_atomic(folder / "code_hash", f"{code_hash() or ''}\n")


def started_with(folder: Path) -> str | None:
    """The `code_hash` with which the run in `folder` started; `None` where that is unknown."""
    file = folder / "code_hash"
    return file.read_text().strip() or None if file.is_file() else None


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


def write_record(folder: Path, record: Record) -> Path:
    """Write `record.json` atomically; a record that exists is never overwritten (`FileExistsError`)."""
    return write_once(folder / "record.json", record.model_dump_json(by_alias=True, indent=1).encode() + b"\n")


def write_per_example(folder: Path, values: Mapping[str, np.ndarray]) -> Path | None:
    """Per-example log-likelihoods in nats as compressed float32, one array for each capability."""
    import io

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


def why_no_evidence(record: Record) -> str | None:
    """Why a record cannot stand on a board that others read; `None` where it can."""
    if not record.publishable:
        return f"records on {record.data} are never published: {record.dataset.get('note', '')}"
    if record.kind != "run":
        return f"a {record.kind} is evidence for a study, not for the board: confirm its setting first"
    if record.config["evaluation"]["split"] != "test":
        return "it was scored on the validation split: run it again without evaluation.split=validation"
    if record.code_hash is None or record.git is None or record.git["dirty"]:
        return "it was made with code that is not committed: commit, then run it again"
    return None


def publish(run: Path, records: Path) -> list[Path]:
    """Copy a run's record, per-example likelihoods, curves and samples over training to `records`.

    They stand there side by side, under the name that says what they are.
    """
    record = read_record(run)
    if (why := why_no_evidence(record)) is not None:
        raise BadInput(f"{run}: {why}")
    target = records / record.data / record.model
    stem = f"{record.seed['init']}-{record.config_hash[:8]}-{run.resolve().name}"
    contents = {".json": (run / "record.json").read_bytes(), **traces(run)}
    if (likelihoods := per_example_file(run / "record.json")).is_file():
        contents[".npz"] = likelihoods.read_bytes()
    written = []
    for suffix, content in contents.items():
        file = target / f"{stem}{suffix}"
        try:
            written.append(write_once(file, content))
        except FileExistsError as error:
            raise BadInput(f"{file} is published already: records are never overwritten") from error
    return written


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


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


# Provenance --------------------------------------------------------------------------------------------------------


@cache
def git_state() -> dict[str, Any] | None:
    """Commit, and whether the code differs from it. `None` outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    dirty = bool(_git("status", "--porcelain", "--", "benchmark", "configs"))
    return {"commit": commit, "dirty": dirty}


@cache
def code_hash() -> str | None:
    """Git's hash of a tree that holds `benchmark/` and `configs/` as they are on disk. `None` outside a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        if _git("add", "--", "benchmark", "configs", env=index) is None:
            return None
        return _git("write-tree", env=index)


def environment(targets: Iterable[str] = ()) -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on; of a package outside the benchmark that one of
    the import paths `targets` names, a hash of its source."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    outside = {target.split(".")[0] for target in targets} - {"benchmark"}
    return versions | {package: f"source {_source_hash(package)}" for package in sorted(outside)}


def _source_hash(package: str) -> str:
    """The start of the SHA-256 of all Python files of a package, or of a module that is one file."""
    found = importlib.util.find_spec(package)
    if found is None:
        return "unknown"
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    files = {file.relative_to(folder).as_posix(): file for folder in folders for file in folder.rglob("*.py")}
    if not files and found.origin is not None:
        files = {Path(found.origin).name: Path(found.origin)}
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def hardware() -> dict[str, Any]:
    """The machine, in words that mean something elsewhere."""
    return {"cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()}


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str, env: Mapping[str, str] | None = None) -> str | None:
    command: Sequence[str] = ("git", "-C", str(_REPOSITORY), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **(env or {})})
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
