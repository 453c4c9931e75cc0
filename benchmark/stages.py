"""Runs whose weights another run takes over: found, or named so that they can be carried out before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.config import Experiment, Origin, Stage, stage_of
from benchmark.record import Record, read_record, read_records, training_flops
from benchmark.spec import BadInput, sha256

WEIGHTS = "model.safetensors"  # in the folder of a run


def settled(experiment: Experiment, trust: Sequence[str] = ()) -> Experiment:
    """The experiment with the origin of each of its stages. Raises `BadInput` where a run is missing or unfit."""
    stages = {}
    for name, stage in experiment.stages.items():
        folder = at_hand(experiment, name, trust)
        if folder is None:
            raise BadInput(f"{name}: no finished run of {stage_of(experiment, name, trust).title}: run it first")
        stages[name] = stage.model_copy(update={"run": str(folder), "origin": _origin(name, folder)})
    return experiment.model_copy(update=stages)


def at_hand(experiment: Experiment, name: str, trust: Sequence[str] = ()) -> Path | None:
    """The folder of the run whose weights a stage takes over: the one that is named, the very one of old, or a finished
    run of the same experiment and seed; `None`: there is none."""
    stage = experiment.stages[name]
    if stage.run is not None and (stage.origin is None or (Path(stage.run) / WEIGHTS).is_file()):
        return Path(stage.run)
    wanted = stage_of(experiment, name, trust)
    return _with_weights(wanted, stage) or finished(wanted)


def finished(experiment: Experiment) -> Path | None:
    """The newest finished run of an experiment, with the same seed, below its folder of runs."""
    for file, record in reversed(_runs(experiment)):
        if record.identity == experiment.config_hash and record.seed == experiment.seed.model_dump():
            return file.parent
    return None


def _with_weights(experiment: Experiment, stage: Stage) -> Path | None:
    """The run that holds the very weights of a stage's origin."""
    if stage.origin is None:
        return None
    folders = [file.parent for file, _ in _runs(experiment)]
    return next((folder for folder in folders if sha256(folder / WEIGHTS) == stage.origin.sha256), None)


def _runs(experiment: Experiment) -> list[tuple[Path, Record]]:
    """Finished runs of the experiment's model on its data, the newest last."""
    place = Path(experiment.runtime.runs) / experiment.data.name / experiment.model.name
    found = read_records(place).items() if place.is_dir() else ()
    runs = [
        (file, record)
        for file, record in found
        if record.status == "finished" and record.kind == "run" and (file.parent / WEIGHTS).is_file()
    ]
    return sorted(runs, key=lambda one: one[1].started)


def _origin(name: str, folder: Path) -> Origin:
    """What is known of the run in `folder`. Raises `BadInput` where its weights cannot be taken over."""
    if not (folder / "record.json").is_file() or not (folder / WEIGHTS).is_file():
        raise BadInput(f"{name}={folder} is not the folder of a finished run: it holds no record.json and {WEIGHTS}")
    record = read_record(folder)
    if record.status != "finished":
        raise BadInput(f"{name}={folder} {record.status}: only the weights of a finished run are taken over")
    config = {key: value for key, value in record.config.items() if key != "runtime"}
    cost, bits = (record.scores.get(name) for name in ("cpu_minutes", "bits_per_byte"))
    return Origin(
        run=folder.resolve().name,
        sha256=sha256(folder / WEIGHTS),
        config=config,
        cpu_minutes=None if cost is None else cost.value,
        training_flops=training_flops(record),
        bits_per_byte=None if bits is None else bits.value,
    )
