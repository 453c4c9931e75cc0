"""What a model costs, in the units of `benchmark.facts`; who measures the times is the harness."""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from benchmark.facts import COSTS
from benchmark.spec import Absence, Batch, Score

CYCLE = 6  # steps of one network that may go with one of another


def score(name: str, value: float, protocol: Mapping[str, Any] = MappingProxyType({})) -> Score:
    """The cost called `name` at the version that is measured today."""
    fact = COSTS[name]
    return Score(fact.unit, fact.version, float(value), protocol=dict(protocol))


def absent(name: str, reason: str) -> Score:
    """The cost called `name`, which could not be measured."""
    fact = COSTS[name]
    return Score(fact.unit, fact.version, absent=Absence("failed", reason))


def parameters(module: nn.Module) -> int:
    """Numbers that gradients train. Frozen parts and moving averages do not count."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def flops_per_example(model: LightningModule, batch: Batch) -> float:
    """Floating-point operations of training on an example: forward and backward passes, without the optimiser.

    Matrix products, convolutions and attention, two for each multiply-add; elementwise work is not counted. It is
    counted on a copy, on `meta` (shapes alone) where the model allows: parameters, running statistics and random states
    stay as they are. Where a model steps its optimisers itself, and one of them at every k-th step alone, k <= `CYCLE`,
    the mean of k steps counts. Raises whatever a training step of the model raises.
    """
    try:
        counts = _counts(copy.deepcopy(model).to("meta"), batch, "meta")
    except (RuntimeError, TypeError, ValueError):  # it reads values, or an operation has no rule for shapes
        counts = _counts(copy.deepcopy(model).cpu(), batch, "cpu")
    period = next(k for k in range(1, len(counts) + 1) if counts[k:] == counts[:-k])
    return sum(counts[:period]) / period / len(batch.x)


def _counts(model: LightningModule, batch: Batch, device: str) -> list[int]:
    """Operations of each of a few training steps of `model`, whose gradients and statistics change."""
    model.train()
    batch = Batch(batch.x.to(device), None if batch.condition is None else batch.condition.to(device))
    if not model.automatic_optimization:
        made: Any = model.configure_optimizers()
        idle = [_Idle(one) for one in (made if isinstance(made, Sequence) else [made])]
        given = idle if len(idle) > 1 else idle[0]
        vars(model).update(optimizers=lambda: given, manual_backward=lambda loss, **_: loss.backward())
    counts = []
    for step in range(1 if model.automatic_optimization else CYCLE):
        with torch.random.fork_rng(devices=[]), _unfused(), _whole() as counter:
            outputs: Any = model.training_step(batch, step)
            if model.automatic_optimization:
                outputs["loss"].backward()
        counts.append(int(counter.get_total_flops()))
    return counts


def _whole() -> FlopCounterMode:
    """Counts the whole, and not module by module: for that it would hook a module's inputs, of which no gradient could
    then be asked for inside a step (R1, a gradient penalty)."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    return counter


class _NoModules(ModuleTracker):
    """Looks at none."""

    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@contextmanager
def _unfused() -> Iterator[None]:
    """Inside, each operation is computed in one way on every device: fused kernels hide products, or repeat some."""
    mkldnn: Any = torch.backends.mkldnn
    fast = mkldnn.enabled
    mkldnn.enabled = False  # its `flags` would also set what warns without a GPU of Intel's
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mkldnn.enabled = fast


class _Idle:
    """An optimiser that takes no step."""

    def __init__(self, optimiser: Optimizer) -> None:
        self.optimiser = optimiser

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimiser, name)

    def step(self, *_: Any, **__: Any) -> None:
        pass


def clock(device: torch.device) -> float:
    """Seconds on a clock, read once `device` has done all that it was asked to: a GPU is asked long before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def forget_peak_memory(device: torch.device) -> None:
    """From here on the peak counts. That of a process cannot be forgotten."""
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Most memory held at once so far, in bytes: of a GPU by this process, else the process's resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
