"""What happens around each training step: one Lightning callback for schedule, averaging, validation and limits.

Everything is counted in steps of our own (`global_step` advances once an optimiser), everything it needs to resume is
in its state, and a run that was resumed ends as one that never stopped.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from benchmark.build import GenerativeModel
from benchmark.metrics.cost import clock

Status = Literal["finished", "diverged", "truncated", "pruned"]

CURVE_POINTS = (
    400  # values in each training curve: reading a loss at every step would cost more than the smallest steps
)
REPORT_EVERY = 0.25  # seconds
SPENT_EVERY = 10.0  # seconds between notes of how long a run has trained
FIRST_STEPS = (10, 2.0)  # steps, and seconds: after so many of both, the first steps say how long training will take
LIMIT = (1800.0, 10.0)  # a run that needs more seconds than this, and so many times its prediction, is a runaway


@dataclass(frozen=True)
class Plan:
    """How long a run trains and how it is watched."""

    examples: int
    batch_size: int
    warmup: float
    decay: float
    clip_norm: float
    ema_decay: float
    validations: int
    patience: int
    schedule: Literal["linear", "ladder", "cosine"] = "linear"
    newest: bool = False  # whether the newest weights are kept, and not those of the best validation
    limit_seconds: float | None = None  # wall time over all attempts; `None`: by what the first steps predict

    @cached_property
    def steps(self) -> int:
        return math.ceil(self.examples / self.batch_size)

    @cached_property
    def validation_steps(self) -> frozenset[int]:
        return frozenset(max(1, round(i * self.steps / self.validations)) for i in range(1, self.validations + 1))

    def rate_factor(self, progress: float) -> float:
        """Linear warm-up, constant, linear decay to zero; or along a cosine to a tenth; or down a ladder."""
        if self.schedule == "ladder":
            return ladder(progress)
        up = min(1.0, (progress + 1 / self.steps) / self.warmup) if self.warmup else 1.0
        if self.schedule == "cosine":
            passed = max(0.0, progress - self.warmup) / (1 - self.warmup)
            return min(up, 0.55 + 0.45 * math.cos(math.pi * passed))
        down = min(1.0, (1.0 - progress) / self.decay) if self.decay else 1.0
        return min(up, down)


def ladder(progress: float) -> float:
    """10^(-i/7) for 3^i of 3,280 epochs, i from 0 to 7 (Burda, Grosse and Salakhutdinov 2016, section 5).

    >>> [round(ladder(epoch / 3280), 3) for epoch in (0, 1, 3, 4, 12, 3279)]
    [1.0, 0.72, 0.72, 0.518, 0.518, 0.1]
    """
    epochs, passed = 3280 * progress, 1
    for i in range(7):
        if epochs < passed:
            return 10 ** (-i / 7)
        passed += 3 ** (i + 1)
    return 0.1


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows."""

    phase: str
    examples: int
    total: int
    loss: float | None = None
    rate: float | None = None  # examples a second
    left: float | None = None  # seconds
    note: str = ""  # how this machine compares


@dataclass(frozen=True)
class Hooks:
    """What the loop calls out to. `validate` returns the score that decides, lower is better: not finite where the
    model has diverged, `None` where it cannot be computed.

    `go_on` is told each such score and the number of examples, and says whether the run is worth continuing.
    `spent` is told the wall time of training over all attempts now and then, `predicted` what training will take, and
    `resumed` the number of examples at which a run resumes: what was logged after that comes again.
    """

    validate: Callable[[], float | None]
    better: Callable[[], None]
    picture: Callable[[int], None]
    save: Callable[[Trainer], None]
    log: Callable[[Mapping[str, float], int], None]
    report: Callable[[Progress], None]
    go_on: Callable[[float, int], bool] = lambda score, examples: True
    spent: Callable[[float], None] = lambda seconds: None
    predicted: Callable[[float], str] = lambda seconds: ""
    resumed: Callable[[int], None] = lambda examples: None


class Loop(Callback):
    """Drives one training; `status` and `reason` say how it ended."""

    def __init__(self, plan: Plan, hooks: Hooks, spent_before: float = 0.0) -> None:
        """`spent_before`: seconds that earlier attempts at this run have trained."""
        self.plan, self.hooks = plan, hooks
        self.spent_before = spent_before
        self.status: Status = "finished"
        self.reason: str | None = None
        self.step = 0
        self.ended = False
        self.stale = 0  # validations since the best
        self.best = math.inf
        self.cpu_seconds = 0.0
        self.wall_seconds = 0.0
        self.training_seconds = 0.0  # without validation
        self._stretch_began: float | None = None  # since when steps follow each other
        self._loss: float | None = None
        self._watching = False  # this step
        self._norms: dict[int, Tensor] = {}  # of each optimiser's gradient, when watched
        self._average: list[Tensor] = []
        self._parameters: list[Tensor] = []
        self._restored: dict[str, Any] | None = None
        self._note: str | None = None  # how this machine compares, once its first steps have said it
        self._limit = math.inf if plan.limit_seconds is None else plan.limit_seconds
        self.log_every = max(1, plan.steps // CURVE_POINTS)

    @property
    def examples(self) -> int:
        return self.step * self.plan.batch_size

    # Lightning's hooks, in the order in which they run ---------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in _COUNTERS:
            setattr(self, name, state_dict[name])
        self._restored = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parameters = [p.data for p in pl_module.parameters() if p.requires_grad]
        if self.plan.ema_decay:
            self._average = [p.clone() for p in self._parameters]
        if self._restored is not None:
            for mine, saved in zip(self._average, self._restored["average"], strict=True):
                mine.copy_(saved)
            set_random_state(self._restored["random"])
            self.hooks.resumed(self.examples)
        else:
            self.hooks.validate()  # where training starts: what diverges may end worse
        trainer.should_stop = self.ended
        self._cpu_before = time.process_time() - self.cpu_seconds
        self._wall_before = time.perf_counter() - self.wall_seconds
        self._started_at, self._started_with = time.perf_counter(), self.step
        self._reported_at = self._spent_at = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, GenerativeModel)
        pl_module.progress = self.step / self.plan.steps
        factor = self.plan.rate_factor(pl_module.progress)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("peak_lr", group["lr"]) * factor
        self._watching = (self.step + 1) % self.log_every == 0 or self.step == 0
        if self._stretch_began is None:
            self._stretch_began = clock(pl_module.device)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Clips by the global norm. The Trainer would refuse fused optimisers in bfloat16, and manual optimisation."""
        if not (self.plan.clip_norm or self._watching):
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self._watching:
            self._norms[trainer.optimizers.index(optimizer)] = norm
        if self.plan.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.plan.clip_norm, norm)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.step += 1
        self.update_average()
        if self._watching:
            self._watch(trainer, outputs)
        now = time.perf_counter()
        if now - self._reported_at > REPORT_EVERY:
            self._report(now)
            if self._is_runaway(now):
                self._end_stretch(pl_module.device)
                self._interrupt(trainer)
                return
        if self.step in self.plan.validation_steps or trainer.should_stop:
            self._end_stretch(pl_module.device)
            self._validate(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COUNTERS} | {
            "average": self._average,
            "random": get_random_state(),
        }

    # What they do ----------------------------------------------------------------------------------------------------

    def update_average(self) -> None:
        """One step of the moving average of weights, with a short memory while they still move fast."""
        if self._average:
            decay = min(self.plan.ema_decay, self.step / (9 + self.step))
            torch._foreach_lerp_(self._average, self._parameters, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has the moving average of its weights."""
        if not self._average:
            yield
            return
        live = [p.clone() for p in self._parameters]
        torch._foreach_copy_(self._parameters, self._average)
        try:
            yield
        finally:
            torch._foreach_copy_(self._parameters, live)

    def _watch(self, trainer: Trainer, outputs: Any) -> None:
        values = {name: float(torch.as_tensor(value).detach()) for name, value in outputs.items()}
        self._loss = values.get("loss")
        norms = {f"watch/gradient_norm_{index}": float(norm) for index, norm in sorted(self._norms.items())}
        self._norms.clear()
        self.hooks.log({f"train/{name}": value for name, value in values.items()} | norms, self.examples)
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            self._stop(trainer, "diverged", f"{broken[0]} is {values[broken[0]]}")

    def _validate(self, trainer: Trainer) -> None:
        if self.status == "diverged":
            return
        with self.averaged():
            value = self.hooks.validate()
            if value is not None and not math.isfinite(value):
                self._stop(trainer, "diverged", f"validation is {value}")
                return
            if value is None:  # it cannot be judged: the newest weights stand until one can
                if math.isinf(self.best):
                    self.hooks.better()
            elif value < self.best or self.plan.newest:
                self.best, self.stale = value, 0
                self.hooks.better()
            else:
                self.stale += 1
            self.hooks.picture(self.step)
        promising = value is None or self.hooks.go_on(value, self.examples)
        if not promising and self.status == "finished" and self.step < self.plan.steps:
            self._stop(trainer, "pruned", "behind other trials")
        if self.step >= self.plan.steps or 0 < self.plan.patience <= self.stale:
            trainer.should_stop = True
        self.ended = trainer.should_stop
        self._clock(time.perf_counter())
        self.hooks.save(trainer)

    def _end_stretch(self, device: torch.device) -> None:
        """Count the time of the steps since the last one. A GPU is waited for here alone, not at each step."""
        if self._stretch_began is not None:
            self.training_seconds += clock(device) - self._stretch_began
            self._stretch_began = None

    def _clock(self, now: float) -> None:
        self.wall_seconds, self.cpu_seconds = now - self._wall_before, time.process_time() - self._cpu_before

    def _stop(self, trainer: Trainer, status: Status, why: str) -> None:
        self.status = status
        self.reason = f"{why}, at {self.examples:,} of {self.plan.examples:,} examples"
        trainer.should_stop = True

    def _is_runaway(self, now: float) -> bool:
        """Whether all attempts together have trained for longer than a run of this kind can need."""
        spent = self.spent_before + now - self._started_at
        if now - self._spent_at > SPENT_EVERY:
            self._spent_at = now
            self.hooks.spent(spent)
        return spent > self._limit and self.step < self.plan.steps

    def _interrupt(self, trainer: Trainer) -> None:
        """End without a validation, so that a resumed run ends as one that was never interrupted."""
        self._clock(time.perf_counter())
        self.hooks.save(trainer)
        self.hooks.spent(self.spent_before + time.perf_counter() - self._started_at)
        self._stop(trainer, "truncated", f"the limit of {self._limit / 60:g} minutes was reached")

    def _report(self, now: float) -> None:
        self._reported_at = now
        steps, seconds = self.step - self._started_with, max(now - self._started_at, 1e-9)
        rate = steps * self.plan.batch_size / seconds
        if self._note is None and steps >= FIRST_STEPS[0] and seconds >= FIRST_STEPS[1]:
            predicted = self.plan.examples / rate
            self._note = self.hooks.predicted(predicted)
            if self.plan.limit_seconds is None:
                self._limit = max(LIMIT[0], LIMIT[1] * predicted)
        left = max(0.0, (self.plan.examples - self.examples) / rate)
        note = self._note or ""
        self.hooks.report(Progress("training", self.examples, self.plan.examples, self._loss, rate, left, note))


_COUNTERS = (
    *("step", "status", "reason", "ended", "stale", "best"),
    *("cpu_seconds", "wall_seconds", "training_seconds"),
)


class Stream:
    """The loader that Lightning sees: batches without end, from where the loop stands."""

    def __init__(self, batches: Callable[[int], Iterator[Any]], loop: Loop) -> None:
        self._batches, self._loop = batches, loop

    def __iter__(self) -> Iterator[Any]:
        return self._batches(self._loop.step)


def get_random_state() -> dict[str, Any]:
    """The states of torch, numpy and python as tensors and plain numbers, which load with `weights_only=True`."""
    name, keys, position, has_gauss, gauss = cast(Any, np.random.get_state(legacy=True))
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss_next],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `get_random_state` took."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss_next))


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is native there: emulated, it is many times slower.

    `BENCHMARK_BFLOAT16=0` makes it say no: what an ordinary machine does, tried on one that has it.
    """
    if os.environ.get("BENCHMARK_BFLOAT16") == "0":
        return False
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
