"""Results of exams: what `runs/exams` keeps of models from outside, and what the record of a run says of them.

An exam counts for exactly the class, the sources and the laws that it was of: change one, and it has to be sat again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.record import SaidOfExam, folder_hash, is_ours, sources, write_atomic
from benchmark.spec import Structure


class LawVerdict(BaseModel):
    """How a model fared under one law. `problem`: what is wrong, in one line; `None`: the law holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    law: str
    structure: Structure
    promise: str  # that binds it
    seconds: float
    problem: str | None


class Exam(BaseModel):
    """One exam of a class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str
    options: dict[str, Any]
    structures: tuple[Structure, ...]
    conditions: tuple[Structure, ...]
    at_length: bool
    sources: dict[str, str]  # package -> SHA-256 of its files; none for the benchmark's own classes
    version: str  # of the laws
    when: datetime
    laws: tuple[LawVerdict, ...]

    @property
    def failed(self) -> list[str]:
        """`samples on grid`."""
        return [f"{one.law} on {one.structure}" for one in self.laws if one.problem is not None]


@cache
def version_of_laws() -> str:
    """A hash of `benchmark/testing`."""
    return folder_hash(Path(__file__).parent / "testing")


def exam_file(runs: Path, target: str) -> Path:
    """Where the exam of the class at `target` lies, as its sources and the laws are now."""
    of = {"target": target, "sources": sources([target]), "laws": version_of_laws()}
    return runs / "exams" / f"{hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()}.json"


def keep(exam: Exam, runs: Path) -> Path:
    """Write the result of an exam, in place of an earlier one of the same sources."""
    return write_atomic(exam_file(runs, exam.target), exam.model_dump_json(indent=1) + "\n")


def said_of(targets: Iterable[str], structure: Structure, runs: Path) -> dict[str, Any] | None:
    """What a record says of the models at `targets`, which a run on data of this `structure` is made of.

    `None`: all are the benchmark's own. Only an exam on that structure counts.
    """
    outside = [target for target in dict.fromkeys(targets) if not is_ours(target)]
    if not outside:
        return None
    sat = [exam for target in outside if (exam := _read(exam_file(runs, target))) and structure in exam.structures]
    if len(sat) < len(outside):
        said = SaidOfExam(passed=None, sources=sources(outside))
    else:
        failed = [law for exam in sat for law in exam.failed]
        said = SaidOfExam(
            passed=not failed,
            laws=sum(len(exam.laws) for exam in sat),
            failed=failed,
            sources=sources(outside),
            when=min(exam.when for exam in sat).isoformat(),
        )
    return said.model_dump()


def _read(file: Path) -> Exam | None:
    """The exam in `file`; `None` where there is none, or none that can be read: then it has to be sat."""
    try:
        return Exam.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
