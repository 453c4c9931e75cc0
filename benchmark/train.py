"""An experiment becomes a checkpoint and a record: trained, watched, scored, logged.

A run's folder holds `config.yaml`, `last.ckpt` (to resume from), `model.safetensors` (the weights that validation
chose), `curves.csv`, `samples/`, `wandb/`, `likelihoods.npz` and, when all is done, `record.json`.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import secrets
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pytorch_lightning import Trainer

from benchmark import exams
from benchmark import record as records
from benchmark.build import (
    DataModule,
    Examination,
    GenerativeModel,
    build_data,
    build_examination,
    build_model,
    check_model,
    data_of,
    load_weights,
    save_weights,
    take_over,
)
from benchmark.config import Experiment, load_data, resumed
from benchmark.evaluate import (
    Experts,
    Protocol,
    Result,
    cost,
    draw_samples,
    evaluate,
    keyed_randomness,
    load_extractor,
    load_judge,
    references,
    selection_metric,
)
from benchmark.facts import COSTS, modality
from benchmark.loop import Hooks, Loop, Plan, Progress, Stream, has_bfloat16, seed_everything
from benchmark.record import Record
from benchmark.reference import comparison
from benchmark.spec import Absence, BadInput, Diagnosable, Outliers, Score, unknown
from benchmark.stages import settled
from benchmark.tracking import Tracker
from benchmark.watch import stability

GRIDS = 5  # pictures during training
WATCHED = 64  # held-out examples at most on which a model's own signs are read


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
    records.write_atomic(folder / "config.yaml", yaml.safe_dump(experiment.container(), sort_keys=False))
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
    outliers(experiment, data)
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
    _read_curves(folder / "curves.csv")


class _Run:
    """One run on its way from a configuration to a record."""

    def __init__(
        self, experiment: Experiment, folder: Path, report: Callable[[Progress], None], purpose: Purpose
    ) -> None:
        self.experiment, self.folder, self.report, self.purpose = experiment, folder, report, purpose
        self.started, self.clock = records.now(), time.perf_counter()
        self.curves: list[tuple[int, str, float]] = []
        self.scores: dict[str, Score] = {}
        self.stability: dict[str, float] = {}
        self.dataset: dict[str, Any] = {}
        self.share: float | None = None
        self.impossible: str | None = None
        self.tracker: Tracker | None = None

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
        experiment = self.experiment
        seed_everything(experiment.seed.init)
        self.report(Progress("loading", 0, experiment.budget.examples))
        self.data = data_of(experiment)
        self.dataset = self.data.describe()
        self.model = build_model(experiment, self.data.spec)
        self.flops_per_example = count_flops(experiment, self.data, self.model)
        self.device = device_named(experiment.runtime.device)
        self.examination = build_examination(experiment.data.modality, experiment.trust)
        self.experts = experts_of(experiment, self.data)
        self.tracker = Tracker(
            self.folder,
            run_id=self.folder.name,
            name=experiment.title,
            group=self.purpose.group or f"{experiment.data.name}/{experiment.model.name}/{experiment.budget.name}",
            job_type=self.purpose.kind,
            tags=[experiment.family, experiment.data.name, experiment.budget.name],
            config=experiment.container() | {"family": experiment.family},
        )
        loop = self._train()
        self.share = min(1.0, loop.examples / loop.plan.examples)
        self.stability = stability(self.curves, self._selection_metric)
        if loop.status in ("diverged", "truncated"):
            return self._finish(loop.status, loop.reason)
        self.scores = self._selection(loop) | self._training_cost(loop)
        if loop.status != "pruned":
            load_weights(self.model, self.folder / "model.safetensors")
            self._score(loop)
        return self._finish(loop.status, loop.reason)

    # Training --------------------------------------------------------------------------------------------------------

    def _train(self) -> Loop:
        experiment, training = self.experiment, self.experiment.training
        plan = make_plan(experiment)
        grids = sorted(plan.validation_steps)[:: max(1, training.validations // GRIDS)]
        if self.purpose.kind == "trial":
            grids = []
        loop = Loop(
            plan,
            Hooks(
                validate=lambda: self._validate(loop),
                go_on=self.purpose.go_on,
                better=lambda: save_weights(self.model, self.folder / "model.safetensors"),
                picture=lambda step: self._picture(f"{loop.examples:09d}", loop.examples) if step in grids else None,
                save=self._save,
                log=self._log,
                report=self.report,
                spent=lambda seconds: records.note_spent(self.folder, seconds),
                predicted=lambda seconds: comparison(experiment, seconds),
                resumed=self._forget_after,
            ),
            records.spent(self.folder),
        )
        last = self.folder / "last.ckpt"
        if not last.is_file():
            take_over(self.model, experiment)
        self.curves = [row for row in _read_curves(self.folder / "curves.csv") if last.is_file()]
        trainer = make_trainer(experiment, self.device, loop, self.folder)
        stream = Stream(lambda start: self.data.batches(experiment.seed.data, training.batch_size, start), loop)
        try:
            trainer.fit(self.model, stream, ckpt_path=last if last.is_file() else None, weights_only=True)
        except SystemExit as stop:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stop
        return loop

    def _validate(self, loop: Loop) -> float | None:
        metric = self._selection_metric
        score = self._evaluate_on("validation", metric)[metric]
        self._diagnose(loop)
        if score.value is not None:
            self._log({f"val/{metric}": score.value}, loop.examples)
        elif self._selects_by_likelihood and score.n is not None:  # it was computed, and is not finite
            return math.nan
        return score.value

    def _evaluate_on(self, split: Literal["train", "validation"], *metrics: str) -> dict[str, Score]:
        """As validation does it: with few draws, on a fixed subset where the split is large."""
        settings = self.experiment.evaluation
        examples = settings.validation_examples
        if split == "train":  # as many as validation has
            examples = min(examples, len(self._validation))
        protocol = Protocol(
            split,
            self.experiment.seed.eval,
            elbo_draws=settings.validation_draws,
            sample_draws=settings.validation_draws,
            sample_examples=settings.validation_examples,
            examples=examples,
        )
        return evaluate(self.model, self.data, protocol, self.examination, self.experts, metrics).scores

    @property
    def _validation(self) -> torch.Tensor:
        """The examples `[n, *shape]` of validation: images, or windows of text."""
        return self.data.split("validation").examples(self.data.spec.shape)

    def _diagnose(self, loop: Loop) -> None:
        """What the model itself knows about going wrong, on the first held-out examples."""
        if not isinstance(self.model, Diagnosable):
            return
        x = self._validation[:WATCHED].long().to(self.device)
        self.model.eval()
        with torch.no_grad(), keyed_randomness(self.device, self.experiment.seed.eval, "signs"):
            signs = self.model.diagnostics(x)
        self.model.train()
        self._log({f"watch/{name}": value for name, value in signs.items()}, loop.examples)

    def _save(self, trainer: Trainer) -> None:
        _write_curves(self.folder / "curves.csv", self.curves)
        writing = self.folder / "last.writing"
        trainer.save_checkpoint(writing)
        writing.replace(self.folder / "last.ckpt")

    def _picture(self, name: str, examples: int) -> None:
        self.model.eval()
        samples = draw_samples(self.model, self.examination.fact.shown, self.experiment.seed.eval)
        self.model.train()
        self._show(samples, name, examples, "samples")

    def _show(self, x: torch.Tensor, name: str, examples: int, title: str) -> None:
        """Write samples as people look at them, and log them under a title."""
        (self.folder / "samples").mkdir(exist_ok=True)
        file = self.examination.modality.show(x, self.data.spec, self.data.decode, self.folder / "samples" / name)
        if self.tracker is not None:
            self.tracker.samples(file, examples, title)

    def _forget_after(self, examples: int) -> None:
        """Drop what an attempt that failed logged after its last checkpoint."""
        self.curves = [row for row in self.curves if row[0] <= examples]

    def _log(self, values: Mapping[str, float], examples: int) -> None:
        self.curves += [(examples, name, value) for name, value in values.items()]
        if self.tracker is not None:
            self.tracker.log(values, examples)

    # Scoring ---------------------------------------------------------------------------------------------------------

    def _score(self, loop: Loop) -> None:
        experiment = self.experiment
        self.report(Progress("scoring", loop.examples, loop.plan.examples))
        self.model.to(self.device).eval()
        self._overfitting(loop)
        if self.purpose.kind == "trial":
            if not self._selects_by_likelihood:
                self.scores |= self._evaluate_on("validation", *self.examination.fact.trials)
            return
        protocol = final_protocol(experiment)
        result = evaluate(self.model, self.data, protocol, self.examination, self.experts)
        found = references(self.data, protocol, self.examination, self.experts)
        self.dataset["references"] = {
            name: {metric: asdict(score) for metric, score in scores.items()} for name, scores in found.items()
        }
        self.scores |= result.scores | self._sampling_cost(result)
        self.impossible = result.impossible
        records.write_per_example(self.folder, {name: values.numpy() for name, values in result.per_example.items()})
        self._picture("final", loop.examples)
        for name, x in result.pictures.items():
            self._show(x, name, loop.examples, name)

    @property
    def _selection_metric(self) -> str:
        given = self.experiment.training.selection
        return selection_metric(self.model, self.examination) if given == "auto" else given

    @property
    def _selects_by_likelihood(self) -> bool:
        return self.examination.metrics[self._selection_metric].fact.of == "likelihood"

    def _selection(self, loop: Loop) -> dict[str, Score]:
        """The validation score that chose the checkpoint: it has seen the choice, so it is not a result."""
        metric = self._selection_metric
        protocol, unit = {"split": "validation", "metric": metric}, self.examination.metrics[metric].fact.unit
        if math.isinf(loop.best):
            absent = Absence("failed", f"{metric} could not be computed in validation: the last checkpoint is kept")
            return {"selection": Score(unit, 1, protocol=protocol, absent=absent)}
        return {"selection": Score(unit, 1, loop.best, protocol=protocol)}

    def _overfitting(self, loop: Loop) -> None:
        """How much worse validation is than as many training examples, in the unit of the score that selects."""
        metric = self._selection_metric
        if self._selects_by_likelihood and math.isfinite(loop.best):
            score = self._evaluate_on("train", metric)[metric]
            if score.value is not None:
                self.stability["generalisation_gap"] = loop.best - score.value

    def _training_cost(self, loop: Loop) -> dict[str, Score]:
        values = {
            "parameters": cost.parameters(self.model),
            "examples_per_second": loop.examples / loop.training_seconds,
            "peak_memory": cost.peak_memory(),
            "wall_seconds": loop.wall_seconds,
            "cpu_minutes": loop.cpu_seconds / 60,
        }
        scores = {name: cost.score(name, value) for name, value in values.items()}
        before = [origin.cpu_minutes or 0.0 for origin in self.experiment.origins.values()]
        if before:  # what was trained for it counts
            own = values["cpu_minutes"]
            scores["cpu_minutes"] = cost.score(
                "cpu_minutes", own + sum(before), {"how": {"of this run": round(own, 4)}}
            )
        return scores | {"flops_per_example": self.flops_per_example}

    def _sampling_cost(self, result: Result) -> dict[str, Score]:
        seconds = result.sampling_seconds
        n = self.examination.fact.shown
        if seconds is None:
            before = time.perf_counter()
            draw_samples(self.model, n, self.experiment.seed.eval)
            seconds = (time.perf_counter() - before) / n * 1000
        sampler = self.model.sampler
        how = {"how": {"sampler": sampler.name, "evaluations": sampler.evaluations}}
        values = {"sampling_seconds": seconds, "sampling_evaluations": 1000 * sampler.evaluations}
        return {name: cost.score(name, value, how) for name, value in values.items()}

    # The end ---------------------------------------------------------------------------------------------------------

    def _finish(self, status: records.Status, reason: str | None) -> Record:
        experiment, device = self.experiment, device_named(self.experiment.runtime.device)
        _write_curves(self.folder / "curves.csv", self.curves)
        if self.tracker is not None:
            self.tracker.summary(self.scores, experiment.evaluation.split, COSTS, self.stability)
            self.tracker.finish(exit_code=0 if status in ("finished", "pruned") else 1)
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
            hardware=records.hardware() | _hardware(device),
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


def count_flops(experiment: Experiment, data: DataModule, model: GenerativeModel) -> Score:
    """What training `model` on an example costs, from a batch of the experiment; nothing else changes by it."""
    batch = next(data.batches(experiment.seed.data, experiment.training.batch_size))
    try:
        return cost.score("flops_per_example", cost.flops_per_example(model, batch))
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        first = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".removesuffix(": ")  # as in a user's model
        return cost.absent("flops_per_example", f"a training step cannot be counted: {first}")


def make_trainer(experiment: Experiment, device: torch.device, loop: Loop, folder: Path) -> Trainer:
    """Lightning's Trainer with all that the loop does itself switched off."""
    return Trainer(
        accelerator=device.type,
        devices=1,
        precision="bf16-mixed" if in_bfloat16(experiment, device) else "32-true",
        max_epochs=-1,  # the loop counts examples and stops
        callbacks=[loop],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def in_bfloat16(experiment: Experiment, device: torch.device) -> bool:
    """Whether an experiment trains in bfloat16 there: if it asks for it, and the hardware has it."""
    return experiment.training.precision == "bfloat16" and has_bfloat16(device)


def make_plan(experiment: Experiment) -> Plan:
    """How long an experiment trains and how it is watched."""
    training, limit = experiment.training, experiment.runtime.limit_minutes
    return Plan(
        examples=experiment.budget.examples,
        batch_size=training.batch_size,
        warmup=training.warmup,
        decay=training.decay,
        clip_norm=training.clip_norm,
        ema_decay=training.ema_decay,
        validations=training.validations,
        patience=training.patience,
        limit_seconds=None if limit is None else 60 * limit,
    )


def final_protocol(experiment: Experiment) -> Protocol:
    """The conditions under which a finished run is scored."""
    settings = experiment.evaluation
    return Protocol(
        settings.split,
        experiment.seed.eval,
        elbo_draws=settings.elbo_draws,
        importance_samples=settings.importance_samples,
        importance_examples=settings.importance_examples,
        solved_examples=settings.solved_examples,
        sample_draws=settings.sample_draws,
        sample_examples=settings.sample_examples,
        stride=settings.stride,
    )


def outliers(experiment: Experiment, data: DataModule) -> Outliers | None:
    """The other dataset that `evaluation.outliers` names. Raises `BadInput` where its images are of another kind."""
    name, split = experiment.evaluation.outliers, experiment.evaluation.split
    if name == "corrupted":
        return None
    other = build_data(load_data(name, experiment.trust), experiment.runtime.data_root)
    if (other.spec.shape, other.spec.levels) != (data.spec.shape, data.spec.levels):
        raise BadInput(
            f"evaluation.outliers={name} has shape {other.spec.shape} and {other.spec.levels} levels, the data "
            f"{data.spec.shape} and {data.spec.levels}: name data of the same kind, or corrupted"
        )
    return Outliers(f"{name}, {split}", other.split(split).x)


def experts_of(experiment: Experiment, data: DataModule) -> Experts:
    """Who is asked about this experiment's samples, and what its likelihood should reject."""
    inception = experiment.runtime.inception
    extractor = load_extractor(experiment.data.name, data.spec, Path(inception) if inception else None)
    return Experts(extractor, load_judge(experiment.data.name, data.spec), outliers(experiment, data))


def device_named(name: str) -> torch.device:
    if name == "gpu" and not torch.cuda.is_available():
        raise BadInput("runtime.device=gpu, but torch finds no GPU: set runtime.device=cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _hardware(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "bfloat16": has_bfloat16(device),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def _read_curves(file: Path) -> list[tuple[int, str, float]]:
    if not file.is_file():
        return []
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))[1:]
        return [(int(examples), name, float(value)) for examples, name, value in rows]
    except ValueError as error:
        raise BadInput(f"{file} does not hold the curves of a run ({error}): remove it, and they begin anew") from error


def _write_curves(file: Path, rows: list[tuple[int, str, float]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([("examples", "name", "value"), *rows])
    records.write_atomic(file, buffer.getvalue())


def quiet_libraries() -> None:
    """Lightning's remarks on every start say nothing that a user of this program can act on."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torch\.utils\.data")
