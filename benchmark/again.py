"""What is done with a run that has ended: its model is scored or sampled again, its record renewed."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Any

from benchmark import facts
from benchmark import record as records
from benchmark.build import build_examination, build_model, data_of, restore
from benchmark.config import from_container
from benchmark.evaluate import Result, draw_samples, evaluate
from benchmark.record import Record, read_record
from benchmark.spec import BadInput, Score
from benchmark.train import count_flops, device_named, experts_of, final_protocol, references_of


def score_again(folder: Path, trust: tuple[str, ...] = ()) -> dict[str, Score]:
    """The scores of the model in a run's folder, computed anew."""
    return _evaluate(folder, trust, None)[0].scores


def sample_again(folder: Path, n: int, seed: int, trust: tuple[str, ...] = ()) -> Path:
    """Draw `n` samples from the model in a run's folder into its `samples/`; returns the file."""
    experiment, data, model = restore(folder, trust)
    model.to(device_named(experiment.runtime.device))
    (folder / "samples").mkdir(exist_ok=True)
    show = build_examination(experiment.data.modality, trust).modality.show
    return show(draw_samples(model, n, seed), data.spec, data.decode, folder / "samples" / f"{n}-seed{seed}")


def outdated(record: Record) -> list[str]:
    """The metrics that are new, or mean something else, since a record was made."""
    return [
        name
        for name, fact in facts.metrics_of(facts.modality(record.config["data"]["modality"])).items()
        if name not in record.scores or record.scores[name].version != fact.version
    ]


def renew(folder: Path, trust: tuple[str, ...] = ()) -> Path:
    """A copy of a run whose record has today's metrics; returns its folder. The old record stays as it is.

    The model is not trained again: what is outdated is scored anew, and the record says from which run it comes.
    """
    record = read_record(folder)
    names = outdated(record)
    if not names:
        raise BadInput(f"{folder} has every metric in its present version: there is nothing to renew")
    if record.status != "finished" or record.kind != "run":
        raise BadInput(f"{folder} is a {record.kind} that {record.status}: only a finished run can be renewed")
    result, found = _evaluate(folder, trust, names)
    renewed = record.model_copy(
        update={
            "scores": record.scores | result.scores,
            "dataset": record.dataset | {"references": found},
            "code_hash": records.code_hash(),
            "git": records.git_state(),
            "renewed": {
                "run": folder.resolve().name,
                "code_hash": record.code_hash,
                "git": record.git,
                "scores": names,
            },
        }
    )
    copy = folder.parent / secrets.token_hex(4)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("record.json", "lock", "wandb", "last.ckpt"))
    records.write_record(copy, renewed)
    return copy


def count_again(record: Record, trust: tuple[str, ...] = ()) -> Score:
    """The FLOPs of training on an example as they are counted today, from a record's configuration alone."""
    experiment = from_container(record.config, trust)
    data = data_of(experiment)
    return count_flops(experiment, data, build_model(experiment, data.spec))


def _evaluate(
    folder: Path, trust: tuple[str, ...], names: list[str] | None
) -> tuple[Result, dict[str, dict[str, Any]]]:
    """Scores of the model in `folder`, those with `names` or all; and what no model is needed for."""
    experiment, data, model = restore(folder, trust)
    device = device_named(experiment.runtime.device)
    model.to(device)
    protocol = final_protocol(experiment)
    examination, experts = build_examination(experiment.data.modality, trust), experts_of(experiment, data, device)
    result = evaluate(model, data, protocol, examination, experts, names)
    if names is None:
        return result, {}
    return result, references_of(experiment, data, protocol, examination, experts, device)
