"""A run's record, published: beside the others, under a name that says what it is, never overwritten."""

from __future__ import annotations

from pathlib import Path

from benchmark.record.files import per_example_file, read_record, write_once
from benchmark.record.provenance import CHANGED
from benchmark.record.schema import Record
from benchmark.spec import BadInput
from benchmark.traces import traces


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
