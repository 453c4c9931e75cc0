"""How fast a GPT and a U-Net train: rate, share of the chip's peak, and the harness against a bare loop.

Both loops train the same module with the optimiser that it configures, and take turns. Time is read before and after a
window of steps, when the device has done all that it was given: asking after each step would hide what overlaps.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from benchmark.build import GenerativeModel, build_model
from benchmark.config import Experiment, compose
from benchmark.evaluate import cost
from benchmark.loop import Hooks, Loop, Plan, Stream, seed_everything
from benchmark.spec import Batch, DataSpec
from benchmark.train import blocks_compiled, in_bfloat16, make_plan, make_trainer, quiet_libraries
from scripts.gpu_check.results import Results

#: Dense bfloat16 operations a second by the name of the device: the first name that is part of its own counts.
PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H200 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}

ROUNDS = 3  # in which both loops take their turn
WARM = 3  # steps of each that are not timed
SECONDS = 1.0  # about how long a turn takes
STEPS = (4, 100)  # at least and at most so many in it
RESERVE = 20.0  # seconds that must be left for another case to begin

GOAL_SHARE, GOAL_RATIO = 0.40, 1.05


@dataclass(frozen=True)
class Case:
    """What is trained, and how its work is counted."""

    name: str
    spec: DataSpec
    settings: tuple[str, ...]  # of the experiment
    batch_sizes: tuple[int, ...]  # the first that fits into memory
    unit: str
    units: int  # in an example
    flops: Callable[[GenerativeModel, DataSpec], float]  # of training on one unit, without the optimiser
    compiled: bool = False


def check(results: Results) -> None:
    """Time every case."""
    quiet_libraries()
    name = results.about["hardware"]["device"]
    peak = peak_of(name)
    results.note(
        f"The peak is {peak / 1e12:.0f} TFLOP/s, dense bfloat16." if peak else f"No peak is known for {name}: no share."
    )
    results.note(
        "GPT: 6N + 12LDT operations a token (Chowdhery and others 2022, appendix B), with N all parameters but those "
        "that are only looked up, the embedding of tokens; the whole square of attention counts. U-Net: as torch "
        "counts products and convolutions, forward and backward. The optimiser's steps take time and count for "
        "nothing."
    )
    results.note(
        f"`ratio` is time under the harness to time in a bare loop, the median of {ROUNDS} rounds. Goals: a share of "
        f"{GOAL_SHARE:.0%} for the GPT, compiled, and a ratio of {GOAL_RATIO} at most."
    )
    if results.device.type == "cuda":
        results.add({"bfloat16 product": "8192 x 8192 x 8192", "TFLOP/s": _product(8192) / 1e12})
    for case in cases(results.rehearsed):
        if results.seconds_left < RESERVE:
            results.end(f"no time was left for {case.name} and what comes after it")
            return
        results.add({"case": case.name} | _measured(case, results.device, peak))
        gc.collect()
        torch.cuda.empty_cache()


def peak_of(name: str) -> float | None:
    """Dense bfloat16 operations a second of the device with this name, if they are known."""
    return next((peak for known, peak in PEAKS.items() if known in name), None)


def cases(small: bool) -> list[Case]:
    """The GPT under either optimiser and the U-Net, eager and compiled."""
    gpt, unet = _gpt(small), _unet(small)
    adamw = replace(gpt, name=f"{gpt.name}, AdamW", settings=(*gpt.settings, "model.optimizer=adamw"))
    gpt = replace(gpt, name=f"{gpt.name}, Muon")
    order = [(adamw, True), (gpt, True), (unet, True), (adamw, False), (gpt, False), (unet, False)]  # goals first
    return [
        replace(case, name=f"{case.name}, {'compiled' if compiled else 'eager'}", compiled=compiled)
        for case, compiled in order
    ]


def _gpt(small: bool) -> Case:
    layers, width, heads, context, vocabulary = (2, 64, 2, 64, 256) if small else (12, 768, 12, 1024, 50_304)
    sizes = (f"model.layers={layers}", f"model.width={width}", f"model.heads={heads}")

    def flops(model: GenerativeModel, spec: DataSpec) -> float:
        looked_up = sum(
            p.numel() for module in model.modules() if isinstance(module, nn.Embedding) for p in [module.weight]
        )
        return 6 * (cost.parameters(model) - looked_up) + 12 * layers * width * spec.dims

    return Case(
        f"GPT {layers} x {width}, context {context}, {vocabulary:,} tokens",
        DataSpec((context,), vocabulary, "sequence"),
        ("model=gpt", "data=synthetic_text", *sizes),
        (4,) if small else (32, 16, 8),
        "tokens",
        context,
        flops,
    )


def _unet(small: bool) -> Case:
    width, blocks, scales = (8, 1, 2) if small else (128, 2, 3)
    spec = DataSpec((1, 8, 8) if small else (3, 32, 32), 256, "grid")
    sizes = (f"model.width={width}", f"model.blocks={blocks}", f"model.scales={scales}")
    return Case(
        f"U-Net of flow matching, width {width}, {blocks} blocks at {scales} scales, {'x'.join(map(str, spec.shape))}",
        spec,
        ("model=flow_matching", "data=digits", "model.output=velocity", "training.ema_decay=0.999", *sizes),
        (16,) if small else (256, 128, 64),
        "images",
        1,
        lambda model, spec: cost.flops_per_example(model, next(batches(spec, 2))),
    )


# One case ------------------------------------------------------------------------------------------------------------


def _measured(case: Case, device: torch.device, peak: float | None) -> dict[str, Any]:
    """The row of a case, with the largest batch that fits."""
    for size in case.batch_sizes:
        try:
            return _row(case, size, device, peak)
        except torch.OutOfMemoryError:
            gc.collect()
            torch.cuda.empty_cache()
    return {"problem": f"a batch of {case.batch_sizes[-1]} does not fit into memory"}


def _row(case: Case, size: int, device: torch.device, peak: float | None) -> dict[str, Any]:
    settings = (f"training.batch_size={size}", "training.precision=bfloat16", "budget.examples=10000000")
    experiment = compose([*case.settings, *settings])
    seed_everything(0)
    model = build_model(experiment, case.spec)
    flops = case.flops(model, case.spec)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    turns = Turns(experiment, model, case.spec, device)
    with blocks_compiled(model, dynamic=False) if case.compiled else contextlib.nullcontext():
        before = _clock(device)
        turns.bare(0)  # memory is reserved, blocks are compiled
        first = _clock(device) - before
        steps = max(STEPS[0], min(STEPS[1], round(SECONDS / turns.bare(2))))
        bares, harnesses = zip(*((turns.bare(steps), turns.harness(steps)) for _ in range(ROUNDS)), strict=True)
    ratios = [under / alone for alone, under in zip(bares, harnesses, strict=True)]
    bare, harness = (size * case.units / statistics.median(seconds) for seconds in (bares, harnesses))
    row: dict[str, Any] = {"batch": size, f"{case.unit}/s, bare": bare, f"{case.unit}/s, harness": harness}
    if peak is not None:
        row |= {"share, bare": f"{bare * flops / peak:.1%}", "share, harness": f"{harness * flops / peak:.1%}"}
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return row | {
        "ratio": round(statistics.median(ratios), 3),
        "range": f"{min(ratios):.3f} to {max(ratios):.3f}",
        f"MFLOP/{case.unit.removesuffix('s')}": flops / 1e6,
        "steps": steps,
        "first steps, s": first,
        "memory, GiB": memory,
        "precision": "bfloat16" if in_bfloat16(experiment, device) else "float32",
        "_bare": bares,
        "_harness": harnesses,
    }


class Turns:
    """Steps of one module in two loops that take turns; each has an optimiser of its own."""

    def __init__(self, experiment: Experiment, model: GenerativeModel, spec: DataSpec, device: torch.device) -> None:
        self.experiment, self.model, self.spec, self.device = experiment, model, spec, device
        self.model.to(device).train()
        self.optimizer: Optimizer = model.configure_optimizers()
        self.bfloat16 = in_bfloat16(experiment, device)

    def bare(self, steps: int) -> float:
        """Seconds a step in the shortest loop that trains the model: batch, loss, gradient, step."""
        self.model.to(self.device).train()  # the Trainer leaves it on the CPU
        stream = batches(self.spec, self.experiment.training.batch_size)
        before = _clock(self.device)
        for index in range(WARM + steps):
            if index == WARM:
                before = _clock(self.device)
            x = next(stream).x.to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else contextlib.nullcontext():
                loss = self.model.training_step(Batch(x), index)["loss"]
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return (_clock(self.device) - before) / max(1, steps)

    def harness(self, steps: int) -> float:
        """Seconds a step under the loop and the Trainer of runs, without validation."""
        experiment = self.experiment
        plan = replace(make_plan(experiment), validations=1, limit_seconds=math.inf)
        every = Loop(plan, _HOOKS).log_every  # how often a run of full length is watched
        window = _Window(replace(plan, examples=(WARM + steps + 1) * plan.batch_size), self.device)
        window.log_every = every
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(experiment, self.device, window, Path(folder))
            trainer.fit(self.model, Stream(lambda start: batches(self.spec, plan.batch_size), window))
        return (window.after - window.before) / steps


_HOOKS = Hooks(
    validate=lambda: 0.0,
    better=lambda: None,
    picture=lambda step: None,
    save=lambda trainer: None,
    log=lambda values, examples: None,
    report=lambda progress: None,
)


class _Window(Loop):
    """The loop with a clock around its steps, but for the first few, and the last, to which validation belongs."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        super().__init__(plan, _HOOKS)
        self.device = device
        self.before = self.after = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.step == WARM:
            self.before = _clock(self.device)
        elif self.step == self.plan.steps - 1:
            self.after = _clock(self.device)


def batches(spec: DataSpec, size: int) -> Iterator[Batch]:
    """Random examples without end: a few batches in turn."""
    generator = torch.Generator().manual_seed(0)
    kept = [Batch(torch.randint(spec.levels, (size, *spec.shape), generator=generator)) for _ in range(4)]
    while True:
        yield from kept


def _clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _product(side: int, rounds: Sequence[int] = range(20)) -> float:
    """Operations a second of a square bfloat16 product: what the chip gives to the simplest work."""
    a, b = torch.randn(2, side, side, device="cuda", dtype=torch.bfloat16)
    seconds = []
    for _ in rounds:
        before = _clock(a.device)
        a @ b
        seconds.append(_clock(a.device) - before)
    return 2 * side**3 / statistics.median(seconds)
