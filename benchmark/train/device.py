"""The device of a run: which one, and what it can do."""

from __future__ import annotations

from typing import Any

import torch

from benchmark.config import Experiment
from benchmark.loop import has_bfloat16
from benchmark.spec import BadInput


def device_named(name: str) -> torch.device:
    if name == "gpu" and not torch.cuda.is_available():
        raise BadInput("runtime.device=gpu, but torch finds no GPU: set runtime.device=cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def in_bfloat16(experiment: Experiment, device: torch.device) -> bool:
    """Whether an experiment trains in bfloat16 there: if it asks for it, and the hardware has it."""
    return experiment.training.precision == "bfloat16" and has_bfloat16(device)


def described(device: torch.device) -> dict[str, Any]:
    """What a record says of the device, beside the machine that it is in."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "bfloat16": has_bfloat16(device),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
