"""Scores and provenance of one run, to and from JSON: immutable, validated when read, written whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
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
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from filelock import FileLock, Timeout
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from benchmark.config import STAGES, choices, identity, renamed
from benchmark.identity import version_1
from benchmark.spec import BadInput, Score, unknown
from benchmark.traces import traces

if TYPE_CHECKING:
    import numpy as np

SCHEMA: Literal[2] = 2
Kind = Literal["run", "trial"]
Status = Literal["finished", "diverged", "failed", "truncated", "pruned"]

CHANGED = "changed under way"  # said of the code of a run that was resumed with other code

_SHA256 = re.compile("[0-9a-f]{64}")
_NAME = re.compile(r"[\w-][\w.-]*")
_PACKAGE = Path(__file__).resolve().parent
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


def _known_modality(name: str) -> str:
    if name not in (known := choices("modality")):
        raise ValueError(str(unknown("modality", name, known)))
    return name


class _DataConfig(BaseModel):
    name: str
    target: str
    modality: Annotated[str, AfterValidator(_known_modality)]


class _ModelConfig(BaseModel):
    name: str
    target: str


class _BudgetConfig(BaseModel):
    examples: int
    minutes: float


class _EvaluationConfig(BaseModel):
    split: str


class _OriginConfig(BaseModel):
    model: _ModelConfig


class _Origin(BaseModel):
    config: _OriginConfig


class _Stage(BaseModel):
    origin: _Origin | None = None


class _Config(BaseModel):
    first_stage: _Stage | None = None
    start: _Stage | None = None
    data: _DataConfig
    model: _ModelConfig
    budget: _BudgetConfig
    training: dict[str, Any]
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


class SaidOfExam(BaseModel):
    """What a record says of the exam of its models from outside: of exactly the `sources` that made it.

    `passed` is `None` where they sat none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    passed: bool | None
    laws: Annotated[int, Field(ge=0)] = 0  # that examined them
    failed: list[str] = []
    sources: dict[str, str]  # package -> SHA-256 of its files
    when: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        sat = self.passed is not None
        if sat != (self.laws > 0) or sat != (self.when is not None) or not self.sources:
            raise ValueError("an exam has laws, a date and sources, and one that was not sat has sources alone")
        if (self.passed is False) != bool(self.failed) or len(self.failed) > self.laws:
            raise ValueError(f"passed is {self.passed}, but {len(self.failed)} of {self.laws} laws failed")
        return self


class Record(BaseModel):
    """What one run leaves behind. All that a reader sees is a pure function of these."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), populate_by_name=True)

    schema_version: Literal[1, 2] = Field(alias="schema")
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
    stability: dict[str, float] = {}  # how training went (`benchmark.watch`); older records have none
    # Since schema 2; older records have none of these.
    share: Annotated[float, Field(ge=0, le=1)] | None = None  # of the examples that the budget asks for
    impossible: str | None = None  # why its numbers cannot be right: they beat the known source of the data
    precision: Literal["float32", "bfloat16"] | None = None  # of the forward pass in training, as the hardware had it
    processes: Annotated[int, Field(ge=1)] = 1  # that trained together
    condition: dict[str, Any] | None = None  # what samples are drawn under, as the data specifies it
    sources: dict[str, str] = {}  # what else made it -> SHA-256: code of other packages, weights that it starts from
    #: Of models from outside: whether their source passed the exam.
    exam: Annotated[dict[str, Any], _holds(SaidOfExam)] | None = None
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

    @cached_property
    def identity(self) -> str:
        """What makes two records' configurations the same, whatever the rule was when each was written."""
        return identity(self.config)

    @property
    def trained_in(self) -> str:
        """The precision of its training: stated since schema 2, before that by what the hardware had."""
        asked = self.config.get("training", {}).get("precision", "float32")
        return self.precision or (asked if self.hardware.get("bfloat16", True) else "float32")

    @property
    def hash_by_its_rule(self) -> str:
        """The `config_hash` that its configuration has by the rule of its schema."""
        return version_1(self.config) if self.schema_version == 1 else self.identity


_PROTOCOL: TypeAdapter[_Protocol] = TypeAdapter(_Protocol)


def model_targets(config: Mapping[str, Any]) -> list[str]:
    """The import path of every model that takes part in a run: its own, and those whose weights were taken over."""
    stages = [(config.get(name) or {}).get("origin") for name in STAGES]
    configs = [config, *(origin["config"] for origin in stages if origin)]
    return [str(one["model"]["target"]) for one in configs]


def origins(record: Record) -> dict[str, dict[str, Any]]:
    """The runs whose weights a record's run took over, by stage: id, hash of the weights, configuration, cost."""
    found = {name: (record.config.get(name) or {}).get("origin") for name in STAGES}
    return {name: origin for name, origin in found.items() if origin}


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


_NOT_RECORDS = {"wandb", "artifacts", "attempts", "begun.json"}  # below a run's folder


def read_records(folder: Path, problems: list[str] | None = None) -> dict[Path, Record]:
    """Every record below `folder`, published (`<seed>-<hash>-<run>.json`) or of local runs (`record.json`).

    What is not a record is skipped and named: in `problems`, a line each, or on standard error where none are given.
    """
    found = {}
    for file in record_files(folder):
        try:
            record = read_record(file)
            for name in (record.data, record.model):
                if not _NAME.fullmatch(name):
                    raise BadInput(f"{file}: {name!r} cannot name a page: letters, digits, '_', '-' and '.' can")
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
    """Where records may be below `folder`."""
    found = (file for file in folder.rglob("*.json") if not _NOT_RECORDS & set(file.parts))
    files = (file for file in found if not (file.parent.name == "exams" and _SHA256.fullmatch(file.stem)))
    return sorted(file for file in files if not file.is_dir())


#: How a run ends that its command, or `run --resume`, resumes from its last checkpoint.
UNFINISHED = ("failed", "truncated")


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


def code_identity(targets: Iterable[str] = ()) -> dict[str, str]:
    """Which code carries out a run: the benchmark's `code_hash`, and SHA-256 of each package outside it that one of the
    import paths `targets` names."""
    return {"benchmark": code_hash() or "", **sources(targets)}


def code_of(record: Record) -> dict[str, str] | None:
    """The `code_identity` of the code that made a record; `None` where that changed under way."""
    if CHANGED in record.environment:
        return None
    return {"benchmark": record.code_hash or "", **record.sources}


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
    if record.code_hash is None or record.git is None:
        return "no commit is known that holds its code: run it again in a checkout of the benchmark, with git installed"
    if record.git["dirty"]:
        return "it was made with code that is not committed: commit, then run it again"
    if CHANGED in record.environment:
        return "its code changed while it was under way: run it again"
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
    """Commit, and whether the code differs from it. `None` outside a git checkout of the benchmark.

    A repository that merely surrounds an installed package is not one: its commit says nothing about this code.
    """
    if _git("ls-files", "--error-unmatch", "benchmark/__init__.py", "configs/experiment.yaml") is None:
        return None
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    dirty = bool(_git("status", "--porcelain", "--", "benchmark", "configs"))
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


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


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


def hardware() -> dict[str, Any]:
    """The machine, in words that mean something elsewhere."""
    return {"cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()}


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


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
