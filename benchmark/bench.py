"""What the harness costs: steps of a model under it against steps of the same model in a bare loop.

The two alternate in one process, so that their ratio means something on a machine that others use.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from pytorch_lightning import LightningModule, Trainer

from benchmark.build import DataModule, GenerativeModel, build_model, data_of
from benchmark.config import Experiment, choices, compose
from benchmark.evaluate import cost
from benchmark.loop import Hooks, Loop, Plan, Stream, has_bfloat16, seed_everything
from benchmark.record import hardware
from benchmark.reference import Machine, loop_seconds
from benchmark.spec import Batch
from benchmark.tables import Head, Table, entries
from benchmark.train import device_named, make_plan, make_trainer, quiet_libraries

ALLOWED_MS = 0.5  # a step
ALLOWED_RATIO = 1.15  # for models whose step is not a matter of microseconds

WARM = 5  # steps of each round that are not timed
SECONDS = 1.0  # about how long a round of either loop takes
STEPS = (6, 400)  # at least and at most so many in it

Parts = dict[str, float]  # what the time of a harness step was spent on, in seconds


@dataclass(frozen=True)
class Row:
    """One model: milliseconds a step in the bare loop and under the harness, medians over rounds."""

    model: str
    data: str
    rate: float  # training examples a second under the harness
    bare: float
    harness: float
    ratio: float  # median over rounds of the ratio within a round
    ratios: tuple[float, float]  # its range over rounds
    parts: Parts  # milliseconds a step of what the harness adds, by name

    @property
    def title(self) -> str:
        return f"{self.model} on {self.data}"

    @property
    def overhead(self) -> float:
        """Milliseconds a step, from the ratio within a round."""
        return self.bare * (self.ratio - 1)

    @property
    def verdict(self) -> str:
        """Short steps are judged by the milliseconds added, long ones by the ratio, which noise leaves readable."""
        long = self.bare > ALLOWED_MS / (ALLOWED_RATIO - 1)
        within = self.ratio <= ALLOWED_RATIO if long else self.overhead <= ALLOWED_MS
        return ("within " if within else "over ") + (f"{ALLOWED_RATIO} times" if long else f"{ALLOWED_MS} ms")


def default_cases() -> list[str]:
    """Each model that has settings for text, for digits, whose steps are short, for MNIST, or for a known source."""
    text, known = ("pydocs", "tinyshakespeare"), ("synthetic_images", "synthetic_text", "gaussian_grid")
    data = (*text, "digits", "mnist", "binary_mnist", *known)
    return [f"{model}@{name}" for name in data for model in choices(f"tuned/{name}")]


def measure(case: str, rounds: int, trust: Sequence[str] = ()) -> Row:
    """Time `model@data` under its own settings. Raises `BadInput` where the data is missing."""
    quiet_libraries()
    model_name, _, data_name = case.partition("@")
    experiment = compose([f"model={model_name}", f"data={data_name}", "budget=standard"], trust)
    device = device_named(experiment.runtime.device)
    data = data_of(experiment).on(device)
    bare = _Bare(experiment, data, device)
    steps = max(STEPS[0], min(STEPS[1], round(SECONDS / _typical(bare.times(WARM)[1:]))))
    model = build_model(experiment, data.spec)
    ratios, bares, harnesses, parts = [], [], [], []
    for _ in range(rounds):
        alone = _typical(bare.times(WARM + steps)[WARM:])
        under, spent = _harness(experiment, data, model, device, WARM + steps)
        bares.append(alone)
        harnesses.append(under)
        ratios.append(under / alone)
        parts.append(spent | {"Lightning's Trainer": under - alone - sum(spent.values())})
    return Row(
        model=model_name,
        data=data_name,
        rate=experiment.training.batch_size / statistics.median(harnesses),
        bare=1000 * statistics.median(bares),
        harness=1000 * statistics.median(harnesses),
        ratio=statistics.median(ratios),
        ratios=(min(ratios), max(ratios)),
        parts={name: 1000 * statistics.median(part[name] for part in parts) for name in parts[0]},
    )


class _Bare:
    """The shortest loop that trains the model: batch, loss, gradient, step."""

    def __init__(self, experiment: Experiment, data: DataModule, device: torch.device) -> None:
        self.data, self.experiment, self.device = data, experiment, device
        seed_everything(0)
        self.model = build_model(experiment, data.spec).to(device).train()
        made = self.model.configure_optimizers()
        self.optimizers: list[Any] = list(made) if isinstance(made, Sequence) else [made]
        self.bfloat16 = experiment.training.precision == "bfloat16" and has_bfloat16(device)
        if (
            not self.model.automatic_optimization
        ):  # the model asks for its optimisers: Fabric is the least that has them
            fabric = Fabric(accelerator=device.type, devices=1, precision="bf16-mixed" if self.bfloat16 else "32-true")
            fabric.setup(self.model, *self.optimizers)

    def times(self, steps: int) -> list[float]:
        """Seconds of each of `steps` steps."""
        batches = self.data.batches(0, self.experiment.training.batch_size, 0)
        marks = [cost.clock(self.device)]
        for index in range(steps):
            x, condition = next(batches)
            condition = None if condition is None else condition.to(self.device)
            self._step(Batch(x.to(self.device), condition), index)
            marks.append(cost.clock(self.device))
        return [after - before for before, after in itertools.pairwise(marks)]

    def _step(self, batch: Batch, index: int) -> None:
        with torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else contextlib.nullcontext():
            loss = self.model.training_step(batch, index)["loss"]
        if self.model.automatic_optimization:
            (optimizer,) = self.optimizers
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _harness(
    experiment: Experiment, data: DataModule, model: GenerativeModel, device: torch.device, steps: int
) -> tuple[float, Parts]:
    """Seconds a step under the harness as runs use it, but for validation and files; and where its own time goes."""
    plan = make_plan(experiment)
    plan = replace(plan, examples=steps * plan.batch_size, validations=1, limit_seconds=math.inf)
    with tempfile.TemporaryDirectory() as folder:
        loop = _Timed(plan, device)
        loop.log_every = Loop(make_plan(experiment), loop.hooks).log_every
        trainer = make_trainer(experiment, device, loop, Path(folder))
        stream = Stream(lambda start: data.batches(0, plan.batch_size, start), loop)
        trainer.fit(model, stream)
    steps_seconds = [after - before for before, after in itertools.pairwise(loop.marks)]
    return _typical(steps_seconds), {name: _typical(spent) for name, spent in loop.spent.items()}


class _Timed(Loop):
    """The loop with a clock. The last step is not timed: validation belongs to it."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        hooks = Hooks(
            validate=lambda: 0.0,
            better=lambda: None,
            picture=lambda step: None,
            save=lambda trainer: None,
            log=lambda values, examples: None,
            report=lambda progress: None,
        )
        super().__init__(plan, hooks)
        self.device = device
        self.marks: list[float] = []
        self.spent: dict[str, list[float]] = defaultdict(list)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        before = cost.clock(self.device)
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.spent["schedule"].append(cost.clock(self.device) - before)

    def update_average(self) -> None:
        before = cost.clock(self.device)
        super().update_average()
        self.spent["averaging of weights"].append(cost.clock(self.device) - before)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        before = cost.clock(self.device)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        after = cost.clock(self.device)
        self.spent["curves and progress"].append(after - before - self.spent["averaging of weights"][-1])
        if WARM <= self.step < self.plan.steps:
            self.marks.append(after)


def _typical(seconds: Sequence[float]) -> float:
    """The lower quartile: what others do on the machine only ever adds."""
    return sorted(seconds)[len(seconds) // 4]


def as_machine(rows: Sequence[Row]) -> Machine:
    """This machine as a reference: what it is, and the rates that were measured."""
    rates: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        rates[row.data][row.model] = float(f"{row.rate:.4g}")
    return Machine(
        cpu=hardware()["cpu"],
        bfloat16=has_bfloat16(torch.device("cpu")),
        loop_seconds=round(loop_seconds(), 2),
        examples_per_second=rates,
    )


def as_table(rows: Sequence[Row]) -> Table:
    """The measurements, with what the harness's time went to."""
    parts = list(dict.fromkeys(name for row in rows for name in row.parts))
    ranks = {"bare ms": 4, "harness ms": 3, "adds ms": 2, "ratio": 0, "range": 5} | dict.fromkeys(parts, 6)
    heads = [Head("model", least=16), *(Head(title, number=True, rank=rank) for title, rank in ranks.items())]
    lines = []
    for row in rows:
        low, high = row.ratios
        spent = [f"{row.parts[name]:.3f}" for name in parts]
        shown = [f"{row.bare:.2f}", f"{row.harness:.2f}", f"{row.overhead:.2f}", f"{row.ratio:.3f}"]
        lines.append(entries([row.title, *shown, f"{low:.2f} to {high:.2f}", *spent, row.verdict]))
    return Table("", [*heads, Head("verdict", rank=1)], lines)
