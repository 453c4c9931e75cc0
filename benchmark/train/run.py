"""One run: what it is for, its folder, and its way from there to a record."""

from __future__ import annotations

import secrets
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark import exams
from benchmark import record as records
from benchmark.build import (
    Examination,
    build_examination,
    build_model,
    check_model,
    data_of,
    load_weights,
    take_over,
)
from benchmark.config import Experiment, dump_yaml, resumed
from benchmark.evaluate import cost, evaluate
from benchmark.facts import COSTS, modality
from benchmark.loop import Loop, Progress, seed_everything
from benchmark.record import Record
from benchmark.spec import BadInput, Score, unknown
from benchmark.stages import settled
from benchmark.tracking import Tracker
from benchmark.train.compiled import is_compiled
from benchmark.train.device import described, device_named, in_bfloat16
from benchmark.train.journal import Journal, curves_of
from benchmark.train.parts import Parts, experts_of, outliers, reader
from benchmark.train.references import references_of
from benchmark.train.scoring import (
    count_flops,
    final_protocol,
    generalisation_gap,
    sampling_cost,
    selection_score,
    training_cost,
)
from benchmark.train.training import quiet_libraries, train
from benchmark.watch import stability


@dataclass(frozen=True)
class Purpose:
    """What a run is for. A trial belongs to a study: it sees only the validation split, and may be pruned."""

    kind: records.Kind = "run"
    group: str | None = None  # in Weights & Biases; `None`: runs of one model under one budget
    go_on: Callable[[float, int], bool] = lambda score, examples: True  # asked after each validation


def prepare(experiment: Experiment, folder: Path | None = None) -> Path:
    """A new run's folder, with the resolved configuration in it. Wrong options are refused before it exists.

    Weights that it takes over must be there: `launch` makes what is missing.
    """
    check_model(experiment)  # before anything is looked for
    experiment = settled(experiment, trust=experiment.trust)
    _check(experiment)
    if folder is None:
        folder = Path(experiment.runtime.runs) / experiment.data.name / experiment.model.name / secrets.token_hex(4)
    folder.mkdir(parents=True, exist_ok=True)
    records.write_atomic(folder / "config.yaml", dump_yaml(experiment.container()))
    records.begin(folder, _decisive(experiment), experiment.targets)
    return folder


def _decisive(experiment: Experiment) -> dict[str, Any]:
    """What a run's result depends on: it may not change while the run is under way."""
    return experiment.model_dump(mode="json", exclude={"runtime"})


def _check(experiment: Experiment) -> None:
    """Raises `BadInput` where options, data and machine do not go together, as far as that is known without training.

    The data is read and the model built, and both are forgotten.
    """
    check_model(experiment)  # its types, before data costs anything
    device_named(experiment.runtime.device)
    data = data_of(experiment)
    take_over(build_model(experiment, data.spec), experiment)
    _check_selection(experiment, build_examination(experiment.data.modality, experiment.trust))
    if data.trains_on_validation and experiment.training.weights != "last":
        raise BadInput(
            "training sees the validation split, which cannot choose weights then: set training.weights=last"
        )
    outliers(experiment, data)
    reader(experiment, data)
    inception, batch_size = experiment.runtime.inception, experiment.training.batch_size
    if inception is not None and not Path(inception).is_file():
        raise BadInput(f"runtime.inception={inception} is not a file: give the path of the weights, or leave it out")
    n = len(data.split("train").x)
    if batch_size > n:
        raise BadInput(f"training.batch_size={batch_size} is more than {experiment.data.name} has: give 1 to {n}")


def _check_selection(experiment: Experiment, examination: Examination) -> None:
    """Raises `BadInput` where the metric that selects is none of the data's, or less of it is not better."""
    selection = experiment.training.selection
    allowed = [name for name, measure in examination.metrics.items() if measure.fact.better == "lower"]
    if selection not in ("auto", *allowed):
        raise unknown(f"metric of {examination.fact.title} to select by", selection, ["auto", *allowed])


def carry_out(
    folder: Path,
    report: Callable[[Progress], None],
    trust: tuple[str, ...] = (),
    purpose: Purpose = Purpose(),
    overrides: Sequence[str] = (),
    changed_code: bool = False,
) -> Record:
    """Train and score what `config.yaml` in `folder` says; the record there says how it ended.

    A run that was stopped, that failed or that reached its limit resumes from its last checkpoint, with the same result
    as if it had never stopped. `overrides` (`runtime.limit_minutes=90`) may change how it runs, not what it computes.
    Where the code has changed since it began, it is refused, unless `changed_code` allows it.
    """
    experiment = resumed(folder, overrides, trust)
    if purpose.kind == "trial" and experiment.evaluation.split != "validation":
        raise BadInput(f"{folder}: a trial never sees the test split: set evaluation.split=validation")
    with records.carrying_on(folder):
        if not records.is_unfinished(folder):
            raise BadInput(f"{folder} is finished: its record is never overwritten; start a new run instead")
        _check_left_behind(folder)
        records.check_code(folder, experiment.targets, changed_code)
        records.check_unchanged(folder, _decisive(experiment))
        records.set_aside(folder)
        return _Run(experiment, folder, report, purpose).carry_out()


def _check_left_behind(folder: Path) -> None:
    """Raises `BadInput` where what an earlier attempt left in a run's folder is damaged."""
    last = folder / "last.ckpt"
    if last.is_file() and not zipfile.is_zipfile(last):
        raise BadInput(f"{last} is damaged: remove it, and the run begins anew")
    records.spent(folder)
    curves_of(folder)


class _Run:
    """One run on its way from a configuration to a record."""

    def __init__(
        self, experiment: Experiment, folder: Path, report: Callable[[Progress], None], purpose: Purpose
    ) -> None:
        self.experiment, self.folder, self.report, self.purpose = experiment, folder, report, purpose
        self.started, self.clock = records.now(), time.perf_counter()
        self.journal = Journal(folder)
        self.scores: dict[str, Score] = {}
        self.stability: dict[str, float] = {}
        self.dataset: dict[str, Any] = {}
        self.share: float | None = None
        self.impossible: str | None = None
        self.compiled = False

    def carry_out(self) -> Record:
        quiet_libraries()
        if self.experiment.runtime.threads:
            torch.set_num_threads(self.experiment.runtime.threads)
        try:
            return self._train_and_score()
        finally:
            error = sys.exception()
            if isinstance(error, Exception) and not isinstance(error, BadInput):
                self._finish("failed", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")

    def _train_and_score(self) -> Record:
        experiment, journal = self.experiment, self.journal
        seed_everything(experiment.seed.init)
        self.report(Progress("loading", 0, experiment.budget.examples))
        data = data_of(experiment)
        self.dataset = data.describe()
        model = build_model(experiment, data.spec)
        flops = count_flops(experiment, data, model)
        device = device_named(experiment.runtime.device)
        cost.forget_peak_memory(device)
        parts = Parts(
            experiment,
            data,
            model,
            device,
            build_examination(experiment.data.modality, experiment.trust),
            experts_of(experiment, data, device),
        )
        journal.tracker = Tracker(
            self.folder,
            run_id=self.folder.name,
            name=experiment.title,
            group=self.purpose.group or f"{experiment.data.name}/{experiment.model.name}/{experiment.budget.name}",
            job_type=self.purpose.kind,
            tags=[experiment.family, experiment.data.name, experiment.budget.name],
            config=experiment.container() | {"family": experiment.family},
        )
        self.compiled = is_compiled(experiment, parts.model)
        loop = train(parts, journal, self.report, self.purpose.go_on, pictures=self.purpose.kind != "trial")
        self.share = min(1.0, loop.examples / loop.plan.examples)
        self.stability = stability(journal.curves, parts.selection_metric)
        if loop.status in ("diverged", "truncated"):
            return self._finish(loop.status, loop.reason)
        chosen = {"selection": selection_score(parts, loop.best)}
        self.scores = chosen | training_cost(parts, loop) | {"flops_per_example": flops}
        if loop.status != "pruned":
            load_weights(model, self.folder / "model.safetensors")
            self._score(parts, loop)
        return self._finish(loop.status, loop.reason)

    def _score(self, parts: Parts, loop: Loop) -> None:
        self.report(Progress("scoring", loop.examples, loop.plan.examples))
        parts.model.to(parts.device).eval()
        if (gap := generalisation_gap(parts, loop.best)) is not None:
            self.stability["generalisation_gap"] = gap
        if self.purpose.kind == "trial":
            if not parts.selects_by_likelihood:
                self.scores |= parts.evaluate_on("validation", *parts.examination.fact.trials)
            return
        protocol = final_protocol(self.experiment)
        result = evaluate(parts.model, parts.data, protocol, parts.examination, parts.experts)
        self.dataset["references"] = references_of(
            self.experiment, parts.data, protocol, parts.examination, parts.experts, parts.device
        )
        self.scores |= result.scores | sampling_cost(parts, result)
        self.impossible = result.impossible
        records.write_per_example(self.folder, {name: values.numpy() for name, values in result.per_example.items()})
        self.journal.picture(parts, "final", loop.examples)
        for name, values in result.curves.items():
            self.journal.keep(name, values.tolist())
        for name, x in result.pictures.items():
            self.journal.show(parts, x, name, loop.examples, name)

    def _finish(self, status: records.Status, reason: str | None) -> Record:
        experiment, device = self.experiment, device_named(self.experiment.runtime.device)
        self.journal.write_curves()
        if (tracker := self.journal.tracker) is not None:
            tracker.summary(self.scores, experiment.evaluation.split, COSTS, self.stability)
            tracker.finish(exit_code=0 if status in ("finished", "pruned") else 1)
        config = experiment.to_record()
        record = Record(
            schema=records.SCHEMA,
            kind=self.purpose.kind,
            status=status,
            reason=reason,
            model=experiment.model.name,
            data=experiment.data.name,
            budget=experiment.budget.name,
            seed=experiment.seed.model_dump(),
            config=config,
            config_hash=experiment.config_hash,
            share=self.share,
            impossible=self.impossible,
            precision="bfloat16" if in_bfloat16(experiment, device) else "float32",
            code_hash=records.code_hash(),
            git=records.git_state(),
            dataset=self.dataset,
            environment=records.environment() | records.changed_code(self.folder),
            sources=records.sources(experiment.targets),
            exam=exams.said_of(
                records.model_targets(config),
                modality(experiment.data.modality).structure,
                Path(experiment.runtime.runs),
            ),
            hardware=records.hardware() | described(device, self.compiled),
            started=self.started,
            seconds=round(time.perf_counter() - self.clock, 3),
            scores=self.scores,
            stability=self.stability,
        )
        records.write_record(self.folder, record)
        if self.purpose.kind == "trial" and status not in records.UNFINISHED:
            (self.folder / "last.ckpt").unlink(missing_ok=True)  # there are many of them, and none is resumed
        self.report(Progress(status, experiment.budget.examples, experiment.budget.examples))
        return record
