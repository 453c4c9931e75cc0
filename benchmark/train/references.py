"""References, such as baselines and real examples in place of samples: computed once for all runs in one place."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from benchmark import record as records
from benchmark.build import DataModule, Examination
from benchmark.config import Experiment
from benchmark.evaluate import Experts, Protocol, references
from benchmark.spec import Absence, Score
from benchmark.train.device import described

Table = dict[str, dict[str, Any]]  # reference -> metric -> score, as plain values

_TABLE: TypeAdapter[dict[str, dict[str, Score]]] = TypeAdapter(dict[str, dict[str, Score]])


def references_of(
    experiment: Experiment,
    data: DataModule,
    protocol: Protocol,
    examination: Examination,
    experts: Experts,
    device: torch.device,
) -> Table:
    """What `evaluate.references` finds, kept in `runs/references` under all that it depends on.

    A file that is damaged is written anew.
    """
    of = _plain(_depends_on(experiment, data, protocol, examination, experts, device))
    file = Path(experiment.runtime.runs) / "references" / f"{_sha256(of)}.json"
    if (kept := _kept(file, of)) is not None:
        return kept
    found = references(data, protocol, examination, experts)
    table: Table = _plain(
        {name: {metric: asdict(score) for metric, score in scores.items()} for name, scores in found.items()}
    )
    records.write_atomic(file, json.dumps({"of": of, "sha256": _sha256(table), "references": table}, indent=1) + "\n")
    return table


def _depends_on(
    experiment: Experiment,
    data: DataModule,
    protocol: Protocol,
    examination: Examination,
    experts: Experts,
    device: torch.device,
) -> dict[str, Any]:
    """Data, protocol, who is asked what, and with which code on which machine: the last bits of a number follow it."""
    asked = {"extractor": experts.extractor, "judge": experts.judge}
    reader = experts.reader
    return {
        "data": data.describe() | {"spec": repr(data.spec), "config": experiment.data.model_dump(mode="json")},
        "protocol": asdict(protocol),
        "modality": experiment.data.modality,
        "metrics": {name: measure.fact.version for name, measure in examination.metrics.items()},
        "experts": {name: asdict(x) if isinstance(x, Absence) else [x.name, x.sha256] for name, x in asked.items()},
        "reader": None if reader is None else [reader.name, reader.sha256],
        "code": records.code_identity(experiment.targets),
        "environment": records.environment(),
        "hardware": records.hardware() | described(device),
    }


def _kept(file: Path, of: Any) -> Table | None:
    """The table in `file`; `None` where there is none, or it is not whole."""
    try:
        content = json.loads(file.read_bytes())
        table: Table = content["references"]
        _TABLE.validate_python(table)
        whole = content["of"] == of and content["sha256"] == _sha256(table)
    except (OSError, ValueError, LookupError, TypeError, ValidationError):
        return None
    return table if whole else None


def _plain(value: Any) -> Any:
    """As JSON has it, which keeps every digit."""
    return json.loads(json.dumps(value))


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
