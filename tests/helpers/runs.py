"""Short runs of the whole harness. What is tested on them does not depend on how good a model is."""

from __future__ import annotations

import csv
import inspect
from pathlib import Path

import pytest
from signatures import class_of

from benchmark import loop, train
from benchmark.config import Experiment, choices, compose, read_yaml, stage_of
from benchmark.loop import Progress
from benchmark.record import read_record
from benchmark.stages import at_hand

SHORT = ("budget.examples=160", "training.batch_size=16", "training.validations=2")
#: As little as every metric can be computed on.
FEW_DRAWS = (
    "evaluation.importance_samples=2",
    "evaluation.importance_examples=20",
    "evaluation.validation_examples=64",
    "evaluation.sample_draws=2",
    "evaluation.sample_examples=60",
    "evaluation.elbo_draws=2",
    "evaluation.solved_examples=8",
    "evaluation.stride=128",
)


def experiment(runs: Path, model: str, *overrides: str) -> Experiment:
    """Ten steps of `model` on embedded data, below `runs`."""
    data = "pydocs" if "sequence" in read_yaml(choices("model")[model])["structures"] else "digits"
    more = ["data.context=64"] if data == "pydocs" else []
    names = [f"data={data}", f"model={model}", f"runtime.runs={runs}", "runtime.threads=1", "runtime.device=cpu"]
    later = {override.partition("=")[0]: override for override in (*SHORT, *FEW_DRAWS, *more, *overrides)}
    found = compose([*names, *later.values()])
    inside = "first_stage" in inspect.signature(class_of({"target": found.model.target})).parameters
    if inside and "first_stage" not in later:  # as short as the rest
        stage = "model=gpt model.layers=1 model.width=32 model.heads=2" if data == "pydocs" else "model=vae"
        return compose([*names, *later.values(), f"first_stage={stage} {' '.join((*SHORT, *FEW_DRAWS))}"])
    if found.start.given and "from" not in later:  # whatever it starts from in earnest, here it is a text at hand
        start = " ".join(("model=gpt data=pydocs data.tokens=bytes", *SHORT, *FEW_DRAWS))
        return compose([*names, *later.values(), f"from={start}"])
    return found


def prepared(wanted: Experiment) -> Path:
    """The folder of a run that can begin: what it takes over has been carried out."""
    for name in wanted.stages:
        if at_hand(wanted, name) is None:
            train.carry_out(prepared(stage_of(wanted, name)), silent)
    return train.prepare(wanted)


def silent(progress: Progress) -> None:
    """Reports nothing."""


def carry_out(runs: Path, model: str, *overrides: str) -> Path:
    """The folder of such a run, carried out."""
    folder = prepared(experiment(runs, model, *overrides))
    train.carry_out(folder, silent)
    return folder


def resumed(folder: Path) -> Path:
    """The run in `folder`, stopped at its first checkpoint and carried on from there."""

    def stop_after_the_first_checkpoint(progress: Progress) -> None:
        if (folder / "last.ckpt").is_file():
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "REPORT_EVERY", 0)  # at each step
        with pytest.raises(KeyboardInterrupt):
            train.carry_out(folder, stop_after_the_first_checkpoint)
    assert not (folder / "record.json").is_file()
    train.carry_out(folder, silent)
    return folder


def values(folder: Path) -> dict[str, float | None]:
    """The scores of a run that come out the same each time: not the seconds and the memory that it took."""
    scores = read_record(folder).scores
    costs = {name for name in scores if "seconds" in name or "minutes" in name or "memory" in name}
    return {name: score.value for name, score in scores.items() if name not in costs | {"examples_per_second"}}


def curve(folder: Path, name: str) -> list[float]:
    """One curve of a run."""
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == name]
