"""The device of a run: which one, and what it can do."""

from __future__ import annotations

from typing import Any

import torch

from benchmark.config import Experiment
from benchmark.loop import has_bfloat16
from benchmark.spec import BadInput


def device_named(name: str) -> torch.device:
    """The device `cpu`, `gpu`, or `auto`: the first GPU that the process may see, if there is one.

    Whoever computes on it computes float32 in full, in training and in scoring. Raises `BadInput` where there is none.
    """
    if name == "gpu" and not torch.cuda.is_available():
        raise BadInput("runtime.device=gpu, but torch finds no GPU: set runtime.device=cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    _switch_off_tf32()
    return torch.device("cuda", 0)


def _switch_off_tf32() -> None:
    """Of a float32 number, TF32 multiplies 10 bits of 23; cuDNN's convolutions do so unless told not to.

    By the older names of the flags: where only the newer ones are set, a library that reads an older one fails.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def in_bfloat16(experiment: Experiment, device: torch.device) -> bool:
    """Whether an experiment trains in bfloat16 there: if it asks for it, and the hardware has it."""
    return experiment.training.precision == "bfloat16" and has_bfloat16(device)


def described(device: torch.device, compiled: bool = False) -> dict[str, Any]:
    """What a record says of the device, beside the machine that it is in, and of how training used it."""
    said: dict[str, Any] = {
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "bfloat16": has_bfloat16(device),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
    if device.type == "cuda":
        said["device"] = torch.cuda.get_device_name(device)
        said["tf32"] = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return said | ({"compiled": True} if compiled else {})
