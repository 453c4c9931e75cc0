"""Training: the loop with what a run does around its steps, inside Lightning's Trainer."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from pytorch_lightning import Trainer

from benchmark.build import save_weights, take_over
from benchmark.config import Experiment
from benchmark.evaluate import keyed_randomness
from benchmark.loop import Hooks, Loop, Plan, Progress, Stream
from benchmark.record import note_spent, spent
from benchmark.reference import comparison
from benchmark.spec import Diagnosable
from benchmark.train.compiled import scoring_mode, training_mode
from benchmark.train.device import in_bfloat16
from benchmark.train.journal import Journal, curves_of
from benchmark.train.parts import Parts

GRIDS = 5  # pictures during training
WATCHED = 64  # held-out examples at most on which a model's own signs are read


def train(
    parts: Parts,
    journal: Journal,
    report: Callable[[Progress], None],
    go_on: Callable[[float, int], bool],
    pictures: bool,
) -> Loop:
    """Train from the last checkpoint in the run's folder, or from the first step; the loop says how it ended.

    The weights that validation chose are in `model.safetensors`. `go_on` is asked after each validation.
    """
    experiment, folder = parts.experiment, journal.folder
    training, last = experiment.training, folder / "last.ckpt"
    plan = make_plan(experiment)
    grids = sorted(plan.validation_steps)[:: max(1, training.validations // GRIDS)] if pictures else []

    def validate() -> float | None:
        with scoring_mode(experiment):
            return _validate(parts, journal, loop)

    def picture(step: int) -> None:
        if step in grids:
            with scoring_mode(experiment):
                journal.picture(parts, f"{loop.examples:09d}", loop.examples)

    def save(trainer: Trainer) -> None:
        journal.write_curves()
        writing = folder / "last.writing"
        trainer.save_checkpoint(writing)
        writing.replace(last)

    loop = Loop(
        plan,
        Hooks(
            validate=validate,
            go_on=go_on,
            better=lambda: save_weights(parts.model, folder / "model.safetensors"),
            picture=picture,
            save=save,
            log=journal.log,
            report=report,
            spent=lambda seconds: note_spent(folder, seconds),
            predicted=lambda seconds: comparison(experiment, seconds),
            resumed=journal.forget_after,
        ),
        spent(folder),
    )
    if not last.is_file():
        take_over(parts.model, experiment)
    journal.curves = [row for row in curves_of(folder) if last.is_file()]
    trainer = make_trainer(experiment, parts.device, loop, folder)
    data = parts.data.on(parts.device)
    stream = Stream(lambda start: data.batches(experiment.seed.data, training.batch_size, start), loop)
    try:
        with training_mode(experiment, parts.model):
            trainer.fit(parts.model, stream, ckpt_path=last if last.is_file() else None, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from stop
    return loop


def _validate(parts: Parts, journal: Journal, loop: Loop) -> float | None:
    metric = parts.selection_metric
    score = parts.evaluate_on("validation", metric)[metric]
    _diagnose(parts, journal, loop)
    if score.value is not None:
        journal.log({f"val/{metric}": score.value}, loop.examples)
    elif parts.selects_by_likelihood and score.n is not None:  # it was computed, and is not finite
        return math.nan
    return score.value


def _diagnose(parts: Parts, journal: Journal, loop: Loop) -> None:
    """What the model itself knows about going wrong, on the first held-out examples."""
    model = parts.model
    if not isinstance(model, Diagnosable):
        return
    x = parts.validation[:WATCHED].to(parts.device).long()
    model.eval()
    with torch.no_grad(), keyed_randomness(parts.device, parts.experiment.seed.eval, "signs"):
        signs = model.diagnostics(x)
    model.train()
    journal.log({f"watch/{name}": value for name, value in signs.items()}, loop.examples)


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
        schedule=training.schedule,
        newest=training.weights == "last",
        limit_seconds=None if limit is None else 60 * limit,
    )


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


def quiet_libraries() -> None:
    """Lightning's remarks on every start say nothing that a user of this program can act on."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torch\.utils\.data|torch\._dynamo")
