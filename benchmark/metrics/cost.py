"""What a model costs, in the units of `benchmark.facts`; who measures the times is the harness."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.facts import COSTS
from benchmark.spec import Score


def cost_score(name: str, value: float, protocol: Mapping[str, Any] = MappingProxyType({})) -> Score:
    """The cost called `name` at the version that is measured today."""
    fact = COSTS[name]
    return Score(fact.unit, fact.version, float(value), protocol=dict(protocol))


def parameters(module: nn.Module) -> int:
    """Numbers that gradients train. Frozen parts and moving averages do not count."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def flops(fn: Callable[[], Any]) -> int:
    """Floating-point operations of one call of `fn`, backward passes included: matrix products, convolutions and
    attention, two for each multiply-add; elementwise work is not counted."""
    with FlopCounterMode(display=False) as counter:
        fn()
    return int(counter.get_total_flops())


def peak_memory() -> int:
    """Most memory held at once so far, in bytes: the device's where CUDA is in use, else the process's resident set."""
    if torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
